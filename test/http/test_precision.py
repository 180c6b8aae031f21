"""precision = bf16 | int8 on the cpu backend, over HTTP."""
import json
import pathlib
import threading

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import daemon as daemons
import models
from test_planning import run, run_json

FLAGS = pathlib.Path("/proc/cpuinfo").read_text()
HAS_BF16 = "avx512_bf16" in FLAGS or "amx_bf16" in FLAGS
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16")


@pytest.fixture(scope="module")
def daemon(make_shared):
    return make_shared(backend="cpu")


class Net:
    """Nodes and seeded constants, one after the other."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants = [], {}

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def weights(self, *shape):
        inner = np.prod(shape[1:]) if len(shape) != 2 else shape[0]
        return self.constant((self.rng.standard_normal(shape) * np.sqrt(2 / inner)).astype(np.float32))

    def add(self, op, *inputs, **attributes):
        out = f"{op}{len(self.nodes)}"
        self.nodes.append((op, list(inputs), [out], attributes))
        return out

    def conv(self, x, c_in, c_out, side, stride=1):
        bias = self.constant(self.rng.standard_normal(c_out).astype(np.float32) * 0.1)
        pads = [side // 2] * 4
        return self.add("Conv", x, self.weights(c_out, c_in, side, side), bias, pads=pads, strides=[stride] * 2)

    def bytes(self, inputs, output):
        last = self.nodes[-1]
        self.nodes[-1] = (last[0], last[1], ["y"], last[3])
        return models.onnx_model(self.nodes, inputs, {"y": ("float32", output)}, self.constants)


RESNET_PRODUCTS = 8
BERT_PRODUCTS = 2 * 6


def resnet():
    """A stem and two bottleneck blocks, as in ResNet-50; 7 convolutions and a product, 5 in a row."""
    n = Net(1)
    x = n.add("Relu", n.conv("x", 3, 32, 7, 2))
    x = n.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for _ in range(2):
        y = n.add("Relu", n.conv(x, 32, 16, 1))
        y = n.add("Relu", n.conv(y, 16, 16, 3))
        x = n.add("Relu", n.add("Add", n.conv(y, 16, 32, 1), x))
    x = n.add("Flatten", n.add("GlobalAveragePool", x))
    n.add("Gemm", x, n.weights(10, 32), n.constant(np.zeros(10, np.float32)), transB=1)
    return n.bytes({"x": ("float32", ["batch", 3, 64, 64])}, ["batch", 10])


def norm(n, x, width):
    one, zero = np.ones(width, np.float32), np.zeros(width, np.float32)
    return n.add("LayerNormalization", x, n.constant(one), n.constant(zero), axis=-1)


def bert(width=64, heads=4, layers=2):
    """Two encoder layers: six products by weights in each."""
    n = Net(2)
    x, shape = "x", n.constant(np.array([0, 0, heads, width // heads]))
    flat = n.constant(np.array([0, 0, width]))

    def linear(x, i, o):
        bias = n.constant(n.rng.standard_normal(o).astype(np.float32) * 0.1)
        return n.add("Add", n.add("MatMul", x, n.weights(i, o)), bias)

    for _ in range(layers):
        q, k, v = (n.add("Reshape", linear(x, width, width), shape) for _ in range(3))
        q, v = (n.add("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        scores = n.add("MatMul", q, n.add("Transpose", k, perm=[0, 2, 3, 1]))
        scores = n.add("Softmax", n.add("Mul", scores, n.constant(np.float32(0.25))), axis=-1)
        context = n.add("Transpose", n.add("MatMul", scores, v), perm=[0, 2, 1, 3])
        x = norm(n, n.add("Add", linear(n.add("Reshape", context, flat), width, width), x), width)
        inner = n.add("Gelu", linear(x, width, 4 * width))
        x = norm(n, n.add("Add", linear(inner, 4 * width, width), x), width)
    return models.onnx_model(
        [(*m[:2], ["y"] if m is n.nodes[-1] else m[2], *m[3:]) for m in n.nodes],
        {"x": ("float32", ["batch", 12, width])},
        {"y": ("float32", ["batch", 12, width])},
        n.constants,
        opset=20,
    )


def inputs_of(net, batch):
    shape = (batch, 3, 64, 64) if net is resnet else (batch, 12, 64)
    return {"x": np.random.default_rng(batch).standard_normal(shape).astype(np.float32)}


VNNI = "vnni" in pathlib.Path("/proc/cpuinfo").read_text()


def quantised(data, tmp_path, per_channel=True):
    """The model as ONNX Runtime's own tool quantises it, with QuantizeLinear and DequantizeLinear.  Where the CPU
    has no sums of bytes in 32 bits (VNNI), 16 bits hold two products of 7-bit weights only."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter([inputs_of(resnet, b) for b in (2, 3)])

        def get_next(self):
            return next(self.left, None)

    plain, out = tmp_path / "plain.onnx", tmp_path / "qdq.onnx"
    plain.write_bytes(data)
    quantize_static(plain, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel, reduce_range=not VNNI)
    return out.read_bytes()


