#!/usr/bin/env python3
"""Too much load: what is served of it, how soon all is normal again, and what neighbours feel.

    BUILD=build .venv-test/bin/python test/bench/overload.py [--device sim|cpu] [--models DIR]
                                                             [--part overload|isolation] [--pairs N] [--seconds S] [--pinned]

Overload: the load goes up in steps until a model is not 99 % in time any more; the last one before is
the capacity.  Then 0.8 of it is offered, for fifteen seconds 2.5 times as much, which is twice the
capacity, and 0.8 again, three times.  Goodput is what is in time a second, from a second after the
overload began, and a model's part is what it had at the capacity; normal is when from then on 99 % of those due
in any second are in time, and the last is when the last of those that were not had been due, which at a load
of which the plan keeps 99 % may be late; lost is who got no HTTP answer, in the whole round.  On cores the generator is late more
often; latency counts from when a request was due.

Isolation: one model at 20 times the rate that it has declared, beside the same with all of them as
declared; the ratios of its neighbours' 99th percentiles, N interleaved pairs (9) of S seconds (6).  Two seconds before
each are not counted.  --pinned: on the plan for what is declared, which else is made anew for more of the loud one."""
import argparse
import collections
import csv
import os
import pathlib
import statistics
import tempfile

import from_nothing
import live
import reality

UNDER, OVER = 0.8, 2.5  # of the capacity, of that
NORMAL = 0.99
BEFORE_S, OVER_S, AFTER_S, SETTLE_S = 8, 15, 8, 1
ROUNDS = 3
LOUD = 20
PAIR_WARM_S = 2
# On cores the loud one is light: what HTTP takes of the cores must not be what is measured.
CPU_QUIET = {"digits": 50, "mobilenet_v2": 40, "squeezenet": 20}
CPU_LOUD = "digits"


def setup(device, folder):
    """(load of the overload, load of the isolation, who is loud in it, how to start a daemon, files);
    loads: {model: (rps, slo_ms)}"""
    if device == "sim":
        _, load, args, data = next(reality.sim_mixes())
        return load, load, "large", args, data
    _, load, args, data = next(reality.cpu_mixes(folder))
    quiet = {n: (rps, reality.CPU_SLO_MS[n]) for n, rps in CPU_QUIET.items()}
    return load, quiet, CPU_LOUD, args, data


def put(d, load, data):
    for n, (rps, slo_ms) in load.items():
        d.put(n, data[n], f"?max_batch=16&slo_ms={slo_ms}&rate_rps={rps:.3f}")


def scaled(load, x):
    return {n: (rps * x, slo_ms) for n, (rps, slo_ms) in load.items()}


def flood(d, load, x, core):
    """One round: rows of (seconds since the first, model, what became of it)."""
    with tempfile.NamedTemporaryFile(suffix=".csv") as log:
        live.bench(d, scaled(load, UNDER * x), "--step", f"{OVER}@{BEFORE_S}", "--step", f"1@{BEFORE_S + OVER_S}",
                   "--duration", BEFORE_S + OVER_S + AFTER_S, "--warmup", 0, "--log", log.name, core=core)  # fmt: skip
        rows = [(float(r["due_s"]), r["model"], r["result"]) for r in csv.DictReader(open(log.name))]
    first = min(t for t, _, _ in rows)
    return [(t - first, n, what) for t, n, what in rows]


def normal_s(done):
    """done: (seconds, in time?); when the last second began in which less than 99 % were in time."""
    done, at, end, bad = sorted(done), 0.0, 0, 0
    for i, (t, ok) in enumerate(done):
        while end < len(done) and done[end][0] < t + 1:
            bad += not done[end][1]
            end += 1
        if t + 1 <= done[-1][0] and bad > (end - i) * (1 - NORMAL):  # whole seconds only
            at = t
        bad -= not ok
    return at


def overload(d, load, core):
    x = from_nothing.capacity(lambda k: scaled(load, k), d, 0.8, core)
    whole = x * sum(rps for rps, _ in load.values())
    print(f"capacity {x:.4g} of what is declared, {whole:.4g} requests/s")
    rows = []
    for k in range(ROUNDS):
        all_ = flood(d, load, x, core)
        done = [(t, n, what == "in time") for t, n, what in all_]
        count = collections.Counter(what for _, _, what in all_)
        gone_s = BEFORE_S + OVER_S
        over = [(n, ok) for t, n, ok in done if BEFORE_S + SETTLE_S <= t < gone_s]
        good = {n: sum(ok for m, ok in over if m == n) / (OVER_S - SETTLE_S) / (x * rps) for n, (rps, _) in load.items()}
        after = [(t - gone_s, ok) for t, _, ok in done if t >= gone_s]
        bad = [t for t, ok in after if not ok]
        least = min(good, key=good.get)
        rows.append([k + 1, f"{sum(ok for _, ok in over) / (OVER_S - SETTLE_S) / whole:.3f}", f"{good[least]:.3f} {least}",
                     f"{normal_s(after):.2f}", f"{max(bad, default=0):.2f}", len(bad), len(after),
                     sum(not ok for t, _, ok in done if t < BEFORE_S), count["refused"], count["late"],
                     count["failed"] + count["wrong"], count["lost"]])  # fmt: skip
    live.table(rows, ["round", "goodput / capacity", "worst model / its part", "normal after s", "last", "not in time", "of", "before",
                      "in all: refused", "late", "failed", "lost"])  # fmt: skip


def isolation(d, load, loud, pairs, seconds, core):
    ratios = {n: [] for n in load if n != loud}
    loads = [load, {n: (rps * (LOUD if n == loud else 1), slo_ms) for n, (rps, slo_ms) in load.items()}]
    shares = {n: [] for n in load}
    for k in range(pairs):
        p99 = [None, None]
        for i in (0, 1) if k % 2 == 0 else (1, 0):
            r = live.bench(d, loads[i], "--seed", k + 1, "--duration", PAIR_WARM_S + seconds, "--warmup", PAIR_WARM_S, core=core)
            p99[i] = {m["model"]: m["p99_ms"] for m in r["models"]}
            for m in r["models"]:
                shares[m["model"]] += [m["in_time_share"]] if i else []
        for n in ratios:
            ratios[n].append(p99[1][n] / p99[0][n])
    live.table([[n, f"{load[n][0]:.4g}", f"{statistics.median(x):.3f}", f"{min(x):.3f} to {max(x):.3f}",
                 f"{100 * statistics.mean(shares[n]):.2f}"] for n, x in ratios.items()],
               [f"beside {loud} x{LOUD}", "requests/s", "p99 / alone, median", "pairs", "in time %"])  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["sim", "cpu"], default="sim")
    p.add_argument("--models", type=pathlib.Path, default=live.ROOT / "build/bench-models")
    p.add_argument("--part", choices=["overload", "isolation"])
    p.add_argument("--pairs", type=int, default=9)
    p.add_argument("--seconds", type=float, default=6)
    p.add_argument("--pinned", action="store_true")
    a = p.parse_args()
    load, quiet, loud, args, data = setup(a.device, a.models)
    core = os.cpu_count() - 1
    print(f"{a.device}: {live.machine()}")
    if a.part != "isolation":
        with live.daemon(**args) as d:
            put(d, load, data)
            overload(d, load, core)
    if a.part != "overload":
        with live.daemon(**args) as d:
            put(d, quiet, data)
            if a.pinned:
                reality.pin(d)
            isolation(d, quiet, loud, a.pairs, a.seconds, core)


if __name__ == "__main__":
    main()
