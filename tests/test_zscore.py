"""``fn.zscore``: laws, SciPy's results and warnings, accuracy where SciPy's float32 has none."""

from __future__ import annotations

import inspect
import warnings
from itertools import combinations
from typing import Any

import cases
import numpy as np
import oracle
import pytest
import scipy
import tolerance
from cases import Problem
from scipy import stats
from tolerance import assert_within

import fastnorm as fn
from fastnorm.ops import zscores

NAN = np.nan
SCIPY = tuple(map(int, scipy.__version__.split(".")[:2]))
LATER_SCIPY = pytest.mark.skipif(SCIPY < (1, 16), reason="SciPy 1.15 fails on a number, and makes float64 of no rows")
CUBE = Problem((5, 4, 6))


def outcome(function: Any, *args: Any, **options: Any) -> tuple[Any, list[tuple[type, str]]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **options)
    return result, [(w.category, str(w.message)) for w in caught]


def check_against_scipy(a: Any, **options: Any) -> None:
    before = np.array(a)
    found, texts = outcome(fn.zscore, a, **options)
    expected, wanted = outcome(stats.zscore, a, **options)
    assert texts == wanted or SCIPY < (1, 15)  # which warned of few degrees of freedom
    assert (type(found), found.dtype, found.shape) == (np.ndarray, expected.dtype, expected.shape)
    # SciPy's errors are those of means in the dtype of the input: some units in the last place, of numbers below 8.
    allowed = {"float64": 2.0**-44, "float32": 2.0**-16, "float16": 2.0**-5}[found.dtype.name]
    assert_within(found, expected, allowed * (1 + np.abs(expected)))
    np.testing.assert_array_equal(np.array(a), before)


def test_the_signature_is_that_of_scipy() -> None:
    found = {name: p.default for name, p in inspect.signature(fn.zscore).parameters.items()}
    assert found == {name: p.default for name, p in inspect.signature(stats.zscore).parameters.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 5003), (9, 40), (700, 3), (1, 6), (4, 5, 6), (3, 2000)], ids=str)
def test_the_short_way_gives_the_bits_of_the_general_one(monkeypatch: pytest.MonkeyPatch, dtype: Any, shape: tuple[int, ...]) -> None:
    a = cases.sample(Problem(shape, 0), dtype)
    calls = [(axis, ddof) for axis in (None, *range(len(shape)), (0, len(shape) - 1)) for ddof in (0, 1, 0.5)]
    short = [outcome(fn.zscore, a, axis=axis, ddof=ddof) for axis, ddof in calls]
    monkeypatch.setattr(zscores, "_scores_of_finite", lambda *arguments: None)
    for (found, texts), (axis, ddof) in zip(short, calls, strict=True):
        general, said = outcome(fn.zscore, a, axis=axis, ddof=ddof)
        assert found.tobytes() == general.tobytes(), (axis, ddof)
        assert texts == said


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_have_mean_0_and_variance_1(dtype: Any) -> None:
    for axis in (0, 1, 2, None):
        for ddof in (0, 1):
            z = fn.zscore(cases.sample(CUBE, dtype, offset=100.0), axis, ddof)
            assert z.dtype == dtype
            mean, var = oracle.mean_var(z, axis, ddof=ddof)
            assert_within(mean, np.zeros_like(mean), 4 * tolerance.unit(dtype))
            assert_within(var, np.ones_like(var), 8 * tolerance.unit(dtype))


def test_scores_of_a_rescaled_array_are_the_same() -> None:
    a = np.round(cases.sample(CUBE, cases.F8) * 1024) / 1024  # so that 8 * a - 512 is exact
    np.testing.assert_allclose(fn.zscore(8 * a - 512, 1), fn.zscore(a, 1), atol=1e-13)
    np.testing.assert_allclose(fn.zscore(-a, 1), -fn.zscore(a, 1), atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64])
def test_every_axis_and_dtype_as_scipy(dtype: Any) -> None:
    a = np.random.default_rng(3).integers(0, 8, CUBE.shape).astype(dtype)
    for axis in (0, 1, -1, None):
        for ddof in (0, 1, 2.5):
            check_against_scipy(a, axis=axis, ddof=ddof)


def test_several_axes_and_any_strides() -> None:
    a = np.random.default_rng(3).integers(0, 8, (3, 4, 5, 2)).astype(np.float64)
    for n in range(1, 5):
        for axes in combinations(range(4), n):
            check_against_scipy(a, axis=axes)
    for view in ("Fortran", "negative strides", "every second, last axis", "inner part", "read-only", "big-endian", "subclass"):
        for axis in (0, 1, None):
            strange = cases.VIEWS[view](a)
            found = fn.zscore(strange, axis)
            np.testing.assert_allclose(found, stats.zscore(a, axis), atol=1e-13)
            assert type(found) is np.ndarray


