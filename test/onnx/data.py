#!/usr/bin/env python3
"""The test data inside the onnx wheel, as folders: data.py FOLDER

Node cases are made by the wheel itself; the "light" models, whose inputs its runner makes up, get
these inputs as files, and NAME/rtol where their tolerance is another.  FOLDER/done holds the wheel's version; what is there already is kept."""
import argparse
import json
import pathlib
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")  # the wheel's cases divide by zero on purpose
import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402
from onnx.backend.test import cmd_tools  # noqa: E402
from onnx.backend.test.runner import Runner  # noqa: E402

DATA = pathlib.Path(cmd_tools.DATA_DIR)


def write_generated(to):
    """Node and simple cases, and what the real ones are."""
    from onnx.backend.test.case import model, node

    everything = model.collect_testcases() + node.collect_testcases()
    cmd_tools.model_test.collect_testcases = lambda: everything
    cmd_tools.generate_data(argparse.Namespace(output=str(to)))


def write_light(to):
    """The models without weights: to/light/NAME, in the form of the others."""
    for case in sorted((to / "real").iterdir()):
        about = json.loads((case / "data.json").read_text())
        file = DATA / "light" / pathlib.Path(about["url"]).name
        if not file.exists():
            continue
        proto = onnx.load(file)
        data = to / "light" / case.name / "test_data_set_0"
        data.mkdir(parents=True)
        shutil.copy(file, data.parent / "model.onnx")
        known = {t.name for t in proto.graph.initializer}
        inputs = [x for x in proto.graph.input if x.name not in known]
        for i, x in enumerate(inputs):
            tensor = numpy_helper.from_array(Runner.generate_dummy_data(x), x.name)
            (data / f"input_{i}.pb").write_bytes(tensor.SerializeToString())
        if about["rtol"] != 1e-3:
            (data.parent / "rtol").write_text(str(about["rtol"]))
        shutil.copy(file.with_name(file.stem + "_output_0.pb"), data / "output_0.pb")
    shutil.rmtree(to / "real")


def main(to):
    done = to / "done"
    if done.exists() and done.read_text() == onnx.__version__:
        return
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    write_generated(to)
    write_light(to)
    for kind in ("pytorch-converted", "pytorch-operator"):
        shutil.copytree(DATA / kind, to / kind)
    done.write_text(onnx.__version__)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
