"""The daemon with the real CUDA plug-in on a fake driver (test/gpu/fake.h): its kernels run on the host.

What this cannot show: anything of a GPU's."""
import http.client
import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import models
import test_late
from daemon import ENV, GPULETD, until
from test_planning import ROOT, run, run_json
from test_state import metric_pending

sys.path.insert(0, str(models.MODELS))
import detector  # noqa: E402

FOLDER = GPULETD.parent
pytestmark = pytest.mark.skipif(not (FOLDER / "gpulet-cuda.so").exists(), reason="no CUDA toolkit")
LIBRARIES = [("cuBLASLt", "products"), ("cuDNN", "convolutions")]
DIGITS = (models.DATA / "digits-batch.onnx").read_bytes()


@pytest.fixture
def gpu(make, monkeypatch):
    """gpu("gpus=1", mode="green", backend="cuda"): a daemon on a machine of this kind."""

    def machine(fake, mode="auto", backend="cuda", start=True, libraries=True):
        folder = str(FOLDER / "test" / "gpu")
        monkeypatch.setitem(ENV, "LD_LIBRARY_PATH", folder if libraries else f"{folder}/without:{folder}")
        monkeypatch.setitem(ENV, "GPULET_PLUGIN_DIR", str(FOLDER))
        monkeypatch.setitem(ENV, "FAKE_GPU", fake)
        monkeypatch.setitem(ENV, "FAKE_GPU_STRICT", "NVML")  # opened before there is a context
        return make(backend=backend, start=start, config={("device", "partition-mode"): mode})

    return machine


def digits(n):
    return models.reference.make_inputs(models.reference.open_session(models.DATA / "digits-batch.onnx"), n)


def right(inputs):
    return models.reference.run(models.reference.open_session(models.DATA / "digits-batch.onnx"), inputs)


@pytest.mark.parametrize("mode, fake", [("green", "gpus=1"), ("mps", "gpus=1 mps=1"), ("shared", "gpus=1"), ("auto", "gpus=2")])
def test_a_model_answers_as_onnx_runtime_does(gpu, mode, fake):
    d = gpu(fake, mode)
    found = d.admin_get("/v1/devices")["devices"]
    assert [x["name"] for x in found] == ["gpu0", "gpu1"][: len(found)] and len(found) == int(fake[5])
    assert found[0]["mode"] == ("green" if mode == "auto" else mode) and found[0]["kind"] == "fake GPU"
    d.put("digits", DIGITS)
    inputs = digits(5)
    models.reference.compare(d.infer_binary("digits", inputs), right(inputs))


def test_two_models_have_gpulets_of_their_own_sms(gpu):
    d = gpu("gpus=1", "green")
    for name in ("one", "two"):
        d.put(name, DIGITS, "?slo_ms=2000&rate_rps=1")
    inputs = digits(2)
    for name in ("one", "two"):
        models.reference.compare(d.infer_binary(name, inputs), right(inputs))
    lets = d.admin_get("/v1/gpulets")["gpulets"]
    taken = [g for x in lets for g in x["granules"]]
    assert len(taken) == len(set(taken)) and {m["model"] for x in lets for m in x["models"]} == {"one", "two"}


def test_a_plan_leaves_mps_contexts_for_the_next_one(gpu):
    """Two plans that have no gpu-let in common, each with as many as may be: all of them are open at once."""
    d = gpu("gpus=1 mps=1", "mps")
    most = d.admin_get("/v1/devices")["devices"][0]["max_lets"]
    assert 0 < most < 30
    d.put("digits", DIGITS, "?slo_ms=5000")
    inputs = digits(1)

    def pin(n, size):
        lets = [{"device": "gpu0", "granules": list(range(i * size, (i + 1) * size)), "models": [{"model": "digits"}]} for i in range(n)]
        return d.admin("PUT", "/v1/plan", {"gpulets": lets})

    for size in (1, 2):
        r = pin(most, size)
        assert r.status == 200, r.body
        assert len([g for g in d.admin_get("/v1/plan")["gpulets"] if g["state"] == "serving"]) == most
        models.reference.compare(d.infer_binary("digits", inputs), right(inputs))
    refused = pin(most + 1, 2)
    assert refused.status >= 400 and f"{most + 1} gpu-lets, the limit is {most}" in json.loads(refused.body)["error"]


