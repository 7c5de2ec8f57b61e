"""Float64 reference for layer, RMS, group and instance normalization.

Which statistic and which parameter an element has is written down in two arrays of numbers, made from its indices:
no axis is moved, no geometry is derived. Exact sums as in `oracle`; nothing is shared with fastnorm.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import oracle
from oracle import Backward, Forward

Array = np.ndarray
Shape = tuple[int, ...]
Axis = int | tuple[int, ...]


class Slices(NamedTuple):
    """Numbers like x: of the statistic and of the parameter of every element; and how both are shaped."""

    statistic: Array
    parameter: Array
    statistic_shape: Shape
    parameter_shape: Shape
    by_statistic: Array  # flat indices of the elements, statistic after statistic
    by_parameter: Array


def _slices(statistic: Array, parameter: Array, statistic_shape: Shape, parameter_shape: Shape) -> Slices:
    orders = [np.argsort(numbers, axis=None, kind="stable") for numbers in (statistic, parameter)]
    return Slices(statistic, parameter, statistic_shape, parameter_shape, *orders)


@lru_cache(maxsize=16)
def layer_slices(shape: Shape, axis: Axis) -> Slices:
    """A statistic for every index of the axes that are kept, a parameter for every index of those that are not."""
    axes = {ax % len(shape) for ax in (axis if isinstance(axis, tuple) else (axis,))}
    indices = np.indices(shape)

    def numbers(of: list[int]) -> tuple[Array, Shape]:
        number = np.zeros(shape, np.intp)
        for ax in of:
            number = number * shape[ax] + indices[ax]
        return number, tuple(shape[ax] for ax in of)

    (statistic, statistic_shape), (parameter, parameter_shape) = (
        numbers([ax for ax in range(len(shape)) if (ax in axes) == normalized]) for normalized in (False, True)
    )
    return _slices(statistic, parameter, statistic_shape, parameter_shape)


@lru_cache(maxsize=16)
def group_slices(shape: Shape, num_groups: int, axis: int = 1) -> Slices:
    """A statistic for every sample and group of channels, a parameter for every channel."""
    indices = np.indices(shape)
    channel, channels = indices[axis], shape[axis]
    assert num_groups == 0 or channels % num_groups == 0
    group = channel // max(channels // max(num_groups, 1), 1)
    return _slices(indices[0] * num_groups + group, channel, (shape[0], num_groups), (channels,))


def instance_slices(shape: Shape, axis: int = 1) -> Slices:
    return group_slices(shape, shape[axis], axis)


def _rows(values: Array, order: Array, n_rows: int) -> Array:
    flat = np.asarray(values).reshape(-1)[order]
    return flat.reshape(n_rows, flat.size // max(n_rows, 1))


def as_rows(values: Array, slices: Slices) -> Array:
    """(statistics, values per statistic) in float64."""
    return _rows(values, slices.by_statistic, math.prod(slices.statistic_shape)).astype(np.float64)


def from_rows(rows: Array, slices: Slices) -> Array:
    values = np.empty(slices.statistic.shape)
    values.reshape(-1)[slices.by_statistic] = rows.reshape(-1)
    return values


def row_sums(rows: Array) -> Array:
    """Correctly rounded if there are few; of many short rows in twice the precision, all at once (Knuth's two-sum)."""
    if len(rows) <= 8 * rows.shape[1] or not np.isfinite(rows).all():
        return oracle.row_sums(rows)
    total, rest = np.zeros(len(rows)), np.zeros(len(rows))
    for values in rows.T:
        before, total = total, total + values
        part = total - before
        rest += (before - (total - part)) + (values - part)
    return total + rest


def sums_by_parameter(rows: Array, slices: Slices) -> Array:
    """Correctly rounded, over all elements that share a parameter."""
    values = _rows(from_rows(rows, slices), slices.by_parameter, math.prod(slices.parameter_shape))
    return row_sums(values).reshape(slices.parameter_shape)


def _parameter_rows(parameter: Array | None, default: float, slices: Slices) -> Array:
    numbers = _rows(slices.parameter, slices.by_statistic, math.prod(slices.statistic_shape))
    if parameter is None:
        return np.full(numbers.shape, default)
    values = np.asarray(parameter).astype(np.float64)
    assert values.shape == slices.parameter_shape
    return values.reshape(-1)[numbers]


def _pre_activation(hat: Array, gamma: Array | None, beta: Array | None, slices: Slices) -> tuple[Array, Array]:
    """z and the size of its terms. An error of the statistics is a shift of `hat`, hence max(1, |gamma|)."""
    scale, shift = _parameter_rows(gamma, 1.0, slices), _parameter_rows(beta, 0.0, slices)
    return scale * hat + shift, np.maximum(1.0, np.abs(scale)) + np.abs(scale * hat) + np.abs(shift)


def moments(rows: Array, rms: bool = False) -> oracle.Moments:
    """As `oracle.moments`; with `rms` about 0 instead of the mean."""
    if not rms:
        return oracle.moments(rows)
    zeros, n = np.zeros(len(rows)), rows.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return oracle.Moments(zeros, zeros, row_sums(rows * rows) / n, rows)


def forward(
    x: Array,
    slices: Slices,
    *,
    gamma: Array | None = None,
    beta: Array | None = None,
    eps: float = 1e-5,
    activation: str | None = None,
    rms: bool = False,
) -> Forward:
    """With `rms` the deviations are from 0: `var` is the mean square, `mean` is 0."""
    found = moments(as_rows(x, slices), rms)
    with np.errstate(divide="ignore", invalid="ignore"):
        rstd = 1.0 / np.sqrt(found.var + eps)
        z, terms = _pre_activation(found.deviation * rstd[:, None], gamma, beta, slices)
    shaped = [from_rows(part, slices) for part in (oracle.activate(z, activation), z, terms)]
    return Forward(*shaped, *(part.reshape(slices.statistic_shape) for part in (found.high + found.low, found.var, rstd)))


def backward(
    dy: Array,
    x: Array,
    mean: Array | None,
    rstd: Array,
    slices: Slices,
    *,
    gamma: Array | None = None,
    beta: Array | None = None,
    activation: str | None = None,
) -> Backward:
    """Of `forward` at the statistics given; RMS norm if `mean` is None. ``dresidual`` is the gradient of z."""
    rows, grad_y = as_rows(x, slices), as_rows(dy, slices)
    n = max(rows.shape[1], 1)
    factor = np.asarray(rstd, np.float64).reshape(-1, 1)
    scale = _parameter_rows(gamma, 1.0, slices)
    hat = (rows if mean is None else rows - np.asarray(mean, np.float64).reshape(-1, 1)) * factor
    z, z_terms = _pre_activation(hat, gamma, beta, slices)
    grad_z = grad_y * oracle.activation_slope(z, activation)
    weighted = grad_z * scale
    first = np.zeros_like(factor) if mean is None else row_sums(weighted)[:, None] / n
    second = row_sums(weighted * hat)[:, None] / n
    dx = factor * (weighted - first - hat * second)

    grad_terms = np.abs(grad_y) * (np.abs(oracle.activation_slope(z, activation)) + oracle._curvature(z, activation) * z_terms)
    largest = np.maximum(oracle.row_max(np.abs(scale) * grad_terms), np.maximum(np.abs(first), oracle.row_max(np.abs(hat * second))))

    def shape(part: Array) -> Array:
        return from_rows(np.broadcast_to(part, rows.shape), slices)

    def kink(unit: float) -> tuple[Array, Array, Array, Array]:
        jump = {"relu": 1.0, "leaky_relu": 1.0 - oracle.LEAKY_SLOPE}.get(activation or "", 0.0)
        open_ = np.where(np.abs(z) <= unit * z_terms, jump * np.abs(grad_y), 0.0)
        inside = open_ * np.abs(scale)
        spread = (row_sums(inside)[:, None] + np.abs(hat) * row_sums(inside * np.abs(hat))[:, None]) / n
        parameters = sums_by_parameter(open_ * np.abs(hat), slices), sums_by_parameter(open_, slices)
        return shape(factor * (inside + spread)), *parameters, shape(open_)

    return Backward(
        shape(dx),
        sums_by_parameter(grad_z * hat, slices),
        sums_by_parameter(grad_z, slices),
        shape(grad_z),
        shape(factor * largest),
        sums_by_parameter(grad_terms * (1.0 + np.abs(hat)), slices),
        sums_by_parameter(grad_terms, slices),
        shape(oracle.row_max(grad_terms)),
        kink,
    )
