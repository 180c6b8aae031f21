#!/usr/bin/env python3
"""bf16 and int8 beside our own fp32, and int8 beside ONNX Runtime's, on one core.

    bench_precision.py BUILD [--model NAME]... [--batch N]... [--models DIR] [--prepare]

int8 runs the model as onnxruntime.quantization makes it (static, QDQ, by channel, calibrated with
seeded inputs; of BERT MatMul and Gemm), ONNX Runtime the same file.  Rounds are those of
bench_cpu.py.  --prepare only makes the models."""
import argparse
import math
import os
import pathlib
import sys

import numpy as np

import bench_cpu
from bench_cpu import LENGTH, Ours, Theirs, abba, exported, interval, make_inputs

MODELS = ["resnet50", "mobilenet_v2", "bert-base"]
CALIBRATIONS = 4


def quantised(models, name):
    """The folder and file of the model with QuantizeLinear and DequantizeLinear."""
    folder, path = models / f"{name}-qdq", models / f"{name}-qdq.onnx"
    if not path.exists():
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        plain = exported(models, name)[1]

        class Reader(CalibrationDataReader):
            def __init__(self):
                self.left = iter(range(CALIBRATIONS))

            def get_next(self):
                return None if next(self.left, None) is None else make_inputs(plain, name, 1)

        types = ["MatMul", "Gemm"] if name in LENGTH else None
        quantize_static(plain, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                        op_types_to_quantize=types)  # fmt: skip
    folder.mkdir(exist_ok=True)
    if not (folder / "model.onnx").exists():
        os.link(path, folder / "model.onnx")
    return folder, path


def outputs(folder, theirs):
    return [np.fromfile(folder / f"out-{i}.raw", y.dtype) for i, y in enumerate(theirs.outputs.values())]


def off(got, want):
    """The error of the whole result by its size."""
    got, want = (np.concatenate([x.ravel().astype(np.float64) for x in xs]) for xs in (got, want))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def pair(label, a, b, error):
    known = abba(a, b, None, math.inf)
    ratio, low, high = interval(known["logs"])
    ms_a, ms_b = (np.median(known[k]) for k in ("a_ms", "b_ms"))
    print(f"| {label} | {ms_a:.2f} | {ms_b:.2f} | {ratio:.3f} | {low:.3f} to {high:.3f} | {len(known['logs'])} | "
          f"{error:.1e} |", flush=True)  # fmt: skip


def point(build, models, name, batch, what):
    folder, path = exported(models, name)
    folder_q, path_q = quantised(models, name)
    inputs = make_inputs(path, name, batch)
    os.sched_setaffinity(0, bench_cpu.CORES[-1:])
    theirs, theirs_q = Theirs(path, inputs, 1), Theirs(path_q, inputs, 1)
    whole = Ours(build, folder, inputs, name, batch, 1)
    want = outputs(folder, theirs)
    if "bf16" in what:
        half = Ours(build, folder, inputs, name, batch, 1, precision="bf16")
        pair(f"{name} {batch} | bf16 / our fp32", half, whole, off(outputs(folder, theirs), want))
        half.close()
    if "int8" in what:
        byte = Ours(build, folder_q, inputs, name, batch, 1, precision="int8")
        got, said = outputs(folder_q, theirs), list(theirs_q.outputs.values())
        pair(f"{name} {batch} | int8 / our fp32", byte, whole, off(got, want))
        pair(f"{name} {batch} | int8 / ONNX Runtime's int8", byte, theirs_q, off(got, said))
        byte.close()
    whole.close()
    os.sched_setaffinity(0, bench_cpu.CORES)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build", type=pathlib.Path)
    p.add_argument("--model", action="append", choices=MODELS)
    p.add_argument("--batch", action="append", type=int)
    p.add_argument("--precision", action="append", choices=["bf16", "int8"])
    p.add_argument("--models", type=pathlib.Path)
    p.add_argument("--prepare", action="store_true")
    a = p.parse_args()
    a.models = a.models or a.build / "bench-models"
    for name in a.model or MODELS:
        quantised(a.models, name)
        for batch in [] if a.prepare else a.batch or [1, 8]:
            point(a.build, a.models, name, batch, a.precision or ["bf16", "int8"])


if __name__ == "__main__":
    sys.exit(main())
