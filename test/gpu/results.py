#!/usr/bin/python3
"""docs/gpu-results.md, from what run.sh has written.

    test/gpu/results.py --keep NAME OUT/results.jsonl...   after a run: docs/gpu-results/NAME.jsonl and the page
    test/gpu/results.py [RESULTS.jsonl...] >docs/gpu-results.md

NAME is of the machine, such as h200.  What its file has already stays where the run had no line of it: of
each case the newest line is kept, one that says "not run" never.  Of the parts with a line for each case of
test/ops a line for all that were right is kept, and those that were not.

What no line says, as why a version could not be run, is told in docs/gpu-results/notes.txt, which is on the page.

Without arguments the page is of docs/gpu-results/*.jsonl, of which there may be none.  Only the standard
library.
"""
import collections
import glob
import json
import os
import re
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
    ("ladder", "where a process dies, if one does: steps from opening the driver to a model of two segments, each a process of its own (`--first` begins with it)"),
    ("facts", "what a device is and how it can be cut, whether a daemon of MPS can be started and its contexts share "
              "memory, whether green contexts and graphs keep to their SMs; what contexts, launches, graphs, being told "
              "of an end, copies, the host's memory and a change of partitions take"),
    ("facts", "what priorities of streams do where models share a GPU (`partition-mode = shared`)", "streams: "),
    ("facts", "from which size on a copy is worth a stream of its own, what streams and handles take "
              "(16 MiB for each priority are kept for them)", ("streams: a run and", "streams: the smallest copy", "shared: a partition of one granule: memory")),
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
SOMETHING = """What a GPU has shown, of the version that each line names, and what none has been asked yet. What is tested without one
(`make check-cuda`): the real plug-in on a fake driver that keeps the driver's documented rules, and its
kernels compiled for the host.
"""
HOW = """`make gpu-bundle` makes the folder `build/gpu-bundle` and an archive of it (41 MB) for x86-64 Linux with glibc 2.36 or
newer and a driver; in it lies `run.sh` (`test/gpu/run.sh`), which looks for cuBLASLt and cuDNN there. It appends a line of JSON for each case to
OUT/results.jsonl; each part ends within nine minutes and goes on where it stopped when it is started again, and
`--left` says what is missing. `--first` takes a minute. The benches time PyTorch beside us where `python3` has it,
and name it as missing where not; `--part bench-all` sets bench-1 to bench-5 up at the same time; in what order and for how long
is told at the top of `bench.sh` and `bench_serve.sh`. Part http starts the daemon once in
each partition mode; one that cannot be had on that machine has a line with the reason, and is not validated.
`test/gpu/results.py --keep NAME OUT/results.jsonl` takes the lines to docs/gpu-results and makes this page of them.
"""
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FOLDER = os.path.join(ROOT, "docs", "gpu-results")
MANY = ("ops", "plain", "sanitize")  # parts with so many cases that those that are right are kept as one


# ---- lines

def not_run(r):
    return r["ok"] is None and r.get("text", "").startswith("not run")


def read(files):
    """part -> {case: its newest line}; one that was not run says nothing about what an earlier run found."""
    parts = collections.OrderedDict()
    for path in files:
        with open(path, encoding="utf-8") as f:
            for row in map(json.loads, f):
                cases = parts.setdefault(row["part"], collections.OrderedDict())
                old = cases.get(row["case"])
                if not old or not_run(old) or (not not_run(row) and row["date"] >= old["date"]):
                    cases[row["case"]] = row
    return parts


def condensed(part, cases):
    """The lines to keep."""
    rows = [r for r in cases.values() if not not_run(r) and (r["case"] != "(end)" or not r["ok"])]
    if part not in MANY:
        return rows
    count = collections.Counter()
    again = {r["commit"] for r in rows if "right" not in r}  # all of its lines are here: those that were counted, too
    for r in rows:
        if r["ok"] and not ("right" in r and r["commit"] in again):
            count[r["commit"], r["date"], r["gpu"]] += r.get("right", 1)
    return [{"commit": c, "date": d, "gpu": g, "part": part, "case": f"(all) at {c}", "ok": True, "right": n, "text": f"{n} cases"}
            for (c, d, g), n in count.items()] + [r for r in rows if not r["ok"]]


