#!/usr/bin/env python3
"""The race in real time: policies run by real daemons, each on a plan that it makes for the load.

    BUILD=build .venv-test/bin/python test/race/live.py [--device sim|cpu] [--mix M] [--policy P] [--seconds S]
                                                        [--state DIR] [--prepare] [--models DIR]

sim: device and mixes of test/race/mixes, slowed down so that HTTP on two cores does not matter.  Each
policy is offered the load that is its capacity in virtual time, and all the load that is gpuletd's,
for S seconds, planned for the less of both (the daemon refuses models for which a policy has no room,
and a policy that has none for some at any load is left out); the same arrivals are given to gpuletctl simulate with the plan and the problem that
the daemon exports.

cpu: MobileNet-size models on this machine's cores, the generator on the last one, before all others.
All policies are offered one load near what the cores can do; they take turns, round by round, each on
a daemon of its own.

--state keeps capacities and what was measured of the models; --prepare does nothing else, so that a
run after it is short."""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "test" / "bench"), str(ROOT / "test" / "http")]
import from_nothing  # noqa: E402
import live  # noqa: E402
import models  # noqa: E402
import reality  # noqa: E402

POLICIES = ["fifo", "max-delay", "edf", "deferred", "static-equal", "gpulet", "gpuletd"]
SLOWER = {"light": 12, "heavy": 1, "skewed": 6, "equal": 6, "memory-bound": 10, "compute-bound": 2}
GRID, GRID_FROM, GRID_TO = 1.04, -60, 140  # of capacities: powers
POINTS_S, BESIDE_S = 140, 20  # at most: until the first runs beside a stressor, from one to the next
CPU_POLICIES = ["max-delay", "edf", "deferred", "static-equal", "gpuletd"]
CPU_MIXES = {"small": {"mobilenet_v2": 40, "squeezenet": 20, "shufflenet_v2": 40},
             "four": {"mobilenet_v2": 25, "squeezenet": 12, "shufflenet_v2": 25, "efficientnet_b0": 12}}  # fmt: skip
CPU_SLO_MS = {"mobilenet_v2": 60, "squeezenet": 90, "shufflenet_v2": 50, "efficientnet_b0": 90}
CORE = os.cpu_count() - 1


# ---- sim
def mix_at(name, scale):
    """The mix as a problem file, slowed down, at so many times its rates."""
    p = json.loads((ROOT / f"test/race/mixes/{name}.json").read_text())
    slower = SLOWER[name]
    for m in p["models"]:
        m["slo_ms"] *= slower
        m["rate_rps"] *= scale / slower
        for surface in m["profile"].values():
            surface["run_ms"] = [[slower * ms for ms in row] for row in surface["run_ms"]]
    return p


def simulate(problem, policy, seconds, with_plan):
    """The share in time; with_plan: on the problem's own plan."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(problem, f)
        f.flush()
        r = subprocess.run([live.GPULETCTL, "simulate", f.name, "--json", "--policy", policy, "--seed", "1", "--duration", str(seconds),
                            *(["--plan", f.name] if with_plan else [])], stdout=subprocess.PIPE, check=True)  # fmt: skip
    return json.loads(r.stdout)["in_time_share"]


def replayed_capacity(name, policy):
    """The scale of the largest load with 99 % in time; 0: even the least is too much."""
    low, high = GRID_FROM, GRID_TO
    while low + 1 < high:
        at = (low + high) // 2
        good = simulate(mix_at(name, GRID**at), policy, 30, with_plan=False) >= 0.99
        low, high = (at, high) if good else (low, at)
    return GRID**low if low > GRID_FROM else 0


@contextlib.contextmanager
def serving(name, policy, scale, state):
    """(a daemon that knows the mix at this load, the load)"""
    p = mix_at(name, scale)
    device = {**p, "models": [{k: m[k] for k in ("name", "max_batch", "profile")} for m in p["models"]]}
    load = {m["name"]: (m["rate_rps"], m["slo_ms"]) for m in sorted(p["models"], key=lambda m: m["name"])}
    with live.daemon(backend="sim", sim=device, config={("plan", "policy"): policy}, state=state) as d:
        for n, (rps, slo_ms) in load.items():
            d.put(n, models.identity(), f"?max_batch=32&slo_ms={slo_ms}&rate_rps={rps:.4f}")
        yield d, load


def n_beside(d, load):
    """How many runs of each model beside a stressor are known."""
    return {n: len(d.admin_get(f"/v1/profiles/{n}")["measured"].get("beside", [])) for n in load}


def prepare(name, state):
    """Lets a daemon find out what models take, and then what neighbours do to them: until it has both ends
    of every model's batch, or finds no more (long runs are not made)."""
    with serving(name, "gpuletd", 0.5, state) as (d, load):
        known, end = {}, time.monotonic() + POINTS_S
        while time.monotonic() < end and min(known.values(), default=0) < 2:
            was, known = known, n_beside(d, load)
            if known != was and any(known.values()):
                end = time.monotonic() + BESIDE_S
            time.sleep(2)
    print(name, "runs beside a stressor:", known, file=sys.stderr, flush=True)


def capacities(name, policies, state):
    file = state / "capacities.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    for p in policies:
        if p not in known:
            known[p] = replayed_capacity(name, p)
    file.write_text(json.dumps(known))
    return known


