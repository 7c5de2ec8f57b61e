"""Moments of a stream: batches, threads, ranks and machines, merged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops.average_calls import degrees
from fastnorm.ops.pooling import Pool, pooled, with_batch
from fastnorm.ops.quick import quick_batch
from fastnorm.ops.reduction import count_of, extremes
from fastnorm.ops.statistics import weights_like
from fastnorm.plan.intake import as_array, check_nan_policy, normalize_axes

Array = NDArray[Any]


class RunningMoments:
    """Mean, variance, minimum and maximum of all batches seen so far.

    Equal to one pass over the pooled data, to 1e-12 relative for float64 input and 1e-6 for 32- and
    16-bit input, in whatever batches it comes and however partial results are merged.

    Parameters
    ----------
    axis : None, int or tuple of int
        The axes of every batch that are reduced over.
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN does: make its statistic NaN, count as absent, or raise ValueError at `update`.

    Attributes
    ----------
    count : int, float or array
        Elements per statistic, or the sum of their weights: one number where it is the same for all, else an array of
        the shape of the kept axes.
    mean, min, max : float64 array
        Of the shape of the kept axes. NaN before the first batch.

    Notes
    -----
    Source of the merge: Chan, Golub, LeVeque 1983. Counts are float64: exact to 9e15. Weights of
    32- and 16-bit data are rounded to float32 before they are counted.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> m = fn.RunningMoments(axis=0)
    >>> m.update(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> m.update(np.array([[5.0, 6.0]]))
    >>> m.count, m.mean, m.var()
    (3, array([3., 4.]), array([2.66666667, 2.66666667]))
    """

    def __init__(self, axis: Any = 0, *, nan_policy: str = "propagate") -> None:
        if axis is not None:
            normalize_axes(axis, 64, "a batch")  # integers, or TypeError
        check_nan_policy(nan_policy)
        self.axis = tuple(axis) if isinstance(axis, list) else axis
        self.nan_policy = nan_policy
        self._pool: Pool | None = None
        self._extrema = np.zeros((2, 0))

    def update(self, batch: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Take in a batch; an empty one changes nothing.

        Parameters
        ----------
        batch : array_like
            Of any length along the reduced axes.
        weights : array_like, optional
            Not negative; of the shape of the batch, or what broadcasts to it, or one per index of a single `axis`. An
            element of weight 0 counts as absent.

        Raises
        ------
        ValueError
            If its kept axes have another shape than those of earlier batches, and for NaN where they raise.
        TypeError, numpy.exceptions.AxisError
        """
        array = as_array("batch", batch)
        quick = quick_batch(array, self.axis) if weights is None else None
        taken = None if quick is None else with_batch(self._pool, self._extrema, quick)
        if taken is not None:
            self._pool, self._extrema = taken
            return
        axes = normalize_axes(self.axis, array.ndim, "batch")
        shape = tuple(n for k, n in enumerate(array.shape) if k not in axes)
        if self._pool is not None and shape != self._pool.shape:
            raise ValueError(f"batch has kept axes of shape {shape} but earlier batches had {self._pool.shape}; pass batches of one shape")
        given = weights_like(array, axes, weights, "batch")
        if array.size == 0:
            return
        pool = pooled(array, axes, given, self.nan_policy)
        bounds = extremes(array, axes, given)
        extrema = np.stack([bounds.low.reshape(-1), bounds.high.reshape(-1)])
        if self.nan_policy == "propagate":
            if given is None:
                poisoned = bounds.count.reshape(-1) < count_of(array, axes)
            else:  # infinities of both signs make a mean NaN, too
                poisoned = np.isnan(pool.rows[1]) & ~np.isinf(extrema).all(axis=0)
            extrema[:, poisoned] = np.nan
        self._join(pool, extrema)

    def merge(self, other: RunningMoments) -> None:
        """Take in everything that `other` has seen, and leave `other` alone.

        Raises
        ------
        TypeError
            If `other` is not a RunningMoments.
        ValueError
            If its statistics have another shape.
        """
        if not isinstance(other, RunningMoments):
            raise TypeError(f"other must be a RunningMoments, got {type(other).__name__}")
        if other._pool is None:
            return
        if self._pool is not None and self._pool.shape != other._pool.shape:
            raise ValueError(f"other has statistics of shape {other._pool.shape} but these have {self._pool.shape}; merge equals only")
        self._join(other._pool, other._extrema)

    def _join(self, pool: Pool, extrema: Array) -> None:
        """Both at once, or neither."""
        if self._pool is None:
            self._pool, self._extrema = Pool(pool.shape, pool.rows.copy()), extrema.copy()
            return
        low, high = (np.fmin, np.fmax) if self.nan_policy == "omit" else (np.minimum, np.maximum)
        # A part without an element has no extrema: NaN there says nothing.
        ours, theirs = self._pool.rows[0] > 0.0, pool.rows[0] > 0.0
        kept = np.where(ours | ~theirs, self._extrema, extrema)
        taken = np.where(theirs, extrema, kept)
        joined = np.stack([low(kept[0], taken[0]), high(kept[1], taken[1])])
        self._pool, self._extrema = self._pool.joined(pool), joined

    def __iadd__(self, other: RunningMoments) -> RunningMoments:
        if not isinstance(other, RunningMoments):
            return NotImplemented
        self.merge(other)
        return self

    def __add__(self, other: RunningMoments) -> RunningMoments:
        if not isinstance(other, RunningMoments):
            return NotImplemented
        result = RunningMoments(self.axis, nan_policy=self.nan_policy)
        result.merge(self)
        result.merge(other)
        return result

    @property
    def count(self) -> Any:
        """Elements per statistic, or the sum of their weights."""
        if self._pool is None:
            return 0
        counts = self._pool.count
        if counts.size == 0:
            return 0
        if (counts == counts.flat[0]).all():
            one = float(counts.flat[0])
            return int(one) if one.is_integer() else one
        return counts.copy()

    @property
    def mean(self) -> Any:
        return np.float64(np.nan) if self._pool is None else self._pool.mean[()]

    def var(self, ddof: float = 0) -> Any:
        """Variance with ``count - ddof`` in the denominator; NaN where that is not positive."""
        return np.float64(np.nan) if self._pool is None else self._pool.variance(degrees(ddof))[()]

    def std(self, ddof: float = 0) -> Any:
        """Square root of the variance."""
        return np.sqrt(self.var(ddof))

    @property
    def min(self) -> Any:
        return self._bound(0)

    @property
    def max(self) -> Any:
        return self._bound(1)

    def _bound(self, which: int) -> Any:
        return np.float64(np.nan) if self._pool is None else self._extrema[which].reshape(self._pool.shape).copy()[()]

    def __repr__(self) -> str:
        return f"RunningMoments(axis={self.axis!r}, count={self.count})"
