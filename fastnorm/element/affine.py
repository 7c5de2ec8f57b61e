"""Normalize, scale and shift one element."""

from __future__ import annotations

from typing import Any

from fastnorm._jit import element, rounded, variant
from fastnorm.element.bits import whole_below
from fastnorm.element.storage import as_compute, holds_integers


@element
def split_mean(zero, mean, low):
    """High and low part of a float64 mean in the compute dtype of `zero`.

    ((x - high) - low) * scale has an error of 5e-7 at any offset, where (x - mean) * scale has 3e-4 at
    mean/std = 1e4 in float32 and the folded x * a + b has 7e-4.
    """
    high = as_compute(zero, mean)
    return high, as_compute(zero, (mean - high) + low)


@element
def distance(value, shift):
    """value - shift, by itself: left to a reassociating loop, ``total += value - shift`` becomes
    ``(total - shift) + value``, which loses everything at a large offset."""
    return value - shift


@element
def added(a, b):
    """a + b, by itself: a loop may add in another order, and one number far larger than others then absorbs each of them instead of
    their sum."""
    return a + b


@variant
def origin_near(storage: Any, guess: Any) -> Any:
    """What distances of the elements are measured from: of integers an integer, so that sums of distances are exact."""
    if holds_integers(storage):
        return lambda storage, guess: whole_below(guess + as_compute(guess, 0.5))
    return lambda storage, guess: guess


@element
def centred(value, high, low):
    """Distance from the mean; from zero, where there is no mean."""
    if high is None:
        return value
    return (value - high) - low


@element
def affine(value, high, low, scale, gain, shift):
    """Source: Ioffe, Szegedy 2015, algorithm 1, with the mean in two parts.

    scale : rstd, times gamma where all elements share it
    gain  : gamma where every element has its own, else None
    """
    z = centred(value, high, low) * scale
    if gain is not None:
        z = z * gain
    return z + shift


@rounded
def with_residual(z, residual):
    """z + residual, rounded by itself: a walk that knows that there is no shift would fuse the scaled distance with it, one that reads the
    shift from a vector of zeros would not, and which of them walks depends on the number of threads."""
    return z + residual