def keep(name, files):
    path = os.path.join(FOLDER, name + ".jsonl")
    os.makedirs(FOLDER, exist_ok=True)
    parts = read(([path] if os.path.exists(path) else []) + files)
    order = list(dict.fromkeys([p for p, *_ in PARTS] + list(parts)))
    with open(path, "w", encoding="utf-8") as f:
        for part in sorted(parts, key=order.index):
            f.writelines(json.dumps(r) + "\n" for r in condensed(part, parts[part]))


# ---- what was found, in words

def shown(text):
    return text.replace("|", "/").replace("<", "&lt;")


def machine(r):
    """What it is, and the mode."""
    what, mode = r["gpu"].rsplit(", ", 1) if "," in r["gpu"] else (r["gpu"], "")
    return what, mode


def verdict(cases):
    """One cell: when, what, where, and how many."""
    groups = collections.OrderedDict()
    for case, r in cases.items():
        if case != "(end)":
            what, mode = machine(r)
            groups.setdefault((r["date"], r["commit"], what.split(",")[0], mode), []).append(r)
    out = []
    for (date, commit, name, mode), told in sorted(groups.items(), reverse=True):
        text = shown(f"{date}, {commit}, {name}{', ' * bool(mode)}{mode}: ")
        right, wrong = sum(r.get("right", 1) for r in told if r["ok"]), sum(r["ok"] is False for r in told)
        left = sum(r["ok"] is None for r in told)
        if right + wrong == 0:
            text = f"**not validated**: {text}{shown(told[0].get('text', ''))}"
        else:
            text += f"{right} right" + (f", **{wrong} wrong**" if wrong else "") + (f", {left} not run" if left else "")
        out.append(text)
    return "; ".join(out) or "never"


def table(titles, rows):
    if not rows:
        return []
    return ["\n| " + " | ".join(titles) + " |\n" + "| --- " * len(titles) + "|\n"] + ["| " + " | ".join(r) + " |\n" for r in rows]


def listing(title, rows):
    return [f"\n## {title}\n\n"] + [f"- {r}\n" for r in rows] if rows else []


# ---- benches
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


BENCHED, BATCHES = ["resnet50", "mobilenet_v2", "vgg19", "bert-base", "gpt2-small"], [1, 8, 32, 128]  # of bench.sh
TORCH = ["torch eager", "torch graphs", "torch compile"]


def best(ways):
    """PyTorch's fastest way, and its name."""
    have = [(ways[w]["value"], w) for w in TORCH if "value" in ways.get(w, {})]
    return f"{us(ways[min(have)[1]])}, {min(have)[1].split()[1]}" if have else "-"


def bench_row(model, batch, ways):
    ours = ways.get("graphs")
    cells = [model, str(batch)] + [us(ways.get(w)) for w in ["graphs", "unfused", "eager", "served"]]
    cells += [best(ways), beside(ours, [ways[w] for w in TORCH if "value" in ways.get(w, {})])]
    return cells + of_floor(ours, ways.get("roofline", {}))


def bench_sizes(rows):
    """How long on so many SMs, and what an SM does there beside one of the whole device."""
    found = [(m, b, ways["by size"]) for (m, b), ways in rows.items() if "sizes" in ways.get("by size", {})]
    sizes = sorted({n for _, _, r in found for n, _ in r["sizes"]})
    out = [[m, str(b)] + [f"{dict(map(tuple, r['sizes']))[n] / 1000:.3g}" if n in dict(map(tuple, r["sizes"])) else "-" for n in sizes] +
           [f"{r['value']:.2f} ({r['best_units']} SMs)"] for m, b, r in found]
    return ["\n### On a gpu-let\n\nMilliseconds on so many SMs; the last column: the most rows a second and SM, over those on all SMs.\n"] + table(
        ["model", "batch"] + [f"{n} SMs" for n in sizes] + ["best SM"], out) if found else []


