"""`fastnorm.dask.mean_var`: lazy, one pass, any chunks, and equal to the statistics of one machine."""

from __future__ import annotations

import doctest
import functools
import importlib
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

import fastnorm as fn  # noqa: E402

SHAPE = (12, 7, 5)
X = np.random.default_rng(5).normal(3.0, 2.0, SHAPE)
CHUNKS = ((12, 7, 5), (1, 4, 5), (5, 3, 2), ((0, 1, 4, 0, 7, 0), (3, 4), (5,)), ((12,), (0, 7), (1, 0, 4)))
AXES: tuple[Any, ...] = (None, 0, 1, -1, (0, 2), (0, 1, 2), (), [2, 0])


def sync(*lazy: Any) -> Any:
    return dask.compute(*lazy, scheduler="synchronous")


def numpy_mean_var(x: Any, axis: Any, ddof: float = 0, keepdims: bool = False) -> tuple[Any, Any]:
    axes = tuple(axis) if isinstance(axis, list) else axis
    return np.mean(x, axes, keepdims=keepdims), np.var(x, axes, ddof=ddof, keepdims=keepdims)


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_any_chunks_give_the_statistics_of_the_whole(axis: Any, chunks: Any) -> None:
    for keepdims, split_every in ((False, None), (True, 2)):
        lazy = fn.dask.mean_var(da.from_array(X, chunks=chunks), axis, keepdims=keepdims, split_every=split_every)
        for found, expected in zip(lazy, numpy_mean_var(X, axis, keepdims=keepdims), strict=True):
            assert found.dtype == np.float64
            assert found.shape == np.shape(expected)
            (values,) = sync(found)
            assert np.shape(values) == np.shape(expected)
            np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-14)


@given(data=st.data())
def test_random_cuts_and_axes(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).normal(1e3, 1.0, shape)
    chunks = []
    for n in shape:
        cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
        chunks.append(tuple(int(k) for k in np.diff([0, *cuts, n])))
    axes = tuple(k for k in range(x.ndim) if data.draw(st.booleans()))
    lazy = fn.dask.mean_var(da.from_array(x, chunks=tuple(chunks)), axes, split_every=data.draw(st.integers(2, 5)))
    mean, var = sync(*lazy)
    expected = fn.mean_var(x, axes)
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(var, expected.var, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, bool])
def test_dtypes(dtype: Any) -> None:
    x = (X * 10).astype(dtype)
    mean, var = sync(*fn.dask.mean_var(da.from_array(x, chunks=(5, 3, 5)), 0))
    expected = fn.mean_var(x, 0)
    assert mean.dtype == var.dtype == np.float64
    limit = 1e-12 if x.dtype.itemsize == 8 else 1e-6
    np.testing.assert_allclose(mean, expected.mean, rtol=limit)
    np.testing.assert_allclose(var, expected.var, rtol=limit)


def test_far_from_zero_the_variance_keeps_its_digits() -> None:
    x = X[:, :, 0] + 1e9
    mean, var = sync(*fn.dask.mean_var(da.from_array(x, chunks=(1, 7)), 0))
    np.testing.assert_allclose(var, np.var(x - 1e9, 0), rtol=1e-12)
    np.testing.assert_allclose(mean, 1e9 + np.mean(x - 1e9, 0), rtol=1e-15)


