"""The graphs that torchvision's networks export to, on the cpu backend against ONNX Runtime.

FULL=1 tests one of each family, otherwise a few small ones.  The weights are seeded."""
import os
import subprocess
import sys

import numpy as np
import pytest

import models

sys.path.insert(0, str(models.MODELS))
import zoo  # noqa: E402

SMALL = ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_0", "ssdlite320_mobilenet_v3_large"]
NAMES = list(zoo.MODELS) if os.environ.get("FULL") == "1" else SMALL


@pytest.fixture(scope="module")
def daemon(make_shared):
    return make_shared(backend="cpu", config={("http", "body-bytes"): "256M", ("limits", "timeout-ms"): 120000})


def inputs_of(session, batch):
    rng = np.random.default_rng(7)
    shape = [d if isinstance(d, int) else batch for d in session.get_inputs()[0].shape]
    make = rng.random if shape[0] == 1 else rng.standard_normal  # detectors take what images are
    return {"x": make(shape).astype(np.float32)}


def compare_detections(ours, theirs):
    """Boxes y0, scores y1, labels y2, by descending score.  Two whose scores are equal but for rounding may
    stand in either order, so each is looked for among those with its score."""
    models.reference.compare({"y1": ours["y1"]}, {"y1": theirs["y1"]})
    left = list(range(len(theirs["y1"])))
    for box, score, label in zip(ours["y0"], ours["y1"], ours["y2"]):
        near = [k for k in left if theirs["y2"][k] == label and abs(theirs["y1"][k] - score) <= 1e-5 * score]
        near = [k for k in near if np.abs(theirs["y0"][k] - box).max() <= models.reference.TOLERANCE * 320]
        assert near, f"nothing like box {box}, score {score}, label {label}"
        left.remove(near[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_torchvision_answers_as_onnx_runtime_does(daemon, name, tmp_path):
    command = [sys.executable, str(models.MODELS / "zoo.py"), str(tmp_path), name]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}  # other tests run beside this one
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=one)
    path = tmp_path / f"{name}.onnx"
    daemon.put(name, path.read_bytes())
    try:
        session = models.reference.open_session(path)
        free = not isinstance(session.get_inputs()[0].shape[0], int)
        for batch in (1, 3) if free else (1,):
            inputs = inputs_of(session, batch)
            theirs = models.reference.run(session, inputs)
            compare = models.reference.compare if free else compare_detections
            compare(daemon.infer_binary(name, inputs), theirs)
    finally:
        assert daemon.admin("DELETE", f"/v1/models/{name}").status == 200
        path.unlink()
