"""One call of layer, RMS, group or instance norm against the oracle: type, shape, dtype, values, inputs untouched.

Also the named shapes of the family, and data whose every slice has a mean and a standard deviation of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cases
import numpy as np
import oracle_family as oracle
import tolerance
from checks import _check_array, _snapshot
from oracle_family import Axis, Shape, Slices
from tolerance import assert_within

import fastnorm as fn

Array = np.ndarray


class Layer(NamedTuple):
    """A shape and the axes that are normalized over."""

    shape: Shape
    axis: Axis = -1

    @property
    def slices(self) -> Slices:
        return oracle.layer_slices(self.shape, self.axis)


class Group(NamedTuple):
    """A shape, the number of groups and the channel axis."""

    shape: Shape
    num_groups: int
    axis: int = 1

    @property
    def slices(self) -> Slices:
        return oracle.group_slices(self.shape, self.num_groups, self.axis)

    @property
    def channels(self) -> int:
        return self.shape[self.axis]


AXES = {
    "rows": Layer((37, 50)),
    "tokens": Layer((4, 9, 33)),
    "tokens, two axes": Layer((4, 9, 33), (-2, -1)),
    "images": Layer((3, 4, 5, 6), (1, 2, 3)),
    "channels of NCHW": Layer((3, 7, 5, 6), 1),
    "features first": Layer((50, 37), 0),
    "first of three": Layer((19, 4, 5), 0),
    "first two": Layer((5, 7, 6), (0, 1)),
    "middle axis": Layer((3, 40, 5), 1),
    "middle two": Layer((3, 4, 5, 6), (1, 2)),
    "first and last": Layer((5, 6, 7), (0, 2)),
    "second and fourth": Layer((3, 4, 5, 6), (1, 3)),
    "fourth and second": Layer((3, 4, 5, 6), (-1, 1)),
    "first and third": Layer((3, 4, 5, 6), (0, 2)),
    "every second of five": Layer((2, 3, 4, 3, 5), (0, 2, 4)),
    "all axes": Layer((4, 5, 6), (0, 1, 2)),
    "vector": Layer((50,), 0),
    "one row": Layer((1, 1000)),
    "one column": Layer((97, 1), 0),
    "axes of length 1": Layer((3, 1, 5, 1), (1, 2)),
    "one value per slice": Layer((13, 1)),
    "one element": Layer((1, 1)),
}
# The two traversals of memory: a slice is a run, or a column.
ROWS, COLUMNS = Layer((30, 66)), Layer((66, 30), 0)
ACCURACY = {
    "rows": ROWS,
    "columns": COLUMNS,
    "long rows": Layer((3, 9001)),
    "tall columns": Layer((9001, 3), 0),
    "channels of NCHW": AXES["channels of NCHW"],
    "second and fourth": AXES["second and fourth"],
}
# Enough work for the parallel drivers: rows that fit a tile, rows longer than it, few of them, columns, and both in turn.
LARGE_AXES = {
    "rows": Layer((1201, 317)),
    "long rows": Layer((7, 70_001)),
    "one row": Layer((1, 40_009)),
    "columns": Layer((317, 1201), 0),
    "few columns": Layer((20_011, 3), 0),
    "channels of NCHW": Layer((7, 96, 23, 29), 1),
}

GROUPS = {
    "NCHW": Group((4, 6, 5, 7), 3),
    "NCHW, one group": Group((4, 6, 5, 7), 1),
    "NCHW, groups of one": Group((4, 6, 5, 7), 6),
    "NHWC": Group((4, 5, 7, 6), 3, -1),
    "NHWC, one group": Group((4, 5, 7, 6), 1, -1),
    "NHWC, groups of one": Group((4, 5, 7, 6), 6, -1),
    "samples x features": Group((11, 12), 4),
    "samples x features, groups of one": Group((11, 12), 12),
    "NCL": Group((3, 8, 11), 2),
    "NLC": Group((3, 11, 8), 2, 2),
    "NCDHW": Group((2, 6, 3, 4, 5), 2),
    "NDHWC": Group((2, 3, 4, 5, 6), 2, -1),
    "channel between": Group((3, 4, 6, 5), 2, -2),
    "one sample": Group((1, 6, 9, 9), 2),
    "one pixel": Group((13, 10, 1, 1), 5),
    "one value per group": Group((5, 4, 1), 4),
    "one element": Group((1, 1), 1),
}
# The two traversals of memory: channels of a group are runs, or columns.
NCHW, NHWC = Group((4, 6, 5, 7), 2), Group((4, 5, 7, 6), 2, -1)
LARGE_GROUPS = {
    "NCHW": Group((10, 96, 15, 37), 8),
    "NHWC": Group((10, 15, 37, 96), 8, -1),
    "NCHW, few groups": Group((1, 6, 200, 201), 3),
    "NHWC, few groups": Group((1, 200, 201, 6), 3, -1),
    "instances": Group((9, 31, 31, 33), 31),
    "instances, NHWC": Group((9, 31, 33, 31), 31, -1),
    "samples x features": Group((501, 256), 8),
}

# Of the bytes of x that a call may allocate: statistics, parameters, and the sums of parameter gradients of every chunk
# of rows (schedule: at least 256 rows each, so 2 % of float32). A copy of an operand would be 100 %.
LIMIT = 0.03


def sample(problem: Layer | Group, dtype: Any = cases.F4, seed: int = 0, *, offset: float = 1.0, std: float = 1.0) -> Array:
    """C-contiguous data; every slice has its own mean (offset * std * 1..2, both signs) and std (0.5..2)."""
    dtype, slices = np.dtype(dtype), problem.slices
    if dtype.kind in "biu":
        return cases.sample(cases.Problem(problem.shape, 0), dtype, seed)
    rng = cases.rng_of(*problem.shape, math.prod(slices.statistic_shape), seed)
    n = math.prod(slices.statistic_shape)
    spread = std * rng.uniform(0.5, 2.0, n)
    center = offset * spread * np.where(rng.random(n) < 0.5, -1.0, 1.0) * rng.uniform(0.5, 1.0, n)
    return (center[slices.statistic] + spread[slices.statistic] * rng.standard_normal(problem.shape)).astype(dtype)


def parameter(problem: Layer | Group, dtype: Any = cases.F4, seed: int = 1, *, low: float = 0.5, high: float = 1.5) -> Array:
    """A gamma or beta: both signs, |value| in [low, high]."""
    shape = problem.slices.parameter_shape
    return cases.parameter(math.prod(shape), dtype, seed, low=low, high=high).reshape(shape)


def _check_statistic(values: Any, shape: Shape, what: str) -> None:
    assert type(values) is np.ndarray or shape == (), what
    assert values.dtype == np.float64, what
    assert values.shape == shape, f"{what}: {values.shape}"


def _check_result(result: Any, fields: tuple[str, ...], expected: Any, x: Any, out: Array | None) -> None:
    """y, mean and rstd of the result against those of the oracle."""
    assert result._fields == fields
    dtype, out_dtype = np.asarray(x).dtype, None if out is None else out.dtype
    _check_array(result.y, x, out, "y")
    assert_within(result.y, expected.y, tolerance.output(expected, dtype, out_dtype), "y")
    if "mean" in fields:
        _check_statistic(result.mean, expected.mean.shape, "mean")
        assert_within(result.mean, expected.mean, tolerance.mean(expected.mean, expected.var, dtype, out_dtype), "mean")
    if "rstd" in fields:
        _check_statistic(result.rstd, expected.rstd.shape, "rstd")
        assert_within(result.rstd, expected.rstd, tolerance.rstd(expected.rstd, dtype, out_dtype), "rstd")


def _check_norm(
    call: Callable[..., Any],
    x: Any,
    expected: Any,
    out: Array | None,
    parameters: tuple[Any, ...],
    shared: bool,
    fields: tuple[str, ...] = ("y", "mean", "rstd"),
) -> Any:
    """`call` takes return_stats and out. Without return_stats it gives y alone, the same bits."""
    before = _snapshot(x, *parameters)
    result = call(return_stats=True, out=out)
    _check_result(result, fields, expected, x, out)
    if out is None:
        alone = call(return_stats=False, out=None)
        assert type(alone) is np.ndarray
        np.testing.assert_array_equal(alone, result.y)
    assert shared or before == _snapshot(x, *parameters), "an input was modified"
    return result


def check_layer(
    x: Any, axis: Axis = -1, *, gamma: Any = None, beta: Any = None, eps: float = 1e-5, out: Array | None = None, shared: bool = False
) -> Any:
    """``fn.layer_norm``. `shared`: `out` lies in the memory of an input, which is therefore not compared."""
    expected = oracle.forward(x, oracle.layer_slices(np.shape(x), axis), gamma=gamma, beta=beta, eps=eps)
    return _check_norm(
        lambda **options: fn.layer_norm(x, gamma, beta, axis=axis, eps=eps, **options), x, expected, out, (gamma, beta), shared
    )


def check_rms(x: Any, axis: Axis = -1, *, gamma: Any = None, eps: float = 1e-5, out: Array | None = None, shared: bool = False) -> Any:
    expected = oracle.forward(x, oracle.layer_slices(np.shape(x), axis), gamma=gamma, eps=eps, rms=True)
    return _check_norm(
        lambda **options: fn.rms_norm(x, gamma, axis=axis, eps=eps, **options), x, expected, out, (gamma,), shared, ("y", "rstd")
    )


def check_group(
    x: Any,
    num_groups: int,
    axis: int = 1,
    *,
    gamma: Any = None,
    beta: Any = None,
    eps: float = 1e-5,
    activation: str | None = None,
    out: Array | None = None,
    shared: bool = False,
) -> Any:
    expected = oracle.forward(x, oracle.group_slices(np.shape(x), num_groups, axis), gamma=gamma, beta=beta, eps=eps, activation=activation)
    return _check_norm(
        lambda **options: fn.group_norm(x, num_groups, gamma, beta, axis=axis, eps=eps, activation=activation, **options),
        x, expected, out, (gamma, beta), shared,
    )  # fmt: skip


def check_instance(
    x: Any,
    axis: int = 1,
    *,
    gamma: Any = None,
    beta: Any = None,
    eps: float = 1e-5,
    activation: str | None = None,
    out: Array | None = None,
    shared: bool = False,
) -> Any:
    expected = oracle.forward(x, oracle.instance_slices(np.shape(x), axis), gamma=gamma, beta=beta, eps=eps, activation=activation)
    return _check_norm(
        lambda **options: fn.instance_norm(x, gamma, beta, axis=axis, eps=eps, activation=activation, **options),
        x, expected, out, (gamma, beta), shared,
    )  # fmt: skip


Outputs = tuple[Array, Array] | None


def _check_sum(h: Array, x: Any, residual: Any) -> None:
    """x + residual rounded once to the dtype of x; twice if the residual has another dtype, first to the registers'."""
    x, residual = np.asarray(x), np.asarray(residual)
    exact = x.astype(np.float64) + residual.astype(np.float64)  # at 53 bits a second rounding to 24 or fewer is harmless
    if x.dtype.newbyteorder("=") == residual.dtype.newbyteorder("="):
        np.testing.assert_array_equal(h, exact.astype(h.dtype))
        return
    computed = tolerance.arithmetic(x.dtype)
    registers = 2 * tolerance.HALF_ULP[computed.name][0] * (np.abs(x.astype(np.float64)) + np.abs(residual.astype(np.float64)))
    assert_within(h, exact, registers + tolerance.storage(exact, h.dtype, computed), "h")


