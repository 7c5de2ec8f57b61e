"""Reductions to four numbers, other than plain moments: what they are of nothing, and of two disjoint sets.

A tag chooses the reduction when a kernel is compiled:

    Weighted   sum of weights, mean, its low part, second central moment; an element of weight 0 does not exist
    Present    the same; neither does a NaN
    Extrema    number of elements that are not NaN, the least and the largest of them, and 0
    Absolutes  number of elements, sum of their magnitudes, the largest of them, sum of their squares
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba.core import types

from fastnorm._jit import element, variant
from fastnorm.element.affine import distance
from fastnorm.element.bits import choose
from fastnorm.element.moments import Moments, merge
from fastnorm.element.storage import as_compute, load


class Weighted(NamedTuple):
    """Moments of elements of any weight."""

    ignored: float = 0.0


class Present(NamedTuple):
    """Moments of the elements that are not NaN."""

    ignored: float = math.nan


class Extrema(NamedTuple):
    """Least and largest of the elements that are not NaN."""

    ignored: float = math.nan


class Absolutes(NamedTuple):
    """Sum, maximum and squares of magnitudes."""

    ignored: float = 0.0


@variant
def of_nothing(reduction: Any) -> Any:
    """The four numbers of an empty set."""
    if reduction.instance_class is Extrema:
        return lambda reduction: (0.0, math.inf, -math.inf, 0.0)
    return lambda reduction: (0.0, 0.0, 0.0, 0.0)


@variant
def join(reduction: Any, a: Any, b: Any) -> Any:
    """The four numbers of the union of disjoint sets. Without a branch: a loop over columns vectorizes."""
    tag = reduction.instance_class
    if tag is Extrema:
        return lambda reduction, a, b: (a[0] + b[0], lesser(a[1], b[1]), greater(a[2], b[2]), 0.0)
    if tag is Absolutes:
        return lambda reduction, a, b: (a[0] + b[0], a[1] + b[1], greater(a[2], b[2]), a[3] + b[3])
    return lambda reduction, a, b: merged(a, b)


@element
def merged(a, b):
    both = merge(Moments(a[0], a[1], a[2], a[3]), Moments(b[0], b[1], b[2], b[3]))
    return both.count, both.mean, both.low, both.m2


@element
def lesser(a, b):
    """The lesser of two; the second if the first is NaN."""
    return choose(a < b, a, b)


@element
def greater(a, b):
    """The greater of two; the second if the first is NaN."""
    return choose(a > b, a, b)


@variant
def weight_at(weights: Any, index: Any, zero: Any) -> Any:
    """Weight of an element in the dtype of `zero`: 1 where there are no weights."""
    if weights is types.none:
        return lambda weights, index, zero: as_compute(zero, 1.0)
    return lambda weights, index, zero: as_compute(zero, load(weights, index))


@variant
def exists(reduction: Any, weight: Any, value: Any) -> Any:
    """Whether an element takes part."""
    if reduction.instance_class in (Present, Extrema):
        return lambda reduction, weight, value: (weight != 0) & (value == value)
    return lambda reduction, weight, value: weight != 0


@variant
def summed_in(reduction: Any, zero: Any) -> Any:
    """0 in the dtype in which rows are summed up: squares of magnitudes may be no float32."""
    if reduction.instance_class is Absolutes:
        return lambda reduction, zero: 0.0
    return lambda reduction, zero: zero


@element
def counted(value, zero):
    """1, or 0 for NaN, in the dtype of `zero`."""
    return choose(value == value, as_compute(zero, 1.0), zero)


@element
def distance_or_nothing(value, shift, zero):
    """Of NaN 0."""
    return choose(value == value, distance(value, shift), zero)


@variant
def weight_and_distance(reduction: Any, value: Any, shift: Any, weight: Any, zero: Any) -> Any:
    """Of an element, or of lanes of elements, of one weight; both 0 where nothing exists."""
    if reduction.instance_class is Weighted:
        return lambda reduction, value, shift, weight, zero: (weight, choose(weight == zero, zero, distance(value, shift)))
    return lambda reduction, value, shift, weight, zero: (
        choose(value == value, weight, zero),
        choose(weight == zero, zero, distance_or_nothing(value, shift, zero)),
    )
