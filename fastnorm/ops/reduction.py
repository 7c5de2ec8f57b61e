"""Statistics of any axes: what public functions and running moments are made of."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops import passes
from fastnorm.plan.geometry import KEPT, REDUCED, collapse
from fastnorm.plan.intake import computes_single
from fastnorm.plan.memory import contiguous
from fastnorm.plan.problem import Layout, Problem, arrange
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]


# Elements of an array whose first ones are looked at for NaN, and how many of them.
LARGE, SAMPLE = 1 << 20, 4096
# One statistic in this many may be copied to be looked at again by itself.
FEW = 64
# Of numbers so much smaller, differences of any two are finite.
QUARTER = 0.25


class Reduced(NamedTuple):
    """Statistics of the reduced axes, in the order of the kept axes of the array."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]  # what `mean` lost by rounding
    var: NDArray[np.float64]  # population variance
    count: Any  # elements of each statistic: a number, or an array where they differ or have weights

    def rows(self) -> NDArray[np.float64]:
        """As they are merged: count, mean, its low part and second central moment (4, ...); zeros where nothing was counted."""
        count = np.broadcast_to(np.asarray(self.count, np.float64), self.mean.shape)
        low = np.where(np.isfinite(self.low), self.low, 0.0)  # an infinite mean has none
        with np.errstate(invalid="ignore"):
            full = np.stack((count, self.mean, low, self.var * count))
        return np.where(count > 0.0, full, 0.0)


class Extremes(NamedTuple):
    """Of the elements that are not NaN; NaN where there are none."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.float64]  # type: ignore[assignment]


class Sizes(NamedTuple):
    """Of magnitudes."""

    total: NDArray[np.float64]
    largest: NDArray[np.float64]
    squares: NDArray[np.float64]


@lru_cache(maxsize=256)
def layout_of(ndim: int, axes: tuple[int, ...], streams: bool = False) -> Layout:
    """One statistic per index of the axes that are not in `axes`."""
    return Layout(tuple(REDUCED if k in axes else KEPT for k in range(ndim)), two_phases=False, batched=True, streams=streams)


@lru_cache(maxsize=1024)
def _fits(layout: Layout, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether kept and reduced axes do not alternate more often than a walk can."""
    return collapse(layout.labels, shape, [strides]) is not None


_LEAST_WEIGHT, _LARGEST_WEIGHT = 1e-18, 1e18
# Elements of a part of an array from which on its parts are walked one after the other, about 40 us each, rather than copied.
_PART = 1 << 15


def in_parts(a: Array, axes: tuple[int, ...]) -> bool:
    """Whether kept and reduced axes alternate so often that moments are those of parts, along the axis that is outermost in memory."""
    longest = a.shape[_outermost(a)] if a.ndim > 3 else a.size
    return a.size >= longest * _PART and not _fits(layout_of(a.ndim, axes), a.shape, a.strides)


def _outermost(a: Array) -> int:
    return max(range(a.ndim), key=lambda k: (a.shape[k] > 1, abs(a.strides[k])))


def _innermost(a: Array) -> int:
    return min(range(a.ndim), key=lambda k: (a.shape[k] == 1, abs(a.strides[k]), -k))


class Walk(NamedTuple):
    """A planned reduction, and how its statistics, which lie as the kept axes lie in memory, come to the user's order."""

    problem: Problem
    turned: tuple[int, ...] | None  # axes of the copy that is walked, where kept and reduced ones alternate
    sizes: tuple[int, ...]
    back: tuple[int, ...]

    def ordered(self, row: Array) -> Array:
        return row.reshape(self.sizes).transpose(self.back)


def plan(a: Array, axes: tuple[int, ...], weights: Array | None) -> Walk:
    kept = tuple(k for k in range(a.ndim) if k not in axes)
    layout, turned = layout_of(a.ndim, axes), None
    if not _fits(layout, a.shape, a.strides):
        # One copy with the kept axes in front, but for one along which elements lie side by side.
        innermost = tuple(k for k in kept if k == _innermost(a))
        turned = (*(k for k in kept if k not in innermost), *axes, *innermost)
        a = contiguous(a.transpose(turned))
        if weights is not None:
            weights = weights.transpose(turned)
        layout = layout_of(a.ndim, tuple(turned.index(k) for k in axes))
        kept = tuple(turned.index(k) for k in kept)
    problem = arrange(layout, (a, None, weights, None, None), get_num_threads())
    in_memory = [k for k in problem.order if k in kept]
    return Walk(problem, turned, tuple(a.shape[k] for k in in_memory), tuple(in_memory.index(k) for k in kept))