def test_no_request_is_lost_while_the_gpu_is_cut_anew(gpu):
    d = gpu("gpus=1", "green")
    d.put("first", DIGITS, "?slo_ms=5000")
    inputs, wanted, over, failures, n = digits(1), right(digits(1)), threading.Event(), [], [0]

    def load():
        while not over.is_set():
            try:
                models.reference.compare(d.infer_binary("first", inputs), wanted)
                n[0] += 1
            except AssertionError as e:
                failures.append(e)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for t in threads:
        t.start()
    for k in range(4):
        d.put(f"other{k}", DIGITS, "?slo_ms=5000&rate_rps=5")
    assert d.admin("DELETE", "/v1/models/other0").status == 200
    over.set()
    for t in threads:
        t.join()
    assert not failures and n[0] > 0, failures[:3]


def test_what_was_measured_of_the_libraries_is_kept_and_may_be_lost(gpu):
    d = gpu("gpus=1", "green")
    d.put("digits", DIGITS)
    kept = list((d.state / "algorithms").iterdir())
    assert [p.name for p in kept] == ["fake-GPU-sm_90-CUDA-13.0-driver-580.65.06-cuBLASLt-13.1.0-cuDNN-9.19.0"]
    d.stop()
    size = kept[0].stat().st_size
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    d.start()
    until(lambda: kept[0].stat().st_size >= size, 60, "it is measured again", d)
    models.reference.compare(d.infer_binary("digits", digits(2)), right(digits(2)))


@pytest.mark.parametrize("private", [0, 1])
def test_a_copy_of_the_weights_for_each_context_is_said_and_planned_for(gpu, private):
    d = gpu(f"gpus=1 mps=1 vmm_private={private}", "mps")
    d.put("digits", DIGITS)
    device = d.admin_get("/v1/devices")["devices"][0]
    assert device["weights_shared"] == (not private)
    assert ("each context has its own weights" in device["why"]) == bool(private)
    assert d.admin_get("/v1/problem")["models"][0].get("weights_per_let", False) == bool(private)
    models.reference.compare(d.infer_binary("digits", digits(3)), right(digits(3)))


def test_sigterm_under_load_answers_everything_accepted_on_a_gpu(gpu):
    d = gpu("gpus=1", "green")
    d.put("digits", DIGITS, "?max_batch=8")
    inputs, wanted, answered, failures, n = digits(8), right(digits(8)), [], [], 12

    def ask():
        try:
            models.reference.compare(d.infer_binary("digits", inputs), wanted)
            answered.append(1)
        except (AssertionError, OSError) as e:
            failures.append(e)

    threads = [threading.Thread(target=ask) for _ in range(n)]
    for t in threads:
        t.start()
    until(lambda: len(answered) + len(failures) + metric_pending(d) >= n, 20, "all requests to be accepted", d)
    d.signal(signal.SIGTERM)
    for t in threads:
        t.join()
    assert d.wait() == 0 and not failures and len(answered) == n, failures[:3]


@pytest.mark.parametrize("libraries", [True, False])
def test_libraries_that_are_missing_are_named_and_models_answer_alike(gpu, libraries):
    d = gpu("gpus=1", libraries=libraries)
    found = d.admin_get("/v1/devices")["devices"][0]
    if "built without" in found["why"]:
        pytest.skip(found["why"])
    status = run("--server", f"unix:{d.socket}", "status")[0]
    for name, nodes in LIBRARIES:
        missing = f"{nodes} by plain kernels, no {name}: "
        assert (name in found["library"]) == libraries
        for text in (found["why"], status, d.log.read_text()):
            assert (missing in text) != libraries, text
    plain = d.put("digits", DIGITS)["plain_steps"]
    assert (plain == 0) == libraries
    inputs = digits(5)
    models.reference.compare(d.infer_binary("digits", inputs), right(inputs))