def _check_add(
    call: Callable[..., Any],
    x: Any,
    residual: Any,
    expect: Callable[[Array], Any],
    fields: tuple[str, ...],
    out: Outputs,
    others: tuple[Any, ...],
    shared: bool,
) -> Any:
    """y is the norm of the h that is returned, and h the rounded sum."""
    before, copies = _snapshot(x, residual, *others), (np.array(x), np.array(residual))
    result = call(return_stats=True, out=out)
    _check_array(result.h, x, None if out is None else out[1], "h")
    _check_sum(result.h, *copies)
    _check_result(result, fields, expect(result.h), x, None if out is None else out[0])
    if out is None:
        alone = call(return_stats=False, out=None)
        assert alone._fields == ("y", "h")
        np.testing.assert_array_equal(alone.y, result.y)
        np.testing.assert_array_equal(alone.h, result.h)
    assert shared or before == _snapshot(x, residual, *others), "an input was modified"
    return result


def check_add_layer(
    x: Any,
    residual: Any,
    axis: Axis = -1,
    *,
    gamma: Any = None,
    beta: Any = None,
    eps: float = 1e-5,
    out: Outputs = None,
    shared: bool = False,
) -> Any:
    slices = oracle.layer_slices(np.shape(x), axis)
    return _check_add(
        lambda **options: fn.add_layer_norm(x, residual, gamma, beta, axis=axis, eps=eps, **options),
        x, residual, lambda h: oracle.forward(h, slices, gamma=gamma, beta=beta, eps=eps),
        ("y", "h", "mean", "rstd"), out, (gamma, beta), shared,
    )  # fmt: skip