def in_memory(values: Array, kept: tuple[int, ...], order: tuple[int, ...]) -> Array:
    """Statistics in the order of the kept axes as a vector in the order of memory, as kernels take them."""
    return np.ascontiguousarray(values.transpose([kept.index(k) for k in order if k in kept])).reshape(-1)


def count_of(a: Array, axes: tuple[int, ...]) -> int:
    """Elements of one statistic."""
    return math.prod(a.shape[k] for k in axes)


def _reduce(a: Array, axes: tuple[int, ...], tag: str, weights: Array | None = None) -> tuple[Array, ...]:
    walk = plan(a, axes, weights)
    return tuple(walk.ordered(row) for row in passes.reduction(walk.problem, tag))


def extremes(a: Array, axes: tuple[int, ...], weights: Array | None = None) -> Extremes:
    """Least and largest of a non-empty array over `axes`, without what is NaN or has weight 0."""
    count, low, high, _ = _reduce(a, axes, "extrema", weights)
    some = count > 0.0
    return Extremes(np.where(some, low, np.nan), np.where(some, high, np.nan), count)


def sizes(a: Array, axes: tuple[int, ...]) -> Sizes:
    """Sum, maximum and sum of squares of the magnitudes of a non-empty array over `axes`."""
    _, total, largest, squares = _reduce(a, axes, "absolutes")
    return Sizes(total, largest, squares)


def reduce_moments(a: Array, axes: tuple[int, ...], weights: Array | None = None, omit: bool = False) -> Reduced:
    """Moments of a non-empty array over `axes`, each statistic of at least one element.

    weights : array of the shape of `a`, perhaps broadcast; an element of weight 0 does not exist
    omit    : whether NaN does not exist either
    """
    if weights is not None:
        if weights.dtype == np.float64 and computes_single(a.dtype) and not _are_ordinary(_different(weights)):
            a = a.astype(np.float64)
        weights = _computed(weights, np.dtype(np.float32 if computes_single(a.dtype) else np.float64))
    if weights is None and not (omit and _likely_nan(a)):
        return _plain_moments(a, axes, omit)
    return _counted_moments(a, axes, weights, omit)


def _different(weights: Array) -> Array:
    """Without the repetitions of a broadcast array."""
    return weights[tuple(slice(None) if step else slice(1) for step in weights.strides)]


def _computed(weights: Array, dtype: np.dtype[Any]) -> Array:
    """Weights that are the same along an axis, and so are few, in the dtype that kernels add them in."""
    few = _different(weights)
    return weights if few.shape == weights.shape else np.broadcast_to(few.astype(dtype), weights.shape)


def _are_ordinary(weights: Array) -> bool:
    """Whether float32 holds weights, and sums of many of them."""
    return not ((weights > _LARGEST_WEIGHT) | ((weights < _LEAST_WEIGHT) & (weights > 0.0))).any()


