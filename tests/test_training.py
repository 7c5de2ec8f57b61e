"""``python -m bench training``: the layers written by hand, the experiment's rules, and one quick run."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RunPython

import bench.training
from bench.training import layers, networks, settings
from bench.training.claims import Claim
from bench.training.results import Results, Trial
from fastnorm.layers import BatchNorm

LABELS = np.array([2, 0, 1, 2, 1])
F8: Any = np.float64


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def image(*shape: int) -> np.ndarray:
    return rng().standard_normal(shape)


def classifier(*between: Any) -> networks.Network:
    """Images (5, 4, 6, 2) to 3 classes."""
    head = [layers.GlobalAverage(), layers.Linear(4, 3, rng(), dtype=F8)]
    return networks.Network([layers.Convolution(2, 4, rng(), dtype=F8), *between, *head])


NETWORKS: dict[str, tuple[Callable[[], networks.Network], tuple[int, ...]]] = {
    "linear": (lambda: networks.Network([layers.Linear(6, 3, rng(), dtype=F8)]), (5, 6)),
    "two linear": (
        lambda: networks.Network([layers.Linear(6, 4, rng(), dtype=F8), layers.Relu(), layers.Linear(4, 3, rng(), dtype=F8)]),
        (5, 6),
    ),
    "convolution": (classifier, (5, 4, 6, 2)),
    "stride 2": (lambda: classifier(layers.Relu(), layers.Convolution(4, 4, rng(), stride=2, dtype=F8)), (5, 4, 6, 2)),
    "with batch norm": (lambda: classifier(BatchNorm(4, axis=-1, dtype=F8), layers.Relu()), (5, 4, 6, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_central_differences(name: str) -> None:
    made, shape = NETWORKS[name]
    network, x = made(), image(*shape)

    def loss() -> float:
        return layers.softmax_cross_entropy(network.forward(x), LABELS)[0]

    gradient = layers.softmax_cross_entropy(network.forward(x), LABELS)[1]
    for layer in reversed(network.layers):
        gradient = layer.backward(gradient)
    pairs = [(x, gradient), *network.parameters()]
    for value, found in [(value, found.copy()) for value, found in pairs]:
        for index in np.unique(np.linspace(0, value.size - 1, 7).astype(int)):
            before, step = value.flat[index], 1e-6
            value.flat[index] = before + step
            above = loss()
            value.flat[index] = before - step
            below = loss()
            value.flat[index] = before
            assert found.flat[index] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_its_definition(stride: int) -> None:
    layer, x = layers.Convolution(2, 3, rng(), stride, dtype=F8), image(2, 4, 6, 2)
    layer.linear.bias[...] = [1.0, 2.0, 3.0]
    kernel = layer.linear.weight.reshape(3, 3, 2, 3)
    y = layer.forward(x)
    assert y.shape == (2, 4 // stride, 6 // stride, 3)
    for n, row, column, out in np.ndindex(y.shape):
        expected = layer.linear.bias[out]
        for i, j, channel in np.ndindex(3, 3, 2):
            at = row * stride + i - 1, column * stride + j - 1
            if 0 <= at[0] < 4 and 0 <= at[1] < 6:
                expected += x[n, at[0], at[1], channel] * kernel[i, j, channel, out]
        assert y[n, row, column, out] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_loss_is_its_definition_and_does_not_overflow() -> None:
    logits = np.array([[0.0, math.log(3.0)], [1000.0, 0.0]])
    loss, gradient = layers.softmax_cross_entropy(logits, np.array([1, 1]))
    assert loss == pytest.approx((-math.log(0.75) + 1000.0) / 2)
    np.testing.assert_allclose(gradient, [[0.125, -0.125], [0.5, -0.5]], rtol=1e-12)


def test_sgd_remembers_the_gradient() -> None:
    value, gradient = np.array([1.0]), np.array([2.0])
    optimizer = layers.SGD([(value, gradient)], rate=0.1, momentum=0.5)
    optimizer.step()
    assert value[0] == pytest.approx(1.0 - 0.1 * 2.0)
    gradient[...] = 4.0
    optimizer.step()
    assert value[0] == pytest.approx(0.8 - 0.1 * (4.0 + 0.5 * 2.0))


def test_exact_statistics_are_those_of_each_layers_input() -> None:
    momentum = 0.1
    network = networks.perceptron("after", 1.0, momentum, rng())
    batches = [image(n, 64).astype(np.float32) for n in (30, 20)]
    network.train(True)
    network.forward(3 * batches[0])
    network.recompute_statistics(batches)
    x = np.concatenate(batches)
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            np.testing.assert_allclose(layer.running_mean, x.mean(axis=0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(layer.running_var, x.var(axis=0, ddof=1), rtol=1e-5, atol=1e-6)
        x = layer.forward(x)


@pytest.mark.parametrize("alike", [1, 2, 4])
def test_an_epoch_takes_samples_once_and_in_runs_of_one_class(alike: int) -> None:
    from bench.training import trial

    labels = np.repeat(np.arange(5), 9)
    order = trial.batches(labels, 4, alike, rng())
    assert order.shape == (11 if alike == 1 else 10, 4)  # of 9 samples of a class one is left over
    assert len(np.unique(order)) == order.size
    runs = labels[order].reshape(-1, alike)
    assert (runs == runs[:, :1]).all()
    if alike < 4:
        assert any(len(set(batch)) > 1 for batch in labels[order])


def test_two_networks_of_one_seed_differ_in_the_norm_only() -> None:
    from bench.training import trial

    def first_numbers(seed: int) -> list[float]:
        return [generator.random() for generator in trial.generators(seed)]

    assert first_numbers(0) == first_numbers(0)
    assert len({*first_numbers(0), *first_numbers(1)}) == 4
    for made, norms in ((networks.perceptron, settings.MLP_NORMS), (networks.convolutional, settings.CNN_NORMS)):
        weights = [[value for value, _ in made(norm, 1.0, 0.1, rng()).parameters() if value.ndim == 2] for norm in norms]
        for others in weights[1:]:
            for one, other in zip(weights[0], others, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_trial_repeats_bit_for_bit() -> None:
    from bench.training import trial

    setting = settings.QUICK.mlp("before", 0.1)
    first = trial.run(setting, 3)
    assert first == trial.run(setting, 3)
    assert first.accuracy[-1] > 0.5
    assert first.finished


def test_a_network_that_blows_up_is_reported() -> None:
    from bench.training import trial

    found = trial.run(settings.QUICK.mlp("none", settings.HIGH, scale=100.0), 0)
    assert not found.finished
    assert len(found.loss) == len(found.accuracy) <= 2
    results = Results(settings.QUICK, {settings.QUICK.mlp("none", settings.HIGH): [found]})
    assert results.overflows(settings.QUICK.mlp("none", settings.HIGH)) == 1
    assert np.isnan(results.curve(settings.QUICK.mlp("none", settings.HIGH), "loss")[0, -1])


def test_the_plan_has_what_the_claims_need() -> None:
    for plan in (settings.FULL, settings.QUICK):
        made = plan.settings()
        assert len(set(made)) == len(made)
        assert {settings.LOW, settings.HIGH} <= set(plan.rates)
        assert {"128", "4", "4, one class"} <= set(plan.batches)


def test_claims_are_counted_by_seed() -> None:
    for true, verdict in (([1, 1, 1], "holds"), ([1, 1, 0], "mostly"), ([1, 0], "not seen"), ([0, 0], "not seen")):
        assert Claim("", "", "", np.array(true, bool)).verdict == verdict


def test_epochs_to_the_target() -> None:
    assert Trial([1.0, 1.0, 1.0], [0.9, 0.96, 0.94], 0.0, True).epochs_to_target == 2
    assert Trial([1.0], [0.9], 0.0, True).epochs_to_target == math.inf


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--jobs", "0"]])
def test_impossible_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.training.main(arguments)
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("rich", "matplotlib"))), reason="needs rich and matplotlib")
def test_a_quick_run_draws_and_tells(run_python: RunPython, tmp_path: Path) -> None:
    out = run_python("-m", "bench", "training", "--quick", "--output", str(tmp_path)).stdout
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    for text in ("multilayer perceptron", "convolutional network", "one class", "renorm", "verdict", "Wu, He 2018"):
        assert text in out
