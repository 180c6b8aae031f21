#!/usr/bin/python3
"""The same networks by the PyTorch of this machine, in turns with test/gpu/bench.

    bench_torch.py [--turns N] [--turn-ms MS] [--device cuda] MODEL BATCH -- BENCH...
    bench_torch.py --count MODEL

BENCH... is our bench, which measures once for each line that it reads.  In each turn it goes first, then
PyTorch: eager, captured graphs, and up to batch 8 torch.compile.  What is printed: our lines, then one for
each of these, with the median of each turn.  Where there is no PyTorch, no device or a way does not work,
its line says why.  --count: multiply-adds of products and numbers of weights, of one row.

The networks are written here, as torchvision may be missing: batch norms are folded, as our passes do, the
weights are random, numbers are fp16, images have their channels last, inputs are zeros.  Attention is
scaled_dot_product_attention where this PyTorch has it.

GATE=FILE: set up at the same time as others, and measured when it is its turn (bench_gate.c).
"""
import argparse
import contextlib
import fcntl
import json
import math
import os
import statistics
import subprocess
import sys
import time

WAYS = ["torch eager", "torch graphs", "torch compile"]
COMPILE_MOST = 8  # batches that are compiled: a minute each
VGG19 = [64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0]
RESNET50 = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]  # width, blocks, stride
MOBILENET_V2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
HIDDEN, HEADS, LAYERS = 768, 12, 12
counted = None  # [multiply-adds], while they are counted


# ---- networks

def conv(n_in, n_out, size=1, stride=1, groups=1, then=None):
    from torch import nn

    layer = nn.Conv2d(n_in, n_out, size, stride, size // 2, groups=groups)
    return nn.Sequential(layer, then(inplace=True)) if then else layer


def resnet50():
    from torch import nn

    class Block(nn.Module):
        def __init__(self, n_in, width, stride):
            super().__init__()
            self.way = nn.Sequential(conv(n_in, width, then=nn.ReLU), conv(width, width, 3, stride, then=nn.ReLU), conv(width, 4 * width))
            self.aside = conv(n_in, 4 * width, 1, stride) if stride > 1 or n_in != 4 * width else nn.Identity()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.way(x) + self.aside(x))

    layers, n_in = [conv(3, 64, 7, 2, then=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    for width, blocks, stride in RESNET50:
        for i in range(blocks):
            layers.append(Block(n_in, width, stride if i == 0 else 1))
            n_in = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 1000))


def mobilenet_v2():
    from torch import nn

    class Block(nn.Module):
        def __init__(self, n_in, n_out, expand, stride):
            super().__init__()
            wide = n_in * expand
            layers = [conv(n_in, wide, then=nn.ReLU6)] if expand > 1 else []
            self.way = nn.Sequential(*layers, conv(wide, wide, 3, stride, wide, then=nn.ReLU6), conv(wide, n_out))
            self.adds = stride == 1 and n_in == n_out

        def forward(self, x):
            return x + self.way(x) if self.adds else self.way(x)

    layers, n_in = [conv(3, 32, 3, 2, then=nn.ReLU6)], 32
    for expand, n_out, blocks, stride in MOBILENET_V2:
        for i in range(blocks):
            layers.append(Block(n_in, n_out, expand, stride if i == 0 else 1))
            n_in = n_out
    return nn.Sequential(*layers, conv(n_in, 1280, then=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


def vgg19():
    from torch import nn

    layers, n_in = [], 3
    for width in VGG19:
        layers.append(conv(n_in, width, 3, then=nn.ReLU) if width else nn.MaxPool2d(2))
        n_in = width or n_in
    wide = [nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.Flatten(), *wide)


def attend(q, k, v, mask=None, causal=False):
    import torch

    if counted is not None:  # else torch.compile would see another program each time
        counted[0] += 2 * q.numel() * k.size(2)
    fused = getattr(torch.nn.functional, "scaled_dot_product_attention", None)
    if fused:
        return fused(q, k, v, attn_mask=mask, is_causal=causal)
    score = q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))
    if causal:
        score = score + torch.full_like(score[0, 0], -1e4).triu(1)
    return torch.softmax(score if mask is None else score + mask, -1) @ v


