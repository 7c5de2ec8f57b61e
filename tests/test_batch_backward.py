"""Gradients of batch normalization: laws first, then values against the oracle and against central differences."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import oracle
import pytest
import tolerance
from cases import LARGE, LAYOUTS, VIEWS, Problem
from checks import check_backward
from tolerance import assert_within

import fastnorm as fn
from fastnorm.ops import calls
from fastnorm.ops.batch import channel_layout
from fastnorm.plan import problem as plans
from fastnorm.plan import schedule

PLANAR, INTERLEAVED = Problem((6, 4, 9, 11)), Problem((6, 9, 11, 4), -1)
TRAVERSALS = pytest.mark.parametrize("problem", [PLANAR, INTERLEAVED], ids=["planar", "interleaved"])
ALL_LAYOUTS = pytest.mark.parametrize("problem", LAYOUTS.values(), ids=LAYOUTS.keys())
SMALL = Problem((2, 3, 2, 2))


def pair(problem: Problem, dtype: Any = cases.F4, offset: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """dy and x."""
    return cases.sample(problem, dtype, seed=7, offset=0.5), cases.sample(problem, dtype, offset=offset)


def trained(x: np.ndarray, axis: int, eps: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    result = fn.batch_norm_train(x, axis=axis, eps=eps)
    return result.mean, result.rstd


# --- laws ---


@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
@ALL_LAYOUTS
def test_training_gradient_sums_to_0_and_is_orthogonal_to_the_output(problem: Problem, dtype: np.dtype) -> None:
    dy, x = pair(problem, dtype)
    mean, rstd = trained(x, problem.axis, eps=0.0 if problem.per_channel > 1 else 1e-5)
    dx = fn.batch_norm_backward(dy, x, mean, rstd, axis=problem.axis).dx
    expected = oracle.backward(dy, x, mean, rstd, problem.axis)
    hat = oracle.forward(x, problem.axis).y
    bound = oracle.as_rows(tolerance.Gradient(expected, dtype).dx, problem.axis)
    # The statistics are rounded too: relative errors of unit / 2 in hat, times the sum of |dx| terms.
    slack = bound + tolerance.unit(dtype) * oracle.as_rows(expected.dx_terms, problem.axis)
    total = oracle.row_sums(oracle.as_rows(dx, problem.axis))
    weighted = oracle.row_sums(oracle.as_rows(dx * hat, problem.axis))
    assert_within(total, np.zeros_like(total), slack.sum(axis=1))
    assert_within(weighted, np.zeros_like(weighted), (slack * (1 + np.abs(oracle.as_rows(hat, problem.axis)))).sum(axis=1))


@TRAVERSALS
def test_backward_is_linear_in_the_gradient(problem: Problem) -> None:
    dy, x = pair(problem)
    statistics = trained(x, problem.axis)
    once = fn.batch_norm_backward(dy, x, *statistics, axis=problem.axis)
    doubled = fn.batch_norm_backward(2 * dy, x, *statistics, axis=problem.axis)  # powers of two scale every rounding
    for a, b in zip(once, doubled, strict=True):
        np.testing.assert_array_equal(2 * a, b)
    nothing = fn.batch_norm_backward(0 * dy, x, *statistics, axis=problem.axis)
    for gradient in nothing:
        assert (gradient == 0).all()


@TRAVERSALS
def test_a_gradient_equal_to_the_output_vanishes(problem: Problem) -> None:
    x = cases.sample(problem, cases.F8)
    y, mean, rstd = fn.batch_norm_train(x, axis=problem.axis, eps=0.0)
    dx, dgamma, dbeta = fn.batch_norm_backward(y, x, mean, rstd, axis=problem.axis)
    n = problem.per_channel
    bound = 8 * tolerance.unit(np.float64)  # |y| of 600 values is below 4: 1 + |y| <= 5, three roundings of terms of 1
    assert_within(dgamma, np.full(4, float(n)), n * bound)
    assert_within(dbeta, np.zeros(4), n * bound)
    assert_within(dx, np.zeros(x.shape), bound * np.abs(rstd).max() * 4)


@TRAVERSALS
def test_nan_stays_in_its_channel(problem: Problem) -> None:
    for place in ("dy", "x"):
        dy, x = pair(problem)
        mean, rstd = trained(x, problem.axis)
        clean = fn.batch_norm_backward(dy, x, mean, rstd, axis=problem.axis)
        np.moveaxis(dy if place == "dy" else x, problem.axis, 0)[2].flat[11] = np.nan
        with np.errstate(all="raise"):
            result = fn.batch_norm_backward(dy, x, mean, rstd, axis=problem.axis)
        assert np.isnan(np.moveaxis(result.dx, problem.axis, 0)[2]).all()
        assert np.isnan(result.dgamma[2])
        others = [0, 1, 3]
        np.testing.assert_array_equal(result.dx.take(others, problem.axis), clean.dx.take(others, problem.axis))
        np.testing.assert_array_equal(result.dgamma[others], clean.dgamma[others])
        np.testing.assert_array_equal(result.dbeta[others], clean.dbeta[others])


# --- central differences: the whole chain in float64, no formula of a gradient involved ---


# Of the oracle's formulas all are checked in this way in test_oracle.py.
@pytest.mark.parametrize("training", [True, False], ids=["training", "constants"])
def test_gradients_are_those_of_the_forward_function(training: bool) -> None:
    activation = "gelu"
    dy, x = pair(SMALL, cases.F8)
    residual = cases.sample(SMALL, cases.F8, seed=3)
    parameters = np.stack([cases.parameter(3, cases.F8), cases.parameter(3, cases.F8, 2)])
    at = oracle.forward(x)
    fixed = {} if training else {"mean": at.mean, "var": at.var}

    def loss(x: np.ndarray, parameters: np.ndarray, residual: np.ndarray) -> float:
        y = oracle.forward(x, gamma=parameters[0], beta=parameters[1], activation=activation, residual=residual, **fixed).y
        return float((dy * y).sum())

    result = fn.batch_norm_backward(
        dy, x, at.mean, at.rstd, parameters[0], training=training, activation=activation, beta=parameters[1], residual=residual
    )
    size = 4 * float(np.abs(dy).sum())
    for gradient, numeric in (
        (result.dx, oracle.central_difference(lambda v: loss(v, parameters, residual), x)),
        (np.stack([result.dgamma, result.dbeta]), oracle.central_difference(lambda v: loss(x, v, residual), parameters)),
        (result.dresidual, oracle.central_difference(lambda v: loss(x, parameters, v), residual)),
    ):
        assert_within(gradient, numeric, tolerance.difference(numeric, size))


# --- values ---


@pytest.mark.parametrize("training", [True, False], ids=["training", "constants"])
@ALL_LAYOUTS
def test_every_layout(problem: Problem, training: bool) -> None:
    check_backward(*pair(problem), problem.axis, training=training)
    check_backward(*pair(problem, offset=100.0), problem.axis, gamma=cases.parameter(problem.channels), training=training)


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
@TRAVERSALS
def test_every_float_dtype(problem: Problem, dtype: np.dtype) -> None:
    check_backward(*pair(problem, dtype), problem.axis)


def test_integer_input_has_float64_gradients() -> None:
    check_backward(cases.sample(PLANAR, cases.F8, seed=7), cases.sample(PLANAR, np.int16))


def test_dx_has_the_dtype_of_x_when_dy_has_another() -> None:
    check_backward(cases.sample(PLANAR, cases.F4, seed=7), cases.sample(PLANAR, cases.F2))


@pytest.mark.parametrize("gamma", [None, cases.F4, cases.F8, cases.F2], ids=str)
def test_parameter_gradients_have_the_dtype_of_gamma(gamma: Any) -> None:
    for problem in (PLANAR, INTERLEAVED):
        check_backward(*pair(problem), problem.axis, gamma=None if gamma is None else cases.parameter(4, gamma))


@pytest.mark.parametrize(
    ("problem", "activation"),
    [*((PLANAR, a) for a in oracle.ACTIVATIONS[1:]), (INTERLEAVED, "relu"), (INTERLEAVED, "gelu")],
    ids=lambda value: "interleaved" if value is INTERLEAVED else "planar" if value is PLANAR else str(value),
)
def test_every_activation(problem: Problem, activation: str) -> None:
    residual = cases.sample(problem, seed=1) if problem is INTERLEAVED or activation == "relu" else None
    parameters = {"gamma": cases.parameter(4), "beta": cases.parameter(4, seed=2, low=0.5, high=8.0)}
    check_backward(*pair(problem), problem.axis, activation=activation, residual=residual, **parameters)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_constants_with_activation_and_residual(activation: str) -> None:
    residual = cases.sample(PLANAR, seed=1) if activation == "relu" else None
    parameters = {"gamma": cases.parameter(4), "beta": cases.parameter(4, seed=2)}
    check_backward(*pair(PLANAR), activation=activation, residual=residual, training=False, **parameters)


def test_activation_with_either_parameter_absent() -> None:
    check_backward(*pair(PLANAR), activation="relu", gamma=cases.parameter(4))
    check_backward(*pair(PLANAR), activation="relu", beta=cases.parameter(4, seed=2))


@pytest.mark.parametrize(("activation", "dtype"), [("gelu", cases.F8), ("silu", cases.F2)], ids=str)
def test_activation_and_residual_in_other_dtypes(activation: str, dtype: np.dtype) -> None:
    parameters = {"gamma": cases.parameter(4, dtype), "beta": cases.parameter(4, dtype, 2)}
    check_backward(*pair(PLANAR, dtype), activation=activation, residual=cases.sample(PLANAR, dtype, seed=1), **parameters)


@pytest.mark.parametrize("problem", [*LAYOUTS.values(), Problem((1, 3, 5, 5)), Problem((6, 1))], ids=lambda p: f"{p.shape}, axis {p.axis}")
def test_residual_without_activation_receives_the_gradient(problem: Problem) -> None:
    (dy, x), residual = pair(problem), cases.sample(problem, seed=1)
    result = check_backward(dy, x, problem.axis, residual=residual)
    np.testing.assert_array_equal(result.dresidual, dy)
    assert not np.shares_memory(result.dresidual, dy)
    at, out = oracle.forward(x, problem.axis), (np.full_like(x, 7), np.full_like(x, 7))
    fn.batch_norm_backward(dy, x, at.mean, at.rstd, axis=problem.axis, residual=residual, out=out)
    np.testing.assert_array_equal(out[0], result.dx)
    np.testing.assert_array_equal(out[1], dy)


@pytest.mark.parametrize("view", VIEWS)
def test_every_kind_of_memory(view: str) -> None:
    for problem in (PLANAR, INTERLEAVED, Problem((4, 60), 0), Problem((60, 4))):
        dy, x = pair(problem)
        check_backward(VIEWS[view](dy), x, problem.axis)
        check_backward(dy, VIEWS[view](x), problem.axis)


def test_strided_float16() -> None:
    dy, x = pair(PLANAR, cases.F2)
    check_backward(VIEWS["every second, last axis"](dy), VIEWS["big-endian"](x))


def test_memory_of_both_inputs_and_of_the_residual_may_differ() -> None:
    dy, x = pair(PLANAR)
    options = {"activation": "relu", "residual": np.asfortranarray(cases.sample(PLANAR, seed=1))}
    parameters = {"gamma": cases.parameter(4), "beta": cases.parameter(4, seed=2)}
    check_backward(VIEWS["channels-last memory"](dy), VIEWS["every second, last axis"](x), **options, **parameters)


@pytest.mark.parametrize("run", cases.RUNS)
def test_runs_around_tile_borders(run: int) -> None:
    check_backward(*pair(Problem((2, 3, run)), offset=10.0))


@pytest.mark.parametrize("columns", cases.COLUMNS)
def test_rows_and_columns_around_tile_borders(columns: int) -> None:
    for rows in (2, 7, 9, 128, 129, 1000):
        if rows * columns <= 130_000:
            check_backward(*pair(Problem((rows, columns)), offset=10.0))


@pytest.mark.parametrize("plane", cases.SMALL_PLANES)
def test_small_planes(plane: int) -> None:
    check_backward(*pair(Problem((33, 17, plane)), offset=10.0))


@pytest.mark.parametrize("problem", LARGE.values(), ids=LARGE.keys())
def test_large_arrays(problem: Problem) -> None:
    check_backward(*pair(problem), problem.axis, gamma=cases.parameter(problem.channels))


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
def test_bound_holds_far_from_0(dtype: np.dtype, offset: float) -> None:
    for problem in (PLANAR, INTERLEAVED, Problem((4, 5000), 0)):
        check_backward(*pair(problem, dtype, offset=offset), problem.axis, gamma=cases.parameter(4))


@pytest.mark.parametrize("std", [1e-15, 1e-8, 1e8, 1e15])
def test_bound_holds_for_tiny_and_huge_values(std: float) -> None:
    for problem in (PLANAR, INTERLEAVED):
        dy, x = cases.sample(problem, seed=7), cases.sample(problem, std=std)
        at = oracle.forward(x, problem.axis, eps=0.0)
        check_backward(dy, x, problem.axis, mean=at.mean, rstd=at.rstd)


# --- out ---


@pytest.mark.parametrize("view", cases.WRITABLE_VIEWS)
def test_out_in_every_kind_of_memory(view: str) -> None:
    for problem in (PLANAR, INTERLEAVED):
        check_backward(*pair(problem), problem.axis, out=VIEWS[view](np.full(problem.shape, 3.0, np.float32)))


@TRAVERSALS
@pytest.mark.parametrize("target", ["dy", "x", "residual"])
def test_in_place(target: str, problem: Problem) -> None:
    dy, x = pair(problem)
    residual = cases.sample(problem, seed=1)
    arrays = {"dy": dy, "x": x, "residual": residual}
    parameters = {"gamma": cases.parameter(4), "beta": cases.parameter(4, seed=2)}
    check_backward(dy, x, problem.axis, activation="relu", residual=residual, out=arrays[target], shared=True, **parameters)
    dy, x = pair(problem)
    if target != "residual":
        check_backward(dy, x, problem.axis, out=dy if target == "dy" else x, shared=True)


@TRAVERSALS
@pytest.mark.parametrize("shift", [-5, 1, 64])
def test_out_that_overlaps_partially_acts_as_a_copy(shift: int, problem: Problem) -> None:
    for target in ("dy", "x"):
        dy, x = pair(problem)
        buffer = np.zeros(x.size + 200, np.float32)
        moved = buffer[100 : 100 + x.size].reshape(x.shape)
        moved[...] = dy if target == "dy" else x
        out = buffer[100 + shift : 100 + shift + x.size].reshape(x.shape)
        inputs = (moved, x) if target == "dy" else (dy, moved)
        check_backward(*inputs, problem.axis, out=out, shared=True)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_rows_of_large_tensors_are_summed_one_by_one(activation: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "LARGE_BYTES", 0)
    monkeypatch.setattr(schedule, "FETCHED_COLUMNS", 0)
    for shape in ((700, 3, 5), (257, 64), (1203, 17)):
        problem = Problem(shape, -1)
        dy, x = pair(problem)
        plans._kept.clear()
        calls._known.clear()
        planned = plans.arrange(channel_layout(x.ndim, x.ndim - 1, True), (x, x, None, dy, None), 2).schedule
        assert (planned.at_once, planned.ahead) == (1, True)
        beta = cases.parameter(shape[-1], seed=2) if activation else None
        check_backward(dy, x, -1, gamma=cases.parameter(shape[-1]), beta=beta, activation=activation)
    plans._kept.clear()
    calls._known.clear()
