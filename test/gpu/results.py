#!/usr/bin/python3
"""docs/gpu-results.md, from what run.sh has written.

    test/gpu/results.py [RESULTS.jsonl...] >docs/gpu-results.md

Without arguments: docs/gpu-results/*.jsonl, of which there may be none.  Of each part the page has the
newest commit that was run, and of each case its newest line.  Only the standard library.
"""
import collections
import glob
import json
import os
import sys

COMMAND = "run.sh OUT --part "
SPEED = ("not slower than the best way of PyTorch at batch 1 and 8 (aim: 0.8 of its time); captured graphs beside launches "
         "one by one, fused nodes beside those of the file; beside what copies and products take at least; how much a small gpu-let does with each of its SMs")
SAME = "the same"
HALF = "; at batch 128 half of the rate of products"
MODES = {  # of part http, and what two models have there
    "auto": "two models in the first of the others that can be had", "green": "two models on SMs of their own", "shared": "two models on all SMs",
    "mps": "two models with a cap of SMs each", "mig": "two models on a MIG instance (`CUDA_VISIBLE_DEVICES=MIG-…`)",
}
PARTS = [  # part, what it shows, and if that is shown by some of its cases: how they begin
    ("facts", "what a device is and how it can be cut, whether a daemon of MPS can be started and its contexts share "
              "memory, whether green contexts and graphs keep to their SMs; what contexts, launches, graphs, being told "
              "of an end, copies, the host's memory and a change of partitions take"),
    ("facts", "what priorities of streams do where models share a GPU (`partition-mode = shared`)", "streams: "),
    ("facts", "from which size on a copy is worth a stream of its own (256 KiB is a guess), what streams and handles take "
              "(16 MiB for each priority is one, too)", ("streams: ", "shared: a partition of one granule: memory")),
    ("ops", "operators: every case of `test/ops` against the plain-C reference; those of FP32 in bf16 and fp16, too, where most "
            "operators keep 16 bits"),
    ("plain", "the same by own kernels alone, without cuBLASLt and cuDNN"),
    ("models", "models against the cpu backend, batch 1 and 8, in fp16 and bf16, too: small ones with their weights, one that "
               "ends on the host (NonMaxSuppression), eight large ones whose weights are made on the spot"),
    *[("http", f"the daemon, `partition-mode = {mode}`: {what}, at once; the GPU cut anew under load, two more models", mode + ": ")
      for mode, what in MODES.items()],
    ("sanitize", "races and wrong addresses in kernels: the cases of `ops` under compute-sanitizer"),
] + [(f"bench-{i}", f"{model} in fp16, batch 1, 8, 32 and 128: {what}") for i, (model, what) in enumerate([
    ("ResNet-50", SPEED + HALF), ("MobileNetV2", SAME), ("VGG-19", SAME), ("BERT-base of 128 tokens", SAME + HALF),
    ("GPT-2 small of 64 tokens", SAME)], 1)] + [
    ("bench-kernels", "each kernel of ours alone, beside the floor of its bytes"),
    ("bench-serve-2", "two models side by side, each within its SLO, as the planner cuts: not below the best of one at a time on the "
                      "whole device, all at once without partitions, and equal parts by more than 2 % (aim: 1.35 times that)"),
    ("bench-serve-4", "four models: the same"), ("bench-serve-8", "eight models: the same"),
    ("bench-modes", "modes green, mps and shared beside each other: two models within their SLOs, and what one that asks for too much "
                    "does to the other one's 99th percentile (what a re-cut takes, and a gpu-let of memory, is in part `facts`)"),
    ("bench-alone", "serving beside the engine without a daemon, ResNet-50 and BERT-base: at least 95 % of its rate within the SLO"),
    ("profile", "what a daemon measures of eight models, of neighbours too: the profile of this device for planner and replay "
                "(`test/plan/convert_saved.py`)")]
NOT_YET = [
    "what neighbours do to each other while a plan changes ([ADR 12](adr/0012-green-partitions-overlap.md))",
]

