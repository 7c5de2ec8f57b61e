"""Bad input: the right exception, a message that names the argument, and nothing written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import pytest
from cases import Problem
from numpy.exceptions import AxisError

import fastnorm as fn

PROBLEM = Problem((4, 3, 5, 6))
X = cases.sample(PROBLEM)
DY = cases.sample(PROBLEM, seed=7)
ZEROS, ONES = np.zeros(3), np.ones(3)
FOUR = np.ones(4, np.float32)
MASKED = np.ma.masked_array(X, mask=False)

# What is wrong, the exception, and what the message must say (a regular expression).
Bad = tuple[dict[str, Any], type[Exception] | tuple[type[Exception], ...], str]

WRONG_DTYPES = {
    "complex": (X.astype(np.complex64), "complex64"),
    "long double": (X.astype(np.longdouble), np.dtype(np.longdouble).name),
    "object": (X.astype(object), "object"),
    "str": (np.full(X.shape, "a"), "str|<U"),
    "bytes": (np.full(X.shape, b"a"), "bytes|S1"),
    "datetime": (np.zeros(X.shape, "M8[s]"), "datetime64"),
    "timedelta": (np.zeros(X.shape, "m8[s]"), "timedelta64"),
    "structure": (np.zeros(X.shape, [("a", "f4"), ("b", "f4")]), "void|a.*b"),
    "masked": (MASKED, "mask"),
}
# A longdouble of 64 bits is a float64 by another name.
if np.dtype(np.longdouble).itemsize == 8:
    del WRONG_DTYPES["long double"]

SHARED: dict[str, Bad] = {
    "axis too large": ({"axis": 4}, AxisError, "axis"),
    "axis too small": ({"axis": -5}, AxisError, "axis"),
    "axis a float": ({"axis": 1.5}, TypeError, "axis"),
    "axis a string": ({"axis": "1"}, TypeError, "axis"),
    "gamma too long": ({"gamma": FOUR}, ValueError, r"gamma.*4.*\(3,\)|gamma.*4.*3"),
    "gamma a matrix": ({"gamma": np.ones((3, 1))}, ValueError, "gamma"),
    "gamma complex": ({"gamma": np.ones(3, complex)}, TypeError, "gamma.*complex128"),
    "gamma object": ({"gamma": np.ones(3, object)}, TypeError, "gamma.*object"),
    "beta too short": ({"beta": np.ones(2)}, ValueError, "beta"),
    "beta a matrix": ({"beta": np.ones((1, 3))}, ValueError, "beta"),
    "beta complex": ({"beta": np.ones(3, complex)}, TypeError, "beta.*complex128"),
    "activation unknown": ({"activation": "tanh"}, ValueError, "activation.*tanh"),
    "activation not a name": ({"activation": 3}, (TypeError, ValueError), "activation"),
    "residual of another shape": ({"residual": X[:2]}, ValueError, "residual"),
    "residual that would broadcast": ({"residual": X[:1]}, ValueError, "residual"),
    "residual a scalar": ({"residual": 1.0}, ValueError, "residual"),
    "residual complex": ({"residual": X.astype(complex)}, TypeError, "residual.*complex128"),
    "out of another shape": ({"out": np.zeros((4, 3, 5, 5), np.float32)}, ValueError, r"out.*\(4, 3, 5, 5\)"),
    "out of as many elements": ({"out": np.zeros((4, 3, 30), np.float32)}, ValueError, "out"),
    "out of integers": ({"out": np.zeros(X.shape, np.int32)}, TypeError, "out.*int32"),
    "out complex": ({"out": np.zeros(X.shape, np.complex64)}, TypeError, "out.*complex64"),
    "out a list": ({"out": [1.0]}, TypeError, "out"),
    "out read-only": ({"out": cases.read_only(np.zeros(X.shape, np.float32))}, ValueError, "out.*(read-only|writ)"),
}
EPS: dict[str, Bad] = {
    "eps negative": ({"eps": -1e-5}, ValueError, "eps.*-1e-05"),
    "eps NaN": ({"eps": float("nan")}, ValueError, "eps.*nan"),
    "eps infinite": ({"eps": float("inf")}, ValueError, "eps.*inf"),
    "eps a string": ({"eps": "1e-5"}, TypeError, "eps"),
    "eps complex": ({"eps": 1j}, TypeError, "eps"),
}
RUNNING: dict[str, Bad] = {
    "running_mean too long": ({"running_mean": FOUR.copy()}, ValueError, "running_mean.*4"),
    "running_var too short": ({"running_var": np.ones(2)}, ValueError, "running_var.*2"),
    "running_mean a matrix": ({"running_mean": np.ones((1, 3))}, ValueError, "running_mean"),
    "running_var read-only": ({"running_var": cases.read_only(np.ones(3))}, ValueError, "running_var.*(read-only|writ)"),
    "running_mean read-only": ({"running_mean": cases.read_only(np.ones(3))}, ValueError, "running_mean.*(read-only|writ)"),
    "running_mean a list": ({"running_mean": [0.0, 0.0, 0.0]}, TypeError, "running_mean"),
    "running_var of integers": ({"running_var": np.ones(3, np.int64)}, TypeError, "running_var.*int64"),
    "running_mean complex": ({"running_mean": np.ones(3, complex)}, TypeError, "running_mean.*complex128"),
    "momentum negative": ({"momentum": -0.1}, ValueError, "momentum.*-0.1"),
    "momentum above 1": ({"momentum": 1.5}, ValueError, "momentum.*1.5"),
    "momentum NaN": ({"momentum": float("nan")}, ValueError, "momentum.*nan"),
    "momentum absent": ({"momentum": None}, (TypeError, ValueError), "momentum"),
    "momentum a string": ({"momentum": "0.1"}, TypeError, "momentum"),
}
STATISTICS: dict[str, Bad] = {
    "mean too long": ({"mean": FOUR}, ValueError, "mean.*4"),
    "var too short": ({"var": np.ones(2)}, ValueError, "var.*2"),
    "mean a scalar": ({"mean": 0.0}, ValueError, "mean"),
    "var a matrix": ({"var": np.ones((1, 3, 1, 1))}, ValueError, "var"),
    "mean complex": ({"mean": np.ones(3, complex)}, TypeError, "mean.*complex128"),
    "var object": ({"var": np.ones(3, object)}, TypeError, "var.*object"),
    "mean absent": ({"mean": None}, (TypeError, ValueError), "mean"),
}
GRADIENT: dict[str, Bad] = {
    "dy of another shape": ({"dy": DY[:2]}, ValueError, r"dy.*\(2, 3, 5, 6\)"),
    "dy that would broadcast": ({"dy": DY[:, :, :1]}, ValueError, "dy"),
    "dy complex": ({"dy": DY.astype(complex)}, TypeError, "dy.*complex128"),
    "mean too long": ({"mean": FOUR}, ValueError, "mean.*4"),
    "rstd too short": ({"rstd": np.ones(2)}, ValueError, "rstd.*2"),
    "rstd a matrix": ({"rstd": np.ones((3, 1))}, ValueError, "rstd"),
    "rstd complex": ({"rstd": np.ones(3, complex)}, TypeError, "rstd.*complex128"),
}

TRAIN = {**SHARED, **EPS, **RUNNING}
INFERENCE = {**SHARED, **EPS, **STATISTICS}
BACKWARD = {**SHARED, **GRADIENT}


def check_error(call: Callable[..., Any], good: dict[str, Any], bad: Bad) -> None:
    """`good` works; with `bad` in its place it raises, and no array changes."""
    wrong, exception, message = bad
    arguments = {**good, "out": np.full(X.shape, 3, np.float32), **wrong}
    watched = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    before = {name: value.copy() for name, value in watched.items()}
    with pytest.raises(exception) as caught:
        call(**arguments)
    assert re.search(message, str(caught.value), re.DOTALL | re.IGNORECASE), f"message: {caught.value}"
    for name, value in watched.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} was written to")


def train_arguments() -> dict[str, Any]:
    return {"x": X, "running_mean": np.full(3, 0.5, np.float32), "running_var": np.full(3, 0.25, np.float32), "momentum": 0.5}


def inference_arguments() -> dict[str, Any]:
    return {"x": X, "mean": ZEROS, "var": ONES}


def backward_arguments() -> dict[str, Any]:
    return {"dy": DY, "x": X, "mean": ZEROS, "rstd": ONES}


def test_what_is_called_good_is_good() -> None:
    fn.batch_norm_train(**train_arguments(), out=np.empty_like(X))
    fn.batch_norm(**inference_arguments(), out=np.empty_like(X))
    fn.batch_norm_backward(**backward_arguments(), out=np.empty_like(X))


@pytest.mark.parametrize("bad", TRAIN.values(), ids=TRAIN.keys())
def test_training_refuses(bad: Bad) -> None:
    check_error(fn.batch_norm_train, train_arguments(), bad)


@pytest.mark.parametrize("bad", INFERENCE.values(), ids=INFERENCE.keys())
def test_inference_refuses(bad: Bad) -> None:
    check_error(fn.batch_norm, inference_arguments(), bad)


@pytest.mark.parametrize("bad", BACKWARD.values(), ids=BACKWARD.keys())
def test_backward_refuses(bad: Bad) -> None:
    check_error(fn.batch_norm_backward, backward_arguments(), bad)


@pytest.mark.parametrize("name", WRONG_DTYPES)
def test_dtypes_that_are_not_real_numbers_are_refused_by_name(name: str) -> None:
    wrong, message = WRONG_DTYPES[name]
    for call, good in (
        (fn.batch_norm_train, train_arguments()),
        (fn.batch_norm, inference_arguments()),
        (fn.batch_norm_backward, backward_arguments()),
    ):
        check_error(call, good, ({"x": wrong}, TypeError, message))
    with pytest.raises(TypeError, match=re.compile(message, re.IGNORECASE)):
        fn.mean_var(wrong)


@pytest.mark.parametrize("argument", ["dy", "residual"])
def test_masked_arrays_are_refused_everywhere(argument: str) -> None:
    check_error(fn.batch_norm_backward, backward_arguments(), ({argument: MASKED}, TypeError, argument))


@pytest.mark.parametrize("x", [np.float32(1.0), np.ones(3, np.float32)], ids=["rank 0", "rank 1"])
def test_axis_1_needs_rank_2(x: Any) -> None:
    for call in (
        lambda: fn.batch_norm_train(x),
        lambda: fn.batch_norm(x, ONES, ONES),
        lambda: fn.batch_norm_backward(x, x, ONES, ONES),
    ):
        with pytest.raises(AxisError):
            call()


def test_one_value_per_channel_is_refused_before_anything_is_written() -> None:
    x = X[:1, :, :1, :1]
    running = np.full(3, 0.5), np.full(3, 0.25)
    out = np.full(x.shape, 3, np.float32)
    with pytest.raises(ValueError, match="unbiased"):
        fn.batch_norm_train(x, running_mean=running[0], running_var=running[1], out=out)
    assert (out == 3).all()
    assert (running[0] == 0.5).all()
    assert (running[1] == 0.25).all()


def test_gamma_of_wrong_length_is_named_even_for_empty_input() -> None:
    with pytest.raises(ValueError, match="gamma"):
        fn.batch_norm_train(np.empty((0, 3), np.float32), FOUR)


@pytest.mark.parametrize("call", [fn.batch_norm_train, fn.batch_norm, fn.batch_norm_backward])
def test_options_are_keyword_only(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="positional"):
        call(*[X] * 9)


MEAN_VAR_AXES: dict[str, tuple[Any, type[Exception] | tuple[type[Exception], ...]]] = {
    "too large": (4, AxisError),
    "too small": (-5, AxisError),
    "one of two": ((0, 4), AxisError),
    "twice": ((1, 1), ValueError),
    "twice by sign": ((1, -3), ValueError),
    "a float": (1.5, TypeError),
    "a string": ("0", TypeError),
}


@pytest.mark.parametrize("name", MEAN_VAR_AXES)
def test_mean_var_refuses_bad_axes(name: str) -> None:
    axis, exception = MEAN_VAR_AXES[name]
    with pytest.raises(exception, match=r"axis|repeat|duplicate"):
        fn.mean_var(X, axis)


def test_every_error_is_raised_before_the_first_compilation_is_needed() -> None:
    """An error at the door is the same for a second call: no state is left behind."""
    for _ in range(2):
        with pytest.raises(ValueError, match="gamma"):
            fn.batch_norm_train(X, FOUR)
    assert np.isfinite(fn.batch_norm_train(X, ONES).y).all()


def test_lists_of_different_lengths_are_refused_by_name() -> None:
    x = np.ones((2, 3))
    for name, call in (
        ("x", lambda: fn.layer_norm([[1.0, 2.0], [3.0]])),
        ("gamma", lambda: fn.batch_norm_train(x, [[1.0, 2.0], [3.0]])),
        ("beta", lambda: fn.layer_norm(x, None, [[1.0], [2.0, 3.0]])),
    ):
        with pytest.raises(ValueError, match=f"^{name} is no array .*; pass an array, or nested lists of one length"):
            call()
