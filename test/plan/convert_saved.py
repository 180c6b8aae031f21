#!/usr/bin/python3
"""What a daemon has measured on a machine, as a problem file that others plan with.

    test/plan/convert_saved.py PROBLEM.json TYPE [COUNT] >test/data/plan/TYPE.json

PROBLEM.json is what GET /v1/problem of that daemon said, or what `run.sh OUT --part profile` kept of it.  Its
first device becomes the type TYPE, of which there are COUNT (1); models keep what was declared and measured,
and a rate of 1 where none was.  What was in force just then (the plan, rules) is left out.
"""
import json
import sys

from problem_json import text_of

OF_A_MODEL = ["slo_ms", "rate_rps", "arrivals", "cv", "max_batch", "priority", "best_effort", "weights_bytes", "weights_per_let",
              "slot_bytes", "row_bytes"]


def saved(problem, name, count):
    """The problem file, as an object."""
    was = problem["types"][0]
    models = []
    for m in problem["models"]:
        profile = m["profile"]
        while isinstance(profile, str):  # that of another model
            profile = next(x["profile"] for x in problem["models"] if x["name"] == profile)
        kept = {k: m[k] for k in OF_A_MODEL if k in m}
        models.append({"name": m["name"], "rate_rps": 1, **kept, "profile": {name: profile[was["name"]]}})
    return {"version": 1, "note": "measured by gpuletd", "types": [{**was, "name": name}], "devices": [{"type": name, "count": count}],
            "models": models}


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f:
        problem = json.load(f)
    print(text_of(saved(problem, sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)))


if __name__ == "__main__":
    main()