NOTHING = """**Nothing of this version has been validated on a GPU.** What is tested without one (`make check-cuda`): the real
plug-in on a fake driver that keeps the driver's documented rules, and its kernels compiled for the
host, so that indexing, tails and numbers of every operator case and of whole networks are compared with
the reference. What a host cannot show is listed here.
"""
SOMETHING = """What a GPU has shown of this version, and what none has been asked yet. What is tested without one
(`make check-cuda`): the real plug-in on a fake driver that keeps the driver's documented rules, and its
kernels compiled for the host.
"""
HOW = """`make gpu-bundle` makes the folder `build/gpu-bundle` and an archive of it (41 MB) for x86-64 Linux with glibc 2.36 or
newer and a driver; in it lies `run.sh` (`test/gpu/run.sh`), which looks for cuBLASLt and cuDNN there. It appends a line of JSON for each case to
OUT/results.jsonl; each part ends within nine minutes and goes on where it stopped when it is started again, and
`--left` says what is missing. `--first` takes a minute. The benches time PyTorch beside us where `python3` has it,
and name it as missing where not; in what order and for how long is told at the top of `bench.sh` and `bench_serve.sh`. Part http starts the daemon once in
each partition mode; one that cannot be had on that machine has a line with the reason, and is not validated. The lines go
to a file in docs/gpu-results, and `test/gpu/results.py >docs/gpu-results.md` makes this page of them.
"""


def read(files):
    """part -> (commit, {case: its newest line}) of the newest commit."""
    parts = {}
    for path in files:
        with open(path, encoding="utf-8") as f:
            for line in f:
                r = json.loads(line)
                parts.setdefault(r["part"], collections.OrderedDict()).setdefault(r["commit"], {})[r["case"]] = r
    newest = {}
    for part, commits in parts.items():
        date = {c: max(r["date"] for r in cases.values()) for c, cases in commits.items()}
        commit = max(commits, key=lambda c: (date[c], list(commits).index(c)))  # of one day: the last
        newest[part] = commits[commit]
    return newest


def shown(text):
    return text.replace("|", "/").replace("<", "&lt;")


def verdict(cases):
    """One cell: when, what, where, and how many."""
    told = [r for case, r in cases.items() if case != "(end)"]
    last = max(cases.values(), key=lambda r: r["date"])
    right, wrong = (sum(r["ok"] is ok for r in told) for ok in (True, False))
    text = f"{last['date']}, {last['commit']}, {shown(last['gpu'])}: "
    if told and right + wrong == 0:
        return f"**not validated**: {text}{shown(told[0].get('text', ''))}"
    text += f"{right} right"
    text += f", **{wrong} wrong**" if wrong else ""
    left = len(told) - right - wrong
    return text + (f", {left} not run" if left else "")


def listing(title, rows):
    return [f"\n## {title}\n\n"] + [f"- {r}\n" for r in rows] if rows else []


# ---- benches: a table for each model
def us(row):
    if not row or "value" not in row:
        return "-"
    return f"{row['value'] / 1000:.3g} ({min(row['turns']) / 1000:.3g} to {max(row['turns']) / 1000:.3g})"


def beside(ours, others):
    """Our time over that of the best of the others, in each turn: the median, and the ends."""
    turns = list(zip(*(o["turns"] for o in others)))
    if not turns or not ours:
        return "-"
    ratio = sorted(a / min(b) for a, b in zip(ours["turns"], turns))
    return f"{ratio[len(ratio) // 2]:.2f} ({ratio[0]:.2f} to {ratio[-1]:.2f})"


def of_floor(ours, work):
    """Of the rate of products; the floor of nodes, and of all of them joined, over our time."""
    if not ours or "nodes_us" not in work or not ours["value"]:
        return ["-"] * 3
    rate = work["matrix_gflop"] / ours["value"] / work["matrix_tflops"] * 1e3
    return [f"{100 * part:.0f} %" for part in (rate, work["nodes_us"] / ours["value"], work["least_us"] / ours["value"])]


TORCH = ["torch eager", "torch graphs", "torch compile"]


def bench_row(batch, ways):
    ours = ways.get("graphs")
    cells = [str(batch)] + [us(ways.get(w)) for w in ["graphs", "eager", "unfused", "served"] + TORCH]
    cells += [beside(ours, [ways[w] for w in TORCH if "value" in ways.get(w, {})])]
    return "| " + " | ".join(cells + of_floor(ours, ways.get("roofline", {}))) + " |\n"