def hold(d, policy):
    """The plan stays as it is, where the daemon takes it back: one that leaves models out it does not."""
    try:
        reality.pin(d)
    except AssertionError as e:
        print(policy, "is not held:", e, file=sys.stderr)


def point(name, policy, planned, scale, seconds, state):
    """Planned for one load and offered another: shares in time, replayed and real; how many were offered;
    is it void?"""
    with serving(name, policy, planned, state) as (d, load):
        load = {n: (rps * scale / planned, slo_ms) for n, (rps, slo_ms) in load.items()}
        hold(d, policy)
        live.bench(d, load, "--seed", 2, "--duration", 2, core=CORE)
        problem = d.admin_get("/v1/problem")
        r = live.bench(d, load, "--seed", 1, "--duration", seconds, "--warmup", 0, core=CORE)
    for m in problem["models"]:
        m["rate_rps"] = load[m["name"]][0]
    return simulate(problem, policy, seconds, with_plan=True), r["in_time_share"], r["offered"], r["void"]


def order(share):
    """Policies, the best first; = between those less than a point apart."""
    best = sorted(share.items(), key=lambda x: -x[1])
    return best[0][0] + "".join(f" {'=' if a[1] - b[1] < 0.01 else '>'} {b[0]}" for a, b in zip(best, best[1:]))


def race_sim(name, policies, a, state):
    if a.prepare or not (state / "daemon").exists():
        prepare(name, state / "daemon")
    caps = capacities(name, {*policies, "gpuletd"}, state)
    if a.prepare:
        return print(name, caps)
    rows, was, real = [], {}, {}
    for own in (False, True):
        for p in policies:
            scale = caps[p if own else "gpuletd"]
            if not caps[p] or (own and p == "gpuletd"):
                continue  # no plan of it has all models; or it is that already
            x, y, offered, void = point(name, p, min(caps[p], scale), scale, a.seconds, state / "daemon")
            rows.append([name, p, f"{scale:.3f}", offered, f"{100 * x:.2f}", f"{100 * y:.2f}", f"{100 * (y - x):+.2f}", "VOID" if void else ""])
            print(*rows[-1], file=sys.stderr, flush=True)
            if not own:
                was[p], real[p] = x, y
    live.table(rows, ["mix", "policy", "load", "offered", "replayed %", "real %", "points", ""])
    print(f"replayed: {order(was)}\nreal:     {order(real)}\n")


# ---- cpu
def cpu_point(mix, policy, seed, a, data, state):
    load = {n: (rps * a.load, CPU_SLO_MS[n]) for n, rps in CPU_MIXES[mix].items()}
    with live.daemon(backend="cpu", config={("plan", "policy"): policy}, state=state) as d:
        for n, (rps, slo_ms) in load.items():
            d.put(n, data[n], f"?slo_ms={slo_ms}&rate_rps={rps}")
        r = live.bench(d, load, "--seed", seed, "--duration", a.seconds + 2, "--warmup", 2, core=CORE)
    return r["in_time_share"], min(m["in_time_share"] for m in r["models"]), r["void"]


def race_cpu(mix, policies, a, state):
    data = from_nothing.files(a.models)
    found = {p: [] for p in policies}
    for seed in range(1, 2 if a.prepare else a.rounds + 1):
        for p in policies[: 1 if a.prepare else None]:
            found[p].append(cpu_point(mix, p, seed, a, data, state / "daemon"))
            print(mix, p, *found[p][-1], file=sys.stderr, flush=True)
    rows = []
    for p, x in found.items():
        share = [100 * v[0] for v in x] or [0]
        rows.append([mix, p, *(f"{100 * v[0]:.2f}{'!' * v[2]}" for v in x), f"{statistics.median(share):.2f}", f"{max(share) - min(share):.2f}",
                     f"{100 * statistics.median(v[1] for v in x or [(0, 0)]):.2f}"])  # fmt: skip
    live.table(rows, ["mix", "policy", *(f"round {i + 1}" for i in range(len(found[policies[0]]))), "median %", "spread", "worst model %"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["sim", "cpu"], default="sim")
    p.add_argument("--mix", action="append")
    p.add_argument("--policy", action="append")
    p.add_argument("--seconds", type=float, default=8)
    p.add_argument("--rounds", type=int, default=3, help="cpu")
    p.add_argument("--load", type=float, default=1, help="cpu: times the rates of the mix")
    p.add_argument("--state", type=pathlib.Path)
    p.add_argument("--prepare", action="store_true")
    p.add_argument("--models", type=pathlib.Path, default=ROOT / "build/bench-models")
    a = p.parse_args()
    print(live.machine())
    race, mixes, policies = (race_sim, ["light", "equal"], POLICIES) if a.device == "sim" else (race_cpu, list(CPU_MIXES), CPU_POLICIES)
    with tempfile.TemporaryDirectory(prefix="gpuletd-race-") as own:
        for mix in a.mix or mixes:
            state = (a.state or pathlib.Path(own)) / f"{a.device}-{mix}"
            state.mkdir(parents=True, exist_ok=True)
            race(mix, a.policy or policies, a, state)


if __name__ == "__main__":
    main()
