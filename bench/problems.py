"""One problem: the arrays that every provider of a row receives, and the traffic that it cannot avoid."""

from __future__ import annotations

import zlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bench.environment import cache_bytes
from bench.shapes import GROUPS, SHAPES

CACHE_LINE = 64


class Key(NamedTuple):
    """What makes two rows share arrays and reference."""

    operation: str
    shape: str
    layout: str
    dtype: str
    source: str = "random"
    offset: float = 0.5


AVERAGES = ("mean", "var", "nanmean", "nanvar")
"""Of a plain array; the layout says over which axes."""
_AXES = {"axis0": 0, "axis1": 1, "all": None}
SCALERS = ("standard", "minmax", "maxabs")
_STORED_BYTES = 4 + 4
"""Of an element of a sparse matrix: float32, and its column as int32."""

REPEATED, _BLOCK_ELEMENTS = "repeated", 1 << 22
"""A source of numbers: a random block, repeated along axis 0, for arrays of gigabytes. Statistics over axis 0 are those of the block,
rows are its rows, so the reference is that of the block."""

_shared: dict[Hashable, np.ndarray] = {}
"""The last x: rows of other operations on the same numbers stand next to each other, and a large x takes seconds."""


class UnsupportedError(Exception):
    """A provider has no such operation, layout or dtype; the text says which."""


