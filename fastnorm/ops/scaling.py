"""Elements less a centre, times a factor, plus a shift: what scalers and z-scores apply."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops import passes
from fastnorm.ops.door import output
from fastnorm.ops.reduction import in_memory, layout_of
from fastnorm.plan.problem import arrange
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]


def rescale(
    x: Array,
    axes: tuple[int, ...],
    centre: Array,
    factor: Array,
    *,
    low: Array | None = None,
    shift: Array | None = None,
    limits: tuple[float, float] | None = None,
    out: Array | None = None,
) -> Array:
    """``(x - centre) * factor + shift``, one number of each per statistic: per index of the axes that are not in `axes`.

    x      : plain array
    centre : float64, of the shape of the kept axes; `low` is what its rounding lost
    shift  : only with at most one kept axis
    limits : the least and the largest result
    out    : checked here; may be x
    """
    target = output("out", out, x, (x,))
    if x.size == 0:
        return target.wanted
    kept = tuple(k for k in range(x.ndim) if k not in axes)
    problem = arrange(layout_of(x.ndim, axes, True), (x, target.computed, None, None, None), get_num_threads())

    shape = tuple(x.shape[k] for k in kept)

    def vector(values: Array | None, absent: float) -> Array:
        if len(kept) == 1 and values is not None and _is_vector(values, shape) and not np.may_share_memory(values, target.computed):
            return values
        # np.broadcast_to gives a read-only array, another type to Numba: eight kernels where one will do.
        return in_memory(np.full(shape, absent if values is None else values, np.float64), kept, problem.order)

    tag = None if limits is None else kernels.operands.limits(*limits)
    # Every vector is there, as in training: one kernel serves all. A batch shares its shifts, and one kept axis is no batch.
    gain, no_shift = np.ones(problem.geometry.parameters), np.zeros(problem.geometry.parameters)
    beta = no_shift if shift is None else vector(shift, 0.0)
    passes.apply(problem, vector(centre, 0.0), vector(low, 0.0), vector(factor, 1.0), gain, beta, None, tag)
    problem.finish()
    return target.deliver()


def _is_vector(values: Array, shape: tuple[int, ...]) -> bool:
    """Whether these are numbers as kernels read them; a copy of each takes longer than a few rows of many columns."""
    return (
        type(values) is np.ndarray and values.shape == shape and values.dtype.char == "d" and values.dtype.isnative and values.flags.carray
    )