def transformer(words, tokens, before, last):
    """before: norms are in front of what they belong to, and queries see what is behind them (GPT-2)."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
            self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
            self.up, self.down = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)
            self.gelu = nn.GELU(approximate="tanh" if before else "none")

        def attention(self, x, mask):
            heads = (x.size(0), x.size(1), HEADS, HIDDEN // HEADS)
            q, k, v = (y.reshape(heads).transpose(1, 2) for y in self.qkv(x).split(HIDDEN, 2))
            return self.out(attend(q, k, v, mask, before).transpose(1, 2).reshape(x.shape))

        def forward(self, x, mask):
            if before:
                x = x + self.attention(self.norm1(x), mask)
                return x + self.down(self.gelu(self.up(self.norm2(x))))
            x = self.norm1(x + self.attention(x, mask))
            return self.norm2(x + self.down(self.gelu(self.up(x))))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(words, HIDDEN), nn.Parameter(torch.zeros(1, tokens, HIDDEN))
            self.types = None if before else nn.Embedding(2, HIDDEN)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.norm, self.last = nn.LayerNorm(HIDDEN), last(HIDDEN)

        def forward(self, ids, mask=None, types=None):
            x = self.words(ids) + self.places
            if before:
                for layer in self.layers:
                    x = layer(x, None)
                return self.last(self.norm(x))
            x = self.norm(x + self.types(types))
            mask = (1.0 - mask[:, None, None, :].to(x.dtype)) * -1e4
            for layer in self.layers:
                x = layer(x, mask)
            return x, torch.tanh(self.last(x[:, 0]))

    return Net()


def bert():
    from torch import nn

    return transformer(30522, 128, False, lambda n: nn.Linear(n, n))


def gpt2():
    from torch import nn

    return transformer(50257, 64, True, lambda n: nn.Linear(n, 50257, bias=False))


NETWORKS = {"resnet50": (resnet50, 0, 0), "mobilenet_v2": (mobilenet_v2, 0, 0), "vgg19": (vgg19, 0, 0),
            "bert-base": (bert, 128, 3), "gpt2-small": (gpt2, 64, 1)}  # tokens and inputs of them; 0: an image


def made(model, batch, device, half):
    """The network and its inputs."""
    import torch

    torch.manual_seed(7)
    make, tokens, n = NETWORKS[model]
    there = torch.device(device)  # since 2.0 a network can be made where it will be
    with there if hasattr(there, "__enter__") else contextlib.nullcontext():
        net = make().eval().requires_grad_(False).to(device)
    net = net.half() if half else net
    if tokens:
        return net, [torch.zeros(batch, tokens, dtype=torch.int64, device=device) for _ in range(n)]
    x = torch.zeros(batch, 3, 224, 224, device=device, dtype=torch.float16 if half else torch.float32)
    return net.to(memory_format=torch.channels_last), [x.to(memory_format=torch.channels_last)]


def count(model):
    import torch
    from torch import nn

    global counted
    counted = [0]
    net, inputs = made(model, 1, "cpu", False)

    def hook(layer, _, y):
        each = layer.weight[0].numel()  # a row of the weights for each number of the result
        counted[0] += y.numel() * each

    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        net(*inputs)
    print(json.dumps({"model": model, "multiply_adds": counted[0], "weights": sum(p.numel() for p in net.parameters())}))


# ---- measuring

def timer(torch, device, turn_ms):
    """A function that gives the median time of runs, in us: on the device, each by itself."""
    def once_on_device(run):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e3

    def once_on_host(run):
        begin = time.perf_counter()
        run()
        return (time.perf_counter() - begin) * 1e6

    once = once_on_device if device == "cuda" else once_on_host

    def median(run):
        first = statistics.median(once(run) for _ in range(4))
        n = max(5, min(200, int(turn_ms * 1e3 / max(first, 1))))
        return statistics.median(once(run) for _ in range(n))

    return median


def captured(torch, net, inputs):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            net(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = net(*inputs)
    return lambda: (graph.replay(), kept)[0]


def compiled(torch, net, inputs):
    fast = torch.compile(net, mode="reduce-overhead")
    for _ in range(3):
        fast(*inputs)
    return lambda: fast(*inputs)


def ways(model, batch, device):
    """The median's function, what PyTorch this is, and for each way a function that runs it, or why there is none."""
    wanted = [w for w in WAYS if w != "torch compile" or batch <= COMPILE_MOST]
    try:
        import torch

        if model not in NETWORKS:
            raise LookupError(f"there is no network '{model}' here")
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} sees no device")
        torch.set_grad_enabled(False)
        torch.backends.cudnn.benchmark = True
        net, inputs = made(model, batch, device, device == "cuda")
        net(*inputs)
    except Exception as e:  # it is somebody else's program: whatever it says is the result
        return None, "", {w: reason(e) for w in wanted}
    about = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    found = {}
    for way in wanted:
        try:
            if way == "torch eager":
                found[way] = lambda: net(*inputs)
            elif device != "cuda":
                found[way] = "not on " + device
            else:
                found[way] = (captured if way == "torch graphs" else compiled)(torch, net, inputs)
        except Exception as e:
            found[way] = reason(e)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # what setting up took, and measuring does not
    return torch, about, found