def bench_tables(newest):
    """Of the parts bench-1 to bench-5."""
    rows, cases = collections.OrderedDict(), [r for p in sorted(newest) if re.fullmatch(r"bench-\d", p) for r in newest[p].values()]
    for r in cases:
        if r["ok"] and "way" in r:
            rows.setdefault((r["model"], r["batch"]), {})[r["way"]] = r
    rows = collections.OrderedDict((k, w) for k, w in rows.items() if "graphs" in w or "by size" in w)
    if not rows:
        return []
    models = list(dict.fromkeys(m for m, _ in rows))
    rows = collections.OrderedDict(sorted(rows.items(), key=lambda kv: (models.index(kv[0][0]), kv[0][1])))
    of = next((r["precision"] for r in cases if "precision" in r), "fp16")
    turns = max([len(w["graphs"]["turns"]) for w in rows.values() if "graphs" in w] or [0])
    out = [f"\n## Speed of models\n\nIn {of}, milliseconds: the median of up to {turns} turns, and the ends. *Graphs*: launches captured, as they are served; *not fused*: "
           "the file's nodes; *one by one*: launches without graphs; *served*: from submit to its end being told, with copies. "
           "The last columns are shares: of the rate of large products, and of our time the floor of all nodes, each by "
           "itself, and of all of them as one.\n"]
    out += table(["model", "batch", "graphs", "not fused", "one by one", "served", "PyTorch's best way", "graphs over that",
                  "rate of products", "floor of nodes", "floor of all"],
                 [bench_row(m, b, w) for (m, b), w in rows.items() if "graphs" in w])
    for part, model in enumerate(BENCHED, 1):
        left = [str(b) for b in BATCHES if (model, b) not in rows or "graphs" not in rows[model, b]]
        out += [f"\nNot measured: {model} at batch {', '.join(left)}: `{COMMAND}bench-{part}`\n"] if left else []
    why = sorted({f"{r['way']}: {shown(r['text'])}" for r in cases if r.get("way") in TORCH and r["ok"] and "value" not in r})
    return out + [f"\n{w}\n" for w in why] + bench_sizes(rows)


def serve_table(part, cases):
    """Of bench-serve-N, bench-modes, bench-alone and bench-kernels: what is not a turn."""
    if re.fullmatch(r"bench-\d", part):
        return []
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


# ---- facts: a table for each topic, and one across where a number is in the names of cases
TOPICS = {"links": "Copies and the host's memory", "streams": "Streams", "green contexts": "Green contexts", "graphs": "Launches and graphs",
          "capped contexts": "Contexts of MPS with a cap"}
ACROSS = {"streams": (r"a run and its copy of (\d+) KiB, (.*)", "copy, KiB"),
          "graphs": (r"(?:a graph of )?(\d+) kernels:? (.*)", "kernels"),
          "capped contexts": (r"a context with a cap of (\d+) SMs(?:: (.*))?", "cap of SMs")}


def short(text):
    return shown(re.sub(r", \d+ times\)$", ")", text))


def crossed(found, first):
    """found: (row, column, text)."""
    columns, lines = list(dict.fromkeys(c for _, c, _ in found)), list(dict.fromkeys(r for r, _, _ in found))
    cells = {(r, c): short(t) for r, c, t in found}
    return table([first] + columns, [[r] + [cells.get((r, c), "-") for c in columns] for r in lines])


