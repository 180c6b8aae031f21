#!/usr/bin/env python3
"""Resident memory of a model in service: gpuletd above its idle self, and ONNX Runtime above an
idle interpreter that has imported it.

    BUILD=build memory.py [MODEL]       resnet50 unless said; exported on the spot

Both serve batch 1 and have answered a few requests.  Rss counts every resident page, Pss-Anon
only what the kernel cannot drop: mapped weights are in the first and not in the second."""
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test/http"))
import models  # noqa: E402
from daemon import Daemon  # noqa: E402

REPEATS = 3
REQUESTS = 5
THEIRS = """
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy, onnxruntime, reference
from memory import resident
before = resident(os.getpid())
session = reference.open_session(sys.argv[2])
inputs = reference.make_inputs(session, 1)
for _ in range(int(sys.argv[3])):
    reference.run(session, inputs)
after = resident(os.getpid())
print(after[0] - before[0], after[1] - before[1])
"""


def resident(pid):
    """(Rss, anonymous) in KiB"""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return [int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) for name in ("Rss", "Anonymous")]


def ours(path):
    with tempfile.TemporaryDirectory() as folder:
        d = Daemon(folder, backend="cpu").start()
        before = resident(d.process.pid)
        d.put("m", path.read_bytes(), "?max_batch=1")
        inputs = models.reference.make_inputs(models.reference.open_session(path), 1)
        for _ in range(REQUESTS):
            d.infer_binary("m", inputs)
        after = resident(d.process.pid)
        d.stop()
        return [a - b for a, b in zip(after, before)]


def theirs(path):
    env = dict(os.environ, PYTHONPATH=str(ROOT / "test/bench"))
    args = [sys.executable, "-c", THEIRS, str(ROOT / "test/models"), str(path), str(REQUESTS)]
    return [int(n) for n in subprocess.run(args, check=True, capture_output=True, text=True, env=env).stdout.split()]


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "resnet50"
    path = models.exported(name)
    rows = [(ours(path), theirs(path)) for _ in range(REPEATS)]
    print(f"{name}, batch 1: MiB above idle, median of {REPEATS}")
    print(f"{'':12}{'gpuletd':>10}{'ONNX Runtime':>15}{'ratio':>8}")
    for i, what in enumerate(("resident", "anonymous")):
        a, b = (statistics.median(r[k][i] for r in rows) / 1024 for k in (0, 1))
        print(f"{what:12}{a:10.1f}{b:15.1f}{a / b:8.2f}")


if __name__ == "__main__":
    main()