def reason(e):
    return f"{type(e).__name__}: {str(e).strip()}".splitlines()[0][:200]


def line(model, batch, way, precision, turns, about):
    row = {"case": f"{model}, batch {batch}, {way}", "ok": True, "model": model, "batch": batch, "way": way, "precision": precision}
    if turns:
        row.update(value=round(statistics.median(turns), 2), unit="us", turns=[round(t, 2) for t in turns])
        row["text"] = f"{row['value']} us ({min(turns):.2f} to {max(turns):.2f}, {len(turns)} turns); {about}"
    else:
        row["text"] = about
    print(json.dumps(row), flush=True)


def gate_enter(name):
    """Everything is set up.  What is returned is kept until the process ends."""
    gate = os.environ.get("GATE")
    if not gate:
        return None
    with open(gate + ".ready", "a", encoding="utf-8") as f:
        f.write(name + "\n")
    held = open(gate, encoding="utf-8")
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def in_turns(a, command):
    alone = {k: v for k, v in os.environ.items() if k != "GATE"}  # ours is asked when it is our turn
    ours = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alone)
    torch, about, found = ways(a.model, a.batch, a.device)
    median = timer(torch, a.device, a.turn_ms) if torch else None
    first = ours.stdout.readline()
    said = "" if first == "ready\n" else first  # not ready: it says why and ends
    turns = {way: [] for way in found}
    held = gate_enter(f"{a.model}, batch {a.batch}")
    for _ in range(a.turns if not said and first else 0):
        ours.stdin.write("\n")
        ours.stdin.flush()
        answer = ours.stdout.readline()
        if answer != "turn\n":
            said = answer
            break
        for way, run in found.items():
            if callable(run):
                try:
                    turns[way].append(median(run))
                except Exception as e:
                    found[way] = reason(e)
    print(said + ours.communicate()[0], end="", flush=True)
    for way, run in found.items():
        line(a.model, a.batch, way, "fp16" if a.device == "cuda" else "fp32", turns[way], about if callable(run) else run)
    del held
    return ours.returncode


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--count", action="store_true")
    p.add_argument("--turns", type=int, default=7)
    p.add_argument("--turn-ms", type=int, default=100)
    p.add_argument("--device", default="cuda")
    p.add_argument("model")
    p.add_argument("batch", type=int, nargs="?", default=1)
    mine, command = sys.argv[1:], []
    if "--" in mine:
        mine, command = mine[:mine.index("--")], mine[mine.index("--") + 1:]
    a = p.parse_args(mine)
    if a.count:
        return count(a.model)
    return in_turns(a, command)


if __name__ == "__main__":
    sys.exit(main())
