#!/usr/bin/env python3
"""Make models that must be refused.

    bad.py DIR

Writes DIR/NAME.onnx, or DIR/NAME/model.onnx with its neighbours where external data is the
point, and DIR/index.json: a list of

    {"name", "file", "mention"}     the error's text must contain, whatever the case of its
                                    letters, one of the strings in each list of "mention"

Offer each under a neutral name: some names here are words of their own message.
good.onnx beside them has no fault, so that a test which sees everything refused fails.
Nothing here is large: what is giant is only claimed to be.
"""
import json
import pathlib
import sys

import numpy as np
from onnx import AttributeProto, TensorProto, helper

OPSET = 17
DEEP = 10000  # levels of nesting; a reader that recurses on the C stack dies before


def value(name, *dims):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def model(nodes, constants=(), outputs=("y",), dims=("batch", 4)):
    graph = helper.make_graph(
        [helper.make_node(op, i, o, name) for name, op, i, o in nodes],
        "test",
        [value("x", *dims)],
        [value(o, *dims) for o in outputs],
        list(constants),
    )
    m = helper.make_model(graph, producer_name="gpuletd-test", opset_imports=[helper.make_opsetid("", OPSET)])
    m.ir_version = 8
    return m


def tensor(name, dims, data, dtype=TensorProto.FLOAT):
    """A constant whose dims and bytes need not agree."""
    return TensorProto(name=name, dims=dims, data_type=dtype, raw_data=data)


