#!/usr/bin/env python3
"""The race in real time: policies run by real daemons, each on a plan that it makes for the load.

    BUILD=build .venv-test/bin/python test/race/live.py [--device sim|cpu] [--mix M] [--policy P] [--seconds S] [--seeds N]
                                                        [--state DIR] [--prepare] [--window S] [--models DIR]

sim: device and mixes of test/race/mixes, slowed down so that HTTP on two cores does not matter.  Each
policy is offered the load that is its capacity in virtual time, and all the load that is gpuletd's,
for S seconds, N times with other arrivals, planned for the less of both (the daemon refuses models for which a policy has no room,
and a policy that has none for some at any load is left out); the same arrivals are given to gpuletctl
simulate with the plan and the problem that the daemon exports.

cpu: MobileNet-size models on this machine's cores but the last, on which the generator runs, before all
others there.  What gpuletd keeps 99 % in time at is found by bisection; all policies are offered that
load and 1.2 times as much, with an SLO for each model and nothing else.  They take turns, round by round,
each on a daemon of its own, beginning with another one each round.  --slower X divides the rates and multiplies the
SLOs, for a machine that is so many times slower than the one they were chosen for.  Of each policy: its share in time over
gpuletd's of the same round and arrivals, the mean and the 95 % interval of it (Student).

--state keeps what was measured, point by point (of cores, round by round): --window starts no point that would end later than so
many seconds from the start, and the next run with the same --state goes on from there.  The status is 75
while points are missing.  --prepare does what needs no quiet: of sim, what models take and the capacities.
What another build measured is not taken up, but for what models take, which the daemon judges itself."""
import argparse
import contextlib
import hashlib
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "test" / "bench"), str(ROOT / "test" / "http")]
import daemon  # noqa: E402
import from_nothing  # noqa: E402
import live  # noqa: E402
import models  # noqa: E402
import reality  # noqa: E402

POLICIES = ["fifo", "max-delay", "edf", "deferred", "static-equal", "gpulet", "gpuletd"]
SLOWER = {"light": 12, "heavy": 1, "skewed": 6, "equal": 6, "memory-bound": 10, "compute-bound": 2}
GRID, GRID_FROM, GRID_TO = 1.04, -60, 140  # of capacities: powers
SPARE_S = 12  # of a window, besides the load: a daemon that starts and ends
PUT_S = 300  # at most: first all models that the state knows are back, slowed down as they are
POINTS_S, BESIDE_S = 140, 20  # at most: until the first runs beside a stressor, from one to the next
CPU_POLICIES = ["gpuletd", "fifo", "max-delay", "edf", "deferred", "static-equal"]
CPU_MIXES = {"small": {"mobilenet_v2": 40, "squeezenet": 20, "shufflenet_v2": 40},
             "four": {"mobilenet_v2": 25, "squeezenet": 12, "shufflenet_v2": 25, "efficientnet_b0": 12}}  # fmt: skip
CPU_SLO_MS = {"mobilenet_v2": 60, "squeezenet": 90, "shufflenet_v2": 50, "efficientnet_b0": 90}
CPU_LOADS = (1.0, 1.2)  # of what gpuletd keeps 99 % at
CPU_GRID, CPU_FROM, CPU_TO = 1.06, -24, 40  # of that search: powers, times the rates above
CPU_LEARN_S, CPU_HOLD_S, CPU_START_S = 2, 5, 4
CPU_TRIES = 2
CORE = os.cpu_count() - 1
UNFINISHED = 75

# Student's 0.975 quantile by degrees of freedom, 1 to 20.
T975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101,
        2.093, 2.086]  # fmt: skip


class Points:
    """What was measured of a mix, by name, in a file; and until when this run may begin more."""

    def __init__(self, folder, end):
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.end, self.n_left = folder / "points.json", end, 0
        build = hashlib.sha256(daemon.GPULETD.read_bytes()).hexdigest()[:16]
        self.known = json.loads(self.file.read_text()) if self.file.exists() else {}
        if self.known.get("build") != build:
            self.known = {"build": build}

    def get(self, name, takes_s, measure):
        """The point, measured if it is not known yet; None: there is no time left for it."""
        if name in self.known:
            return self.known[name]
        if time.monotonic() + takes_s > self.end:
            self.n_left += 1
            return None
        self.known[name] = measure()
        self.file.write_text(json.dumps(self.known))
        return self.known[name]


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


