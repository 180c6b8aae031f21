#!/usr/bin/python3
"""iGniter's V100 measurements as problem files.

    test/plan/convert_igniter.py FROM TO

FROM holds coefficients_v100.json, workloads_12.csv, solo_profile_v100.csv,
solo_b3_b9_b27_v100.jsonl and pair_interference_v100.csv.  TO gets

  igniter-12.json          its 12 workloads by its own rules: half of the SLO for a run, paced
                           arrivals, no sharing in time, a step of 2.5 % of the device (2 SMs)
  igniter-12-poisson.json  the same under Poisson arrivals, at most 1 % late, sharing allowed
  igniter-3.json           the example of its paper: three workloads that fit on one device
  igniter-pairs.json       measured solo profiles and 750 measured pairs, for fitting
"""
import json
import os

from problem_json import folders, rows, write

SMS = 80
MAX_BATCH = 32
PAIR_SHARES = (20, 40, 50, 60, 80)  # per cent; 10 and 100 were measured for one batch only

EXAMPLE = [("alexnet", 15, 500), ("resnet50", 40, 400), ("vgg19", 60, 200)]


def hardware(c, kind):
    return {
        "kind": kind,
        "max_mhz": c["max_frequency_mhz"], "max_watts": c["max_power_w"],
        "idle_watts": c["idle_power_w"], "mhz_per_watt": c["alpha_f_mhz_per_w"],
        "sched_ms": c["alpha_sch_ms_per_kernel_per_process"],
        "sched_base_ms": c["beta_sch_ms_per_kernel"],
    }


def v100(c, kind):
    return {"name": "v100", "granules": SMS // 2, "granule_units": 2, "mem_bytes": 16 * 2**30,
            "link_bps": c["pcie_bytes_per_ms"] * 1000, "interference": hardware(c, kind)}


def curve(m):
    return {
        "k": m["active_k1_to_k5"],
        "kernels": m["kernels"], "sched_ms": m["solo_sched_ms"],
        "in_bytes": m["input_bytes_per_request"], "out_bytes": m["output_bytes_per_request"],
        "watts_per_rps": m["power_slope_w_per_rps"], "watts_base": m["power_intercept_w"],
        "l2_per_rps": m["l2_slope_pct_per_rps"], "l2_base": m["l2_intercept_pct"],
        "cache_per_pct": m["alpha_cache_per_pct"],
    }


def curve_profile(m):
    """`batch` and `units` are the cells that the curve was fitted on."""
    return {"v100": {"batch": [1, 16, 32], "units": [8, 40, 80], "curve": curve(m)}}


def workloads(models, wanted, arrivals):
    """wanted: (name, model, slo_ms, rate_rps); workloads of one model share its profile."""
    first, out = {}, []
    for name, model, slo_ms, rate_rps in wanted:
        out.append({"name": name, "slo_ms": slo_ms, "rate_rps": rate_rps, "arrivals": arrivals,
                    "max_batch": MAX_BATCH,
                    "profile": first.get(model) or curve_profile(models[model])})
        first.setdefault(model, name)
    return out


def problem(c, note, wanted, arrivals, rules, devices):
    return {
        "note": note,
        "types": [v100(c["hardware"], "igniter")],
        "devices": [{"type": "v100", "count": devices}],
        "rules": {**rules, "as_few": True},
        "models": workloads(c["models"], wanted, arrivals),
    }


def measured_watts(folder, idle):
    """{model: {share: [(batch, W above idle)]}}; three batches were measured."""
    out = {}
    with open(os.path.join(folder, "solo_b3_b9_b27_v100.jsonl"), encoding="utf-8") as f:
        for line in f:
            for model, metrics in json.loads(line).items():
                for batch, shares in metrics.get("power", {}).items():
                    for share, w in shares.items():
                        points = out.setdefault(model, {}).setdefault(int(share), [])
                        points.append((int(batch), w - idle))
    return out


