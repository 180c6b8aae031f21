#!/usr/bin/env python3
"""From nothing: five models uploaded with an SLO and nothing else, load on all of them.

    BUILD=build .venv-test/bin/python test/bench/from_nothing.py [--device cpu|sim] [--seconds S]
                                                                 [--start RPS] [--models DIR]

Each model's SLO is 8 times its latency at batch 1, arrival to reply, as measured in this run with
the model alone: on one core, or on the device's smallest gpu-let that does not slow a single row.
All are asked for equally often, Poisson.  The load goes up in steps of a tenth on a daemon that has
seen the step before, each held for a while before it counts, as long as every model is 99 % in time;
then 80 % of the last such load is offered to it for S seconds (30); a run that is void by the
generator's lag is printed and done again, four times at most.  The generator shares the cores
with the daemon, pinned to the last one, and before all others there, as a clock."""
import argparse
import os
import pathlib
import subprocess
import sys

import live

NAMES = ["mobilenet_v2", "squeezenet", "shufflenet_v2", "efficientnet_b0", "digits"]
SLO_TIMES = 8
ALONE_RPS = 5  # one after the other
STEP = 1.1
LEARN_S, HOLD_S = 3, 6  # of a step
MISSES = 2  # so often a step may be tried
TRIES = 4  # at 80 %, until a run is not void
# On the declared device: work of a row in ms on one unit, units that one row can use.
WORK = {"mobilenet_v2": (400, 40), "squeezenet": (800, 50), "shufflenet_v2": (220, 30),
        "efficientnet_b0": (800, 40), "digits": (50, 16)}  # fmt: skip


def files(folder):
    """The models' files, exported when they are not there."""
    out = {"digits": live.ROOT / "test/data/digits-batch.onnx"}
    for n in NAMES[:-1]:
        out[n] = folder / f"{n}.onnx"
        if not out[n].exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, live.ROOT / "test/models/export.py", folder, n], check=True, stdout=sys.stderr)
    return {n: out[n].read_bytes() for n in NAMES}


def alone_ms(d, data, core):
    """Median latency of each model while nothing else is loaded or asked."""
    out = {}
    for n in NAMES:
        d.put(n, data[n])
        r = live.bench(d, {n: (ALONE_RPS, 1e6)}, "--arrivals", "paced", "--duration", 6, core=core)
        out[n] = r["models"][0]["p50_ms"]
        assert d.admin("DELETE", f"/v1/models/{n}").status == 200
    return out


def start(device):
    if device == "cpu":
        return live.daemon(backend="cpu")
    return live.daemon(backend="sim", sim=live.device(WORK))


def held(d, load, core):
    """Is a load held?  Latency counts from when a request was due: where the generator was late that is
    to the daemon's disadvantage, and a load that is held all the same counts.  A step in which the plan
    was changed has another try."""
    for _ in range(MISSES):
        r = live.bench(d, load, "--duration", LEARN_S + HOLD_S, "--warmup", LEARN_S, core=core)
        bad = min(r["models"], key=lambda m: m["in_time_share"])
        print(f"  {sum(rps for rps, _ in load.values()):.4g} requests/s: worst {100 * bad['in_time_share']:.2f} % ({bad['model']}), "
              f"generator late by {r['lag_p99_ms']:.3f} ms", flush=True)  # fmt: skip
        if bad["in_time_share"] >= 0.99:
            return True
    return False


def capacity(load_at, d, x, core):
    """The last x whose load was held, going up; the first one may be too much."""
    while not held(d, load_at(x), core):
        x /= 2
    while held(d, load_at(x * STEP), core):
        x *= STEP
    return x


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["cpu", "sim"], default="cpu")
    p.add_argument("--seconds", type=float, default=30)
    p.add_argument("--start", type=float, default=20, help="of each model a second, the first step")
    p.add_argument("--models", type=pathlib.Path, default=live.ROOT / "build/bench-models")
    a = p.parse_args()
    data, core = files(a.models), os.cpu_count() - 1

    with start(a.device) as d:
        slo_ms = {n: SLO_TIMES * ms for n, ms in alone_ms(d, data, core).items()}
    with start(a.device) as d:
        for n in NAMES:
            d.put(n, data[n], f"?slo_ms={slo_ms[n]:.3f}")
        rps = capacity(lambda rps: {n: (rps, ms) for n, ms in slo_ms.items()}, d, a.start, core)
        print(f"{a.device}: {live.machine()}; capacity found {5 * rps:.4g} requests/s, {rps:.4g} of each model")
        for _ in range(TRIES):
            r = live.bench(d, {n: (0.8 * rps, slo_ms[n]) for n in NAMES}, "--duration", a.seconds + 2, "--warmup", 2, core=core)
            live.table([[m["model"], f"{m['slo_ms']:.2f}", m["offered"], f"{100 * m['in_time_share']:.3f}", f"{m['p50_ms']:.2f}",
                         f"{m['p99_ms']:.2f}", m["late"], m["refused"], m["failed"] + m["lost"]] for m in r["models"]],
                       ["at 80 %", "SLO ms", "offered", "in time %", "p50 ms", "p99 ms", "late", "refused", "failed"])  # fmt: skip
            print(f"generator late by {r['lag_p99_ms']:.3f} ms (99th percentile){', VOID' if r['void'] else ''}", flush=True)
            if not r["void"]:
                break
        print("plan:")
        for g in d.admin_get("/v1/plan")["gpulets"]:
            print(" ", g["device"], g["units"], "units:", ", ".join(f"{m['model']} x{m['batch']}" for m in g["models"]))


if __name__ == "__main__":
    main()
