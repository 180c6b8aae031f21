"""What survives a crash, and how the daemon starts, reloads and ends."""
import json
import re
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

import models
from daemon import ENV, GPULETD, SLOW, error_of, request_bytes, sim_file, until

X = np.array([[1, 2, 3, 4]], dtype=np.float32)
ECHO = {n: {"us": 300, "answer": "echo"} for n in "abcdefgh"}


def serves(daemon, name):
    np.testing.assert_array_equal(daemon.infer(name, {"x": X})["y"], X)


# ---- kill -9


def test_what_was_acknowledged_serves_again_after_kill_9(make):
    d = make(sim=sim_file(ECHO))
    d.put("a", models.identity(), "?slo_ms=123.5&max_batch=3&priority=2&rate_rps=4.5")
    d.put("b", models.identity())
    d.put("b", models.identity(seed=1))  # version 2
    d.put("c", models.identity())
    d.post("/v2/repository/models/c/unload", {})
    d.put("d", models.identity(), "?wait=0", status=202)
    d.put("e", models.identity())
    d.admin("PATCH", "/v1/models/e", {"slo_ms": 77})
    d.put("f", models.identity())
    assert d.admin("DELETE", "/v1/models/f").status == 200
    d.kill()
    d.start()
    for name in "abde":
        serves(d, name)
    a = d.admin_get("/v1/models/a")
    assert (a["version"], a["slo_ms"], a["max_batch"], a["priority"], a["rate_rps"]) == (1, 123.5, 3, 2, 4.5)
    assert d.admin_get("/v1/models/b")["version"] == 2
    assert d.admin_get("/v1/models/e")["slo_ms"] == 77
    assert d.admin_get("/v1/models/c")["state"] == "UNAVAILABLE"  # what was unloaded stays so
    assert d.get("/v2/models/c/ready").status != 200
    assert d.admin("GET", "/v1/models/f").status == 404
    d.post("/v2/repository/models/c/load", {})
    serves(d, "c")


def test_no_moment_of_a_kill_loses_a_model_or_leaves_half_of_one(make):
    d = make(sim=sim_file(ECHO))
    d.put("a", models.identity())
    acknowledged = 1
    rng = np.random.default_rng(11)
    for n in range(2, 8):
        done = []

        def put(n=n, done=done):
            try:
                done.append(d.put("a", models.identity(seed=n))["version"])
            except (OSError, AssertionError, ValueError):
                pass

        t = threading.Thread(target=put)
        t.start()
        time.sleep(rng.uniform(0, 0.03) * SLOW)
        d.kill()
        t.join()
        d.start()
        m = d.admin_get("/v1/models/a")
        assert m["state"] == "READY" and m["version"] >= (done[0] if done else acknowledged)
        acknowledged = m["version"]
        serves(d, "a")
        folders = {p.split("/")[2] for p in d.files() if p.startswith("models/a/") and p.count("/") > 2}
        assert folders == {str(acknowledged)} and not any(p.startswith("incoming/") for p in d.files())


