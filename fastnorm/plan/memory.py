"""Storage of an array as kernels see it: a flat carrier and the place of element (b, o, c, i) in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm.plan.intake import is_bfloat16

Steps = tuple[int, int, int, int]


class _Bytes:
    """Memory that belongs to another array, as NumPy's array interface describes it.

    Kernels never write to their sources; a read-only array would be a type of its own to Numba and
    double what has to be compiled, so it is presented as writable.
    """

    def __init__(self, owner: NDArray[Any], address: int, count: int, typestr: str) -> None:
        self.owner = owner
        self.__array_interface__ = {"data": (address, False), "shape": (count,), "typestr": typestr, "version": 3}


class View(NamedTuple):
    """carrier: plain array, or bytes when `strided`; row: start and four steps, in its items."""

    carrier: NDArray[Any]
    kind: str  # "f4", "f8", "half", "bfloat16", or the integer's own
    strided: bool
    swapped: bool
    row: tuple[int, int, int, int, int]


def kind_of(dtype: np.dtype[Any]) -> str:
    if is_bfloat16(dtype):
        return "bfloat16"
    return "half" if dtype.kind == "f" and dtype.itemsize == 2 else f"{dtype.kind}{dtype.itemsize}"


def raw_type(dtype: np.dtype[Any]) -> str:
    """Type string of the bits in memory, native order."""
    if kind_of(dtype) in ("half", "bfloat16"):
        return "u2"
    return dtype.newbyteorder("=").str


def is_aligned(array: NDArray[Any], steps: Steps) -> bool:
    """Whether every element is aligned and of native byte order."""
    address = array.__array_interface__["data"][0]
    return array.dtype.isnative and all(number % array.itemsize == 0 for number in (address, *steps))


def is_plain(array: NDArray[Any], steps: Steps, sizes: Steps, unit: int) -> bool:
    """Whether runs of an array are contiguous, aligned and of native byte order. Arguments as of `form_of`."""
    return is_aligned(array, steps) and (steps[unit] == array.itemsize or sizes[unit] == 1)


class Form(NamedTuple):
    """How arrays of one dtype and strides are presented."""

    lowest: int  # bytes from the first element to the lowest in memory
    items: int
    typestr: str
    kind: str
    strided: bool
    swapped: bool
    row: tuple[int, int, int, int, int]

    def view(self, array: NDArray[Any]) -> View:
        address = array.__array_interface__["data"][0] + self.lowest
        carrier = np.asarray(_Bytes(array, address, self.items, self.typestr))
        return View(carrier, self.kind, self.strided, self.swapped, self.row)


def form_of(array: NDArray[Any], steps: Steps, sizes: Steps, plain: bool) -> Form:
    """Present arrays to the kernels without copying them: as they are, or as bytes.

    steps : bytes along b, o, c, i
    """
    lowest = sum(min(0, step * (size - 1)) for step, size in zip(steps, sizes, strict=True))
    highest = sum(max(0, step * (size - 1)) for step, size in zip(steps, sizes, strict=True)) + array.itemsize
    scale = array.itemsize if plain else 1
    b, o, c, i = (step // scale for step in steps)
    row = (-lowest // scale, b, o, c, i)
    typestr = raw_type(array.dtype) if plain else "|u1"
    return Form(lowest, (highest - lowest) // scale, typestr, kind_of(array.dtype), not plain, not array.dtype.isnative, row)


def lent(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous array that kernels only read, as if it could be written."""
    return np.asarray(_Bytes(array, array.__array_interface__["data"][0], array.size, array.dtype.str))


def pieces(length: int, total: int, most: int) -> list[slice]:
    """Slices of an axis: of its `length` indices, together `total` large (in bytes or elements), as many as make `most`."""
    step = max(1, most * length // max(1, total))
    return [slice(start, start + step) for start in range(0, length, step)]
