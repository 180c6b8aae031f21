#!/usr/bin/python3
"""ParvaGPU's A100 profiles and scenarios as problem files.

    test/plan/convert_parvagpu.py FROM TO

FROM holds a CSV for each model, SLO_latency.csv and SLO_req_rate.csv.  TO gets for each scenario
S1..S6

  parva-S1.json      gpu-lets of any number of sevenths, models may share one in time
  parva-S1-mig.json  the sizes and places of MIG, no sharing in time: as its authors had it

A run takes at most 0.45 of the SLO.  `streams` are processes of a model in one instance: up to
five were measured, the authors' planner uses up to three.
"""
from collections import defaultdict

from problem_json import folders, rows, write

SMS_OF_SEVENTH = 14
RULES = {"rule": "part", "slo_part": 0.45, "as_few": True}
ORDER = ("bert densenet121 densenet169 densenet201 inceptionv3 mobilenetv2 resnet101 resnet152 "
         "resnet50 vgg16 vgg19").split()
# A 3g instance at slot 0 takes the memory of slot 3 as well, so a 4g there is never worse: left out.
PLACES = ([[i, 1] for i in range(7)] + [[0, 2], [2, 2], [4, 2]] + [[4, 3]] + [[0, 4]] + [[0, 7]])


def profile(folder, model):
    cells = {}
    for r in rows(folder, model + ".csv"):
        at = int(r["Workload Number"]), int(r["Mig instance"]), int(r["Batch size"])
        rate = float(r["Throughput"] or 0)
        # The published latency has whole milliseconds; batch over rate is the same, finer.
        cells[at] = round(1000 * at[2] / rate, 3) if rate > 0 else None
    streams, sizes, batches = (sorted(set(x)) for x in zip(*cells))
    return {"a100": {
        "batch": batches, "units": [s * SMS_OF_SEVENTH for s in sizes], "streams": streams,
        "run_ms": [[[cells.get((s, u, b)) for b in batches] for u in sizes] for s in streams]}}


def lines(folder, name):
    with open("%s/%s.csv" % (folder, name), encoding="utf-8") as f:
        return [line.strip().split(",") for line in f if line.strip()]


def scenario(folder, profiles, i, slo, rate, mig):
    a100 = {"name": "a100", "granules": 7, "granule_units": SMS_OF_SEVENTH}
    models = [{"name": m, "slo_ms": float(s), "rate_rps": float(r), "arrivals": "paced",
               "max_batch": max(profiles[m]["a100"]["batch"]), "profile": profiles[m]}
              for m, s, r in zip(ORDER, slo, rate) if s != "N/A"]
    return {
        "note": "Scenario S%d of ParvaGPU (SC 2024) on its A100 profiles%s." % (
            i, ", with MIG's sizes and places" if mig else ", in free sevenths"),
        "types": [{**a100, "sizes": [1, 2, 3, 4, 7], "places": PLACES} if mig else a100],
        "devices": [{"type": "a100", "count": 40}],
        "rules": {**RULES, **({"max_streams": 3, "max_shares": 1} if mig else {"max_streams": 5})},
        "models": models,
    }


def main():
    folder, to = folders()
    profiles = {m: profile(folder, m) for m in ORDER}
    both = zip(lines(folder, "SLO_latency"), lines(folder, "SLO_req_rate"))
    for i, (slo, rate) in enumerate(both, 1):
        for mig in (False, True):
            write(to, "parva-S%d%s" % (i, "-mig" if mig else ""),
                  scenario(folder, profiles, i, slo, rate, mig))


main()
