#!/usr/bin/env python3
"""Replay against reality: the plan that a daemon exports, under the same requests in virtual time and
in real time.

    BUILD=build .venv-test/bin/python test/bench/reality.py [--device sim|cpu] [--slower X] [--seconds S] [--models DIR]

For each mix a daemon plans for declared rates, keeps that plan and serves it for a while.  With the
problem and the plan from GET /v1/problem gpuletctl simulate finds the load, in multiples of those rates,
with 99 % in time.  Loads around it are offered for S seconds by gpuletctl bench, and the same arrivals
(same seed) are given to gpuletctl simulate, with run times as serving has shown them by then: cores
change their speed from minute to minute.  Before each load there is a pause, in which the daemon forgets who was asked for too much.  The shares in time of all requests are compared, and the
capacities: the loads at which 99 % are in time, between two points on a straight line.  On cores the generator has the last one to itself, and
--slower X divides the rates and multiplies the SLOs, for a machine that is so many times slower than the one they were chosen for."""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import from_nothing
import live
import under_fire

sys.path.insert(0, str(live.ROOT / "test" / "http"))
import models  # noqa: E402

LEARN_S = 6  # run times are put right by what serving shows
LEARN_LOAD = 1.6
LOADS = (0.8, 0.9, 1.0, 1.1, 1.2)  # of the capacity in the replay
LEAST, MOST, CLOSE = 0.5, 4.0, 1.01  # where that is looked for, and until when
FORGET_S = 9  # until a daemon judges nobody by what came before (QUIET_US in demand.h), as a replay begins
SLOWER = 3  # than the models of under_fire.py: what HTTP takes of the cores must not matter
# Parts of the device for each model; the plan is made for these.
MIXES = {"even": (0.2, 0.2, 0.2, 0.2), "small": (0.45, 0.12, 0.12, 0.12),
         "large": (0.1, 0.1, 0.5, 0.1), "two": (0.4, 0.0, 0.4, 0.0)}  # fmt: skip
# Of one core's time two thirds, where these models take 3 to 8 ms.
CPU_MIXES = {"mobile": {"mobilenet_v2": 80, "squeezenet": 40}, "three": {"mobilenet_v2": 35, "shufflenet_v2": 95, "efficientnet_b0": 30},
             "digits": {"digits": 500, "efficientnet_b0": 60}, "one": {"squeezenet": 90}}  # fmt: skip
CPU_SLO_MS = {"mobilenet_v2": 60, "squeezenet": 90, "shufflenet_v2": 50, "efficientnet_b0": 90, "digits": 30}


def sim_mixes():
    """(mix, {model: (rps, slo_ms)}, how to start a daemon, files)"""
    for mix, parts in MIXES.items():
        load = {n: (under_fire.rps(n, x) / SLOWER, under_fire.MODELS[n][2] * SLOWER)
                for n, x in zip(under_fire.MODELS, parts) if x}  # fmt: skip
        device = live.device({n: (under_fire.MODELS[n][0] * SLOWER, under_fire.MODELS[n][1]) for n in load}, granule_units=12)
        yield mix, load, dict(backend="sim", sim=device), dict.fromkeys(load, models.identity())


def cpu_mixes(folder, slower):
    data = from_nothing.files(folder)
    for mix, rates in CPU_MIXES.items():
        yield mix, {n: (r / slower, CPU_SLO_MS[n] * slower) for n, r in rates.items()}, dict(backend="cpu", config=live.apart()), data


def pin(d):
    """The plan in force until further notice."""
    lets = [{**{k: g[k] for k in ("device", "granules", "order")}, "models": [{k: m[k] for k in ("model", "batch")} for m in g["models"]]}
            for g in d.admin_get("/v1/plan")["gpulets"] if g["state"] == "serving"]  # fmt: skip
    r = d.admin("PUT", "/v1/plan", {"gpulets": lets})
    assert r.status == 200, r.body


def learn(d, problem):
    """The problem with the run times that serving has shown by now, the plan pinned anew with them."""
    pin(d)
    problem.seek(0)
    problem.truncate()
    problem.write(json.dumps(d.admin_get("/v1/problem")))
    problem.flush()


def predicted(problem, load, seconds):
    r = subprocess.run([live.GPULETCTL, "simulate", problem, "--json", "--plan", problem, "--policy", "gpuletd", "--seed", "1",
                        "--duration", str(seconds), "--rate-scale", str(load)], stdout=subprocess.PIPE, check=True)  # fmt: skip
    return json.loads(r.stdout)["in_time_share"]


def replayed_capacity(problem, seconds):
    low, high = LEAST, MOST
    while high / low > CLOSE:
        x = (low * high) ** 0.5
        low, high = (x, high) if predicted(problem, x, seconds) >= 0.99 else (low, x)
    return low


def capacity(points):
    """The largest load with 99 % in time, or None where that is not among them."""
    crossed = [a + (b - a) * (x - 0.99) / (x - y) for (a, x), (b, y) in zip(points, points[1:]) if x >= 0.99 > y]
    return crossed[-1] if crossed else None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["sim", "cpu"], default="sim")
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--slower", type=float, default=1, help="cpu")
    p.add_argument("--models", type=pathlib.Path, default=live.ROOT / "build/bench-models")
    p.add_argument("--mix", action="append")
    a = p.parse_args()
    rows, off, caps = [], [], []
    for mix, load, args, data in sim_mixes() if a.device == "sim" else cpu_mixes(a.models, a.slower):
        if a.mix and mix not in a.mix:
            continue
        with live.daemon(**args) as d, tempfile.NamedTemporaryFile("w", suffix=".json") as problem:
            for n, (rps, slo_ms) in load.items():
                d.put(n, data[n], f"?max_batch=16&slo_ms={slo_ms}&rate_rps={rps:.3f}")
            load = dict(sorted(load.items()))  # as in the problem: the same arrivals
            pin(d)
            was, is_ = [], []  # after a while of load, in which what is needed is compiled and seen
            live.bench(d, load, "--seed", 2, "--rate-scale", LEARN_LOAD, "--duration", LEARN_S, core=os.cpu_count() - 1)
            learn(d, problem)
            found = replayed_capacity(problem.name, a.seconds)
            for x in (round(found * part, 3) for part in LOADS):
                time.sleep(FORGET_S)
                r = live.bench(d, load, "--seed", 1, "--rate-scale", x, "--duration", a.seconds, "--warmup", 0, core=os.cpu_count() - 1)
                learn(d, problem)
                was.append((x, predicted(problem.name, x, a.seconds)))
                is_.append((x, r["in_time_share"]))
                rows.append([mix, x, r["offered"], f"{100 * was[-1][1]:.2f}", f"{100 * is_[-1][1]:.2f}",
                             f"{100 * (is_[-1][1] - was[-1][1]):+.2f}", sum(m["late"] for m in r["models"]),
                             sum(m["refused"] for m in r["models"]), "VOID" if r["void"] else ""])  # fmt: skip
                print(*rows[-1], file=sys.stderr, flush=True)
                off.append(abs(is_[-1][1] - was[-1][1]))
            caps.append([mix, *(f"{c:.3f}" if c else "-" for c in (capacity(was), capacity(is_)))])
    live.table(rows, ["mix", "load", "offered", "replayed %", "real %", "points", "late", "refused", ""])
    print()
    live.table(caps, ["capacity", "replayed", "real"])
    print(f"\n{a.device}: {len(off)} points, off by {100 * sum(off) / len(off):.2f} points on average, at most {100 * max(off):.2f}; {live.machine()}")


if __name__ == "__main__":
    main()
