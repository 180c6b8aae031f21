"""Models small enough to be made by each test, and the answers that the sim backend gives."""
import pathlib
import subprocess
import sys
import zlib

import numpy as np
from onnx import helper, numpy_helper

from daemon import BUILD, ROOT

MODELS = ROOT / "test" / "models"
DATA = ROOT / "test" / "data"
sys.path.insert(0, str(MODELS))
import export  # noqa: E402
import reference  # noqa: E402


def onnx_model(nodes, inputs, outputs, constants=(), opset=17):
    """nodes: (operator, inputs, outputs[, attributes]); inputs, outputs: {name: (dtype, dims)}"""

    def infos(values):
        return [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), dims)
            for n, (t, dims) in values.items()
        ]

    graph = helper.make_graph(
        [helper.make_node(n[0], n[1], n[2], f"{n[0]}_{i}", **(n[3] if len(n) > 3 else {})) for i, n in enumerate(nodes)],
        "test",
        infos(inputs),
        infos(outputs),
        [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(constants).items()],
    )
    m = helper.make_model(graph, producer_name="gpuletd-test", opset_imports=[helper.make_opsetid("", opset)])
    m.ir_version = 8
    return m.SerializeToString()


def identity(dtype="float32", dims=("batch", 4), seed=0):
    """y = x.  Another seed, other bytes: the name of the graph's node changes."""
    m = onnx_model([("Identity", ["x"], ["y"])], {"x": (dtype, dims)}, {"y": (dtype, dims)})
    if seed:
        m = helper_rename(m, seed)
    return m


def helper_rename(data, seed):
    import onnx

    m = onnx.load_from_string(data)
    m.graph.node[0].name = f"seed_{seed}"
    return m.SerializeToString()


def two():
    """Two inputs and two outputs, one of them with a second free dimension."""
    a, b = ("float32", ("batch", 4)), ("int64", ("batch", "n"))
    return onnx_model(
        [("Identity", ["a"], ["y"]), ("Identity", ["b"], ["z"])], {"a": a, "b": b}, {"y": a, "z": b}
    )


def padded(n_bytes, seed=1):
    """A good model of about so many bytes: y = x + w, w large, and only its first element used."""
    w = np.random.default_rng(seed).standard_normal((n_bytes // 4, 1)).astype(np.float32)
    return onnx_model(
        [("Gather", ["w", "zero"], ["row"], {"axis": 0}), ("Add", ["x", "row"], ["y"])],
        {"x": ("float32", ("batch", 4))},
        {"y": ("float32", ("batch", 4))},
        {"w": w, "zero": np.array([0], dtype=np.int64)},
    )


def small(name, batch="dynamic", opset=17):
    """One of export.py's small models, as bytes."""
    make = export.MODELS[name][1]
    return make("batch" if batch == "dynamic" else batch, opset).SerializeToString()


def exported(name, batch="dynamic", opset=17):
    """A large model's file, exported once into the build folder."""
    folder = (BUILD if BUILD.is_absolute() else ROOT / BUILD).parent / "build" / "models"
    stem = name + ("" if batch == "dynamic" else f"-b{batch}") + ("" if opset == 17 else f"-opset{opset}")
    path = folder / f"{stem}.onnx"
    if not path.exists():
        scratch = folder / f"making-{stem}"
        command = [sys.executable, MODELS / "export.py", "--batch", str(batch), "--opset", str(opset), scratch, name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pathlib.Path(scratch / f"{stem}.onnx").rename(path)
        scratch.rmdir()
    return path


# ---- what sim answers: the twin of put_element() and answer_row() in lib/backend/sim/answer.c


def mix(x):
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def elements(dtype, seed, n):
    k = np.arange(n, dtype=np.uint64)
    u = mix(np.uint64(seed) + k * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return (u & np.uint64(1)).astype(dtype)
    if dtype == np.float16:
        return (u & np.uint64(0x3BFF)).astype(np.uint16).view(np.float16)
    if dtype.kind == "f":
        return (u.astype(np.float32) / np.float32(65536)).astype(dtype)
    return (u & np.uint64(0x7F)).astype(dtype)


def sim_answer(inputs, j=0, dtype=np.float32, shape=(4,)):
    """Output j of a request, by the bytes of each row of all inputs."""
    rows = []
    for row in range(len(inputs[0])):
        crc = 0
        for x in inputs:
            crc = zlib.crc32(np.ascontiguousarray(x[row]).tobytes(), crc)
        rows.append(elements(dtype, crc + j, int(np.prod(shape))).reshape(shape))
    return np.stack(rows)
