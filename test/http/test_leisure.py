"""Second thoughts: a daemon whose plan was made in a hurry, model by model, ends with one that is as good
as a plan made from nothing for the same problem."""
import json
import subprocess
import threading

import models
from daemon import BUILD, ENV, ROOT, SLOW, json_input, until

import numpy as np

GPULETCTL = (BUILD if BUILD.is_absolute() else ROOT / BUILD) / "gpuletctl"
X = {"inputs": [json_input("x", np.ones((1, 4), np.float32))]}
SLOWER = 8 * SLOW  # a run takes so many times as long: what a daemon takes for itself does not matter
LOAD = 29  # times the rates of the mix: near what the device can take


def mix():
    """The race's mix of light models, at the load and as slow; without what neighbours do, which a daemon
    must find out first."""
    p = json.loads((ROOT / "test/race/mixes/light.json").read_text())
    p["types"][0].pop("interference")
    for m in p["models"]:
        m["slo_ms"] *= SLOWER
        m["rate_rps"] *= LOAD / SLOWER
        for surface in m["profile"].values():
            surface["run_ms"] = [[SLOWER * ms for ms in row] for row in surface["run_ms"]]
    return p


def in_time(problem, path, own_plan):
    """The share that is in time in a replay, on the plan that the daemon runs or on one made anew."""
    path.write_text(json.dumps(problem))
    args = ["--seed", "3", "--duration", str(20 * SLOWER), "--json", *(["--plan", path] if own_plan else [])]
    r = subprocess.run([GPULETCTL, "simulate", path, *map(str, args)], env=ENV, stdout=subprocess.PIPE, check=True)
    return json.loads(r.stdout)["in_time_share"]


class Client(threading.Thread):
    """Asks for one model, one request after the other, and keeps what is said."""

    def __init__(self, d, name):
        super().__init__()
        self.d, self.name_of_model, self.over, self.said = d, name, threading.Event(), []

    def run(self):
        while not self.over.wait(0.05):
            self.said.append(self.d.post(f"/v2/models/{self.name_of_model}/infer", X).status)


def test_models_given_one_by_one_end_with_a_plan_as_good_as_one_made_anew(make, tmp_path):
    p = mix()
    device = {**p, "models": [{k: m[k] for k in ("name", "max_batch", "profile")} for m in p["models"]]}
    d = make(sim=device)
    for m in p["models"]:
        d.put(m["name"], models.identity(), f"?max_batch=32&slo_ms={m['slo_ms']}&rate_rps={m['rate_rps']:.4f}")
    clients = [Client(d, m["name"]) for m in p["models"]]
    for c in clients:
        c.start()

    def as_good():
        problem = d.admin_get("/v1/problem")
        own, anew = (in_time(problem, tmp_path / "problem.json", x) for x in (True, False))
        return own >= anew - 0.01 and anew > 0.97

    try:
        until(as_good, 60, "a plan as good as one made anew", d)
    finally:
        for c in clients:
            c.over.set()
        for c in clients:
            c.join()
    assert all(c.said and set(c.said) == {200} for c in clients), {c.name_of_model: c.said for c in clients}
