#!/usr/bin/python3
"""The gpu-lets setting (four RTX 2080 Ti, nine models) as a problem file.

    test/plan/convert_gpulet.py FROM TO

FROM holds derived/latency_2080ti_9models.csv and from-repo/.  TO gets gpulet.json, without rates:
whoever uses it takes the models it wants and says at what rate.  A unit is one per cent of the
SMs.  LeNet is there six times, as its `game` application has it.
"""
import json
import os

from problem_json import folders, rows, write

SHARES = (20, 40, 50, 60, 80, 100)
MEASURED = (1, 2, 4, 8, 16, 32)  # batches of the latency table
# The cost of assembling a batch bends at 9 and 10; everything else is straight in between.
BATCHES = (1, 2, 4, 8, 9, 10, 12, 16, 20, 24, 28, 32)
SLO_MS = {"lenet1": 5, "googlenet": 66, "resnet50": 108, "ssd-mobilenetv1": 202, "vgg16": 142,
          "mnasnet1_0": 62, "mobilenet_v2": 64, "densenet161": 202, "bert": 22}
MB = 10**6
PROCESS_MB = 1230
MEMORY_ROOM = 0.9


def on_line(table, batch):
    """table: {batch: value} at the measured batches."""
    if batch in table:
        return table[batch]
    lo = max(b for b in MEASURED if b < batch)
    hi = min(b for b in MEASURED if b > batch)
    return table[lo] + (table[hi] - table[lo]) * (batch - lo) / (hi - lo)


def assembly(folder, model):
    """Milliseconds by batch: a table for the shape of the input, times what the type costs."""
    if model.startswith("lenet") or model == "bert":
        return [0.4 if model != "bert" else 1.0] * len(BATCHES)
    shape, factor = ("3_300_300", 2.5) if model.startswith("ssd") else ("3_224_224", 1.9)
    with open("%s/from-repo/%s.txt" % (folder, shape), encoding="utf-8") as f:
        ms = {int(line.split(",")[0]): float(line.split(",")[1]) for line in f if line.strip()}
    return [round(ms[b] * factor, 3) for b in BATCHES]


def profile(folder, model, latency, util):
    """Utilisations were measured on a whole device: the same for every share."""
    table = {s: {b: latency[model, s, b] for b in MEASURED} for s in SHARES}
    used = util["lenet" if model == "lenet1" else model]
    same = lambda key: [[round(on_line(used[key], b) / 100, 5) for b in BATCHES]] * len(SHARES)
    return {"2080ti": {
        "batch": list(BATCHES), "units": list(SHARES),
        "run_ms": [[round(on_line(table[s], b), 3) for b in BATCHES] for s in SHARES],
        "host_ms": assembly(folder, model),
        "l2": same("l2_util(%)"), "dram": same("mem_util(%)")}}


def read_util(folder):
    util = {}
    for r in rows(folder, "from-repo/2080ti/UTIL.CSV"):
        for key in ("l2_util(%)", "mem_util(%)"):
            util.setdefault(r["bench"], {}).setdefault(key, {})[int(r["batch"])] = float(r[key])
    return {m: {k: {b: v[b] for b in MEASURED} for k, v in keys.items()}
            for m, keys in util.items()}


def main():
    folder, to = folders()
    latency = {(r["model"], int(r["partition_pct"]), int(r["batch"])): float(r["latency_ms"])
               for r in rows(folder, "derived/latency_2080ti_9models.csv")}
    constants = [float(x) for x in rows(
        folder, "from-repo/2080ti/INT_MODEL_CONSTANT.CSV")[0].values()]
    with open(os.path.join(folder, "from-repo/mem-config.json"), encoding="utf-8") as f:
        mb = {m["name"]: m["mem"] for m in json.load(f)["models"]}
    util = read_util(folder)
    model = lambda name, p: {
        "name": name, "slo_ms": SLO_MS["lenet1" if name.startswith("lenet") else name],
        "arrivals": "poisson", "max_batch": 32, "weights_bytes": mb[name] * MB,
        "weights_per_let": True, "profile": p}
    write(to, "gpulet", {
        "note": "Nine models on four RTX 2080 Ti, from gpu-lets (ATC 2022). Latencies of GoogLeNet, "
                "ResNet-50, SSD and VGG-16 are read from its figure 3; those of the others are "
                "scaled from these to the published SLOs.",
        "types": [{"name": "2080ti", "granules": 10, "granule_units": 10,
                   "sizes": [s // 10 for s in SHARES],
                   "mem_bytes": int(11000 * MB * MEMORY_ROOM), "let_bytes": PROCESS_MB * MB,
                   "interference": {"kind": "gpulet", "c": constants}}],
        "devices": [{"type": "2080ti", "count": 4}],
        "rules": {"rule": "cycle", "violations": 0.01},
        "models": [model(m, profile(folder, m, latency, util)) for m in SLO_MS] +
                  [model("lenet%d" % i, "lenet1") for i in range(2, 7)],
    })


main()
