"""The v2 protocol's rules one by one: statuses, what is validated, and in which words."""
import gzip
import json
import math
import zlib

import numpy as np
import pytest

import models
from daemon import NUMPY, TYPES, binary_body, entry, error_of, json_input, read_json_outputs, read_outputs, sim_file

A = np.array([[1, 2, 3, 4]], dtype=np.float32)
B = np.array([[5, 6]], dtype=np.int64)
ECHOED = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.fixture(scope="module")
def daemon(make_shared):
    echo = {"us": 100, "answer": "echo"}
    names = ["two", *(f"echo-{t}" for t in ECHOED), "single", "wide"]
    d = make_shared(sim=sim_file({n: echo for n in names if n != "two"} | {"two": 100}))
    d.put("two", models.two())
    d.put("single", models.small("reduce0"))
    d.put("wide", models.identity(dims=("batch", "n")))
    return d


@pytest.fixture(scope="module")
def echo(daemon):
    """Registers an identity of a type when it is first asked for."""
    there = set()

    def get(dtype):
        if dtype not in there:
            daemon.put(f"echo-{dtype}", models.identity(dtype))
            there.add(dtype)
        return f"echo-{dtype}"

    return get


def a(**change):
    return {**json_input("a", A), **change}


def b(**change):
    return {**json_input("b", B), **change}


def without(o, key):
    return {k: v for k, v in o.items() if k != key}


def post(daemon, body, model="two", **headers):
    return daemon.post(f"/v2/models/{model}/infer", body, headers={k.replace("_", "-"): v for k, v in headers.items()})


