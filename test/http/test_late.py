"""What only a run can tell: strings, shapes that depend on data, nested graphs, through HTTP."""
import json
import struct

import numpy as np
import pytest
from onnx import TensorProto, helper

import models
from daemon import read_json_outputs, request_bytes


@pytest.fixture(scope="module")
def daemon(make_shared):
    d = make_shared(backend="cpu")
    d.put("text", model([helper.make_node("Identity", ["x"], ["y"])], TensorProto.STRING, TensorProto.STRING, ["n"]))
    d.put("nonzero", model([helper.make_node("NonZero", ["x"], ["y"])], TensorProto.FLOAT, TensorProto.INT64, [2, None]))
    d.put("twice", doubling())
    return d


def model(nodes, in_type, out_type, out_shape):
    x = helper.make_tensor_value_info("x", in_type, ["n"] if in_type == TensorProto.STRING else ["n", 3])
    y = helper.make_tensor_value_info("y", out_type, out_shape)
    m = helper.make_model(helper.make_graph(nodes, "late", [x], [y]), opset_imports=[helper.make_opsetid("", 17)])
    m.ir_version = 8
    return m.SerializeToString()


def doubling():
    """y = x doubled as often as x[0, 0] says: a Loop whose trip count is data."""
    f, i, b = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "a"], ["b"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("k", i, []), helper.make_tensor_value_info("go", b, []),
         helper.make_tensor_value_info("a", f, None)],
        [helper.make_tensor_value_info("on", b, []), helper.make_tensor_value_info("b", f, None)],
    )  # fmt: skip
    zero = helper.make_tensor("zero", i, [2], [0, 0])
    nodes = [
        helper.make_node("Constant", [], ["at"], value=zero),
        helper.make_node("GatherND", ["x", "at"], ["first"]),
        helper.make_node("Cast", ["first"], ["times"], to=i),
        helper.make_node("Loop", ["times", "", "x"], ["y"], body=body),
    ]
    return model(nodes, f, f, ["n", 3])


def ask(daemon, name, x, status=200):
    r = daemon.post(f"/v2/models/{name}/infer", {"inputs": [x]})
    assert r.status == status, (r.status, r.body[:300])
    return json.loads(r.body)


TEXTS = ["", "one", "ümläut ✓", "a" * 5000, 'quote " and \\ and\n']


def test_strings_come_back_as_they_were_in_json(daemon):
    (y,) = ask(daemon, "text", {"name": "x", "datatype": "BYTES", "shape": [5], "data": TEXTS})["outputs"]
    assert (y["datatype"], y["shape"], y["data"]) == ("BYTES", [5], TEXTS)


def test_strings_come_back_as_they_were_in_binary(daemon):
    data = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in TEXTS)
    head = json.dumps({
        "inputs": [{"name": "x", "datatype": "BYTES", "shape": [5], "parameters": {"binary_data_size": len(data)}}],
        "parameters": {"binary_data_output": True}}).encode()  # fmt: skip
    with daemon.wire() as w:
        r = w.ask(request_bytes("POST", "/v2/models/text/infer", head + data,
                                Inference_Header_Content_Length=len(head)))
    assert r.status == 200 and r.body.endswith(data)


def test_an_output_has_the_shape_that_the_data_gives_it(daemon):
    for x in ([[0, 1, 0], [2, 0, 3]], [[0, 0, 0]], [[1, 1, 1]] * 7):
        x = np.array(x, np.float32)
        want = np.array(np.nonzero(x))
        np.testing.assert_array_equal(daemon.infer("nonzero", {"x": x})["y"], want)
        np.testing.assert_array_equal(daemon.infer_binary("nonzero", {"x": x})["y"], want)


def test_a_loop_runs_as_often_as_the_data_says(daemon):
    for times in (0, 1, 5):
        x = np.array([[times, 1, -2]], np.float32)
        np.testing.assert_array_equal(daemon.infer_binary("twice", {"x": x})["y"], x * 2**times)


def test_a_loop_that_would_never_end_is_refused_and_the_next_request_is_served(daemon):
    x = np.array([[2e9, 0, 0]], np.float32)
    error = daemon.infer("twice", {"x": x}, status=400)
    assert "iterations" in error
    assert read_json_outputs(ask(daemon, "nonzero", {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0, 4, 0]}))


def test_metadata_says_what_is_not_known_before(daemon):
    (y,) = json.loads(daemon.request("GET", "/v2/models/nonzero").body)["outputs"]
    assert y["datatype"] == "INT64" and y["shape"] == [-1, -1]
    m = json.loads(daemon.admin("GET", "/v1/models/nonzero").body)
    assert m["batches"] is False and m["why_single"] and m["late_nodes"] == 1


def test_a_device_that_only_declares_times_refuses_such_a_model_by_name(make):
    error = make().put("nonzero", model([helper.make_node("NonZero", ["x"], ["y"])], TensorProto.FLOAT,
                                        TensorProto.INT64, [2, None]), status=400)
    assert "'y'" in error
