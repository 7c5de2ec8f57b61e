"""Learned scale and shift: numbers that a statistic's elements share, or vectors along its elements.

A parameter is None, a plain vector with one number per (c, i // run), or a vector in a tuple of its own: one
number for every element of a run, in the compute dtype. (A tuple, because Numba takes 1 us to unpack a named one.)
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import variant
from fastnorm.element.lanes import have_lanes, load_lanes, zero_lanes
from fastnorm.element.storage import as_compute, at, cut, is_repeated


def is_per_element(parameter: Any) -> bool:
    return isinstance(parameter, types.BaseTuple)


@variant
def number_of(parameter: Any, index: Any, absent: Any) -> Any:
    """The number that the elements of one statistic share: `absent` if there is none."""
    if isinstance(parameter, types.Array):
        return lambda parameter, index, absent: float(at(parameter, index))
    return lambda parameter, index, absent: absent


@variant
def lanes_at(parameter: Any, index: Any, count: Any, like: Any) -> Any:
    """What `load_lanes` loads of a run, a number in all lanes, or None."""
    if parameter is types.none:
        return lambda parameter, index, count, like: None
    if isinstance(parameter, types.Float):
        return lambda parameter, index, count, like: as_compute(zero_lanes(like), parameter)
    return lambda parameter, index, count, like: load_lanes(parameter, index, count, like)


def are_for_lanes(like: Any, *parameters: Any) -> bool:
    """Whether `lanes_at` has lanes like those of a storage of them all."""
    runs = [parameter for parameter in parameters if parameter is not types.none and not isinstance(parameter, types.Float)]
    return have_lanes(like, *runs) and not any(is_repeated(run) for run in runs)


@variant
def of_elements(parameter: Any) -> Any:
    """The parameter, or None if the elements of a run share a number of it: loops over runs are compiled for nothing else."""
    return (lambda parameter: parameter) if is_per_element(parameter) else (lambda parameter: None)


@variant
def gain_of(parameter: Any, start: Any, n: Any) -> Any:
    """The scales of the n elements from `start` on, or None where they share one."""
    if is_per_element(parameter):
        return lambda parameter, start, n: cut(parameter[0], start, n)
    return lambda parameter, start, n: None


@variant
def shift_of(parameter: Any, shared: Any, start: Any, n: Any) -> Any:
    """The shifts of the n elements from `start` on, or the one they share."""
    if is_per_element(parameter):
        return lambda parameter, shared, start, n: cut(parameter[0], start, n)
    return lambda parameter, shared, start, n: shared


@variant
def gain_at(parameter: Any, index: Any) -> Any:
    """The scale of one row of columns, or None."""
    if is_per_element(parameter):
        return lambda parameter, index: parameter[0][index]
    return lambda parameter, index: None


@variant
def shifts_at(parameter: Any, vector: Any, index: Any) -> Any:
    """The shift of one row of columns, or those of the columns."""
    if is_per_element(parameter):
        return lambda parameter, vector, index: parameter[0][index]
    return lambda parameter, vector, index: vector


@variant
def only_without(operand: Any, other: Any) -> Any:
    """The operand if there is no other, else None."""
    return (lambda operand, other: operand) if other is types.none else (lambda operand, other: None)


@variant
def only_with(operand: Any, other: Any) -> Any:
    """The operand if there is the other, else None."""
    return (lambda operand, other: None) if other is types.none else (lambda operand, other: operand)


@variant
def either(operand: Any, other: Any) -> Any:
    """The operand, or the other if there is none."""
    return (lambda operand, other: other) if operand is types.none else (lambda operand, other: operand)


@variant
def instead_of(parameter: Any, copy: Any) -> Any:
    """The copy of a parameter whose elements have their own, else None."""
    return (lambda parameter, copy: copy) if is_per_element(parameter) else (lambda parameter, copy: None)
