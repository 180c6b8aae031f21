#!/usr/bin/env python3
"""Make the larger test models, with seeded weights, on the spot.

    export.py --list
    export.py DIR NAME... [--batch N|dynamic] [--opset N] [--exporter torchscript|dynamo] [--bare]

Writes DIR/NAME.onnx with a free first dimension "batch", DIR/NAME-bN.onnx with a fixed one.
The dynamo exporter (tried with torch 2.15 and onnxscript 0.7) adds -dynamo to the name.
It cannot go below opset 18, its default; any opset but the default adds -opsetN.

The weights are random and trained for nothing, but scaled so that every layer matters:
activations keep their size, and different inputs give visibly different outputs.

Needs torch and torchvision (Debian's do) and onnx for the small models.
"""
import argparse
import inspect
import math
import pathlib

SEED = 7
DEFAULT_OPSET = {"torchscript": 17, "dynamo": 18}
BERT = dict(words=30522, positions=512, types=2, hidden=768, heads=12, inner=3072, layers=12, seq=128)
GPT2 = dict(words=50257, positions=1024, hidden=768, heads=12, layers=12, seq=64)


# Networks.  torch is imported where it is used, so that --list and the small models do without.


def vision(build, side=224):
    """A torchvision network over [batch, 3, side, side]."""

    def make():
        import torch
        import torchvision

        torch.manual_seed(SEED)
        # Inception wants to be told that we settle the weights ourselves.
        extra = {"init_weights": False} if build == "inception_v3" else {}
        net = getattr(torchvision.models, build)(weights=None, **extra)
        settle(net, side)
        return net, (torch.randn(2, 3, side, side),), ["input"], ["output"]

    return make


def settle(net, side):
    """Weights that keep an activation's size, then batch-norm statistics as measured."""
    import torch
    from torch import nn

    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            if m.bias is not None:
                nn.init.uniform_(m.bias, -0.1, 0.1)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.2, 0.2)
            m.momentum = None  # a plain mean over what it sees
        elif isinstance(m, nn.Dropout):
            m.p = 0.0
    if any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
        with torch.no_grad():
            net.train()(torch.randn(8, 3, side, side))
    net.eval()


def bert():
    """A BERT-base encoder: embeddings, 12 post-norm layers, a pooler over the first token."""
    import torch
    from torch import nn

    c = BERT
    width = c["hidden"] // c["heads"]

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value, self.out = (
                nn.Linear(c["hidden"], c["hidden"]) for _ in range(4)
            )

        def heads(self, x):
            return x.view(x.size(0), x.size(1), c["heads"], width).permute(0, 2, 1, 3)

        def forward(self, x, mask):
            q, k, v = (self.heads(f(x)) for f in (self.query, self.key, self.value))
            score = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(width) + mask
            y = torch.matmul(torch.softmax(score, -1), v).permute(0, 2, 1, 3).contiguous()
            return self.out(y.view(y.size(0), y.size(1), c["hidden"]))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = Attention()
            self.norm1, self.norm2 = (nn.LayerNorm(c["hidden"], eps=1e-12) for _ in range(2))
            self.up = nn.Linear(c["hidden"], c["inner"])
            self.down = nn.Linear(c["inner"], c["hidden"])

        def forward(self, x, mask):
            x = self.norm1(x + self.attention(x, mask))
            return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(c["words"], c["hidden"])
            self.positions = nn.Embedding(c["positions"], c["hidden"])
            self.types = nn.Embedding(c["types"], c["hidden"])
            self.register_buffer("places", torch.arange(c["positions"]).unsqueeze(0))
            self.norm = nn.LayerNorm(c["hidden"], eps=1e-12)
            self.layers = nn.ModuleList(Layer() for _ in range(c["layers"]))
            self.pool = nn.Linear(c["hidden"], c["hidden"])

        def forward(self, input_ids, attention_mask, token_type_ids):
            places = self.places[:, : input_ids.size(1)]
            x = self.words(input_ids) + self.types(token_type_ids) + self.positions(places)
            x = self.norm(x)
            mask = attention_mask.unsqueeze(1).unsqueeze(2).to(torch.float32)
            mask = (1.0 - mask) * -10000.0
            for layer in self.layers:
                x = layer(x, mask)
            return x, torch.tanh(self.pool(x[:, 0]))

    torch.manual_seed(SEED)
    net = Bert()
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Embedding)):
            # Twice the usual 0.02, so that attention is peaked and each layer changes its input.
            nn.init.normal_(m.weight, std=0.04)
        if isinstance(m, nn.LayerNorm):
            nn.init.uniform_(m.weight, 0.8, 1.2)
        if getattr(m, "bias", None) is not None:
            nn.init.normal_(m.bias, std=0.02)
    ids = torch.randint(0, c["words"], (2, c["seq"]))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    return net.eval(), example, names, ["last_hidden_state", "pooler_output"]