def simulate(problem, policy, seconds, *more, seed=1):
    """The share in time."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(problem, f)
        f.flush()
        r = subprocess.run([live.GPULETCTL, "simulate", f.name, "--json", "--policy", policy, "--seed", str(seed), "--duration", str(seconds),
                            *(f.name if x == "own" else str(x) for x in more)], stdout=subprocess.PIPE, check=True)  # fmt: skip
    return json.loads(r.stdout)["in_time_share"]


def replayed_capacity(name, policy):
    """The scale of the largest load with 99 % in time; 0: even the least is too much."""
    low, high = GRID_FROM, GRID_TO
    while low + 1 < high:
        at = (low + high) // 2
        good = simulate(mix_at(name, GRID**at), policy, 30) >= 0.99
        low, high = (at, high) if good else (low, at)
    return GRID**low if low > GRID_FROM else 0


class NoRoom(Exception):
    """By this policy and what the daemon has measured of neighbours there is no plan with all models."""


@contextlib.contextmanager
def serving(name, policy, scale, state):
    """(a daemon that knows the mix at this load, the load)"""
    p = mix_at(name, scale)
    device = {**p, "models": [{k: m[k] for k in ("name", "max_batch", "profile")} for m in p["models"]]}
    load = {m["name"]: (m["rate_rps"], m["slo_ms"]) for m in sorted(p["models"], key=lambda m: m["name"])}
    with live.daemon(backend="sim", sim=device, config={("plan", "policy"): policy}, state=state) as d:
        for n, (rps, slo_ms) in load.items():
            try:
                d.put(n, models.identity(), f"?max_batch=32&slo_ms={slo_ms}&rate_rps={rps:.4f}", timeout=PUT_S)
            except AssertionError as e:
                if e.args[0][0] != 503:
                    raise
                raise NoRoom(e.args[0][1].decode()) from e
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


def hold(d):
    """The plan stays as it is, where the daemon takes it back: one that leaves models out it does not."""
    try:
        reality.pin(d)
    except AssertionError:
        return False
    return True


def point(*args):
    try:
        return point_of(*args)
    except NoRoom as e:
        return {"problem": None, "note": str(e)}


def point_of(name, policy, planned, scale, seconds, seeds, state):
    """Planned for one load and offered another; what is needed to replay it, too."""
    with serving(name, policy, planned, state) as (d, load):
        offered = {n: (rps * scale / planned, slo_ms) for n, (rps, slo_ms) in load.items()}
        held = hold(d)
        live.bench(d, offered, "--seed", 2, "--duration", 2, core=CORE)
        problem = d.admin_get("/v1/problem")
        runs = [live.bench(d, offered, "--seed", s, "--duration", seconds, "--warmup", 0, core=CORE) for s in seeds]
    for m in problem["models"]:  # declared, whatever the rate was found to be meanwhile
        m["rate_rps"] = load[m["name"]][0]
    return {"problem": problem, "times": scale / planned, "real": [r["in_time_share"] for r in runs], "offered": [r["offered"] for r in runs],
            "note": "VOID" if any(r["void"] for r in runs) else "" if held else "not held"}  # fmt: skip


def share_of(shares, offered):
    """Of all runs together."""
    return sum(s * n for s, n in zip(shares, offered)) / sum(offered)


def order(share):
    """Policies, the best first; = between those less than a point apart."""
    best = sorted(share.items(), key=lambda x: -x[1])
    return best[0][0] + "".join(f" {'=' if a[1] - b[1] < 0.01 else '>'} {b[0]}" for a, b in zip(best, best[1:]))


def race_sim(name, policies, a, state, points):
    if a.prepare or not (state / "daemon").exists():
        prepare(name, state / "daemon")
    caps = {p: points.get(f"capacity {p}", 0, lambda p=p: replayed_capacity(name, p)) for p in dict.fromkeys([*policies, "gpuletd"])}
    if a.prepare:
        return print(name, caps)
    rows, was, real, seeds = [], {}, {}, range(1, a.seeds + 1)
    for own in (False, True):
        for p in policies:
            scale = caps[p if own else "gpuletd"]
            if not caps[p] or (own and p == "gpuletd"):
                continue  # no plan of it has all models; or it is that already
            x = points.get(f"{p} at {scale:.3f} for {a.seeds} times {a.seconds:g} s", a.seeds * a.seconds + SPARE_S,
                           lambda p=p, scale=scale: point(name, p, min(caps[p], scale), scale, a.seconds, seeds, state / "daemon"))  # fmt: skip
            if not x or points.n_left:
                continue
            if not x["problem"]:
                rows.append([name, p, f"{scale:.3f}", 0, "-", "-", "-", f"no plan: {x['note']}"])
                continue
            virtual = share_of([simulate(x["problem"], p, a.seconds, "--plan", "own", "--rate-scale", x["times"], seed=s) for s in seeds], x["offered"])
            true = share_of(x["real"], x["offered"])
            rows.append([name, p, f"{scale:.3f}", sum(x["offered"]), f"{100 * virtual:.2f}", f"{100 * true:.2f}", f"{100 * (true - virtual):+.2f}", x["note"]])
            if not own:
                was[p], real[p] = virtual, true
    if points.n_left:
        return
    live.table(rows, ["mix", "policy", "load", "offered", "replayed %", "real %", "points", ""])
    print(f"replayed: {order(was)}\nreal:     {order(real)}\n")


# ---- cpu
def cpu_load(mix, scale):
    return {n: (rps * scale, CPU_SLO_MS[n]) for n, rps in CPU_MIXES[mix].items()}


@contextlib.contextmanager
def cores(mix, policy, data, state):
    """A daemon on all cores but the last that has the mix; what it has learned of the models it keeps."""
    units = f"0-{CORE - 1}" if CORE > 0 else "0"
    with live.daemon(backend="cpu", config={("plan", "policy"): policy, ("device", "cpu-units"): units}, state=state) as d:
        there = {m["name"] for m in d.admin_get("/v1/models")["models"]}
        for n, (_, slo_ms) in cpu_load(mix, 1).items():
            if n not in there:
                d.put(n, data[n], f"?slo_ms={slo_ms}")
        yield d


def cpu_bench(d, mix, scale, seed, seconds):
    return live.bench(d, cpu_load(mix, scale), "--seed", seed, "--duration", seconds + CPU_LEARN_S, "--warmup", CPU_LEARN_S, core=CORE)


def cpu_held(d, mix, scale):
    """A load that is not held has another try: an interruption of this machine is not a limit of the load."""
    for seed in range(1, CPU_TRIES + 1):
        share = cpu_bench(d, mix, scale, seed, CPU_HOLD_S)["in_time_share"]
        print(f"{mix}: {100 * share:.2f} % at {scale:.3f}", file=sys.stderr, flush=True)
        if share >= 0.99:
            return True
    return False


def cpu_capacity(mix, data, state):
    """The largest scale of the grid that gpuletd keeps 99 % in time at."""
    low, high = CPU_FROM, CPU_TO
    with cores(mix, "gpuletd", data, state) as d:
        while low + 1 < high:
            at = (low + high) // 2
            low, high = (at, high) if cpu_held(d, mix, CPU_GRID**at) else (low, at)
    assert CPU_FROM < low < CPU_TO - 1, f"{mix}: the capacity is not on the grid"
    return CPU_GRID**low


def cpu_point(mix, policy, cap, seed, seconds, data, state):
    """At each of the loads: [share in time, of the worst model, is it void?]"""
    out = []
    with cores(mix, policy, data, state) as d:
        for x in CPU_LOADS:
            r = cpu_bench(d, mix, cap * x, seed, seconds)
            out.append([r["in_time_share"], min(m["in_time_share"] for m in r["models"]), r["void"]])
    print(mix, policy, seed, out, file=sys.stderr, flush=True)
    return out


def cpu_round(mix, policies, cap, seed, seconds, data, state):
    """All policies in one window: what the machine does besides changes from one to the next."""
    first = seed % len(policies)
    return {p: cpu_point(mix, p, cap, seed, seconds, data, state) for p in policies[first:] + policies[:first]}


def interval(x):
    """(mean, half-width of the 95 % interval)"""
    half = T975[len(x) - 2] * statistics.stdev(x) / math.sqrt(len(x)) if len(x) > 1 else math.inf
    return statistics.mean(x), half


def cpu_rows(mix, policies, rounds, k):
    """Of one load.  A round in which the generator was late for a policy or for gpuletd is none of it."""
    rows = []
    for p in policies:
        good = [(r[p][k], r["gpuletd"][k]) for r in rounds if not (r[p][k][2] or r["gpuletd"][k][2])]
        if not good:
            continue
        mean, half = interval([mine[0] / ours[0] for mine, ours in good])
        rows.append([mix, f"{CPU_LOADS[k]:.1f}", p, len(good), f"{100 * statistics.mean(m[0] for m, _ in good):.2f}",
                     f"{100 * statistics.mean(m[1] for m, _ in good):.2f}", *([f"{mean:.3f}", f"{half:.3f}"] if p != "gpuletd" else ["1", ""]),
                     "BETTER" if p != "gpuletd" and mean - half > 1 else "WIDE" if p != "gpuletd" and half > 0.05 else ""])  # fmt: skip
    return rows


def race_cpu(mix, policies, a, state, points):
    data, policies = from_nothing.files(a.models), list(dict.fromkeys(["gpuletd", *policies]))
    if a.prepare:
        with cores(mix, "gpuletd", data, state / "daemon"):
            return
    search_s = CPU_START_S + math.log2(CPU_TO - CPU_FROM) * CPU_TRIES * (CPU_LEARN_S + CPU_HOLD_S)
    cap = points.get("capacity", search_s, lambda: cpu_capacity(mix, data, state / "daemon"))
    round_s = len(policies) * (CPU_START_S + len(CPU_LOADS) * (a.seconds + CPU_LEARN_S))
    rounds = [points.get(f"round {seed} of {' '.join(policies)} for {a.seconds:g} s", round_s,
                         lambda seed=seed: cpu_round(mix, policies, cap, seed, a.seconds, data, state / "daemon"))
              for seed in range(1, a.rounds + 1 if cap else 1)]  # fmt: skip
    rounds = [r for r in rounds if r]
    if rounds:
        print(f"{mix}: gpuletd keeps 99 % at {cap * sum(CPU_MIXES[mix].values()):.1f} requests/s; {len(rounds)} of {a.rounds} rounds")
        live.table([x for k in range(len(CPU_LOADS)) for x in cpu_rows(mix, policies, rounds, k)],
                   ["mix", "load", "policy", "rounds", "in time %", "worst model %", "over gpuletd", "+-", ""])  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["sim", "cpu"], default="sim")
    p.add_argument("--mix", action="append")
    p.add_argument("--policy", action="append")
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--seeds", type=int, default=1, help="sim")
    p.add_argument("--rounds", type=int, default=5, help="cpu")
    p.add_argument("--slower", type=float, default=1, help="cpu")
    p.add_argument("--state", type=pathlib.Path)
    p.add_argument("--window", type=float, default=math.inf)
    p.add_argument("--prepare", action="store_true")
    p.add_argument("--models", type=pathlib.Path, default=ROOT / "build/bench-models")
    a = p.parse_args()
    print(live.machine())
    race, mixes, policies = (race_sim, list(SLOWER), POLICIES) if a.device == "sim" else (race_cpu, list(CPU_MIXES), CPU_POLICIES)
    for rates in CPU_MIXES.values():
        rates.update({n: rps / a.slower for n, rps in rates.items()})
    CPU_SLO_MS.update({n: ms * a.slower for n, ms in CPU_SLO_MS.items()})
    end, n_left = time.monotonic() + a.window, 0
    with tempfile.TemporaryDirectory(prefix="gpuletd-race-") as own:
        for mix in a.mix or mixes:
            state = (a.state or pathlib.Path(own)) / (f"{a.device}-{mix}" + (f"-{a.slower:g}" if a.slower != 1 else ""))
            points = Points(state, end)
            race(mix, a.policy or policies, a, state, points)
            n_left += points.n_left
    if n_left:
        print(f"{n_left} points are left for the next window")
        sys.exit(UNFINISHED)


if __name__ == "__main__":
    main()
