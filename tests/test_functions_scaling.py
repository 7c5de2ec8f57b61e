"""scale, minmax_scale, maxabs_scale, normalize: vectors and tables, along either axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest

from fastnorm.preprocessing import maxabs_scale, minmax_scale, normalize, scale

FUNCTIONS = (scale, minmax_scale, maxabs_scale, normalize)
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def table(dtype: Any = np.float64, missing: bool = False) -> np.ndarray:
    rng = np.random.default_rng(11)
    X = rng.normal([3.0, -20.0, 0.0, 1.0], [1.0, 5.0, 0.0, 2.0], (30, 4))
    if missing:
        X[rng.random(X.shape) < 0.2] = np.nan
    return X.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1])
def test_laws(axis: int, dtype: str) -> None:
    X, close = table(dtype), TOLERANCE[dtype]
    mean, var = oracle.mean_var(scale(X, axis=axis), axis)
    np.testing.assert_allclose(mean, 0.0, atol=close)
    np.testing.assert_allclose(var, 1.0 if axis == 1 else [1, 1, 0, 1], atol=4 * close)
    Y = minmax_scale(X, (2, 5), axis=axis)
    np.testing.assert_allclose(Y.min(axis=axis), 2.0, rtol=close)
    np.testing.assert_allclose(np.delete(Y.max(axis=axis), 2), 5.0, rtol=close)
    np.testing.assert_allclose(np.delete(np.abs(maxabs_scale(X, axis=axis)).max(axis=axis), 2), 1.0, rtol=close)
    np.testing.assert_allclose(np.delete(np.linalg.norm(normalize(X, axis=axis), axis=axis), 2), 1.0, rtol=close)
    assert all(f(X, axis=axis).dtype == dtype for f in FUNCTIONS)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.filterwarnings("ignore:Numerical issues")  # theirs
def test_results_are_those_of_scikit_learn(axis: int, missing: bool) -> None:
    theirs = pytest.importorskip("sklearn.preprocessing")
    X = table(missing=missing)
    for options in ({}, {"with_mean": False}, {"with_std": False}):
        np.testing.assert_allclose(scale(X, axis=axis, **options), theirs.scale(X, axis=axis, **options), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(minmax_scale(X, (-1, 3), axis=axis), theirs.minmax_scale(X, (-1, 3), axis=axis), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(maxabs_scale(X, axis=axis), theirs.maxabs_scale(X, axis=axis), rtol=1e-12)
    for norm in () if missing else ("l1", "l2", "max"):
        ours, expected = (f(X, norm, axis=axis, return_norm=True) for f in (normalize, theirs.normalize))
        np.testing.assert_allclose(ours[0], expected[0], rtol=1e-12)
        np.testing.assert_allclose(ours[1], expected[1], rtol=1e-12)


@pytest.mark.parametrize("function", [scale, minmax_scale, maxabs_scale])
def test_a_vector_is_one_feature(function: Callable[..., Any]) -> None:
    x = table()[:, 1]
    np.testing.assert_allclose(function(x), function(x[:, None])[:, 0], rtol=1e-12)
    assert function(list(x)).shape == x.shape


@pytest.mark.parametrize("function", FUNCTIONS)
def test_copy_false_writes_to_x(function: Callable[..., Any]) -> None:
    for axis in (0, 1):
        X, expected = table(), function(table(), axis=axis)
        kept = X.copy()
        function(X, axis=axis)
        np.testing.assert_array_equal(X, kept)
        assert np.shares_memory(function(X, axis=axis, copy=False), X)
        np.testing.assert_array_equal(X, expected)


def test_a_frame_is_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(), columns=list("abcd"))
    for function in FUNCTIONS:
        np.testing.assert_allclose(function(frame), function(table()), rtol=1e-13)
    np.testing.assert_array_equal(frame, table())


def test_a_setting_for_frames_is_not_for_functions() -> None:
    sklearn = pytest.importorskip("sklearn")
    pytest.importorskip("pandas")
    with sklearn.config_context(transform_output="pandas"):
        assert all(type(f(table())) is np.ndarray for f in FUNCTIONS)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_refused(function: Callable[..., Any]) -> None:
    bad = table()
    bad[1, 1] = -np.inf
    with pytest.raises(ValueError, match="infinity"):
        function(bad)
    with pytest.raises(ValueError, match=r"'axis' parameter of .* must be an int among \{0, 1\}. Got 2 instead"):
        function(table(), axis=2)
    with pytest.raises(ValueError, match="dim 3"):
        function(table()[None])
    with pytest.raises(ValueError, match="0 sample"):
        function(table()[:0])
    with pytest.raises(ValueError, match="'copy' parameter"):
        function(table(), copy=0)


def test_what_one_of_them_refuses() -> None:
    with pytest.raises(ValueError, match="'norm' parameter of normalize must be a str among"):
        normalize(table(), "l7")
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        normalize(table()[0])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        normalize(table(missing=True))
    with pytest.raises(ValueError, match="Minimum of desired feature range"):
        minmax_scale(table(), (3, 2))
    with pytest.raises(np.exceptions.AxisError):
        scale(table()[0], axis=1)


NORMS = {"l1": 1, "l2": 2, "max": np.inf}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3001, 1), (1000, 8), (700, 9), (301, 50), (7, 3000), (3, 70_001), (20, 70_001)], ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_rows_of_every_width(norm: str, shape: tuple[int, int], dtype: str) -> None:
    """Those measured in place, by a function, in blocks of one and of many; magnitudes whose squares are no float32; rows of zeros."""
    X = np.random.default_rng(3).standard_normal(shape).astype(dtype)
    X[0], X[-1] = 0.0, X[-1] * X.dtype.type(1e30)
    wanted = np.linalg.norm(X.astype(np.float64), NORMS[norm], axis=1)
    wanted[0] = 1.0
    Y, found = normalize(X, norm, return_norm=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose(Y, X / wanted[:, None], rtol=TOLERANCE[dtype])
    apart = np.asfortranarray(X)
    np.testing.assert_allclose(normalize(apart, norm), Y, rtol=TOLERANCE[dtype])
    assert normalize(X, norm, copy=False) is X
    np.testing.assert_array_equal(X, Y)
