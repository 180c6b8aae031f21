"""One ONNX test through HTTP: load the model, send the inputs as binary tensors, compare what comes
back as ONNX's own runner does, unload it."""
import json
import struct
import warnings

import numpy as np
import onnx
from onnx import numpy_helper

warnings.filterwarnings("ignore")  # casts of values out of range, on both sides
RTOL, ATOL, RTOL_BF16 = 1e-3, 1e-7, 2**-6

T = onnx.TensorProto
DATATYPES = {
    T.FLOAT: "FP32", T.UINT8: "UINT8", T.INT8: "INT8", T.UINT16: "UINT16", T.INT16: "INT16",
    T.INT32: "INT32", T.INT64: "INT64", T.STRING: "BYTES", T.BOOL: "BOOL", T.FLOAT16: "FP16",
    T.DOUBLE: "FP64", T.UINT32: "UINT32", T.UINT64: "UINT64", T.BFLOAT16: "BF16",
}  # fmt: skip
NUMPY = {
    "FP32": "<f4", "UINT8": "u1", "INT8": "i1", "UINT16": "<u2", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "BOOL": "?", "FP16": "<f2", "FP64": "<f8", "UINT32": "<u4", "UINT64": "<u8",
    "BF16": "<u2",
}  # fmt: skip


class Refused(Exception):
    """The server does not take it, and says why."""


class Failed(Exception):
    pass


def read_tensor(file):
    t = onnx.TensorProto()
    t.ParseFromString(file.read_bytes())
    return t


def to_bytes(array):
    if array.dtype != object:
        return array.tobytes()
    texts = [x if isinstance(x, bytes) else str(x).encode() for x in array.flatten()]
    return b"".join(struct.pack("<I", len(x)) + x for x in texts)


def from_bytes(data, datatype, shape):
    if datatype != "BYTES":
        return np.frombuffer(data, NUMPY[datatype]).reshape(shape)
    texts, at = [], 0
    while at < len(data):
        (n,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + n].decode())
        at += 4 + n
    return np.array(texts, dtype=object).reshape(shape)


def widen(bits):
    """BF16 as float32."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def suited(array, x):
    """In some tests the data of an input of which only the type is read (CastLike's second) has
    another shape than the model declares, which a server refuses: zeros as declared."""
    dims = x.type.tensor_type.shape.dim
    shape = [d.dim_value for d in dims]
    fixed = x.type.tensor_type.HasField("shape") and not any(d.HasField("dim_param") for d in dims) and all(shape)
    if not fixed or list(array.shape) == shape:
        return array
    return np.zeros(shape, np.uint16 if x.type.tensor_type.elem_type == T.BFLOAT16 else array.dtype)


class OnnxTest:
    def __init__(self, folder):
        self.folder = folder
        self.file = (folder / "model.onnx").read_bytes()
        graph = onnx.load_from_string(self.file).graph
        known = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        self.inputs = [x for x in graph.input if x.name not in known]
        self.outputs = list(graph.output)
        other = folder / "rtol"
        self.rtol = float(other.read_text()) if other.exists() else RTOL

    def request(self, data):
        entries, parts = [], []
        for i, x in enumerate(self.inputs):
            file = data / f"input_{i}.pb"
            kind = x.type.tensor_type.elem_type
            if not x.type.HasField("tensor_type") or kind not in DATATYPES:
                raise Refused(f"input '{x.name}' is no tensor of a type that the protocol has")
            array = suited(numpy_helper.to_array(read_tensor(file)), x)
            parts.append(to_bytes(array))
            entries.append({"name": x.name, "shape": list(array.shape), "datatype": DATATYPES[kind],
                            "parameters": {"binary_data_size": len(parts[-1])}})  # fmt: skip
        head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
        return head, b"".join(parts)

    def compare(self, data, reply):
        at = int(reply.headers["Inference-Header-Content-Length"])
        outputs = json.loads(reply.body[:at])["outputs"]
        if len(outputs) != len(self.outputs):
            raise Failed(f"{len(outputs)} outputs, not {len(self.outputs)}")
        for i, o in enumerate(outputs):
            n = o["parameters"]["binary_data_size"]
            got = from_bytes(reply.body[at : at + n], o["datatype"], o["shape"])
            at += n
            self.compare_one(i, o["datatype"], got, read_tensor(data / f"output_{i}.pb"))

    def compare_one(self, i, datatype, got, proto):
        want = numpy_helper.to_array(proto)
        rtol = self.rtol
        if datatype == "BF16":
            got, rtol = widen(got), RTOL_BF16
            want = want.astype(np.float32) if want.dtype.name == "bfloat16" else widen(want)
        if got.shape != want.shape:
            raise Failed(f"output {i} has shape {list(got.shape)}, not {list(want.shape)}")
        if got.dtype != want.dtype:
            raise Failed(f"output {i} is {got.dtype}, not {want.dtype}")
        if want.dtype == object:
            same = [str(x) for x in got.flatten()] == [x.decode() if isinstance(x, bytes) else str(x) for x in want.flatten()]
        else:
            same = np.allclose(got, want, rtol=rtol, atol=ATOL, equal_nan=True)
        if not same:
            raise Failed(f"output {i} differs")

    def run(self, daemon, name):
        """Raises Refused or Failed."""
        reply = daemon.admin("PUT", f"/v1/models/{name}", self.file)
        if reply.status == 400:
            raise Refused(json.loads(reply.body)["error"])
        if reply.status != 200:
            raise Failed(f"the load answers {reply.status}: {reply.body[:300]}")
        try:
            for data in sorted(self.folder.glob("test_data_set_*")):
                head, body = self.request(data)
                reply = daemon.post(f"/v2/models/{name}/infer", head + body,
                                    headers={"Inference-Header-Content-Length": str(len(head))})  # fmt: skip
                if reply.status == 400:
                    raise Refused(json.loads(reply.body)["error"])
                if reply.status != 200:
                    raise Failed(f"status {reply.status}: {json.loads(reply.body)['error']}")
                self.compare(data, reply)
        finally:
            daemon.admin("DELETE", f"/v1/models/{name}")