@pytest.mark.parametrize("precision, tolerance", [("fp16", 1e-2), ("bf16", 6e-2)])
def test_a_model_answers_in_half_the_bits(gpu, precision, tolerance):
    d = gpu("gpus=1")
    if "built without" in d.admin_get("/v1/devices")["devices"][0]["why"]:
        pytest.skip("no headers of the libraries")
    m = d.put("half", DIGITS, f"?precision={precision}")
    assert m["precision"] == precision and m["precision_nodes"] > 0
    inputs = digits(5)
    got, want = d.infer_binary("half", inputs), right(inputs)
    for name, value in want.items():
        assert abs(got[name] - value).max() <= tolerance * abs(value).max()
    assert d.admin("PATCH", "/v1/models/half?precision=fp32").status == 200
    models.reference.compare(d.infer_binary("half", inputs), want)


def products(factor):
    """y = tanh((x a) b); x a, which is kept in 16 bits, is some 8 * factor."""
    rng = np.random.default_rng(5)
    a = (rng.standard_normal((64, 32)) * factor).astype(np.float32)
    b = (rng.standard_normal((32, 10)) / (64 * factor)).astype(np.float32)
    nodes = [("MatMul", ["x", "a"], ["u"]), ("MatMul", ["u", "b"], ["v"]), ("Tanh", ["v"], ["y"])]
    return models.onnx_model(nodes, {"x": ("float32", ["batch", 64])}, {"y": ("float32", ["batch", 10])}, {"a": a, "b": b})


def compared(d, name):
    """What is said of its only output, and the event."""
    until(lambda: d.admin_get(f"/v1/models/{name}")["accuracy"]["state"] != "waiting", 60, f"'{name}' is compared", d)
    (y,) = d.admin_get(f"/v1/models/{name}")["accuracy"]["outputs"]
    (said,) = [e for e in d.admin_get("/v1/events")["events"] if e["event"] == "accuracy" and e["model"] == name]
    return y, said


def test_numbers_too_large_for_fp16_are_told_and_bf16_has_room(gpu):
    """Of a product both operands and the result are rounded, by half of the last bit each; two products, and as
    much again as the largest of 80 results may be off by more than the mean."""
    d = gpu("gpus=1")
    if "built without" in d.admin_get("/v1/devices")["devices"][0]["why"]:
        pytest.skip("no headers of the libraries")
    for name, precision, factor in (("small", "fp16", 1), ("large", "fp16", 1e4), ("wide", "bf16", 1e4)):
        d.put(name, products(factor), f"?precision={precision}")
    for name, bits in (("small", 11), ("wide", 8)):
        y, said = compared(d, name)
        assert 0 < y["max_error"] <= 2 * 6 * 2**-bits and y["overflowed"] == 0 and said["level"] == 6
    y, said = compared(d, "large")
    finding = f"output 'y': {y['overflowed']} of 80 entries are not finite in fp16"
    assert y["overflowed"] > 0 and said["level"] == 4 and said["message"].startswith(finding + ", but in fp32")
    assert finding in run("--server", f"unix:{d.socket}", "status")[0]


def test_half_the_bits_without_libraries_are_refused_by_name(gpu):
    error = gpu("gpus=1", libraries=False).put("half", DIGITS, "?precision=fp16", status=400)
    assert "precision 'fp16': there is neither cuBLASLt nor cuDNN" in error


