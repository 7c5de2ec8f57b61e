"""Bad input to layer, RMS, group and instance norm: the right exception, a message that names the argument, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import pytest
from numpy.exceptions import AxisError
from test_errors import DY, EPS, MASKED, WRONG_DTYPES, Bad, X, check_error

import fastnorm as fn

assert X.shape == (4, 3, 5, 6)
# Layer and RMS norm go over these axes: parameters (5, 6), statistics (4, 3). Group norm has 6 channels, the last axis.
PLANES = (2, 3)


def like(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


OUT: dict[str, Bad] = {
    "out of another shape": ({"out": like(4, 3, 5, 5)}, ValueError, r"out.*\(4, 3, 5, 5\)"),
    "out of as many elements": ({"out": like(4, 3, 30)}, ValueError, "out"),
    "out of integers": ({"out": np.zeros(X.shape, np.int32)}, TypeError, "out.*int32"),
    "out complex": ({"out": np.zeros(X.shape, np.complex64)}, TypeError, "out.*complex64"),
    "out a list": ({"out": [1.0]}, TypeError, "out"),
    "out read-only": ({"out": cases.read_only(np.zeros(X.shape, np.float32))}, ValueError, "out.*(read-only|writ)"),
    "out with repeated memory": ({"out": np.lib.stride_tricks.as_strided(like(1), X.shape, (0, 0, 0, 0))}, ValueError, "out"),
}
AXES: dict[str, Bad] = {
    "axis too large": ({"axis": 4}, AxisError, "axis"),
    "axis too small": ({"axis": -5}, AxisError, "axis"),
    "axis a float": ({"axis": 1.5}, TypeError, "axis"),
    "axis a string": ({"axis": "1"}, TypeError, "axis"),
}
AXES_OF_LAYER: dict[str, Bad] = {
    **AXES,
    "one axis of two too large": ({"axis": (2, 4)}, AxisError, "axis"),
    "axis twice": ({"axis": (2, 2)}, ValueError, "axis|repeat|duplicate"),
    "axis twice by sign": ({"axis": (2, -2)}, ValueError, "axis|repeat|duplicate"),
    "one axis of two a float": ({"axis": (2, 1.5)}, TypeError, "axis"),
}
AXES_OF_GROUP: dict[str, Bad] = {
    **AXES,
    "axis of the samples": ({"axis": 0}, ValueError, "axis.*0"),
    "axis of the samples by sign": ({"axis": -4}, ValueError, "axis.*-4"),
    "axis a tuple": ({"axis": (1, 2)}, TypeError, "axis"),
}
GAMMA: dict[str, Bad] = {
    "gamma of the other axes": ({"gamma": like(4, 3)}, ValueError, r"gamma.*\(4, 3\).*\(5, 6\)"),
    "gamma of all axes in another order": ({"gamma": like(6, 5)}, ValueError, r"gamma.*\(6, 5\).*\(5, 6\)"),
    "gamma flat": ({"gamma": like(30)}, ValueError, r"gamma.*30"),
    "gamma that would broadcast": ({"gamma": like(5, 1)}, ValueError, "gamma"),
    "gamma a scalar": ({"gamma": 1.0}, ValueError, "gamma"),
    "gamma complex": ({"gamma": like(5, 6, dtype=complex)}, TypeError, "gamma.*complex128"),
    "gamma object": ({"gamma": like(5, 6, dtype=object)}, TypeError, "gamma.*object"),
    "gamma of integers": ({"gamma": like(5, 6, dtype=np.int64)}, TypeError, "gamma.*int64"),
}
BETA: dict[str, Bad] = {
    "beta of the other axes": ({"beta": like(4, 3)}, ValueError, r"beta.*\(4, 3\).*\(5, 6\)"),
    "beta too short": ({"beta": like(5, 5)}, ValueError, "beta"),
    "beta complex": ({"beta": like(5, 6, dtype=complex)}, TypeError, "beta.*complex128"),
}
PER_CHANNEL: dict[str, Bad] = {
    "gamma too long": ({"gamma": like(7)}, ValueError, "gamma.*7"),
    "gamma of the groups": ({"gamma": like(2)}, ValueError, "gamma.*2"),
    "gamma a matrix": ({"gamma": like(6, 1)}, ValueError, "gamma"),
    "gamma complex": ({"gamma": like(6, dtype=complex)}, TypeError, "gamma.*complex128"),
    "beta too short": ({"beta": like(5)}, ValueError, "beta.*5"),
    "beta object": ({"beta": like(6, dtype=object)}, TypeError, "beta.*object"),
    "activation unknown": ({"activation": "tanh"}, ValueError, "activation.*tanh"),
    "activation not a name": ({"activation": 3}, (TypeError, ValueError), "activation"),
}
NUM_GROUPS: dict[str, Bad] = {
    "num_groups that does not divide": ({"num_groups": 4}, ValueError, "num_groups.*4.*6"),
    "more groups than channels": ({"num_groups": 12}, ValueError, "num_groups.*12"),
    "no groups": ({"num_groups": 0}, ValueError, "num_groups.*0"),
    "num_groups negative": ({"num_groups": -2}, ValueError, "num_groups.*-2"),
    "num_groups a float": ({"num_groups": 2.0}, TypeError, "num_groups"),
    "num_groups a string": ({"num_groups": "2"}, TypeError, "num_groups"),
    "num_groups an array": ({"num_groups": np.ones(2)}, TypeError, "num_groups"),
    "num_groups absent": ({"num_groups": None}, TypeError, "num_groups"),
}
RESIDUAL: dict[str, Bad] = {
    "residual of another shape": ({"residual": X[:2]}, ValueError, "residual"),
    "residual that would broadcast": ({"residual": X[:1]}, ValueError, "residual"),
    "residual a scalar": ({"residual": 1.0}, ValueError, "residual"),
    "residual complex": ({"residual": X.astype(complex)}, TypeError, "residual.*complex128"),
    "residual masked": ({"residual": MASKED}, TypeError, "residual"),
    "residual absent": ({"residual": None}, (TypeError, ValueError), "residual"),
}
GRADIENT: dict[str, Bad] = {
    "dy of another shape": ({"dy": DY[:2]}, ValueError, r"dy.*\(2, 3, 5, 6\)"),
    "dy that would broadcast": ({"dy": DY[:, :, :1]}, ValueError, "dy"),
    "dy complex": ({"dy": DY.astype(complex)}, TypeError, "dy.*complex128"),
    "dy masked": ({"dy": MASKED}, TypeError, "dy"),
}


def statistics(name: str, shape: tuple[int, ...]) -> dict[str, Bad]:
    return {
        f"{name} of axes kept as 1": ({name: like(*shape, 1, 1)}, ValueError, name),
        f"{name} transposed": ({name: like(*shape[::-1])}, ValueError, name),
        f"{name} flat": ({name: like(int(np.prod(shape)))}, ValueError, name),
        f"{name} a scalar": ({name: 0.5}, ValueError, name),
        f"{name} complex": ({name: like(*shape, dtype=complex)}, TypeError, f"{name}.*complex128"),
        f"{name} absent": ({name: None}, (TypeError, ValueError), name),
    }


MEAN, RSTD = statistics("mean", (4, 3)), statistics("rstd", (4, 3))
GROUP_MEAN, GROUP_RSTD = statistics("mean", (4, 2)), statistics("rstd", (4, 2))
FORWARD = {**OUT, **EPS, **AXES_OF_LAYER, **GAMMA}
BACKWARD = {**OUT, **AXES_OF_LAYER, **GAMMA, **GRADIENT, **RSTD}
GROUP = {**OUT, **AXES_OF_GROUP, **PER_CHANNEL}


def in_a_pair(call: Callable[..., Any]) -> Callable[..., Any]:
    """Of a function with two outputs one with the first of them."""

    def wrapped(out: Any, **arguments: Any) -> Any:
        return call(out=(out, np.full(X.shape, 3, np.float32)), **arguments)

    return wrapped


def arguments(*names: str, axis: int | tuple[int, ...] = PLANES, stats: tuple[int, ...] = (4, 3)) -> dict[str, Any]:
    values = {"x": X, "residual": DY, "dy": DY, "num_groups": 2, "mean": np.zeros(stats), "rstd": np.ones(stats)}
    values |= {"gamma": like(5, 6), "beta": like(5, 6)}
    return {"axis": axis, **{name: values[name] for name in names}}


Function = Callable[..., Any]
# By name: the function, arguments that are good, and what is wrong in their place.
FUNCTIONS: dict[str, tuple[Function, dict[str, Any], dict[str, Bad]]] = {
    "layer_norm": (fn.layer_norm, arguments("x", "gamma", "beta"), {**FORWARD, **BETA}),
    "rms_norm": (fn.rms_norm, arguments("x", "gamma"), FORWARD),
    "add_layer_norm": (in_a_pair(fn.add_layer_norm), arguments("x", "residual", "gamma", "beta"), {**FORWARD, **BETA, **RESIDUAL}),
    "add_rms_norm": (in_a_pair(fn.add_rms_norm), arguments("x", "residual", "gamma"), {**FORWARD, **RESIDUAL}),
    "layer_norm_backward": (fn.layer_norm_backward, arguments("dy", "x", "mean", "rstd", "gamma"), {**BACKWARD, **MEAN}),
    "rms_norm_backward": (fn.rms_norm_backward, arguments("dy", "x", "rstd", "gamma"), BACKWARD),
    "group_norm": (fn.group_norm, arguments("x", "num_groups", axis=-1), {**GROUP, **EPS, **NUM_GROUPS}),
    "instance_norm": (fn.instance_norm, arguments("x", axis=-1), {**GROUP, **EPS}),
    "group_norm_backward": (
        fn.group_norm_backward,
        arguments("dy", "x", "num_groups", "mean", "rstd", axis=-1, stats=(4, 2)),
        {**GROUP, **NUM_GROUPS, **GRADIENT, **GROUP_MEAN, **GROUP_RSTD},
    ),
    "instance_norm_backward": (
        fn.instance_norm_backward,
        arguments("dy", "x", "mean", "rstd", axis=-1, stats=(4, 6)),
        {**GROUP, **statistics("mean", (4, 6)), **statistics("rstd", (4, 6))},
    ),
}
CASES = [
    pytest.param(call, good, bad, id=f"{name}, {what}") for name, (call, good, wrong) in FUNCTIONS.items() for what, bad in wrong.items()
]
ALL_FUNCTIONS = pytest.mark.parametrize("name", FUNCTIONS)


@ALL_FUNCTIONS
def test_what_is_called_good_is_good(name: str) -> None:
    call, good, _ = FUNCTIONS[name]
    call(**good, out=np.empty_like(X))


@pytest.mark.parametrize(("call", "good", "bad"), CASES)
def test_refused(call: Function, good: dict[str, Any], bad: Bad) -> None:
    check_error(call, good, bad)


@ALL_FUNCTIONS
@pytest.mark.parametrize("dtype", WRONG_DTYPES)
def test_dtypes_that_are_not_real_numbers_are_refused_by_name(dtype: str, name: str) -> None:
    call, good, _ = FUNCTIONS[name]
    wrong, message = WRONG_DTYPES[dtype]
    check_error(call, good, ({"x": wrong}, TypeError, message))


@ALL_FUNCTIONS
def test_arrays_without_enough_axes_are_refused(name: str) -> None:
    _, good, _ = FUNCTIONS[name]
    for x in (np.float32(1.0), np.ones(3, np.float32)):
        narrow = {key: x if key in ("x", "dy", "residual") else value for key, value in good.items()}
        with pytest.raises(AxisError):
            getattr(fn, name)(**{**narrow, "axis": 1})


@ALL_FUNCTIONS
def test_options_are_keyword_only(name: str) -> None:
    with pytest.raises(TypeError, match="positional"):
        getattr(fn, name)(*[X] * 7)


PAIRS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Any], type[Exception] | tuple[type[Exception], ...]]] = {
    "one array": (lambda y, h: y, TypeError),
    "one of two": (lambda y, h: (y,), (TypeError, ValueError)),
    "three": (lambda y, h: (y, h, y.copy()), (TypeError, ValueError)),
    "the second of another shape": (lambda y, h: (y, h[:2]), ValueError),
    "the second read-only": (lambda y, h: (y, cases.read_only(h)), ValueError),
    "the second of integers": (lambda y, h: (y, h.astype(np.int32)), TypeError),
    "the second a list": (lambda y, h: (y, h.tolist()), TypeError),
    "one array twice": (lambda y, h: (y, y), ValueError),
    "one array twice, reversed": (lambda y, h: (y, y[::-1]), ValueError),
}


@pytest.mark.parametrize("name", ["add_layer_norm", "add_rms_norm"])
@pytest.mark.parametrize("wrong", PAIRS)
def test_out_of_a_sum_is_a_pair(wrong: str, name: str) -> None:
    make, exception = PAIRS[wrong]
    y, h = np.full(X.shape, 3, np.float32), np.full(X.shape, 4, np.float32)
    with pytest.raises(exception, match="out"):
        getattr(fn, name)(X, DY, out=make(y, h))
    assert (y == 3).all()
    assert (h == 4).all()


def test_parameters_of_wrong_shape_are_named_even_for_empty_input() -> None:
    empty = np.empty((0, 3), np.float32)
    for call in (lambda: fn.layer_norm(empty, like(4)), lambda: fn.rms_norm(empty, like(4)), lambda: fn.instance_norm(empty, like(4))):
        with pytest.raises(ValueError, match="gamma"):
            call()
    with pytest.raises(ValueError, match="num_groups"):
        fn.group_norm(empty, 2)


def test_an_error_leaves_no_state_behind() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="gamma"):
            fn.layer_norm(X, like(7))
    assert np.isfinite(fn.layer_norm(X)).all()
