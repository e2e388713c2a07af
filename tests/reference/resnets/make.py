"""Residual networks as torchvision has them, in float64: logits, gradients and a Hessian-vector product.

    python make.py

writes a folder each with golden.safetensors and golden.json, in the form of ../resnet20_b_w8. Needs torch, numpy and
safetensors; the networks are written out here, after He et al. (2016) and torchvision's names, with the stride of a
bottleneck on its 3x3 convolution (v1.5).
"""

import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

SEED = 271828
HERE = pathlib.Path(__file__).parent
NETWORKS = {
    "bottleneck": dict(stem="image_net", unit="bottleneck", stages=[2, 1], width=4, classes=5, shortcut="B", size=18),
    "imagenet": dict(stem="image_net", unit="basic", stages=[1, 2], width=4, classes=5, shortcut="B", size=18),
    "parameter_free": dict(stem="cifar", unit="basic", stages=[1, 2], width=4, classes=5, shortcut="A", size=8),
}


def conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Unit(nn.Module):
    def __init__(self, kind, inputs, planes, stride, shortcut):
        super().__init__()
        outputs = planes * (4 if kind == "bottleneck" else 1)
        if kind == "bottleneck":
            layers = [conv(inputs, planes, 1), conv(planes, planes, 3, stride), conv(planes, outputs, 1)]
        else:
            layers = [conv(inputs, planes, 3, stride), conv(planes, planes, 3)]
        self.count = len(layers)
        for i, layer in enumerate(layers, 1):
            setattr(self, f"conv{i}", layer)
            setattr(self, f"bn{i}", nn.BatchNorm2d(layer.out_channels))
        self.free = None
        if stride != 1 or inputs != outputs:
            if shortcut == "B":
                self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
            else:
                self.free = (stride, (outputs - inputs) // 2)

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        if self.free:
            stride, more = self.free
            x = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, more, more))
        elif hasattr(self, "downsample"):
            x = self.downsample(x)
        return F.relu(x + y)


class Network(nn.Module):
    def __init__(self, stem, unit, stages, width, classes, shortcut, **_):
        super().__init__()
        self.large = stem == "image_net"
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False) if self.large else conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for number, units in enumerate(stages, 1):
            planes, blocks = width * 2 ** (number - 1), []
            for index in range(units):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(Unit(unit, inputs, planes, stride, shortcut))
                inputs = planes * (4 if unit == "bottleneck" else 1)
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.count = len(stages)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.large else x
        for number in range(1, self.count + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(x.mean((2, 3)))


def sums(x, z):
    return torch.tensor([x.sum(), (x * x).sum(), (x * z).sum()], dtype=torch.float64)


def make(name, sizes):
    torch.manual_seed(SEED)
    torch.set_default_dtype(torch.float64)
    network = Network(**sizes)
    rng = np.random.default_rng(SEED)
    with torch.no_grad():
        for parameter in network.parameters():
            # Norms away from 1 and 0, so that a mistake in them shows.
            shift = torch.randn_like(parameter) * 0.2 if parameter.dim() == 1 else 0.0
            parameter.copy_((parameter + shift).half().double())
    x = torch.randn(3, 3, sizes["size"], sizes["size"]).float().double()
    y = torch.tensor(rng.integers(0, sizes["classes"], 3))
    logits = network(x)
    loss = F.cross_entropy(logits, y)
    names = [n for n, _ in network.named_parameters()]
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    bits = [torch.tensor(rng.integers(0, 2, tuple(p.shape)), dtype=torch.uint8) for p in parameters]
    z = [2.0 * b.double() - 1.0 for b in bits]
    products = torch.autograd.grad(sum((g * v).sum() for g, v in zip(gradients, z)), parameters)
    out = {"x": x.float(), "y": y.to(torch.uint32), "logits": logits.detach(), "loss": loss.detach()}
    for n, p, g, b, v, h in zip(names, parameters, gradients, bits, z, products):
        g = g.detach()
        out |= {f"param.{n}": p.detach().half(), f"z.{n}": b, f"grad.{n}": g.float(), f"hz.{n}": h.float()}
        out |= {f"gradcheck.{n}": sums(g, v), f"hzcheck.{n}": sums(h, v)}
    for n, b in network.named_buffers():
        if "running" in n:
            out[f"bn.{n}"] = b.clone()
    network.eval()
    out["logits_eval"] = network(x).detach()
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden.safetensors")
    about = dict(torch=torch.__version__.split("+")[0], seed=SEED, made_by="../make.py", **sizes)
    (folder / "golden.json").write_text(json.dumps(about, indent=1) + "\n")


for name, sizes in NETWORKS.items():
    make(name, sizes)
