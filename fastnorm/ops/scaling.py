"""Elements less a centre, times a factor, plus a shift: what scalers and z-scores apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops import passes
from fastnorm.ops.door import output
from fastnorm.ops.reduction import in_memory, layout_of
from fastnorm.plan.problem import Problem, arrange
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
    problem = arrange(layout_of(x.ndim, axes, True), (x, target.computed, None, None, None), get_num_threads())
    tag = None if limits is None else kernels.operands.limits(*limits)
    mean, rest, spread, gain, beta = _vectors(problem, x, axes, (centre, low, factor, shift), target.computed)
    passes.apply(problem, mean, rest, spread, gain, beta, None, tag)
    problem.finish()
    return target.deliver()


def rescaler(x: Array, axes: tuple[int, ...], centre: Array, factor: Array, out: Array) -> Callable[[Any, Any], None]:
    """``(x - centre) * factor``, as a function of the storages of arrays like x and out, both contiguous."""
    problem = arrange(layout_of(x.ndim, axes, True), (x, out, None, None, None), get_num_threads())
    walk, vectors = passes.apply_pass(problem, None, None), _vectors(problem, x, axes, (centre, None, factor, None), out)
    return lambda src, dst: walk((src, dst, None), *vectors)


def _vectors(problem: Problem, x: Array, axes: tuple[int, ...], numbers: tuple[Array | None, ...], out: Array) -> tuple[Array, ...]:
    """Mean, its low part, spread, gamma, beta, from centre, low, factor, shift. Every one is there, as in training: one kernel for all."""
    kept = tuple(k for k in range(x.ndim) if k not in axes)
    shape = tuple(x.shape[k] for k in kept)

    def vector(values: Array | None, absent: float) -> Array:
        if len(kept) == 1 and values is not None and _is_vector(values, shape) and not np.may_share_memory(values, out):
            return values
        # np.broadcast_to gives a read-only array, another type to Numba: eight kernels where one will do.
        return in_memory(np.full(shape, absent if values is None else values, np.float64), kept, problem.order)

    centre, low, factor, shift = numbers
    # A batch shares its shifts, and one kept axis is no batch.
    gain, no_shift = np.ones(problem.geometry.parameters), np.zeros(problem.geometry.parameters)
    beta = no_shift if shift is None else vector(shift, 0.0)
    return vector(centre, 0.0), vector(low, 0.0), vector(factor, 1.0), gain, beta


def _is_vector(values: Array, shape: tuple[int, ...]) -> bool:
    """Whether these are numbers as kernels read them; a copy of each takes longer than a few rows of many columns."""
    return (
        type(values) is np.ndarray and values.shape == shape and values.dtype.char == "d" and values.dtype.isnative and values.flags.carray
    )
