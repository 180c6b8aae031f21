"""More is asked for than a device has: what a plan for a part of it promises is kept, in virtual time."""
import json
import subprocess

import models
from daemon import BUILD, ENV, ROOT, SLOW

GPULETCTL = (BUILD if BUILD.is_absolute() else ROOT / BUILD) / "gpuletctl"
SLOWER = 3 * SLOW  # a run takes so many times as long: what a daemon takes for itself does not matter
BATCHES, SIZES = [1, 2, 4, 8, 16, 32], [2, 4, 8, 16, 32, 64, 132]
# ms of a row on one unit, units that a row can use, ms of the SLO, requests/s that are declared
DECLARED = {"small": (60, 20, 60, 490), "medium": (160, 30, 100, 187), "other": (100, 24, 80, 298), "large": (500, 50, 200, 0)}


def device():
    """Of 132 units in eleven granules."""
    def run_ms(batch, units, work_ms, knee):
        return SLOWER * (0.4 + work_ms * batch**0.9 / min(units, knee * batch**0.5))

    return {"version": 1, "types": [{"name": "declared", "granules": 11, "granule_units": 12}], "devices": [{"type": "declared", "names": ["sim0"]}],
            "models": [{"name": n, "max_batch": 32, "profile": {"declared": {"batch": BATCHES, "units": SIZES, "run_ms": [
                [run_ms(b, u, work_ms, knee) for b in BATCHES] for u in SIZES]}}} for n, (work_ms, knee, _, _) in DECLARED.items()]}  # fmt: skip


def put(d, name, rps):
    d.put(name, models.identity(), f"?max_batch=16&slo_ms={DECLARED[name][2] * SLOWER}&rate_rps={rps / SLOWER:.3f}")


def in_time(d, path):
    """Of each model the share that is in time in a replay of the plan, at the rates that it is made for."""
    path.write_text(json.dumps(d.admin_get("/v1/problem")))
    args = ["simulate", path, "--plan", path, "--policy", "gpuletd", "--seed", "1", "--duration", str(120 * SLOWER), "--json"]
    r = subprocess.run([GPULETCTL, *args], env=ENV, stdout=subprocess.PIPE, check=True)
    return {m["model"]: m["in_time_share"] for m in json.loads(r.stdout)["models"]}


def test_beside_a_model_that_asks_for_too_much_the_others_have_99_of_100_in_time(make, tmp_path):
    """What `medium` is promised nowhere comes all the same, to where `small` has its part."""
    d = make(sim=device())
    for n in ("small", "medium", "other"):
        put(d, n, DECLARED[n][3])
    for rps in 152, 153:
        put(d, "large", rps)
        assert d.admin_get("/v1/models/large").get("limit") == "rate"
        shares = in_time(d, tmp_path / "problem.json")
        assert len(shares) == 4 and min(shares.values()) > 0.986, shares
        assert d.admin("DELETE", "/v1/models/large").status in (200, 204)