def outside(location, offset=0, length=16):
    """A constant of 4 floats in another file."""
    t = TensorProto(name="weight", dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, v in (("location", location), ("offset", offset), ("length", length)):
        t.external_data.add(key=key, value=str(v))
    return t


def plus_w(w, **args):
    """y = x + the constant w"""
    return model([("add", "Add", ["x", w.name], ["y"])], [w], **args)


FOUR = np.arange(4, dtype=np.float32).tobytes()
FOREIGN = [["not an onnx", "protobuf", "wire type", "field"]]
GOOD = plus_w(tensor("weight", [4], FOUR))


def truncated():
    """Cut inside the constant's bytes."""
    data = plus_w(tensor("weight", [1024], bytes(4096)), dims=("batch", 1024)).SerializeToString()
    return data[: len(data) // 2]


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def varint_field(number, n):
    return varint(number << 3) + varint(n)


def field(number, data):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def deep():
    """A node whose attribute is a graph with a node whose attribute is a graph, and so on.

    Written by hand: protobuf's own writers refuse it.  Inside out, so that it is quick."""
    parts, size = [], 0
    for _ in range(DEEP):
        for number, head in (
            (6, field(1, b"then_branch") + varint_field(20, AttributeProto.GRAPH)),  # AttributeProto.g
            (5, field(4, b"If") + field(1, b"x") + field(2, b"y")),  # NodeProto.attribute
            (1, b""),  # GraphProto.node
        ):
            # What is there so far becomes the last field of a message that starts with head.
            tag = varint(number << 3 | 2) + varint(size)
            parts.append(head + tag)
            size += len(head) + len(tag)
    graph = b"".join(reversed(parts))
    return varint_field(1, 8) + field(8, varint_field(2, OPSET)) + field(7, graph)


def cases():
    """name, files beside the model, model (bytes or message), what the error must mention."""
    relu = ("relu", "Relu")
    small = {"w.bin": FOUR}
    secret = {"../secret": FOUR}
    many = [["weight"], ["large", "overflow", "bytes", "4611686018427387904"]]
    return [
        ("not-onnx", {}, b"\x89PNG\r\n\x1a\n" + bytes(64), FOREIGN),
        ("html", {}, b"<!DOCTYPE html><html><body>404</body></html>\n", FOREIGN),
        ("empty", {}, b"", [["empty", "no bytes", "graph"]]),
        ("no-graph", {}, varint_field(1, 8), [["graph"]]),
        ("truncated", {}, truncated(), [["truncated", "short", "ends", "end of", "past", "beyond"]]),
        ("cycle", {}, cycle(), [["round", "cycl"]]),
        ("giant-dims", {}, plus_w(tensor("weight", [1 << 31, 1 << 31, 4], FOUR)), many),
        ("giant-wrap", {}, plus_w(tensor("weight", [1 << 62, 4], b"")), many),
        ("wrong-size", {}, plus_w(tensor("weight", [4], FOUR[:12])), [["weight"], ["12"], ["16"]]),
        ("wrong-dtype", {}, plus_w(tensor("weight", [4], FOUR, TensorProto.DOUBLE)), [["weight"], ["16"], ["32"]]),
        ("unknown-dtype", {}, plus_w(tensor("weight", [4], FOUR, 99)), [["weight"], ["99"]]),
        ("negative-dims", {}, plus_w(tensor("weight", [-1, -4], FOUR)), [["weight"], ["-1", "negative"]]),
        ("missing-data", {}, plus_w(outside("w.bin")), [["w.bin"]]),
        ("escaping-data", secret, plus_w(outside("../secret")), [["../secret"]]),
        ("escaping-inside", secret, plus_w(outside("a/../../secret")), [["a/../../secret"]]),
        ("absolute-data", {}, plus_w(outside("/etc/hostname", length=16)), [["/etc/hostname"]]),
        ("link-data",
         {**secret, "w.bin": pathlib.Path("../secret")}, plus_w(outside("w.bin")), [["w.bin"]]),
        ("offset-beyond", small, plus_w(outside("w.bin", offset=4096)), [["w.bin"], ["4096"]]),
        ("length-beyond", small, plus_w(outside("w.bin", offset=8)), [["w.bin"]]),
        ("offset-wrap", small, plus_w(outside("w.bin", offset=(1 << 64) - 8)), [["w.bin", "offset"]]),
        ("unknown-operator", {}, model([("odd", "Frobnicate", ["x"], ["y"])]), [["Frobnicate"], ["odd"]]),
        ("unknown-domain", {}, foreign(), [["com.example"]]),
        ("future-opset", {}, future(), [["opset"], ["999"]]),
        ("double-output", {}, model([(*relu, ["x"], ["y"]), ("again", "Neg", ["x"], ["y"])]), [["'y'", "again"]]),
        ("missing-output", {}, model([(*relu, ["x"], ["y"])], outputs=("y", "absent")), [["absent"]]),
        ("missing-input", {}, model([("add", "Add", ["x", "nowhere"], ["y"])]), [["nowhere"]]),
        ("deep", {}, deep(), [["deep", "nest", "level", "subgraph", "(If)"]]),
    ]


def cycle():
    return model(
        [
            ("first", "Add", ["x", "round"], ["a"]),
            ("second", "Relu", ["a"], ["round"]),
            ("third", "Relu", ["round"], ["y"]),
        ]
    )


def foreign():
    m = model([("odd", "Relu", ["x"], ["y"])])
    m.graph.node[0].domain = "com.example"
    m.opset_import.add(domain="com.example", version=1)
    return m


def future():
    m = model([("relu", "Relu", ["x"], ["y"])])
    m.opset_import[0].version = 999
    return m


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: bad.py DIR")
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    index = []
    for name, files, m, mention in cases():
        data = m if isinstance(m, bytes) else m.SerializeToString()
        has_folder = b"location" in data
        path = out / name / "model.onnx" if has_folder else out / f"{name}.onnx"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        for beside, content in files.items():
            at = path.parent / beside
            at.unlink(missing_ok=True)
            if isinstance(content, bytes):
                at.write_bytes(content)
            else:
                at.symlink_to(content)
        index.append({"name": name, "file": str(path.relative_to(out)), "mention": mention})
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="ascii")
    (out / "good.onnx").write_bytes(GOOD.SerializeToString())


if __name__ == "__main__":
    main()
