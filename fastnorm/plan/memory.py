"""Storage of an array as kernels see it: a flat carrier and the place of element (b, o, c, i) in it."""

from __future__ import annotations

import itertools
import math
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
    repeated: bool = False  # every run is one element


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
    repeated: bool

    def view(self, array: NDArray[Any]) -> View:
        address = array.__array_interface__["data"][0] + self.lowest
        carrier = np.asarray(_Bytes(array, address, self.items, self.typestr))
        return View(carrier, self.kind, self.strided, self.swapped, self.row, self.repeated)


def form_of(array: NDArray[Any], steps: Steps, sizes: Steps, plain: bool, repeated: bool = False) -> Form:
    """Present arrays to the kernels without copying them: as they are, or as bytes.

    steps    : bytes along b, o, c, i
    repeated : present runs as one element each, if arrays are `plain`
    """
    lowest = sum(min(0, step * (size - 1)) for step, size in zip(steps, sizes, strict=True))
    highest = sum(max(0, step * (size - 1)) for step, size in zip(steps, sizes, strict=True)) + array.itemsize
    scale = array.itemsize if plain else 1
    b, o, c, i = (step // scale for step in steps)
    row = (-lowest // scale, b, o, c, i)
    typestr = raw_type(array.dtype) if plain else "|u1"
    kind, swapped = kind_of(array.dtype), not array.dtype.isnative
    return Form(lowest, (highest - lowest) // scale, typestr, kind, not plain, swapped, row, plain and repeated)


def lent(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous array that kernels only read, as if it could be written."""
    return np.asarray(_Bytes(array, array.__array_interface__["data"][0], array.size, array.dtype.str))


# Of what is copied at once from one order of memory to another: its lines stay in L2 until all of their elements have been met.
_BLOCK_BYTES = 1 << 17
_LINE_BYTES = 64


def copy_to(target: NDArray[Any], source: NDArray[Any]) -> None:
    """``np.copyto``, and in blocks where the two lie in memory in different orders: 26 MB of (32, 64, 56, 56) from Fortran to C order in 12
    instead of 66 ms, back in 13 instead of 20, (8192, 1024) in 13 instead of 39 (a Zen 4)."""
    blocks = _blocks(source.shape, source.itemsize, source.strides, target.strides)
    for start in itertools.product(*(range(0, size, step) for size, step in zip(source.shape, blocks, strict=True))):
        piece = tuple(slice(first, first + step) for first, step in zip(start, blocks, strict=True))
        np.copyto(target[piece], source[piece], casting="same_kind")


def contiguous(array: NDArray[Any]) -> NDArray[Any]:
    """``np.ascontiguousarray`` by `copy_to`."""
    if array.flags.c_contiguous:
        return array
    copy = np.empty(array.shape, array.dtype)
    copy_to(copy, array)
    return copy


def _blocks(shape: tuple[int, ...], item: int, source: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
    """How much of every axis is copied at once. Axes far apart in the source are cut first, to meet few of its pages, but one that is
    contiguous in the target into whole lines. source, target : strides"""
    axes = sorted((k for k, size in enumerate(shape) if size > 1), key=lambda k: -abs(source[k]))
    blocks = [max(1, size) for size in shape]
    if not axes:
        return blocks
    across = min(axes, key=lambda k: abs(target[k]))
    if across == axes[-1]:
        return blocks
    n_bytes = math.prod(blocks) * item
    for k in axes[:-1]:
        others = n_bytes // blocks[k]
        least = _LINE_BYTES // item if k == across else 1
        blocks[k] = min(blocks[k], max(1, least, _BLOCK_BYTES // others))
        n_bytes = others * blocks[k]
    return blocks


def pieces(length: int, total: int, most: int) -> list[slice]:
    """Slices of an axis: of its `length` indices, together `total` large (in bytes or elements), as many as make `most`."""
    step = max(1, most * length // max(1, total))
    return [slice(start, start + step) for start in range(0, length, step)]
