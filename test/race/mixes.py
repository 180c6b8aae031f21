#!/usr/bin/env python3
"""Writes test/race/mixes/*.json, the problems of `make race`: six mixes, one model alone.

The device has 132 units in granules of two, together 6.6 TFLOP/s and 320 GB/s (a T4's, less what a
convolution leaves idle); a launch takes 12 us.  Its interference terms are those that `make
bench-plan` fits to the V100 pairs.  A network is what its paper or model card says: GFLOP of a row,
parameters, values that a row writes, launches.  In fp32 a run of b rows on u units takes

    launches x 12 us + 132/u x max(b x FLOP / 6.6e12, (weights + b x 2 x values x 4 B) / 320e9)

so a small partition has its part of the bandwidth and no more.  The SLO is four times a run of one
row on an eighth of the device.  Rates are parts of a whole; the race scales them together."""

import json
import os

UNITS, GRANULE = 132, 2
FLOPS, DRAM, LAUNCH_S = 6.6e12, 320e9, 12e-6
SLO_TIMES, SLO_UNITS = 4, 16.5
BATCH = [1, 2, 4, 8, 16, 32]
SIZES = [2, 4, 8, 12, 16, 24, 32, 44, 66, 88, 110, 132]

# GFLOP of a row, million parameters, million values that a row writes, launches
NETWORKS = {
    "mobilenet_v2": (0.60, 3.5, 6.7, 53),
    "mobilenet_v3": (0.44, 5.5, 4.4, 64),
    "squeezenet": (0.70, 1.24, 2.6, 26),
    "shufflenet_v2": (0.29, 2.3, 2.0, 57),
    "efficientnet_b0": (0.78, 5.3, 6.7, 82),
    "resnet18": (3.6, 11.7, 2.5, 21),
    "resnet50": (8.2, 25.6, 11.1, 54),
    "resnet152": (23.0, 60.2, 22.6, 156),
    "inception_v3": (11.4, 27.2, 10.0, 95),
    "densenet161": (15.6, 28.7, 30.0, 161),
    "vgg16": (31.0, 138.4, 13.6, 16),
    "vgg19": (39.0, 143.7, 14.9, 19),
    "bert_base_128": (22.4, 110.0, 20.0, 98),
    "bert_large_128": (79.0, 340.0, 50.0, 194),
    "gpt2_token": (0.25, 124.0, 2.5, 98),
    "dlrm": (0.03, 3.0, 24.0, 14),
    "ssd_mobilenet": (2.5, 6.8, 14.0, 76),
    "unet_256": (55.0, 31.0, 45.0, 23),
}

# "rate": equal rates; "work": equal device time for each; a list: parts of the rate
MIXES = {
    "light": ("rate", ["mobilenet_v2", "mobilenet_v3", "squeezenet", "shufflenet_v2",
                       "efficientnet_b0", "resnet18"]),
    "heavy": ("rate", ["resnet152", "densenet161", "vgg16", "bert_large_128", "inception_v3"]),
    "skewed": ([64, 32, 16, 8, 4, 2, 1, 1],
               ["mobilenet_v2", "resnet18", "resnet50", "ssd_mobilenet", "inception_v3",
                "bert_base_128", "vgg16", "densenet161"]),
    "equal": ("work", ["mobilenet_v2", "efficientnet_b0", "resnet50", "inception_v3",
                       "bert_base_128", "vgg16"]),
    "memory-bound": ("work", ["gpt2_token", "dlrm", "mobilenet_v2", "mobilenet_v3",
                              "shufflenet_v2", "ssd_mobilenet"]),
    "compute-bound": ("work", ["resnet50", "resnet152", "vgg19", "bert_base_128", "unet_256"]),
    "alone": ("rate", ["bert_large_128"]),
}


def memory_s(name, b):
    _, params, values, _ = NETWORKS[name]
    return (params * 4e6 + b * 2 * values * 4e6) / DRAM


def run_s(name, b, units):
    flop, _, _, launches = NETWORKS[name]
    return launches * LAUNCH_S + UNITS / units * max(b * flop * 1e9 / FLOPS, memory_s(name, b))


def model(name, rate):
    dram = [[round(memory_s(name, b) / run_s(name, b, u), 4) for b in BATCH] for u in SIZES]
    return {
        "name": name, "slo_ms": round(1e3 * SLO_TIMES * run_s(name, 1, SLO_UNITS), 1),
        "rate_rps": round(rate, 4), "arrivals": "poisson", "max_batch": BATCH[-1],
        "profile": {"race-132": {
            "batch": BATCH, "units": SIZES,
            "run_ms": [[round(1e3 * run_s(name, b, u), 3) for b in BATCH] for u in SIZES],
            "l2": dram, "dram": dram, "kernels": NETWORKS[name][3], "estimated": True}},
    }


def problem(how, names):
    if how == "work":
        parts = [1 / (run_s(n, 32, UNITS) / 32) for n in names]
    else:
        parts = [1] * len(names) if how == "rate" else how
    return {
        "version": 1,
        "types": [{"name": "race-132", "granules": UNITS // GRANULE, "granule_units": GRANULE,
                   "dram_bps": DRAM,
                   "interference": {"kind": "pressure",
                                    "terms": [0.1317, 0.0004875, 0.8394, 0.3515, 27.81]}}],
        "devices": [{"type": "race-132", "count": 1}],
        "rules": {"rule": "queue", "violations": 0.01},
        "models": [model(n, 100 * p / sum(parts)) for n, p in zip(names, parts)],
    }


def main():
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mixes")
    os.makedirs(here, exist_ok=True)
    for name, (how, names) in MIXES.items():
        with open(os.path.join(here, name + ".json"), "w", encoding="ascii") as f:
            json.dump(problem(how, names), f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
