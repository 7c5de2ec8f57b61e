"""The public functions in nopython mode: types are checked when the caller is compiled, shapes when it runs.

Arrays are C-contiguous float32 or float64; one thread. What shares a part of its memory with `out` is copied first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import errors, types
from numba.cpython.unsafe.tuple import tuple_setitem
from numba.extending import register_jitable

from fastnorm.interop.jit_activations import tag_of
from fastnorm.interop.jit_arrays import columns_of_array, planes_of_array, rows_of_array, statistics_of_columns, statistics_of_runs
from fastnorm.ops.layer import LayerNorm
from fastnorm.ops.rms import RMSNorm
from fastnorm.ops.statistics import MeanVar

MEAN, VARIANCE, RSTD = 0, 2, 3


def _is_absent(kind: Any) -> bool:
    return kind is None or kind is types.none or (isinstance(kind, types.Omitted) and kind.value is None)


def _check_array(function: str, name: str, kind: Any, ndim: int | None = None, *, written: bool = False) -> None:
    """Raises TypingError."""
    if not (isinstance(kind, types.Array) and kind.dtype in (types.float32, types.float64) and kind.layout == "C" and kind.aligned):
        raise errors.TypingError(
            f"{function} in compiled code: {name} is {kind}; pass a C-contiguous array of float32 or float64 "
            f"(np.ascontiguousarray makes one), or call fastnorm.{function} from Python"
        )
    if kind.ndim == 0 or (ndim is not None and kind.ndim != ndim):
        raise errors.TypingError(f"{function} in compiled code: {name} has {kind.ndim} dimensions; pass an array of {ndim or 'at least 1'}")
    if written and not kind.mutable:
        raise errors.TypingError(f"{function} in compiled code: {name} is read-only; pass an array that can be written")


def _check_optional(function: str, name: str, kind: Any, ndim: int, *, written: bool = False) -> None:
    if not _is_absent(kind):
        _check_array(function, name, kind, ndim, written=written)


def _check_number(function: str, name: str, kind: Any) -> None:
    if not isinstance(kind, int | float | types.Integer | types.Float | types.Omitted):
        raise errors.TypingError(f"{function} in compiled code: {name} is {kind}; pass a number")


def _flag(function: str, name: str, kind: Any) -> bool:
    """Value of a constant. Raises TypingError."""
    if isinstance(kind, types.Omitted):
        return bool(kind.value)
    if isinstance(kind, bool):
        return kind
    if isinstance(kind, types.BooleanLiteral):
        return bool(kind.literal_value)
    raise errors.TypingError(f"{function} in compiled code: {name} is {kind}; pass the constant True or False")


def _check_default(function: str, name: str, kind: Any, default: Any) -> None:
    value = getattr(kind, "value", getattr(kind, "literal_value", kind))
    if not (value is default or value == default or (default is None and kind is types.none)):
        raise errors.TypingError(f"{function} in compiled code knows no {name}; leave it out, or call fastnorm.{function} from Python")


@register_jitable
def _non_negative(axis, ndim):
    if axis < -ndim or axis >= ndim:
        raise ValueError("axis does not name a dimension of x")
    return axis + ndim if axis < 0 else axis


@register_jitable
def _output(x, out):
    if out is None:
        return np.empty(x.shape, x.dtype)
    if out.shape != x.shape:
        raise ValueError("out has another shape than x; pass an array of the shape of x")
    return out


@register_jitable
def _meet(a, b):
    first, second = a.ctypes.data, b.ctypes.data
    return first < second + b.nbytes and second < first + a.nbytes


@register_jitable
def _source(values, out):
    """Elements of the shape of the output, or a copy of them if it shares a part of their memory; the whole is in place."""
    if _meet(values, out) and (values.ctypes.data != out.ctypes.data or values.nbytes != out.nbytes):
        return values.copy()
    return values


@register_jitable
def _parameter(values, out):
    return values.copy() if _meet(values, out) else values


@register_jitable
def _check_eps(eps):
    if not (eps >= 0.0 and eps < math.inf):
        raise ValueError("eps is negative, infinite or NaN; pass a finite number >= 0")


@register_jitable
def _check_last(axis, ndim):
    if _non_negative(axis, ndim) != ndim - 1:
        raise ValueError("axis is not the last one; in compiled code pass -1, or call the function from Python")


@register_jitable
def _nothing(values, like, out):
    return None


@register_jitable
def _vector(values, n, out):
    if values.size != n:
        raise ValueError("gamma or beta has not the length of the last axis of x; pass an array of that length or None")
    return (_parameter(values, out),)


def _vector_of(kind: Any) -> Any:
    """From a parameter of the elements of a row to what kernels take. Chosen here: a function with two returns has an optional."""
    return _nothing if _is_absent(kind) else _vector


@register_jitable
def _of_channels(values, n, out):
    if values.size != n:
        raise ValueError("mean, var, gamma or beta has not the length of the channel axis of x; pass arrays of that length")
    return _parameter(values, out)


@register_jitable
def _kept(values, x):
    return values.copy().reshape(x.shape[:-1])


@register_jitable
def _of_one_row(values, x):
    single = np.empty(())
    single[()] = values[0]
    return single


def layer_norm(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, eps: Any = 1e-5, return_stats: Any = False, out: Any = None
) -> Any:
    name = "layer_norm"
    with_stats = _check_rows(name, x, (("gamma", gamma), ("beta", beta)), axis, eps, return_stats, out)
    gain_of, shift_of = _vector_of(gamma), _vector_of(beta)

    def walk(x, gamma, beta, axis, eps, out):
        _check_last(axis, x.ndim)
        _check_eps(eps)
        y, (rows, n, _) = _output(x, out), _around(x.shape, axis)
        src, gain, shift = _source(x, y), gain_of(gamma, n, y), shift_of(beta, n, y)
        stats = np.empty((4, rows))
        rows_of_array(src.reshape(-1), y.reshape(-1), stats, gain, shift, np.intp(0), float(eps), rows, n)
        return y, stats

    each = register_jitable(walk)
    if not with_stats:
        return lambda x, gamma=None, beta=None, axis=-1, eps=1e-5, return_stats=False, out=None: each(x, gamma, beta, axis, eps, out)[0]

    kept = _of_one_row if x.ndim == 1 else _kept

    def with_statistics(x, gamma=None, beta=None, axis=-1, eps=1e-5, return_stats=False, out=None):
        y, stats = each(x, gamma, beta, axis, eps, out)
        return LayerNorm(y, kept(stats[MEAN], x), kept(stats[RSTD], x))

    return with_statistics


def rms_norm(x: Any, gamma: Any = None, axis: Any = -1, eps: Any = 1e-5, return_stats: Any = False, out: Any = None) -> Any:
    name = "rms_norm"
    with_stats = _check_rows(name, x, (("gamma", gamma),), axis, eps, return_stats, out)
    gain_of = _vector_of(gamma)

    def walk(x, gamma, axis, eps, out):
        _check_last(axis, x.ndim)
        _check_eps(eps)
        y, (rows, n, _) = _output(x, out), _around(x.shape, axis)
        src, gain = _source(x, y), gain_of(gamma, n, y)
        stats = np.empty((4, rows))
        rows_of_array(src.reshape(-1), y.reshape(-1), stats, gain, None, None, float(eps), rows, n)
        return y, stats

    each = register_jitable(walk)
    if not with_stats:
        return lambda x, gamma=None, axis=-1, eps=1e-5, return_stats=False, out=None: each(x, gamma, axis, eps, out)[0]

    kept = _of_one_row if x.ndim == 1 else _kept

    def with_statistics(x, gamma=None, axis=-1, eps=1e-5, return_stats=False, out=None):
        y, stats = each(x, gamma, axis, eps, out)
        return RMSNorm(y, kept(stats[RSTD], x))

    return with_statistics


def _check_rows(name: str, x: Any, parameters: Any, axis: Any, eps: Any, return_stats: Any, out: Any) -> bool:
    """Whether statistics are returned, too. Raises TypingError."""
    _check_array(name, "x", x)
    for parameter, kind in parameters:
        _check_optional(name, parameter, kind, 1)
    _check_number(name, "axis", axis)
    _check_number(name, "eps", eps)
    _check_optional(name, "out", out, x.ndim, written=True)
    return _flag(name, "return_stats", return_stats)


def batch_norm(
    x: Any, mean: Any, var: Any, gamma: Any = None, beta: Any = None,
    axis: Any = 1, eps: Any = 1e-5, activation: Any = None, residual: Any = None, out: Any = None,
) -> Any:  # fmt: skip
    name = "batch_norm"
    _check_array(name, "x", x)
    if x.ndim < 2:
        raise errors.TypingError("batch_norm in compiled code: x has 1 dimension; pass a channel axis and at least one more")
    _check_array(name, "mean", mean, 1)
    _check_array(name, "var", var, 1)
    _check_optional(name, "gamma", gamma, 1)
    _check_optional(name, "beta", beta, 1)
    _check_number(name, "axis", axis)
    _check_number(name, "eps", eps)
    _check_optional(name, "residual", residual, x.ndim)
    _check_optional(name, "out", out, x.ndim, written=True)
    tag, added_of = tag_of(activation), _nothing if _is_absent(residual) else _residual
    gain_of, shift_of = (_nothing if _is_absent(kind) else _of_channels for kind in (gamma, beta))
    apply = _by_axis(axis, x.ndim, columns_of_array, planes_of_array, _apply_any)

    def walk(x, mean, var, gamma=None, beta=None, axis=1, eps=1e-5, activation=None, residual=None, out=None):
        outer, channel, inner = _around(x.shape, axis)
        _check_eps(eps)
        y = _output(x, out)
        src, added = _source(x, y), added_of(residual, x, y)
        centre, spread = _of_channels(mean, channel, y), _of_channels(var, channel, y)
        gain, shift = gain_of(gamma, channel, y), shift_of(beta, channel, y)
        apply(src.reshape(-1), added, y.reshape(-1), centre, spread, gain, shift, float(eps), tag, outer, channel, inner)
        return y

    return walk


@register_jitable
def _residual(residual, x, out):
    if residual.shape != x.shape:
        raise ValueError("residual has another shape than x; pass an array of the shape of x")
    return _source(residual, out).reshape(-1)


@register_jitable
def _around(shape, axis):
    """Products of the sizes before an axis, of it, and after it."""
    index, before, after = _non_negative(axis, len(shape)), 1, 1
    for k in range(len(shape)):
        if k < index:
            before *= shape[k]
        elif k > index:
            after *= shape[k]
    return before, shape[index], after


def mean_var(
    a: Any,
    axis: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    nan_policy: Any = "propagate",
    weights: Any = None,
    progress: Any = False,
) -> Any:
    name = "mean_var"
    _check_array(name, "a", a)
    _check_number(name, "ddof", ddof)
    for option, kind, default in (
        ("keepdims", keepdims, False), ("nan_policy", nan_policy, "propagate"), ("weights", weights, None), ("progress", progress, False),
    ):  # fmt: skip
        _check_default(name, option, kind, default)
    if not _is_absent(axis):
        _check_number(name, "axis", axis)
    if _is_absent(axis) or a.ndim == 1:
        return _mean_var_of_all
    find = _by_axis(axis, a.ndim, statistics_of_runs, statistics_of_columns, _statistics_any)

    def walk(a, axis=None, ddof=0, keepdims=False, nan_policy="propagate", weights=None, progress=False):
        before, n, after = _around(a.shape, axis)
        shape, reduced = a.shape[1:], _non_negative(axis, a.ndim)
        for k in range(a.ndim - 1):
            if k < reduced:
                shape = tuple_setitem(shape, k, a.shape[k])
        stats = np.empty((4, before * after))
        find(a.reshape(-1), stats, float(ddof), before, n, after)
        return MeanVar(stats[MEAN].copy().reshape(shape), stats[VARIANCE].copy().reshape(shape))

    return walk


def _mean_var_of_all(a, axis=None, ddof=0, keepdims=False, nan_policy="propagate", weights=None, progress=False):
    if axis is not None:
        _non_negative(axis, a.ndim)
    stats = np.empty((4, 1))
    statistics_of_runs(a.reshape(-1), stats, float(ddof), np.intp(1), a.size, np.intp(1))
    return MeanVar(stats[MEAN, 0], stats[VARIANCE, 0])


@register_jitable
def _statistics_any(src, stats, ddof, before, n, after):
    if after == 1:
        statistics_of_runs(src, stats, ddof, before, n, after)
    else:
        statistics_of_columns(src, stats, ddof, before, n, after)


@register_jitable
def _apply_any(src, residual, out, mean, var, gamma, beta, eps, activation, outer, channel, inner):
    if inner == 1:
        columns_of_array(src, residual, out, mean, var, gamma, beta, eps, activation, outer, channel, inner)
    else:
        planes_of_array(src, residual, out, mean, var, gamma, beta, eps, activation, outer, channel, inner)


def _by_axis(axis: Any, ndim: int, last: Any, other: Any, unknown: Any) -> Any:
    """A constant axis chooses when the caller is compiled; any other when it runs, at the price of compiling both."""
    if isinstance(axis, types.IntegerLiteral):
        axis = axis.literal_value
    elif isinstance(axis, types.Omitted):
        axis = axis.value
    if not isinstance(axis, int):
        return unknown
    return last if axis in (-1, ndim - 1) else other
