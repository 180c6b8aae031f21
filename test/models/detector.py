#!/usr/bin/python3
"""A small detector whose end only data can tell: boxes that NonMaxSuppression chooses.

    test/models/detector.py FOLDER      writes FOLDER/model.onnx
"""
import pathlib
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def detector():
    """Two convolutions, boxes and scores of each place, NMS, and the boxes and scores that it chose."""
    rng = np.random.default_rng(3)
    names = {"w0": rng.standard_normal((8, 3, 3, 3)) / 5, "b0": rng.standard_normal(8) / 5,
             "w1": rng.standard_normal((6, 8, 1, 1)) / 2, "most": np.array([64], np.int64),
             "overlap": np.array([0.5]), "least": np.array([0.55]), "cut": np.array([4, 2], np.int64),
             "rows": np.array([1, 6, 64], np.int64), "size": np.array([1, 1, 2]), "two": np.array(2, np.int64),
             "which": np.array([0, 1], np.int64)}  # fmt: skip
    weights = [numpy_helper.from_array(v if v.dtype == np.int64 else v.astype(np.float32), k) for k, v in names.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["h"]),
        helper.make_node("Conv", ["h", "w1"], ["head"]),
        helper.make_node("Reshape", ["head", "rows"], ["flat"]),
        helper.make_node("Split", ["flat", "cut"], ["where", "logits"], axis=1),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Transpose", ["where"], ["boxes"], perm=[0, 2, 1]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["picked"], "choose"),
        helper.make_node("Gather", ["picked", "two"], ["place"], axis=1),
        helper.make_node("Squeeze", ["boxes", "zero"], ["all"]),
        helper.make_node("Gather", ["all", "place"], ["chosen"]),
    ]
    weights.append(numpy_helper.from_array(np.array([0], np.int64), "zero"))
    f, i = TensorProto.FLOAT, TensorProto.INT64
    m = helper.make_model(helper.make_graph(
        nodes, "detector", [helper.make_tensor_value_info("x", f, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("chosen", f, [None, 4]), helper.make_tensor_value_info("picked", i, [None, 3]),
         helper.make_tensor_value_info("scores", f, [1, 2, 64])], weights), opset_imports=[helper.make_opsetid("", 17)])
    m.ir_version = 8
    return m.SerializeToString()


if __name__ == "__main__":
    (pathlib.Path(sys.argv[1]) / "model.onnx").write_bytes(detector())