def gpt2():
    """GPT-2 small with its head: 12 pre-norm layers, causal attention, the tanh form of GELU."""
    import torch
    from torch import nn

    c = GPT2
    width = c["hidden"] // c["heads"]

    class Product(nn.Module):
        """x @ weight + bias on rows, as GPT-2 is published: weights are [in, out]."""

        def __init__(self, n_in, n_out):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(n_in, n_out).normal_(std=0.04))
            self.bias = nn.Parameter(torch.empty(n_out).normal_(std=0.02))

        def forward(self, x):
            rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
            return rows.view(x.size(0), x.size(1), -1)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = (nn.LayerNorm(c["hidden"]) for _ in range(2))
            self.qkv = Product(c["hidden"], 3 * c["hidden"])
            self.out = Product(c["hidden"], c["hidden"])
            self.up = Product(c["hidden"], 4 * c["hidden"])
            self.down = Product(4 * c["hidden"], c["hidden"])
            n = c["positions"]
            self.register_buffer("causal", torch.tril(torch.ones(n, n, dtype=torch.bool)).view(1, 1, n, n))

        def attend(self, x):
            heads = (x.size(0), x.size(1), c["heads"], width)
            q, k, v = (y.view(heads).permute(0, 2, 1, 3) for y in self.qkv(x).split(c["hidden"], 2))
            score = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(width)
            causal = self.causal[:, :, : x.size(1), : x.size(1)]
            score = torch.where(causal, score, torch.tensor(-1e9))
            y = torch.matmul(torch.softmax(score, -1), v).permute(0, 2, 1, 3).contiguous()
            return self.out(y.view(x.size()))

        def forward(self, x):
            x = x + self.attend(self.norm1(x))
            y = self.up(self.norm2(x))
            y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * torch.pow(y, 3.0))))
            return x + self.down(y)

    class Gpt2(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(c["words"], c["hidden"])
            self.positions = nn.Embedding(c["positions"], c["hidden"])
            self.layers = nn.ModuleList(Layer() for _ in range(c["layers"]))
            self.norm = nn.LayerNorm(c["hidden"])

        def forward(self, input_ids):
            places = torch.arange(input_ids.size(1)).unsqueeze(0)
            x = self.words(input_ids) + self.positions(places)
            for layer in self.layers:
                x = layer(x)
            return torch.matmul(self.norm(x), self.words.weight.t())

    torch.manual_seed(SEED)
    net = Gpt2()
    for m in net.modules():
        if isinstance(m, nn.Embedding):
            nn.init.normal_(m.weight, std=0.04)
        if isinstance(m, nn.LayerNorm):
            nn.init.uniform_(m.weight, 0.8, 1.2)
            nn.init.normal_(m.bias, std=0.02)
    ids = torch.randint(0, c["words"], (2, c["seq"]))
    return net.eval(), (ids,), ["input_ids"], ["logits"]


# Small ones, each for operators that the large ones lack.


def speech():
    """Convolution over time, an LSTM in both directions, a GRU: letters of 50 frames."""
    import torch
    from torch import nn

    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.front = nn.Conv1d(40, 64, 3, padding=1)
            self.lstm = nn.LSTM(64, 48, 2, bidirectional=True, batch_first=True)
            self.gru = nn.GRU(96, 32, batch_first=True)
            self.out = nn.Linear(32, 29)

        def forward(self, frames):
            y = self.front(frames.transpose(1, 2)).transpose(1, 2)
            y = self.gru(self.lstm(y)[0])[0]
            return torch.log_softmax(self.out(y), -1)

    torch.manual_seed(SEED)
    return Speech().eval(), (torch.randn(2, 50, 40),), ["frames"], ["letters"]


def unet():
    """Down and up again with a transposed convolution, twice the size, the ten best places of a class."""
    import torch
    from torch import nn

    class Unet(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 16, 3, padding=1)
            self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1, padding_mode="reflect")
            self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
            self.out = nn.Conv2d(32, 5, 1)

        def forward(self, image):
            wide = torch.relu(self.first(image))
            y = self.out(torch.cat([wide, self.up(torch.relu(self.down(wide)))], 1))
            y = nn.functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            return y, torch.topk(y.flatten(1), 10)[0]

    torch.manual_seed(SEED)
    return Unet().eval(), (torch.randn(2, 3, 64, 64),), ["image"], ["classes", "best"]


