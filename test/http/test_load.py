"""gpuletctl bench: against gpuletd on a declared device, and against servers that are none."""
import http.server
import json
import threading
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import models
from daemon import sim_file
from test_planning import run


def bench(port, *args):
    """The report.  The status is not looked at: on a busy machine a run may be void."""
    args = ["--to", f"http://127.0.0.1:{port}", "--duration", 2, "--warmup", 0.5, *args]
    return json.loads(run("bench", *args, "--json", status=None)[0])


@pytest.fixture(scope="module")
def daemon(make_shared):
    d = make_shared(sim=sim_file({"fast": 100, "slow": 20000}, units=2))
    for name in ("fast", "slow"):
        d.put(name, models.identity(), query="?max_batch=1")
    return d


def of(report, name="fast"):
    (m,) = [m for m in report["models"] if m["model"] == name]
    return m


def books_are_kept(m):
    return m["offered"] == sum(m[k] for k in ("in_time", "late", "refused", "failed", "wrong", "lost"))


def test_every_request_is_counted_once_and_an_easy_load_is_in_time(daemon):
    r = bench(daemon.port, "fast=50@1000", "slow=5@2000")
    for name, rate in (("fast", 50), ("slow", 5)):
        m = of(r, name)
        assert books_are_kept(m) and m["in_time_share"] == 1 and m["slo_ms"] > 0
        assert 0.2 * rate < m["offered_rps"] < 3 * rate
        assert 0 < m["p50_ms"] <= m["p99_ms"] <= m["p999_ms"]
    assert of(r, "slow")["p50_ms"] >= 20


def test_the_same_seed_offers_the_same_requests_and_another_seed_others(daemon):
    counts = [of(bench(daemon.port, "fast=100", "--seed", seed))["offered"] for seed in (1, 1, 2)]
    assert counts[0] == counts[1] != counts[2]


def test_paced_requests_are_as_many_as_the_rate_says(daemon):
    assert of(bench(daemon.port, "fast=100", "--arrivals", "paced"))["offered"] in (149, 150, 151)


def test_a_server_that_is_too_slow_is_not_waited_for(daemon):
    """Offered is what was due, whatever came of it: twice of what two units can do in time."""
    r = bench(daemon.port, "slow=200@100", "--arrivals", "paced")
    m = of(r, "slow")
    assert books_are_kept(m) and m["offered"] in (299, 300, 301)
    assert m["refused"] + m["late"] > 0 and m["in_time_share"] < 0.9


def test_awake_before_requests_are_due_it_sends_the_same_ones(daemon):
    offered = [of(bench(daemon.port, "fast=200", "--seed", 3, *more), "fast") for more in ([], ["--awake", 1000])]
    assert all(books_are_kept(m) and m["lost"] == 0 for m in offered)
    assert offered[0]["offered"] == offered[1]["offered"] > 0


def test_what_does_not_fit_in_flight_is_lost_and_said(daemon):
    m = of(bench(daemon.port, "slow=300", "--in-flight", 1), "slow")
    assert books_are_kept(m) and m["lost"] > 0 and "in-flight" in m["why"]


def test_the_search_ends_between_what_holds_and_what_cannot(daemon, tmp_path):
    """One run of 20 ms at a time on each of at most two units: 100 a second and not more."""
    svg = tmp_path / "curve.svg"
    r = json.loads(run("bench", "--to", f"http://127.0.0.1:{daemon.port}", "--duration", 1.5, "--warmup", 0.2, "--json",
                       "--search", "--svg", svg, "slow=10@250", status=None)[0])
    shares = {s["scale"]: s["worst_share"] for s in r["steps"]}
    assert len(shares) > 2 and r["capacity_rps"] <= 160 and r["capacity_scale"] in [0, *shares]
    assert all(s >= 0.99 for x, s in shares.items() if x == r["capacity_scale"])
    assert ET.parse(svg).getroot().tag.endswith("svg")


def test_a_run_is_void_when_the_generator_is_later_than_the_slo_bears(daemon):
    """Nobody sends within a hundredth of a microsecond."""
    args = ["--to", f"http://127.0.0.1:{daemon.port}", "--duration", 1, "--warmup", 0.1, "fast=50@0.001"]
    text, said = run("bench", *args, "--json", status=3)
    assert json.loads(text)["void"] is True and "void" in said


