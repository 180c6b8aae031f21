#!/usr/bin/env python3
"""Small models for the corpora of the model layer's fuzz programs: one for each thing that the
reader, the shape rules, the passes and runs treat in their own way.

    test/fuzz/make_corpus.py FOLDER...
"""
import os
import sys

from onnx import TensorProto as T, helper as h


def info(name, dtype=T.FLOAT, shape=()):
    return h.make_tensor_value_info(name, dtype, shape)


def ints(name, *v):
    return h.make_tensor(name, T.INT64, [len(v)], v)


def model(nodes, inputs, outputs, constants=(), opset=17, functions=()):
    g = h.make_graph(nodes, "g", inputs, outputs, list(constants))
    imports = [h.make_opsetid("", opset)] + [h.make_opsetid("my", 1)] * bool(functions)
    return h.make_model(g, ir_version=9, opset_imports=imports, functions=list(functions))


def branch(op, name):
    return h.make_graph([h.make_node(op, ["x"], [name])], name, [], [info(name, T.FLOAT, ["n"])])


def choice(condition):
    """An If on a flag of the request, or on one that is known when the model is opened."""
    n = h.make_node("If", ["flag"], ["y"], then_branch=branch("Neg", "a"), else_branch=branch("Relu", "b"))
    flag = h.make_tensor("flag", T.BOOL, [], [True])
    inputs = [info("x", T.FLOAT, ["n"])] + ([] if condition else [info("flag", T.BOOL)])
    return model([n], inputs, [info("y", T.FLOAT, ["n"])], [flag] if condition else [])


def loop():
    body = h.make_graph(
        [h.make_node("Add", ["s", "x"], ["t"]), h.make_node("Identity", ["c"], ["d"]),
         h.make_node("Identity", ["t"], ["u"])],
        "body", [info("i", T.INT64), info("c", T.BOOL), info("s", T.FLOAT, [2])],
        [info("d", T.BOOL), info("t", T.FLOAT, [2]), info("u", T.FLOAT, [2])])
    n = h.make_node("Loop", ["m", "", "x"], ["last", "all"], body=body)
    return model([n], [info("m", T.INT64), info("x", T.FLOAT, [2])],
                 [info("last", T.FLOAT, [2]), info("all", T.FLOAT, ["k", 2])])


def scan(opset):
    body = h.make_graph(
        [h.make_node("Add", ["s", "x"], ["t"]), h.make_node("Identity", ["t"], ["u"])], "body",
        [info("s", T.FLOAT, [2]), info("x", T.FLOAT, [2])],
        [info("t", T.FLOAT, [2]), info("u", T.FLOAT, [2])])
    rows = ["b"] * (opset < 9)
    n = h.make_node("Scan", [""] * (opset < 9) + ["s0", "xs"], ["last", "all"], body=body, num_scan_inputs=1)
    if opset >= 9:
        n.attribute.extend([h.make_attribute("scan_input_directions", [1]),
                            h.make_attribute("scan_output_axes", [1])])
    return model([n], [info("s0", T.FLOAT, rows + [2]), info("xs", T.FLOAT, rows + [3, 2])],
                 [info("last", T.FLOAT, rows + [2]), info("all", T.FLOAT, None)], opset=opset)


def function():
    f = h.make_function(
        "my", "twice", ["a"], ["b"],
        [h.make_node("Elu", ["a"], ["e"]), h.make_node("Add", ["a", "e"], ["b"])],
        [h.make_opsetid("", 17)], ["slope"])
    alpha = f.node[0].attribute.add()
    alpha.name, alpha.ref_attr_name, alpha.type = "alpha", "slope", 1
    nodes = [h.make_node("twice", ["x"], ["y"], domain="my", slope=0.5),
             h.make_node("twice", ["y"], ["z"], domain="my")]
    return model(nodes, [info("x", T.FLOAT, ["n"])], [info("z", T.FLOAT, ["n"])], functions=[f])


def late():
    """A shape from data, what reads it, and what does not."""
    nodes = [h.make_node("NonZero", ["x"], ["at"]), h.make_node("Transpose", ["at"], ["rows"]),
             h.make_node("GatherND", ["x", "rows"], ["y"]), h.make_node("Relu", ["x"], ["z"])]
    return model(nodes, [info("x", T.FLOAT, ["n", 3])],
                 [info("y", T.FLOAT, ["k"]), info("z", T.FLOAT, ["n", 3])])


def shapes():
    nodes = [h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "zero"], ["b"]),
             h.make_node("Concat", ["b", "rest"], ["to"], axis=0), h.make_node("Reshape", ["x", "to"], ["f"]),
             h.make_node("Gemm", ["f", "w"], ["y"]), h.make_node("Relu", ["y"], ["z"])]
    w = h.make_tensor("w", T.FLOAT, [8, 2], range(16))
    return model(nodes, [info("x", T.FLOAT, ["b", 2, 4])], [info("z", T.FLOAT, ["b", 2])],
                 [ints("zero", 0), ints("rest", -1), w])


def layers():
    """What the passes look for: a norm and an activation behind a convolution, a residual."""
    four = [h.make_tensor(n, T.FLOAT, [2], [1, 2]) for n in ("g", "b", "m", "v")]
    nodes = [h.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
             h.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
             h.make_node("Add", ["n", "x"], ["a"]), h.make_node("Relu", ["a"], ["r"]),
             h.make_node("GlobalAveragePool", ["r"], ["p"]), h.make_node("Flatten", ["p"], ["y"])]
    w = h.make_tensor("w", T.FLOAT, [2, 2, 3, 3], [0.1] * 36)
    return model(nodes, [info("x", T.FLOAT, ["b", 2, 5, 5])], [info("y", T.FLOAT, ["b", 2])], [w] + four)


def words():
    nodes = [h.make_node("Identity", ["s"], ["t"]), h.make_node("Shape", ["s"], ["n"])]
    return model(nodes, [info("s", T.STRING, ["n"])], [info("t", T.STRING, ["n"]), info("n", T.INT64, [1])])


MODELS = {"if": choice(False), "if_known": choice(True), "loop": loop(), "scan8": scan(8),
          "scan17": scan(17), "function": function(), "late": late(), "shapes": shapes(),
          "layers": layers(), "words": words()}

for folder in sys.argv[1:]:
    os.makedirs(folder, exist_ok=True)
    for name, m in MODELS.items():
        with open(f"{folder}/{name}", "wb") as f:
            f.write(m.SerializeToString())
