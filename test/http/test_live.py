"""What a running daemon does by itself: which exe a run gets, what a plan knows, what a change costs."""
import collections
import json
import threading
import time

import numpy as np
import pytest

import models
from daemon import SLOW, binary_body, json_input, request_bytes, sim_file, until

STEEP = {"batch": [1, 2, 8], "units": [1, 4], "run_ms": [[40, 60, 800]] * 2}
X = {"inputs": [json_input("x", np.ones((1, 4), np.float32))]}


def ask(d, name, status=(200,)):
    r = d.post(f"/v2/models/{name}/infer", X)
    assert r.status in status, r.body
    return r.status


def batches(d, name):
    """{rows: (runs, ms of each on the device)}"""
    s = json.loads(d.get(f"/v2/models/{name}/stats").body)["model_stats"][0]
    return {b["batch_size"]: (b["compute_infer"]["count"], b["compute_infer"]["ns"] / b["compute_infer"]["count"] / 1e6)
            for b in s["batch_stats"]}  # fmt: skip


def asks(d, name, rps, seconds, over=threading.Event()):
    """Asks so often from a few threads, whatever comes of it, until it is over."""
    def some(k):
        due, end = time.monotonic() + k / rps, time.monotonic() + seconds
        while due < end and not over.wait(max(0, due - time.monotonic())):
            ask(d, name, (200, 503))
            due += 8 / rps

    threads = [threading.Thread(target=some, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def test_a_request_waits_for_its_own_batch_instead_of_running_in_a_larger_one(make):
    d = make(sim=sim_file({"m": {"profile": STEEP}}))
    d.put("m", models.identity(), "?max_batch=8")
    pin = {"device": "sim0", "granules": [0, 1, 2, 3], "models": [{"model": "m"}]}
    assert d.admin("PUT", "/v1/plan", {"gpulets": [pin]}).status == 200
    asks(d, "m", 40, 2)  # some come while another one runs
    for rows, (_, ms) in batches(d, "m").items():
        assert rows > 2 or ms == pytest.approx([40, 60][rows - 1], rel=0.02), batches(d, "m")


def test_what_waits_is_not_judged_by_a_larger_exe_while_its_own_is_taken(make):
    profile = {"batch": [1, 2], "units": [1, 4], "run_ms": [[200 * SLOW, 3000 * SLOW]] * 2}
    d = make(sim=sim_file({"m": {"profile": profile}}))
    d.put("m", models.identity(), f"?max_batch=2&slo_ms={2000 * SLOW}")
    pin = {"device": "sim0", "granules": [0, 1, 2, 3], "models": [{"model": "m", "batch": 2}]}
    assert d.admin("PUT", "/v1/plan", {"gpulets": [pin]}).status == 200
    first = threading.Thread(target=ask, args=(d, "m"))
    first.start()
    until(lambda: d.admin_get("/v1/gpulets")["gpulets"][0]["flying"], 10, "a run", d)
    ask(d, "m")
    first.join()


def test_rates_that_are_known_are_planned_for_with_queues(make):
    d = make(sim=sim_file({n: {"profile": {"batch": [1], "units": [1], "run_ms": [[10 * SLOW]]}} for n in "ab"}))
    for n in "ab":
        d.put(n, models.identity(), f"?max_batch=1&slo_ms={100 * SLOW}")
    assert d.admin_get("/v1/problem")["rules"] == {}
    asks(d, "a", 30 / SLOW, 4)
    until(lambda: d.admin_get("/v1/problem")["rules"].get("rule") == "queue", 20, "a plan for queues", d)
    said = [e["message"] for e in d.admin_get("/v1/events")["events"] if e["event"] == "plan"]
    assert any("'a'" in m and "nothing was planned" in m for m in said), said
    assert d.admin_get("/v1/models/a")["demand"]["planned_rps"] > 0 == d.admin_get("/v1/models/b")["demand"]["planned_rps"]


def test_a_plan_by_hand_is_not_judged_by_rates(make):
    d = make(sim=sim_file({"m": {"profile": {"batch": [1], "units": [1], "run_ms": [[10]]}}}))
    d.put("m", models.identity(), "?max_batch=1&slo_ms=500&rate_rps=90")
    assert d.admin_get("/v1/problem")["rules"]["rule"] == "queue"
    pin = {"device": "sim0", "granules": [2], "models": [{"model": "m"}]}
    assert d.admin("PUT", "/v1/plan", {"gpulets": [pin]}).status == 200
    assert ask(d, "m") == 200
    assert d.admin("DELETE", "/v1/plan").status == 200
    assert d.admin_get("/v1/problem")["rules"]["rule"] == "queue"


def test_a_change_of_plan_measures_nothing(make):
    profile = {"batch": [1, 8], "units": [2, 8, 66, 132], "run_ms": [[80, 400], [40, 200], [20, 60], [10, 30]]}
    sim = sim_file({n: {"profile": profile} for n in "ab"})
    sim["types"] = [{"name": "made-up", "granules": 66, "granule_units": 2}]
    d = make(sim=sim)
    for n in "ab":
        d.put(n, models.identity(), "?max_batch=8")

    def points():
        return {n: {tuple(p[:2]) for p in d.admin_get(f"/v1/profiles/{n}")["measured"]["points"]} for n in "ab"}

    before = points()
    for size in (6, 20):  # two sizes that nobody has measured
        pins = [{"device": "sim0", "granules": list(range(i * 33, i * 33 + size)), "models": [{"model": n}]}
                for i, n in enumerate("ab")]  # fmt: skip
        assert d.admin("PUT", "/v1/plan", {"gpulets": pins}).status == 200
    assert points() == before
    assert [ask(d, n) for n in "ab"] == [200, 200]


def test_what_is_only_too_much_is_refused_and_never_late_for_everybody(make):
    """A rate that no plan can hold makes no model best-effort: its SLO stays the deadline."""
    d = make(sim=sim_file({"m": {"profile": {"batch": [1], "units": [1], "run_ms": [[40 * SLOW]]}}}, units=1))
    d.put("m", models.identity(), f"?max_batch=1&slo_ms={200 * SLOW}&rate_rps={100 / SLOW}")
    m = d.admin_get("/v1/models/m")
    assert m["slo"] == "unmet" and m["limit"] == "rate"
    asks(d, "m", 75 / SLOW, 3 * SLOW)
    stats = json.loads(d.get("/v2/models/m/stats").body)["model_stats"][0]["inference_stats"]
    assert stats["queue"]["ns"] / max(stats["queue"]["count"], 1) < 200e6 * SLOW, stats


def test_a_burst_is_served_where_the_neighbours_are_not_asked_for(make):
    """A hundred times what was planned, at once: nobody else wants the device, so nobody is disturbed."""
    d = make(sim=sim_file({n: {"profile": {"batch": [1], "units": [1], "run_ms": [[1]]}} for n in "ab"}, units=1))
    for n in "ab":
        d.put(n, models.identity(), f"?max_batch=1&slo_ms={5000 * SLOW}&rate_rps=2&queue=1000")
    assert len(d.admin_get("/v1/plan")["gpulets"]) == 1
    head, data = binary_body({"x": np.ones((1, 4), np.float32)})
    wires = [d.wire() for _ in range(300)]
    try:
        for w in wires:
            w.send(request_bytes("POST", "/v2/models/a/infer", head + data, Inference_Header_Content_Length=len(head)))
        said = [w.read().status for w in wires]
    finally:
        for w in wires:
            w.socket.close()
    assert said == [200] * 300, collections.Counter(said)


def test_of_too_much_every_model_has_what_it_declared_and_that_is_there_when_the_rest_has_gone(make):
    """Both ask for four times what they declared, more than the device has; the heavy one is not what is left out."""
    runs = {"heavy": 80, "light": 20}  # ms, one row at a time
    declared = {"heavy": 3.75, "light": 15}  # 0.3 of the device each
    d = make(sim=sim_file({n: {"profile": {"batch": [1], "units": [1], "run_ms": [[ms * SLOW]]}} for n, ms in runs.items()}, units=1))
    for n, rps in declared.items():
        d.put(n, models.identity(), f"?max_batch=1&slo_ms={500 * SLOW}&rate_rps={rps / SLOW}")
    load = [threading.Thread(target=asks, args=(d, n, 4 * rps / SLOW, 6 * SLOW)) for n, rps in declared.items()]
    for t in load:
        t.start()
    until(lambda: all(d.admin_get(f"/v1/models/{n}").get("limit") == "rate" for n in declared), 60 * SLOW, "too much", d)
    for t in load:
        t.join()

    def planned():
        return {n: d.admin_get(f"/v1/models/{n}")["demand"]["planned_rps"] * SLOW for n in declared}

    def keep():
        return all(planned()[n] >= 0.99 * rps for n, rps in declared.items())

    assert keep(), planned()
    assert d.admin_get("/v1/plan")["error"] == ""
    until(lambda: all(d.admin_get(f"/v1/models/{n}")["demand"]["mean_rps"] * SLOW < rps for n, rps in declared.items()),
          60 * SLOW, "less", d)  # fmt: skip
    why = [e["message"] for e in d.admin_get("/v1/events")["events"] if e["event"] == "plan"]
    assert keep() and not any("below" in x for x in why), (planned(), why)


def test_a_model_that_is_loaded_has_what_the_others_leave(make):
    """By what they declare one takes half of the device, the other more than all of it."""
    d = make(sim=sim_file({n: {"profile": {"batch": [1], "units": [1], "run_ms": [[20 * SLOW]]}} for n in "ab"}, units=1))
    for n, rps in {"a": 25, "b": 60}.items():
        d.put(n, models.identity(), f"?max_batch=1&slo_ms={500 * SLOW}&rate_rps={rps / SLOW}")
    planned = {n: d.admin_get(f"/v1/models/{n}")["demand"]["planned_rps"] * SLOW for n in "ab"}
    assert planned["a"] >= 24.9 and 5 < planned["b"] < 35, planned
    assert d.admin_get("/v1/models/b").get("limit") == "rate"
    d.put("b", models.identity(), f"?max_batch=1&slo_ms={500 * SLOW}&rate_rps={80 / SLOW}")
    assert d.admin_get("/v1/models/a")["demand"]["planned_rps"] * SLOW >= 24.9


def test_where_an_slo_holds_at_no_rate_the_others_have_their_parts_all_the_same(make):
    """No plan promises `tight` anything; what the two others ask for is more than the device has."""
    d = make(sim=sim_file({n: {"profile": {"batch": [1], "units": [1], "run_ms": [[20 * SLOW]]}} for n in ("tight", "a", "b")}, units=1))
    for n, slo_ms, rps in (("tight", 5, 1), ("a", 500, 25), ("b", 500, 60)):
        d.put(n, models.identity(), f"?max_batch=1&slo_ms={slo_ms * SLOW}&rate_rps={rps / SLOW}")
    assert d.admin_get("/v1/models/tight").get("limit") == "slo"
    planned = {n: d.admin_get(f"/v1/models/{n}")["demand"]["planned_rps"] * SLOW for n in "ab"}
    assert planned["a"] >= 24.9 and 5 < planned["b"] < 35, planned


def test_a_plan_for_a_part_is_not_made_where_nobody_has_more_by_it(make):
    """`tight` cannot wait for a run of `slow` that has just begun, now and then: less of either only means that more is refused."""
    runs = {"tight": (50, 100, 2.8), "slow": (60, 1000, 4)}  # ms of a run, ms of the SLO, requests/s
    profiles = {n: {"profile": {"batch": [1], "units": [1], "run_ms": [[ms * SLOW]]}} for n, (ms, _, _) in runs.items()}
    d = make(sim=sim_file(profiles, units=1))
    for n, (_, slo_ms, _) in runs.items():
        d.put(n, models.identity(), f"?max_batch=1&slo_ms={slo_ms * SLOW}")

    def unmet():
        return {m["model"]: m["limit"] for m in d.admin_get("/v1/plan")["unmet"]}

    over = threading.Event()
    load = [threading.Thread(target=asks, args=(d, n, rps / SLOW, 40 * SLOW, over)) for n, (_, _, rps) in runs.items()]
    for t in load:
        t.start()
    try:
        until(lambda: unmet() == {"tight": "rate"}, 30 * SLOW, "a plan for all of `slow`", d)
    finally:
        over.set()
        for t in load:
            t.join()
