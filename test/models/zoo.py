#!/usr/bin/env python3
"""One network of each family that torchvision has, with seeded weights, as ONNX files.

    zoo.py --list
    zoo.py DIR NAME...

Writes DIR/NAME.onnx.  These are for what graphs look like, not for speed: images are as small as the
network takes.  Free first dimension "batch", but for detectors, which take one image.  Needs torch
and torchvision.
"""
import argparse
import pathlib
import warnings

SEED = 7
OPSET = 17
SETTLE_ROWS = 16


def images(*shape):
    import torch

    return (torch.randn(*shape),)


def classifier(name, size=96, **args):
    def make():
        from torchvision import models

        return getattr(models, name)(weights=None, **args), images(2, 3, size, size)

    return make


def segmenter(name):
    def make():
        from torch import nn
        from torchvision.models import segmentation

        class Scores(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net

            def forward(self, x):
                return self.net(x)["out"]

        net = getattr(segmentation, name)(weights=None, weights_backbone=None)
        return Scores(net), images(2, 3, 96, 96)

    return make


def video(name):
    def make():
        from torchvision.models import video as models

        return getattr(models, name)(weights=None), images(2, 3, 8, 48, 48)

    return make


def pyramid(backbone):
    """A detector's backbone: a feature pyramid, five maps."""

    def make():
        from torch import nn
        from torchvision.models.detection import backbone_utils

        class Maps(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = backbone_utils.resnet_fpn_backbone(backbone_name=backbone, weights=None)

            def forward(self, x):
                return tuple(self.net(x).values())

        return Maps(), images(2, 3, 96, 96)

    return make


def detector(name, **thresholds):
    """Boxes, scores and labels, as many as there are: shapes that depend on data."""

    def make():
        import torch
        from torch import nn
        from torchvision.models import detection

        class Found(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net

            def forward(self, x):
                found = self.net([x[0]] if len(x) == 1 else list(x))[0]
                return found["boxes"], found["scores"], found["labels"]

        net = getattr(detection, name)(weights=None, weights_backbone=None, **thresholds)
        if name == "ssd300_vgg16":  # it has no norms behind its head: scores would saturate, and tie
            for p in net.head.parameters():
                p.data *= 1e-4
        return Found(net), (torch.rand(1, 3, 320, 320),)

    return make


MODELS = {
    "convnext_tiny": classifier("convnext_tiny"),
    "densenet121": classifier("densenet121"),
    "efficientnet_b0": classifier("efficientnet_b0"),
    "efficientnet_v2_s": classifier("efficientnet_v2_s"),
    "googlenet": classifier("googlenet", init_weights=False),
    "inception_v3": classifier("inception_v3", 299, init_weights=False),
    "maxvit_t": classifier("maxvit_t", 224),
    "mnasnet0_5": classifier("mnasnet0_5"),
    "mobilenet_v2": classifier("mobilenet_v2"),
    "mobilenet_v3_small": classifier("mobilenet_v3_small"),
    "regnet_x_400mf": classifier("regnet_x_400mf"),
    "regnet_y_400mf": classifier("regnet_y_400mf"),
    "resnet18": classifier("resnet18"),
    "resnext50_32x4d": classifier("resnext50_32x4d"),
    "shufflenet_v2_x0_5": classifier("shufflenet_v2_x0_5"),
    "squeezenet1_0": classifier("squeezenet1_0"),
    "swin_t": classifier("swin_t", 224),
    "vgg11_bn": classifier("vgg11_bn", 224),
    "vit_b_32": classifier("vit_b_32", 224),
    "wide_resnet50_2": classifier("wide_resnet50_2"),
    "deeplabv3_mobilenet_v3_large": segmenter("deeplabv3_mobilenet_v3_large"),
    "fcn_resnet50": segmenter("fcn_resnet50"),
    "lraspp_mobilenet_v3_large": segmenter("lraspp_mobilenet_v3_large"),
    "mc3_18": video("mc3_18"),
    "r3d_18": video("r3d_18"),
    "pyramid_resnet18": pyramid("resnet18"),
    "fasterrcnn_mobilenet_v3_large_320_fpn": detector("fasterrcnn_mobilenet_v3_large_320_fpn", box_score_thresh=0.0109),
    "retinanet_resnet50_fpn": detector("retinanet_resnet50_fpn", score_thresh=0.01),
    "ssd300_vgg16": detector("ssd300_vgg16"),
    "ssdlite320_mobilenet_v3_large": detector("ssdlite320_mobilenet_v3_large"),
}


def settle(net, example):
    """Weights that keep an activation's size through the layers, and batch norms that have seen data."""
    import torch
    from torch import nn

    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    for name, m in net.named_modules():
        if "head" in name:
            continue  # a detector's are made so that no score is saturated
        if isinstance(m, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        elif isinstance(m, norms):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.2, 0.2)
            m.momentum = None  # a plain mean over what it sees
    net.eval()
    for m in net.modules():
        if isinstance(m, norms):
            m.train()
    with torch.no_grad():  # of few rows, some channels hardly vary, and errors grow
        net(torch.randn(SETTLE_ROWS, *example[0].shape[1:]))
    net.eval()


def write(name, path):
    import torch

    warnings.filterwarnings("ignore")
    torch.manual_seed(SEED)
    net, example = MODELS[name]()
    settle(net, example)
    with torch.no_grad():
        found = net(*example)
    outputs = [f"y{i}" for i in range(len(found) if isinstance(found, tuple) else 1)]
    free = {n: {0: "batch"} for n in ["x", *outputs]} if len(example[0]) > 1 else None
    # With gradients on, attention is exported as the products it is made of.
    torch.onnx.export(net, example, str(path), opset_version=OPSET, input_names=["x"], output_names=outputs,
                      dynamic_axes=free)


def main():
    p = argparse.ArgumentParser(description="Write one network of each family as ONNX.")
    p.add_argument("--list", action="store_true", help="name the networks and stop")
    p.add_argument("dir", nargs="?", type=pathlib.Path)
    p.add_argument("name", nargs="*")
    a = p.parse_args()
    if a.list:
        print("\n".join(MODELS))
        return
    unknown = [n for n in a.name if n not in MODELS]
    if not a.dir or not a.name or unknown:
        p.error(f"no network named {unknown[0]}" if unknown else "a folder and a network's name are needed")
    a.dir.mkdir(parents=True, exist_ok=True)
    for name in a.name:
        path = a.dir / f"{name}.onnx"
        write(name, path)
        print(f"{path} {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
