#!/usr/bin/env python3
"""From nothing: five models uploaded with an SLO and nothing else, load on all of them.

    BUILD=build .venv-test/bin/python test/bench/from_nothing.py [--device cpu|sim] [--seconds S]
                                                                 [--models DIR]

Each model's SLO is 8 times its latency at batch 1, arrival to reply, as measured in this run with
the model alone: on one core, or on the device's smallest gpu-let that does not slow a single row.
All are asked for equally often, Poisson; gpuletctl bench --search finds the largest rate with every
model 99 % in time, then 80 % of it is offered for S seconds (30).  The generator shares the cores
with the daemon, pinned to the last one, and before all others there, as a clock (void otherwise)."""
import argparse
import os
import pathlib
import subprocess
import sys

import live

NAMES = ["mobilenet_v2", "squeezenet", "shufflenet_v2", "efficientnet_b0", "digits"]
SLO_TIMES = 8
ALONE_RPS = 5  # one after the other
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


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["cpu", "sim"], default="cpu")
    p.add_argument("--seconds", type=float, default=30)
    p.add_argument("--models", type=pathlib.Path, default=live.ROOT / "build/bench-models")
    a = p.parse_args()
    data, core = files(a.models), os.cpu_count() - 1

    with start(a.device) as d:
        slo_ms = {n: SLO_TIMES * ms for n, ms in alone_ms(d, data, core).items()}
    with start(a.device) as d:
        for n in NAMES:
            d.put(n, data[n], f"?slo_ms={slo_ms[n]:.3f}")
        load = {n: (20, slo_ms[n]) for n in NAMES}
        found = live.bench(d, load, "--search", "--duration", 8, "--warmup", 3, core=core)
        rps = found["capacity_scale"] * 20
        print(f"{a.device}: {live.machine()}; capacity found {5 * rps:.4g} requests/s, {rps:.4g} of each model")
        if rps == 0:
            for step in found["steps"]:
                print(f"  at {step['scale'] * 20:.4g}: worst {100 * step['worst_share']:.2f} %, void {step['void']}")
            rps = min(s["scale"] for s in found["steps"]) * 20 / 0.8
        r = live.bench(d, {n: (0.8 * rps, slo_ms[n]) for n in NAMES}, "--duration", a.seconds + 2, "--warmup", 2, core=core)
        live.table([[m["model"], f"{m['slo_ms']:.2f}", m["offered"], f"{100 * m['in_time_share']:.3f}", f"{m['p50_ms']:.2f}",
                     f"{m['p99_ms']:.2f}", m["late"], m["refused"], m["failed"] + m["lost"]] for m in r["models"]],
                   ["at 80 %", "SLO ms", "offered", "in time %", "p50 ms", "p99 ms", "late", "refused", "failed"])  # fmt: skip
        print(f"generator late by {r['lag_p99_ms']:.3f} ms (99th percentile){', VOID' if r['void'] else ''}; plan:")
        for g in d.admin_get("/v1/plan")["gpulets"]:
            print(" ", g["device"], g["units"], "units:", ", ".join(f"{m['model']} x{m['batch']}" for m in g["models"]))


if __name__ == "__main__":
    main()
