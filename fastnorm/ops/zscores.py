"""Standard scores: the distance from the mean in standard deviations."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops.average_calls import degrees
from fastnorm.ops.reduction import Reduced, count_of, extremes, reduce_moments
from fastnorm.ops.scaling import rescale
from fastnorm.plan.intake import as_array, check_nan_policy, is_bfloat16, normalize_axes, result_dtype

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
    axes = normalize_axes(axis, a.ndim)
    dtype = result_dtype(a.dtype)
    if a.size == 0:
        return np.empty(a.shape, dtype)
    found = reduce_moments(a, axes, omit=nan_policy == "omit")
    if nan_policy == "raise" and np.isnan(found.var).any() and (extremes(a, axes).count < count_of(a, axes)).any():
        raise ValueError("The input contains nan values and nan_policy is 'raise'; pass 'omit' to leave them out of mean and std")
    eps = 2.0**-7 if is_bfloat16(dtype) else float(np.finfo(dtype).eps)
    if _nearly_constant(a, axes, found, 10.0 * eps):
        warnings.warn(_NEARLY_CONSTANT, RuntimeWarning, stacklevel=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        free = np.subtract(found.count, ddof)
        std = np.sqrt(found.var if ddof == 0 else np.where(free > 0, found.var * found.count / free, np.nan))
        factor = np.where(std <= eps * np.abs(found.mean), np.nan, 1.0 / std)
    return _scaled(a, axes, found, factor)


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
