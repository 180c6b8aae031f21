"""Every policy serves from the daemon: two models on a device of four simulated units."""
import threading

import numpy as np
import pytest

from daemon import sim_file
from models import identity, sim_answer

POLICIES = ("gpuletd equal timeshare static-equal static-seven greedy gpulet gpulet-int gpulet-full ffd igniter "
            "parva fifo round-robin max-delay edf deferred all-at-once").split()


def ask(d, name, seed, wrong):
    c = d.connect()
    rng = np.random.default_rng(seed)
    for _ in range(10):
        x = rng.standard_normal((1, 4), np.float32)
        try:
            assert np.array_equal(d.infer_binary(name, {"x": x}, connection=c)["y"], sim_answer([x]))
        except AssertionError as e:
            wrong.append((name, seed, str(e)))
    c.close()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_gets_its_own_answer(make, policy):
    sim = sim_file({n: {"us": 500, "per_row_us": 100} for n in ("a", "b")})
    d = make(sim=sim, config={("plan", "policy"): policy})
    for name in ("a", "b"):
        d.put(name, identity(), "?slo_ms=400&rate_rps=20")
    assert d.admin_get("/v1/plan")["policy"] == policy
    wrong = []
    threads = [threading.Thread(target=ask, args=(d, name, seed, wrong)) for name in ("a", "b") for seed in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_an_unknown_policy_is_refused_with_the_list(make):
    d = make(start=False, config={("plan", "policy"): "best"})
    d.start(wait=False)
    assert d.wait() != 0
    log = d.log.read_text()
    assert "there is no policy 'best'" in log
    assert all(p in log for p in POLICIES)
