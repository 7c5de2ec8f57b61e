"""Float64 reference for batch normalization: exact sums, one channel at a time, slow on purpose.

Shares no code and no algorithm with fastnorm. Sums are correctly rounded (``math.fsum``); the mean is an exact
fraction, kept as an unevaluated pair of float64, so that deviations from it keep full precision at any offset:
``(v - hi) - lo`` has a relative error of 2**-52 where one float64 mean would leave 2**-53 * |mean|.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Axes = int | tuple[int, ...] | None

LEAKY_SLOPE = 0.01
ACTIVATIONS = (None, "relu", "leaky_relu", "silu", "gelu", "gelu_tanh")


class Moments(NamedTuple):
    """Of every row of (statistics, values): mean as a pair of float64, variance, and deviations from the exact mean."""

    high: Array
    low: Array
    var: Array
    deviation: Array


class Forward(NamedTuple):
    """`z` is the value before the activation; `terms` what its rounding errors are relative to."""

    y: Array
    z: Array
    terms: Array
    mean: Array
    var: Array
    rstd: Array


class Backward(NamedTuple):
    """Gradients, and for each the size of the terms that its rounding errors are relative to.

    ``grad_z`` is the gradient at the value before the activation, that of `residual`. ``kink`` is how much of it is
    undecided when `z` is known to one part in a million only, as a function of that part: see `tolerance.gradient`.
    """

    dx: Array
    dgamma: Array
    dbeta: Array
    dresidual: Array
    dx_terms: Array
    dgamma_terms: Array
    dbeta_terms: Array
    dresidual_terms: Array
    kink: Callable[[float], tuple[Array, Array, Array, Array]]


def as_rows(x: Array, axis: int) -> Array:
    """(channels, values per channel) in float64."""
    x = np.asarray(x)
    moved = np.moveaxis(x, axis, 0).astype(np.float64)
    return moved.reshape(moved.shape[0], math.prod(moved.shape[1:]))


def from_rows(rows: Array, like: Array, axis: int) -> Array:
    moved_shape = np.moveaxis(np.empty(like.shape, np.int8), axis, 0).shape
    return np.moveaxis(rows.reshape(moved_shape), 0, axis)


def exact_mean(values: list[float]) -> tuple[float, float]:
    """The mean as high + low. The sum is exact to 106 bits: what one fsum leaves over, a second one collects."""
    n = len(values)
    total = math.fsum(values)
    rest = math.fsum([*values, -total])
    high = total / n
    mantissa, exponent = math.frexp(high)
    half = math.ldexp(round(math.ldexp(mantissa, 26)), exponent - 26)  # its product with n has no rounding, nor has that of the rest
    low = math.fsum([total, -half * n, (half - high) * n, rest]) / n
    return high + low, low - ((high + low) - high)


def moments(rows: Array) -> Moments:
    """Population moments of every row; NaN where NumPy gives NaN."""
    n_stats, n = rows.shape
    high, low, var = np.full(n_stats, np.nan), np.zeros(n_stats), np.full(n_stats, np.nan)
    for c in range(n_stats if n else 0):
        if np.isfinite(rows[c]).all():
            high[c], low[c] = exact_mean(rows[c].tolist())
        elif not np.isnan(rows[c]).any() and len(set(rows[c][np.isinf(rows[c])].tolist())) == 1:
            high[c] = rows[c][np.isinf(rows[c])][0]
    with np.errstate(invalid="ignore"):
        deviation = (rows - high[:, None]) - low[:, None]
    for c in range(n_stats if n else 0):
        if np.isfinite(deviation[c]).all():
            var[c] = math.fsum(np.square(deviation[c]).tolist()) / n
    return Moments(high, low, var, deviation)


def mean_var(a: Array, axis: Axes = None, *, ddof: int = 0, keepdims: bool = False) -> tuple[Array, Array]:
    """As ``np.mean`` and ``np.var``."""
    a = np.asarray(a)
    axes = tuple(range(a.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = tuple(sorted(ax % a.ndim for ax in axes))
    kept = tuple(ax for ax in range(a.ndim) if ax not in axes)
    n = math.prod(a.shape[ax] for ax in axes)
    rows = a.transpose(kept + axes).astype(np.float64).reshape(math.prod(a.shape[ax] for ax in kept), n)
    found = moments(rows)
    shape = tuple(1 if ax in axes else a.shape[ax] for ax in range(a.ndim)) if keepdims else tuple(a.shape[ax] for ax in kept)
    bessel = n / (n - ddof) if n > ddof else math.nan
    return (found.high + found.low).reshape(shape), (found.var * bessel).reshape(shape)


def weighted_mean_var(values: Array, weights: Array) -> tuple[float, float]:
    """Of one statistic: sum(w v) / sum(w) and sum(w (v - mean)**2) / sum(w)."""
    pairs = [(Fraction(float(w)), Fraction(float(v))) for w, v in zip(weights.ravel(), values.ravel(), strict=True)]
    total = sum(w for w, _ in pairs)
    mean = sum(w * v for w, v in pairs) / total
    return float(mean), float(sum(w * (v - mean) ** 2 for w, v in pairs) / total)


def activate(z: Array, activation: str | None) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        match activation:
            case None:
                return z
            case "relu":
                return np.maximum(z, 0.0)
            case "leaky_relu":
                return np.where(z > 0, z, LEAKY_SLOPE * z)
            case "silu":
                return z / (1.0 + np.exp(-z))
            case "gelu":
                return z * normal_cdf(z)
            case "gelu_tanh":
                return 0.5 * z * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    raise AssertionError(activation)


def activation_slope(z: Array, activation: str | None) -> Array:
    """Derivative of `activate`; 0 for relu and the small slope for leaky_relu at z == 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        match activation:
            case None:
                return np.ones_like(z)
            case "relu":
                return np.where(z > 0, 1.0, 0.0)
            case "leaky_relu":
                return np.where(z > 0, 1.0, LEAKY_SLOPE)
            case "silu":
                s = 1.0 / (1.0 + np.exp(-z))
                return s * (1.0 + z * (1.0 - s))
            case "gelu":
                return normal_cdf(z) + z * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
            case "gelu_tanh":
                k = math.sqrt(2 / math.pi)
                t = np.tanh(k * (z + 0.044715 * z**3))
                return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * k * (1.0 + 3 * 0.044715 * z * z)
    raise AssertionError(activation)


