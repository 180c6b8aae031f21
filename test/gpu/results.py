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
]
NOT_YET = [
    "what neighbours do to each other while a plan changes ([ADR 12](adr/0012-green-partitions-overlap.md))",
    "speed",
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
HOW = """`make gpu-bundle` makes the folder `build/gpu-bundle` and an archive of it (38 MB) for x86-64 Linux with glibc 2.36 or
newer and a driver; in it lies `run.sh` (`test/gpu/run.sh`), which looks for cuBLASLt and cuDNN there. It appends a line of JSON for each case to
OUT/results.jsonl; each part ends within nine minutes and goes on where it stopped when it is started again, and
`--left` says what is missing. `--first` takes a minute. Part http starts the daemon once in each partition mode; one that
cannot be had on that machine has a line with the reason, and is not validated. The lines go to a file in docs/gpu-results, and
`test/gpu/results.py >docs/gpu-results.md` makes this page of them.
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
