"""Moments of one part of a data set, and of parts together."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops.launch import Driver, all_finite
from fastnorm.ops.quick import Batch
from fastnorm.ops.reduction import Reduced, count_of, extremes, reduce_moments

Array = NDArray[Any]
COUNT, MEAN, LOW, M2 = range(4)


class Pool(NamedTuple):
    """Of every statistic, in the order of the kept axes."""

    shape: tuple[int, ...]
    rows: NDArray[np.float64]  # (4, statistics): count or sum of weights, mean, its low part, second central moment

    @property
    def count(self) -> Array:  # type: ignore[override]
        counts: Array = self.rows[COUNT]
        return counts.reshape(self.shape)

    @property
    def mean(self) -> Array:
        """NaN where nothing was counted."""
        known: Array = np.where(self.rows[COUNT] > 0.0, self.rows[MEAN] + self.rows[LOW], np.nan)
        return known.reshape(self.shape)

    def variance(self, ddof: float) -> Array:
        """With ``count - ddof`` in the denominator; NaN where that is not positive."""
        remaining = self.rows[COUNT] - ddof
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self.rows[M2] / remaining
        known: Array = np.where(remaining > 0.0, found, np.nan)
        return known.reshape(self.shape)

    def reduced(self) -> Reduced:
        """The mean, what its rounding loses, and the population variance, of statistics that come as a vector."""
        count, mean, low, _ = self.rows
        with np.errstate(invalid="ignore"):
            lost = (mean - (mean + low)) + low
        return Reduced(self.mean, np.where(count > 0.0, lost, 0.0), self.variance(0.0), count)

    def joined(self, other: Pool) -> Pool:
        """Of both, which are disjoint. Raises ValueError if they are not of one shape."""
        if self.shape != other.shape:
            raise ValueError(f"a batch has kept axes of shape {other.shape} but earlier ones had {self.shape}; pass batches of one shape")
        rows = self.rows.copy()
        kernels.moments.merge_into(rows, np.ascontiguousarray(other.rows))
        infinite = np.isinf(self.rows[MEAN]) | np.isinf(other.rows[MEAN])
        if infinite.any():  # the difference of means, by which they merge, knows no infinity
            with np.errstate(invalid="ignore"):  # infinities of both signs
                rows[MEAN, infinite] = self.rows[MEAN, infinite] + other.rows[MEAN, infinite]
            rows[LOW, infinite] = 0.0
        return Pool(self.shape, rows)


@cache
def _taking() -> Driver:
    return Driver(kernels.running, "take_batch")


def with_batch(pool: Pool | None, extrema: Array, batch: Batch) -> tuple[Pool, Array] | None:
    """Both with a batch taken in, by the shortest way; None where that is none: of another shape, or after NaN and infinities.

    extrema : (2, statistics), least and largest
    """
    if pool is None:
        statistics = batch.stats.shape[1]
        rows, bounds = np.zeros((4, statistics)), np.full((2, statistics), np.nan)
    elif pool.shape != batch.shape or not all_finite(pool.rows[MEAN]):
        return None
    else:
        rows, bounds = pool.rows.copy(), extrema.copy()
    _taking()(rows, bounds, batch.stats, batch.bounds, float(batch.elements))
    return Pool(batch.shape, rows), bounds


def pooled(a: Array, axes: tuple[int, ...], weights: Array | None, nan_policy: str) -> Pool:
    """Moments of an array, which may be empty.

    raises : ValueError if there is a NaN and `nan_policy` is "raise"
    """
    shape = tuple(n for k, n in enumerate(a.shape) if k not in axes)
    statistics = int(np.prod(shape))
    if a.size == 0:
        return Pool(shape, np.zeros((4, statistics)))
    found = reduce_moments(a, axes, weights, omit=nan_policy == "omit")
    if nan_policy == "raise" and np.isnan(found.mean).any() and extremes(a, axes).count.sum() < statistics * count_of(a, axes):
        raise ValueError("The input contains nan values")
    return Pool(shape, found.rows().reshape(4, statistics))