def normal_cdf(z: Array) -> Array:
    """By erfc, which does not cancel in the lower tail."""
    flat = [0.5 * math.erfc(-v / math.sqrt(2.0)) for v in np.asarray(z, np.float64).ravel().tolist()]
    return np.array(flat).reshape(np.shape(z))


def _curvature(z: Array, activation: str | None) -> Array:
    """|second derivative| of the smooth activations, by differences: what an error of z does to the slope."""
    if activation in (None, "relu", "leaky_relu"):
        return np.zeros_like(z)
    h = 1e-5
    return np.abs(activation_slope(z + h, activation) - activation_slope(z - h, activation)) / (2 * h)


def _column(parameter: Array | None, default: float, n_channels: int) -> Array:
    values = np.full(n_channels, default) if parameter is None else np.asarray(parameter).astype(np.float64)
    return values[:, None]


def _pre_activation(hat: Array, gamma: Array | None, beta: Array | None, residual: Array | None, axis: int) -> tuple[Array, Array]:
    """z and the size of its terms. An error of the statistics is a shift of `hat`, hence max(1, |gamma|)."""
    scale, shift = _column(gamma, 1.0, len(hat)), _column(beta, 0.0, len(hat))
    added = np.zeros_like(hat) if residual is None else as_rows(residual, axis)
    terms = np.maximum(1.0, np.abs(scale)) + np.abs(scale * hat) + np.abs(shift) + np.abs(added)
    return scale * hat + shift + added, terms