def error(got, want):
    """Of the whole tensor, by its own size."""
    return float(np.linalg.norm((got - want).astype(np.float64)) / np.linalg.norm(want.astype(np.float64)))


# ---- bf16


@needs_bf16
@pytest.mark.parametrize("net, products", [(resnet, RESNET_PRODUCTS), (bert, BERT_PRODUCTS)])
def test_bf16_answers_as_fp32_does_but_for_its_rounding(daemon, net, products):
    """A product rounds both operands and its result by 2^-9 at most of each number; products, Relu, norms and
    sums keep the ratio of such an error to the whole, so all of them together do at most 3 * products * 2^-9."""
    daemon.put("whole", net())
    m = daemon.put("half", net(), "?precision=bf16")
    assert m["precision"] == "bf16"
    assert m["precision_nodes"] == products
    x = inputs_of(net, 3)
    want, got = (daemon.infer_binary(name, x)["y"] for name in ("whole", "half"))
    assert 0 < error(got, want) <= 3 * products / 512
    again = daemon.infer_binary("half", {"x": x["x"][[1, 1, 0]]})["y"]
    assert np.array_equal(again, got[[1, 1, 0]]), "a row depends on its companions"
    for name in ("whole", "half"):
        daemon.admin("DELETE", f"/v1/models/{name}")


@needs_bf16
def test_a_change_of_precision_loses_no_request(daemon):
    daemon.put("m", resnet())
    x = inputs_of(resnet, 1)
    whole = daemon.infer_binary("m", x)["y"]
    before = daemon.admin_get("/v1/models/m")
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(daemon.infer_binary("m", x)["y"])

    asking = threading.Thread(target=ask)
    asking.start()
    r = daemon.admin("PATCH", "/v1/models/m?precision=bf16")
    assert r.status == 200, r.body
    half = daemon.infer_binary("m", x)["y"]
    r = daemon.admin("PATCH", "/v1/models/m", {"precision": "fp32"})
    assert r.status == 200, r.body
    stop.set()
    asking.join()
    assert not np.array_equal(half, whole)
    assert np.array_equal(daemon.infer_binary("m", x)["y"], whole)
    assert answers and all(np.array_equal(y, whole) or np.array_equal(y, half) for y in answers)
    after = daemon.admin_get("/v1/models/m")
    assert after["version"] == before["version"] and after["hash"] == before["hash"]
    assert after["success"] == before["success"] + len(answers) + 2, "the counters go on"
    daemon.admin("DELETE", "/v1/models/m")


@needs_bf16
def test_the_precision_is_there_after_a_restart(make):
    d = make(backend="cpu")
    d.put("m", resnet(), "?precision=bf16")
    half = d.infer_binary("m", inputs_of(resnet, 1))["y"]
    assert json.loads((d.state / "models/m/model.json").read_text())["precision"] == "bf16"
    d.stop()
    d.start()
    assert d.admin_get("/v1/models/m")["precision"] == "bf16"
    assert np.array_equal(d.infer_binary("m", inputs_of(resnet, 1))["y"], half)


