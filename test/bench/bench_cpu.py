#!/usr/bin/env python3
"""This engine beside ONNX Runtime on the same cores.

    bench_cpu.py BUILD [--model NAME]... [--batch N]... [--cores N]... [--kind ratio|wide]
                 [--models DIR] [--json FILE [--seconds S]]
    bench_cpu.py BUILD --profile [--model NAME]... [--batch N]... [--models DIR]
    bench_cpu.py --table FILE...

Each in a process of its own, pinned to the same cores, one thread a core, taking turns in the
order A-B-B-A: a round.  A round's ratio is ours / ONNX Runtime's; there are at least 7, and more
until the 95 % interval of their geometric mean is at most 5 % wide to either side, or 40.  ONNX
Runtime optimises as much as it can and writes into outputs that are bound once.  Outputs are
compared before anything is timed.  Models are exported into DIR (build/bench-models) when they
are not there.

--json appends a line for each point, with date, machine and commit.  Points whose interval is narrow
enough there, of this machine and this commit, are not measured again, and rounds of the others
count: the same command goes on where the last one was cut off, by --seconds (of measuring) or by
a signal.  --table prints what such files have together, of the machine and the commit that came
last.

--profile prints on one core where each of the two spends its time, by kind of operator."""
import argparse
import collections
import datetime
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "models"))
import reference  # noqa: E402

MODELS = [
    "resnet50", "mobilenet_v2", "vgg19", "alexnet", "densenet121", "inception_v3", "squeezenet",
    "shufflenet_v2", "efficientnet_b0", "bert-base", "gpt2-small",
]  # fmt: skip
LENGTH = {"bert-base": 128, "gpt2-small": 64}
ROUNDS, ROUNDS_MAX, HALF_WIDTH = 7, 40, 0.05
TURN_S = 0.1  # of timed runs in a turn
REST_S = 0.02  # the other side's threads stop spinning
PROFILE_RUNS = 15
# Student's t, 97.5 %, by degrees of freedom from 1 on; beyond: normal enough
T975 = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
        2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04]  # fmt: skip


def kib(which):
    return int(re.search(rf"^{which}:\s+(\d+)", pathlib.Path("/proc/self/status").read_text(), re.M)[1])


