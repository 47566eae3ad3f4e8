"""The networks once more in plain PyTorch, and weights copied into them.

Written from the authors' code and the papers; imports nothing of ours. Layers
of one kind are registered in the order in which the Keras networks create
theirs. Import it inside a test: PyTorch is then loaded after the backend.
"""

import keras
import torch
from keras.ops import convert_to_numpy as to_numpy
from torch import nn


class Norm(nn.BatchNorm2d):
    """Remembers how many numbers a channel had."""

    def forward(self, x):
        self.count = x.numel() // x.shape[1]
        return super().forward(x)


def conv(channels, filters, size=3, stride=1, **kwargs):
    return nn.Conv2d(
        channels, filters, size, stride, size // 2, bias=False, **kwargs
    )


class Residual(nn.Module):
    """relu(residual + shortcut), conv1x1-BN as shortcut where shapes differ."""

    def __init__(self, residual, channels, filters, stride):
        super().__init__()
        self.residual = residual
        self.shortcut = nn.Identity()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(
                conv(channels, filters, 1, stride), Norm(filters)
            )

    def forward(self, x):
        return torch.relu(self.residual(x) + self.shortcut(x))


def basic(channels, width, stride):
    residual = nn.Sequential(
        conv(channels, width, 3, stride),
        Norm(width),
        nn.ReLU(),
        conv(width, width),
        Norm(width),
    )
    return Residual(residual, channels, width, stride), width


def narrow(channels, width, stride):
    """The three convolutions of a bottleneck, and what is between them."""
    return (
        conv(channels, width, 1),
        Norm(width),
        nn.ReLU(),
        conv(width, width, 3, stride),
        Norm(width),
        nn.ReLU(),
        conv(width, 4 * width, 1),
    )


def bottleneck(channels, width, stride):
    residual = nn.Sequential(*narrow(channels, width, stride), Norm(4 * width))
    return Residual(residual, channels, 4 * width, stride), 4 * width


class PreActivation(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.first = nn.Sequential(Norm(channels), nn.ReLU())
        self.project = None
        if stride != 1 or channels != 4 * width:
            self.project = conv(channels, 4 * width, 1, stride)
        self.rest = nn.Sequential(*narrow(channels, width, stride))

    def forward(self, x):
        y = self.first(x)
        shortcut = self.project(y) if self.project else x
        return self.rest(y) + shortcut


class Dense(nn.Module):
    def __init__(self, channels, growth):
        super().__init__()
        self.new = nn.Sequential(
            Norm(channels), nn.ReLU(), conv(channels, growth)
        )

    def forward(self, x):
        return torch.cat([x, self.new(x)], 1)


class InvertedResidual(nn.Module):
    def __init__(self, channels, expansion, filters, stride):
        super().__init__()
        inner = expansion * channels
        self.residual = nn.Sequential(
            conv(channels, inner, 1),
            Norm(inner),
            nn.ReLU(),
            conv(inner, inner, 3, stride, groups=inner),
            Norm(inner),
            nn.ReLU(),
            conv(inner, filters, 1),
            Norm(filters),
        )
        self.shortcut = nn.Identity()
        if stride == 1 and channels != filters:
            self.shortcut = nn.Sequential(
                conv(channels, filters, 1), Norm(filters)
            )
        self.stride = stride

    def forward(self, x):
        y = self.residual(x)
        return y + self.shortcut(x) if self.stride == 1 else y


def finish(layers, channels, classes):
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )


def resnet(channels, classes, block, counts, width):
    layers = [conv(channels, width), Norm(width), nn.ReLU()]
    channels = width
    for stage, count in enumerate(counts):
        for stride in [2 if stage else 1] + [1] * (count - 1):
            layer, channels = block(channels, width * 2**stage, stride)
            layers.append(layer)
    return finish(layers, channels, classes)


