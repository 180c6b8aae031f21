"""What a precision costs: a model in bf16 is compared with fp32 when nothing has come for two seconds.

In fp16, on a fake of a GPU: test_cuda.py."""
import json
import re

import numpy as np
import pytest

import models
from daemon import until
from test_planning import ROOT, run
from test_precision import RESNET_PRODUCTS, Net, error, inputs_of, needs_bf16, quantised, resnet

pytestmark = needs_bf16


@pytest.fixture
def daemon(make):
    return make(backend="cpu")


def compared(daemon, name="half"):
    def there():
        return daemon.admin_get(f"/v1/models/{name}")["accuracy"]["state"] != "waiting"

    until(there, 60, f"model '{name}' is compared with fp32", daemon)
    return daemon.admin_get(f"/v1/models/{name}")["accuracy"]


def told(daemon):
    return [e["message"] for e in daemon.admin_get("/v1/events")["events"] if e["event"] == "accuracy"]


def kept(daemon):
    """The file, once the report is in it."""
    file = daemon.state / "profiles/half.json"
    until(lambda: "accuracy" in json.loads(file.read_text())["measured"], 20, "the report on disk", daemon)
    return file


def test_a_model_in_bf16_says_what_it_costs(daemon):
    """The report is of other inputs than the test's, of the same kind: the errors are alike."""
    daemon.put("whole", resnet())
    assert daemon.put("half", resnet(), "?precision=bf16")["accuracy"] == {"against": "fp32", "state": "waiting"}
    a = compared(daemon)
    (y,) = a.pop("outputs")
    assert a == {"against": "fp32", "state": "compared", "rows": 8, "inputs": "random", "seed": 1}
    assert set(y) == {"name", "max_error", "rms_error", "same_top", "entries", "overflowed"}
    section = (ROOT / "docs/api.md").read_text().split("### Accuracy")[1].split("\n##")[0]
    assert {*a, *y, "outputs", "same", "why"} <= set(re.findall(r"`(\w+)`", section)), "all members are documented"
    assert y["name"] == "y" and y["entries"] == 8 * 10 and y["overflowed"] == 0
    assert 0 < y["rms_error"] <= 3 * RESNET_PRODUCTS / 512 and y["max_error"] > 0
    assert 0 <= y["same_top"] <= 1 and (8 * y["same_top"]).is_integer()
    x = inputs_of(resnet, 8)
    seen = error(*(daemon.infer_binary(name, x)["y"] for name in ("half", "whole")))
    assert seen / 5 < y["rms_error"] < seen * 5
    (said,) = told(daemon)
    assert said.startswith("bf16 against fp32, 8 rows: output 'y' is off by ") and said in daemon.log.read_text()
    assert "bf16: output 'y' is off by " in run("--server", f"unix:{daemon.socket}", "status")[0]


def segments(side=48, width=64):
    """Convolutions that are run in several segments."""
    n = Net(3)
    x = n.conv("x", 3, width, 3)
    for _ in range(3):
        x = n.add("Relu", n.conv(x, width, width, 3))
    n.add("GlobalAveragePool", x)
    return n.bytes({"x": ("float32", ["batch", 3, side, side])}, ["batch", width, 1, 1])


def words(rows=30, width=32):
    """A table, a product, and where the mask is set, whose shape only a run tells."""
    rng = np.random.default_rng(4)
    table, w = (rng.standard_normal(s).astype(np.float32) for s in ((rows, width), (width, width)))
    nodes = [("Gather", ["table", "ids"], ["x"]), ("MatMul", ["x", "w"], ["y"]), ("NonZero", ["mask"], ["at"])]
    return models.onnx_model(
        nodes,
        {"ids": ("int64", [1, 8]), "mask": ("int64", [1, 8])},
        {"y": ("float32", [1, 8, width]), "at": ("int64", [2, "n"])},
        {"table": table, "w": w},
    )