def warp():
    """An image read at a grid, running sums, a product by equation, a gather, a triangle."""
    import torch
    from torch import nn

    class Warp(nn.Module):
        def __init__(self):
            super().__init__()
            self.front = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, image, grid):
            y = nn.functional.grid_sample(self.front(image), grid, align_corners=False).cumsum(2)
            first = torch.gather(y, 1, torch.zeros_like(y[:, :1]).long())
            return torch.einsum("bchw,bdhw->bcd", y, y), first, torch.triu(y)

    torch.manual_seed(SEED)
    example = (torch.randn(2, 3, 16, 16), torch.rand(2, 8, 8, 2) * 2 - 1)
    return Warp().eval(), example, ["image", "grid"], ["products", "first", "upper"]


def export_torch(make, path, batch, opset, exporter):
    import torch

    net, example, inputs, outputs = make()
    free = batch == "dynamic"
    # An example of one row would let the exporters fold the batch away as the number 1.
    rows = 2 if free else batch
    example = tuple(x[:1].expand(rows, *x.shape[1:]).contiguous() for x in example)
    has_dynamo = "dynamo" in inspect.signature(torch.onnx.export).parameters
    args = dict(opset_version=opset, input_names=inputs, output_names=outputs)
    if exporter == "dynamo":
        if not has_dynamo:
            raise SystemExit(f"export.py: torch {torch.__version__} has no dynamo exporter")
        dim = torch.export.Dim("batch")
        args.update(dynamo=True, external_data=False)
        args.update(dynamic_shapes=tuple({0: dim} for _ in example) if free else None)
    else:
        args.update({"dynamo": False} if has_dynamo else {})
        args.update(dynamic_axes={n: {0: "batch"} for n in inputs + outputs} if free else None)
    with torch.no_grad():
        torch.onnx.export(net, example, str(path), **args)


# Small models, straight from the onnx helpers.


def value(name, *dims):
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def weight(name, *dims):
    """A seeded constant."""
    import numpy as np
    from onnx import numpy_helper

    x = np.random.default_rng(SEED).standard_normal(dims).astype(np.float32)
    return numpy_helper.from_array(x, name)


def model(nodes, inputs, outputs, constants, opset):
    from onnx import checker, helper

    nodes = [helper.make_node(op, i, o, f"{op}_{n}", **a) for n, (op, i, o, a) in enumerate(nodes)]
    graph = helper.make_graph(nodes, "test", inputs, outputs, constants)
    m = helper.make_model(graph, producer_name="gpuletd-test", opset_imports=[helper.make_opsetid("", opset)])
    m.ir_version = 8  # any reader of today knows it
    checker.check_model(m, full_check=True)
    return m


def identity(batch, opset):
    """Four bytes in, four bytes out."""
    return model([("Identity", ["x"], ["y"], {})], [value("x", batch, 1)], [value("y", batch, 1)], [], opset)


def reduce0(batch, opset):
    """Every row of y depends on all rows of x: putting two requests in a batch is wrong."""
    axes = {"axes": [0]} if opset < 18 else {}
    extra = []
    if opset >= 18:
        import numpy as np
        from onnx import numpy_helper

        extra = [numpy_helper.from_array(np.array([0], dtype=np.int64), "axes")]
    nodes = [
        ("ReduceMean", ["x"] + [e.name for e in extra], ["mean"], {"keepdims": 1, **axes}),
        ("Add", ["x", "mean"], ["y"], {}),
    ]
    return model(nodes, [value("x", batch, 4)], [value("y", batch, 4)], extra, opset)


def freedim(batch, opset):
    """A second free dimension, normalised over: padding one request to another's length is wrong."""
    nodes = [
        ("MatMul", ["x", "w"], ["h"], {}),
        ("Transpose", ["h"], ["t"], {"perm": [0, 2, 1]}),
        ("Softmax", ["t"], ["s"], {"axis": 2}),
        ("Transpose", ["s"], ["y"], {"perm": [0, 2, 1]}),
    ]
    shape = (batch, "length", 4)
    return model(nodes, [value("x", *shape)], [value("y", *shape)], [weight("w", 4, 4)], opset)


def external(batch, opset):
    """Weights in a second file, STEM.weights, beside the model."""
    nodes = [("MatMul", ["x", "w"], ["h"], {}), ("Add", ["h", "b"], ["y"], {})]
    constants = [weight("w", 16, 8), weight("b", 8)]
    return model(nodes, [value("x", batch, 16)], [value("y", batch, 8)], constants, opset)


def export_small(make, path, batch, opset, exporter):
    import onnx

    m = make("batch" if batch == "dynamic" else batch, opset)
    if make is not external:
        onnx.save_model(m, str(path))
        return
    data = path.with_suffix(".weights")
    data.unlink(missing_ok=True)  # onnx appends
    onnx.save_model(m, str(path), save_as_external_data=True, location=data.name, size_threshold=0)
    data.chmod(0o644)  # onnx writes it for its owner alone


