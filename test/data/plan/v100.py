#!/usr/bin/env python3
"""Carry what fitting needs from iGniter's published V100 measurements to short tables.

    v100.py FOLDER      with solo_profile_v100.csv, pair_interference_v100.csv,
                        solo_b3_b9_b27_v100.jsonl and coefficients_v100.json
Writes v100_solo.csv, v100_pairs.csv and v100_models.csv here; four digits each.
"""
import csv
import json
import pathlib
import sys

here, source = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[1])
coefficients = json.loads((source / "coefficients_v100.json").read_text())
IDLE_W = coefficients["hardware"]["idle_power_w"]


def digits(x):
    return f"{x:.4g}" if x != "" else ""


def write(name, head, rows):
    with open(here / name, "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(head)
        w.writerows(rows)


def measured_watts():
    """{model: {share: [(batch, W above idle)]}}"""
    table = {}
    for line in (source / "solo_b3_b9_b27_v100.jsonl").read_text().splitlines():
        for model, metrics in json.loads(line).items():
            for batch, shares in metrics.get("power", {}).items():
                for share, w in shares.items():
                    at = table.setdefault(model, {}).setdefault(int(share), [])
                    at.append((int(batch), w - IDLE_W))
    return table


def watts(points, batch):
    """On a line between the measured batches, held beyond them."""
    if not points:
        return ""
    points = sorted(points)
    for (b0, w0), (b1, w1) in zip(points, points[1:]):
        if b0 <= batch <= b1:
            return w0 + (w1 - w0) * (batch - b0) / (b1 - b0)
    return points[0][1] if batch < points[0][0] else points[-1][1]


power = measured_watts()
with open(source / "solo_profile_v100.csv") as f:
    write("v100_solo.csv",
          ["model", "batch", "share_pct", "latency_ms", "l2_pct", "dram_pct", "watts"],
          [[r["model"], r["batch"], r["resource_pct"], digits(float(r["latency_ms"])),
            *(digits(float(r[c])) if r[c] else "" for c in ("l2_pct", "dram_pct")),
            digits(watts(power[r["model"]].get(int(r["resource_pct"])), int(r["batch"])))]
           for r in csv.DictReader(f)])
with open(source / "pair_interference_v100.csv") as f:
    write("v100_pairs.csv",
          ["model_1", "model_2", "batch_1", "batch_2", "share_1_pct", "share_2_pct",
           "latency_1_ms", "latency_2_ms"],
          [[r["model_1"], r["model_2"], r["batch_1"], r["batch_2"], r["resource_1_pct"],
            r["resource_2_pct"], digits(float(r["latency_1_ms"])),
            digits(float(r["latency_2_ms"]))] for r in csv.DictReader(f)])
KEYS = ["kernels", "solo_sched_ms", "input_bytes_per_request", "output_bytes_per_request",
        "power_slope_w_per_rps", "power_intercept_w", "l2_slope_pct_per_rps",
        "l2_intercept_pct", "alpha_cache_per_pct"]
write("v100_models.csv", ["model", *KEYS, "k1", "k2", "k3", "k4", "k5"],
      [[model, *(f"{c[k]:.10g}" for k in KEYS), *(f"{k:.10g}" for k in c["active_k1_to_k5"])]
       for model, c in coefficients["models"].items()])
