"""Count, mean and second central moment of a set, and how two sets become one."""

from __future__ import annotations

import math
from typing import NamedTuple

from fastnorm._jit import element, rounded
from fastnorm.element.bits import choose
from fastnorm.element.storage import as_compute
from fastnorm.plan.table import MEAN_OF, STD_OF


class Moments(NamedTuple):
    """Of a set of numbers, in float64.

    The mean is ``mean + low``: at abs(mean)/std = 1e6 the rounding of a float64 mean alone is 1e-10 of
    a standard deviation, and the library promises 1e-13.
    """

    count: float  # type: ignore[assignment]
    mean: float
    low: float
    m2: float


EMPTY = Moments(0.0, 0.0, 0.0, 0.0)


@element
def two_sum(a, b):
    """Sum and rounding error, exactly. Source: Knuth, TAOCP 2, 4.2.2 theorem B."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@element
def merge(a, b):
    """Moments of the union of disjoint sets. Source: Chan, Golub, LeVeque 1983, eq. 2.1.

    Without a branch, so that a loop over columns vectorizes once: an empty set has weight 0, and its
    zeros leave both parts of the other mean exact.
    """
    count = a.count + b.count
    weight = b.count / count if count > 0.0 else 0.0
    delta = b.mean - a.mean
    low_delta = b.low - a.low
    mean, rest = two_sum(a.mean, delta * weight)
    delta += low_delta
    return Moments(count, mean, rest + (a.low + low_delta * weight), (a.m2 + b.m2) + delta * (delta * (a.count * weight)))


@element
def about_shift(count, shift, total, squares):
    """Moments from the sums of d and d*d, where d = x - shift.

    The cancellation in `m2` costs (shift - mean)**2 / var of the precision of the sums: callers shift by
    the mean of a part of the set. Rounding must not make a variance negative; NaN stays NaN.
    """
    step = total / count
    mean, low = two_sum(shift, step)
    m2 = squares - total * step
    return Moments(count, mean, low, 0.0 if m2 < 0.0 else m2)


@element
def leans(count, total, squares, part):
    """Whether total**2 is more than a part of count * squares: then sums about a shift lose 1 - part of m2 to cancellation.

    Sums of k blocks that do not, and of one more, have total**2 <= (part * k + 1) / (k + 1) * count * squares (Cauchy, Schwarz).
    """
    return total * total > part * (count * squares)


@element
def lopsided(count, total, squares):
    """Whether sums about a shift lose more than one bit of m2: the shift is a standard deviation off the mean."""
    return leans(count, total, squares, 0.5)


@element
def about_another_shift(count, total, low, squares, step):
    """Sums of d - step and its square, from those of d, whose total is total + low."""
    moved, rest = two_sum(total, -(count * step))
    return moved, low + rest, squares - step * (2.0 * total - count * step)


@element
def moments_of(count, mean, low, var):
    """From a rounded mean and a population variance."""
    return Moments(count, mean, low, var * count)


@element
def not_finite(value):
    """1 of NaN and infinities, or 0, in the dtype of the value: a sum of these has as many lanes."""
    return choose(abs(value) < math.inf, as_compute(value, 0.0), as_compute(value, 1.0))


@element
def rounded_mean(moments):
    """The mean, and what its rounding to float64 loses."""
    return two_sum(moments.mean, moments.low)


@element
def variance(moments):
    """Population variance; of an empty set NaN."""
    return moments.m2 / moments.count if moments.count > 0.0 else math.nan


@element
def rescaled(var, times, by):
    """A variance with another number of degrees of freedom."""
    return var * times / by


@element
def root(var):
    """The standard deviation."""
    return math.sqrt(var)


@element
def average_of(what, count, mean, low, m2, ddof):
    """The mean, the variance or the standard deviation, with ``count - ddof`` in the denominator."""
    if what == MEAN_OF:
        return mean + low
    var = m2 / count if ddof == 0 else rescaled(m2 / count, count, count - ddof)
    return root(var) if what == STD_OF else var


@element
def reciprocal_std(var, eps):
    """1 / sqrt(var + eps). A constant slice with eps = 0 gives inf, as the formula does."""
    return 1.0 / math.sqrt(var + eps)


@element
def score_factor(mean, var, count, free, eps):
    """What distances from the mean are multiplied with for standard scores; NaN where the standard deviation is no more than the rounding
    of the mean. free : degrees of freedom of the variance"""
    std = math.sqrt(var if count == free else rescaled(var, count, free))
    return math.nan if std <= eps * abs(mean) else 1.0 / std


@element
def may_be_constant(mean, var, limit):
    """Whether no element need be farther from the mean than limit * mean: the largest deviation is at least the standard deviation."""
    distance = limit * mean
    return var < distance * distance


@rounded
def moving_average(running, batch, momentum, bessel):
    """Source: Ioffe, Szegedy 2015, section 3.1; momentum is the weight of the new batch."""
    return (1.0 - momentum) * running + (momentum * bessel) * batch
