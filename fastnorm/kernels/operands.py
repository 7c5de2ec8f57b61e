"""Carriers of a plan as storages that kernels are compiled for."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnorm.element.activation import Clip, Gelu, GeluTanh, LeakyRelu, Relu, Silu
from fastnorm.element.reductions import Absolutes, Extrema, Present, Weighted
from fastnorm.element.storage import BFloat16, Half, Repeated, Strided
from fastnorm.plan.memory import View, kind_of

ACTIVATIONS = {
    None: None,
    "relu": Relu(),
    "leaky_relu": LeakyRelu(),
    "silu": Silu(),
    "gelu": Gelu(),
    "gelu_tanh": GeluTanh(),
}
REDUCTIONS = {"weighted": Weighted(), "present": Present(), "extrema": Extrema(), "absolutes": Absolutes()}
_TAGS = {"half": Half, "bfloat16": BFloat16}
_EMPTY = {kind: np.empty(0, kind) for kind in ("f4", "f8", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}


SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def per_element(values: Any, kind: str) -> tuple[Any]:
    """Parameters along the elements of a run, in the dtype that elements of this kind are computed in."""
    with np.errstate(over="ignore"):
        return (np.ascontiguousarray(values, compute_dtype(kind)).reshape(-1),)


def compute_dtype(kind: str) -> np.dtype[Any]:
    return SINGLE if kind in _SINGLE else DOUBLE


_SINGLE = {"f4", "half", "bfloat16"}


def limits(low: float, high: float) -> Clip:
    """In place of an activation."""
    return Clip(float(low), float(high))


def _sample(kind: str) -> Any:
    return _TAGS[kind](_EMPTY["u2"]) if kind in _TAGS else _EMPTY[kind]


def storages(carriers: tuple[Any, ...], unit: int) -> list[Any]:
    """Storage of every operand; contiguous float32 and float64 by the shortest way."""
    return [
        carrier
        if carrier is None
        else carrier.reshape(-1)
        if type(carrier) is np.ndarray and carrier.dtype.char in "fd"
        else storage(carrier, unit)
        for carrier in carriers
    ]


def storage(carrier: Any, unit: int) -> Any:
    """Storage of a contiguous array, or of a view whose runs go along step `unit`; None stays None."""
    if carrier is None:
        return None
    if isinstance(carrier, View):
        if carrier.strided:
            step = carrier.row[1 + unit]
            return Strided(carrier.carrier, carrier.row[0], step, carrier.swapped, _sample(carrier.kind))
        if carrier.repeated:
            return Repeated(storage(carrier._replace(repeated=False), unit))
        flat = carrier.carrier
        kind = carrier.kind
    else:
        flat = carrier.reshape(-1)
        kind = kind_of(carrier.dtype)
    if kind in _TAGS:
        return _TAGS[kind](flat.view(np.uint16))
    return flat
