"""Every policy serves from the daemon: two models on a device of four simulated units."""
import json
import threading

import numpy as np
import pytest

from daemon import SLOW, sim_file
from models import identity, sim_answer
from test_planning import run, run_json

POLICIES = ("gpuletd equal timeshare static-equal static-seven greedy gpulet gpulet-int gpulet-full ffd igniter "
            "parva fifo round-robin max-delay edf deferred all-at-once").split()


def ask(d, name, seed, wrong, tries):
    c = d.connect()
    rng = np.random.default_rng(seed)
    for _ in range(10):
        x = rng.standard_normal((1, 4), np.float32)
        for left in reversed(range(tries)):
            try:
                assert np.array_equal(d.infer_binary(name, {"x": x}, connection=c)["y"], sim_answer([x]))
                break
            except AssertionError as e:
                if left == 0 or "503" not in str(e):
                    wrong.append((name, seed, str(e)))
                    break
    c.close()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_gets_its_own_answer(make, policy):
    sim = sim_file({n: {"us": 500, "per_row_us": 100} for n in ("a", "b")})
    d = make(sim=sim, config={("plan", "policy"): policy})
    for name in ("a", "b"):
        d.put(name, identity(), "?slo_ms=400&rate_rps=20")
    assert d.admin_get("/v1/plan")["policy"] == policy
    wrong = []
    tries = 5 if policy == "deferred" else 1  # it starts at the last moment: too late where a machine is busy
    threads = [threading.Thread(target=ask, args=(d, name, seed, wrong, tries)) for name in ("a", "b") for seed in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_gpu_lets_that_memory_has_no_room_for_are_neither_planned_nor_taken(make):
    sim = sim_file({n: 500 for n in "abc"})
    sim["types"][0] |= {"mem_bytes": 1e9, "let_bytes": 400e6}  # two of them, and little besides
    d = make(sim=sim)
    for name in "abc":
        d.put(name, identity(), "?slo_ms=400&rate_rps=20")
    (device,) = d.admin_get("/v1/devices")["devices"]
    assert (device["mem_bytes"], device["let_bytes"]) == (1_000_000_000, 400_000_000)
    assert d.admin_get("/v1/problem")["types"][0]["let_bytes"] == 400_000_000
    serving = [g for g in d.admin_get("/v1/plan")["gpulets"] if g["state"] == "serving"]
    assert len(serving) <= 2 and {m["model"] for g in serving for m in g["models"]} == set("abc")
    each = [{"device": "sim0", "granules": [i], "models": [{"model": name}]} for i, name in enumerate("abc")]
    r = d.admin("PUT", "/v1/plan", {"gpulets": each})
    assert r.status == 400 and b"bytes, it has 1000000000" in r.body


def test_an_unknown_policy_is_refused_with_the_list(make):
    d = make(start=False, config={("plan", "policy"): "best"})
    d.start(wait=False)
    assert d.wait() != 0
    log = d.log.read_text()
    assert "there is no policy 'best'" in log
    assert all(p in log for p in POLICIES)


# One row and four, on one unit to eight: three models on two units each do far more than one after the
# other on all eight.
ROWS = {1: (80, 220), 2: (52, 140), 4: (40, 104), 8: (36, 90)}
SURFACE = {"batch": [1, 4], "units": [*ROWS], "run_ms": [[ms * SLOW for ms in row] for row in ROWS.values()]}
SIDE_BY_SIDE = {n: (16 / SLOW, 180 * SLOW) for n in "abc"}  # requests a second, SLO
SIDE_S = 10 * SLOW


def in_time(file, problem):
    """The same arrivals on the problem's own plan, in virtual time."""
    file.write_text(json.dumps(problem))
    r = run_json("simulate", file, "--plan", file, "--policy", "max-delay", "--seed", 1, "--duration", SIDE_S)
    return r["in_time_share"]


def test_models_side_by_side_are_in_time_as_in_the_replay(make, tmp_path):
    """As is asked of the race in real time; one after the other it would be much less."""
    d = make(sim=sim_file({n: {"profile": SURFACE} for n in SIDE_BY_SIDE}, units=8), config={("plan", "policy"): "max-delay"})
    for n, (rps, slo_ms) in SIDE_BY_SIDE.items():
        d.put(n, identity(), f"?max_batch=4&slo_ms={slo_ms}&rate_rps={rps}")
    pin = {"device": "sim0", "granules": [*range(8)], "models": [{"model": n, "batch": 4} for n in SIDE_BY_SIDE]}
    assert d.admin("PUT", "/v1/plan", {"gpulets": [pin]}).status == 200
    bench = ["bench", "--to", f"http://127.0.0.1:{d.port}", "--json", "--warmup", 0, *(f"{n}={rps}@{ms}" for n, (rps, ms) in SIDE_BY_SIDE.items())]
    run(*bench, "--duration", 2 * SLOW, "--seed", 2, status=None)  # run times are put right by what serving shows
    problem = d.admin_get("/v1/problem")
    real = json.loads(run(*bench, "--duration", SIDE_S, "--seed", 1, status=None)[0])["in_time_share"]
    assert real == pytest.approx(in_time(tmp_path / "problem.json", problem), abs=0.03)
    problem["types"][0]["in_turn"] = True
    assert in_time(tmp_path / "problem.json", problem) < real - 0.3


def test_cores_run_in_turn_and_say_so(make):
    d = make(backend="cpu", config={("plan", "policy"): "max-delay"})
    d.put("m", identity(), "?slo_ms=1000")
    assert d.admin_get("/v1/problem")["types"][0]["in_turn"] is True
    d = make(sim=sim_file({"m": 500}))
    d.put("m", identity(), "?slo_ms=1000")
    assert "in_turn" not in d.admin_get("/v1/problem")["types"][0]


def test_runs_beside_others_teach_nothing_of_one_alone(make):
    """Two models that are always busy, so that each has half of the units and takes twice as long."""
    profile = {"batch": [1], "units": [1, 4], "run_ms": [[40 * SLOW], [10 * SLOW]]}
    d = make(sim=sim_file({n: {"profile": profile} for n in "ab"}), config={("plan", "policy"): "max-delay"})
    for n in "ab":
        d.put(n, identity(), f"?max_batch=1&slo_ms={500 * SLOW}")
    run("bench", "--to", f"http://127.0.0.1:{d.port}", "--duration", 4 * SLOW, "--warmup", 0, *(f"{n}={100 / SLOW}@1000" for n in "ab"), status=None)
    assert d.admin("PATCH", "/v1/models/a", {"slo_ms": 400 * SLOW}).status == 200  # so that a plan is made of what is known now
    for m in d.admin_get("/v1/problem")["models"]:
        assert m["profile"]["sim0"]["run_ms"][-1] == [pytest.approx(10 * SLOW, rel=0.05)]
