"""Learned scale and shift: numbers that a statistic's elements share, or vectors along its elements.

A parameter is None, a plain vector with one number per (c, i // run), or a vector in a tuple of its own: one
number for every element of a run, in the compute dtype. (A tuple, because Numba takes 1 us to unpack a named one.)
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import variant
from fastnorm.element.storage import cut


def is_per_element(parameter: Any) -> bool:
    return isinstance(parameter, types.BaseTuple)


def number_of(parameter, index, absent):
    """The number that the elements of one statistic share: `absent` if there is none."""
    raise NotImplementedError


@variant(number_of)
def _number_of(parameter: Any, index: Any, absent: Any) -> Any:
    if isinstance(parameter, types.Array):
        return lambda parameter, index, absent: float(parameter[index])
    return lambda parameter, index, absent: absent


def gain_of(parameter, start, n):
    """The scales of the n elements from `start` on, or None where they share one."""
    raise NotImplementedError


@variant(gain_of)
def _gain_of(parameter: Any, start: Any, n: Any) -> Any:
    if is_per_element(parameter):
        return lambda parameter, start, n: cut(parameter[0], start, n)
    return lambda parameter, start, n: None


def shift_of(parameter, shared, start, n):
    """The shifts of the n elements from `start` on, or the one they share."""
    raise NotImplementedError


@variant(shift_of)
def _shift_of(parameter: Any, shared: Any, start: Any, n: Any) -> Any:
    if is_per_element(parameter):
        return lambda parameter, shared, start, n: cut(parameter[0], start, n)
    return lambda parameter, shared, start, n: shared


def gain_at(parameter, index):
    """The scale of one row of columns, or None."""
    raise NotImplementedError


@variant(gain_at)
def _gain_at(parameter: Any, index: Any) -> Any:
    if is_per_element(parameter):
        return lambda parameter, index: parameter[0][index]
    return lambda parameter, index: None


def shifts_at(parameter, vector, index):
    """The shift of one row of columns, or those of the columns."""
    raise NotImplementedError


@variant(shifts_at)
def _shifts_at(parameter: Any, vector: Any, index: Any) -> Any:
    if is_per_element(parameter):
        return lambda parameter, vector, index: parameter[0][index]
    return lambda parameter, vector, index: vector


def only_without(operand, other):
    """The operand if there is no other, else None."""
    raise NotImplementedError


@variant(only_without)
def _only_without(operand: Any, other: Any) -> Any:
    return (lambda operand, other: operand) if other is types.none else (lambda operand, other: None)


def only_with(operand, other):
    """The operand if there is the other, else None."""
    raise NotImplementedError


@variant(only_with)
def _only_with(operand: Any, other: Any) -> Any:
    return (lambda operand, other: None) if other is types.none else (lambda operand, other: operand)


def either(operand, other):
    """The operand, or the other if there is none."""
    raise NotImplementedError


@variant(either)
def _either(operand: Any, other: Any) -> Any:
    return (lambda operand, other: other) if operand is types.none else (lambda operand, other: operand)
