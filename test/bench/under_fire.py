#!/usr/bin/env python3
"""Repartition under fire: rates that step, ramp, jump fivefold and change places, on a simulated
device of 132 units that is cut again while it serves.

    BUILD=build .venv-test/bin/python test/bench/under_fire.py [--scale X] [--seed N] [--part fire|held]

Every answer is compared with the one that the same input got alone.  What could not be helped is
measured beside it: the same kinds of load held for a while by daemons that were told the rates
before, so that they change nothing.  The two parts can be run one after the other.

A phase's decision is the first plan made after it began, or, where a rate goes up slowly, after it
has left the band for which the plan holds; its effect is the routing table in force, and the old
gpu-lets' being gone."""
import argparse
import collections
import csv
import pathlib
import random
import re
import sys
import tempfile

import live

sys.path.insert(0, str(live.ROOT / "test" / "http"))
import models  # noqa: E402

# (work of a row in ms on one unit, units that a row can use, SLO in ms)
MODELS = {"small": (60, 20, 60), "medium": (160, 30, 100), "large": (500, 50, 200), "other": (100, 24, 80)}
TYPICAL = (4, 16)  # rows, units: of the runs by which a load is counted in parts of the device
BASE = {"small": 0.08, "medium": 0.06, "large": 0.12, "other": 0.06}
MAX_BATCH = 16


def rps(name, part):
    batch, units = TYPICAL
    return part * 132 / units * batch * 1000 / live.run_ms(batch, units, *MODELS[name][:2])


def phases(t):
    """(name, seconds, parts at the beginning, parts at the end, who changes); parts go straight."""
    step, ramp, flash = dict(BASE, small=0.24), dict(BASE, large=0.3), dict(BASE, medium=5 * BASE["medium"])
    names, parts = list(BASE), [0.24, 0.06, 0.12, 0.06]
    turns = [dict(zip(names, parts[-i:] + parts[:-i])) for i in (1, 2, 3)]
    out = [("steady", 35 * t, BASE, BASE, None), ("step x3", 40 * t, step, step, "small"), ("back", 20 * t, BASE, BASE, None),
           ("ramp x2.5", 60 * t, BASE, ramp, "large"), ("ramp held", 10 * t, ramp, ramp, None), ("back", 20 * t, BASE, BASE, None),
           ("flash x5", 20 * t, flash, flash, "medium"), ("back", 20 * t, BASE, BASE, None)]  # fmt: skip
    return out + [(f"permuted {i + 1}", 25 * t, x, x, names[(i + 1) % 4]) for i, x in enumerate(turns)]


def trace(path, ph, seed):
    """Poisson arrivals of each model at the rates of the phases."""
    rows, draw, start = [], random.Random(seed), 0.0
    for _, seconds, a, b, _ in ph:
        for n in MODELS:
            most, t = max(rps(n, a[n]), rps(n, b[n])), 0.0
            while (t := t + draw.expovariate(most)) < seconds:
                if draw.random() * most < rps(n, a[n] + (b[n] - a[n]) * t / seconds):
                    rows.append((start + t, n))
        start += seconds
    with open(path, "w") as f:
        f.write("time_s,model\n" + "".join(f"{t:.6f},{n}\n" for t, n in sorted(rows)))


def start(parts=None):
    """A daemon with all models; parts: told what will come."""
    d = live.daemon(backend="sim", sim=live.device({n: m[:2] for n, m in MODELS.items()}))
    daemon = d.__enter__()
    for n, m in MODELS.items():
        rate = f"&rate_rps={rps(n, parts[n]):.3f}" if parts else ""
        daemon.put(n, models.identity(), f"?max_batch={MAX_BATCH}&slo_ms={m[2]}{rate}")
    return d, daemon


def load(d, path, log, parts):
    return live.bench(d, {n: (rps(n, parts[n]), m[2]) for n, m in MODELS.items()}, "--trace", path, "--warmup", 0,
                      "--check", "--log", log, core=1)  # fmt: skip


def outcomes(log):
    return [(float(r["due_s"]), r["result"]) for r in csv.DictReader(open(log))]


def held(folder, parts, seconds, seed):
    """Late or refused per cent of a load that a daemon was told before, and how often it replanned."""
    d, daemon = start(parts)
    trace(folder / "held.csv", [("held", seconds, parts, parts, None)], seed)
    since = daemon.admin_get("/v1/events")["last"]
    load(daemon, folder / "held.csv", folder / "held.log", parts)
    plans = sum(e["event"] == "plan" for e in daemon.admin_get(f"/v1/events?since={since}")["events"])
    d.__exit__(None, None, None)
    bad = outcomes(folder / "held.log")
    return 100 * live.share(sum(x != "in time" for _, x in bad), len(bad)), len(bad), plans


