"""Batches taken into running moments and extremes."""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver
from fastnorm.element.bits import wide_vectors
from fastnorm.element.moments import Moments, merge, moments_of
from fastnorm.element.reductions import greater, lesser
from fastnorm.element.storage import at, row, write
from fastnorm.kernels.moments import LOW, MEAN, VARIANCE


@chunk_body
def take_in(rows, extrema, stats, bounds, count):
    wide_vectors()
    counts, means, lows, m2s = row(rows, 0), row(rows, 1), row(rows, 2), row(rows, 3)
    for k in range(counts.size):
        batch = moments_of(count, at(row(stats, MEAN), k), at(row(stats, LOW), k), at(row(stats, VARIANCE), k))
        joined = merge(Moments(at(counts, k), at(means, k), at(lows, k), at(m2s, k)), batch)
        write(counts, k, joined.count)
        write(means, k, joined.mean)
        write(lows, k, joined.low)
        write(m2s, k, joined.m2)
    least, largest = row(extrema, 0), row(extrema, 1)
    low, high = row(bounds, 1), row(bounds, 2)
    for k in range(least.size):
        write(least, k, lesser(at(least, k), at(low, k)))
        write(largest, k, greater(at(largest, k), at(high, k)))


@driver
def take_batch(rows, extrema, stats, bounds, count):
    """Join a batch of finite numbers to what is finite, in place.

    rows, extrema : float64 (4, n) and (2, n): count, mean, low and m2, zeros before the first batch; least and largest, NaN before it
    stats, bounds : of the batch, as of `kernels.moments` and of `Extrema` of `kernels.reduce`
    count         : elements of every statistic of the batch
    """
    take_in(rows, extrema, stats, bounds, count)
