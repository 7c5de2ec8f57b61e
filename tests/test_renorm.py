"""Batch renormalization against its definition in float64, and against batch normalization where they coincide."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import cases
import numpy as np
import oracle
import pytest
import tolerance
from cases import VIEWS, Problem
from checks import result_dtype
from numpy.exceptions import AxisError
from tolerance import assert_within

import fastnorm as fn

Array = np.ndarray

PLANAR, INTERLEAVED = Problem((6, 4, 9, 11)), Problem((6, 9, 11, 4), -1)
LAYOUTS = {
    "NCHW": PLANAR,
    "NHWC": INTERLEAVED,
    "samples x features": Problem((37, 5)),
    "feature-major": Problem((5, 37), 0),
    "middle axis": Problem((3, 4, 5, 6), -2),
}


class Expected(NamedTuple):
    """`terms` is what the rounding errors of y are relative to; `ratio` is r before it is clipped."""

    y: Array
    terms: Array
    mean: Array
    var: Array
    rstd: Array
    r: Array
    d: Array
    ratio: Array


def renormalize(
    x: Array,
    running_mean: Array,
    running_var: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    r_max: float = 3.0,
    d_max: float = 5.0,
) -> Expected:
    """Ioffe 2017, algorithm 1, channel by channel, from exact moments."""
    rows = oracle.as_rows(x, axis)
    found = oracle.moments(rows)
    y, terms, factors = np.empty(rows.shape), np.empty(rows.shape), []
    for c in range(len(rows)):
        scale, shift = (float(default if p is None else p[c]) for p, default in ((gamma, 1.0), (beta, 0.0)))
        sigma, running = np.sqrt(found.var[c] + eps), np.sqrt(float(running_var[c]) + eps)
        r = min(max(sigma / running, 1 / r_max), r_max)
        d = min(max(((found.high[c] - float(running_mean[c])) + found.low[c]) / running, -d_max), d_max)
        hat = found.deviation[c] / sigma
        y[c] = (hat * r + d) * scale + shift
        # An error of the mean is one of hat, and sigma / running times that one of d.
        terms[c] = 1 + abs(scale) * (r * (1 + np.abs(hat)) + abs(d) + sigma / running) + abs(shift)
        factors.append((r, d, sigma / running))
    shaped = [oracle.from_rows(part, x, axis) for part in (y, terms)]
    return Expected(*shaped, found.high + found.low, found.var, 1 / np.sqrt(found.var + eps), *np.array(factors).reshape(-1, 3).T)


def running(n: int, dtype: Any = np.float32) -> tuple[Array, Array]:
    """Far enough from the batch that some channels are clipped, near enough that others are not."""
    return cases.parameter(n, dtype, 5, high=8.0), (cases.parameter(n, dtype, 6, low=0.2, high=3.0) ** 2)


def check_train(x: Array, axis: int = 1, *, gamma: Any = None, beta: Any = None, out: Array | None = None, **options: Any) -> Any:
    """y, statistics, r, d and the update, within derived bounds."""
    n = x.shape[axis]
    means, variances = running(n)
    expected = renormalize(
        x, means, variances, gamma, beta, axis=axis, **{k: v for k, v in options.items() if k in ("eps", "r_max", "d_max")}
    )
    before = means.copy(), variances.copy()
    result = fn.batch_renorm_train(x, means, variances, gamma, beta, axis=axis, out=out, **options)
    assert result._fields == ("y", "mean", "rstd", "r", "d")
    assert result.y is out if out is not None else type(result.y) is np.ndarray and result.y.dtype == result_dtype(x)
    for name in result._fields[1:]:
        assert getattr(result, name).dtype == np.float64, name
        assert getattr(result, name).shape == (n,), name
    stored = x.dtype if out is None else out.dtype
    unit = tolerance.unit(x.dtype, stored)
    assert_within(result.mean, expected.mean, tolerance.mean(expected.mean, expected.var, x.dtype), "mean")
    assert_within(result.rstd, expected.rstd, tolerance.rstd(expected.rstd, x.dtype), "rstd")
    assert_within(result.r, expected.r, unit * expected.r, "r")
    assert_within(result.d, expected.d, unit * (expected.ratio + np.abs(expected.d)), "d")
    storage = tolerance.storage(expected.y, stored, tolerance.arithmetic(x.dtype, stored))
    assert_within(result.y, expected.y, unit * expected.terms + storage, "y")
    check_update(x, axis, expected, before, (means, variances), options)
    return result


def check_update(x: Array, axis: int, expected: Expected, old: tuple[Array, ...], new: tuple[Array, ...], options: dict[str, Any]) -> None:
    momentum, n = options.get("momentum", 0.01), x.size // x.shape[axis]
    var = expected.var * (n / (n - 1) if options.get("unbiased", True) else 1.0)
    bounds = tolerance.mean(expected.mean, expected.var, x.dtype), tolerance.var(var, x.dtype)
    for name, before, after, batch, bound in zip(("running_mean", "running_var"), old, new, (expected.mean, var), bounds, strict=True):
        wanted = oracle.running(before, batch, momentum)
        assert_within(after, wanted, tolerance.running(before, wanted, momentum, bound, after.dtype), name)


def parameters(n: int, dtype: Any = np.float32) -> dict[str, Array]:
    return {"gamma": cases.parameter(n, dtype), "beta": cases.parameter(n, dtype, 2)}


# Values


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str) -> None:
    problem = LAYOUTS[name]
    result = check_train(cases.sample(problem), problem.axis, **parameters(problem.channels))
    assert (result.r != 1).all()


@pytest.mark.parametrize("bounds", [{}, {"r_max": 1.0}, {"d_max": 0.0}, {"r_max": 1.5, "d_max": 1.5}, {"r_max": np.inf, "d_max": np.inf}])
def test_bounds_of_r_and_d(bounds: dict[str, float]) -> None:
    problem = Problem((37, 40))
    result = check_train(cases.sample(problem), **bounds)
    r_max, d_max = bounds.get("r_max", 3.0), bounds.get("d_max", 5.0)
    for values, low, high in ((result.r, 1 / r_max, r_max), (result.d, -d_max, d_max)):
        assert (values >= low).all()
        assert (values <= high).all()
        if np.isfinite(high) and high > low:
            assert ((values == low) | (values == high)).any(), "no channel is clipped: the case tests less than it says"
            assert ((values > low) & (values < high)).any()


@pytest.mark.parametrize("given", [(), ("gamma",), ("beta",)], ids=["neither", "gamma", "beta"])
def test_absent_parameters(given: tuple[str, ...]) -> None:
    check_train(cases.sample(PLANAR), **{name: value for name, value in parameters(4).items() if name in given})


# How a dtype is read and stored is the business of the shared passes: float16 stands for both 16-bit floats.
@pytest.mark.parametrize("dtype", [cases.F4, cases.F8, cases.F2], ids=str)
def test_dtypes(dtype: np.dtype) -> None:
    check_train(cases.sample(PLANAR, dtype), **parameters(4))


@pytest.mark.parametrize("view", ["Fortran", "inner part", "broadcast axis 0", "read-only", "subclass"])
def test_unusual_memory(view: str) -> None:
    check_train(VIEWS[view](cases.sample(PLANAR)), **parameters(4))


@pytest.mark.parametrize("options", [{"eps": 1.0}, {"momentum": 0.3}, {"momentum": 1}, {"unbiased": False, "momentum": 0.5}], ids=str)
def test_options(options: dict[str, Any]) -> None:
    check_train(cases.sample(PLANAR), **options)


def test_a_far_mean_costs_no_accuracy() -> None:
    """float64, abs(mean) / std = 1e6: the promise holds although no running mean is that exact."""
    x = cases.sample(PLANAR, cases.F8, offset=1e6)
    means, variances = x.mean(axis=(0, 2, 3)) + 0.25, x.var(axis=(0, 2, 3))
    expected = renormalize(x, means, variances)
    result = fn.batch_renorm_train(x, means, variances)
    assert_within(result.y, expected.y, 1e-13 * expected.terms)


# Laws


ROWS = Problem((29, 37), 0)
BITS = {
    "planar": (PLANAR, True),
    "planar, no parameters": (PLANAR, False),
    "interleaved": (INTERLEAVED, True),
    "rows": (ROWS, True),
    "long rows": (Problem((3, 13_001), 0), True),
}


@pytest.mark.parametrize(("problem", "with_parameters"), BITS.values(), ids=BITS.keys())
def test_without_correction_it_is_batch_norm_to_the_bit(problem: Problem, with_parameters: bool) -> None:
    x, given = cases.sample(problem), parameters(problem.channels) if with_parameters else {}
    ours, theirs = running(problem.channels), running(problem.channels)
    expected = fn.batch_norm_train(x, **given, axis=problem.axis, running_mean=theirs[0], running_var=theirs[1], momentum=0.2)
    result = fn.batch_renorm_train(x, *ours, **given, axis=problem.axis, momentum=0.2, r_max=1, d_max=0)
    for name in expected._fields:
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(result.r, np.ones(problem.channels))
    np.testing.assert_array_equal(result.d, np.zeros(problem.channels))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    dy = cases.sample(problem, seed=7)
    gradients = fn.batch_renorm_backward(dy, x, *result[1:], given.get("gamma"), axis=problem.axis)
    for a, b in zip(gradients, fn.batch_norm_backward(dy, x, *expected[1:], given.get("gamma"), axis=problem.axis), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("problem", [PLANAR, INTERLEAVED, ROWS], ids=["planar", "interleaved", "rows"])
def test_running_statistics_of_the_batch_give_no_correction(problem: Problem) -> None:
    """The first step after the running statistics were set from the same batch, by batch norm."""
    x, n = cases.sample(problem), problem.channels
    means, variances = running(n, np.float64)
    options: dict[str, Any] = {"axis": problem.axis, "unbiased": False, **parameters(n)}
    expected = fn.batch_norm_train(x, running_mean=means, running_var=variances, momentum=1.0, **options)
    result = fn.batch_renorm_train(x, means, variances, **options)
    np.testing.assert_array_equal(result.r, np.ones(n))
    np.testing.assert_array_equal(result.d, np.zeros(n))
    np.testing.assert_array_equal(result.y, expected.y)


def test_without_bounds_it_is_inference() -> None:
    x, given = cases.sample(PLANAR), parameters(4)
    means, variances = running(4)
    expected = fn.batch_norm(x, means, variances, **given)
    terms = renormalize(x, means, variances, **given, r_max=np.inf, d_max=np.inf).terms
    result = fn.batch_renorm_train(x, means, variances, **given, r_max=np.inf, d_max=np.inf)
    assert_within(result.y, expected, 2e-6 * terms)


def test_mean_and_deviation_of_the_output_are_d_and_r() -> None:
    x = cases.sample(PLANAR, cases.F8)
    result = fn.batch_renorm_train(x, *running(4), eps=0.0)
    mean, var = oracle.mean_var(result.y, (0, 2, 3))
    assert_within(mean, result.d, 1e-13 * (result.r + np.abs(result.d)))
    assert_within(np.sqrt(var), result.r, 1e-13 * (result.r + np.abs(result.d)))


def test_r_and_d_come_from_the_running_statistics_before_the_update() -> None:
    x = cases.sample(PLANAR)
    once, twice = running(4), running(4)
    results = [fn.batch_renorm_train(x, *pair, momentum=momentum) for pair, momentum in ((once, 0.0), (twice, 1.0))]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(once[0], twice[0])


def test_the_number_of_threads_changes_no_bit(restore_threads: None) -> None:
    x = cases.sample(Problem((16, 4, 33, 44)))
    results = []
    for n in (1, 2):
        fn.set_num_threads(n)
        results.append(fn.batch_renorm_train(x, *running(4)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


# Memory


@pytest.mark.parametrize("view", ["contiguous", "Fortran", "inner part"])
@pytest.mark.parametrize("problem", [PLANAR, INTERLEAVED, ROWS], ids=["planar", "interleaved", "rows"])
def test_out_and_in_place(problem: Problem, view: str) -> None:
    x, given = VIEWS[view](cases.sample(problem)), parameters(problem.channels)
    fresh = check_train(x, problem.axis, **given).y
    np.testing.assert_array_equal(check_train(x, problem.axis, out=VIEWS[view](np.empty(x.shape, np.float32)), **given).y, fresh)
    result = fn.batch_renorm_train(x, *running(problem.channels), **given, axis=problem.axis, out=x)
    assert result.y is x
    np.testing.assert_array_equal(x, fresh)


def test_partial_overlap_acts_as_a_copy() -> None:
    x = cases.sample(PLANAR)
    expected = fn.batch_renorm_train(x, *running(4)).y
    buffer = np.zeros(x.size + 17, np.float32)
    source, out = buffer[: x.size].reshape(x.shape), buffer[17:].reshape(x.shape)
    source[...] = x
    np.testing.assert_array_equal(fn.batch_renorm_train(source, *running(4), out=out).y, expected)


@pytest.mark.parametrize("problem", [PLANAR, ROWS], ids=["planar", "rows"])
def test_out_that_covers_parameters_acts_as_a_copy(problem: Problem) -> None:
    """float64 parameters, which need no conversion that would be a copy by chance, in the memory of a float32 result."""
    x, axis, n = cases.sample(problem), problem.axis, problem.channels
    given = parameters(n, np.float64)
    expected = fn.batch_renorm_train(x, *running(n), **given, axis=axis)
    out = np.empty(x.shape, np.float32)
    memory = out.reshape(-1)[: out.size // 2 * 2].view(np.float64)
    gamma, beta = memory[:n], memory[-n:]
    gamma[...], beta[...] = given.values()
    np.testing.assert_array_equal(fn.batch_renorm_train(x, *running(n), gamma, beta, axis=axis, out=out).y, expected.y)

    dy = cases.sample(problem, seed=7)
    wanted = fn.batch_renorm_backward(dy, x, *expected[1:], given["gamma"], axis=axis)
    saved = [memory[n * k : n * k + n] for k in range(4)]
    for target, value in zip(saved, expected[1:], strict=True):
        target[...] = value
    found = fn.batch_renorm_backward(dy, x, *saved, given["gamma"], axis=axis, out=out)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(0, 4), (3, 4, 0), (3, 0, 5)])
def test_empty_input(shape: tuple[int, ...]) -> None:
    means, variances = running(shape[1])
    result = fn.batch_renorm_train(np.empty(shape, np.float32), means, variances)
    assert result.y.shape == shape
    for values in result[1:]:
        assert values.shape == (shape[1],)
        assert np.isnan(values).all()
    np.testing.assert_array_equal(means, running(shape[1])[0])
    np.testing.assert_array_equal(variances, running(shape[1])[1])
    gradients = fn.batch_renorm_backward(np.empty(shape, np.float32), np.empty(shape, np.float32), *result[1:])
    assert gradients.dx.shape == shape
    np.testing.assert_array_equal(gradients.dgamma, np.zeros(shape[1]))


def test_one_value_per_channel() -> None:
    """A batch of one, the case that batch renormalization is for."""
    x, (means, variances) = cases.sample(Problem((1, 4))), running(4)
    with pytest.raises(ValueError, match="unbiased"):
        fn.batch_renorm_train(x, means, variances)
    np.testing.assert_array_equal(means, running(4)[0])
    given = parameters(4)
    result = check_train(x, unbiased=False, d_max=np.inf, **given)
    expected = (x - means) / np.sqrt(variances + 1e-5) * given["gamma"] + given["beta"]
    assert_within(result.y, expected, 4e-6 * (1 + np.abs(expected)))


def test_nan_and_a_running_variance_of_zero_stay_in_their_channel() -> None:
    x, (means, variances) = cases.sample(PLANAR), running(4)
    x[0, 1] = np.nan
    variances[2] = 0.0
    plain = fn.batch_renorm_train(cases.sample(PLANAR), *running(4), eps=0.0)
    result = fn.batch_renorm_train(x, means, variances, eps=0.0)
    assert np.isnan(result.y[:, 1]).all()
    assert result.r[2] == 3.0
    assert abs(result.d[2]) == 5.0
    np.testing.assert_array_equal(result.y[:, [0, 3]], plain.y[:, [0, 3]])
    assert np.isfinite(result.y[:, 2]).all()
    np.testing.assert_array_equal(np.isnan(means), [False, True, False, False])


# Gradients


def check_backward(dy: Array, x: Array, axis: int = 1, *, gamma: Any = None, out: Array | None = None) -> Any:
    n = x.shape[axis]
    at = renormalize(np.asarray(x), *running(n), axis=axis)
    scale = (np.ones(n) if gamma is None else gamma.astype(np.float64)) * at.r
    expected = oracle.backward(dy, x, at.mean, at.rstd, axis, gamma=scale)
    bound = tolerance.Gradient(expected, x.dtype, gamma)
    result = fn.batch_renorm_backward(dy, x, at.mean, at.rstd, at.r, at.d, gamma, axis=axis, out=out)
    assert result._fields == ("dx", "dgamma", "dbeta")
    assert result.dx is out if out is not None else result.dx.dtype == result_dtype(x)
    assert_within(result.dx, expected.dx, bound.dx, "dx")
    assert_within(result.dbeta, expected.dbeta, bound.dbeta, "dbeta")
    dgamma = at.r * expected.dgamma + at.d * expected.dbeta
    storage = 0.0 if gamma is None else tolerance.storage(dgamma, gamma.dtype, np.dtype(np.float64))
    unit = tolerance.unit(x.dtype)
    assert_within(result.dgamma, dgamma, unit * (at.r * expected.dgamma_terms + np.abs(at.d) * expected.dbeta_terms) + storage, "dgamma")
    for name in ("dgamma", "dbeta"):
        assert getattr(result, name).dtype == (np.float64 if gamma is None else gamma.dtype), name
    return result


@pytest.mark.parametrize("gamma", [None, cases.F4, cases.F8], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_gradients_in_every_layout(name: str, gamma: np.dtype | None) -> None:
    problem = LAYOUTS[name]
    given = None if gamma is None else cases.parameter(problem.channels, gamma)
    check_backward(cases.sample(problem, seed=7), cases.sample(problem), problem.axis, gamma=given)


def test_gradients_in_float64() -> None:
    check_backward(cases.sample(PLANAR, cases.F8, seed=7), cases.sample(PLANAR, cases.F8))


def test_gradient_over_the_gradient_of_the_output() -> None:
    x, dy = cases.sample(PLANAR), cases.sample(PLANAR, seed=7)
    fresh = check_backward(dy, x).dx
    check_backward(VIEWS["Fortran"](dy), x)
    at = renormalize(x, *running(4))
    assert fn.batch_renorm_backward(dy, x, at.mean, at.rstd, at.r, at.d, out=dy).dx is dy
    np.testing.assert_array_equal(dy, fresh)


SMALL = {
    "NCHW": Problem((3, 2, 2, 3)),
    "NHWC": Problem((9, 2, 3, 2), -1),
    "samples x features": Problem((17, 3)),
    "feature-major": Problem((3, 7), 0),
}


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_central_differences(name: str) -> None:
    """Of the definition with r and d held constant."""
    problem = SMALL[name]
    x, dy = cases.sample(problem, cases.F8), cases.sample(problem, cases.F8, seed=7)
    n = problem.channels
    gamma, beta = parameters(n, np.float64).values()
    saved = renormalize(x, *running(n), axis=problem.axis)
    mean, rstd, r, d = saved.mean, saved.rstd, saved.r, saved.d
    assert (r != 1).all()
    assert (d != 0).all()
    along = [1] * x.ndim
    along[problem.axis] = n
    over = tuple(k for k in range(x.ndim) if k != problem.axis % x.ndim)

    def loss(x: Array, gamma: Array, beta: Array) -> float:
        hat = (x - x.mean(axis=over, keepdims=True)) / np.sqrt(x.var(axis=over, keepdims=True) + 1e-5)
        y = (hat * r.reshape(along) + d.reshape(along)) * gamma.reshape(along) + beta.reshape(along)
        return float((y * dy).sum())

    result = fn.batch_renorm_backward(dy, x, mean, rstd, r, d, gamma, axis=problem.axis)
    at = (x, gamma, beta)
    for k, gradient in enumerate(result):
        numeric = oracle.central_difference(lambda value, k=k: loss(*(value if j == k else at[j] for j in range(3))), at[k])
        assert_within(gradient, numeric, tolerance.difference(numeric, abs(loss(*at)) + np.abs(dy).sum()), result._fields[k])


# Refusals

X, DY = cases.sample(Problem((4, 3, 5, 6))), cases.sample(Problem((4, 3, 5, 6)), seed=7)
FOUR = np.ones(4, np.float32)
Bad = tuple[dict[str, Any], type[Exception], str]
SHARED: dict[str, Bad] = {
    "x complex": ({"x": X.astype(complex)}, TypeError, "x.*complex128"),
    "x a vector": ({"x": X[0, 0, 0]}, AxisError, "x has 1 dimensions"),
    "axis too large": ({"axis": 4}, AxisError, "axis"),
    "axis a float": ({"axis": 1.5}, TypeError, "axis"),
    "gamma too long": ({"gamma": FOUR}, ValueError, r"gamma.*\(4,\).*\(3,\)"),
    "out of another shape": ({"out": np.zeros((4, 3, 5, 5), np.float32)}, ValueError, r"out.*\(4, 3, 5, 5\)"),
    "out of integers": ({"out": np.zeros(X.shape, np.int32)}, TypeError, "out.*int32"),
    "out read-only": ({"out": cases.read_only(np.zeros(X.shape, np.float32))}, ValueError, "out.*read-only"),
}
TRAIN: dict[str, Bad] = {
    **SHARED,
    "beta a matrix": ({"beta": np.ones((1, 3))}, ValueError, "beta"),
    "running_mean absent": ({"running_mean": None}, TypeError, r"running_mean is None.*\(3,\).*batch_norm_train"),
    "running_var absent": ({"running_var": None}, TypeError, r"running_var is None.*\(3,\).*batch_norm_train"),
    "running_mean a list": ({"running_mean": [0.0] * 3}, TypeError, "running_mean.*list"),
    "running_var too long": ({"running_var": FOUR}, ValueError, r"running_var.*\(4,\).*\(3,\)"),
    "running_var read-only": ({"running_var": cases.read_only(np.ones(3))}, ValueError, "running_var.*read-only"),
    "running_mean of integers": ({"running_mean": np.ones(3, np.int64)}, TypeError, "running_mean.*int64"),
    "momentum above 1": ({"momentum": 1.5}, ValueError, "momentum.*1.5"),
    "momentum absent": ({"momentum": None}, TypeError, "momentum"),
    "r_max below 1": ({"r_max": 0.5}, ValueError, "r_max is 0.5.*at least 1"),
    "r_max NaN": ({"r_max": float("nan")}, ValueError, "r_max is nan"),
    "r_max absent": ({"r_max": None}, TypeError, "r_max"),
    "d_max negative": ({"d_max": -1.0}, ValueError, "d_max is -1.0.*at least 0"),
    "d_max a string": ({"d_max": "5"}, TypeError, "d_max"),
    "eps negative": ({"eps": -1e-5}, ValueError, "eps.*-1e-05"),
}
BACKWARD: dict[str, Bad] = {
    **SHARED,
    "dy of another shape": ({"dy": DY[:2]}, ValueError, r"dy.*\(2, 3, 5, 6\)"),
    "dy complex": ({"dy": DY.astype(complex)}, TypeError, "dy.*complex128"),
    "mean absent": ({"mean": None}, TypeError, "mean is None.*batch_renorm_train"),
    "rstd too long": ({"rstd": FOUR}, ValueError, r"rstd.*\(4,\)"),
    "r a number": ({"r": 1.0}, ValueError, r"r has shape \(\).*\(3,\)"),
    "r absent": ({"r": None}, TypeError, "r is None"),
    "d too long": ({"d": FOUR}, ValueError, r"d has shape \(4,\)"),
    "d complex": ({"d": np.ones(3, complex)}, TypeError, "d has dtype complex128"),
}


def check_error(call: Callable[..., Any], good: dict[str, Any], bad: Bad) -> None:
    wrong, exception, message = bad
    arguments = {**good, "out": np.full(X.shape, 3, np.float32), **wrong}
    watched = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    before = {name: value.copy() for name, value in watched.items()}
    with pytest.raises(exception) as caught:
        call(**arguments)
    assert re.search(message, str(caught.value), re.DOTALL), f"message: {caught.value}"
    for name, value in watched.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} was written to")


@pytest.mark.parametrize("bad", TRAIN.values(), ids=TRAIN.keys())
def test_training_refuses(bad: Bad) -> None:
    check_error(fn.batch_renorm_train, {"x": X, "running_mean": np.full(3, 0.5), "running_var": np.full(3, 0.25), "momentum": 0.5}, bad)


@pytest.mark.parametrize("bad", BACKWARD.values(), ids=BACKWARD.keys())
def test_backward_refuses(bad: Bad) -> None:
    check_error(fn.batch_renorm_backward, {"dy": DY, "x": X, **{name: np.ones(3) for name in ("mean", "rstd", "r", "d")}}, bad)


# Contract

SIGNATURES = {
    "batch_renorm_train": (
        "(x, running_mean, running_var, gamma=None, beta=None, *, axis=1, eps=1e-05, momentum=0.01, r_max=3.0, d_max=5.0, "
        "unbiased=True, out=None)"
    ),
    "batch_renorm_backward": "(dy, x, mean, rstd, r, d, gamma=None, *, axis=1, out=None)",
    "fold_batch_norm": "(weight, bias, mean, var, gamma=None, beta=None, *, eps=1e-05, axis=0)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_the_contract(name: str) -> None:
    found = inspect.signature(getattr(fn, name))
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]
    assert name in dir(fn)
    for part in ("Examples", "Raises", "Source"):
        assert part in getattr(fn, name).__doc__


@pytest.mark.parametrize("name", ["ops.renorm", "ops.folding"])
def test_examples_of_docstrings_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"fastnorm.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
