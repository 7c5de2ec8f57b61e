"""``fn.mean_var``: laws, NumPy's axes and shapes, values against the oracle."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import cases
import numpy as np
import oracle
import pytest
import tolerance
from cases import VIEWS, Problem
from tolerance import assert_within

import fastnorm as fn
from fastnorm.ops import reduction

CUBE = Problem((4, 5, 6, 7))
AXES: list[Any] = [None, 0, 1, 2, 3, -1, (0, 1), (0, 2), (1, 3), (2, 3), (0, 2, 3), (1, 2, 3), (0, 1, 2), (-1, 0), (0, 1, 2, 3), ()]


def check(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> None:
    before = np.array(a)
    result = fn.mean_var(a, axis, ddof=ddof, keepdims=keepdims)
    assert result._fields == ("mean", "var")
    expected_mean, expected_var = oracle.mean_var(a, axis, ddof=ddof, keepdims=keepdims)
    assert np.asarray(result.mean).dtype == np.asarray(result.var).dtype == np.float64
    assert np.shape(result.mean) == np.shape(result.var) == np.mean(before, axis=axis, keepdims=keepdims).shape
    dtype = np.asarray(a).dtype
    assert_within(result.mean, expected_mean, tolerance.mean(expected_mean, expected_var, dtype), "mean")
    assert_within(result.var, expected_var, tolerance.var(expected_var, dtype), "var")
    np.testing.assert_array_equal(before, np.array(a), err_msg="the input was modified")


def accepts(**options: Any) -> None:
    """Skip when an option belongs to a later release."""
    try:
        fn.mean_var(np.ones(3), **options)
    except (NotImplementedError, TypeError):
        pytest.skip(f"{', '.join(options)} not accepted yet")


@pytest.mark.parametrize("shape", [(4, 8, 60, 70), (3, 40, 9, 5, 60), (2, 3, 40, 7, 20, 8), (200, 2, 5, 3, 90)], ids=str)
@pytest.mark.parametrize("memory", ["C", "F", "turned"])
def test_axes_that_alternate(shape: tuple[int, ...], memory: str) -> None:
    """Large arrays part by part, small ones from a copy."""
    x = (cases.rng_of(2, *shape).standard_normal(shape) + 1e4).astype(np.float32)
    a = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if memory == "turned" else np.array(x, order=memory)  # type: ignore[call-overload]
    several = [axes for k in range(2, len(shape)) for axes in itertools.combinations(range(len(shape)), k)]
    if memory == "C" and shape[0] < 10:
        assert any(reduction.in_parts(a, axes) for axes in several)
    for axes in several:
        check(a, axes)
        weights = np.broadcast_to((np.arange(shape[axes[0]]) % 2).reshape([-1 if k == axes[0] else 1 for k in range(x.ndim)]), shape)
        if weights.any():
            chosen = x.astype(np.float64).compress(np.arange(shape[axes[0]]) % 2, axes[0])
            np.testing.assert_allclose(fn.mean_var(a, axes, weights=weights).mean, chosen.mean(axes), rtol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_statistic_of_parts(value: float) -> None:
    a = cases.rng_of(5).standard_normal((4, 8, 60, 70)).astype(np.float32)
    a[2, 3, 17, 5] = value
    assert reduction.in_parts(a, (0, 2))
    mean, var = fn.mean_var(a, (0, 2))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(mean, a.astype(np.float64).mean((0, 2)), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(var, a.astype(np.float64).var((0, 2)), rtol=1e-5)
    if np.isnan(value):
        omitted = fn.mean_var(a, (0, 2), nan_policy="omit")
        np.testing.assert_allclose(omitted.mean, np.nanmean(a.astype(np.float64), (0, 2)), rtol=1e-5, atol=1e-7)


def test_shift_moves_the_mean_and_scale_multiplies_the_variance() -> None:
    a = np.round(cases.sample(CUBE, cases.F8) * 1024) / 1024  # so that 4 * a + 8 is exact
    mean, var = fn.mean_var(a, 1)
    moved_mean, moved_var = fn.mean_var(4 * a + 8, 1)
    assert_within(moved_mean, 4 * mean + 8, 2 * tolerance.mean(4 * mean + 8, 16 * var, cases.F8))
    assert_within(moved_var, 16 * var, 2 * tolerance.var(16 * var, cases.F8))


def test_total_variance_is_within_plus_between() -> None:
    a = cases.sample(CUBE, cases.F8)
    mean, var = fn.mean_var(a, (0, 2, 3))
    total = fn.mean_var(a)
    between = np.square(mean - mean.mean()).mean()
    assert_within(total.var, var.mean() + between, 2 * tolerance.var(total.var, cases.F8))


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_every_axis_has_numpys_shape_and_value(axis: Any) -> None:
    a = cases.sample(CUBE)
    for keepdims in (False, True):
        check(a, axis, keepdims=keepdims)


@pytest.mark.parametrize("ndim", [0, 1, 2, 5])
def test_every_rank(ndim: int) -> None:
    a = np.random.default_rng(ndim).standard_normal((3, 2, 4, 2, 3)[:ndim]).astype(np.float32)
    check(a)
    for axis in range(ndim):
        check(a, axis)


@pytest.mark.parametrize("ddof", [0, 1, 2])
def test_ddof(ddof: int) -> None:
    a = cases.sample(CUBE)
    for axis in (None, 0, (1, 2)):
        check(a, axis, ddof=ddof)


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.INTEGERS], ids=str)
def test_every_dtype(dtype: np.dtype) -> None:
    for axis in ((0, 2, 3), None):
        check(cases.sample(CUBE, dtype), axis)


def test_float16_over_rows() -> None:
    check(cases.sample(Problem((300, 7)), cases.F2), 0)


def test_large_integers_are_not_rounded_to_float32() -> None:
    check(2**24 + np.random.default_rng(0).integers(0, 100, (40, 7)), 0)
    check(np.array([[2**64 - 1], [0]], np.uint64), 0)


@pytest.mark.parametrize("view", VIEWS)
def test_every_kind_of_memory(view: str) -> None:
    a = VIEWS[view](cases.sample(CUBE))
    for axis in (None, 0, -1, (0, 2), (1, 2, 3)):
        check(a, axis)


def test_lists_and_scalars_are_arrays() -> None:
    check([[1.0, 2.0], [4.0, 8.0]], 0)
    check(3.5)
    check((1, 2, 4))


@pytest.mark.parametrize("run", cases.RUNS)
def test_runs_around_tile_borders(run: int) -> None:
    check(cases.sample(Problem((run,), 0), offset=10.0))
    check(cases.sample(Problem((3, run), 0), offset=10.0), 1)


@pytest.mark.parametrize("columns", cases.COLUMNS)
def test_rows_and_columns_around_tile_borders(columns: int) -> None:
    for rows in cases.ROWS:
        if rows * columns <= 300_000:
            check(cases.sample(Problem((rows, columns)), offset=10.0), 0)


@pytest.mark.parametrize("name", cases.LARGE)
def test_large_arrays(name: str) -> None:
    problem = cases.LARGE[name]
    a = cases.sample(problem, offset=100.0)
    check(a, tuple(ax for ax in range(a.ndim) if ax != problem.axis % a.ndim))


def test_one_value_has_variance_0() -> None:
    result = fn.mean_var(np.full((1, 3), 7.5, np.float32), 0)
    assert result.mean.tolist() == [7.5] * 3
    assert result.var.tolist() == [0.0] * 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_too_few_values_give_nan_as_in_numpy() -> None:
    assert np.isnan(fn.mean_var(np.ones((1, 3)), 0, ddof=1).var).all()
    for shape, axis in (((0, 3), 0), ((0,), None), ((2, 0, 3), 1)):
        mean, var = fn.mean_var(np.empty(shape), axis)
        assert np.isnan(mean).all()
        assert np.isnan(var).all()
        assert np.shape(mean) == np.empty(shape).mean(axis=axis).shape
    assert fn.mean_var(np.empty((0, 3)), 1).mean.shape == (0,)


def test_nan_and_inf_stay_in_their_statistic() -> None:
    a = cases.sample(CUBE)
    clean = fn.mean_var(a, (0, 2, 3))
    a[1, 2, 3, 4], a[0, 4, 0, 0] = np.nan, np.inf
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        mean, var = fn.mean_var(a, (0, 2, 3))
    assert np.isnan(mean[2])
    assert mean[4] == np.inf
    assert np.isnan(var[[2, 4]]).all()
    np.testing.assert_array_equal(mean[[0, 1, 3]], clean.mean[[0, 1, 3]])
    np.testing.assert_array_equal(var[[0, 1, 3]], clean.var[[0, 1, 3]])


def test_mean_and_rstd_of_batch_norm_are_these_statistics() -> None:
    x = cases.sample(CUBE)
    found = fn.batch_norm_train(x)
    mean, var = fn.mean_var(x, (0, 2, 3))
    assert_within(found.mean, mean, 2 * tolerance.mean(mean, var, np.float32))
    assert_within(found.rstd, 1 / np.sqrt(var + 1e-5), 2 * tolerance.rstd(found.rstd, np.float32))


# --- options that may arrive later ---


def test_integer_weights_are_repetitions() -> None:
    accepts(weights=np.ones(3))
    a, weights = cases.sample(Problem((40,), 0), cases.F8), np.arange(40) % 4
    mean, var = fn.mean_var(a, weights=weights)
    expected_mean, expected_var = oracle.mean_var(np.repeat(a, weights))
    assert_within(mean, expected_mean, tolerance.mean(expected_mean, expected_var, cases.F8))
    assert_within(var, expected_var, tolerance.var(expected_var, cases.F8))


def test_weights_of_any_size_against_exact_fractions() -> None:
    accepts(weights=np.ones(3))
    a, weights = cases.sample(Problem((41,), 0), cases.F8), np.random.default_rng(5).random(41) * 1e3
    expected_mean, expected_var = (np.array(v) for v in oracle.weighted_mean_var(a, weights))
    mean, var = fn.mean_var(a, weights=weights)
    assert_within(mean, expected_mean, tolerance.mean(expected_mean, expected_var, cases.F8))
    assert_within(var, expected_var, tolerance.var(expected_var, cases.F8))


def test_nan_policy_omit_leaves_nan_out() -> None:
    accepts(nan_policy="omit")
    a = cases.sample(Problem((40, 3)), cases.F8)
    a[::7, 1] = np.nan
    mean, var = fn.mean_var(a, 0, nan_policy="omit")
    for c in range(3):
        expected_mean, expected_var = oracle.mean_var(a[~np.isnan(a[:, c]), c])
        assert_within(mean[c], expected_mean, tolerance.mean(expected_mean, expected_var, cases.F8))
        assert_within(var[c], expected_var, tolerance.var(expected_var, cases.F8))


def test_nan_policy_raise_refuses_nan_only() -> None:
    accepts(nan_policy="raise")
    assert fn.mean_var(np.ones(3), nan_policy="raise").mean == 1.0
    with pytest.raises(ValueError, match=r"(?i)nan"):
        fn.mean_var(np.array([1.0, np.nan]), nan_policy="raise")


def test_nan_policy_unknown_is_refused() -> None:
    with pytest.raises((ValueError, TypeError, NotImplementedError), match="nan_policy"):
        fn.mean_var(np.ones(3), nan_policy="drop")