class Theirs:
    def __init__(self, path, inputs, cores):
        import onnxruntime as ort

        self.idle = kib("VmRSS")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = cores
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.outputs = reference.run(self.session, inputs)
        self.io = self.session.io_binding()
        for name, x in inputs.items():
            self.io.bind_cpu_input(name, x)
        for name, y in self.outputs.items():
            self.io.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(y))

    def turn(self, n):
        ns = []
        for _ in range(n):
            start = time.perf_counter_ns()
            self.session.run_with_iobinding(self.io)
            ns.append(time.perf_counter_ns() - start)
        return sorted(ns)[n // 2]


class Ours:
    def __init__(self, build, folder, inputs, name, batch, cores, parts=1, precision="fp32"):
        files = []
        for i, x in enumerate(inputs.values()):
            files.append(folder / f"in-{i}.raw")
            x.tofile(files[-1])
        other = ["-f", str(LENGTH[name])] if name in LENGTH else []
        command = [build / "test/bench/bench_model", "-t", "-b", str(batch), "-g", str(cores), "-p", str(parts),
                   "-P", precision]  # fmt: skip
        self.process = subprocess.Popen(
            [*command, *other, folder, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = ""
        while not line.startswith("ready"):
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit(f"bench_cpu.py: {name}: bench_model ended")
        self.peak = int(re.search(r"peak (\d+)", line)[1])

    def turn(self, n):
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measured(side):
    """A turn: as many runs as fill it, the first not counted unless it is long."""
    time.sleep(REST_S)
    if side.runs > 1:
        side.turn(1)
    return side.turn(side.runs)


def interval(logs):
    """Geometric mean, lower and upper bound."""
    mean, n = np.mean(logs), len(logs)
    half = T975[min(n - 2, len(T975) - 1)] * np.std(logs, ddof=1) / math.sqrt(n) if n > 1 else math.inf
    return [math.exp(min(x, 99)) for x in (mean, mean - half, mean + half)]


def is_narrow(logs):
    if len(logs) < ROUNDS:
        return False
    mean, low, high = interval(logs)
    return max(mean - low, high - mean) <= HALF_WIDTH * mean


def abba(a, b, before, until):
    """What is known of a / b: each round's logarithm and times in ms, those before included."""
    known = before or dict(logs=[], a_ms=[], b_ms=[])
    for side in (a, b):
        side.turn(1)
        side.runs = max(1, min(1000, round(TURN_S * 1e9 / side.turn(1))))
    most = len(known["logs"]) + ROUNDS_MAX
    while len(known["logs"]) < most and not is_narrow(known["logs"]) and time.time() < until:
        a1, b1, b2, a2 = measured(a), measured(b), measured(b), measured(a)
        known["logs"].append(math.log((a1 + a2) / (b1 + b2)))
        known["a_ms"] += [a1 / 1e6, a2 / 1e6]
        known["b_ms"] += [b1 / 1e6, b2 / 1e6]
    return known


def exported(models, name):
    """The folder that bench_model reads, and the file."""
    path = models / f"{name}.onnx"
    if not path.exists():
        subprocess.run([sys.executable, ROOT / "test/models/export.py", models, name], check=True, stdout=sys.stderr)
    folder = models / name
    folder.mkdir(exist_ok=True)
    link = folder / "model.onnx"
    if not link.exists():
        os.link(path, link)
    return folder, path


def make_inputs(path, name, batch):
    """In another process: a session that was here before would hide what the measured one takes."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "in.npz"
        command = [sys.executable, __file__, "--inputs", f"{path},{LENGTH.get(name, 0)},{batch},{out}"]
        subprocess.run(command, check=True)
        return dict(np.load(out))


def write_inputs(path, length, batch, out):
    reference.OTHER_FREE = int(length)
    np.savez(out, **reference.make_inputs(reference.open_session(path), int(batch)))


def check(folder, theirs):
    ours = {}
    for i, (name, y) in enumerate(theirs.outputs.items()):
        ours[name] = np.fromfile(folder / f"out-{i}.raw", y.dtype).reshape(y.shape)
    return reference.compare(ours, theirs.outputs)


def point(build, models, name, batch, cores, before, until):
    folder, path = exported(models, name)
    inputs = make_inputs(path, name, batch)
    os.sched_setaffinity(0, CORES[-cores:])
    theirs = Theirs(path, inputs, cores)
    ours = Ours(build, folder, inputs, name, batch, cores)
    error = check(folder, theirs)
    rounds = abba(ours, theirs, before, until)
    ours.close()
    peak = kib("VmHWM") - theirs.idle
    return dict(error=error, ours_mib=ours.peak / 1024, theirs_mib=peak / 1024, **rounds)


def wide(build, models, name, batch, before, until):
    """Throughput: two gpu-lets of one core each / one of two."""
    folder, path = exported(models, name)
    inputs = make_inputs(path, name, batch)
    one = Ours(build, folder, inputs, name, batch, 2)
    two = Ours(build, folder, inputs, name, batch, 1, parts=2)
    rounds = abba(one, two, before, until)
    one.close()
    two.close()
    return rounds


def show(r):
    ratio, low, high = interval(r["logs"])
    text = f"{ratio:.3f} [{low:.3f} {high:.3f}] {len(r['logs']):3} rounds"
    ours, other = np.median(r["a_ms"]), np.median(r["b_ms"])
    if r["kind"] == "wide":
        print(f"{r['model']:16}{r['batch']:3}   two narrow / one wide {text}"
              f" {1e3 * r['batch'] / other:9.1f} {1e3 * r['batch'] / ours:9.1f} rows/s", flush=True)  # fmt: skip
        return
    print(f"{r['model']:16}{r['batch']:3}{r['cores']:3}  {text} {ours:9.3f} {other:9.3f} ms"
          f"  peak {r['ours_mib']:6.0f} {r['theirs_mib']:6.0f} MiB  error {r['error']:.1e}", flush=True)  # fmt: skip


# ---- points in files


def machine():
    """What a ratio is of: it is not compared with one of another machine or another tree."""
    cpu = dict(re.findall(r"^([^:\t]+)\s*: *(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M))
    family = f"family {cpu.get('cpu family', '?')} model {cpu.get('model', '?')}"
    commit = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude", "*"]
    tree = subprocess.run(commit, stdout=subprocess.PIPE, text=True).stdout.strip()
    return dict(machine=f"{cpu.get('model name', '?')} ({family}), {len(CORES)} cores", commit=tree or "?")


def place(r):
    return r["machine"], r["commit"]


def key(r):
    return r["kind"], r["model"], r["batch"], r["cores"]


def read_points(files):
    """All lines in order; the last one of a point holds all its rounds."""
    return [json.loads(line) for f in files if f.exists() for line in f.read_text().splitlines()]


def in_child(r, a, before, until):
    """Each point in a fresh process: memory is counted from idle, and nothing is left pinned."""
    say = f"{r['model']} batch {r['batch']}, {r['cores']} cores"
    command = [sys.executable, __file__, a.build, "--models", str(a.models), "--one", json.dumps(
        dict(r, before=before and {k: before[k] for k in ("logs", "a_ms", "b_ms")}, until=until))]  # fmt: skip
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        print(f"{say}: failed", flush=True)
        return
    r = dict(r, **json.loads(run.stdout.strip().splitlines()[-1]))
    if not r["logs"]:
        return
    if a.json:
        with a.json.open("a") as f:
            f.write(json.dumps(r) + "\n")
    show(r)


def one(build, models, r):
    before, until = r["before"], r["until"]
    if r["kind"] == "wide":
        return wide(build, models, r["model"], r["batch"], before, until)
    return point(build, models, r["model"], r["batch"], r["cores"], before, until)


def measure(a):
    """The points that are asked for and not known well enough; how many of them are left."""
    until = time.time() + a.seconds if a.seconds else math.inf
    here = machine()
    known = {key(r): r for r in read_points([a.json] if a.json else []) if place(r) == place(here)}
    points = []
    for kind in a.kind or ["ratio", "wide"]:
        for name in a.model or MODELS:
            for batch in a.batch or [1, 8]:
                for cores in [2] if kind == "wide" else a.cores or [1, 2]:
                    points.append(dict(kind=kind, model=name, batch=batch, cores=cores))
    left = [r for r in points if not is_narrow(known.get(key(r), r).get("logs", []))]
    for r in left:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        if time.time() < until:
            in_child(dict(r, date=now, **here), a, known.get(key(r)), min(until, 1e18))
    if a.json and left:
        known = {key(r): r for r in read_points([a.json]) if place(r) == place(here)}
        n = sum(not is_narrow(known.get(key(r), r).get("logs", [])) for r in points)
        print(f"{n} of {len(points)} points are left to measure")


def table(files):
    """The last measurement of each point of one machine and one commit, and the geometric mean."""
    lines = read_points(files)
    if not lines:
        raise SystemExit("bench_cpu.py: no points")
    points = {key(r): r for r in lines if place(r) == place(lines[-1])}
    others = collections.Counter(place(r) for r in lines if place(r) != place(lines[-1]))
    order = {m: i for i, m in enumerate(MODELS)}
    points = sorted(points.values(), key=lambda r: (order[r["model"]], r["batch"], r["cores"]))
    ratios, narrow = ([r for r in points if r["kind"] == kind] for kind in ("ratio", "wide"))
    dates = [r["date"] for r in points]
    print(f"{lines[-1]['machine']}; commit {lines[-1]['commit']}; {min(dates)} to {max(dates)}\n")
    print("| model | batch | cores | ours ms | ONNX Runtime ms | ratio | 95 % | rounds | peak MiB | theirs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in ratios:
        ratio, low, high = interval(r["logs"])
        print(f"| {r['model']} | {r['batch']} | {r['cores']} | {np.median(r['a_ms']):.3f} | "
              f"{np.median(r['b_ms']):.3f} | {ratio:.3f} | {low:.3f} to {high:.3f} | {len(r['logs'])} | "
              f"{r['ours_mib']:.0f} | {r['theirs_mib']:.0f} |")  # fmt: skip
    print(f"\nGeometric mean of {len(ratios)} points: {math.exp(np.mean([np.mean(r['logs']) for r in ratios])):.3f}"
          if ratios else "\nNo ratios")  # fmt: skip
    wider = [f"{r['model']} batch {r['batch']} on {r['cores']}" for r in ratios if not is_narrow(r["logs"])]
    if wider:
        print(f"Half-width over {HALF_WIDTH:.0%}: {', '.join(wider)}")
    if narrow:
        print("\n| model | batch | two of one core, rows/s | one of two cores | two / one | 95 % |")
        print("| --- | --- | --- | --- | --- | --- |")
    for r in narrow:
        ratio, low, high = interval(r["logs"])
        per_s = [1e3 * r["batch"] / np.median(r[side]) for side in ("b_ms", "a_ms")]
        print(f"| {r['model']} | {r['batch']} | {per_s[0]:.1f} | {per_s[1]:.1f} | {ratio:.3f} | {low:.3f} to {high:.3f} |")
    for (where, commit), n in others.items():
        print(f"Left out: {n} of {where}, commit {commit}")


# ---- where the time goes


def their_profile(path, name, batch):
    """Microseconds and nodes of a run by operator, from ONNX Runtime's own profile."""
    import onnxruntime as ort

    inputs = make_inputs(path, name, batch)
    os.sched_setaffinity(0, CORES[-1:])
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/ort"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(PROFILE_RUNS + 1):
            session.run(None, inputs)
        events = json.loads(pathlib.Path(session.end_profiling()).read_text())
    us = collections.defaultdict(list)
    for e in events:
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
            us[e["args"]["op_name"], e["args"]["node_index"]].append(e["dur"])
    kinds = collections.defaultdict(list)
    for (op, _), durations in us.items():
        kinds[op].append(float(np.median(durations[1:])))
    return kinds


def our_profile(build, path, name, batch):
    """The same of our steps by operator and implementation."""
    command = ["taskset", "-c", str(CORES[-1]), build / "gpuletctl", "profile", path, "--steps", "--json"]
    command += ["--batch", str(batch), *(["--dim", str(LENGTH[name])] if name in LENGTH else [])]
    steps = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)["by_step"]
    kinds = collections.defaultdict(list)
    for s in steps:
        kinds[f"{s['operator']}, {s['implementation']}"].append(s["us"])
    return kinds


def profile(a):
    for name in a.model or MODELS:
        for batch in a.batch or [1, 8]:
            _, path = exported(a.models, name)
            sides = [our_profile(pathlib.Path(a.build), path, name, batch), their_profile(path, name, batch)]
            for title, kinds in zip(("ours", "ONNX Runtime"), sides):
                total = sum(sum(us) for us in kinds.values())
                print(f"{name} batch {batch}, one core: {title} {total:.0f} us")
                for kind, us in sorted(kinds.items(), key=lambda k: -sum(k[1])):
                    print(f"  {sum(us):10.0f} us {100 * sum(us) / total:5.1f} %  {len(us):4} x {kind}")
            print(flush=True)


CORES = sorted(os.sched_getaffinity(0))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build", nargs="?")
    p.add_argument("--model", action="append", choices=MODELS)
    p.add_argument("--batch", action="append", type=int)
    p.add_argument("--cores", action="append", type=int)
    p.add_argument("--models", type=pathlib.Path)
    p.add_argument("--json", type=pathlib.Path)
    p.add_argument("--seconds", type=float, help="begin no further round after so many")
    p.add_argument("--kind", action="append", choices=["ratio", "wide"],
                   help="wide: two gpu-lets of one core beside one of two; both when not given")  # fmt: skip
    p.add_argument("--profile", action="store_true")
    p.add_argument("--table", nargs="+", type=pathlib.Path)
    p.add_argument("--one", help=argparse.SUPPRESS)
    p.add_argument("--inputs", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.table:
        return table(a.table)
    if a.inputs:
        return write_inputs(*a.inputs.split(","))
    if not a.build:
        p.error("the build folder is needed")
    if a.seconds and not a.json:
        p.error("--seconds needs --json: a point that is cut off goes on from there")
    a.models = a.models or pathlib.Path(a.build) / "bench-models"
    if a.one:
        return print(json.dumps(one(pathlib.Path(a.build), a.models, json.loads(a.one))))
    return profile(a) if a.profile else measure(a)


if __name__ == "__main__":
    main()
