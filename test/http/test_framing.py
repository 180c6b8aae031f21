"""What is not HTTP, or leaves open where a message ends: each kind gets its status and a JSON error.

libmicrohttpd decides on most of these before any of our code runs (docs/adr/0007): where our hook
in it has no effect, these tests fail, because its own answers are HTML."""
import json
import threading

import numpy as np
import pytest

import models
from daemon import SLOW, error_of, json_input, metric, read_json_outputs, sim_file, until

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
X = np.array([[1, 2, 3, 4]], dtype=np.float32)
BODY = json.dumps({"inputs": [json_input("x", X)]}).encode()
GOOD = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def get(version, path=b"/v2/health/live"):
    return b"GET " + path + b" " + version + b"\r\nHost: x\r\n\r\n"


def post(*lengths):
    return POST + b"".join(b"Content-Length: " + n + b"\r\n" for n in lengths) + b"\r\nabc"


BROKEN = {
    # request lines
    "noise": (b"\x00\x01\x02\r\n\r\n", 400),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    "prose": (b"hello there\r\n\r\n", 400),
    "a line of one word": (b"GET\r\n\r\n", 400),
    "a line of two words": (b"GET /v2\r\n\r\n", 400),
    "no method": (b" /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a path without end": (get(b"HTTP/1.1", b"/" + b"y" * 65536), 414),
    "more path than anybody reads": (get(b"HTTP/1.1", b"/" + b"y" * 400_000), 414),
    "a query of 5,000 values": (get(b"HTTP/1.1", b"/v2?" + b"a=b&" * 5000), 431),
    # versions
    "HTTP/3.7": (get(b"HTTP/3.7"), 505),
    "HTTP/2.0": (get(b"HTTP/2.0"), 505),
    "an HTTP/2 client": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (get(b"HTTP/0.9"), 505),
    "HTTP/11": (get(b"HTTP/11"), 400),
    "http/1.1": (get(b"http/1.1"), 400),
    "XTTP/1.1": (get(b"XTTP/1.1"), 400),
    # heads
    "a header without a colon": (LIVE + b"nocolon\r\n\r\n", 400),
    "a header of 64 KiB": (LIVE + b"X: " + b"y" * 65536 + b"\r\n\r\n", 431),
    "a header of 400 KB": (LIVE + b"X: " + b"y" * 400_000 + b"\r\n\r\n", 431),
    "3,000 headers": (LIVE + b"".join(b"X%d: y\r\n" % i for i in range(3000)) + b"\r\n", 431),
    "20,000 headers": (LIVE + b"".join(b"X%d: y\r\n" % i for i in range(20_000)) + b"\r\n", 431),
    "a cookie of 30 KB": (LIVE + b"Cookie: " + b"a=b; " * 6000 + b"\r\n\r\n", 431),
    "no host": (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
    "two hosts": (LIVE + b"Host: y\r\n\r\n", 400),
    # lengths
    "a length in words": (post(b"ten"), 400),
    "an empty length": (post(b""), 400),
    "a negative length": (post(b"-1"), 400),
    "a length with a sign": (post(b"+3"), 400),
    "a length with a tail": (post(b"3x"), 400),
    "a hexadecimal length": (post(b"0x3"), 400),
    "a list of lengths": (post(b"3, 3"), 400),
    "two lengths": (post(b"3", b"4"), 400),
    "a good length and a bad one": (post(b"3", b"x"), 400),
    "a length of 40 digits": (post(b"9" * 40), 413),
    "the largest length": (post(b"18446744073709551615"), 413),
    "a length and chunks": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    # codings and chunks
    "another coding": (POST + b"Transfer-Encoding: gzip\r\n\r\nabc", 501),
    "two codings": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "two coding headers": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 501),
    "a chunk of size xyz": (CHUNKED + b"xyz\r\n", 400),
    "a chunk of negative size": (CHUNKED + b"-5\r\nabc\r\n", 400),
    "a chunk of 80 bits": (CHUNKED + b"f" * 20 + b"\r\n", 413),
    "a chunk longer than its size": (CHUNKED + b"3\r\nabcdef\r\n", 400),
    "a bad trailer": (CHUNKED + b"0\r\nnocolon\r\n\r\n", 400),
    "a trailer of 400 KB": (CHUNKED + b"0\r\nX: " + b"y" * 400_000 + b"\r\n\r\n", 431),
}  # fmt: skip


@pytest.fixture(scope="module")
def daemon(make_shared):
    d = make_shared(sim=sim_file({"echo": {"us": 200, "answer": "echo"}}))
    d.put("echo", models.identity())
    return d


def send_all(wire, data):
    try:
        wire.send(data)
    except (ConnectionResetError, BrokenPipeError):
        pass  # refused while it still sends


@pytest.mark.parametrize("what", BROKEN)
def test_broken_framing_is_refused_in_json(daemon, what):
    data, status = BROKEN[what]
    with daemon.wire() as w:
        send_all(w, data)
        r = w.read()
        assert r is not None and r.status == status, r
        assert error_of(r) and (w.is_closed() if r.headers.get("Connection") == "close" else "host" in what)


# In the first line of a later request.  There libmicrohttpd 0.9.75 closes without asking anybody (in
# parse_initial_message_line(); a line that begins with NUL it skips), and has shut the socket down
# before it calls anything of ours: nothing can be said.  On a new connection our door looks first.
MUTE = ("a TLS greeting", "a line of one word", "no method")


@pytest.mark.parametrize("what", [what for what in BROKEN if what not in (*MUTE, "noise")])
def test_broken_framing_is_refused_behind_a_good_request_too(daemon, what):
    data, status = BROKEN[what]
    with daemon.wire() as w:
        for _ in range(2):
            assert w.ask(GOOD).status == 200
        send_all(w, data)
        r = w.read()
        assert r is not None and r.status == status and error_of(r), r


@pytest.mark.parametrize("what", MUTE)
def test_a_later_line_that_is_none_closes_the_connection(daemon, what):
    with daemon.wire() as w:
        assert w.ask(GOOD).status == 200
        send_all(w, BROKEN[what][0] + b"\r\n\r\n")
        assert w.is_closed()


def test_the_limit_of_a_head_is_named(daemon):
    with daemon.wire() as w:
        send_all(w, BROKEN["a header of 64 KiB"][0])
        assert "32768 bytes" in error_of(w.read())
    with daemon.wire() as w:
        assert "3 and 4" in error_of(w.ask(BROKEN["two lengths"][0]))


def test_equal_lengths_are_one(daemon):
    n = b"%d" % len(BODY)
    with daemon.wire() as w:
        r = w.ask(POST + b"Content-Length: " + n + b"\r\nContent-Length: " + n + b"\r\n\r\n" + BODY)
        assert r.status == 200
        np.testing.assert_array_equal(read_json_outputs(json.loads(r.body))["y"], X)


def test_a_chunked_body_far_over_the_limit_is_told_so(daemon):
    part = b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
    with daemon.wire() as w:
        w.send(CHUNKED)
        for _ in range(100):  # the limit is 64 MiB, and 8 more are drained
            send_all(w, part)
        r = w.read()
        assert r.status == 413 and "67108864" in error_of(r) and r.headers["Connection"] == "close"


def test_a_body_that_comes_too_slowly_is_told_so(daemon):
    with daemon.wire() as w:
        w.socket.settimeout(60 * SLOW)
        r = w.ask(POST + b"Content-Length: 1000\r\n\r\nabc")
        assert r.status == 408 and error_of(r)


def test_every_refusal_is_counted(daemon):
    def refused():
        return metric(daemon.metrics(), "gpuletd_http_replies", port="data", status=505)

    before = refused()
    for _ in range(3):
        with daemon.wire() as w:
            assert w.ask(BROKEN["HTTP/3.7"][0]).status == 505
    until(lambda: refused() == before + 3, 5, "the third refusal to be counted", daemon)  # after it was sent


def test_refused_connections_are_gone(daemon):
    def ask(what):
        with daemon.wire() as w:
            send_all(w, BROKEN[what][0])
            w.read()

    threads = [threading.Thread(target=ask, args=(what,)) for what in list(BROKEN) * 3]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    until(lambda: metric(daemon.metrics(), "gpuletd_http_connections", port="data") == 0, 10, "them to be gone", daemon)
    assert metric(daemon.metrics(), "gpuletd_host_memory_used_bytes") == 0
