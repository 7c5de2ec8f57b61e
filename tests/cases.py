"""Named shapes and traps."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray

try:
    import ml_dtypes

    BFLOAT16: np.dtype | None = np.dtype(ml_dtypes.bfloat16)
except ImportError:
    BFLOAT16 = None

F2, F4, F8 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
FLOATS = [F4, F8, F2] + ([BFLOAT16] if BFLOAT16 is not None else [])
# Every dtype compiles kernels of its own, at seconds each: one of every kind and size that differs in how it is read.
INTEGERS = [np.dtype(name) for name in ("bool", "uint8", "int16", "int64", "uint64")]


def dtype_of(name: str) -> np.dtype:
    return BFLOAT16 if name == "bfloat16" and BFLOAT16 is not None else np.dtype(name)


class Problem(NamedTuple):
    """A shape and its channel axis."""

    shape: tuple[int, ...]
    axis: int = 1

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    @property
    def per_channel(self) -> int:
        return math.prod(self.shape) // max(self.channels, 1)


LAYOUTS = {
    "NCHW": Problem((4, 3, 7, 7)),
    "NHWC": Problem((4, 7, 7, 3), -1),
    "samples x features": Problem((37, 5)),
    "feature-major": Problem((5, 37), 0),
    "NCL": Problem((3, 4, 11)),
    "NLC": Problem((3, 11, 4), 2),
    "NCDHW": Problem((2, 3, 4, 5, 3)),
    "NDHWC": Problem((2, 4, 5, 3, 3), -1),
    "middle axis": Problem((3, 4, 5, 6), -2),
    "first of four": Problem((5, 2, 3, 4), 0),
    "one channel, planes": Problem((6, 1, 5, 5)),
    "one channel, column": Problem((97, 1)),
    "one sample": Problem((1, 50, 7, 7)),
    "one pixel": Problem((13, 50, 1, 1)),
    "one pixel, channels last": Problem((13, 1, 1, 50), 3),
    "primes": Problem((5, 11, 13, 17)),
    "primes, channels last": Problem((5, 13, 17, 11), -1),
    "one value per channel": Problem((1, 6)),
    "one element": Problem((1, 1)),
}

# Around the borders of tiles (powers of two) and of vector registers.
RUNS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129, 1000, 4095, 4096, 4097, 8191, 8193, 16383, 16384, 16385)
ROWS = (1, 2, 7, 8, 9, 15, 16, 17, 127, 128, 129, 1000)
COLUMNS = (1, 2, 3, 50, 64, 511, 512, 513, 2049)
SMALL_PLANES = (1, 4, 9, 16, 25, 49, 64, 196)

# Enough work for the parallel drivers of every traversal.
LARGE = {
    "large planes": Problem((17, 9, 90, 91)),
    "large channels last": Problem((21_001, 61), -1),
    "tall, three columns": Problem((400_009, 3)),
    "feature-major, long runs": Problem((5, 250_007), 0),
    "small planes, many channels": Problem((29, 800, 7, 7)),
}


def rng_of(*key: int) -> np.random.Generator:
    return np.random.default_rng(list(key))


def sample(problem: Problem, dtype: Any = F4, seed: int = 0, *, offset: float = 1.0, std: float = 1.0) -> Array:
    """C-contiguous data whose every channel has its own mean (offset * std * 1..2, both signs) and std (0.5..2)."""
    dtype = np.dtype(dtype)
    rng = rng_of(*problem.shape, seed)
    if dtype.kind == "b":
        return rng.random(problem.shape) < 0.3
    if dtype.kind in "iu":
        low, high = max(np.iinfo(dtype).min, -1000), min(np.iinfo(dtype).max, 1000)
        return rng.integers(low, high, problem.shape, dtype=dtype, endpoint=True)
    along = [1] * len(problem.shape)
    along[problem.axis] = problem.channels
    spread = std * rng.uniform(0.5, 2.0, along)
    sign = np.where(rng.random(along) < 0.5, -1.0, 1.0)
    center = offset * spread * sign * rng.uniform(0.5, 1.0, along)
    return (center + spread * rng.standard_normal(problem.shape)).astype(dtype)


def parameter(n_channels: int, dtype: Any = F4, seed: int = 1, *, low: float = 0.5, high: float = 1.5) -> Array:
    """Both signs; |value| in [low, high]."""
    rng = rng_of(n_channels, seed)
    sign = np.where(rng.random(n_channels) < 0.3, -1.0, 1.0)
    return (sign * rng.uniform(low, high, n_channels)).astype(dtype)


class Subclass(np.ndarray):
    """An ndarray subclass without behaviour."""


def every_second(a: Array, axis: int) -> Array:
    doubled = list(a.shape)
    doubled[axis] *= 2
    buffer = np.full(doubled, 77, a.dtype)
    index: list[Any] = [slice(None)] * a.ndim
    index[axis] = slice(None, None, 2)
    buffer[tuple(index)] = a
    return buffer[tuple(index)]


def flipped(a: Array, axes: tuple[int, ...] | None = None) -> Array:
    return np.flip(np.ascontiguousarray(np.flip(a, axes)), axes)


def padded(a: Array) -> Array:
    """The inner part of a wider array: rows do not touch."""
    buffer = np.full([n + 3 for n in a.shape], 77, a.dtype)
    inner = buffer[tuple(slice(1, n + 1) for n in a.shape)]
    inner[...] = a
    return inner


def misaligned(a: Array) -> Array:
    memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = np.frombuffer(memory.data, a.dtype).reshape(a.shape)
    view[...] = a
    return view


def big_endian(a: Array) -> Array:
    return a.astype(a.dtype.newbyteorder(">")) if a.dtype.kind != "V" else a


def read_only(a: Array) -> Array:
    a = a.copy()
    a.setflags(write=False)
    return a


def memory_mapped(a: Array) -> Array:
    if not a.size:
        return a
    with tempfile.TemporaryFile() as file:  # the map keeps its own handle
        mapped = np.memmap(file, a.dtype, "w+", shape=a.shape)
    mapped[...] = a
    return mapped


def transposed(a: Array, order: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))


# Each gives an array of the same shape and dtype in unusual memory. "broadcast" ones have fewer distinct values.
VIEWS: dict[str, Callable[[Array], Array]] = {
    "contiguous": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "channels-last memory": lambda a: transposed(a, (0, *range(2, a.ndim), 1)),
    "rolled memory": lambda a: transposed(a, (*range(1, a.ndim), 0)),
    "swapped last axes": lambda a: np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2),
    "every second, axis 0": lambda a: every_second(a, 0),
    "every second, axis 1": lambda a: every_second(a, 1),
    "every second, last axis": lambda a: every_second(a, -1),
    "reversed rows": lambda a: flipped(a, (0,)),
    "reversed axis 1": lambda a: flipped(a, (1,)),
    "negative strides": flipped,
    "inner part": padded,
    "broadcast axis 0": lambda a: np.broadcast_to(a[:1], a.shape),
    "broadcast axis 1": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "broadcast last axis": lambda a: np.broadcast_to(a[..., :1], a.shape),
    "one value": lambda a: np.broadcast_to(a[(0,) * a.ndim], a.shape),
    "misaligned": misaligned,
    "big-endian": big_endian,
    "big-endian, strided": lambda a: every_second(big_endian(a), -1),
    "read-only": read_only,
    "memory-mapped": memory_mapped,
    "subclass": lambda a: a.view(Subclass),
}
WRITABLE_VIEWS = [name for name in VIEWS if not name.startswith(("broadcast", "one value", "read-only"))]
