"""``fn.mean_var`` and ``fn.RunningMoments`` with weights and with NaN left out; the reductions below them."""

from __future__ import annotations

import math
import pickle
import warnings
from fractions import Fraction
from typing import Any

import cases
import numpy as np
import oracle
import pytest
from cases import Problem
from hypothesis import given
from hypothesis import strategies as st
from tolerance import assert_within

import fastnorm as fn
from fastnorm.ops import reduction

# Planar with lanes of both widths and in cuts on all threads, interleaved, folded, in cuts, and one column of all.
SHAPES: list[tuple[tuple[int, ...], Any]] = [
    ((37, 5), 0),
    ((5, 300), 1),
    ((2, 3, 2500), (0, 2)),
    ((700, 3), 0),
    ((70_000, 3), 0),
    ((3, 150_001), 1),
    ((4, 6, 5, 3), (0, 1, 2)),
    ((91,), None),
    ((1, 4), 0),
]
IDS = [f"{'x'.join(map(str, shape))} over {axis}" for shape, axis in SHAPES]
RELATIVE = {cases.F4: 1e-6, cases.F8: 1e-12}  # of the spread, as promised of streams


def holed(shape: tuple[int, ...], dtype: Any = cases.F8, offset: float = 100.0, share: float = 0.2) -> np.ndarray:
    """Values with NaN among them."""
    a = cases.sample(Problem(shape, 0), dtype, offset=offset)
    a[cases.rng_of(3, *shape).random(shape) < share] = np.nan
    return a


