"""Standard scores: the distance from the mean in standard deviations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm import kernels
from fastnorm.ops import passes
from fastnorm.ops.average_calls import degrees
from fastnorm.ops.door import output
from fastnorm.ops.launch import Driver, all_finite
from fastnorm.ops.reduction import Reduced, count_of, extremes, layout_of, plan, reduce_moments
from fastnorm.ops.scaling import rescale
from fastnorm.plan.intake import as_array, check_nan_policy, is_bfloat16, normalize_axes, result_dtype
from fastnorm.plan.problem import arrange
from fastnorm.plan.table import NO_RSTD
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]
_NEARLY_CONSTANT = (
    "Precision loss occurred in moment calculation due to catastrophic cancellation. "
    "This occurs when the data are nearly identical. Results may be unreliable."
)


def zscore(a: ArrayLike, axis: Any = 0, ddof: Any = 0, nan_policy: str = "propagate") -> Array:
    """``(a - mean) / std`` over axes, as `scipy.stats.zscore`.

    Parameters
    ----------
    a : array_like
        Any strides; float, integer or bool.
    axis : None, int or tuple of int
        The axes that mean and standard deviation are taken over; None means all.
    ddof : number
        The variance has ``n - ddof`` in the denominator.
    nan_policy : {"propagate", "raise", "omit"}
        "omit": NaN stay NaN, and the others are scored as if there were none.

    Returns
    -------
    array like `a`; float64 for integers
        NaN for constant slices: those with a standard deviation of no more than the rounding of their mean.

    Raises
    ------
    ValueError
        If `nan_policy` is "raise" and there is a NaN.
    TypeError, numpy.exceptions.AxisError

    Warns
    -----
    RuntimeWarning
        As SciPy, of slices that are constant but for rounding. NaN and infinities give no warning.

    Notes
    -----
    The mean is subtracted as a high and a low part: in float32 the error is 1e-6 at abs(mean)/std = 1e6, where that of
    SciPy is 6e-2. Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.zscore([[1.0, 10.0], [3.0, 30.0]])
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    check_nan_policy(nan_policy)
    ddof = degrees(ddof)
    a = as_array("a", a)
    axes = normalize_axes(axis, a.ndim, "a")
    dtype = result_dtype(a.dtype)
    if a.size == 0:
        return np.empty(a.shape, dtype)
    scores = _scores_of_finite(a, axes, ddof)
    if scores is not None:
        return scores
    found = reduce_moments(a, axes, omit=nan_policy == "omit")
    if nan_policy == "raise" and np.isnan(found.var).any() and (extremes(a, axes).count < count_of(a, axes)).any():
        raise ValueError("The input contains nan values and nan_policy is 'raise'; pass 'omit' to leave them out of mean and std")
    eps = _eps(dtype)
    if _nearly_constant(a, axes, found, 10.0 * eps):
        warnings.warn(_NEARLY_CONSTANT, RuntimeWarning, stacklevel=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        free = np.subtract(found.count, ddof)
        std = np.sqrt(found.var if ddof == 0 else np.where(free > 0, found.var * found.count / free, np.nan))
        factor = np.where(std <= eps * np.abs(found.mean), np.nan, 1.0 / std)
    return _scaled(a, axes, found, factor)


def _eps(dtype: np.dtype[Any]) -> float:
    return 2.0**-7 if is_bfloat16(dtype) else float(np.finfo(dtype).eps)


class _Way(NamedTuple):
    """From arrays of one shape and dtype to their scores."""

    moments: Callable[[Any], Array]
    factors: Driver
    apply: Callable[..., None]
    parameters: int


_ways: dict[Any, _Way | None] = {}
_MOST_WAYS = 1024


def _scores_of_finite(a: Array, axes: tuple[int, ...], ddof: float) -> Array | None:
    """By the shortest way, with the bits of the general one; None goes that: NaN, infinities, perhaps constant slices, and other arrays.

    Vectors of NumPy between the kernels, a dozen for a number of every slice, took 5 times as long as these for (3, 300000).
    """
    n = count_of(a, axes)
    if a.dtype.char not in "fd" or not a.dtype.isnative or not a.flags.carray or ddof >= n:
        return None
    key = (a.shape, a.dtype.char, axes, get_num_threads())
    try:
        way = _ways[key]
    except KeyError:
        if len(_ways) >= _MOST_WAYS:
            _ways.clear()
        way = _ways[key] = _make_way(a, axes)
    if way is None:
        return None
    flat, eps = a.reshape(-1), _eps(a.dtype)
    stats = way.moments(flat)
    suspects = way.factors(stats, float(n), float(n - ddof), eps, 10.0 * eps)
    if (suspects and n > 1) or not all_finite(stats[0]):
        return None
    target = output("out", None, a, (a,))
    operands = (flat, target.computed.reshape(-1), None, None, None)
    way.apply(operands, stats[0], stats[1], stats[3], np.ones(way.parameters), np.zeros(way.parameters))
    return target.deliver()


def _make_way(a: Array, axes: tuple[int, ...]) -> _Way | None:
    walk = plan(a, axes, None)
    if walk.turned is not None:
        return None
    problem = arrange(layout_of(a.ndim, axes, True), (a, a, None, None, None), get_num_threads())
    apply = passes.apply_pass(problem, None, None)
    return _Way(passes.moments_pass(walk.problem, NO_RSTD, 0), Driver(kernels.scores, "score_factors"), apply, problem.geometry.parameters)


def _nearly_constant(a: Array, axes: tuple[int, ...], found: Reduced, limit: float) -> bool:
    """Whether in a slice of at least two elements, without NaN, none is farther from the mean than limit * mean."""
    n = count_of(a, axes)
    distance = limit * np.abs(found.mean)
    with np.errstate(invalid="ignore"):
        suspect = found.var < distance * distance  # the largest deviation is at least as large as the standard deviation
        if n < 2 or not suspect.any():
            return False
        bounds = extremes(a, axes)
        largest = np.maximum(bounds.high - found.mean, found.mean - bounds.low)
        return bool(((largest < distance) & (bounds.count == n)).any())


def _scaled(a: Array, axes: tuple[int, ...], found: Reduced, factor: Array) -> Array:
    if len(axes) < 2:
        return rescale(a, axes, found.mean, factor, low=found.low)
    # Several axes that alternate with kept ones do not collapse: they go to the end, where they do after one copy.
    kept = tuple(k for k in range(a.ndim) if k not in axes)
    order = (*kept, *axes)
    moved = rescale(a.transpose(order), tuple(range(len(kept), a.ndim)), found.mean, factor, low=found.low)
    return moved.transpose([order.index(k) for k in range(a.ndim)])
