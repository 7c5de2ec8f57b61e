"""What layer and RMS norm share: statistics over chosen axes, parameters along them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm.plan.geometry import KEPT, REDUCED, collapse
from fastnorm.plan.intake import as_array, is_float, normalize_axes
from fastnorm.plan.problem import Layout, Operands, Problem, arrange
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]


class Rows(NamedTuple):
    """Axes of x: which are kept, which are normalized over, and in which order arrays are presented to the plan."""

    kept_shape: tuple[int, ...]
    shape: tuple[int, ...]  # of the normalized axes, in the order of x, and of their parameters
    order: tuple[int, ...] | None  # None: as they are
    kept: tuple[int, ...]  # of the presented arrays
    reduced: tuple[int, ...]
    forward: Layout
    backward: Layout

    def present(self, *operands: Array | None) -> Operands:
        if self.order is None:
            return operands
        return tuple(None if a is None else a.transpose(self.order) for a in operands)

    def plan(self, layout: Layout, *operands: Array | None) -> Problem:
        return arrange(layout, self.present(*operands), get_num_threads())

    def in_order(self, problem: Problem) -> bool:
        """Whether statistics and parameters lie in memory as in x."""
        return self.order is None and _in_order(_positions(problem.order, self.kept)) and _in_order(_positions(problem.order, self.reduced))

    def last_axis(self, x: Array) -> bool:
        """Whether what is normalized over is the last axis of x alone."""
        return self.shape == x.shape[-1:] and self.kept_shape == x.shape[:-1]

    def statistic(self, problem: Problem, flat: Array) -> Array:
        """From the order of memory to that of x."""
        return _from_memory(flat, self.kept_shape, _positions(problem.order, self.kept))

    def flat_statistic(self, problem: Problem, values: Array) -> Array:
        return _to_memory(values, _positions(problem.order, self.kept))

    def parameter(self, problem: Problem, flat: Array) -> Array:
        return _from_memory(flat, self.shape, _positions(problem.order, self.reduced))

    def flat_parameter(self, problem: Problem, values: Array | None) -> Array | None:
        return None if values is None else _to_memory(values, _positions(problem.order, self.reduced))


def _positions(order: Sequence[int], axes: tuple[int, ...]) -> list[int]:
    """Of the given axes: which comes first in memory, as numbers among them."""
    return [axes.index(k) for k in order if k in axes]


def _in_order(positions: list[int]) -> bool:
    return positions == sorted(positions)


def _to_memory(values: Array, positions: list[int]) -> Array:
    return values.reshape(-1) if _in_order(positions) else values.transpose(positions).reshape(-1)


def _from_memory(flat: Array, shape: tuple[int, ...], positions: list[int]) -> Array:
    if _in_order(positions):
        return flat.reshape(shape)
    return np.ascontiguousarray(flat.reshape([shape[k] for k in positions]).transpose(np.argsort(positions)))


@lru_cache(maxsize=1024)
def _rows(shape: tuple[int, ...], axes: tuple[int, ...]) -> Rows:
    kept = tuple(k for k in range(len(shape)) if k not in axes)
    sizes = (tuple(shape[k] for k in kept), tuple(shape[k] for k in axes))
    labels, order = tuple(REDUCED if k in axes else KEPT for k in range(len(shape))), None
    reduced = axes
    steps = [prod(shape[k + 1 :]) for k in range(len(shape))]
    if collapse(labels, shape, [steps]) is None:  # kept and normalized axes alternate too often: the kept ones in front
        order = (*kept, *axes)
        labels = tuple(sorted(labels))
        kept, reduced = tuple(range(len(kept))), tuple(range(len(kept), len(shape)))
    shared: dict[str, Any] = {"labels": labels, "two_phases": True, "batched": True, "per_element": True}
    return Rows(*sizes, order, kept, reduced, Layout(**shared), Layout(**shared, accumulates=True))


def rows_of(x: Array, axis: Any) -> Rows:
    """Raises AxisError, TypeError, ValueError."""
    axes = tuple(sorted(normalize_axes(axis, x.ndim)))
    if not axes:
        raise ValueError(f"axis is {axis!r}, which names no dimension of x; pass the axes to normalize over, for example -1")
    return _rows(x.shape, axes)


def parameter(name: str, value: Any, shape: tuple[int, ...]) -> Array | None:
    """Learned scale or shift of the shape of the normalized axes. Raises TypeError, ValueError."""
    if value is None:
        return None
    array = as_array(name, value)
    if not is_float(array.dtype) and isinstance(value, np.ndarray):
        raise TypeError(f"{name} has dtype {array.dtype}; pass an array of a float dtype")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape} but the normalized axes of x have {shape}; pass an array of that shape or None")
    return array


def statistic(name: str, value: Any, shape: tuple[int, ...], source: str) -> NDArray[np.float64]:
    """Statistics of a forward pass, as float64. Raises TypeError, ValueError."""
    if value is None:
        raise TypeError(f"{name} must be an array; pass what {source} returned")
    array = as_array(name, value)
    if not is_float(array.dtype) and isinstance(value, np.ndarray):
        raise TypeError(f"{name} has dtype {array.dtype}; pass what {source} returned")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape} but the statistics of x have {shape}; pass what {source} returned")
    return np.ascontiguousarray(array, np.float64)