def test_a_detector_answers_as_onnx_runtime_does_and_its_neighbour_too(gpu, tmp_path):
    d, path = gpu("gpus=1"), tmp_path / "detector.onnx"
    path.write_bytes(detector.detector())
    assert d.put("detector", path.read_bytes())["late_nodes"] > 0
    d.put("digits", DIGITS)
    session, sizes = models.reference.open_session(path), set()
    for seed in range(6):
        inputs = {"x": np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32)}
        got, want = d.infer_binary("detector", inputs), models.reference.run(session, inputs)
        np.testing.assert_array_equal(got["picked"], want["picked"])
        models.reference.compare({k: got[k] for k in ("chosen", "scores")}, {k: want[k] for k in ("chosen", "scores")})
        sizes.add(len(want["picked"]))
        models.reference.compare(d.infer_binary("digits", digits(2)), right(digits(2)))
    assert len(sizes) > 1 and 0 not in sizes, sizes


def test_a_loop_that_would_never_end_fails_alone_on_a_gpu(gpu):
    d = gpu("gpus=1")
    d.put("twice", test_late.doubling())
    error = d.infer("twice", {"x": np.array([[2e9, 0, 0]], np.float32)}, status=400)
    assert "iterations" in error, error
    np.testing.assert_array_equal(d.infer_binary("twice", {"x": np.array([[3, 1, -2]], np.float32)})["y"], [[24, 8, -16]])


@pytest.mark.parametrize("refused", [0, 1])
def test_what_cannot_be_captured_is_said_once_and_models_answer_alike(gpu, refused):
    d = gpu(f"gpus=1 capture_refused={refused}")
    d.put("digits", DIGITS)
    inputs = digits(5)
    models.reference.compare(d.infer_binary("digits", inputs), right(inputs))
    said = [e for e in d.admin_get("/v1/events")["events"] if "launched step by step" in e["message"]]
    assert len(said) == refused and all(e["model"] == "digits" for e in said), said


def test_a_copy_that_fails_fails_its_request_with_gpulet_and_model(gpu, monkeypatch):
    monkeypatch.setitem(ENV, "FAKE_GPU_FAIL", "cuMemcpyHtoDAsync")  # which without weights only a request calls
    d = gpu("gpus=1")
    d.put("wide", models.onnx_model(
        [("Relu", ["x"], ["y"])], {"x": ("float32", ["batch", 4])}, {"y": ("float32", ["batch", 4])}))
    x = np.arange(-2, 2, dtype=np.float32).reshape(1, -1)
    error = d.infer_binary("wide", {"x": x}, status=500)
    gpulet = d.admin_get("/v1/gpulets")["gpulets"][0]["id"]
    assert f"model 'wide': the run could not be started on gpu-let {gpulet}" in error
    said = [e for e in d.admin_get("/v1/events")["events"] if e["event"] == "run"]
    assert [(e["model"], e["gpulet"]) for e in said] == [("wide", gpulet)], said
    assert (d.infer_binary("wide", {"x": x})["y"] == np.maximum(x, 0)).all()


def test_an_error_that_no_process_survives_ends_the_daemon_with_70_and_names_gpulet_and_model(gpu, monkeypatch):
    monkeypatch.setitem(ENV, "FAKE_GPU_FAIL", "cuMemcpyHtoDAsync")
    d = gpu("gpus=1 fail_code=700")
    d.put("wide", models.onnx_model(
        [("Relu", ["x"], ["y"])], {"x": ("float32", ["batch", 4])}, {"y": ("float32", ["batch", 4])}))
    gpulet = d.admin_get("/v1/gpulets")["gpulets"][0]["id"]
    try:
        d.infer_binary("wide", {"x": np.zeros((1, 4), np.float32)}, status=503)
    except (OSError, http.client.HTTPException):
        pass  # it has left before it could answer
    assert d.wait() == 70
    assert f"gpu-let {gpulet} lost its device while running model 'wide'; leaving to be restarted" in d.log.read_text()


@pytest.mark.parametrize("greatest, says", [(-5, "runs on streams of 6 priorities"),
                                            (0, "all runs on one stream: the driver offers one priority")])
def test_how_many_priorities_a_shared_gpu_has_is_said(gpu, greatest, says):
    d = gpu(f"gpus=1 greatest={greatest}", "shared")
    assert says in d.admin_get("/v1/devices")["devices"][0]["why"]
    assert says in d.log.read_text()


