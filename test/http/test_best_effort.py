"""Models of best effort beside one with an SLO, on a simulated device.

A run of `sure` takes 10 ms and its SLO is 400; one of `rest` takes 40.  Both take one row."""
import json
import re
import threading

import numpy as np
import pytest

import models
from daemon import SLOW, error_of, json_input, metric, sim_file, until
from test_planning import run

SURE_MS, REST_MS, SLO_MS = 10 * SLOW, 40 * SLOW, 400 * SLOW
N_REST = 60  # 2.4 s of work on one gpu-let
X = json_input("x", np.ones((1, 4), np.float32))


def sim(units=1):
    return sim_file({"sure": SURE_MS * 1000, "rest": REST_MS * 1000}, units=units)


@pytest.fixture
def daemon(make):
    d = make(sim=sim())
    d.put("sure", models.identity(), f"?max_batch=1&slo_ms={SLO_MS}")
    return d


def asked(d, name, n, timeout_ms=None):
    """n requests at once, in the background: a list that fills with (status, error), and a wait."""
    got = []
    o = {"inputs": [X], **({"parameters": {"timeout": timeout_ms * 1000}} if timeout_ms else {})}

    def one():
        r = d.post(f"/v2/models/{name}/infer", o)
        got.append((r.status, error_of(r) if r.status != 200 else ""))

    threads = [threading.Thread(target=one) for _ in range(n)]
    for t in threads:
        t.start()
    return got, lambda: [t.join() for t in threads]


def queued(d, name):
    return d.admin_get(f"/v1/models/{name}")["queued"]


def test_it_is_a_number_of_the_model_that_is_kept(daemon):
    m = daemon.put("rest", models.identity(seed=1), "?best_effort=1&slo_ms=50&rate_rps=100&max_batch=1")
    assert (m["best_effort"], m["slo"]) == (True, "none")
    assert daemon.admin_get("/v1/models/sure")["best_effort"] is False
    daemon.kill()
    daemon.start()
    assert daemon.admin_get("/v1/models/rest")["best_effort"] is True
    r = daemon.admin("PATCH", "/v1/models/rest", {"best_effort": 0})
    m = json.loads(r.body)
    assert (m["best_effort"], m["slo"], m["slo_ms"]) == (False, "unmet", 50)  # it is promised again what it can be
    assert "best_effort" in error_of(daemon.admin("PATCH", "/v1/models/rest", {"best_effort": 2}))


def test_a_request_with_an_slo_waits_for_one_run_of_it_and_no_more(daemon):
    """Behind all that waits it would be refused at once."""
    daemon.put("rest", models.identity(seed=1), "?best_effort=1&max_batch=1")
    got, wait = asked(daemon, "rest", N_REST)
    until(lambda: queued(daemon, "rest") >= 30, 20, "a queue", daemon)
    for _ in range(5):
        assert daemon.post("/v2/models/sure/infer", {"inputs": [X]}).status == 200
    assert queued(daemon, "rest") > 0
    m = daemon.admin_get("/v1/models/sure")
    assert (m["in_time"], m["rejected"], m["late"]) == (5, 0, 0)
    wait()
    assert [s for s, _ in got] == [200] * N_REST  # it has all that is left, in its time


def test_it_is_planned_for_nothing(daemon):
    daemon.put("rest", models.identity(seed=1), "?best_effort=1&max_batch=1&rate_rps=1000")
    p = json.loads(daemon.admin("GET", "/v1/problem").body)
    rest = next(m for m in p["models"] if m["name"] == "rest")
    assert rest["best_effort"] is True and rest.get("rate_rps", 0) == 0
    assert daemon.admin_get("/v1/plan")["unmet"] == []
    assert daemon.admin_get("/v1/models/sure")["slo"] == "met"
    asked(daemon, "rest", N_REST)[1]()
    assert daemon.admin_get("/v1/models/rest")["demand"]["planned_rps"] == 0
    assert not [e for e in daemon.admin_get("/v1/events")["events"] if e["event"] == "plan" and "rest" in e["message"]]


def test_what_gets_no_time_is_told_so_when_its_time_is_up(daemon):
    """While eight clients of `sure` wait all the time, one of whom is served."""
    daemon.put("rest", models.identity(seed=1), "?best_effort=1&max_batch=1")
    done = threading.Event()

    def client():
        while not done.is_set():
            assert daemon.post("/v2/models/sure/infer", {"inputs": [X]}).status == 200

    clients = [threading.Thread(target=client) for _ in range(8)]
    for t in clients:
        t.start()
    until(lambda: queued(daemon, "sure") >= 5, 20, "clients", daemon)
    got, wait = asked(daemon, "rest", 6, timeout_ms=8 * REST_MS)
    wait()
    done.set()
    for t in clients:
        t.join()
    told = [e for s, e in got if s == 503]
    assert told and all("deadline" in e for e in told)
    assert any("best effort: the other models left no time" in e for e in told), told
    assert metric(daemon.metrics(), "gpuletd_requests_refused_total", model="rest") == len(told)


def test_a_run_that_would_make_others_late_has_no_place_and_is_refused_with_the_reason(make):
    d = make(sim=sim_file({"sure": SURE_MS * 1000, "rest": SLO_MS * 1000}, units=1))
    d.put("sure", models.identity(), f"?max_batch=1&slo_ms={SLO_MS}")
    m = d.put("rest", models.identity(seed=1), "?best_effort=1&max_batch=1")
    assert m["limit"] == "units"
    line, why = re.search(r"^(rest .*)\n(.*)$", run("--server", f"http://127.0.0.1:{d.admin_port}", "models")[0], re.M).groups()
    assert "best effort" in line and "no gpu-let has time" in why
    r = d.post("/v2/models/rest/infer", {"inputs": [X]})
    assert r.status == 503 and "best effort" in error_of(r)
    assert d.admin("DELETE", "/v1/models/sure").status == 200  # then it has the device
    assert "limit" not in d.admin_get("/v1/models/rest")
    assert d.post("/v2/models/rest/infer", {"inputs": [X]}).status == 200


def test_what_nobody_has_is_its_own_until_somebody_needs_it(make):
    """It has a seat on every granule, whoever else has it, and is in nobody's way."""
    d = make(sim=sim(units=4))
    d.put("sure", models.identity(), f"?max_batch=1&slo_ms={SLO_MS}&rate_rps=5")
    d.put("rest", models.identity(seed=1), "?best_effort=1&max_batch=1")
    granules = [n for g in d.admin_get("/v1/gpulets")["gpulets"] for n in g["granules"] if any(m["model"] == "rest" for m in g["models"])]
    assert sorted(granules) == [0, 1, 2, 3]
    d.put("more", models.identity(seed=2), f"?max_batch=1&slo_ms={SLO_MS}&rate_rps=5")
    m = d.admin_get("/v1/models/more")
    assert m["slo"] == "met"
    got, wait = asked(d, "rest", 20)
    wait()
    assert [s for s, _ in got] == [200] * 20