def test_nan_propagate_count_as_absent_or_raise() -> None:
    x = X[:, :, 0].copy()
    x[3, 2], x[:, 4] = np.nan, np.nan
    lazy = da.from_array(x, chunks=(5, 3))
    for found, reduce in zip(sync(*fn.dask.mean_var(lazy, 0)), (np.mean, np.var), strict=True):
        np.testing.assert_allclose(found, reduce(x, 0), rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of the column without a number
        expected = np.nanmean(x, 0), np.nanvar(x, 0, ddof=1)
    for found, values in zip(sync(*fn.dask.mean_var(lazy, 0, ddof=1, nan_policy="omit")), expected, strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-12)
    refused = fn.dask.mean_var(lazy, 0, nan_policy="raise").mean
    with pytest.raises(ValueError, match="nan values"):
        sync(refused)


def test_too_few_elements_are_nan_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, var = sync(*fn.dask.mean_var(da.zeros((0, 3), chunks=(2, 2)), 0))
        assert np.isnan(mean).all()
        assert np.isnan(var).all()
        assert np.isnan(sync(fn.dask.mean_var(da.ones((1, 3)), 0, ddof=1).var)[0]).all()


def test_an_infinity_is_the_mean_of_its_column_only() -> None:
    x = X[:, :, 0].copy()
    x[7, 1], x[2, 3], x[9, 3] = np.inf, np.inf, -np.inf
    mean, _ = sync(*fn.dask.mean_var(da.from_array(x, chunks=(4, 7)), 0))
    assert mean[1] == np.inf
    assert np.isnan(mean[3])
    np.testing.assert_allclose(np.delete(mean, [1, 3]), np.delete(x, [1, 3], 1).mean(0), rtol=1e-12)


# Weights.


@pytest.mark.parametrize("shape", [SHAPE, (7, 1), (12, 1, 1), (5,), ()], ids=str)
@pytest.mark.parametrize("lazy", [True, False])
def test_weights_broadcast(shape: tuple[int, ...], lazy: bool) -> None:
    w = np.random.default_rng(1).integers(1, 4, shape).astype(float) if shape else np.float64(2.0)
    given = da.from_array(w, chunks=2) if lazy else w
    mean, var = sync(*fn.dask.mean_var(da.from_array(X, chunks=(5, 3, 2)), (0, 2), weights=given))
    full = np.broadcast_to(w, SHAPE)
    expected = np.average(X, (0, 2), full)
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    np.testing.assert_allclose(var, np.average((X - expected[:, None]) ** 2, (0, 2), full), rtol=1e-12)


def test_one_weight_per_index_of_the_axis_also_in_chunks_of_unknown_size() -> None:
    x, w = X[:, :, 0], np.random.default_rng(2).random(12)
    expected = np.average(x, 0, w)
    (mean,) = sync(fn.dask.mean_var(da.from_array(x, chunks=(5, 3)), 0, weights=w).mean)
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    kept = x[:, 0] > 3.0
    mask = da.from_array(kept, chunks=5)
    rows, weights = da.from_array(x, chunks=(5, 3))[mask], da.from_array(w, chunks=5)[mask]
    assert np.isnan(rows.shape[0])
    (mean,) = sync(fn.dask.mean_var(rows, 0, weights=weights).mean)
    np.testing.assert_allclose(mean, np.average(x[kept], 0, w[kept]), rtol=1e-12)
    with pytest.raises(ValueError, match="chunked alike where sizes are unknown"):
        fn.dask.mean_var(rows, 0, weights=w)


def test_frames_and_series() -> None:
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    table = pandas.DataFrame(X[:, :3, 0], columns=list("abc"))
    lazy = dd.from_pandas(table, npartitions=5)
    kept = lazy[lazy.a > 3.0]
    for axis in (None, 0, 1):
        mean, var = sync(*fn.dask.mean_var(kept, axis))
        expected = numpy_mean_var(table[table.a > 3.0].to_numpy(), axis)
        np.testing.assert_allclose(mean, expected[0], rtol=1e-12)
        np.testing.assert_allclose(var, expected[1], rtol=1e-12)
    np.testing.assert_allclose(sync(fn.dask.mean_var(kept["b"]).mean)[0], table[table.a > 3.0].b.mean(), rtol=1e-12)


# Lazily, once, in one order.


class Counting:
    """An array whose blocks count how often they are read."""

    dtype, ndim = X.dtype, X.ndim

    def __init__(self) -> None:
        self.shape, self.reads, self._lock = X.shape, 0, threading.Lock()

    def __getitem__(self, index: Any) -> np.ndarray:
        with self._lock:
            self.reads += 1
        return X[index]


def test_nothing_is_read_before_it_is_computed_and_then_once_for_both() -> None:
    source = Counting()
    lazy = da.from_array(source, chunks=(4, 7, 5), meta=np.empty((0, 0, 0)))
    statistics = fn.dask.mean_var(lazy, 0)
    assert source.reads == 0
    dask.compute(*statistics, scheduler="threads")
    assert source.reads == 3


def test_the_same_bits_from_every_scheduler() -> None:
    x = np.random.default_rng(3).normal(1e3, 1.0, (50_000, 4)).astype("f4")
    lazy = fn.dask.mean_var(da.from_array(x, chunks=(1717, 3)), 0)
    first = sync(*lazy)
    for _ in range(3):
        for a, b in zip(dask.compute(*lazy, scheduler="threads", num_workers=4), first, strict=True):
            assert a.tobytes() == b.tobytes()


def test_the_tree_is_as_wide_as_split_every() -> None:
    x = da.ones((64,), chunks=1)
    tasks = [len(dict(fn.dask.mean_var(x, split_every=n).mean.__dask_graph__())) for n in (2, 8, 64)]
    assert tasks[0] > tasks[1] > tasks[2]


# Errors.


def test_what_is_refused_when_it_is_asked_for() -> None:
    lazy = da.from_array(X, chunks=4)
    mean_var = functools.partial(fn.dask.mean_var, lazy)
    for call, error, match in (
        (lambda: fn.dask.mean_var(X), TypeError, "a is a ndarray but must be a Dask array.*call fastnorm.mean_var"),
        (lambda: fn.dask.mean_var(lazy.astype(complex)), TypeError, "dtype complex128"),
        (lambda: mean_var(3), np.exceptions.AxisError, "axis 3 is out of bounds"),
        (lambda: mean_var((0, 0)), ValueError, "names a dimension twice"),
        (lambda: mean_var(nan_policy="skip"), ValueError, "nan_policy is 'skip'"),
        (lambda: mean_var(ddof="1"), TypeError, "ddof must be a number"),
        (lambda: mean_var(split_every=1), ValueError, "split_every is 1 but must be at least 2"),
        (lambda: mean_var(split_every=2.5), TypeError, "split_every must be an integer"),
        (lambda: mean_var(weights=np.ones(4)), ValueError, r"weights has shape \(4,\)"),
        (lambda: mean_var(weights=np.ones((1, *SHAPE))), ValueError, r"weights has shape \(1, 12, 7, 5\)"),
    ):
        with pytest.raises(error, match=match):
            call()
    negative = mean_var(weights=-np.ones(5)).mean
    with pytest.raises(ValueError, match="negative"):
        sync(negative)


@pytest.mark.parametrize("name", ["dask", "dask_statistics"])
def test_examples_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"fastnorm.interop.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