def _counted_moments(a: Array, axes: tuple[int, ...], weights: Array | None, omit: bool) -> Reduced:
    """By the kernels that count what takes part."""
    count, mean, low, m2 = _reduce(a, axes, "present" if omit else "weighted", weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        var = m2 / count
        mean, low = mean + low, (mean - (mean + low)) + low  # rounded, and what that loses
    mean = np.where(count > 0.0, mean, np.nan)
    if np.isnan(mean).any():
        bounds = extremes(a, axes, weights)
        # Without `omit` a NaN takes part: then the weights of what is not NaN sum to less.
        whole = omit or not _has_infinity(bounds) or _reduce(a, axes, "present", weights)[0] == count
        mean = _with_infinities(mean, bounds, np.where(whole, bounds.count, np.nan))
    return Reduced(mean, low, var, count)


def _plain_moments(a: Array, axes: tuple[int, ...], omit: bool) -> Reduced:
    """By the kernels that know no NaN; what came out NaN is looked at again, and nothing else changes a bit."""
    mean, low, var = _moments_of_parts(a, axes) if in_parts(a, axes) else _moments(a, axes)
    plain = Reduced(mean, low, var, count_of(a, axes))
    unknown = np.isnan(plain.mean)
    if not unknown.any():
        return plain
    if not omit:
        bounds = extremes(a, axes)
        if (unknown & (bounds.count == plain.count) & np.isfinite(bounds.high) & np.isfinite(bounds.low)).any():
            return _moments_of_quarters(a, axes)
        return plain._replace(mean=_with_infinities(plain.mean, bounds, plain.count))
    kept = [k for k in range(a.ndim) if k not in axes]
    found = np.flatnonzero(unknown)
    if len(kept) == 1 and found.size * FEW <= unknown.size:
        counted = _counted_moments(a.take(found, axis=kept[0]), axes, None, omit)
        rows = [np.array(row) for row in (*plain[:3], np.full(unknown.shape, float(plain.count)))]
        for row, values in zip(rows, counted, strict=True):
            row[found] = values
        return Reduced(*rows)
    counted = _counted_moments(a, axes, None, omit)
    return Reduced(*(np.where(unknown, new, old) for new, old in zip(counted, plain, strict=True)))


def _moments_of_quarters(a: Array, axes: tuple[int, ...]) -> Reduced:
    """Of finite numbers some of which are farther apart than the largest of their dtype: in float64, in a copy."""
    found = _plain_moments(np.multiply(a, QUARTER, dtype=np.float64), axes, False)
    with np.errstate(over="ignore"):
        return Reduced(found.mean / QUARTER, found.low / QUARTER, found.var / (QUARTER * QUARTER), found.count)


def _moments(a: Array, axes: tuple[int, ...]) -> tuple[Array, ...]:
    """Mean, its low part, variance."""
    walk = plan(a, axes, None)
    return tuple(walk.ordered(row) for row in passes.moments(walk.problem)[:3])


def _moments_of_parts(a: Array, axes: tuple[int, ...]) -> tuple[Array, ...]:
    """The same, merged or side by side. Copied into another order, (32, 64, 56, 56) over axes 0 and 2 took 14 ms, so 2 to 4."""
    rows = _rows_of_parts(a, axes)
    mean = rows[1] + rows[2]
    with np.errstate(invalid="ignore"):
        return mean, (rows[1] - mean) + rows[2], rows[3] / rows[0]


def _rows_of_parts(a: Array, axes: tuple[int, ...]) -> Array:
    """(4, kept axes): count, mean, its low part, second central moment."""
    if not in_parts(a, axes):
        mean, low, var = _moments(a, axes)
        count = count_of(a, axes)
        return np.stack([np.full(mean.shape, float(count)), mean, low, var * count])
    along = _outermost(a)
    rest = tuple(k - (k > along) for k in axes if k != along)
    parts = (_rows_of_parts(part, rest) for part in np.moveaxis(a, along, 0))
    if along not in axes:
        return np.stack(list(parts), 1 + along - sum(k < along for k in axes))
    total = next(parts)
    for part in parts:
        kernels.moments.merge_into(total.reshape(4, -1), part.reshape(4, -1))
    return total


def _likely_nan(a: Array) -> bool:
    """Whether the plain moments of a large array would be in vain, because NaN are frequent."""
    return a.size >= LARGE and begins_with_nan(a)


def begins_with_nan(a: Array) -> bool:
    return bool(np.isnan(a.flat[:SAMPLE]).any())


def is_finite(a: Array) -> bool:
    """Whether no element is NaN or infinite: their mean would be, too, and it is found faster than extremes."""
    walk = plan(a, tuple(range(a.ndim)), None)
    return bool(np.isfinite(passes.moments(walk.problem)[0, 0]))


def _has_infinity(bounds: Extremes) -> bool:
    return bool((bounds.high == np.inf).any() or (bounds.low == -np.inf).any())


def _with_infinities(mean: Array, bounds: Extremes, count: Any) -> Array:
    """Differences from a shift turn an infinity into NaN; the mean of numbers and infinities of one sign is infinite.

    count : of the elements that take part
    """
    upper, lower = bounds.high == np.inf, bounds.low == -np.inf
    infinite = np.where(upper, np.inf, -np.inf)
    return np.where(np.isnan(mean) & (upper ^ lower) & (bounds.count == count), infinite, mean)
