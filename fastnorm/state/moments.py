"""Moments of a stream: batches, threads, ranks and machines, merged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm import kernels
from fastnorm.ops.statistics import reduce_moments
from fastnorm.plan.intake import as_array, normalize_axes

Array = NDArray[Any]
_COUNT, _MEAN, _LOW, _M2 = range(4)


class RunningMoments:
    """Mean, variance, minimum and maximum of all batches seen so far.

    Equal to one pass over the pooled data, to 1e-12 relative for float64 input and 1e-6 for 32- and
    16-bit input, in whatever batches it comes and however partial results are merged.

    Parameters
    ----------
    axis : None, int or tuple of int
        The axes of every batch that are reduced over.

    Attributes
    ----------
    count : int
        Elements per statistic.
    mean, min, max : float64 array
        Of the shape of the kept axes. NaN before the first batch.

    Notes
    -----
    Source of the merge: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> m = fn.RunningMoments(axis=0)
    >>> m.update(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> m.update(np.array([[5.0, 6.0]]))
    >>> m.count, m.mean, m.var()
    (3, array([3., 4.]), array([2.66666667, 2.66666667]))
    """

    def __init__(self, axis: Any = 0) -> None:
        if axis is not None and not isinstance(axis, tuple | list):
            normalize_axes(axis, 64)  # an integer, or TypeError
        self.axis = tuple(axis) if isinstance(axis, list) else axis
        self._shape: tuple[int, ...] | None = None
        self._moments = np.zeros((4, 0))
        self._extrema = np.zeros((2, 0))

    def update(self, batch: ArrayLike) -> None:
        """Take in a batch; an empty one changes nothing.

        Raises
        ------
        ValueError
            If its kept axes have another shape than those of earlier batches.
        TypeError, numpy.exceptions.AxisError
        """
        array = as_array("batch", batch)
        axes = normalize_axes(self.axis, array.ndim)
        shape = tuple(n for k, n in enumerate(array.shape) if k not in axes)
        if self._shape is not None and shape != self._shape:
            raise ValueError(f"batch has kept axes of shape {shape} but earlier batches had {self._shape}; pass batches of one shape")
        if array.size == 0:
            return
        reduced = reduce_moments(array, axes)
        moments = np.empty((4, reduced.mean.size))
        moments[_COUNT] = reduced.count
        moments[_MEAN] = reduced.mean.reshape(-1)
        moments[_LOW] = reduced.low.reshape(-1)
        moments[_M2] = reduced.var.reshape(-1) * reduced.count
        with np.errstate(invalid="ignore"):
            low = np.min(array, axis=axes).astype(np.float64).reshape(-1)
            high = np.max(array, axis=axes).astype(np.float64).reshape(-1)
        self._join(shape, moments, np.stack([low, high]))

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
        if other._shape is None:
            return
        if self._shape is not None and self._shape != other._shape:
            raise ValueError(f"other has statistics of shape {other._shape} but these have {self._shape}; merge equals only")
        self._join(other._shape, other._moments, other._extrema)

    def _join(self, shape: tuple[int, ...], moments: Array, extrema: Array) -> None:
        if self._shape is None:
            self._shape, self._moments, self._extrema = shape, moments.copy(), extrema.copy()
            return
        total = self._moments.copy()
        kernels.moments.merge_into(total, moments)
        low, high = np.minimum(self._extrema[0], extrema[0]), np.maximum(self._extrema[1], extrema[1])
        self._moments, self._extrema = total, np.stack([low, high])

    def __iadd__(self, other: RunningMoments) -> RunningMoments:
        if not isinstance(other, RunningMoments):
            return NotImplemented
        self.merge(other)
        return self

    def __add__(self, other: RunningMoments) -> RunningMoments:
        if not isinstance(other, RunningMoments):
            return NotImplemented
        result = RunningMoments(self.axis)
        result.merge(self)
        result.merge(other)
        return result

    @property
    def count(self) -> int:
        """Elements per statistic."""
        return int(self._moments[_COUNT, 0]) if self._moments.shape[1] else 0

    def _result(self, row: Array) -> Any:
        if self._shape is None:
            return np.float64(np.nan)
        return row.reshape(self._shape).copy()[()]

    @property
    def mean(self) -> Any:
        return self._result(self._moments[_MEAN])

    def var(self, ddof: float = 0) -> Any:
        """Variance with ``count - ddof`` in the denominator; NaN where that is not positive."""
        remaining = self.count - ddof
        if remaining <= 0:
            return self._result(np.full(self._moments.shape[1], np.nan))
        return self._result(self._moments[_M2] / remaining)

    def std(self, ddof: float = 0) -> Any:
        """Square root of the variance."""
        return np.sqrt(self.var(ddof))

    @property
    def min(self) -> Any:
        return self._result(self._extrema[0])

    @property
    def max(self) -> Any:
        return self._result(self._extrema[1])

    def __repr__(self) -> str:
        return f"RunningMoments(axis={self.axis!r}, count={self.count})"
