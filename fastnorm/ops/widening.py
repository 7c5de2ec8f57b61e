"""Moments in float64 of narrower floats, for results that are asked for in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops.reduction import Reduced, reduce_moments
from fastnorm.plan.memory import pieces

Array = NDArray[Any]
# Elements that are widened at a time, 2 MB in float64. A quarter of it took twice as long, for its calls.
BLOCK_ELEMENTS = 1 << 18


def widened_moments(a: Array, axes: tuple[int, ...], weights: Array | None = None, omit: bool = False) -> Reduced:
    """As `reduce_moments`, with arithmetic in float64: blocks are widened one after the other, and merged."""
    kept = tuple(k for k in range(a.ndim) if k not in axes)
    total = np.zeros((4, *(a.shape[k] for k in kept)))
    for index in _blocks(a):
        part = reduce_moments(np.array(a[index], np.float64), axes, None if weights is None else weights[index], omit).rows()
        place = (slice(None), *(index[k] for k in kept))
        whole = np.ascontiguousarray(total[place])
        kernels.moments.merge_into(whole.reshape(4, -1), part.reshape(4, -1))
        total[place] = whole
    count, mean, low, m2 = total
    with np.errstate(invalid="ignore", divide="ignore"):
        rounded = mean + low
        low = (mean - rounded) + low
        var = m2 / count
    if not np.isfinite(rounded).all():  # of what is not finite the sums keep no sign
        rounded = np.where(np.isfinite(rounded) & (count > 0.0), rounded, reduce_moments(a, axes, weights, omit).mean)
    return Reduced(np.where(count > 0.0, rounded, np.nan), low, var, count)


def _blocks(a: Array) -> Iterator[tuple[slice, ...]]:
    """Pieces along the longest axis."""
    axis = int(np.argmax(a.shape)) if a.ndim else 0
    for piece in pieces(a.shape[axis] if a.ndim else 1, a.size, BLOCK_ELEMENTS):
        yield tuple(piece if k == axis else slice(None) for k in range(a.ndim))
