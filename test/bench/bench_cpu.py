#!/usr/bin/env python3
"""This engine beside ONNX Runtime on the same cores.

    bench_cpu.py BUILD [--model NAME]... [--batch N]... [--cores N]... [--models DIR] [--json FILE]
    bench_cpu.py --table FILE...

Each in a process of its own, pinned to the same cores, one thread a core, taking turns in the
order A-B-B-A: a round.  A round's ratio is ours / ONNX Runtime's; there are at least 7, and more
until the 95 % interval of their geometric mean is at most 5 % wide to either side, or 40.  ONNX
Runtime optimises as much as it can and writes into outputs that are bound once.  Outputs are
compared before anything is timed.  Models are exported into DIR (build/bench-models) when they
are not there.  --json appends a line for each point; --table joins such files."""
import argparse
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
    """A turn: as many runs as fill it, the first not counted."""
    time.sleep(REST_S)
    side.turn(1)
    return side.turn(side.runs)


def interval(logs):
    """Geometric mean, lower and upper bound."""
    mean, n = np.mean(logs), len(logs)
    half = T975[min(n - 2, len(T975) - 1)] * np.std(logs, ddof=1) / math.sqrt(n)
    return [math.exp(x) for x in (mean, mean - half, mean + half)]


def abba(a, b):
    """The ratio a / b with its interval, rounds, and both medians in ms."""
    for side in (a, b):
        side.turn(1)
        side.runs = max(1, min(1000, round(TURN_S * 1e9 / side.turn(1))))
    logs, times = [], [[], []]
    while len(logs) < ROUNDS_MAX:
        a1, b1, b2, a2 = measured(a), measured(b), measured(b), measured(a)
        logs.append(math.log((a1 + a2) / (b1 + b2)))
        times[0] += [a1, a2]
        times[1] += [b1, b2]
        if len(logs) >= ROUNDS:
            mean, low, high = interval(logs)
            if max(mean - low, high - mean) <= HALF_WIDTH * mean:
                break
    return interval(logs), len(logs), [float(np.median(t)) / 1e6 for t in times]


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


def point(build, models, name, batch, cores):
    folder, path = exported(models, name)
    inputs = make_inputs(path, name, batch)
    os.sched_setaffinity(0, CORES[-cores:])
    theirs = Theirs(path, inputs, cores)
    ours = Ours(build, folder, inputs, name, batch, cores)
    error = check(folder, theirs)
    (ratio, low, high), rounds, (a, b) = abba(ours, theirs)
    ours.close()
    peak = kib("VmHWM") - theirs.idle
    return dict(kind="ratio", model=name, batch=batch, cores=cores, ratio=ratio, low=low, high=high, rounds=rounds,
                ours_ms=a, theirs_ms=b, error=error, ours_mib=ours.peak / 1024, theirs_mib=peak / 1024)  # fmt: skip


def wide(build, models, name, batch):
    """Throughput: two gpu-lets of one core each / one of two."""
    folder, path = exported(models, name)
    inputs = make_inputs(path, name, batch)
    one = Ours(build, folder, inputs, name, batch, 2)
    two = Ours(build, folder, inputs, name, batch, 1, parts=2)
    (ratio, low, high), rounds, (a, b) = abba(one, two)
    one.close()
    two.close()
    return dict(kind="wide", model=name, batch=batch, ratio=ratio, low=low, high=high, rounds=rounds,
                one_per_s=1e3 * batch / a, two_per_s=1e3 * batch / b)  # fmt: skip