def test_an_operator_that_is_missing_refuses_the_model_by_name(gpu):
    d = gpu("gpus=1")
    error = d.put("det", models.onnx_model(
        [("Det", ["x"], ["y"])], {"x": ("float32", ["batch", 4, 4])}, {"y": ("float32", ["batch"])}), status=400)
    assert "Det_0" in error and "(Det): not in the cuda backend yet" in error, error


def test_without_a_gpu_backend_cuda_does_not_start_and_says_why(gpu):
    d = gpu("gpus=0", start=False).start(wait=False)
    assert d.wait() != 0
    assert "backend 'cuda': cuInit: CUDA_ERROR_NO_DEVICE" in d.log.read_text()


def test_without_a_gpu_backend_auto_serves_on_the_cpu_and_says_why(gpu):
    d = gpu("gpus=0", backend="auto")
    o = d.admin_get("/v1/devices")
    assert [x["name"] for x in o["devices"]] == ["cpu0"] and "CUDA_ERROR_NO_DEVICE" in o["no_gpu"]
    assert "no GPU: backend 'cuda': cuInit: CUDA_ERROR_NO_DEVICE" in run("--server", f"unix:{d.socket}", "status")[0]
    d.put("digits", DIGITS)
    inputs = digits(1)
    models.reference.compare(d.infer_binary("digits", inputs), right(inputs))


def test_with_a_gpu_backend_auto_takes_it(gpu):
    o = gpu("gpus=1", backend="auto").admin_get("/v1/devices")
    assert [x["name"] for x in o["devices"]] == ["gpu0"] and "no_gpu" not in o


def test_a_mode_that_is_named_and_cannot_be_had_does_not_start(gpu):
    d = gpu("gpus=1", "mps", start=False).start(wait=False)
    assert d.wait() != 0
    assert "partition-mode 'mps': this process is not a client of MPS" in d.log.read_text()


def test_a_reload_does_not_disturb_a_gpu_that_serves(gpu):
    d = gpu("gpus=1", "green")
    d.put("digits", DIGITS)
    inputs = digits(1)
    for _ in range(5):
        d.signal(signal.SIGHUP)
        models.reference.compare(d.infer_binary("digits", inputs), right(inputs))


def test_what_was_measured_on_a_gpu_is_planned_with_and_replayed_elsewhere(gpu, tmp_path):
    d = gpu("gpus=1", "green")
    for name in ("one", "two"):
        d.put(name, DIGITS, "?slo_ms=2000&rate_rps=2&max_batch=4")
    (tmp_path / "running.json").write_text(d.admin("GET", "/v1/problem").body.decode())
    measured = {m["name"]: m["profile"]["gpu0"] for m in d.admin_get("/v1/problem")["models"]}
    assert all(len(p["batch"]) > 1 and len(p["units"]) > 1 for p in measured.values())
    d.stop()
    file = tmp_path / "h200.json"
    file.write_text(subprocess.run([ROOT / "test/plan/convert_saved.py", tmp_path / "running.json", "h200", "2"], capture_output=True,
                                   check=True, text=True).stdout)
    kept = json.loads(file.read_text())
    assert [t["name"] for t in kept["types"]] == ["h200"] and kept["types"][0]["granules"] == 16
    for m in kept["models"]:
        assert m["profile"]["h200"]["batch"] == measured[m["name"]]["batch"] and m["slo_ms"] == 2000 and m["rate_rps"] == 2
        assert np.allclose(m["profile"]["h200"]["run_ms"], measured[m["name"]]["run_ms"])
    plan = run_json("plan", file)
    assert {x["device"] for x in plan["gpulets"]} <= {"h200-0", "h200-1"}
    assert {s["model"] for x in plan["gpulets"] for s in x["shares"]} == {"one", "two"}
    replayed = run_json("simulate", file, "--duration", 60)
    assert replayed["offered"] > 100 and replayed["in_time_share"] > 0.99