def facts(cases):
    by_topic = collections.OrderedDict()
    for case, r in cases.items():
        if r["ok"] and ": " in case:
            topic, what = case.split(": ", 1)
            by_topic.setdefault(topic, []).append((what, r["text"]))
    out = ["\n## Facts about the device\n"] if by_topic else []
    for topic in (t for t in by_topic if t in TOPICS):
        pattern, first = ACROSS.get(topic, ("$.", ""))
        match = [(re.fullmatch(pattern, what), what, text) for what, text in by_topic[topic]]
        out.append(f"\n### {TOPICS[topic]}\n")
        out += table(["of", "found"], [[shown(what), short(text)] for m, what, text in match if not m])
        out += crossed([(m[1], m[2] or "is", text) for m, _, text in match if m], first)
    modes = [(what, topic, text) for topic in by_topic if topic in MODES for what, text in by_topic[topic] if text]
    none = [f"\n{mode}: {what}: {shown(text)}\n" for what, mode, text in modes if what == "cannot be had"]
    if modes:
        out.append("\n### Partitions by mode\n\nA re-cut is of a small model, all of which is compiled anew.\n")
        out += crossed([m for m in modes if m[0] != "cannot be had"], "of")
    return out + none


def models(cases):
    """How far a model's outputs are off, the farthest of them."""
    found = []
    for case, r in cases.items():
        m = re.fullmatch(r"(.*) on cuda, (.*)", case)
        off = [float(x) for x in re.findall(r"off by ([\d.e+-]+)", r.get("text", ""))]
        if m and off:
            found.append((m[1], m[2], f"{max(off):.2g}" if r["ok"] else f"**{max(off):.2g}**"))
    return ["\n## Models\n\nThe largest difference from the cpu backend in fp32, over the largest magnitude of that output.\n"] + crossed(
        found, "model") if found else []


def http(cases):
    return table(["the daemon", "found"], [[shown(c), shown(r["text"])] for c, r in cases.items() if r["ok"] and r.get("text")])


def page(newest):
    out = ["# Results on GPUs\n\n", SOMETHING if newest else NOTHING]
    on = sorted({machine(r)[0] for cases in newest.values() for r in cases.values()})
    out += ["\nMachines:\n\n"] + [f"- {shown(m)}\n" for m in on] if on else []
    notes = os.path.join(FOLDER, "notes.txt")
    if newest and os.path.exists(notes):
        with open(notes, encoding="utf-8") as f:
            out += ["\n", f.read()]
    rows = []
    for part, what, *prefix in PARTS:
        cases = {c: r for c, r in newest.get(part, {}).items() if c.startswith(*prefix or ("",))}
        rows.append([what, verdict(cases), f"`{COMMAND}{part}`"])
    out += table(["what", "validated", "with"], rows + [[what, "never", "not there yet"] for what in NOT_YET])
    out += ["\n", HOW]
    every = [(p, case, r) for p in dict.fromkeys(p for p, *_ in PARTS) for case, r in newest.get(p, {}).items()]
    out += listing("Wrong", [f"{p}, {shown(c)}: {shown(r.get('text', ''))} ({r['commit']})" for p, c, r in every if r["ok"] is False and c != "(end)"])
    out += listing("Not validated", [f"{p}, {shown(c)}: {shown(r['text'])}: `{COMMAND}{p}`" for p, c, r in every if r["ok"] is None])
    out += bench_tables(newest)
    for part in sorted(p for p in newest if p.startswith("bench-")):
        out += serve_table(part, newest[part])
    out += models(newest.get("models", {}))
    served = http(newest.get("http", {}))
    out += ["\n## The daemon in each mode\n"] + served if served else []
    out += facts(newest.get("facts", {}))
    if not newest:
        out.append("\nWhen there is something to validate, this page will hold, for each machine on which it ran: date, GPU,\n"
                   "driver and CUDA versions, partition mode, and what was printed.\n")
    return "".join(out)


def main(args):
    if args[:1] == ["--keep"]:
        if len(args) < 3:
            sys.exit(__doc__)
        keep(args[1], args[2:])
        with open(os.path.join(ROOT, "docs", "gpu-results.md"), "w", encoding="utf-8") as f:
            f.write(page(read(sorted(glob.glob(FOLDER + "/*.jsonl")))))
    else:
        sys.stdout.write(page(read(args or sorted(glob.glob(FOLDER + "/*.jsonl")))))


if __name__ == "__main__":
    main(sys.argv[1:])