def bench_table(cases):
    """Of a part bench-N."""
    rows = collections.OrderedDict()
    for r in cases.values():
        if r["ok"] and "way" in r:
            rows.setdefault((r["model"], r["batch"]), {})[r["way"]] = r
    if not rows:
        return []
    model = next(iter(rows))[0]
    out = [f"\n## {model}\n\nMilliseconds, the median of {max(len(w.get('graphs', {}).get('turns', [])) for w in rows.values())} turns and the ends.\n\n",
           "| batch | captured | one by one | not fused | with copies | PyTorch eager | graphs | compiled | ours over its best | "
           "of the rate of products | of the floor of nodes | of the floor of all |\n" + "| --- " * 12 + "|\n"]
    out += [bench_row(batch, ways) for (_, batch), ways in sorted(rows.items(), key=lambda kv: kv[0][1])]
    for (_, batch), ways in rows.items():
        if "sizes" in ways.get("by size", {}):
            listed = ", ".join(f"{n} SMs {t / 1000:.3g} ms" for n, t in ways["by size"]["sizes"])
            out.append(f"\nBatch {batch} by size: {listed}; {ways['by size']['text']}.\n")
    why = sorted({f"{w}: {shown(ways[w]['text'])}" for ways in rows.values() for w in TORCH if w in ways and "value" not in ways[w]})
    return out + [f"\n{w}\n" for w in why]


def serve_table(part, cases):
    """Of bench-serve-N, bench-modes, bench-alone and bench-kernels: what is not a turn."""
    rows = [(case, r) for case, r in cases.items() if r["ok"] and "way" not in r and case != "(end)"]
    if not rows:
        return []
    out = [f"\n## {part}\n\n| of | found |\n| --- | --- |\n"] + [f"| {shown(case)} | {shown(r['text'])} |\n" for case, r in rows]
    rates = {case.split(", ", 1)[1]: r["value"] for case, r in rows if r.get("unit") == "requests/s"}
    ours, others = rates.pop("the cut of the planner", None), [v for v in rates.values() if v > 0]
    if part.startswith("bench-serve") and ours and others:
        out.append(f"\nThe planner's cut over the best of the {len(others)} others: {ours / max(others):.2f}.\n")
    for case, r in rows:
        engine = cases.get(case.split(",")[0] + ", batch 32, graphs", {})
        if engine.get("value") and r.get("unit") == "requests/s":
            share = r["value"] / (32e6 / engine["value"])
            out.append(f"\n{shown(case)}: {100 * share:.0f} % of what the engine does at batch 32.\n")
    return out


def page(newest):
    out = ["# Results on GPUs\n\n", SOMETHING if newest else NOTHING, "\n| what | validated | with |\n| --- | --- | --- |\n"]
    for part, what, *prefix in PARTS:
        cases = {c: r for c, r in newest.get(part, {}).items() if c.startswith(*prefix or ("",))}
        out.append(f"| {what} | {verdict(cases) if cases else 'never'} | `{COMMAND}{part}` |\n")
    out += [f"| {what} | never | not there yet |\n" for what in NOT_YET]
    out += ["\n", HOW]
    every = [(p, case, r) for p in dict.fromkeys(p for p, *_ in PARTS) for case, r in newest.get(p, {}).items()]
    out += listing("Wrong", [f"{p}, {shown(c)}: {shown(r.get('text', ''))}" for p, c, r in every if r["ok"] is False and c != "(end)"])
    out += listing("Not validated", [f"{p}, {shown(c)}: {shown(r['text'])}: `{COMMAND}{p}`" for p, c, r in every if r["ok"] is None])
    for part in sorted(p for p in newest if p.startswith("bench-")):
        out += bench_table(newest[part])
        out += serve_table(part, newest[part])
    figures = [(c, r) for p, c, r in every if p in ("facts", "models", "http") and r["ok"] and c != "(end)" and r.get("text")]
    if figures:
        out += ["\n## Figures\n\n| of | figure |\n| --- | --- |\n"]
        out += [f"| {shown(c)} | {shown(r.get('text', ''))} |\n" for c, r in figures]
    else:
        out.append("\nWhen there is something to validate, this page will hold, for each machine on which it ran: date, GPU,\n"
                   "driver and CUDA versions, partition mode, and what was printed.\n")
    return "".join(out)


if __name__ == "__main__":
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    sys.stdout.write(page(read(sys.argv[1:] or sorted(glob.glob(root + "/docs/gpu-results/*.jsonl")))))