def preact_resnet(channels, classes, blocks):
    layers, channels = [conv(channels, 16)], 16
    for width in (16, 32, 64):
        for stride in [1 if width == 16 else 2] + [1] * (blocks - 1):
            layers.append(PreActivation(channels, width, stride))
            channels = 4 * width
    return finish(layers + [Norm(channels), nn.ReLU()], channels, classes)


def vgg(channels, classes, counts, widths):
    layers = []
    for count, width in zip(counts, widths, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers.extend([Norm(width), nn.ReLU()])
            channels = width
        layers.append(nn.MaxPool2d(2))
    return finish(layers, channels, classes)


def densenet(channels, classes, depth, first):
    layers, channels = [conv(channels, first)], first
    for block in range(3):
        if block:
            layers.extend([Norm(channels), nn.ReLU()])
            layers.append(conv(channels, channels, 1))
            layers.append(nn.AvgPool2d(2))
        for _ in range(depth):
            layers.append(Dense(channels, 12))
            channels += 12
    return finish(layers + [Norm(channels), nn.ReLU()], channels, classes)


def mobilenet(channels, classes, stages, last):
    layers, channels = [conv(channels, 32), Norm(32), nn.ReLU()], 32
    for expansion, filters, blocks, first in stages:
        for stride in [first] + [1] * (blocks - 1):
            layers.append(
                InvertedResidual(channels, expansion, filters, stride)
            )
            channels = filters
    layers.extend([conv(channels, last, 1), Norm(last), nn.ReLU()])
    return finish(layers, last, classes)


class Flatten(nn.Module):
    """Channels last, as in Keras."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def logistic(side, channels, classes):
    return nn.Sequential(Flatten(), nn.Linear(side**2 * channels, classes))


def mlp(side, channels, classes):
    return nn.Sequential(
        Flatten(),
        nn.Linear(side**2 * channels, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )


def zhu2018(side, channels, classes):
    layers = []
    for width in (32, 64):
        for padding in (1, 0):
            layers.append(nn.Conv2d(channels, width, 3, padding=padding))
            layers.append(nn.ReLU())
            channels = width
        layers += [nn.MaxPool2d(2), nn.Dropout(0.25)]
        side = (side - 2) // 2
    layers += [Flatten(), nn.Linear(side**2 * channels, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(512, classes))


def pairs(model, twin):
    """Layers of the Keras model with weights, each with its twin."""
    kinds = (
        (keras.layers.Conv2D, lambda m: is_conv(m) and m.groups == 1),
        (keras.layers.DepthwiseConv2D, lambda m: is_conv(m) and m.groups > 1),
        (keras.layers.BatchNormalization, lambda m: isinstance(m, Norm)),
        (keras.layers.Dense, lambda m: isinstance(m, nn.Linear)),
    )
    found = []
    for kind, is_twin in kinds:
        ours = sorted(
            (layer for layer in model.layers if isinstance(layer, kind)),
            key=created,
        )
        found.extend(zip(ours, filter(is_twin, twin.modules()), strict=True))
    assert sum(len(layer.weights) for layer, _ in found) == len(model.weights)
    return found


def is_conv(module):
    return isinstance(module, nn.Conv2d)


def created(layer):
    """Keras counts the layers of a kind: dense, dense_1, and logits at last."""
    if layer.name == "logits":
        return float("inf")
    number = layer.name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def copy_weights(model, twin):
    orders = {
        keras.layers.Conv2D: (3, 2, 0, 1),
        keras.layers.DepthwiseConv2D: (2, 3, 0, 1),
        keras.layers.Dense: (1, 0),
        keras.layers.BatchNormalization: (0,),
    }
    for layer, module in pairs(model, twin):
        values = [torch.tensor(to_numpy(v).copy()) for v in layer.weights]
        values[0] = values[0].permute(orders[type(layer)])
        names = ["weight", "bias", "running_mean", "running_var"]
        for name, value in zip(names, values, strict=False):
            target = getattr(module, name)
            assert target.shape == value.shape, (layer.name, name)
            target.data.copy_(value)
