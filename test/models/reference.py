#!/usr/bin/env python3
"""What ONNX Runtime says about a model, to compare ours with.

    reference.py MODEL DIR [--batch N]...      (batch 1 and 8 unless said)
    reference.py --compare OURS.npz THEIRS.npz

Writes DIR/STEM-bN.in.npz and DIR/STEM-bN.out.npz, an array per input and output under its
name, and the same arrays as plain .npy in DIR/STEM-bN/, for readers without a zip library.
A model with a fixed batch gets that batch only.  Other free dimensions become 5.
"""
import argparse
import pathlib
import sys

import numpy as np

SEED = 7
TOLERANCE = 1e-3
OTHER_FREE = 5


def compare(ours, theirs, tolerance=TOLERANCE):
    """The largest absolute error over the reference's largest magnitude; raises above tolerance.

    Both are {name: array}.  Integer and boolean outputs must be equal."""
    worst = 0.0
    if set(ours) != set(theirs):
        raise AssertionError(f"outputs {sorted(ours)} instead of {sorted(theirs)}")
    for name, ref in theirs.items():
        got = np.asarray(ours[name])
        if got.shape != ref.shape or got.dtype != ref.dtype:
            raise AssertionError(f"{name}: {got.dtype}{got.shape} instead of {ref.dtype}{ref.shape}")
        if ref.dtype.kind not in "fc":
            if not np.array_equal(got, ref):
                raise AssertionError(f"{name}: {np.count_nonzero(got != ref)} of {ref.size} differ")
            continue
        if not np.isfinite(ref).all():
            raise AssertionError(f"{name}: the reference itself is not finite")
        if not np.isfinite(got).all():
            raise AssertionError(f"{name}: not finite")
        if ref.size == 0:
            continue
        error = np.abs(got.astype(np.float64) - ref).max()
        scale = np.abs(ref).max()
        if error > tolerance * scale:
            raise AssertionError(f"{name}: error {error:.3g}, largest magnitude {scale:.3g}")
        worst = max(worst, error / scale if scale else 0.0)
    return worst


def make_input(name, dtype, shape, rng):
    """Values a model of this name and shape can take: ids in range, pixels as in digits.txt."""
    if name == "input_ids":
        return rng.integers(0, 30522, shape, dtype=dtype)
    if name == "token_type_ids":
        return rng.integers(0, 2, shape, dtype=dtype)
    if name == "attention_mask":  # rows of different lengths, so that masking matters
        length = rng.integers(shape[1] // 2, shape[1] + 1, (shape[0], 1))
        return (np.arange(shape[1]) < length).astype(dtype)
    if name == "image":
        return rng.integers(0, 17, shape).astype(dtype)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def make_inputs(session, batch):
    """Row i is the same whatever the batch: a batch of 8 starts with the batch of 1."""
    inputs = {}
    for i, x in enumerate(session.get_inputs()):
        dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
                 "tensor(bool)": np.bool_}.get(x.type) or np.dtype(x.type[len("tensor("):-1]).type
        row = [d if isinstance(d, int) else OTHER_FREE for d in x.shape[1:]]
        rows = [make_input(x.name, dtype, [1, *row], np.random.default_rng([SEED, i, n])) for n in range(batch)]
        inputs[x.name] = np.concatenate(rows)
    return inputs


def open_session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session, inputs):
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


def batches(session, wanted):
    first = {x.shape[0] for x in session.get_inputs()}
    fixed = [d for d in first if isinstance(d, int)]
    return fixed[:1] or wanted


def write(path, out, wanted):
    session = open_session(path)
    out.mkdir(parents=True, exist_ok=True)
    for batch in batches(session, wanted):
        stem = f"{path.stem}-b{batch}" if not path.stem.endswith(f"-b{batch}") else path.stem
        inputs = make_inputs(session, batch)
        outputs = run(session, inputs)
        plain = out / stem
        plain.mkdir(exist_ok=True)
        for kind, arrays in (("in", inputs), ("out", outputs)):
            np.savez(out / f"{stem}.{kind}.npz", **arrays)
            for name, array in arrays.items():
                np.save(plain / f"{kind}.{name.replace('/', '_')}.npy", array)
        print(stem, ", ".join(summary(n, x) for n, x in outputs.items()), flush=True)


def summary(name, x):
    """Enough to see that the numbers mean something: size, spread, and how far rows are apart."""
    text = f"{name} {list(x.shape)} max {np.abs(x).max():.3g} std {x.std():.3g}"
    if len(x) > 1:
        text += f" rows apart {min(np.abs(x[0] - y).max() for y in x[1:]) / np.abs(x).max():.2g}"
    return text


def main():
    p = argparse.ArgumentParser(description="Write seeded inputs and ONNX Runtime's outputs.")
    p.add_argument("--compare", action="store_true", help="compare two .npz files instead")
    p.add_argument("--batch", type=int, action="append")
    p.add_argument("first", type=pathlib.Path)
    p.add_argument("second", type=pathlib.Path)
    a = p.parse_args()
    if not a.compare:
        write(a.first, a.second, a.batch or [1, 8])
        return
    try:
        print(f"relative error {compare(dict(np.load(a.first)), dict(np.load(a.second))):.3g}")
    except AssertionError as e:
        sys.exit(f"reference.py: {e}")


if __name__ == "__main__":
    main()