def test_bf16_on_a_cpu_without_it_is_refused_by_name(make, monkeypatch):
    """ONEDNN_MAX_CPU_ISA hides what the CPU has."""
    monkeypatch.setitem(daemons.ENV, "ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    d = make(backend="cpu")
    d.put("m", resnet())
    said = d.put("half", resnet(), "?precision=bf16", status=400)
    assert "bf16" in said and "AVX512_BF16" in said
    r = d.admin("PATCH", "/v1/models/m?precision=bf16")
    assert r.status == 400 and b"AVX512_BF16" in r.body
    assert d.admin_get("/v1/models/m")["precision"] == "fp32"
    d.infer_binary("m", inputs_of(resnet, 1))


# ---- int8


def test_int8_answers_as_onnx_runtime_does_within_a_quantum(daemon, tmp_path):
    """Both sum bytes exactly; where a scaled sum lies between two bytes the order of the scaling decides, and
    a byte that falls to the other side may move later ones: two quanta of the result at most here."""
    data = quantised(resnet(), tmp_path)
    path = tmp_path / "qdq.onnx"
    m = daemon.put("q", data, "?precision=int8")
    assert m["precision"] == "int8"
    assert m["precision_nodes"] == RESNET_PRODUCTS + 2  # and two additions
    x = inputs_of(resnet, 3)
    got = daemon.infer_binary("q", x)["y"]
    want = models.reference.run(models.reference.open_session(path), x)["y"]
    quantum = output_scale(data)
    assert np.abs(got - want).max() <= 2.001 * quantum
    assert np.mean(np.abs(got - want) > 0.001 * quantum) < 0.2
    one = daemon.infer_binary("q", {"x": x["x"][1:2]})["y"]
    assert np.array_equal(one[0], got[1]), "a row depends on its companions"


def output_scale(data):
    m = onnx.load_from_string(data)
    constants = {c.name: numpy_helper.to_array(c) for c in m.graph.initializer}
    last = next(n for n in m.graph.node if m.graph.output[0].name in n.output)
    assert last.op_type == "DequantizeLinear"
    return float(constants[last.input[1]].reshape(-1)[0])


def test_without_int8_a_quantised_model_runs_as_its_nodes_say(daemon, tmp_path):
    daemon.put("q32", quantised(resnet(), tmp_path, per_channel=False))
    m = daemon.admin_get("/v1/models/q32")
    assert m["precision"] == "fp32" and "precision_nodes" not in m
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "qdq.onnx", options, providers=["CPUExecutionProvider"])
    x = inputs_of(resnet, 2)
    want = session.run(None, x)[0]
    assert np.abs(daemon.infer_binary("q32", x)["y"] - want).max() <= 2.001 * output_scale((tmp_path / "qdq.onnx").read_bytes())


def test_int8_for_a_model_that_is_not_quantised_is_refused_by_name(daemon):
    said = daemon.put("plain", resnet(), "?precision=int8", status=400)
    assert "int8" in said and "QuantizeLinear" in said
    daemon.put("plain", resnet())
    r = daemon.admin("PATCH", "/v1/models/plain?precision=int8")
    assert r.status == 400 and b"QuantizeLinear" in r.body
    assert daemon.admin_get("/v1/models/plain")["precision"] == "fp32"


# ---- surfaces


def test_a_name_that_is_no_precision_is_refused(daemon):
    said = daemon.put("m", resnet(), "?precision=fp8", status=400)
    assert "fp8" in said and "fp32, fp16, bf16 or int8" in said


def test_fp16_on_a_cpu_is_refused_by_name(daemon):
    said = daemon.put("m", resnet(), "?precision=fp16", status=400)
    assert "precision 'fp16': the cpu backend has fp32, bf16 and int8" in said


def test_the_sim_backend_refuses_another_than_fp32_by_name(make):
    d = make()
    assert "bf16" in d.put("m", models.identity(), "?precision=bf16", status=400)


@needs_bf16
def test_gpuletctl_registers_and_profiles_in_a_precision(daemon, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(resnet())
    out = run("--server", f"unix:{daemon.socket}", "register", "--precision", "bf16", "byname", path)[0]
    assert "byname" in out
    assert daemon.admin_get("/v1/models/byname")["precision"] == "bf16"
    p = run_json("profile", path, "--steps", "--precision", "bf16")
    assert p["precision"] == "bf16" and p["precision_nodes"] == RESNET_PRODUCTS
    assert p["reorders"] == sum(s["operator"] == "reorder" for s in p["by_step"])
    assert "8 nodes in bf16" in run("profile", path, "--precision", "bf16")[0]
    run("profile", path, "--precision", "half", status=2)
    assert "QuantizeLinear" in run("profile", path, "--precision", "int8", status=1)[1]
