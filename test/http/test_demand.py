"""The plan follows what is asked for: rates are measured, gpu-lets cut again, nobody notices.

Runs take 50 ms on any number of units and rows do not join, so that a unit serves 20 requests a
second and a model at 44 a second needs more than two of the eight."""
import json
import threading
import time

import numpy as np
import pytest

import models
from daemon import SLOW, metric, sim_file, until

NAMES = ["a", "b", "c", "d", "e"]
RUN_US = 50000
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})


@pytest.fixture
def daemon(make):
    d = make(sim=sim_file({n: {"us": RUN_US * SLOW, "answer": "echo"} for n in NAMES}, units=8))
    for n in NAMES:
        d.put(n, models.identity(), f"?max_batch=1&slo_ms={500 * SLOW}")
    return d


class Load:
    """Each model at its rate, from threads of its own; answers are checked."""

    THREADS = 16  # more than can be in time on one unit: the others are refused, and counted

    def __init__(self, daemon, rates):
        self.daemon, self.rates = daemon, dict(rates)
        self.stop, self.lock, self.paused = threading.Event(), threading.Lock(), set()
        self.late_s = 0  # the most by which a request was sent too late
        self.right, self.refused, self.wrong = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0), []
        self.threads = [threading.Thread(target=self.ask, args=(n, i)) for n in NAMES for i in range(self.THREADS)]
        for t in self.threads:
            t.start()

    def ask(self, name, i):
        c, serial, due = self.daemon.connect(), i, time.monotonic()
        while not self.stop.is_set():
            if name in self.paused:
                time.sleep(0.05)
                continue
            due = max(due + self.THREADS * SLOW / self.rates[name], time.monotonic() - 0.1)
            time.sleep(max(0, due - time.monotonic()))
            self.late_s = max(self.late_s, time.monotonic() - due)
            x = np.full((1, 4), serial, np.float32)
            serial += self.THREADS
            try:
                body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": x.flatten().tolist()}]}
                c.request("POST", f"/v2/models/{name}/infer", json.dumps(body))
                r = c.getresponse()
                data = r.read()
                ok = r.status == 200 and json.loads(data)["outputs"][0]["data"] == x.flatten().tolist()
                with self.lock:
                    if ok:
                        self.right[name] += 1
                    elif r.status == 503:
                        self.refused[name] += 1
                    else:
                        self.wrong.append((name, r.status, data))
            except Exception as e:  # noqa: BLE001
                with self.lock:
                    self.wrong.append((name, e))
        c.close()

    def pause(self, name):
        self.paused.add(name)

    def close(self):
        self.stop.set()
        for t in self.threads:
            t.join()
        assert not self.wrong, self.wrong[:3]


def demand(daemon, name):
    return daemon.admin_get(f"/v1/models/{name}")["demand"]


def holds(daemon, name, rate):
    """Whether the plan in force is for such a rate, as a busy machine may offer it."""
    return demand(daemon, name)["high_rps"] * SLOW >= 0.8 * rate


def plan_events(daemon, since=0):
    return [e for e in daemon.admin_get(f"/v1/events?since={since}")["events"] if e["event"] == "plan"]


def hot(name):
    return {n: 44 if n == name else 6 for n in NAMES}


def test_the_plan_follows_rates_that_move_between_models_and_nothing_is_lost(daemon):
    load = Load(daemon, hot("a"))
    try:
        for n in ["a", "d", "b"]:
            since = daemon.admin_get("/v1/events")["last"]
            load.rates = hot(n)
            until(lambda: holds(daemon, n, 44), 60 * SLOW, f"a plan for '{n}'", daemon)
            reasons = [e["message"] for e in plan_events(daemon, since)]
            assert any(f"'{n}'" in r and "above" in r for r in reasons), reasons
            time.sleep(2)
    finally:
        load.close()
    assert all(load.right.values())
    m = daemon.metrics()
    assert metric(m, "gpuletd_model_planned_rps", model="b") > 0 and metric(m, "gpuletd_model_rate_rps", model="b") > 0
    assert metric(m, "gpuletd_plan_failed") == 0


def test_without_a_change_of_rates_no_plan_is_made(daemon):
    load = Load(daemon, hot("c"))
    try:
        until(lambda: holds(daemon, "c", 44), 60 * SLOW, "a plan for 'c'", daemon)
        for _ in range(12):  # until the client is steady for as long as it takes: a busy machine has none
            time.sleep(3)
            since, load.late_s = daemon.admin_get("/v1/events")["last"], 0
            time.sleep(5)
            plans = plan_events(daemon, since)
            if load.late_s < 0.05 or len(plans) <= 1:
                break
        assert len(plans) <= 1, (load.late_s, [e["message"] for e in plans])
    finally:
        load.close()


def test_a_model_without_requests_gives_its_share_up_and_keeps_a_place(daemon):
    load = Load(daemon, hot("a"))
    x = np.ones((1, 4), np.float32)
    try:
        until(lambda: holds(daemon, "a", 44), 60 * SLOW, "a plan for 'a'", daemon)
        load.pause("a")
        until(lambda: demand(daemon, "a")["planned_rps"] == 0, 120 * SLOW, "a plan without 'a'", daemon)
        assert daemon.infer("a", {"x": x})["y"].tolist() == x.tolist()
        assert any("'a'" in e["message"] and "below" in e["message"] for e in plan_events(daemon))
        assert demand(daemon, "b")["planned_rps"] > 0
    finally:
        load.close()


def test_a_declared_rate_is_planned_for_without_requests(daemon):
    assert demand(daemon, "e")["planned_rps"] == 0
    daemon.admin("PATCH", "/v1/models/e", {"rate_rps": 60 / SLOW})
    d = demand(daemon, "e")
    assert d["planned_rps"] == 60 / SLOW and d["low_rps"] == 0 and d["high_rps"] >= 60 / SLOW
    assert d["mean_rps"] == 0


def test_a_plan_that_does_not_hold_for_everybody_is_made_anew_once_a_little_less_is_asked_for(make):
    """A run of `slow` and then one's own is more than `tight` can wait for: now and then it is late."""
    runs = {"tight": (5, 10, 10), "slow": (6, 100, 18)}  # ms of a run, ms of the SLO, requests/s
    d = make(sim=sim_file({n: {"us": ms * 1000 * SLOW, "answer": "echo"} for n, (ms, _, _) in runs.items()}, units=1))
    for n, (_, slo_ms, _) in runs.items():
        d.put(n, models.identity(), f"?max_batch=1&slo_ms={slo_ms * SLOW}")

    def ask(part, seconds, enough=lambda: False):
        begun, due_s = time.monotonic(), dict.fromkeys(runs, 0.0)
        while time.monotonic() - begun < seconds * SLOW and not enough():
            n = min(due_s, key=due_s.get)
            time.sleep(max(0, begun + due_s[n] - time.monotonic()))
            due_s[n] += SLOW / part / runs[n][2]
            d.request("POST", f"/v2/models/{n}/infer", BODY)

    def fell():
        return [e["message"] for e in plan_events(d) if "below" in e["message"]]

    def is_planned():
        return all(demand(d, n)["planned_rps"] > 0 for n in runs) and d.admin_get("/v1/plan")["unmet"]

    ask(1, 20, is_planned)
    assert is_planned()
    ask(0.7, 30, fell)
    assert fell()
