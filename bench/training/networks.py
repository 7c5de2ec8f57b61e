"""The two networks, and what one does with a network: forward, backward, modes, statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnorm.layers as norms
from bench.training.layers import Convolution, GlobalAverage, Linear, Pairs, Relu

CLASSES, SIDE = 10, 8
HIDDEN, DEPTH = 100, 4
CHANNELS, STRIDES = (16, 32, 32), (1, 2, 2)
GROUPS = 8
R_MAX, D_MAX = 3.0, 5.0  # the final bounds of Ioffe 2017


class Network:
    """Layers one after the other; the norm layers among them know two modes."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        self.norms = [layer for layer in layers if hasattr(layer, "training")]

    def train(self, mode: bool) -> None:
        for layer in self.norms:
            layer.train(mode)

    def forward(self, x: np.ndarray) -> np.ndarray:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: np.ndarray) -> None:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)

    def parameters(self) -> Pairs:
        return [pair for layer in self.layers for pair in layer.parameters()]

    def bound_renorm(self, share: float) -> None:
        """Allow batch renorm `share` of its whole correction; 0 is batch norm (r = 1, d = 0)."""
        for layer in self.norms:
            if hasattr(layer, "r_max"):
                layer.r_max, layer.d_max = 1 + share * (R_MAX - 1), share * D_MAX

    def recompute_statistics(self, batches: list[np.ndarray]) -> None:
        """Exact population statistics, layer by layer: each is computed on what the exact layers below it put out."""
        self.train(False)
        for layer in self.layers:
            if hasattr(layer, "recompute_statistics"):
                layer.recompute_statistics(batches)
            batches = [layer.forward(batch) for batch in batches]


def perceptron(norm: str, scale: float, momentum: float, rng: np.random.Generator) -> Network:
    """norm: "none", or batch norm "before" or "after" the activation of every hidden layer."""
    activated: dict[str, Callable[[], list[Any]]] = {
        "none": lambda: [Relu()],
        "before": lambda: [norms.BatchNorm(HIDDEN, momentum=momentum, activation="relu")],
        "after": lambda: [Relu(), norms.BatchNorm(HIDDEN, momentum=momentum)],
    }
    layers, n_in = [], SIDE * SIDE
    for _ in range(DEPTH):
        layers += [Linear(n_in, HIDDEN, rng, scale), *activated[norm]()]
        n_in = HIDDEN
    return Network([*layers, Linear(n_in, CLASSES, rng, scale)])


def convolutional(norm: str, scale: float, momentum: float, rng: np.random.Generator) -> Network:
    """Three convolutions, channels last, each with its norm and relu; norm: "none" or a key of `made`."""
    made: dict[str, Callable[[int, int], Any]] = {
        "batch": lambda side, channels: norms.BatchNorm(channels, axis=-1, momentum=momentum),
        "renorm": lambda side, channels: norms.BatchRenorm(channels, axis=-1, momentum=momentum),
        "group": lambda side, channels: norms.GroupNorm(GROUPS, channels, axis=-1),
        "layer": lambda side, channels: norms.LayerNorm((side, side, channels)),
    }
    layers: list[Any] = []
    n_in, side = 1, SIDE
    for channels, stride in zip(CHANNELS, STRIDES, strict=True):
        side //= stride
        between = [] if norm == "none" else [made[norm](side, channels)]
        layers += [Convolution(n_in, channels, rng, stride, scale), *between, Relu()]
        n_in = channels
    return Network([*layers, GlobalAverage(), Linear(n_in, CLASSES, rng, scale)])


NETWORKS = {"mlp": perceptron, "cnn": convolutional}
