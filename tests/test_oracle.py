"""The oracle against other definitions, so that it can be trusted: exact fractions, central differences, known values."""

from __future__ import annotations

from fractions import Fraction

import cases
import numpy as np
import oracle
import pytest
import tolerance
from tolerance import assert_within

SMALL = cases.Problem((2, 3, 2, 2))


def exact_moments(values: np.ndarray) -> tuple[Fraction, Fraction]:
    fractions = [Fraction(float(v)) for v in values.ravel()]
    mean = sum(fractions) / len(fractions)
    return mean, sum((f - mean) ** 2 for f in fractions) / len(fractions)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e6, 1e12])
def test_moments_are_those_of_exact_fractions(offset: float) -> None:
    values = offset + np.random.default_rng(0).standard_normal((2, 101))
    found = oracle.moments(values)
    for c in range(2):
        mean, var = exact_moments(values[c])
        assert abs(Fraction(float(found.high[c])) + Fraction(float(found.low[c])) - mean) <= abs(mean) * Fraction(1, 2**100)
        assert abs(float(found.var[c]) / float(var) - 1) <= 4 * 2.0**-53
        exact = np.array([float(Fraction(float(v)) - mean) for v in values[c]])
        assert_within(found.deviation[c], exact, 2.0**-52 * np.abs(exact))


def test_statistics_follow_numpy() -> None:
    a = np.random.default_rng(1).random((3, 4, 5))
    for axis in (None, 0, -1, (0, 2), (1, 2), (0, 1, 2)):
        for keepdims in (False, True):
            mean, var = oracle.mean_var(a, axis, ddof=1, keepdims=keepdims)
            np.testing.assert_allclose(mean, a.mean(axis=axis, keepdims=keepdims), rtol=1e-14)
            np.testing.assert_allclose(var, a.var(axis=axis, ddof=1, keepdims=keepdims), rtol=1e-14)


def test_weights_that_count_are_repetitions() -> None:
    values, counts = np.array([1.0, 5.0, 2.5]), np.array([2, 1, 3])
    repeated = np.repeat(values, counts)
    np.testing.assert_allclose(oracle.weighted_mean_var(values, counts), (repeated.mean(), repeated.var()), rtol=1e-15)


def test_nonfinite_values_stay_in_their_row() -> None:
    rows = np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [np.inf, -np.inf]])
    found = oracle.moments(rows)
    np.testing.assert_array_equal(found.high, [1.5, np.nan, np.inf, np.nan])
    np.testing.assert_array_equal(found.var, [0.25, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS[1:])
def test_slope_is_the_derivative_of_the_activation(activation: str) -> None:
    z = np.linspace(-6, 6, 101) + 0.0123  # no point within a step of the kink
    h = 2.0 ** (-53 / 3)
    numeric = (oracle.activate(z + h, activation) - oracle.activate(z - h, activation)) / (2 * h)
    assert_within(oracle.activation_slope(z, activation), numeric, tolerance.difference(numeric, 6.0))


def test_activations_at_known_points() -> None:
    z = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(oracle.activate(z, "relu"), [0, 0, 1])
    np.testing.assert_array_equal(oracle.activate(z, "leaky_relu"), [-0.01, 0, 1])
    np.testing.assert_allclose(oracle.activate(z, "silu"), [-0.2689414213699951, 0, 0.7310585786300049], rtol=1e-15)
    np.testing.assert_allclose(oracle.activate(z, "gelu"), [-0.15865525393145707, 0, 0.8413447460685429], rtol=1e-15)
    np.testing.assert_allclose(oracle.activate(z, "gelu_tanh"), [-0.15880800939172324, 0, 0.8411919906082768], rtol=1e-14)


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_backward_is_the_derivative_of_forward(training: bool, activation: str | None) -> None:
    x, residual, weight = (cases.sample(SMALL, cases.F8, seed) for seed in (0, 1, 2))
    parameters = np.stack([cases.parameter(3, cases.F8), cases.parameter(3, cases.F8, 2)])
    at = oracle.forward(x)
    fixed = {} if training else {"mean": at.mean, "var": at.var}

    def loss(x: np.ndarray, parameters: np.ndarray, residual: np.ndarray) -> float:
        y = oracle.forward(x, gamma=parameters[0], beta=parameters[1], activation=activation, residual=residual, **fixed).y
        return float((weight * y).sum())

    found = oracle.backward(
        weight, x, at.mean, at.rstd, gamma=parameters[0], beta=parameters[1],
        activation=activation, residual=residual, training=training,
    )  # fmt: skip
    size = float(np.abs(weight).sum() * 4)
    for gradient, numeric in (
        (found.dx, oracle.central_difference(lambda v: loss(v, parameters, residual), x)),
        (np.stack([found.dgamma, found.dbeta]), oracle.central_difference(lambda v: loss(x, v, residual), parameters)),
        (found.dresidual, oracle.central_difference(lambda v: loss(x, parameters, v), residual)),
    ):
        assert_within(gradient, numeric, tolerance.difference(numeric, size))


def test_a_bound_that_is_exceeded_is_an_error() -> None:
    with pytest.raises(AssertionError, match="1 of 2 outside"):
        assert_within([1.0, 2.0], [1.0, 2.1], 0.05)
    with pytest.raises(AssertionError):
        assert_within([np.nan], [1.0], 1e9)
    with pytest.raises(AssertionError):
        assert_within([1.0], [np.nan], np.inf)
    with pytest.raises(AssertionError):
        assert_within([np.inf], [-np.inf], 1.0)
    assert_within([np.nan, np.inf], [np.nan, np.inf], 0.0)