def left_s(event, phase):
    """Seconds from the phase's beginning until the rate has left the plan's band."""
    _, seconds, a, b, model = phase
    band = re.search(r"above the ([0-9.]+) for which", event["message"])
    if model is None or a == b or not band or f"'{model}'" not in event["message"]:
        return 0
    return seconds * (float(band[1]) - rps(model, a[model])) / (rps(model, b[model]) - rps(model, a[model]))


def decisions(events, phase, begin, end):
    """Of the first plan in [begin, end): ms to the decision, from there to the swap, to the last
    gpu-let's closing; how many plans there were."""
    plans = [e for e in events if e["event"] == "plan" and begin <= e["at_ms"] / 1000 < end]
    if not plans:
        return ["-", "-", "-", 0]
    at = plans[0]["at_ms"]
    swap = next((e["at_ms"] for e in events if e["event"] == "swap" and e["at_ms"] >= at), None)
    after = plans[1]["at_ms"] if len(plans) > 1 else end * 1000
    gone = [e["at_ms"] for e in events if e["event"] == "retire" and at <= e["at_ms"] < after]
    decided = at - 1000 * (begin + left_s(plans[0], phase))
    return [f"{decided:.0f}", f"{swap - at:.0f}" if swap else "-", f"{max(gone) - at:.0f}" if gone else "-", len(plans)]


def report(done, events, ph):
    rows, begin = [], min(t for t, _ in done)
    for phase in ph:
        name, seconds = phase[:2]
        end = begin + seconds
        count = collections.Counter(x for t, x in done if begin <= t < end)
        n = sum(count.values())
        rows.append([name, f"{seconds:g}", n, f"{100 * live.share(n - count['in time'], n):.2f}", count["late"], count["refused"],
                     count["wrong"], count["lost"] + count["failed"], *decisions(events, phase, begin, end)])  # fmt: skip
        begin = end
    live.table(rows, ["phase", "s", "offered", "not in time %", "late", "refused", "wrong", "lost",
                      "decided ms", "swap ms", "gone ms", "plans"])  # fmt: skip


def fire(folder, ph, seed):
    """Per cent not in time."""
    d, daemon = start()
    trace(folder / "fire.csv", ph, seed)
    r = load(daemon, folder / "fire.csv", folder / "fire.log", BASE)
    events = daemon.admin_get("/v1/events")["events"]
    d.__exit__(None, None, None)
    done = outcomes(folder / "fire.log")
    if events[0]["at_ms"] / 1000 > done[0][0]:
        print("events before", events[0]["at_ms"] / 1000 - done[0][0], "s are not kept any more")
    report(done, events, ph)
    count = collections.Counter(x for _, x in done)
    late = 100 * live.share(len(done) - count["in time"], len(done))
    print(f"under fire not in time {late:.2f} %; wrong {count['wrong']}, lost {count['lost']}, failed {count['failed']} of {len(done)}; "
          f"generator late by {r['lag_p99_ms']:.3f} ms (p99){', VOID' if r['void'] else ''}; {live.machine()}\n")  # fmt: skip
    return late


def rest(folder, ph, scale, seed):
    """Per cent not in time where nothing changes, by the time that each load has among the phases."""
    kinds = [(n, x) for n, _, _, x, _ in ph if n not in ("back", "ramp x2.5")]
    rows = [(name, *held(folder, parts, max(6, 16 * scale), seed)) for name, parts in kinds]
    live.table([[n, f"{x:.2f}", k, plans] for n, x, k, plans in rows], ["held, told before", "not in time %", "offered", "plans"])
    part = {n: x for n, x, _, _ in rows}
    late = sum(part.get(n, part["steady"]) * s for n, s, *_ in ph) / sum(s for _, s, *_ in ph)
    print(f"without a change not in time {late:.2f} %\n")
    return late


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale", type=float, default=1, help="of the time that phases last (1: five minutes in all)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--part", choices=["fire", "held"])
    a = p.parse_args()
    ph = phases(a.scale)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        late = fire(folder, ph, a.seed) if a.part != "held" else None
        base = rest(folder, ph, a.scale, a.seed) if a.part != "fire" else None
        if a.part is None:
            print(f"{late - base:+.2f} points")


if __name__ == "__main__":
    main()