# Weights that are made where they are needed: test/gpu/fill.c.

BARE_FROM = 4096  # numbers of a tensor that is left out; what is smaller stays as it is
# Filters scaled for the activations that batch norm measured, and made anew from another seed, are no
# longer what it measured: a little too large in each of many layers.
NORMALISED = ("resnet50", "mobilenet_v2", "densenet121", "inception_v3", "shufflenet_v2", "efficientnet_b0")
TAMED = 0.8


def bare(path, name):
    """Moves the large weights of PATH to a file that is not written.

    model.fill says what belongs into it, a line for each tensor: where it begins in bytes, how many
    floats, and the ends of an even distribution with the mean and the spread of those left out.
    """
    import numpy as np
    import onnx

    m = onnx.load(str(path))
    at, lines = 0, []
    for t in m.graph.initializer:
        x = onnx.numpy_helper.to_array(t) if t.data_type == onnx.TensorProto.FLOAT else np.zeros(0)
        if x.size < BARE_FROM:
            continue
        middle, half = float(x.mean()), float(x.std()) * math.sqrt(3)
        half *= TAMED if name in NORMALISED and x.ndim == 4 else 1
        lines.append(f"{at} {x.size} {middle - half:.9g} {middle + half:.9g}\n")
        t.ClearField("raw_data")
        t.data_location = onnx.TensorProto.EXTERNAL
        for key, text in (("location", "model.weights"), ("offset", at), ("length", x.nbytes)):
            t.external_data.add(key=key, value=str(text))
        at += (x.nbytes + 63) // 64 * 64
    folder = path.parent / path.stem
    folder.mkdir(exist_ok=True)
    if lines:
        (folder / "model.fill").write_text("".join(lines))
    (folder / "model.onnx").write_bytes(m.SerializeToString())
    path.unlink()
    return folder / "model.onnx"


MODELS = {
    "resnet50": (export_torch, vision("resnet50")),
    "mobilenet_v2": (export_torch, vision("mobilenet_v2")),
    "vgg19": (export_torch, vision("vgg19")),
    "alexnet": (export_torch, vision("alexnet")),
    "densenet121": (export_torch, vision("densenet121")),
    "inception_v3": (export_torch, vision("inception_v3", side=299)),
    "squeezenet": (export_torch, vision("squeezenet1_0")),
    "shufflenet_v2": (export_torch, vision("shufflenet_v2_x1_0")),
    "efficientnet_b0": (export_torch, vision("efficientnet_b0")),
    "bert-base": (export_torch, bert),
    "gpt2-small": (export_torch, gpt2),
    "speech": (export_torch, speech),
    "unet": (export_torch, unet),
    "warp": (export_torch, warp),
    "identity": (export_small, identity),
    "reduce0": (export_small, reduce0),
    "freedim": (export_small, freedim),
    "external": (export_small, external),
}


def batch_arg(text):
    if text != "dynamic" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError("a number from 1 on, or 'dynamic'")
    return text if text == "dynamic" else int(text)


def main():
    p = argparse.ArgumentParser(description="Make the larger test models.")
    p.add_argument("--list", action="store_true", help="name the models and stop")
    p.add_argument("--batch", type=batch_arg, default="dynamic", help="a number, or 'dynamic' (default)")
    p.add_argument("--opset", type=int, help="17, with dynamo 18, unless said")
    p.add_argument("--exporter", choices=list(DEFAULT_OPSET), default="torchscript")
    p.add_argument("--bare", action="store_true", help="NAME/model.onnx without its weights, and NAME/model.fill")
    p.add_argument("dir", nargs="?", type=pathlib.Path)
    p.add_argument("name", nargs="*")
    a = p.parse_args()

    if a.list:
        print("\n".join(MODELS))
        return
    unknown = [n for n in a.name if n not in MODELS]
    if not a.dir or not a.name or unknown:
        p.error(f"no model named {unknown[0]}" if unknown else "a folder and a model's name are needed")
    default = DEFAULT_OPSET[a.exporter]
    opset = a.opset or default
    if a.exporter == "dynamo" and opset < default:
        p.error(f"the dynamo exporter starts at opset {default}, not {opset}")

    a.dir.mkdir(parents=True, exist_ok=True)
    for name in a.name:
        export, make = MODELS[name]
        stem = name
        stem += "" if a.batch == "dynamic" else f"-b{a.batch}"
        stem += "" if opset == default else f"-opset{opset}"
        stem += "" if a.exporter == "torchscript" or export is export_small else "-dynamo"
        path = a.dir / f"{stem}.onnx"
        export(make, path, a.batch, opset, a.exporter)
        path = bare(path, name) if a.bare else path
        print(f"{path} {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