def check_add_rms(
    x: Any, residual: Any, axis: Axis = -1, *, gamma: Any = None, eps: float = 1e-5, out: Outputs = None, shared: bool = False
) -> Any:
    slices = oracle.layer_slices(np.shape(x), axis)
    return _check_add(
        lambda **options: fn.add_rms_norm(x, residual, gamma, axis=axis, eps=eps, **options),
        x, residual, lambda h: oracle.forward(h, slices, gamma=gamma, eps=eps, rms=True),
        ("y", "h", "rstd"), out, (gamma,), shared,
    )  # fmt: skip


def _check_gradients(result: Any, fields: tuple[str, ...], expected: Any, x: Any, gamma: Any, out: Array | None) -> None:
    assert result._fields == fields
    _check_array(result.dx, x, out, "dx")
    bound = tolerance.Gradient(expected, np.asarray(x).dtype, gamma)
    parameter_dtype = getattr(gamma, "dtype", np.dtype(np.float64)).newbyteorder("=")
    for name in fields:
        assert_within(getattr(result, name), getattr(expected, name), getattr(bound, name), name)
        if name != "dx":
            assert type(getattr(result, name)) is np.ndarray, name
            assert getattr(result, name).dtype == parameter_dtype, name


def check_layer_backward(
    dy: Any,
    x: Any,
    axis: Axis = -1,
    *,
    mean: Any = None,
    rstd: Any = None,
    gamma: Any = None,
    out: Array | None = None,
    shared: bool = False,
) -> Any:
    """At given statistics, or at those of `x` with eps = 1e-5."""
    slices = oracle.layer_slices(np.shape(x), axis)
    if mean is None or rstd is None:
        at = oracle.forward(x, slices)
        mean, rstd = at.mean, at.rstd
    expected = oracle.backward(dy, x, mean, rstd, slices, gamma=gamma)
    before = _snapshot(dy, x, mean, rstd, gamma)
    result = fn.layer_norm_backward(dy, x, mean, rstd, gamma, axis=axis, out=out)
    _check_gradients(result, ("dx", "dgamma", "dbeta"), expected, x, gamma, out)
    assert shared or before == _snapshot(dy, x, mean, rstd, gamma), "an input was modified"
    return result


