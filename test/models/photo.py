#!/usr/bin/python3
"""A small network that takes photos as a decoder gives them: bytes, (batch, height, width, RGB). Its preprocessing is
in it, as exporters write it.

    test/models/photo.py FOLDER      writes FOLDER/model.onnx
"""
import pathlib
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 36, 41
MEAN, DEVIATION = (np.array(x, np.float32) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def pixels(photos):
    """What the network makes of bytes first."""
    return ((photos.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION).transpose(0, 3, 1, 2)


def photo(raw=True):
    """Two convolutions, a mean and a product; raw: of bytes, else of what pixels() makes of them."""
    rng = np.random.default_rng(11)
    names = {"w0": rng.standard_normal((16, 3, 3, 3)) / 4, "b0": rng.standard_normal(16) / 5,
             "w1": rng.standard_normal((32, 16, 3, 3)) / 8, "b1": rng.standard_normal(32) / 5,
             "w2": rng.standard_normal((10, 32)) / 3, "b2": rng.standard_normal(10) / 5}  # fmt: skip
    before = {"all": np.float32(255), "mean": MEAN, "deviation": DEVIATION} if raw else {}
    weights = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in {**names, **before}.items()]
    nodes = [
        helper.make_node("Cast", ["photo"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "all"], ["part"]),
        helper.make_node("Sub", ["part", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["normal"]),
        helper.make_node("Transpose", ["normal"], ["x"], perm=[0, 3, 1, 2]),
    ] if raw else []
    nodes += [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["h"]),
        helper.make_node("Conv", ["h", "w1", "b1"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["mean_of_all"]),
        helper.make_node("Flatten", ["mean_of_all"], ["row"]),
        helper.make_node("Gemm", ["row", "w2", "b2"], ["y"], transB=1),
    ]
    x = (helper.make_tensor_value_info("photo", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3]) if raw
         else helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, HEIGHT, WIDTH]))  # fmt: skip
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])
    m = helper.make_model(helper.make_graph(nodes, "photo", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)])
    m.ir_version = 8
    return m.SerializeToString()


if __name__ == "__main__":
    (pathlib.Path(sys.argv[1]) / "model.onnx").write_bytes(photo())