def dtype_of(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise UnsupportedError("ml_dtypes is not installed") from None
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


@dataclass
class Problem:
    """Arrays are made at first use and are the same for all providers; `out` is shared as well."""

    key: Key
    groups: int = field(init=False)

    def __post_init__(self) -> None:
        self.groups = self.channels if self.operation.startswith("instance") else min(GROUPS, self.channels)

    @property
    def operation(self) -> str:
        return self.key.operation

    @property
    def rowwise(self) -> bool:
        """Layer and RMS norm: statistics of a row, parameters of its columns."""
        return "layer" in self.operation or "rms" in self.operation

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """N C H W; rows, features; or numbers: before the layout."""
        return SHAPES[self.key.shape]

    @property
    def channels(self) -> int:
        return prod(self.dims[1:2])

    @cached_property
    def shape(self) -> tuple[int, ...]:
        if self.key.layout != "NHWC":
            return self.dims
        n, c, *space = self.dims
        return (n, *space, c)

    @property
    def axis(self) -> int:
        """Of the channels, or for layer and RMS norm what is normalized over: in two dimensions the same."""
        return len(self.shape) - 1 if self.key.layout == "NHWC" else 1

    @property
    def reduced(self) -> int | None:
        """The argument `axis` of an average."""
        return _AXES[self.key.layout]

    @property
    def sparse(self) -> bool:
        return self.key.layout == "CSR"

    @property
    def writes(self) -> bool:
        """Whether there is a result as large as x."""
        return self.operation not in ("mean_var", *AVERAGES) and not self.operation.endswith("_fit")

    @property
    def expansion(self) -> int:
        """Bytes of the result per byte of x."""
        return 4 // self.dtype.itemsize if self.operation == "normalize_images" else 1

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        return dtype_of(self.key.dtype)

    @property
    def eps(self) -> float:
        """A scaler has none."""
        return 0.0 if self.operation == "standardize" else 1e-5

    @cached_property
    def repeats(self) -> int:
        """Of the block along axis 0; 1 if all numbers are different."""
        if self.key.source != REPEATED:
            return 1
        return max(1, self.elements // _BLOCK_ELEMENTS)

    @cached_property
    def block(self) -> Problem:
        """Its arrays, repeated, are those of this problem."""
        block = Problem(self.key._replace(source="random"))
        block.dims = (self.dims[0] // self.repeats, *self.dims[1:])
        return block

    def _random(self, what: str, offset: float) -> np.ndarray:
        if self.repeats > 1:
            array = self.block._random(what, offset)
            return np.tile(array, (self.repeats, *[1] * (array.ndim - 1)))
        rng = np.random.default_rng(zlib.crc32(f"{self.key.shape} {what}".encode()))
        array = rng.standard_normal(self.shape, dtype=np.float32)
        array += np.float32(offset)
        if self.key.source == "gaps":
            array.ravel()[rng.integers(0, array.size, array.size // 100)] = np.nan
        return array.astype(self.dtype, copy=False)

    @cached_property
    def x(self) -> np.ndarray:
        """Shared with the next problem that asks for the same."""
        wanted = (self.key._replace(operation="", layout=""), self.shape)
        if wanted not in _shared:
            _shared.clear()  # first: there may not be memory for two
            _shared[wanted] = self._make_x()
        return _shared[wanted]

    @cached_property
    def csr(self) -> Any:
        """x of a sparse row, SciPy's array: as many elements in every row, spread evenly, 1 % of them."""
        from scipy import sparse

        rows, columns = self.dims
        gap = 100
        rng = np.random.default_rng(zlib.crc32(self.key.shape.encode()))
        places = np.arange(0, columns, gap, dtype=np.int32) + rng.integers(0, gap, (rows, columns // gap), dtype=np.int32)
        values = rng.standard_normal(places.size, dtype=np.float32) + np.float32(self.key.offset)
        starts = np.arange(0, places.size + 1, columns // gap, dtype=np.int32)
        return sparse.csr_array((values.astype(self.dtype, copy=False), places.ravel(), starts), self.dims)

    def _make_x(self) -> np.ndarray:
        if self.key.source in ("random", "gaps", REPEATED):
            return self._random("x", self.key.offset)
        from bench import images

        planes = images.load(self.key.source, self.dims)
        return np.ascontiguousarray(np.moveaxis(planes, 1, self.axis)).astype(self.dtype, copy=False)

    @cached_property
    def dy(self) -> np.ndarray:
        return self._random("dy", 0.0)

    @cached_property
    def residual(self) -> np.ndarray:
        return self._random("residual", 0.0)

    @cached_property
    def out(self) -> np.ndarray:
        if self.operation == "normalize_images":
            return np.zeros(self.dims, np.float32)
        return np.zeros(self.shape, self.dtype)

    @cached_property
    def out_sum(self) -> np.ndarray:
        """x + residual of add_layer_norm."""
        return np.zeros(self.shape, self.dtype)

    def _parameter(self, what: str, low: float) -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32(what.encode()))
        return rng.uniform(low, low + 1.0, self.channels).astype(np.float64 if self.dtype == np.float64 else np.float32)

    @cached_property
    def gamma(self) -> np.ndarray:
        return self._parameter("gamma", 0.5)

    @cached_property
    def beta(self) -> np.ndarray:
        return self._parameter("beta", -0.5)

    @cached_property
    def reference(self) -> dict[str, np.ndarray]:
        """Of the float64 oracle; of a block if it repeats, but for sums over all of them."""
        from bench import oracle

        if self.repeats == 1:
            return oracle.reference(self)
        return {name: array * self.repeats if name in ("dgamma", "dbeta") else array for name, array in self.block.reference.items()}

    @cached_property
    def mean(self) -> np.ndarray:
        return self._statistic("mean")

    @cached_property
    def var(self) -> np.ndarray:
        return self._statistic("var")

    @cached_property
    def rstd(self) -> np.ndarray:
        return self._statistic("rstd")

    def _statistic(self, name: str) -> np.ndarray:
        """float64, in the shape that the library returns it in, so that backward does not depend on a forward."""
        per_sample = self.operation.startswith(("group", "instance"))
        values = np.tile(self.reference[name].ravel(), self.repeats if per_sample or self.rowwise else 1)
        return values.reshape((self.dims[0], self.groups) if per_sample else -1)

    @property
    def elements(self) -> int:
        return prod(self.dims)

    @property
    def nbytes(self) -> int:
        """Of x."""
        if self.sparse:
            return int(self.csr.nnz) * _STORED_BYTES
        return self.elements * self.dtype.itemsize

    @cached_property
    def traffic(self) -> int:
        return minimal_traffic(self)


def _statistic_bytes(problem: Problem) -> int:
    """Of one tensor: what must be seen before the first element can be normalized, in whole cache lines."""
    itemsize = problem.dtype.itemsize
    n, c, *space = problem.dims
    if problem.rowwise:
        return c * itemsize
    if problem.operation.startswith(("group", "instance")):
        run = c // problem.groups * itemsize
        if problem.key.layout == "NHWC":
            return prod(space) * max(run, CACHE_LINE)
        return prod(space) * run
    per_row = itemsize * prod(space) if problem.key.layout == "NCHW" else CACHE_LINE
    return (n if problem.key.layout == "NCHW" else n * prod(space)) * per_row


def minimal_traffic(problem: Problem) -> int:
    """Bytes that must cross the border of L2.

    Every result is written once. Every input is read once if it is not scaled by statistics of its own (inference,
    transform, images) or only its statistics are asked for (averages, fit), or if the part of the inputs that one
    statistic needs fits in one core's L2: the second sweep finds it there.
    Otherwise the inputs are read twice. With the channel innermost a statistic's elements come in cache lines, so a
    statistic needs a line of every row (which is shared with its neighbours). add_layer_norm writes two results.
    Of a sparse matrix values and columns are read, and a result has both.
    """
    operation = problem.operation
    n_inputs = 2 if operation.endswith("backward") or operation.startswith("add") else 1
    n_outputs = 2 if operation == "add_layer_norm" else problem.expansion if problem.writes else 0
    one_sweep = not problem.writes or operation in ("inference", "normalize_images") or operation.endswith("scaler_transform")
    sweeps = 1 if one_sweep or n_inputs * _statistic_bytes(problem) <= cache_bytes(2, 1 << 20) else 2
    return (n_inputs * sweeps + n_outputs) * problem.nbytes