def test_a_put_that_is_cut_off_leaves_nothing(make):
    d = make(sim=sim_file(ECHO))
    d.put("a", models.identity())
    before = d.files()
    data = models.padded(1 << 20)
    with d.wire(admin=True) as w:
        w.send(request_bytes("PUT", "/v1/models/b", b"", Content_Length=len(data)) + data[: len(data) // 2])
        until(lambda: len(d.files()) > len(before), 10, "the upload to begin", d)
    until(lambda: d.files() == before, 10, "the cut-off upload to be removed", d)
    assert d.admin("GET", "/v1/models/b").status == 404
    # The same with the daemon itself cut off.
    with d.wire(admin=True) as w:
        w.send(request_bytes("PUT", "/v1/models/b", b"", Content_Length=len(data)) + data[: len(data) // 2])
        until(lambda: len(d.files()) > len(before), 10, "the upload to begin", d)
        d.kill()
    d.start()
    assert d.files() == before
    assert d.admin("GET", "/v1/models/b").status == 404
    serves(d, "a")


def test_damaged_state_does_not_stop_what_is_sound(make):
    d = make(sim=sim_file(ECHO))
    for n in "abc":
        d.put(n, models.identity())
    d.kill()
    (d.state / "models/a/model.json").write_text("{")
    (d.state / "models/b/1/model.onnx").write_bytes(b"damaged")
    (d.state / "models/stray").mkdir()
    (d.state / "models/c/99").mkdir()
    (d.state / "incoming/left").mkdir()
    d.start()
    serves(d, "c")
    assert d.get("/v2/models/a/ready").status != 200
    b = d.admin_get("/v1/models/b")
    assert b["state"] != "READY" and b["reason"]
    assert not (d.state / "models/c/99").exists() and not (d.state / "incoming/left").exists()
    d.put("a", models.identity(seed=3))
    d.put("b", models.identity(seed=3))
    serves(d, "a")
    serves(d, "b")


def test_a_version_whose_load_was_cut_short_and_fails_falls_back_to_the_one_before(make):
    d = make(sim=sim_file(ECHO))
    d.put("a", models.identity())
    d.kill()
    state = d.state / "models/a"
    (state / "2").mkdir()
    (state / "2/model.onnx").write_bytes(b"not a model")
    o = json.loads((state / "model.json").read_text())
    (state / "model.json").write_text(json.dumps({**o, "pending": 2}))
    d.start()
    serves(d, "a")
    m = d.admin_get("/v1/models/a")
    assert m["version"] == 1 and not (state / "2").exists()


# ---- SIGHUP


def test_a_reload_takes_the_new_file_and_keeps_the_old_one_if_it_is_bad(make):
    d = make(sim=sim_file(ECHO))
    d.put("a", models.identity())
    assert d.get("/metrics").status == 404
    d.set({("http", "metrics"): "yes"})
    d.signal(signal.SIGHUP)
    until(lambda: d.get("/metrics").status == 200, 10, "the reload", d)
    good = d.conf.read_text()
    for bad, word in (("[http]\nmetrics = perhaps\n", "perhaps"), ("[http]\nnonsense = 1\n", "nonsense"),
                      ("[limits]\nmodel-bytes = 1\n", "model-bytes"), ("no ini at all\n", "line 1"),
                      (good + "[device]\nbackend = none\n", "none")):  # fmt: skip
        seen = d.log.stat().st_size
        d.conf.write_text(bad)
        d.signal(signal.SIGHUP)
        said = until(lambda s=seen: d.log.read_text()[s:], 10, "a word about the reload", d)
        until(lambda s=seen, w=word: w in d.log.read_text()[s:], 10, f"'{word}' in the log", d)
        assert "old configuration" in said or "old configuration" in d.log.read_text()[seen:]
        assert d.get("/metrics").status == 200  # the good one is in force
        serves(d, "a")
    d.conf.write_text(good.replace("metrics = yes", "metrics = no"))
    d.signal(signal.SIGHUP)
    until(lambda: d.get("/metrics").status == 404, 10, "the second reload", d)


def test_a_reload_says_what_needs_a_restart(make):
    d = make(sim=sim_file(ECHO))
    d.set({("limits", "queue"): 7})
    d.signal(signal.SIGHUP)
    until(lambda: "limits.queue changes at the next restart" in d.log.read_text(), 10, "the warning", d)


# ---- SIGTERM


def test_sigterm_under_load_answers_everything_accepted_and_exits_0(make):
    d = make(sim=sim_file({"a": {"us": 60000, "answer": "echo"}}))
    d.put("a", models.identity(), "?max_batch=1")
    answers, refused, broken = [], [], []

    def ask(i):
        x = np.full((1, 4), i, np.float32)
        try:
            r = d.post("/v2/models/a/infer", {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": x.flatten().tolist()}]})
        except OSError as e:
            broken.append(e)
            return
        if r.status == 200:
            assert json.loads(r.body)["outputs"][0]["data"] == x.flatten().tolist()
            answers.append(i)
        else:
            refused.append((r.status, error_of(r)))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(24)]
    for t in threads:
        t.start()
    until(lambda: len(answers) + metric_pending(d) >= 24, 20, "all requests to be accepted", d)
    d.signal(signal.SIGTERM)
    until(lambda: readiness(d) == 503, 5, "readiness to be 503", d)
    d.infer("a", {"x": X}, status=503)
    for t in threads:
        t.join()
    assert d.wait() == 0
    d.check_log()
    assert not broken and len(answers) == 24, (len(answers), refused, broken)


def metric_pending(d):
    return d.metrics()[("gpuletd_pending_requests", ())]


def readiness(d):
    r = d.get("/v2/health/ready")
    if r.status != 200:
        error_of(r)
    return r.status


def test_sigint_ends_it_too_and_a_second_signal_does_no_harm(make):
    d = make()
    d.signal(signal.SIGINT)
    try:
        d.signal(signal.SIGTERM)
    except ProcessLookupError:
        pass
    assert d.wait() == 0


def test_an_idle_connection_does_not_hold_up_the_end(make):
    d = make()
    with d.wire() as w, d.wire(admin=True) as v:
        assert w.ask("GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
        v.send("GET /v1/mod")
        start = time.monotonic()
        d.signal(signal.SIGTERM)
        assert d.wait() == 0
        assert time.monotonic() - start < 20 * SLOW


# ---- options


def run(*args):
    return subprocess.run([GPULETD, *args], capture_output=True, text=True, env=ENV, timeout=30 * SLOW)


def test_the_configuration_can_be_checked_and_printed_without_serving(make):
    d = make(start=False)
    r = run("-t", "--config", d.conf)
    assert (r.returncode, r.stdout, r.stderr) == (0, "", "")
    assert not d.state.exists()
    r = run("--config", d.conf, "--dump-config")
    assert r.returncode == 0
    dumped = dict(re.findall(r"^([a-z-]+) = (.*)$", r.stdout, re.M))
    assert dumped["backend"] == "sim" and dumped["directory"] == str(d.state)
    d.conf.write_text(r.stdout)
    again = run("--dump-config", "--config", d.conf)
    assert again.stdout == r.stdout  # what it prints is what it reads


@pytest.mark.parametrize("text, mention", [
    ("[http]\nlisten = x\nnonsense = 1\n", ["line 3", "nonsense", "[http]"]),
    ("[nowhere]\nx = 1\n", ["line 2", "[nowhere]"]),
    ("[limits]\nqueue = many\n", ["line 2", "queue", "many", "1000000"]),
    ("[limits]\nqueue = 0\n", ["queue", "'0'"]),
    ("[limits]\nmodel-bytes = 8X\n", ["model-bytes", "8X"]),
    ("[http]\nrepository-api = maybe\n", ["repository-api", "maybe", "local|token|off"]),
    ("[device]\nbackend = abacus\n", ["abacus"]),
    ("[plan]\npolicy = luck\n", ["luck"]),
    ("[device]\nbackend = sim\nsim-file = /nowhere/sim.json\n", ["/nowhere/sim.json"]),
    ("[admin]\ntoken-file = /nowhere/token\n", ["/nowhere/token"]),
    ("words without meaning\n", ["line 1"]),
])  # fmt: skip
def test_a_bad_configuration_is_named_and_exits_78(tmp_path, text, mention):
    conf = tmp_path / "gpuletd.conf"
    conf.write_text(text)
    r = run("--config", conf, "-t")
    assert r.returncode == 78, r
    for word in mention:
        assert word in r.stderr, (word, r.stderr)
    if "line" in mention[0]:  # the others are found after the sockets are open
        again = run("--config", conf)
        assert (again.returncode, again.stderr) == (78, r.stderr)


def test_drop_ins_follow_the_file_in_the_order_of_their_names(tmp_path):
    conf = tmp_path / "g.conf"
    conf.write_text("[limits]\nqueue = 1\nbatch = 1\n")
    (tmp_path / "g.conf.d").mkdir()
    (tmp_path / "g.conf.d/20-b.conf").write_text("[limits]\nqueue = 3\n")
    (tmp_path / "g.conf.d/10-a.conf").write_text("[limits]\nqueue = 2\nbatch = 2\n")
    (tmp_path / "g.conf.d/30-c.txt").write_text("nonsense\n")
    out = run("--config", conf, "--dump-config").stdout
    assert "queue = 3\n" in out and "\nbatch = 2\n" in out


@pytest.mark.parametrize("args", [("--nonsense",), ("-x",), ("--config",), ("extra",), ("-t", "extra"), ("--config", "/nowhere/g.conf")])
def test_a_bad_option_exits_78(args):
    r = run(*args)
    assert r.returncode == 78, r
    assert r.stderr


def test_help_and_version_are_printed():
    r = run("--help")
    assert r.returncode == 0 and all(f"--{o}" in r.stdout for o in ("config", "test", "dump-config", "help", "version"))
    r = run("--version")
    assert r.returncode == 0 and re.fullmatch(r"gpuletd \d+\.\d+\.\d+\n", r.stdout)


def test_a_taken_port_is_an_error_that_names_it(make):
    d = make()
    e = make(start=False)
    e.set({("http", "listen"): f"127.0.0.1:{d.port}"})
    r = run("--config", e.conf)
    assert r.returncode != 0 and str(d.port) in r.stderr and "in use" in r.stderr