def check_rms_backward(
    dy: Any, x: Any, axis: Axis = -1, *, rstd: Any = None, gamma: Any = None, out: Array | None = None, shared: bool = False
) -> Any:
    slices = oracle.layer_slices(np.shape(x), axis)
    if rstd is None:
        rstd = oracle.forward(x, slices, rms=True).rstd
    expected = oracle.backward(dy, x, None, rstd, slices, gamma=gamma)
    before = _snapshot(dy, x, rstd, gamma)
    result = fn.rms_norm_backward(dy, x, rstd, gamma, axis=axis, out=out)
    _check_gradients(result, ("dx", "dgamma"), expected, x, gamma, out)
    assert shared or before == _snapshot(dy, x, rstd, gamma), "an input was modified"
    return result


def check_group_backward(
    dy: Any,
    x: Any,
    num_groups: int | None,
    axis: int = 1,
    *,
    mean: Any = None,
    rstd: Any = None,
    gamma: Any = None,
    beta: Any = None,
    activation: str | None = None,
    out: Array | None = None,
    shared: bool = False,
) -> Any:
    """``fn.group_norm_backward``, or ``fn.instance_norm_backward`` if `num_groups` is None."""
    groups = np.shape(x)[axis] if num_groups is None else num_groups
    slices = oracle.group_slices(np.shape(x), groups, axis)
    if mean is None or rstd is None:
        at = oracle.forward(x, slices)
        mean, rstd = at.mean, at.rstd
    expected = oracle.backward(dy, x, mean, rstd, slices, gamma=gamma, beta=beta, activation=activation)
    before = _snapshot(dy, x, mean, rstd, gamma, beta)
    options: dict[str, Any] = {"gamma": gamma, "axis": axis, "activation": activation, "beta": beta, "out": out}
    if num_groups is None:
        result = fn.instance_norm_backward(dy, x, mean, rstd, **options)
    else:
        result = fn.group_norm_backward(dy, x, num_groups, mean, rstd, **options)
    _check_gradients(result, ("dx", "dgamma", "dbeta"), expected, x, gamma, out)
    assert shared or before == _snapshot(dy, x, mean, rstd, gamma, beta), "an input was modified"
    return result
