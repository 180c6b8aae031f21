"""HTTP itself: framing, persistence, limits; from bare sockets."""
import json
import socket
import time

import numpy as np
import pytest

import models
from daemon import SLOW, binary_body, error_of, json_input, read_outputs, request_bytes, sim_file, until

X = np.array([[1, 2, 3, 4]], dtype=np.float32)
BODY = json.dumps({"inputs": [json_input("x", X)]}).encode()
INFER = "/v2/models/echo/infer"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def daemon(make_shared):
    d = make_shared(sim=sim_file({m: {"us": 200, "answer": "echo"} for m in ("echo", "echo-wide")}), config={("http", "connections"): 300})
    d.put("echo", models.identity())
    return d


def is_answer(reply, x=X):
    assert reply.status == 200, reply.body
    o = json.loads(reply.body)
    return o["outputs"][0]["data"] == x.flatten().tolist()


def test_a_connection_is_kept_for_many_requests(daemon):
    with daemon.wire() as w:
        for i in range(50):
            x = X + i
            body = json.dumps({"inputs": [json_input("x", x)]}).encode()
            assert is_answer(w.ask(request_bytes("POST", INFER, body)), x)


def test_a_connection_is_kept_after_a_refusal_whose_body_is_short(daemon):
    with daemon.wire() as w:
        for _ in range(3):
            assert w.ask(request_bytes("POST", "/v2/models/nobody/infer", BODY * 1000)).status == 404
            assert w.ask(request_bytes("POST", INFER, b"{" * 100_000)).status == 400
            assert is_answer(w.ask(request_bytes("POST", INFER, BODY)))


def test_connection_close_and_http_1_0_end_the_connection(daemon):
    with daemon.wire() as w:
        r = w.ask(request_bytes("POST", INFER, BODY, Connection="close"))
        assert is_answer(r) and r.headers["Connection"].lower() == "close" and w.is_closed()
    with daemon.wire() as w:
        assert w.ask("GET /v2/health/live HTTP/1.0\r\n\r\n").status == 200 and w.is_closed()


def test_pipelined_requests_are_answered_in_order(daemon):
    with daemon.wire() as w:
        xs = [X + i for i in range(20)]
        many = [request_bytes("POST", INFER, json.dumps({"inputs": [json_input("x", x)]}).encode()) for x in xs]
        w.send(b"".join(many[:10]) + LIVE + b"".join(many[10:]))
        for i, x in enumerate(xs):
            if i == 10:
                assert w.read().body == b'{"live":true}'
            assert is_answer(w.read(), x)


def test_a_client_that_expects_100_is_told_to_go_on(daemon):
    with daemon.wire() as w:
        r = w.ask(request_bytes("POST", INFER, b"", Content_Length=len(BODY), Expect="100-continue"))
        assert r.status == 100
        assert is_answer(w.ask(BODY))


def test_a_client_that_expects_100_is_refused_before_it_sends(daemon):
    with daemon.wire() as w:
        r = w.ask(request_bytes("POST", "/v2/models/nobody/infer", b"", Content_Length=1000, Expect="100-continue"))
        assert r.status == 404
        error_of(r)


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_a_chunked_body_is_put_together(daemon, size):
    x = np.arange(8 * 4, dtype=np.float32).reshape(8, 4)
    head, data = binary_body({"x": x})
    body = head + data + b""
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    text = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    with daemon.wire() as w:
        for _ in range(2):
            r = w.ask(request_bytes("POST", INFER, b"", Content_Length=None, Transfer_Encoding="chunked",
                                    Inference_Header_Content_Length=len(head)) + text)  # fmt: skip
            assert r.status == 200, r.body
            np.testing.assert_array_equal(read_outputs(r)["y"], x)


def test_a_large_chunked_body_grows_as_it_comes(daemon):
    blanks = b" " * 1_000_000
    body = BODY[:-1] + blanks + b"}"
    with daemon.wire() as w:
        w.send(request_bytes("POST", INFER, b"", Content_Length=None, Transfer_Encoding="chunked"))
        for i in range(0, len(body), 50_000):
            part = body[i : i + 50_000]
            w.send(b"%x\r\n%s\r\n" % (len(part), part))
        r = w.ask(b"0\r\n\r\n")
        assert r.status in (200, 413), r.body  # the JSON beside the data has a limit of its own
        if r.status == 413:
            error_of(r)


def test_a_chunked_body_of_many_megabytes_arrives_as_it_was_sent(daemon):
    wide = 3 << 20
    daemon.put("echo-wide", models.identity(dims=("batch", wide)))
    x = np.random.default_rng(1).standard_normal((1, wide), np.float32)
    head, data = binary_body({"x": x})
    body = head + data
    with daemon.wire() as w:
        for step in (1_000_000, 37_777):
            w.send(request_bytes("POST", "/v2/models/echo-wide/infer", b"", Content_Length=None,
                                 Transfer_Encoding="chunked", Inference_Header_Content_Length=len(head)))  # fmt: skip
            for i in range(0, len(body), step):
                part = body[i : i + step]
                w.send(b"%x\r\n%s\r\n" % (len(part), part))
            r = w.ask(b"0\r\n\r\n")
            assert r.status == 200, r.body
            np.testing.assert_array_equal(read_outputs(r)["y"], x)


def test_a_request_in_single_bytes_is_understood(daemon):
    with daemon.wire() as w:
        for byte in request_bytes("POST", INFER, BODY):
            w.send(bytes([byte]))
        assert is_answer(w.read())


def test_a_half_closed_connection_still_gets_its_answer_or_is_withdrawn(daemon):
    with daemon.wire() as w:
        w.send(request_bytes("POST", INFER, BODY))
        w.socket.shutdown(socket.SHUT_WR)
        r = w.read()
        assert r is None or is_answer(r)


def test_connections_beyond_the_limit_wait_and_are_served_when_others_leave(daemon):
    held = [daemon.wire() for _ in range(300)]
    try:
        assert held[0].ask(LIVE).status == 200
        late = daemon.wire().send(LIVE)
        late.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.read()
        for w in held[:10]:
            w.socket.close()
        late.socket.settimeout(20 * SLOW)
        r = late.read()
        assert r is None or r.status == 200
        late.socket.close()
    finally:
        for w in held:
            w.socket.close()
    until(lambda: daemon.get("/v2/health/live").status == 200, 10, "the port to answer again")


def test_an_idle_connection_is_closed_after_its_time(make):
    d = make(config={("http", "idle-seconds"): 1})
    with d.wire() as w:
        assert w.ask(LIVE).status == 200
        start = time.monotonic()
        assert w.is_closed()
        assert time.monotonic() - start > 0.5