def show(r):
    if r["kind"] == "wide":
        print(f"{r['model']:16}{r['batch']:3}   two narrow / one wide {r['ratio']:.3f} [{r['low']:.3f} {r['high']:.3f}]"
              f" {r['rounds']:3} rounds {r['two_per_s']:9.1f} {r['one_per_s']:9.1f} rows/s", flush=True)  # fmt: skip
        return
    print(f"{r['model']:16}{r['batch']:3}{r['cores']:3}  {r['ratio']:.3f} [{r['low']:.3f} {r['high']:.3f}]"
          f" {r['rounds']:3} rounds {r['ours_ms']:9.3f} {r['theirs_ms']:9.3f} ms"
          f"  peak {r['ours_mib']:6.0f} {r['theirs_mib']:6.0f} MiB  error {r['error']:.1e}", flush=True)  # fmt: skip


def in_child(kind, a, name, batch, cores):
    """Each point in a fresh process: memory is counted from idle, and nothing is left pinned."""
    command = [sys.executable, __file__, a.build, "--models", str(a.models), "--one", f"{kind},{name},{batch},{cores}"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        print(f"{name} batch {batch}, {cores} cores: failed", flush=True)
        return
    line = run.stdout.strip().splitlines()[-1]
    if a.json:
        with a.json.open("a") as f:
            f.write(line + "\n")
    show(json.loads(line))


def table(files):
    """The last measurement of each point, and the geometric mean."""
    points = {}
    for f in files:
        for line in f.read_text().splitlines():
            r = json.loads(line)
            points[r["kind"], r["model"], r["batch"], r.get("cores", 2)] = r
    ratios = [r for r in points.values() if r["kind"] == "ratio"]
    print("| model | batch | cores | ours ms | ONNX Runtime ms | ratio | 95 % | rounds | peak MiB | theirs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    order = {m: i for i, m in enumerate(MODELS)}
    for r in sorted(ratios, key=lambda r: (order[r["model"]], r["batch"], r["cores"])):
        print(f"| {r['model']} | {r['batch']} | {r['cores']} | {r['ours_ms']:.3f} | {r['theirs_ms']:.3f} | "
              f"{r['ratio']:.3f} | {r['low']:.3f} to {r['high']:.3f} | {r['rounds']} | {r['ours_mib']:.0f} | "
              f"{r['theirs_mib']:.0f} |")  # fmt: skip
    mean = math.exp(np.mean([math.log(r["ratio"]) for r in ratios])) if ratios else math.nan
    print(f"\nGeometric mean of {len(ratios)} points: {mean:.3f}")
    narrow = [r for r in points.values() if r["kind"] == "wide"]
    if narrow:
        print("\n| model | batch | two of one core, rows/s | one of two cores | two / one | 95 % |")
        print("| --- | --- | --- | --- | --- | --- |")
    for r in sorted(narrow, key=lambda r: (order[r["model"]], r["batch"])):
        print(f"| {r['model']} | {r['batch']} | {r['two_per_s']:.1f} | {r['one_per_s']:.1f} | {r['ratio']:.3f} | "
              f"{r['low']:.3f} to {r['high']:.3f} |")  # fmt: skip


CORES = sorted(os.sched_getaffinity(0))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build", nargs="?")
    p.add_argument("--model", action="append", choices=MODELS)
    p.add_argument("--batch", action="append", type=int)
    p.add_argument("--cores", action="append", type=int)
    p.add_argument("--models", type=pathlib.Path)
    p.add_argument("--json", type=pathlib.Path)
    p.add_argument("--wide", action="store_true", help="two gpu-lets of one core beside one of two instead")
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
    a.models = a.models or pathlib.Path(a.build) / "bench-models"
    if a.one:
        kind, name, batch, cores = a.one.split(",")
        build = pathlib.Path(a.build)
        run = wide(build, a.models, name, int(batch)) if kind == "wide" else point(
            build, a.models, name, int(batch), int(cores))  # fmt: skip
        return print(json.dumps(run))
    for name in a.model or MODELS:
        for batch in a.batch or [1, 8]:
            for cores in [2] if a.wide else a.cores or [1, 2]:
                in_child("wide" if a.wide else "ratio", a, name, batch, cores)


if __name__ == "__main__":
    main()
