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
sys.path[0] = str(ROOT / "test/http")
import models  # noqa: E402
from daemon import Daemon  # noqa: E402

REPEATS = 3
REQUESTS = 5
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
    run = subprocess.run([sys.executable, __file__, "--theirs", path], check=True, capture_output=True, text=True)
    return [int(n) for n in run.stdout.split()]


def serve_theirs(path):
    """In a process of its own."""
    import onnxruntime  # noqa: F401

    before = resident(os.getpid())
    session = models.reference.open_session(path)
    inputs = models.reference.make_inputs(session, 1)
    for _ in range(REQUESTS):
        models.reference.run(session, inputs)
    print(*(a - b for a, b in zip(resident(os.getpid()), before)))


def main():
    if sys.argv[1:2] == ["--theirs"]:
        return serve_theirs(sys.argv[2])
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
