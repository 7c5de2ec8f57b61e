"""Mean and variance in one pass."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops import passes
from fastnorm.plan.geometry import KEPT, REDUCED, collapse
from fastnorm.plan.intake import as_array, normalize_axes
from fastnorm.plan.problem import Layout, arrange
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]


class MeanVar(NamedTuple):
    """Result of `mean_var`."""

    mean: Any
    var: Any


class Reduced(NamedTuple):
    """Statistics of the reduced axes, in the order of the kept axes of the array."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]  # what `mean` lost by rounding
    var: NDArray[np.float64]  # population variance
    count: int  # type: ignore[assignment]  # elements of each statistic


@lru_cache(maxsize=256)
def _layout(ndim: int, axes: tuple[int, ...]) -> Layout:
    return Layout(tuple(REDUCED if k in axes else KEPT for k in range(ndim)), two_phases=False, batched=True, streams=False)


def reduce_moments(a: Array, axes: tuple[int, ...]) -> Reduced:
    """Moments of a non-empty array over `axes`, each statistic of at least one element."""
    kept = tuple(k for k in range(a.ndim) if k not in axes)
    shape = tuple(a.shape[k] for k in kept)
    layout = _layout(a.ndim, axes)
    if collapse(layout.labels, a.shape, [a.strides]) is None:
        # Kept and reduced axes alternate: one copy with the kept axes in front.
        a = np.ascontiguousarray(a.transpose(*kept, *axes))
        layout = _layout(a.ndim, tuple(range(len(kept), a.ndim)))
        kept = tuple(range(len(kept)))
    problem = arrange(layout, (a, None, None, None, None), get_num_threads())
    stats = passes.moments(problem)
    in_memory = [k for k in problem.order if k in kept]  # statistics lie as the kept axes lie in memory
    sizes = [a.shape[k] for k in in_memory]
    back = [in_memory.index(k) for k in kept]

    def ordered(row: Array) -> Array:
        return row.reshape(sizes).transpose(back).reshape(shape)

    count = a.size // max(1, int(np.prod(shape)))
    mean = ordered(stats[0])
    if not np.isfinite(mean).all():
        mean = _with_infinities(a, mean, kept)
    return Reduced(mean, ordered(stats[1]), ordered(stats[2]), count)


def _with_infinities(a: Array, mean: Array, kept: tuple[int, ...]) -> Array:
    """Differences from a shift turn an infinity into NaN; its mean is an infinity."""
    axes = tuple(k for k in range(a.ndim) if k not in kept)
    with np.errstate(all="ignore"):
        total = np.add.reduce(a, axis=axes, dtype=np.float64)
    return np.where(np.isnan(mean) & np.isinf(total), total, mean)


def mean_var(a: ArrayLike, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> MeanVar:
    """Mean and variance over axes, in one pass.

    Parameters
    ----------
    a : array_like
        Any strides, float or integer.
    axis : None, int or tuple of int
        The axes reduced over; None means all.
    ddof : number
        The variance has ``n - ddof`` in the denominator.
    keepdims : bool
        Whether reduced axes stay with length 1.

    Returns
    -------
    mean, var : float64, array or scalar

    Raises
    ------
    TypeError, numpy.exceptions.AxisError

    Warns
    -----
    RuntimeWarning
        As NumPy: without elements, or with no more than `ddof`.

    Notes
    -----
    Tiles of L1 are summed about their own mean and merged. Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.mean_var(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=0)
    MeanVar(mean=array([2., 4.]), var=array([1., 4.]))
    """
    a = as_array("a", a)
    axes = normalize_axes(axis, a.ndim)
    kept_shape = tuple(n for k, n in enumerate(a.shape) if k not in axes)
    count = int(np.prod([a.shape[k] for k in axes], dtype=np.int64))
    if a.size == 0:
        if count == 0:
            warnings.warn("Mean of empty slice", RuntimeWarning, stacklevel=2)
        mean, var = np.full(kept_shape, np.nan), np.full(kept_shape, np.nan)
    else:
        reduced = reduce_moments(a, axes)
        mean, var = reduced.mean, reduced.var
    if count - ddof <= 0:
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=2)
    if ddof:
        with np.errstate(divide="ignore", invalid="ignore"):
            var = var * count / max(count - ddof, 0.0)
    if keepdims:
        shape = tuple(1 if k in axes else n for k, n in enumerate(a.shape))
        mean, var = mean.reshape(shape), var.reshape(shape)
    return MeanVar(mean[()], var[()])
