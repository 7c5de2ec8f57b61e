"""Moments of one small contiguous run, without a plan."""

from __future__ import annotations

from fastnorm._jit import driver
from fastnorm.element.bits import wide_vectors
from fastnorm.element.moments import rounded_mean, variance
from fastnorm.kernels.moments import all_finite, moments_of_span


@driver
def moments_of_few(src, table):
    """Mean and variance of all elements: the bits of the walk over a plan.

    table : of one statistic and one run that is at least as long as the source
    """
    moments = moments_of_span(src, 0, table, 0, 0, 0, src.size)
    return rounded_mean(moments)[0], variance(moments)


@driver
def are_finite(values):
    """Whether all of a vector are."""
    wide_vectors()
    return all_finite(values)