def groups(a: np.ndarray, axis: Any) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """Shape of the kept axes, and the elements of every statistic."""
    axes = tuple(range(a.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    kept = [k for k in range(a.ndim) if k not in axes]
    shape = tuple(a.shape[k] for k in kept)
    return shape, list(a.transpose(*kept, *axes).reshape(math.prod(shape), -1))


def weighted(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Exact sums of rounded products; `oracle.weighted_mean_var` is exact throughout and too slow for long rows."""
    values, weights = values[weights > 0], weights[weights > 0]
    if values.size < 200:
        return oracle.weighted_mean_var(values, weights) if values.size else (np.nan, np.nan)
    total = math.fsum(weights)
    near = float(values[0])
    mean = math.fsum(weights * (values - near)) / total
    squares = math.fsum(weights * ((values - near) - mean) ** 2)
    return near + mean, squares / total


def expected(a: np.ndarray, weights: np.ndarray, axis: Any) -> tuple[np.ndarray, np.ndarray]:
    shape, values = groups(np.asarray(a, np.float64), axis)
    found = [weighted(v, w) for v, w in zip(values, groups(weights, axis)[1], strict=True)]
    mean, var = np.array(found).T
    return mean.reshape(shape), var.reshape(shape)


def check(found: Any, wanted: tuple[np.ndarray, np.ndarray], dtype: Any) -> None:
    mean, var = wanted
    promised = RELATIVE[np.dtype(dtype)]
    known = ~np.isnan(mean)
    np.testing.assert_array_equal(np.isnan(found[0]), ~known)
    size = np.abs(mean) * 1e-7 * (promised > 1e-7) + np.abs(mean) * 1e-15 + promised * np.sqrt(var)
    assert_within(np.asarray(found[0])[known], mean[known], size[known], "mean")
    assert_within(np.asarray(found[1])[known], var[known], (4 * promised * var + 1e-300)[known], "var")


@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=IDS)
def test_weights_and_nan(shape: tuple[int, ...], axis: Any, dtype: Any) -> None:
    a = holed(shape, dtype)
    weights = cases.rng_of(5, *shape).integers(0, 4, shape).astype(dtype)
    present = (~np.isnan(a)).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a statistic of one row may be empty
        check(fn.mean_var(a, axis, nan_policy="omit"), expected(a, present, axis), dtype)
        check(fn.mean_var(a, axis, nan_policy="omit", weights=weights), expected(a, weights * present, axis), dtype)
        solid = np.nan_to_num(a, nan=7.0)
        check(fn.mean_var(solid, axis, weights=weights), expected(solid, weights, axis), dtype)


@pytest.mark.parametrize("axis", [0, 1])
def test_far_from_zero_after_a_gap(axis: int) -> None:
    """The first 64 rows of a column are NaN, so that no shift is known when values begin."""
    a = cases.sample(Problem((300, 4)), cases.F4, offset=1e5)
    a[:70, 1] = np.nan
    a[0, :] = np.nan
    a = a if axis == 0 else np.ascontiguousarray(a.T)
    check(fn.mean_var(a, axis, nan_policy="omit"), expected(a, (~np.isnan(a)).astype(float), axis), cases.F4)


def test_integer_weights_are_repetitions() -> None:
    a = cases.sample(Problem((50, 3)), cases.F8)
    times = cases.rng_of(1).integers(0, 5, 50)
    repeated = fn.mean_var(np.repeat(a, times, axis=0), 0, ddof=1)
    weighted = fn.mean_var(a, 0, weights=times, ddof=1)
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-13)
    np.testing.assert_allclose(weighted.var, repeated.var, rtol=1e-12)


def test_an_element_of_weight_zero_does_not_exist() -> None:
    a = np.array([1.0, np.nan, 3.0, np.inf])
    assert fn.mean_var(a, weights=[1.0, 0.0, 1.0, 0.0]) == (2.0, 1.0)
    assert fn.mean_var(a, weights=[1, 0, 1, 0], nan_policy="raise") == (2.0, 1.0)


def test_weights_broadcast() -> None:
    a = cases.sample(Problem((6, 4, 5)), cases.F8)
    w = np.arange(1.0, 5.0)
    full = np.broadcast_to(w[:, None], a.shape)
    for given_weights in (w, w[:, None], full.copy()):
        np.testing.assert_allclose(fn.mean_var(a, 1, weights=given_weights), fn.mean_var(a, 1, weights=full), rtol=1e-14)
    with pytest.warns(RuntimeWarning, match="Mean of empty slice|Degrees of freedom"):
        masked = fn.mean_var(a, (0, 2), weights=np.array([True, False, True, True])[:, None])
    np.testing.assert_array_equal(np.isnan(masked.mean), [False, True, False, False])


# One weight for every row of: planes, columns, one and two columns, in cuts, more than one tile of columns, batches, short planes.
ROWS_OF_WEIGHTS: list[tuple[tuple[int, ...], Any, tuple[int, ...]]] = [
    ((8, 6, 20, 20), (0, 2, 3), (8, 1, 1, 1)),
    ((999, 50), 0, (999, 1)),
    ((3001, 2), 0, (3001, 1)),
    ((3001, 1), 0, (3001, 1)),
    ((70_001, 5), 0, (70_001, 1)),
    ((3, 4500), 0, (3, 1)),
    ((4, 90, 7), 1, (90, 1)),
    ((4, 90, 7), 1, (4, 90, 1)),
    ((64, 6, 2, 2), (0, 2, 3), (64, 1, 1, 1)),
    ((5, 7, 11), None, (5, 1, 1)),
    ((40, 9), 1, (40, 1)),
]


@pytest.mark.parametrize("dtype", [cases.F2, cases.F4, cases.F8, np.dtype(np.int16)], ids=str)
@pytest.mark.parametrize(("shape", "axis", "of"), ROWS_OF_WEIGHTS, ids=str)
def test_a_weight_for_every_row(shape: tuple[int, ...], axis: Any, of: tuple[int, ...], dtype: np.dtype) -> None:
    a = cases.sample(Problem(shape, 0), cases.F8, offset=30.0).astype(dtype)
    drawn = cases.rng_of(5, *of).integers(1, 9, of)
    drawn[0] = axis == 1
    wanted = expected(a, np.broadcast_to(drawn, shape), axis)
    for weights in (drawn, drawn.astype(cases.F4), np.repeat(drawn, 2, 0).astype(">f8")[::2]):
        check(fn.mean_var(a, axis, weights=np.broadcast_to(weights, shape)), wanted, cases.F4 if dtype.itemsize < 8 else dtype)
    if dtype == cases.F4:
        for view in (np.asfortranarray(a), cases.VIEWS["misaligned"](a)):
            check(fn.mean_var(view, axis, weights=np.broadcast_to(drawn, shape)), wanted, dtype)


def test_a_weight_for_every_row_beside_nan_and_infinity() -> None:
    a = holed((400, 5), cases.F4)
    weights = cases.rng_of(6).integers(0, 3, (400, 1)).astype(np.float64)
    present = (~np.isnan(a)).astype(np.float64)
    check(fn.mean_var(a, 0, weights=weights, nan_policy="omit"), expected(a, weights * present, 0), cases.F4)
    assert np.isnan(fn.mean_var(a, 0, weights=weights).mean).all()
    solid = np.nan_to_num(a, nan=1.0)
    solid[7, 1], solid[9, 2], weights[7], weights[9] = np.inf, np.nan, 2.0, 0.0
    mean = fn.mean_var(solid, 0, weights=weights).mean
    assert mean[1] == np.inf
    assert np.isfinite(np.delete(mean, 1)).all()


def test_without_nan_nothing_changes() -> None:
    a = cases.sample(Problem((40, 6)), cases.F4)
    np.testing.assert_array_equal(fn.mean_var(a, 0, nan_policy="omit"), fn.mean_var(a, 0))


def test_infinities_have_infinite_means() -> None:
    a = np.array([[1.0, np.inf, np.inf, np.nan], [2.0, 5.0, -np.inf, np.inf]])
    np.testing.assert_array_equal(fn.mean_var(a, 0).mean, [1.5, np.inf, np.nan, np.nan])
    np.testing.assert_array_equal(fn.mean_var(a, 0, nan_policy="omit").mean, [1.5, np.inf, np.nan, np.inf])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
@pytest.mark.parametrize("axis", [0, 1], ids=["interleaved", "planar"])
def test_integers_are_summed_exactly(dtype: str, axis: int) -> None:
    a = cases.rng_of(8).integers(0, 60_000 if dtype != "uint8" else 256, (5000, 3)).astype(dtype)
    a = a if axis == 0 else np.ascontiguousarray(a.T)
    mean, var = fn.mean_var(a, axis)
    for k, values in enumerate(groups(a, axis)[1]):
        exact = [int(v) for v in values]
        centre = Fraction(sum(exact), len(exact))
        square = Fraction(sum(v * v for v in exact), len(exact)) - centre**2
        assert mean[k] == float(centre)
        assert abs(var[k] - float(square)) <= 4 * np.spacing(float(square))


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=IDS)
def test_extremes_and_sizes(shape: tuple[int, ...], axis: Any) -> None:
    a = holed(shape, cases.F4, offset=1.0)
    axes = tuple(range(a.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    bounds, solid = reduction.extremes(a, axes), np.nan_to_num(a)
    kept, values = groups(a, axis)
    some = [v[~np.isnan(v)] for v in values]
    np.testing.assert_array_equal(bounds.low, np.reshape([v.min() if v.size else np.nan for v in some], kept))
    np.testing.assert_array_equal(bounds.high, np.reshape([v.max() if v.size else np.nan for v in some], kept))
    np.testing.assert_array_equal(bounds.count, np.reshape([v.size for v in some], kept))
    sizes, rows = reduction.sizes(solid, axes), [np.abs(v.astype(float)) for v in groups(solid, axis)[1]]
    np.testing.assert_allclose(sizes.total, np.reshape([math.fsum(v) for v in rows], kept), rtol=1e-13)
    np.testing.assert_allclose(sizes.squares, np.reshape([math.fsum(v * v) for v in rows], kept), rtol=1e-13)
    np.testing.assert_array_equal(sizes.largest, np.reshape([v.max() for v in rows], kept))


ROWS, WEIGHTS = holed((120, 3)), cases.rng_of(9).random(120)


@given(cuts=st.lists(st.integers(0, 120), max_size=5), weigh=st.booleans())
def test_any_partition_of_a_stream_is_the_pooled_result(cuts: list[int], weigh: bool) -> None:
    pooled = fn.RunningMoments(nan_policy="omit")
    for rows, weights in zip(np.split(ROWS, sorted(cuts)), np.split(WEIGHTS, sorted(cuts)), strict=True):
        part = fn.RunningMoments(nan_policy="omit")
        part.update(rows, weights if weigh else None)
        pooled = pooled + pickle.loads(pickle.dumps(part))
    present = ~np.isnan(ROWS) * (WEIGHTS[:, None] if weigh else 1.0)
    check((pooled.mean, pooled.var()), expected(ROWS, present, 0), cases.F8)
    np.testing.assert_allclose(pooled.count, present.sum(0), rtol=1e-13)
    np.testing.assert_array_equal(pooled.min, np.nanmin(ROWS, 0))
    np.testing.assert_array_equal(pooled.max, np.nanmax(ROWS, 0))


def test_a_million_million_samples() -> None:
    m = fn.RunningMoments(axis=0)
    m.update(np.array([[1e6 + 1.0], [1e6 + 3.0]]))
    for _ in range(39):
        m += m
    assert m.count == 2**40 > 10**12
    assert m.mean[0] == 1e6 + 2.0
    np.testing.assert_allclose(m.var(), 1.0, rtol=1e-13)


def test_extremes_of_a_stream_propagate_nan() -> None:
    m = fn.RunningMoments()
    m.update([[1.0, np.nan], [2.0, 3.0]])
    m.update([[-5.0, 1.0]])
    np.testing.assert_array_equal((m.min, m.max), [[-5.0, np.nan], [2.0, np.nan]])
    weighted = fn.RunningMoments()
    weighted.update([[1.0, np.nan], [2.0, 3.0]], [0.0, 1.0])
    np.testing.assert_array_equal((weighted.min, weighted.max), [[2.0, 3.0], [2.0, 3.0]])


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"nan_policy": "ignore"}, ValueError, "propagate, omit, raise"),
        ({"weights": [1.0, 2.0]}, ValueError, r"shape \(2,\)"),
        ({"weights": [1.0, -2.0, 1.0]}, ValueError, "negative"),
        ({"weights": [1.0, np.nan, 1.0]}, ValueError, "NaN"),
        ({"weights": ["a", "b", "c"]}, TypeError, "weights has dtype"),
        ({"nan_policy": "raise"}, ValueError, "The input contains nan values"),
    ],
)
def test_errors(options: dict[str, Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        fn.mean_var(np.array([1.0, np.nan, 2.0]), 0, **options)


def test_a_refused_batch_changes_nothing() -> None:
    m = fn.RunningMoments(nan_policy="raise")
    m.update([[1.0], [2.0]])
    with pytest.raises(ValueError, match="nan"):
        m.update([[np.nan], [1.0]])
    with pytest.raises(ValueError, match="negative"):
        m.update([[1.0]], [-1.0])
    assert (m.count, m.mean[0], m.min[0]) == (2, 1.5, 1.0)
    with pytest.raises(ValueError, match="nan_policy"):
        fn.RunningMoments(nan_policy="none")