REFUSED = {
    "an empty body": ("", 400, ["body"]),
    "a body that is not JSON": ("{nonsense", 400, ["JSON"]),
    "JSON cut short": (json.dumps({"inputs": [a(), b()]})[:-2], 400, ["JSON"]),
    "JSON followed by something": (json.dumps({"inputs": [a(), b()]}) + "{}", 400, []),
    "a list instead of an object": ([1], 400, ["object"]),
    "a member given twice": ('{"inputs":[],"inputs":[]}', 400, ["inputs"]),
    "nesting without end": ('{"inputs":' + "[" * 5000, 400, ["depth"]),
    "nesting in the data": ({"inputs": [a(data=json.loads("[" * 90 + "]" * 90)), b()]}, 400, ["'a'"]),
    "no inputs": ({}, 400, ["inputs"]),
    "inputs that are no array": ({"inputs": {}}, 400, ["inputs"]),
    "an input that is no object": ({"inputs": [1, b()]}, 400, ["input"]),
    "an input without a name": ({"inputs": [without(a(), "name"), b()]}, 400, ["name"]),
    "an unknown input": ({"inputs": [a(), b(name="c")]}, 400, ["'c'", "two"]),
    "an input given twice": ({"inputs": [a(), a()]}, 400, ["'a'", "twice"]),
    "a missing input": ({"inputs": [a()]}, 400, ["'b'"]),
    "too many inputs": ({"inputs": [a(), b(), b()]}, 400, []),
    "a wrong datatype": ({"inputs": [a(datatype="FP64"), b()]}, 400, ["'a'", "FP64", "FP32"]),
    "an unknown datatype": ({"inputs": [a(datatype="FP31"), b()]}, 400, ["'a'", "FP31"]),
    "a datatype that is no string": ({"inputs": [a(datatype=7), b()]}, 400, ["'a'", "datatype"]),
    "no shape": ({"inputs": [without(a(), "shape"), b()]}, 400, ["'a'", "shape"]),
    "a wrong rank": ({"inputs": [a(shape=[4]), b()]}, 400, ["'a'", "[4]", "[-1,4]"]),
    "a wrong fixed dimension": ({"inputs": [a(shape=[1, 5]), b()]}, 400, ["'a'", "[1,5]", "[-1,4]"]),
    "a negative dimension": ({"inputs": [a(shape=[-1, 4]), b()]}, 400, ["'a'", "dimension"]),
    "a fractional dimension": ({"inputs": [a(shape=[1.5, 4]), b()]}, 400, ["'a'", "dimension"]),
    "a batch of none": ({"inputs": [a(shape=[0, 4], data=[]), b()]}, 400, ["'a'", "batch of 0", "8"]),
    "a batch above the limit": ({"inputs": [a(shape=[9, 4], data=[0] * 36), b()]}, 400, ["'a'", "9", "8"]),
    "batches that differ": ({"inputs": [a(), b(shape=[2, 1])]}, 400, ["'b'", "2", "1"]),
    "a product that overflows": ({"inputs": [a(), b(shape=[1, 2**62])]}, 400, ["'b'"]),
    "a product beyond memory": ({"inputs": [a(), b(shape=[1, 2**40])]}, 400, ["'b'"]),
    "too few values": ({"inputs": [a(data=[1, 2, 3]), b()]}, 400, ["'a'", "3", "4"]),
    "too many values": ({"inputs": [a(data=[1, 2, 3, 4, 5]), b()]}, 400, ["'a'", "4"]),
    "a value of the wrong kind": ({"inputs": [a(data=[1, 2, "3", 4]), b()]}, 400, ["'a'", "2"]),
    "a null among the values": ({"inputs": [a(data=[1, None, 3, 4]), b()]}, 400, ["'a'", "1"]),
    "an object among the values": ({"inputs": [a(data=[1, {}, 3, 4]), b()]}, 400, ["'a'"]),
    "a NaN, which JSON has not": ('{"inputs":[%s,%s]}' % (json.dumps(a(data=[math.nan] * 4)), json.dumps(b())), 400, ["'a'"]),
    "a number beyond the type": ({"inputs": [a(data=[1e39, 0, 0, 0]), b()]}, 400, ["'a'", "range", "FP32"]),
    "an integer beyond the type": ('{"inputs":[%s,%s]}' % (json.dumps(a()), json.dumps(b(data=[0, 2**63]))), 400, ["'b'", "range", "INT64"]),
    "a fraction for an integer": ({"inputs": [a(), b(data=[1.5, 2])]}, 400, ["'b'", "1.5"]),
    "no data": ({"inputs": [without(a(), "data"), b()]}, 400, ["'a'", "data"]),
    "two sources of data": ({"inputs": [a(parameters={"binary_data_size": 16}), b()]}, 400, ["'a'", "both"]),
    "a binary size without the header": ({"inputs": [without(a(), "data") | {"parameters": {"binary_data_size": 16}}, b()]}, 400, ["'a'", "Inference-Header-Content-Length"]),
    "shared memory": ({"inputs": [without(a(), "data") | {"parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 16}}, b()]}, 501, ["'a'", "shared memory"]),
    "shared memory for an output": ({"inputs": [a(), b()], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, 501, ["'y'", "shared memory"]),
    "an unknown output": ({"inputs": [a(), b()], "outputs": [{"name": "w"}]}, 400, ["'w'", "two"]),
    "an output asked for twice": ({"inputs": [a(), b()], "outputs": [{"name": "y"}, {"name": "y"}]}, 400, ["'y'", "twice"]),
    "outputs that are no array": ({"inputs": [a(), b()], "outputs": 1}, 400, ["outputs"]),
    "classification": ({"inputs": [a(), b()], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}, 501, ["'y'", "classification"]),
    "an id that is no string": ({"inputs": [a(), b()], "id": 7}, 400, ["id"]),
    "parameters that are no object": ({"inputs": [a(), b()], "parameters": []}, 400, ["parameters"]),
    "a parameter that is an object": ({"inputs": [a(), b()], "parameters": {"p": {}}}, 400, ["'p'"]),
    "a reserved parameter": ({"inputs": [a(), b()], "parameters": {"triton_x": 1}}, 400, ["triton_"]),
    "a negative timeout": ({"inputs": [a(), b()], "parameters": {"timeout": -1}}, 400, ["timeout"]),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_an_inference_is_refused_for(daemon, what):
    body, status, mention = REFUSED[what]
    r = post(daemon, body)
    assert r.status == status, r.body
    error = error_of(r)
    for word in mention:
        assert word.replace(" ", "") in error.replace(" ", ""), (word, error)


def test_unknown_members_and_model_name_and_any_content_type_are_ignored(daemon):
    body = {"model_name": "other", "extra": {"deep": [1]}, "inputs": [a(more=1), b()]}
    for content_type in ({}, {"Content_Type": "text/plain"}, {"Content_Type": "application/octet-stream"}):
        r = post(daemon, body, **content_type)
        assert r.status == 200 and r.headers["Content-Type"] == "application/json"
    assert daemon.post("/v2/models/two/infer?query=1", body).status == 200


def test_a_reply_has_the_members_of_the_protocol_and_an_id_only_if_given(daemon):
    o = json.loads(post(daemon, {"inputs": [a(), b()], "id": "é\u0001\"\U0001f600"}).body)
    assert o["model_name"] == "two" and o["model_version"] == "1" and o["id"] == "é\u0001\"\U0001f600"
    assert [(y["name"], y["datatype"], y["shape"]) for y in o["outputs"]] == [("y", "FP32", [1, 4]), ("z", "INT64", [1, 2])]
    assert all(not isinstance(v, list) for y in o["outputs"] for v in y["data"])
    assert "id" not in json.loads(post(daemon, {"inputs": [a(), b()]}).body)
    assert "id" not in json.loads(post(daemon, {"inputs": [a(), b()], "id": ""}).body)


def test_outputs_come_in_the_order_in_which_they_are_asked_for(daemon):
    o = json.loads(post(daemon, {"inputs": [b(), a()], "outputs": [{"name": "z"}, {"name": "y"}]}).body)
    assert [y["name"] for y in o["outputs"]] == ["z", "y"]
    o = json.loads(post(daemon, {"inputs": [b(), a()], "outputs": [{"name": "z"}]}).body)
    assert [y["name"] for y in o["outputs"]] == ["z"]
    np.testing.assert_array_equal(read_json_outputs(o)["z"], models.sim_answer([A, B], 1, np.int64, (2,)))


@pytest.mark.parametrize("data", [[[1, 2, 3, 4]], [[1], [2, 3], [4]], [1, 2, 3, 4]])
def test_data_may_be_nested_in_any_way(daemon, data):
    o = json.loads(post(daemon, {"inputs": [a(data=data), b()]}).body)
    np.testing.assert_array_equal(read_json_outputs(o)["y"], models.sim_answer([A, B]))


# ---- types and numbers


@pytest.mark.parametrize("dtype", [t for t in ECHOED if t != "float16"])
def test_json_values_come_back_as_they_went(daemon, echo, dtype):
    x = extremes(dtype)
    y = daemon.infer(echo(dtype), {"x": x})["y"]
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("dtype", ECHOED)
def test_binary_values_come_back_as_they_went(daemon, echo, dtype):
    x = extremes(dtype)
    y = daemon.infer_binary(echo(dtype), {"x": x})["y"]
    assert y.dtype == x.dtype and y.tobytes() == x.tobytes()


def extremes(dtype):
    """Two rows of values that are easily got wrong."""
    t = np.dtype(dtype)
    if t == np.bool_:
        values = [True, False, False, True] * 2
    elif t.kind in "iu":
        i = np.iinfo(t)
        odd = [2**53 + 1, 2**63 - 1] if t.itemsize == 8 else [i.max - 1, i.max // 3]
        values = [i.min, i.max, 0, 1, *odd, i.max // 2 + 1, i.min + 1]
    else:
        f = np.finfo(t)
        values = [f.max, f.min, f.tiny, f.smallest_subnormal, -0.0, 1 / 3, 0.1, 16777217]
        values = [v if abs(v) <= f.max else f.max for v in values]
    return np.array(values, dtype=t).reshape(2, 4)


def test_random_floats_read_back_equal_from_json(daemon, echo):
    rng = np.random.default_rng(3)
    for dtype, bits in (("float32", np.uint32), ("float64", np.uint64)):
        for _ in range(20):
            x = rng.integers(0, np.iinfo(bits).max, (8, 4), dtype=bits, endpoint=True).view(dtype)
            x[~np.isfinite(x)] = 1
            y = daemon.infer(echo(dtype), {"x": x})["y"]
            assert y.tobytes() == x.tobytes()


def test_numbers_are_printed_with_no_more_digits_than_needed(daemon, echo):
    body = {"inputs": [json_input("x", np.array([[0.1, 1 / 3, 1, 1e10]], np.float32))]}
    text = post(daemon, body, echo("float32")).body.decode()
    for number in text[text.index('"data":[') + 8 : text.rindex("]}]")].split(","):
        digits = number.split("e")[0].replace(".", "").strip("-0")
        assert len(digits) <= 9, number


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_outside_their_type_are_refused(daemon, echo, dtype):
    i = np.iinfo(dtype)
    for bad in (i.max + 1, i.min - 1, 10**30, -(10**30)):
        o = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": TYPES[dtype], "data": [0, 0, bad, 0]}]}
        r = post(daemon, o, echo(dtype))
        assert r.status == 400, (bad, r.body)
        assert "'x'" in error_of(r) and "2" in error_of(r)
    for bad in ("true", '"1"', "1.5", "[]", "nan"):
        text = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"%s","data":[0,0,0,%s]}]}' % (TYPES[dtype], bad)
        assert post(daemon, text, echo(dtype)).status == 400, bad


def test_sixteen_bit_floats_have_no_json_form(daemon, echo):
    x = np.ones((1, 4), np.float16)
    r = post(daemon, {"inputs": [json_input("x", x)]}, echo("float16"))
    assert r.status == 400 and "FP16" in error_of(r) and "binary" in error_of(r)
    head = json.dumps({"inputs": [{**entry("x", x), "parameters": {"binary_data_size": 8}}]}).encode()
    r = post(daemon, head + x.tobytes(), echo("float16"), Inference_Header_Content_Length=str(len(head)))
    assert r.status == 400 and "'y'" in error_of(r) and "binary" in error_of(r)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_result_that_json_cannot_hold_is_an_error_that_says_to_ask_for_binary(daemon, echo, value):
    x = np.array([[1, value, 3, 4]], dtype=np.float32)
    y = daemon.infer_binary(echo("float32"), {"x": x})["y"]
    np.testing.assert_array_equal(y, x)
    head = json.dumps({"inputs": [{**entry("x", x), "parameters": {"binary_data_size": 16}}]}).encode()
    r = post(daemon, head + x.tobytes(), echo("float32"), Inference_Header_Content_Length=str(len(head)))
    assert 400 <= r.status < 600
    assert "'y'" in error_of(r) and "binary" in error_of(r)


# ---- binary bodies


def test_binary_and_json_tensors_may_be_mixed(daemon):
    head = {"inputs": [a(), without(b(), "data") | {"parameters": {"binary_data_size": 16}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}]}  # fmt: skip
    text = json.dumps(head).encode()
    r = post(daemon, text + B.tobytes(), Inference_Header_Content_Length=str(len(text)))
    assert r.status == 200 and r.headers["Content-Type"] == "application/octet-stream"
    y = read_outputs(r)
    np.testing.assert_array_equal(y["y"], models.sim_answer([A, B]))
    np.testing.assert_array_equal(y["z"], models.sim_answer([A, B], 1, np.int64, (2,)))


def test_an_output_of_its_own_overrides_the_default_form(daemon):
    head = {"inputs": [a(), b()], "parameters": {"binary_data_output": True},
            "outputs": [{"name": "y"}, {"name": "z", "parameters": {"binary_data": False}}]}  # fmt: skip
    o = post(daemon, head)
    size = int(o.headers["Inference-Header-Content-Length"])
    y, z = json.loads(o.body[:size])["outputs"]
    assert y["parameters"]["binary_data_size"] == 16 and "data" not in y and len(z["data"]) == 2
    assert len(o.body) == size + 16


def test_binary_data_at_any_alignment_is_read_right(daemon):
    for pad in range(9):
        head = json.dumps({"inputs": [{**entry(n, x), "parameters": {"binary_data_size": x.nbytes}} for n, x in (("a", A), ("b", B))]})
        head = head.encode() + b" " * pad
        r = post(daemon, head + A.tobytes() + B.tobytes(), Inference_Header_Content_Length=str(len(head)))
        np.testing.assert_array_equal(read_outputs(r)["y"], models.sim_answer([A, B]))


def binary(size_a=16, extra=b"", length=None):
    entries = [{**entry("a", A), "parameters": {"binary_data_size": size_a}}, b()]
    head = json.dumps({"inputs": entries}).encode()
    return head + A.tobytes() + extra, str(len(head)) if length is None else length


BAD_BINARY = {
    "leftover bytes": (binary(extra=b"more"), ["4 bytes"]),
    "fewer bytes than declared": ((binary()[0][:-3], binary()[1]), ["'a'", "16", "13"]),
    "a size that is not the shape's": (binary(size_a=12), ["'a'", "12", "16"]),
    "a size beyond the body": (binary(size_a=2**40), ["'a'"]),
    "a negative size": (binary(size_a=-1), ["'a'", "binary_data_size"]),
    "a size that is no number": (binary(size_a="16"), ["'a'", "binary_data_size"]),
    "a header above the body": (binary(length="100000"), ["100000"]),
    "a negative header": (binary(length="-1"), ["-1"]),
    "a header with a sign": (binary(length="+10"), ["+10"]),
    "a header in hexadecimal": (binary(length="0x10"), ["0x10"]),
    "a header that is no number": (binary(length="ten"), ["ten"]),
    "an empty header": (binary(length=""), []),
    "a header beyond all numbers": (binary(length="9" * 40), []),
    "a header that cuts the JSON": ((binary()[0], "20"), ["JSON"]),
}


@pytest.mark.parametrize("what", BAD_BINARY)
def test_a_binary_body_is_refused_for(daemon, what):
    (body, length), mention = BAD_BINARY[what]
    r = post(daemon, body, Inference_Header_Content_Length=length)
    assert r.status == 400, r.body
    for word in mention:
        assert word in error_of(r), (word, error_of(r))


def test_a_header_that_is_the_whole_body_means_json_alone(daemon):
    text = json.dumps({"inputs": [a(), b()]})
    assert post(daemon, text, Inference_Header_Content_Length=str(len(text))).status == 200


def test_a_raw_body_is_the_one_input(daemon, echo):
    for name, x in ((echo("float32"), A), ("wide", np.arange(7, dtype=np.float32).reshape(1, 7))):
        r = post(daemon, x.tobytes(), name, Inference_Header_Content_Length="0")
        assert r.status == 200 and r.headers["Content-Type"] == "application/octet-stream"
        np.testing.assert_array_equal(read_outputs(r)["y"], x)


def test_a_raw_body_is_refused_where_it_is_not_clear_what_it_is(daemon, echo):
    r = post(daemon, A.tobytes(), Inference_Header_Content_Length="0")
    assert r.status == 400 and "2 inputs" in error_of(r)
    r = post(daemon, A.tobytes()[:-1], echo("float32"), Inference_Header_Content_Length="0")
    assert r.status == 400 and "15" in error_of(r) and "16" in error_of(r)
    r = post(daemon, A.tobytes()[:-1], "wide", Inference_Header_Content_Length="0")
    assert r.status == 400


# ---- compression


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity", "GZIP"])
def test_a_compressed_request_counts_uncompressed_bytes_in_its_header(daemon, coding):
    head, data = binary_body({"a": A, "b": B})
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[coding.lower()]
    r = post(daemon, pack(head + data), Content_Encoding=coding, Inference_Header_Content_Length=str(len(head)))
    assert r.status == 200, r.body
    np.testing.assert_array_equal(read_outputs(r)["y"], models.sim_answer([A, B]))


def test_an_unknown_content_encoding_is_415_and_says_which_are_known(daemon):
    for coding in ("br", "gzip, gzip", "zstd"):
        r = post(daemon, {"inputs": [a(), b()]}, Content_Encoding=coding)
        assert r.status == 415 and coding in error_of(r)
        assert r.headers["Accept-Encoding"].replace(" ", "") == "gzip,deflate"


def test_broken_compressed_bodies_are_refused(daemon):
    good = gzip.compress(json.dumps({"inputs": [a(), b()]}).encode())
    wrong_crc = good[:-8] + bytes([good[-8] ^ 1]) + good[-7:]
    for bad in (good[:-1], good[: len(good) // 2], b"not gzip at all", good + b"x", wrong_crc, good[:10]):
        r = post(daemon, bad, Content_Encoding="gzip")
        assert r.status == 400, (bad, r.body)
        error_of(r)


def test_a_compressed_bomb_stops_at_the_limit(daemon):
    r = post(daemon, gzip.compress(bytes(80 << 20), 1), Content_Encoding="gzip")
    assert r.status == 413 and str(64 << 20) in error_of(r)


def test_replies_are_compressed_only_for_who_asks_and_only_when_it_pays(daemon):
    x = np.zeros((8, 4096), np.float32)
    body = {"inputs": [json_input("x", x)]}
    for accept, coding in (
        ("gzip", "gzip"), ("deflate", "deflate"), ("gzip;q=0, deflate", "deflate"), ("deflate;q=0.5, gzip;q=0.9", "gzip"),
        ("br", None), ("gzip;q=0", None), ("identity", None),
    ):  # fmt: skip
        r = post(daemon, body, "wide", Accept_Encoding=accept)
        assert r.headers.get("Content-Encoding") == coding, accept
        text = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding](r.body)
        np.testing.assert_array_equal(read_json_outputs(json.loads(text))["y"], x)
    small = post(daemon, {"inputs": [json_input("x", x[:1, :4])]}, "wide", Accept_Encoding="gzip")
    assert "Content-Encoding" not in small.headers


# ---- paths, versions, statuses


def test_unknown_models_and_versions_are_404_everywhere(daemon):
    for path in ("", "/ready", "/config", "/stats"):
        for model in ("nobody", "nobody/versions/1", "two/versions/2", "two/versions/0"):
            r = daemon.get(f"/v2/models/{model}{path}")
            assert r.status == 404, (model, path, r.body)
            error_of(r)
    for model in ("nobody", "nobody/versions/1", "two/versions/2"):
        r = daemon.post(f"/v2/models/{model}/infer", {"inputs": [a(), b()]})
        assert r.status == 404
        error_of(r)


def test_a_version_may_be_named_and_must_be_digits(daemon):
    for path in ("", "/ready", "/config", "/stats"):
        assert daemon.get(f"/v2/models/two/versions/1{path}").status == 200
        for bad in ("one", "-1", "1.0", "0x1"):
            assert daemon.get(f"/v2/models/two/versions/{bad}{path}").status in (400, 404), bad
    assert daemon.post("/v2/models/two/versions/1/infer", {"inputs": [a(), b()]}).status == 200


def test_unknown_paths_are_404(daemon):
    for path in ("/", "/v2/nothing", "/v2/models", "/v3", "/v2/models/two/nothing", "/v2//health/live", "/v2/models//ready",
                 "/v2/models/two/infer/", "/v2/models/two/generate", "/v2/models/two/generate_stream"):  # fmt: skip
        for method in ("GET", "POST"):
            r = daemon.request(method, path, "{}" if method == "POST" else None)
            assert r.status in (404, 405), (path, r.status)
            error_of(r)


def test_a_wrong_method_is_405_and_says_which_is_right(daemon):
    for method, path, allow in (
        ("POST", "/v2/health/live", {"GET", "HEAD"}), ("DELETE", "/v2", {"GET", "HEAD"}),
        ("GET", "/v2/models/two/infer", {"POST"}), ("PUT", "/v2/models/two", {"GET", "HEAD"}),
        ("GET", "/v2/repository/index", {"POST"}), ("PATCH", "/v2/repository/models/two/load", {"POST"}),
        ("OPTIONS", "/v2/models/two/config", {"GET", "HEAD"}),
    ):  # fmt: skip
        r = daemon.request(method, path, "{}" if method != "GET" else None)
        assert r.status == 405, (method, path, r.status)
        assert set(r.headers["Allow"].split(", ")) == allow
        error_of(r)


def test_names_are_percent_decoded_after_the_path_was_split(daemon):
    assert daemon.get("/v2/models/%74wo/ready").status == 200
    assert daemon.get("/v2/models/t%77%6f/versions/%31/ready").status == 200
    for bad in ("a%2Fb", "%2e%2e", "%2E", "two%00", "two%", "two%2", "%zz"):
        r = daemon.get(f"/v2/models/{bad}/ready")
        assert r.status in (400, 404), bad
        error_of(r)
    r = daemon.get("/v2/models/%ff%fe/ready")  # no UTF-8: the message must still be JSON
    assert r.status == 404
    error_of(r)


def test_head_is_answered_like_get_without_a_body(daemon):
    get = daemon.get("/v2/models/two")
    with daemon.wire() as w:
        r = w.ask("HEAD /v2/models/two HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD")
        assert r.status == 200 and r.headers["Content-Length"] == str(len(get.body))
        r = w.ask("HEAD /v2/models/nobody HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD")
        assert r.status == 404
        assert w.ask("GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n").body == b'{"live":true}'


def test_extensions_that_are_not_there_say_so(daemon):
    for path in ("/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status", "/v2/systemsharedmemory/region/r/status",
                 "/v2/logging", "/v2/trace/setting", "/v2/models/two/trace/setting"):  # fmt: skip
        r = daemon.get(path)
        assert r.status == 501, path
        error_of(r)
    for path in ("/v2/systemsharedmemory/region/r/register", "/v2/cudasharedmemory/unregister", "/v2/logging"):
        assert daemon.post(path, "{}").status == 501, path
    r = daemon.post("/v2/repository/other/models/two/load", "{}")
    assert r.status == 501 and "other" in error_of(r)


def test_a_body_over_the_limit_is_413(daemon):
    size = (64 << 20) + 1
    with daemon.wire() as w:  # too long to be read for the sake of the connection: answered at once
        r = w.ask(f"POST /v2/models/two/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
        assert r.status == 413 and str(size) in error_of(r) and str(64 << 20) in error_of(r)
        assert w.is_closed()


def test_repository_index_lists_what_is_ready(daemon):
    index = json.loads(daemon.post("/v2/repository/index").body)
    assert {"name": "two", "version": "1", "state": "READY"} in index
    index = json.loads(daemon.post("/v2/repository/index", {"ready": True}).body)
    assert all(m["state"] == "READY" for m in index)
    for bad in ('{"ready":1}', "[]", "{"):
        assert daemon.post("/v2/repository/index", bad).status == 400


def test_load_refuses_parameters_it_does_not_know(daemon):
    for bad in ({"parameters": {"nonsense": 1}}, {"parameters": []}, {"parameters": {"file:../x": "AAAA"}}):
        r = daemon.post("/v2/repository/models/two/load", bad)
        assert 400 <= r.status < 500, (bad, r.status)
        error_of(r)
    r = daemon.post("/v2/repository/models/nobody/load", {})
    assert r.status == 404 and "nobody" in error_of(r)
    assert daemon.post("/v2/repository/models/nobody/unload", {}).status == 404
    assert daemon.get("/v2/models/two/ready").status == 200


def test_a_model_that_does_not_batch_names_the_node_that_prevents_it(daemon):
    m = daemon.admin_get("/v1/models/single")
    assert m["batches"] is False and m["max_batch"] == 1 and "ReduceMean" in m["why_single"]
    config = json.loads(daemon.get("/v2/models/single/config").body)
    assert config["max_batch_size"] == 0 and "dynamic_batching" not in config
    assert config["input"][0]["dims"] == [-1, 4]


def test_every_datatype_of_the_protocol_is_named_as_it_names_it(daemon, echo):
    for name, dtype in NUMPY.items():
        m = json.loads(daemon.get(f"/v2/models/{echo(dtype)}").body)
        assert m["inputs"] == [{"name": "x", "datatype": name, "shape": [-1, 4]}]