def test_a_table_says_what_the_json_says(daemon):
    text, _ = run("bench", "--to", f"http://127.0.0.1:{daemon.port}", "--duration", 1, "--warmup", 0.1, "fast=20")
    assert "IN TIME" in text and "fast" in text and "requests/s offered" in text


def test_answers_are_compared_with_those_that_each_input_got_alone(daemon):
    m = of(bench(daemon.port, "fast=100", "--check"))
    assert books_are_kept(m) and m["wrong"] == 0 and m["in_time"] == m["offered"] > 0


def test_the_log_has_a_line_for_each_request_that_counts(daemon, tmp_path):
    log = tmp_path / "log.csv"
    m = of(bench(daemon.port, "fast=100@1000", "--log", log))
    head, *lines = log.read_text().splitlines()
    assert head == "due_s,model,result,took_ms" and len(lines) == m["offered"]
    assert all(x.split(",")[1:3] == ["fast", "in time"] and abs(time.time() - float(x.split(",")[0])) < 30 for x in lines)


class Json(http.server.BaseHTTPRequestHandler):
    """A v2 server without binary tensors: each answer of an inference comes in chunks."""

    protocol_version = "HTTP/1.1"
    status = 200
    seen = None

    def log_message(self, *_):
        pass

    def say(self, o, status=200):
        body = json.dumps(o).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        x = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
        self.say({"name": "m", "inputs": [x]} if "models" in self.path else {"name": "plain", "extensions": []})

    def do_POST(self):
        type(self).seen = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.status != 200:
            self.say({"error": "no"}, self.status)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"2\r\n{}\r\n0\r\n\r\n")


@pytest.fixture(params=[200, 500, 503])
def other(request):
    handler = type("Handler", (Json,), {"status": request.param})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, server.server_address[1]
    server.shutdown()
    server.server_close()


def test_another_server_is_asked_in_json_and_judged_by_its_status(other):
    handler, port = other
    m = of(bench(port, "m=30@30000"), "m")
    (x,) = handler.seen["inputs"]
    assert x["shape"] == [1, 3] and np.isfinite(x["data"]).all()
    assert books_are_kept(m) and m["offered"] > 0
    assert m[{200: "in_time", 500: "failed", 503: "refused"}[handler.status]] == m["offered"]
    assert ("500" in m.get("why", "")) == (handler.status == 500)


def test_an_answer_that_differs_is_wrong(other):
    handler, port = other
    asked = []

    def again(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        asked.append(1)
        self.say({"it": len(asked) % 4 == 0})

    if handler.status != 200:
        pytest.skip("it does not answer")
    handler.do_POST = again  # the one that is asked alone, and two of three after it, are alike
    m = of(bench(port, "m=30@30000", "--check"), "m")
    assert books_are_kept(m) and 0.1 * m["offered"] < m["wrong"] < 0.5 * m["offered"]


@pytest.mark.parametrize("args, word", [
    ([], "MODEL=RPS"), (["fast"], "MODEL=RPS"), (["fast=0"], "above 0"), (["fast=1@x"], "milliseconds"),
    (["fast=1", "fast=2"], "twice"), (["fast=1", "--search"], "SLO"), (["fast=1", "--svg", "x"], "--search"),
    (["fast=1", "--in-flight", "0"], "in-flight"), (["fast=1", "--warmup", "3"], "warm-up"),
    (["fast=1", "--awake", "1001"], "awake"),
    (["fast=1", "--to", "unix:/x"], "http://"), (["fast=1", "--arrivals", "odd"], "poisson"),
])  # fmt: skip
def test_a_wrong_command_line_is_named(args, word):
    _, said = run("bench", "--duration", 2, *args, status=2)
    assert word in said


def test_a_model_that_is_not_there_and_a_server_that_is_not_there_are_named(daemon):
    _, said = run("bench", "--to", f"http://127.0.0.1:{daemon.port}", "nobody=1", status=1)
    assert "nobody" in said
    _, said = run("bench", "--to", "http://127.0.0.1:1", "fast=1", status=1)
    assert "127.0.0.1:1" in said
