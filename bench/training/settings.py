"""The table of what is trained, and with which numbers. No NumPy here: `--help` and the environment come first."""

from __future__ import annotations

from typing import NamedTuple

LOW, HIGH = 0.01, 0.3
"""Learning rates of the curves, thirty times apart, as the boldest network of Ioffe, Szegedy 2015."""
MLP_NORMS = ("none", "before", "after")
CNN_NORMS = ("none", "batch", "group", "layer", "renorm")
MLP_BATCH = 64
CNN_RATE = 0.1 / 128
"""Per sample of the batch: the learning rate grows with the batch, as in Wu, He 2018."""
MOMENTUM = 0.9
"""Of SGD."""
BATCHES = {"128": (128, 1), "4": (4, 1), "4, in pairs": (4, 2), "4, one class": (4, 4)}
"""Name -> batch size, and how many samples in turn have one class; 1: independent. Pairs: Ioffe 2017, section 4.3."""
STATISTICS_MOMENTUM = {4: 0.01, MLP_BATCH: 0.1, 128: 0.1}
"""Of the running statistics, by batch size: 0.01 where a batch says little, as in Ioffe 2017."""
TARGET = 0.95
"""Test accuracy that counts as trained."""


class Setting(NamedTuple):
    """One network with one way to train it; a seed chooses the split, the initial weights and the order of samples."""

    network: str  # "mlp" or "cnn"
    norm: str
    rate: float
    scale: float  # of the initial weights; 1 is He et al. 2015
    batch: int
    alike: int
    epochs: int
    samples: int  # of the training half


class Plan(NamedTuple):
    rates: tuple[float, ...]
    scales: tuple[float, ...]
    batches: tuple[str, ...]
    mlp_epochs: int
    cnn_epochs: int
    samples: int

    def mlp(self, norm: str, rate: float, scale: float = 1.0) -> Setting:
        return Setting("mlp", norm, rate, scale, MLP_BATCH, 1, self.mlp_epochs, self.samples)

    def cnn(self, norm: str, name: str) -> Setting:
        batch, alike = BATCHES[name]
        return Setting("cnn", norm, CNN_RATE * batch, 1.0, batch, alike, self.cnn_epochs, self.samples)

    def mlp_sweeps(self) -> list[tuple[float, float]]:
        """Pairs (learning rate, scale): all rates at scale 1, and all scales at two rates."""
        pairs = [(rate, 1.0) for rate in self.rates] + [(rate, scale) for rate in (LOW, HIGH) for scale in self.scales]
        return list(dict.fromkeys(pairs))

    def settings(self) -> list[Setting]:
        """The longest first, which balances the load of several processes."""
        cnn = [self.cnn(norm, name) for name in reversed(self.batches) for norm in reversed(CNN_NORMS)]
        return cnn + [self.mlp(norm, rate, scale) for rate, scale in self.mlp_sweeps() for norm in MLP_NORMS]


FULL = Plan((0.003, LOW, 0.03, 0.1, HIGH, 1.0, 3.0), (0.1, 0.3, 1.0, 3.0, 10.0), tuple(BATCHES), 30, 12, 898)
QUICK = Plan((LOW, HIGH), (0.1, 1.0), ("128", "4", "4, one class"), 2, 2, 256)
