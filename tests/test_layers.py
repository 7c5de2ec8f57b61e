"""``fastnorm.layers.BatchNorm``: state, modes, gradients, and the two kinds of population statistics."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import cases
import numpy as np
import oracle
import pytest
import tolerance
from cases import Problem
from tolerance import assert_within

import fastnorm as fn

PROBLEM = Problem((6, 3, 5, 6))  # planar kernels, which other tests have compiled
STATE = ("gamma", "beta", "running_mean", "running_var", "num_batches_tracked")


def batches(n: int, dtype: Any = cases.F4) -> list[np.ndarray]:
    return [cases.sample(Problem((2 + i, 3, 5, 6)), dtype, seed=i) for i in range(n)]


def trained_layer(**options: Any) -> fn.layers.BatchNorm:
    layer = fn.layers.BatchNorm(3, **options)
    if layer.gamma is not None:
        layer.gamma[...] = cases.parameter(3)
        layer.beta[...] = cases.parameter(3, seed=2)
    for batch in batches(2):
        layer(batch)
    return layer


def same_state(a: fn.layers.BatchNorm, b: fn.layers.BatchNorm) -> None:
    for name in STATE:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_a_new_layer_is_the_identity_of_statistics() -> None:
    layer = fn.layers.BatchNorm(3)
    np.testing.assert_array_equal(layer.gamma, np.ones(3))
    np.testing.assert_array_equal(layer.beta, np.zeros(3))
    np.testing.assert_array_equal(layer.running_mean, np.zeros(3))
    np.testing.assert_array_equal(layer.running_var, np.ones(3))
    assert layer.num_batches_tracked == 0
    assert layer.training is True


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_state_has_the_dtype_asked_for(dtype: type) -> None:
    layer = fn.layers.BatchNorm(3, dtype=dtype)
    for name in STATE[:4]:
        assert getattr(layer, name).dtype == dtype, name


def test_training_is_the_function_and_updates_the_running_statistics() -> None:
    x = cases.sample(PROBLEM)
    layer = fn.layers.BatchNorm(3, eps=1e-3, momentum=0.3)
    means, variances = np.zeros(3, np.float32), np.ones(3, np.float32)
    expected = fn.batch_norm_train(
        x, np.ones(3, np.float32), np.zeros(3, np.float32), eps=1e-3, momentum=0.3, running_mean=means, running_var=variances
    )
    np.testing.assert_array_equal(layer(x), expected.y)
    np.testing.assert_array_equal(layer.running_mean, means)
    np.testing.assert_array_equal(layer.running_var, variances)
    assert layer.num_batches_tracked == 1
    layer.forward(x)
    assert layer.num_batches_tracked == 2


def test_evaluation_is_inference_and_changes_nothing() -> None:
    layer = trained_layer()
    before = copy.deepcopy(layer)
    layer.eval()
    assert layer.training is False
    x = cases.sample(PROBLEM, seed=9)
    expected = fn.batch_norm(x, layer.running_mean, layer.running_var, layer.gamma, layer.beta)
    np.testing.assert_array_equal(layer(x), expected)
    np.testing.assert_array_equal(layer.forward(x), expected)
    same_state(layer, before)
    layer.train()
    assert layer.training is True
    assert not np.array_equal(layer(x), expected)


def test_axis_and_activation_and_unbiased_are_passed_on() -> None:
    x = cases.sample(Problem((6, 5, 6, 3), -1))
    layer = fn.layers.BatchNorm(3, axis=-1, activation="relu", unbiased=False, momentum=1.0)
    y = layer(x)
    expected = oracle.forward(x, -1, activation="relu")
    assert_within(y, expected.y, tolerance.output(expected, np.float32))
    assert_within(layer.running_var, expected.var, 2 * tolerance.var(expected.var, np.float32))


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("training", [True, False])
def test_backward_is_the_gradient_of_the_last_forward(training: bool, activation: str | None) -> None:
    layer = trained_layer(activation=activation)
    if not training:
        layer.eval()
    x, dy = cases.sample(PROBLEM, seed=9), cases.sample(PROBLEM, seed=7)
    statistics = oracle.forward(x) if training else oracle.forward(x, mean=layer.running_mean, var=layer.running_var)
    expected = oracle.backward(
        dy, x, statistics.mean, statistics.rstd, gamma=layer.gamma, beta=layer.beta, activation=activation, training=training
    )
    layer(x)
    dx = layer.backward(dy)
    bound = tolerance.Gradient(expected, np.float32, layer.gamma)
    # The statistics come from the library here: the promise once more.
    assert_within(dx, expected.dx, 2 * bound.dx, "dx")
    assert_within(layer.dgamma, expected.dgamma, 2 * bound.dgamma, "dgamma")
    assert_within(layer.dbeta, expected.dbeta, 2 * bound.dbeta, "dbeta")


def test_backward_overwrites_the_gradients() -> None:
    layer = trained_layer()
    x, dy = cases.sample(PROBLEM), cases.sample(PROBLEM, seed=7)
    layer(x)
    layer.backward(dy)
    once = layer.dgamma.copy(), layer.dbeta.copy()
    layer(x)
    layer.backward(dy)
    np.testing.assert_array_equal(layer.dgamma, once[0])
    np.testing.assert_array_equal(layer.dbeta, once[1])


def test_backward_needs_a_forward() -> None:
    with pytest.raises((RuntimeError, ValueError), match="forward"):
        fn.layers.BatchNorm(3).backward(np.ones((2, 3), np.float32))


def test_a_refused_batch_leaves_the_state_alone() -> None:
    layer = trained_layer()
    before = copy.deepcopy(layer)
    with pytest.raises(ValueError, match=r"3|4"):
        layer(np.ones((5, 4, 2, 2), np.float32))
    with pytest.raises(ValueError, match="unbiased"):
        layer(np.ones((1, 3), np.float32))
    same_state(layer, before)


def test_an_empty_batch_leaves_the_statistics_alone() -> None:
    for momentum in (0.1, None):
        layer = trained_layer(momentum=momentum)
        before = copy.deepcopy(layer)
        assert layer(np.empty((0, 3, 5, 6), np.float32)).shape == (0, 3, 5, 6)
        np.testing.assert_array_equal(layer.running_mean, before.running_mean)
        np.testing.assert_array_equal(layer.running_var, before.running_var)
        assert layer.num_batches_tracked == before.num_batches_tracked


def test_without_affine_there_are_no_parameters() -> None:
    layer = fn.layers.BatchNorm(3, affine=False)
    x = cases.sample(PROBLEM)
    np.testing.assert_array_equal(layer(x), fn.batch_norm_train(x).y)
    layer.backward(x)
    assert not list(layer.parameters())


@pytest.mark.parametrize("unbiased", [True, False])
def test_momentum_none_is_the_average_of_all_batches(unbiased: bool) -> None:
    layer = fn.layers.BatchNorm(3, momentum=None, unbiased=unbiased, dtype=np.float64)
    seen = batches(4, cases.F8)
    for batch in seen:
        layer(batch)
    moments = [oracle.mean_var(batch, (0, 2, 3), ddof=1 if unbiased else 0) for batch in seen]
    mean, var = np.mean([m for m, _ in moments], axis=0), np.mean([v for _, v in moments], axis=0)
    # Four averages in float64, each a rounding of 2**-53, of values of this size.
    assert_within(layer.running_mean, mean, tolerance.mean(np.abs(mean) * 16, var, cases.F8))
    assert_within(layer.running_var, var, tolerance.var(var, cases.F8))
    assert layer.num_batches_tracked == 4


def test_momentum_none_forgets_the_initial_values() -> None:
    layer = fn.layers.BatchNorm(3, momentum=None)
    layer.running_mean[...] = 1e6
    x = cases.sample(PROBLEM)
    layer(x)
    expected = oracle.forward(x)
    assert_within(layer.running_mean, expected.mean, 2 * tolerance.mean(expected.mean, expected.var, np.float32) + 2.0**-24)


@pytest.mark.parametrize("unbiased", [True, False])
def test_recomputed_statistics_are_those_of_the_pooled_data(unbiased: bool) -> None:
    layer = fn.layers.BatchNorm(3, dtype=np.float64, unbiased=unbiased)
    layer.gamma[...] = 2.0
    layer(cases.sample(PROBLEM, seed=50))
    seen = batches(5, cases.F8)
    layer.recompute_statistics(iter(seen))
    pooled = np.concatenate([batch.transpose(1, 0, 2, 3).reshape(3, -1) for batch in seen], axis=1)
    mean, var = oracle.mean_var(pooled, 1, ddof=1 if unbiased else 0)
    assert_within(layer.running_mean, mean, 1e-12 * (np.abs(mean) + np.sqrt(var)))
    assert_within(layer.running_var, var, 1e-12 * var)
    np.testing.assert_array_equal(layer.gamma, np.full(3, 2.0))
    assert layer.training is True


def test_state_dict_restores_a_layer() -> None:
    layer = trained_layer()
    state = layer.state_dict()
    assert set(state) == set(STATE)
    other = fn.layers.BatchNorm(3)
    other.load_state_dict({name: np.copy(value) for name, value in state.items()})
    same_state(other, layer)
    x = cases.sample(PROBLEM)
    np.testing.assert_array_equal(other(x), layer(x))
    same_state(other, layer)


def test_loaded_state_is_independent_of_its_source() -> None:
    layer, other = trained_layer(), fn.layers.BatchNorm(3)
    other.load_state_dict(layer.state_dict())
    before = copy.deepcopy(layer)
    other(cases.sample(PROBLEM, seed=3))
    other.gamma[...] = 5.0
    same_state(layer, before)


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_a_wrong_state_is_refused_as_a_whole(damage: str) -> None:
    layer = trained_layer()
    before = copy.deepcopy(layer)
    state = {name: np.copy(value) + 1 for name, value in layer.state_dict().items()}
    if damage == "missing":
        del state["running_var"]
    elif damage == "unknown":
        state["weight"] = np.ones(3)
    else:
        state["running_var"] = np.ones(4)
    with pytest.raises((KeyError, ValueError), match="weight" if damage == "unknown" else "running_var"):
        layer.load_state_dict(state)
    same_state(layer, before)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"])
def test_copies_continue_on_their_own(clone: Any) -> None:
    layer = trained_layer(axis=1, eps=1e-3, activation="relu", momentum=None)
    twin = clone(layer)
    same_state(twin, layer)
    before = copy.deepcopy(layer)
    x = cases.sample(PROBLEM, seed=3)
    y = twin(x)
    same_state(layer, before)
    np.testing.assert_array_equal(layer(x), y)
    same_state(twin, layer)
    assert clone(layer.eval() or layer).training is False


def test_parameters_pair_the_live_arrays_with_their_gradients() -> None:
    layer = trained_layer()
    pairs = layer.parameters()
    assert [value is held for (value, _), held in zip(pairs, (layer.gamma, layer.beta), strict=True)] == [True, True]
    assert [gradient is held for (_, gradient), held in zip(pairs, (layer.dgamma, layer.dbeta), strict=True)] == [True, True]
    before = layer(cases.sample(PROBLEM)).copy()
    for value, _ in pairs:
        value *= 2  # a step of an optimizer
    assert_within(layer(cases.sample(PROBLEM)), 2 * before, 2e-6 * (1 + np.abs(before)))


@pytest.mark.parametrize(
    ("options", "name"),
    [({"eps": -1.0}, "eps"), ({"momentum": 2.0}, "momentum"), ({"activation": "tanh"}, "activation"), ({"dtype": np.int32}, "dtype")],
)
def test_bad_options_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        fn.layers.BatchNorm(3, **options)(cases.sample(PROBLEM))


@pytest.mark.parametrize("n", [-1, 2.5, "3"])
def test_num_features_is_a_count(n: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="num_features"):
        fn.layers.BatchNorm(n)
