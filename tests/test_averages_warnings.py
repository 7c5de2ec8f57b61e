"""What NumPy warns of and refuses, the averages warn of and refuse: in its words, with the line of the caller."""

from __future__ import annotations

import io
import warnings
from typing import Any

import cases
import numpy as np
import pytest

import fastnorm as fn

AVERAGES = ("mean", "var", "std", "nanmean", "nanvar", "nanstd")
SQUARES = ("var", "std", "nanvar", "nanstd")
NAN = np.nan
LACKING = {
    "nothing": np.empty(0),
    "nothing, float32": np.empty(0, np.float32),
    "nothing, float16": np.empty(0, np.float16),
    "nothing, integers": np.empty(0, int),
    "no rows": np.empty((0, 3)),
    "no columns": np.empty((3, 0), np.float32),
    "neither": np.empty((0, 0)),
    "columns of NaN": np.array([[NAN, 1.0], [NAN, 2.0]]),
    "columns of NaN, float32": np.array([[NAN, 1.0], [NAN, 2.0]], np.float32),
    "one row": np.array([[3.0, 4.0]]),
    "one number": np.array(3.0, np.float32),
    "integers": np.array([[1, 2, 2], [1, 2, 4]]),
}


def outcome(function: Any, *args: Any, **options: Any) -> tuple[Any, list[tuple[type, str]], list[str]]:
    """The result or the exception; the warnings; the files they are blamed on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*args, **options)
        except Exception as error:
            result = error
    return result, [(w.category, str(w.message)) for w in caught], [w.filename for w in caught]


@pytest.mark.parametrize("case", LACKING)
@pytest.mark.parametrize("name", AVERAGES)
def test_slices_without_elements(name: str, case: str) -> None:
    a = LACKING[case]
    warned = 0
    for axis in (None, *range(a.ndim), ()):
        for options in ({}, {"keepdims": True}, {"where": False}, {"out": ...}, {"ddof": 1}, {"ddof": 2}, {"ddof": 5.0}, {"mean": 0.5}):
            if ("ddof" in options or "mean" in options) and name not in SQUARES:
                continue
            if "where" in options and a.size and a.dtype != np.float64:  # kernels to compile, of which test_averages has enough
                continue
            results = []
            for library in (np, fn):
                if "out" in options:
                    options = {"out": np.zeros(np.empty(a.shape, np.int8).sum(axis=axis).shape)}
                results.append(outcome(getattr(library, name), a, axis, **options))
            (expected, wanted, _), (found, texts, files) = results
            assert texts == wanted, (axis, options)
            assert set(files) <= {__file__}
            assert (type(found), found.dtype, found.shape) == (type(expected), expected.dtype, expected.shape)
            np.testing.assert_allclose(found, expected, rtol=1e-15)
            warned += len(texts)
    assert warned or name.endswith("mean")  # of elements there are enough


@pytest.mark.parametrize("name", AVERAGES)
def test_errstate_is_that_of_the_user(name: str) -> None:
    a = np.array([[3.0, 4.0], [3.0, 5.0]])
    options = {"ddof": 2} if name in SQUARES else {"where": False}
    for state in ({"all": "ignore"}, {"invalid": "ignore"}, {"divide": "ignore"}, {"invalid": "raise"}, {"divide": "raise"}):
        with np.errstate(**state):  # type: ignore[arg-type]
            expected, wanted, _ = outcome(getattr(np, name), a, 0, **options)
            found, texts, _ = outcome(getattr(fn, name), a, 0, **options)
        assert type(found) is type(expected)
        if isinstance(expected, FloatingPointError):
            assert str(found) == str(expected)
        else:
            assert texts == wanted
    logs = io.StringIO(), io.StringIO()
    for library, log in zip((np, fn), logs, strict=True):
        with np.errstate(all="log", call=log):
            outcome(getattr(library, name), a, 0, **options)
    assert logs[0].getvalue() == logs[1].getvalue()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", AVERAGES)
def test_nan_and_infinities_are_silent(name: str, dtype: Any) -> None:
    a = cases.sample(cases.Problem((40, 6)), dtype)
    clean = getattr(fn, name)(a, 0)
    a[3, 0], a[4, 1], a[5, 2], a[6, 2], a[7, 3], a[8, 3] = NAN, np.inf, np.inf, -np.inf, NAN, -np.inf
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        found, whole = getattr(fn, name)(a, 0), getattr(fn, name)(a)
        np.testing.assert_allclose(getattr(fn, name)(a, 0, np.float64), found, rtol=1e-6)
    expected = outcome(getattr(np, name), a, 0)[0]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(found), np.isposinf(expected))
    np.testing.assert_allclose(found[4:], clean[4:], rtol=1e-6 if dtype is np.float32 else 1e-14)
    assert np.isnan(whole)


@pytest.mark.parametrize("name", AVERAGES)
def test_nothing_is_written_when_a_warning_is_an_error(name: str) -> None:
    out = np.full(2, 77.0)
    with pytest.raises(RuntimeWarning):
        getattr(fn, name)(np.empty((0, 2)), 0, out=out)
    assert (out == 77.0).all()


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "axis too large": ({"axis": 2}, np.exceptions.AxisError, "out of bounds"),
    "axis too small": ({"axis": -3}, np.exceptions.AxisError, "out of bounds"),
    "one axis of two too large": ({"axis": (0, 2)}, np.exceptions.AxisError, "out of bounds"),
    "axis twice": ({"axis": (0, -2)}, ValueError, "axis"),
    "axis no integer": ({"axis": 1.0}, TypeError, "integer"),
    "keepdims no integer": ({"keepdims": "no"}, TypeError, "integer"),
    "out of another length": ({"axis": 0, "out": np.empty(2)}, ValueError, r"\(2,\)"),
    "out of another rank": ({"axis": 0, "out": np.empty((1, 3))}, ValueError, "out"),
    "out without keepdims": ({"axis": 0, "keepdims": True, "out": np.empty(3)}, ValueError, "out"),
    "out read-only": ({"axis": 0, "out": np.broadcast_to(0.0, (3,))}, ValueError, "read-only"),
    "dtype no dtype": ({"dtype": "nonsense"}, TypeError, "nonsense"),
    "dtype of another byte order": ({"dtype": np.dtype(np.float64).newbyteorder()}, TypeError, "byte order"),
    "where of another shape": ({"where": [True, False]}, ValueError, "broadcast"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", AVERAGES)
def test_what_numpy_refuses(name: str, case: str) -> None:
    options, error, text = REFUSED[case]
    a = np.arange(6.0).reshape(2, 3)
    with pytest.raises(error):
        getattr(np, name)(a, **options)
    with pytest.raises(error, match=text):
        getattr(fn, name)(a, **options)


def test_integers_for_nan_functions_are_refused_as_by_numpy() -> None:
    a = np.array([1.0, 2.0])
    for name in ("nanmean", "nanvar", "nanstd"):
        with pytest.raises(TypeError, match="dtype must be inexact"):
            getattr(fn, name)(a, dtype=int)
        with pytest.raises(TypeError, match="out must be inexact"):
            getattr(fn, name)(a, out=np.empty((), int))


@pytest.mark.parametrize("name", SQUARES)
def test_ddof(name: str) -> None:
    a = np.arange(6.0)
    with pytest.raises(ValueError, match="ddof and correction can't be provided simultaneously"):
        getattr(fn, name)(a, ddof=1, correction=1)
    assert getattr(fn, name)(a, ddof=0, correction=1) == getattr(fn, name)(a, ddof=1)
    for wrong in ("1", None, [1, 2]):
        with pytest.raises(TypeError, match="ddof"):
            getattr(fn, name)(a, ddof=wrong)


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize(
    "a",
    [
        np.array([1j]),
        np.ones(2, np.longdouble),
        np.array([1, 2], object),
        np.array(["1"]),
        np.array([1, 2], "M8[s]"),
        np.ma.masked_array([1.0, 2.0], [True, False]),
    ],
    ids=lambda a: f"{type(a).__name__}-{a.dtype}",
)
def test_dtypes_without_our_arithmetic(name: str, a: Any) -> None:
    with pytest.raises(TypeError, match="masked" if isinstance(a, np.ma.MaskedArray) else str(a.dtype).replace("[", r"\[")):
        getattr(fn, name)(a)