def forward(
    x: Array,
    axis: int = 1,
    *,
    gamma: Array | None = None,
    beta: Array | None = None,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Array | None = None,
    mean: Array | None = None,
    var: Array | None = None,
) -> Forward:
    """Batch norm with the statistics of `x` (training), or with `mean` and `var` when given (inference)."""
    rows = as_rows(x, axis)
    if mean is None or var is None:
        found = moments(rows)
        deviation, center, spread = found.deviation, found.high + found.low, found.var
    else:
        center, spread = np.asarray(mean).astype(np.float64), np.asarray(var).astype(np.float64)
        with np.errstate(invalid="ignore"):
            deviation = rows - center[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        rstd = 1.0 / np.sqrt(spread + eps)
        z, terms = _pre_activation(deviation * rstd[:, None], gamma, beta, residual, axis)
    y = activate(z, activation)
    shaped = [from_rows(part, np.asarray(x), axis) for part in (y, z, terms)]
    return Forward(*shaped, center, spread, rstd)


def backward(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    axis: int = 1,
    *,
    gamma: Array | None = None,
    beta: Array | None = None,
    activation: str | None = None,
    residual: Array | None = None,
    training: bool = True,
) -> Backward:
    """Of `forward` at the statistics given: those are what the caller of the library passes too."""
    rows, grad_y = as_rows(x, axis), as_rows(dy, axis)
    n = rows.shape[1]
    center, factor = np.asarray(mean, np.float64)[:, None], np.asarray(rstd, np.float64)[:, None]
    scale = np.abs(_column(gamma, 1.0, len(rows))) * factor
    hat = (rows - center) * factor
    z, z_terms = _pre_activation(hat, gamma, beta, residual, axis)
    grad_z = grad_y * activation_slope(z, activation)
    dbeta, dgamma = row_sums(grad_z), row_sums(grad_z * hat)
    first, second = (dbeta[:, None] / n, dgamma[:, None] / n) if training and n else (np.zeros_like(scale), np.zeros_like(scale))
    dx = _column(gamma, 1.0, len(rows)) * factor * (grad_z - first - hat * second)

    grad_terms = np.abs(grad_y) * (np.abs(activation_slope(z, activation)) + _curvature(z, activation) * z_terms)
    largest = np.maximum(np.maximum(row_max(grad_terms), np.abs(first)), row_max(np.abs(hat * second)))

    def shape(part: Array) -> Array:
        return from_rows(np.broadcast_to(part, rows.shape), np.asarray(x), axis)

    def kink(unit: float) -> tuple[Array, Array, Array, Array]:
        jump = {"relu": 1.0, "leaky_relu": 1.0 - LEAKY_SLOPE}.get(activation or "", 0.0)
        open_ = np.where(np.abs(z) <= unit * z_terms, jump * np.abs(grad_y), 0.0)
        at_beta, at_gamma = row_sums(open_), row_sums(open_ * np.abs(hat))
        spread = (at_beta[:, None] + np.abs(hat) * at_gamma[:, None]) / max(n, 1) if training else 0.0
        return shape(scale * (open_ + spread)), at_gamma, at_beta, shape(open_)

    return Backward(
        shape(dx),
        dgamma,
        dbeta,
        shape(grad_z),
        shape(scale * largest),
        row_sums(grad_terms * (1.0 + np.abs(hat))),
        row_sums(grad_terms),
        shape(row_max(grad_terms)),
        kink,
    )


def row_sums(rows: Array) -> Array:
    """Correctly rounded."""
    return np.array([math.fsum(row.tolist()) if np.isfinite(row).all() else row.sum() for row in rows])


def row_max(rows: Array) -> Array:
    return rows.max(axis=1, keepdims=True, initial=0.0)


def running(old: Array, batch: Array, momentum: float) -> Array:
    """`momentum` is the weight of the new batch."""
    return (1.0 - momentum) * np.asarray(old, np.float64) + momentum * np.asarray(batch, np.float64)


def central_difference(function: Callable[[Array], float], at: Array) -> Array:
    """Gradient of a scalar function by central differences in float64; error about 1e-9 of the function's size."""
    gradient = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        # The step that balances h**2 of the truncation with 2**-53 / h of the rounding.
        h = 2.0 ** (-53 / 3) * max(1.0, abs(float(at[index])))
        above, below = at.astype(np.float64), at.astype(np.float64)
        above[index] += h
        below[index] -= h
        gradient[index] = (function(above) - function(below)) / (above[index] - below[index])
    return gradient
