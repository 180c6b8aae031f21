#!/usr/bin/python3
"""The arrival times of the Azure LLM code trace, as offsets.

    test/plan/convert_trace.py FROM TO

FROM holds azure_llm_code_2023.csv.  TO gets azure-llm-code.csv with one column, offset_ms.
"""
import os
from datetime import datetime

from problem_json import folders, rows


def seconds(stamp):
    """datetime has microseconds, the trace a digit more."""
    day = datetime.fromisoformat(stamp[:19])
    return (day - datetime(2023, 1, 1)).total_seconds(), float("0" + stamp[19:])


def main():
    folder, to = folders()
    times = [seconds(r["TIMESTAMP"]) for r in rows(folder, "azure_llm_code_2023.csv")]
    with open(os.path.join(to, "azure-llm-code.csv"), "w", encoding="utf-8") as f:
        f.write("offset_ms\n")
        for whole, part in times:
            ms = (whole - times[0][0] + part - times[0][1]) * 1000
            f.write("%s\n" % ("%.3f" % ms).rstrip("0").rstrip("."))


main()
