#!/usr/bin/python3
"""Train the digit classifiers of test/data and write them as ONNX.

The numbers are scikit-learn's load_digits: 1797 images of 8x8 pixels, 0..16.  400 of them
are held out; 200 of these, 20 of each digit, become digits.txt.

    digits.py [DIR]        writes into DIR, test/data unless said

Needs torch and scikit-learn: Debian's python3-torch and python3-sklearn do.
Equal versions on an equal machine write equal files.
"""
import inspect
import pathlib
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

SEED = 7
N_HELD = 400
N_COMMITTED_EACH = 20
EPOCHS = 60


class Scale(nn.Module):
    """Pixels arrive as they are in the data set, 0..16."""

    def forward(self, image):
        return image / 16.0


def conv(n_in, n_out):
    return [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]


def plain():
    return nn.Sequential(
        Scale(),
        *conv(1, 16),
        *conv(16, 32),
        nn.MaxPool2d(2),
        *conv(32, 48),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(48 * 2 * 2, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def tiny():
    return nn.Sequential(
        Scale(),
        *conv(1, 6),
        nn.MaxPool2d(2),
        *conv(6, 8),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 10),
    )


def split(seed):
    """Indices of the training images, the held-out ones and the committed ones among them."""
    labels = load_digits().target
    order = np.random.default_rng(seed).permutation(len(labels))
    held, train = order[:N_HELD], order[N_HELD:]
    committed = [i for d in range(10) for i in held[labels[held] == d][:N_COMMITTED_EACH]]
    return train, held, np.sort(np.array(committed))


def fit(net, images, labels):
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(opt, EPOCHS)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(images)).split(64):
            opt.zero_grad()
            nn.functional.cross_entropy(net(images[part]), labels[part]).backward()
            opt.step()
        plan.step()
    return net.eval()


def export(net, path, dynamic):
    """`scores` are probabilities: a softmax is put behind the trained net."""
    args = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    torch.onnx.export(
        nn.Sequential(*net, nn.Softmax(1)).eval(),
        torch.zeros(1, 1, 8, 8),
        str(path),
        opset_version=17,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}} if dynamic else None,
        # This leaves the BatchNormalization nodes in the file: folding them is ours to test.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        **args,
    )


def accuracy(net, images, labels):
    with torch.no_grad():
        return 100.0 * (net(images).argmax(1) == labels).double().mean().item()


def main():
    here = pathlib.Path(__file__).resolve().parent
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent / "data"
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums in one order

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(data.target)
    train, held, committed = split(SEED)

    with open(out / "digits.txt", "w", encoding="ascii") as f:
        for i in committed:
            f.write(" ".join(str(int(v)) for v in (data.target[i], *data.data[i])) + "\n")

    for make, files in ((plain, {"digits": False, "digits-batch": True}), (tiny, {"digits-tiny": True})):
        torch.manual_seed(SEED)
        net = fit(make(), images[train], labels[train])
        on_held = accuracy(net, images[held], labels[held])
        on_committed = accuracy(net, images[committed], labels[committed])
        for name, dynamic in files.items():
            path = out / f"{name}.onnx"
            export(net, path, dynamic)
            print(
                f"{path.name}: {path.stat().st_size} bytes, {on_held:.2f} % of {len(held)} held out,"
                f" {on_committed:.1f} % of the {len(committed)} in digits.txt"
            )


if __name__ == "__main__":
    main()
