"""Moments of the columns of a sparse matrix, of elements that are stored and of zeros that are not; norms of its lines."""

from __future__ import annotations

import math

from fastnorm._jit import element
from fastnorm.element.bits import choose
from fastnorm.element.moments import EMPTY, about_shift

# (mean / std)**2 up to which sums about zero will do: they lose four bits of 53.
NEAR_ZERO = 16.0


@element
def with_zeros(zeros, present, centre, total, squares):
    """Moments of a column from sums about `centre`, which its zeros are away from, too.

    zeros, present : weight of the elements that are not stored, and of those that are and are not NaN
    total, squares : sums of d and d*d of the stored, where d = x - centre
    """
    count = present + zeros
    if count <= 0.0:
        return EMPTY
    return about_shift(count, centre, total - zeros * centre, squares + zeros * centre * centre)


@element
def is_off_centre(moments):
    """Whether sums about zero have lost too much: they are to be taken about the mean."""
    return moments.count * moments.mean * moments.mean > NEAR_ZERO * moments.m2


@element
def root(total):
    return math.sqrt(total)


@element
def factor_of(norm, least):
    """What makes a line's norm 1, or leaves the line as it is if that is below `least`."""
    return 1.0 / choose(norm < least, 1.0, norm)
