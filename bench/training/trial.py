"""One setting with one seed: data, batches, epochs, evaluation."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastnorm as fn
from bench.training.layers import SGD, softmax_cross_entropy
from bench.training.networks import NETWORKS, Network
from bench.training.results import Trial
from bench.training.settings import MOMENTUM, STATISTICS_MOMENTUM, Setting

RAMP = (1 / 30, 5 / 30)
"""Batch renorm is batch norm until the first share of training, and wholly free after the second (Ioffe 2017, section 4.1)."""
_CHUNK = 256


class Data(NamedTuple):
    x: np.ndarray  # (N, 8, 8, 1) float32
    labels: np.ndarray


@cache
def digits(seed: int) -> tuple[Data, Data]:
    """Half of the digits to train on, half to test on: 899 test samples make one error 0.1 %."""
    found = load_digits()
    images = found.images[..., None].astype(np.float32)
    halves = train_test_split(images, found.target, test_size=0.5, random_state=seed, stratify=found.target)
    mean, var = fn.mean_var(halves[0])
    train, test = ((half - np.float32(mean)) / np.float32(np.sqrt(var)) for half in halves[:2])
    return Data(train, halves[2]), Data(test, halves[3])


def batches(labels: np.ndarray, size: int, alike: int, rng: np.random.Generator) -> np.ndarray:
    """One epoch: indices (n_batches, size), in which runs of `alike` samples have one class; the rest waits for another epoch."""
    order = rng.permutation(len(labels))
    if alike > 1:
        members = [order[labels[order] == label] for label in np.unique(labels)]
        runs = np.concatenate([of_class[: len(of_class) // alike * alike].reshape(-1, alike) for of_class in members])
        order = rng.permutation(runs).ravel()
    return order[: len(order) // size * size].reshape(-1, size)


def accuracy(network: Network, data: Data) -> float:
    network.train(False)
    found = [network.forward(data.x[lo : lo + _CHUNK]).argmax(axis=1) for lo in range(0, len(data.x), _CHUNK)]
    return float((np.concatenate(found) == data.labels).mean())


def epoch(network: Network, optimizer: SGD, data: Data, order: np.ndarray) -> float:
    """Mean loss; NaN as soon as one is not finite."""
    network.train(True)
    total = 0.0
    for batch in order:
        loss, dlogits = softmax_cross_entropy(network.forward(data.x[batch]), data.labels[batch])
        if not np.isfinite(loss):
            return np.nan
        network.backward(dlogits)
        optimizer.step()
        total += loss
    return total / len(order)


def generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Of the weights and of the order of samples: the same for every norm, so that two networks of one seed differ in the norm only."""
    return np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))


def run(setting: Setting, seed: int) -> Trial:
    train, test = digits(seed)
    train = Data(train.x[: setting.samples], train.labels[: setting.samples])
    if setting.network == "mlp":
        train, test = (Data(half.x.reshape(len(half.x), -1), half.labels) for half in (train, test))
    weights, order = generators(seed)
    network = NETWORKS[setting.network](setting.norm, setting.scale, STATISTICS_MOMENTUM[setting.batch], weights)
    optimizer = SGD(network.parameters(), setting.rate, MOMENTUM)
    trial = Trial([], [], np.nan, True)
    lo, hi = RAMP
    with np.errstate(over="ignore", invalid="ignore"):  # networks that blow up are part of the experiment
        for at in range(setting.epochs):
            network.bound_renorm(min(1.0, max(0.0, (at / setting.epochs - lo) / (hi - lo))))
            trial.loss.append(epoch(network, optimizer, train, batches(train.labels, setting.batch, setting.alike, order)))
            trial.accuracy.append(accuracy(network, test))
            if not np.isfinite(trial.loss[-1]):
                return trial._replace(exact=trial.accuracy[-1], finished=False)
        network.recompute_statistics([train.x[at : at + _CHUNK] for at in range(0, len(train.x), _CHUNK)])
        return trial._replace(exact=accuracy(network, test))
