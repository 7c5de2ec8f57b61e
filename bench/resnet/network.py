"""A residual network of eighteen layers, after He et al. 2016, written with `torch.nn`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastnorm.torch import BatchNormAct2d

WIDTHS = (64, 128, 256, 512)

Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """Two convolutions, and the input around them."""

    def __init__(self, channels: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), norm(width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.norm1(self.conv1(x)))
        return torch.relu_(self.norm2(self.conv2(y)) + self.shortcut(x))


class FusedBlock(Block):
    """The same, with the addition and the activations inside the norms."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x))
        z: Tensor = self.norm2(self.conv2(y), self.shortcut(x))
        return z


class ResNet(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes); two blocks for every width."""

    def __init__(self, classes: int = 10, widths: tuple[int, ...] = WIDTHS, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 7, 2, padding=3, bias=False), norm(widths[0]), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        blocks, channels = [], widths[0]
        for at, width in enumerate(widths):
            blocks += [Block(channels, width, 1 if at == 0 else 2, norm), Block(width, width, 1, norm)]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks(self.pool(self.stem(x)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def fuse(model: ResNet) -> ResNet:
    """In place: norms before a ReLU do its work. Parameters, buffers and their names stay."""
    with_relu = [model.stem[1]]
    model.stem[2] = nn.Identity()
    for block in model.blocks:
        block.__class__ = FusedBlock
        with_relu += [block.norm1, block.norm2]
    for norm in with_relu:
        norm.__class__ = BatchNormAct2d
        norm.activation = "relu"
    return model


def norms(model: nn.Module) -> list[nn.Module]:
    kinds = (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)
    return [module for module in model.modules() if isinstance(module, kinds)]
