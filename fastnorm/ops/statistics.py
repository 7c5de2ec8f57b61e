"""Mean and variance in one pass, of arrays and of streams."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops.average_calls import degrees
from fastnorm.ops.pooling import Pool, pooled
from fastnorm.ops.quick import quick_mean_var
from fastnorm.plan.intake import as_array, check_nan_policy, is_stream, normalize_axes
from fastnorm.plan.memory import pieces
from fastnorm.runtime.progress import tracked

Array = NDArray[Any]
# Bytes of one step of a progress bar: some milliseconds of work.
STEP_BYTES = 64 << 20


class MeanVar(NamedTuple):
    """Result of `mean_var`."""

    mean: Any
    var: Any


def mean_var(
    a: ArrayLike | Iterable[ArrayLike],
    axis: Any = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    nan_policy: str = "propagate",
    weights: ArrayLike | None = None,
    progress: bool = False,
) -> MeanVar:
    """Mean and variance over axes, in one pass.

    Parameters
    ----------
    a : array_like, or iterator of array_like
        Any strides, float or integer; a memory-mapped array is read where it lies. An iterator (or any iterable that is
        no sequence) gives batches of one data set, which differ at most in the length of the axes reduced over.
    axis : None, int or tuple of int
        The axes reduced over; None means all.
    ddof : number
        The variance has ``n - ddof`` in the denominator, with weights ``sum(weights) - ddof``.
    keepdims : bool
        Whether reduced axes stay with length 1.
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN does: make its statistic NaN, count as absent, or raise ValueError.
    weights : array_like, optional
        Not negative; of the shape of `a`, or what broadcasts to it, or one per index of `axis`, if that is one axis.
        An element of weight 0 counts as absent, whatever its value.
    progress : bool
        Whether to show a progress bar (with rich), a step for every batch or 64 MB.

    Returns
    -------
    mean, var : float64, array or scalar

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
    ImportError
        If `progress` is asked for and rich is not installed.

    Warns
    -----
    RuntimeWarning
        As NumPy: without elements, or with no more than `ddof`.

    Notes
    -----
    Tiles of L1 are summed about their own mean and merged. Source: Chan, Golub, LeVeque 1983; with weights West 1979.
    Integers of up to 32 bits are summed exactly within every tile, and the mean is the exact one, rounded.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.mean_var(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=0)
    MeanVar(mean=array([2., 4.]), var=array([1., 4.]))
    >>> fn.mean_var(np.array([1.0, 2.0, np.nan]), nan_policy="omit", weights=[1.0, 3.0, 1.0])
    MeanVar(mean=np.float64(1.75), var=np.float64(0.1875))
    """
    if nan_policy == "propagate" and weights is None and keepdims is False and progress is False:
        quick = quick_mean_var(a, axis, ddof)
        if quick is not None:
            return MeanVar(*quick)
    check_nan_policy(nan_policy)
    ddof = degrees(ddof)
    if is_stream(a):
        pool, ndim = _of_stream(a, axis, nan_policy, weights, progress)
    else:
        array = as_array("a", a)
        axes = normalize_axes(axis, array.ndim, "a")
        ndim = array.ndim
        pool = _of_array(array, axes, weights_like(array, axes, weights), nan_policy, progress)
    mean, var = pool.mean, pool.variance(ddof)
    if keepdims:
        axes = normalize_axes(axis, ndim)
        mean, var = np.expand_dims(mean, axes), np.expand_dims(var, axes)
    _warn(pool, ddof)
    return MeanVar(mean[()], var[()])


def _warn(pool: Pool, ddof: float) -> None:
    if not pool.count.size:
        return
    fewest = pool.count.min()
    if fewest == 0:
        warnings.warn("Mean of empty slice", RuntimeWarning, stacklevel=3)
    if fewest - ddof <= 0:
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=3)


def weights_like(a: Array, axes: tuple[int, ...], weights: Any, name: str = "a") -> Array | None:
    """Checked weights, broadcast to the shape of `a`, which users call by this name. Raises TypeError, ValueError."""
    if weights is None:
        return None
    given = as_array("weights", weights)
    if given.ndim == 1 and len(axes) == 1 and given.shape[0] == a.shape[axes[0]]:
        given = given.reshape([-1 if k == axes[0] else 1 for k in range(a.ndim)])
    try:
        full = np.broadcast_to(given, a.shape)
    except ValueError:
        raise ValueError(
            f"weights has shape {given.shape} but {name} has {a.shape}; pass weights that broadcast to it, or one for each index of axis"
        ) from None
    if given.size and not (given.min() >= 0 and np.isfinite(given.max())):
        raise ValueError("weights has a number that is negative, infinite or NaN; pass finite weights >= 0")
    return full if given.dtype in (np.float32, np.float64, np.bool_) else np.broadcast_to(given.astype(np.float64), a.shape)


def _of_array(a: Array, axes: tuple[int, ...], weights: Array | None, nan_policy: str, progress: bool) -> Pool:
    if not progress or not axes:
        return pooled(a, axes, weights, nan_policy)
    longest = max(axes, key=lambda k: (abs(a.strides[k]), a.shape[k]))
    steps = pieces(max(1, a.shape[longest]), a.nbytes, STEP_BYTES)
    total: Pool | None = None
    for step in tracked(steps, len(steps), "mean and variance", progress):
        piece = (slice(None),) * longest + (step,)
        part = pooled(a[piece], axes, None if weights is None else weights[piece], nan_policy)
        total = part if total is None else total.joined(part)
    assert total is not None
    return total


def _of_stream(batches: Any, axis: Any, nan_policy: str, weights: Any, progress: bool) -> tuple[Pool, int]:
    if weights is not None:
        raise TypeError("weights of a stream cannot be told apart by batches; pass them with every batch to RunningMoments.update")
    total: Pool | None = None
    ndim = 0
    for batch in tracked(_arrays(batches), length_hint(batches) or None, "mean and variance", progress):
        ndim = batch.ndim
        part = pooled(batch, normalize_axes(axis, ndim, "a batch of a"), None, nan_policy)
        total = part if total is None else total.joined(part)
    if total is None:
        raise ValueError("a gave no batch; pass at least one, perhaps empty, so that the shape of the result is known")
    return total, ndim


def _arrays(batches: Iterable[Any]) -> Iterator[Array]:
    for batch in batches:
        yield as_array("a batch of a", batch)
