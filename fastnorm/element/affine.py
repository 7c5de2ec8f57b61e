"""Normalize, scale and shift one element."""

from __future__ import annotations

from typing import Any

from fastnorm._jit import element, rounded, variant
from fastnorm.element.bits import choose, whole_below
from fastnorm.element.storage import as_compute, holds_integers


@element
def split_mean(zero, mean, low):
    """High and low part of a float64 mean in the compute dtype of `zero`.

    ((x - high) - low) * scale has an error of 5e-7 at any offset, where (x - mean) * scale has 3e-4 at
    mean/std = 1e4 in float32 and the folded x * a + b has 7e-4. So has (x - high) * scale - low * scale, whose
    second product is the same for all elements: x - high is exact where low says anything.
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
    if low is None:
        return value - high
    return (value - high) - low


@element
def offset_of(low, scale, shift):
    """What is added to (x - high) * scale: the shift, and what the low part of the mean is worth. low : number, or None

    A scale may be infinite, where eps and a variance are 0.
    """
    if low is None:
        return shift
    return shift - choose(low == 0.0, 0.0, low * scale)


@element
def affine(value, high, scale, offset, gain, shift):
    """Source: Ioffe, Szegedy 2015, algorithm 1, with the mean in two parts.

    scale  : rstd, times gamma where all elements share it
    offset : None, or as of `offset_of`, of the shift that all elements share
    gain, shift : gamma and beta where every element has its own, else None
    """
    z = centred(value, high, None) * scale
    if offset is not None:
        z = z + offset
    if gain is not None:
        z = z * gain
    if shift is not None:
        z = z + shift
    return z


@rounded
def with_residual(z, residual):
    """z + residual, rounded by itself: a walk that knows that there is no shift would fuse the scaled distance with it, one that reads the
    shift from a vector of zeros would not, and which of them walks depends on the number of threads."""
    return z + residual
