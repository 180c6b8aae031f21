"""A daemon without the CUDA plug-in, as it is built where there is no toolkit."""
import models
from daemon import ENV
from test_planning import run


def test_without_the_plugin_backend_auto_serves_on_the_cpu_and_says_why(make, monkeypatch, tmp_path):
    monkeypatch.setitem(ENV, "GPULET_PLUGIN_DIR", str(tmp_path))
    d = make(backend="auto")
    o = d.admin_get("/v1/devices")
    assert [x["name"] for x in o["devices"]] == ["cpu0"] and f"{tmp_path}/gpulet-cuda.so" in o["no_gpu"]
    said = run("--server", f"unix:{d.socket}", "status")[0]
    assert f"no GPU: {o['no_gpu']}" in said and said.startswith("cpu0: "), said
    path = models.DATA / "digits-batch.onnx"
    d.put("digits", path.read_bytes())
    session = models.reference.open_session(path)
    inputs = models.reference.make_inputs(session, 3)
    models.reference.compare(d.infer_binary("digits", inputs), models.reference.run(session, inputs))


def test_without_the_plugin_backend_cuda_does_not_start_and_says_why(make, monkeypatch, tmp_path):
    monkeypatch.setitem(ENV, "GPULET_PLUGIN_DIR", str(tmp_path))
    d = make(backend="cuda", start=False).start(wait=False)
    assert d.wait() != 0
    assert f"{tmp_path}/gpulet-cuda.so" in d.log.read_text()


def test_with_the_default_backend_it_says_that_no_gpu_is_looked_for(make):
    d = make(backend="cpu")
    assert "no GPU: none is looked for, as device.backend is cpu and not auto\n" in run("--server", f"unix:{d.socket}", "status")[0]