def test_segments_indices_and_late_outputs_are_compared(daemon):
    assert daemon.put("half", segments(), "?precision=bf16&max_batch=1")["segments"] > 1
    daemon.put("words", words(), "?precision=bf16")
    a = compared(daemon)
    (y,) = a["outputs"]
    assert a["rows"] == 1 and 0 < y["rms_error"] <= 3 * 4 / 512 and "same_top" not in y
    y, at = compared(daemon, "words")["outputs"]
    assert y["name"] == "y" and y["entries"] == 8 * 32 and 0 < y["rms_error"] <= 3 / 512
    assert at["name"] == "at" and at["same"] == 1 and 0 < at["entries"] < 2 * 8 and "max_error" not in at


def test_after_a_restart_it_is_known_without_comparing_again(daemon):
    daemon.put("half", resnet(), "?precision=bf16")
    a = compared(daemon)
    kept(daemon)
    daemon.stop()
    daemon.start()
    assert daemon.admin_get("/v1/models/half")["accuracy"] == a and not told(daemon)
    assert daemon.admin("PATCH", "/v1/models/half?precision=fp32").status == 200
    assert "accuracy" not in daemon.admin_get("/v1/models/half")


def test_a_report_that_cannot_be_is_named_and_made_again(daemon):
    daemon.put("half", resnet(), "?precision=bf16")
    a = compared(daemon)
    file = kept(daemon)
    for row in ([9, 80, 0, 0.1, 0.1, 0, 1], [0, 80, 81, 0.1, 0.1, 0, 1]):  # no such kind; more than there are
        daemon.kill()
        o = json.loads(file.read_text())
        o["measured"]["accuracy"]["outputs"][0] = row
        file.write_text(json.dumps(o))
        daemon.start()
        (why,) = [e["message"] for e in daemon.admin_get("/v1/events")["events"] if "measured again" in e["message"]]
        assert "measured.accuracy.outputs[0]" in why
        assert compared(daemon) == a
        kept(daemon)


def test_a_comparison_that_ended_the_process_is_begun_again_only_when_asked_for(daemon):
    """The file is as the engine leaves it (test_engine_accuracy.c)."""
    daemon.put("half", resnet(), "?precision=bf16")
    a = compared(daemon)
    kept(daemon)
    daemon.stop()
    begun = daemon.state / "profiles/half.begun"
    assert not begun.exists()
    (daemon.state / "profiles/half.json").unlink()
    begun.write_text("1\n")
    for _ in range(2):
        daemon.start()
        assert compared(daemon) == {
            "against": "fp32",
            "state": "impossible",
            "why": "the process ended while it was compared",
        }
        assert told(daemon) == ["bf16 cannot be compared with fp32: the process ended while it was compared"]
        daemon.stop()
        assert begun.exists()
    daemon.start()
    for what in ("unload", "load"):
        assert daemon.admin("POST", f"/v2/repository/models/half/{what}").status == 200
    assert compared(daemon) == a
    assert not begun.exists()
    begun.write_text("1\n")
    assert daemon.admin("DELETE", "/v1/models/half").status in (200, 204)
    assert not begun.exists()


def test_a_model_in_fp32_or_int8_has_no_report(daemon, tmp_path):
    for name, data, query in (("plain", resnet(), ""), ("q", quantised(resnet(), tmp_path), "?precision=int8")):
        assert "accuracy" not in daemon.put(name, data, query)


def test_gpuletctl_says_why_it_could_not_be_compared(make):
    """Outputs of both have more than an eighth of the memory of requests."""
    d, n, width = make(backend="cpu", config={("limits", "host-bytes"): "64M"}), Net(6), 1 << 20
    n.add("MatMul", "x", n.weights(4, width))
    d.put("half", n.bytes({"x": ("float32", ["batch", 4])}, ["batch", width]), "?precision=bf16&max_batch=1")
    a = compared(d)
    assert a["state"] == "impossible" and "outputs" not in a
    assert a["why"] == "inputs and outputs of one row have 8388672 bytes, the limit is 8388608"
    assert told(d) == [f"bf16 cannot be compared with fp32: {a['why']}"]
    assert told(d)[0] in run("--server", f"unix:{d.socket}", "status")[0]