@pytest.mark.skipif(SCIPY < (1, 15), reason="SciPy 1.14 makes something else of too few values")
@pytest.mark.parametrize(
    "a",
    [
        [1, 2, 4],
        pytest.param(3.0, marks=LATER_SCIPY),
        [2.0, 2.0, 2.0],
        [0.0, 0.0, 0.0],
        [7.0],
        [[1.0, 2.0], [1.0, 3.0]],
        [1.0, 1.0 + 2.0**-50],
        np.full(5, 0.1, np.float32),
        np.array([[100.0, 1.0], [100.0625, 2.0]], np.float16),
        [1.0, NAN, 3.0],
        [2.0, NAN, 2.0],
        [NAN, NAN],
        [[NAN, 1.0], [NAN, 2.0], [NAN, 4.0]],
        [[NAN, 5.0], [1.0, 5.0], [3.0, 5.0]],
        np.empty(0),
        np.empty((0, 3)),
        pytest.param(np.empty((3, 0), np.float32), marks=LATER_SCIPY),
        np.empty(0, int),
    ],
    ids=str,
)
def test_few_constant_and_missing_values_as_scipy(a: Any) -> None:
    for policy in ("propagate", "omit"):
        for axis in (None, 0) if np.ndim(a) else (None,):
            for ddof in (0, 1, 2, 7):
                check_against_scipy(a, axis=axis, ddof=ddof, nan_policy=policy)


def test_warnings_blame_the_caller() -> None:
    with pytest.warns(RuntimeWarning, match="nearly identical") as caught:
        assert np.isnan(fn.zscore(np.full((3, 2), 0.1, np.float32))).all()
    assert [w.filename for w in caught] == [__file__]


def test_nan_and_infinities_stay_in_their_slice_in_silence() -> None:
    a = cases.sample(Problem((40, 5)))
    clean = fn.zscore(a)
    a[3, 0], a[4, 1], a[5, 2], a[6, 2] = NAN, np.inf, np.inf, -np.inf
    with np.errstate(all="raise"):
        for policy in ("propagate", "omit"):
            z = fn.zscore(a, nan_policy=policy)
            assert_within(z[:, 3:], clean[:, 3:], tolerance.agreement(clean[:, 3:], np.float32))
            assert np.isnan(z[:, 1:3]).all()
            assert np.isnan(z[:, 0]).sum() == (1 if policy == "omit" else 40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_accurate_at_any_offset(dtype: Any, offset: float) -> None:
    a = (np.random.default_rng(0).standard_normal((4000, 3)) + offset).astype(dtype)
    a[::7, 1] = NAN
    expected = np.full(a.shape, NAN)
    for c in range(3):
        there = ~np.isnan(a[:, c])
        found = oracle.moments(a[there, c].astype(np.float64)[None])
        expected[there, c] = found.deviation[0] / np.sqrt(found.var[0])
    unit = tolerance.unit(dtype)
    assert_within(fn.zscore(a, nan_policy="omit"), expected, unit * (1 + np.abs(expected)))
    if dtype == np.float32 and offset:
        assert np.nanmax(np.abs(stats.zscore(a, nan_policy="omit") - expected)) > 1e-3


def test_what_is_refused() -> None:
    a = np.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match="nan_policy is 'drop'"):
        fn.zscore(a, nan_policy="drop")
    with pytest.raises(ValueError, match="The input contains nan values"):
        fn.zscore([1.0, NAN], nan_policy="raise")
    for finite in ([1.0, 3.0], [1.0, np.inf, -np.inf]):
        np.testing.assert_array_equal(fn.zscore(finite, nan_policy="raise"), fn.zscore(finite))
    for axis in (2, -3):
        with pytest.raises(np.exceptions.AxisError):
            fn.zscore(a, axis)
    with pytest.raises(np.exceptions.AxisError):
        fn.zscore(3.0)
    for ddof in ("1", None):
        with pytest.raises(TypeError, match="ddof"):
            fn.zscore(a, ddof=ddof)
    for wrong in (np.ma.masked_array([1.0]), [1j], ["1"], np.ones(2, np.longdouble)):
        with pytest.raises(TypeError, match=r"a (has dtype|is a masked array)"):
            fn.zscore(wrong)