def watts(points, batch):
    """On a line between the measured batches, held beyond them."""
    points = sorted(points)
    for (b0, w0), (b1, w1) in zip(points, points[1:]):
        if b0 <= batch <= b1:
            return w0 + (w1 - w0) * (batch - b0) / (b1 - b0)
    return points[0][1] if batch < points[0][0] else points[-1][1]


def solo_profile(c, name, cells, power):
    """The copies are taken out of the measured latency and stated in bytes instead."""
    m = c["models"][name]
    batches = sorted({b for b, _ in cells})
    copy_ms = (m["input_bytes_per_request"] + m["output_bytes_per_request"]) / (
        c["hardware"]["pcie_bytes_per_ms"])
    table = {"run_ms": [], "l2": [], "dram": [], "watts": []}
    for share in PAIR_SHARES:
        line = [cells[b, share] for b in batches]
        table["run_ms"].append([round(float(r["latency_ms"]) - b * copy_ms, 3)
                                for b, r in zip(batches, line)])
        table["watts"].append([round(watts(power[share], b), 2) for b in batches])
        for key in ("l2", "dram"):
            table[key].append([round(float(r[key + "_pct"]) / 100, 5) if r[key + "_pct"] else None
                               for r in line])
    return {"batch": batches, "units": [s * SMS // 100 for s in PAIR_SHARES], **table,
            "kernels": m["kernels"], "in_bytes": m["input_bytes_per_request"],
            "out_bytes": m["output_bytes_per_request"]}


def pair_problem(c, folder):
    power = measured_watts(folder, c["hardware"]["idle_power_w"])
    solo = {}
    for r in rows(folder, "solo_profile_v100.csv"):
        if int(r["resource_pct"]) in PAIR_SHARES:
            solo.setdefault(r["model"], {})[int(r["batch"]), int(r["resource_pct"])] = r
    side = lambda r, k: [r["model_" + k], int(r["batch_" + k]),
                         int(r["resource_%s_pct" % k]) * SMS // 100,
                         round(float(r["latency_%s_ms" % k]), 3)]
    return {
        "note": "Solo runs and pairs on a V100 (iGniter, TPDS 2022): AlexNet, ResNet-50, VGG-19, "
                "SSD. Watts were measured at batches 3, 9 and 27: on a line between, held beyond.",
        "types": [v100(c["hardware"], "pressure")],
        "models": [{"name": name, "max_batch": MAX_BATCH,
                    "profile": {"v100": solo_profile(c, name, solo[name], power[name])}}
                   for name in sorted(solo)],
        "pairs": {"type": "v100", "rows": [[side(r, "1"), side(r, "2")] for r in
                                           rows(folder, "pair_interference_v100.csv")]},
    }


def main():
    folder, to = folders()
    with open(os.path.join(folder, "coefficients_v100.json"), encoding="utf-8") as f:
        c = json.load(f)
    twelve = [(r["workload"], r["model"], int(r["slo_ms"]), int(r["rate_rps"]))
              for r in rows(folder, "workloads_12.csv")]
    half = {"rule": "part", "slo_part": 0.5, "max_shares": 1}
    write(to, "igniter-12", problem(
        c, "The 12 workloads of iGniter (TPDS 2022) by its own rules; published: 6 devices.",
        twelve, "paced", half, 20))
    write(to, "igniter-12-poisson", problem(
        c, "The 12 workloads of iGniter (TPDS 2022) under Poisson arrivals, at most 1 % late.",
        twelve, "poisson", {"rule": "queue", "violations": 0.01}, 20))
    write(to, "igniter-3", problem(
        c, "The example of iGniter (TPDS 2022); published: one device, 37.5, 30 and 10 %, "
        "batches 6, 8 and 4.",
        [(m, m, slo, rate) for m, slo, rate in EXAMPLE], "paced", half, 20))
    write(to, "igniter-pairs", pair_problem(c, folder))


main()
