"""The usual averages by the shortest way: the general one takes 25 to 130 us around a kernel of 0.1.

Both give the same bits. None stands for a call that goes the general way: other options and dtypes, NaN and inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops import passes
from fastnorm.ops.launch import Driver, all_finite
from fastnorm.ops.reduction import FEW, QUARTER, begins_with_nan, count_of, in_parts, layout_of, plan
from fastnorm.plan.intake import is_bfloat16, is_float, normalize_axes, result_dtype
from fastnorm.plan.problem import Layout, arrange
from fastnorm.plan.schedule import PARALLEL_ELEMENTS, TILE_BYTES
from fastnorm.plan.table import INNER, MEAN_OF, N_ROWS, NO_RSTD, PROBLEM, SRC, STD_OF, STEP_INNER, TILE, VARIANCE_OF, WIDTH
from fastnorm.runtime import threads

Array = NDArray[Any]
NO_VALUE: Any = np._NoValue

# Flags of NumPy: C-contiguous and aligned; and writable, without which a type is another one to Numba.
_PLAIN, _WRITABLE = 0x0101, 0x0400
_CHARS = "fde?bhilqBHILQ"
_LONGEST_RUN = 1 << 40
# Elements beyond which 100 us do not count, but reading again what turned out to hold a NaN does; and beyond which the first are looked at.
_MOST_ELEMENTS, _MANY = 1 << 21, 1 << 18
# Statistics that are looked through for NaN.
_MOST_STATISTICS = 1 << 20
_MOST_WALKS = 4096
_LEAST_DDOF = -(1 << 53)  # beyond, not all integers are float64
_PIECE = 1 << 16


class _Completion(NamedTuple):
    """Of averages over slices some of which hold NaN."""

    present: Callable[[Any, Any], Array]  # of `passes.reduction_pass`
    fill: Driver


class _Walk(NamedTuple):
    """Over some axes of arrays of one shape, dtype and memory."""

    moments: Callable[[Any], Array]
    averages: Callable[[Any, int, float, float], passes.Averages]
    complete: Callable[[], _Completion]
    extremes: Callable[[], Callable[[Any, Any], Array]]  # of `passes.reduction_pass`
    storage: Callable[[Array], Any]  # of an array, for them
    sizes: tuple[int, ...] | None  # of the kept axes as they lie in memory, where that is not the order of the result
    back: tuple[int, ...]
    kept: tuple[int, ...]
    full: tuple[int, ...]  # with the dimensions reduced over
    length: int
    dtype: np.dtype[Any]  # of the result


_readers: dict[str, tuple[Callable[..., Any], Array]] = {}
_walks: dict[Any, _Walk | None] = {}


def quick_mean(a: Any, axis: Any, out: Any = None, keepdims: Any = NO_VALUE, omit: bool = False) -> Any:
    """omit : whether NaN are left out"""
    if axis is None:
        whole = _moments_of_all(a, omit)
        if whole is not None:
            return _scalar(a, whole[0], out, keepdims)
        if not omit:
            return None
    return _average(a, axis, MEAN_OF, 0, out, keepdims, omit)


def quick_var(a: Any, axis: Any, ddof: Any, root: bool = False, out: Any = None, keepdims: Any = NO_VALUE, omit: bool = False) -> Any:
    if type(ddof) is not int or ddof < _LEAST_DDOF:
        return None
    if axis is None:
        whole = _moments_of_all(a, omit)
        if whole is not None and ddof < a.size:
            value = whole[1] if ddof == 0 else whole[1] * a.size / (a.size - ddof)
            return _scalar(a, math.sqrt(value) if root else value, out, keepdims)
        if not omit:
            return None
    return _average(a, axis, STD_OF if root else VARIANCE_OF, ddof, out, keepdims, omit)


def quick_mean_var(a: Any, axis: Any, ddof: Any) -> tuple[Any, Any] | None:
    """Both in float64."""
    if type(ddof) is not int or ddof < _LEAST_DDOF:
        return None
    if axis is None:
        whole = _moments_of_all(a, False)
        if whole is None or ddof >= a.size:
            return None
        return np.float64(whole[0]), np.float64(whole[1] * a.size / (a.size - ddof))
    walk = _walk_along(a, axis, False)
    if walk is None or ddof >= walk.length:
        return None
    mean, _, var, _ = walk.moments(walk.storage(a))
    if not (all_finite(mean) or _settled(a, mean, False)):
        return None
    var = var * walk.length / (walk.length - ddof)  # as the general way has it, also without ddof
    if walk.sizes is not None:
        mean, var = (row.reshape(walk.sizes).transpose(walk.back) for row in (mean, var))
    return mean.reshape(walk.kept)[()], var.reshape(walk.kept)[()]


class Batch(NamedTuple):
    """Of finite numbers."""

    shape: tuple[int, ...]  # of the kept axes
    elements: int  # of every statistic
    stats: Array  # of `kernels.moments`
    bounds: Array  # of `Extrema` of `kernels.reduce`


def quick_batch(a: Any, axis: Any) -> Batch | None:
    walk = _walk_along(a, axis, True)
    if walk is None or walk.sizes is not None:
        return None
    src = walk.storage(a)
    stats = walk.moments(src)
    return Batch(walk.kept, walk.length, stats, walk.extremes()(src, None)) if all_finite(stats[0]) else None


def _scalar(a: Array, value: float, out: Any, keepdims: Any) -> Any:
    if out is None and keepdims is NO_VALUE:
        return np.float32(value) if a.dtype.char == "f" else result_dtype(a.dtype).type(value)
    return _deliver(np.array(value), a, (), (1,) * a.ndim, out, keepdims)


def _average(a: Any, axis: Any, what: int, ddof: int, out: Any, keepdims: Any, omit: bool) -> Any:
    walk = _walk_along(a, axis, omit)
    if walk is None or ddof >= walk.length:
        return None
    times, by = (1.0, 1.0) if ddof == 0 else (float(walk.length), float(walk.length - ddof))
    src = walk.storage(a)
    values, finite = walk.averages(src, what, times, by)
    if not (finite or _settled(a, values, omit) or (omit and _completed(a, walk, src, values, what, ddof))):
        return None
    if walk.sizes is not None:
        values = values.reshape(walk.sizes).transpose(walk.back).reshape(-1)
    return _result(a, values if values.dtype is walk.dtype else values.astype(walk.dtype), walk, out, keepdims)


def _completed(a: Array, walk: _Walk, src: Any, values: Array, what: int, ddof: int) -> bool:
    """Fill in what is NaN from what is not; False where that is too little, or infinite, or where the general way copies a few slices."""
    if a.size > _MANY and len(walk.kept) == 1 and np.count_nonzero(values != values) * FEW <= values.size:
        return False
    completion = walk.complete()
    return completion.fill(values, completion.present(src, None), what, ddof) == 0  # type: ignore[no-any-return]


def _result(a: Array, values: Array, walk: _Walk, out: Any, keepdims: Any) -> Any:
    if out is not None or keepdims is not NO_VALUE:
        return _deliver(values, a, walk.kept, walk.full, out, keepdims)
    return values if len(walk.kept) == 1 else values.reshape(walk.kept)[()]


def _deliver(values: Array, a: Array, kept: tuple[int, ...], full: tuple[int, ...], out: Any, keepdims: Any) -> Any:
    """To an output like NumPy's, with all dimensions or without."""
    if keepdims is not NO_VALUE and type(keepdims) is not bool:
        return None
    shape = full if keepdims is True else kept
    if out is None:
        return values.astype(result_dtype(a.dtype)).reshape(shape)[()]
    if type(out) is not np.ndarray or out.shape != shape or out.dtype != result_dtype(a.dtype) or not out.flags.writeable:
        return None
    np.copyto(out, values.reshape(shape), casting="same_kind")
    return out


def _settled(a: Array, values: Array, omit: bool) -> bool:
    """Whether these, not all finite, are the results: NaN where an element is. Of an infinite element sums of differences make NaN, too."""
    return not (omit or np.isinf(values).any() or _goes_far(a))


def _goes_far(a: Array) -> bool:
    """Whether an element is infinite, or so large that a difference of two may be. In pieces, as NumPy makes a number of every element."""
    if not is_float(a.dtype):
        return False
    flat = a.reshape(-1) if a.flags.c_contiguous else a
    pieces = (flat[k : k + _PIECE] for k in range(0, len(flat), _PIECE))
    if a.dtype.char == "e":  # `isinf` of a million halves takes 2.4 ms
        return any((piece.view(np.uint16) & 0x7FFF == 0x7C00).any() for piece in pieces)
    single = is_bfloat16(a.dtype)
    far = np.finfo(np.float32 if single else a.dtype).max * QUARTER
    return any((np.abs(piece.astype(np.float32) if single else piece) > far).any() for piece in pieces)


def _moments_of_all(a: Any, omit: bool) -> tuple[float, float] | None:
    """Mean and variance of all elements."""
    if type(a) is not np.ndarray:
        return None
    dtype = a.dtype
    if dtype.char in "fd" and dtype.isnative and a.flags.num & _PLAIN == _PLAIN and 0 < a.size < PARALLEL_ELEMENTS:
        entry, table = _readers.get(dtype.char) or _make_reader(dtype.char)
        mean, var = entry(a if a.ndim == 1 else a.reshape(-1), table)
    else:
        walk = _walk_along(a, None, omit)
        if walk is None:
            return None
        mean, _, var, _ = walk.moments(walk.storage(a))[:, 0].tolist()
    if mean - mean == 0.0 or not (omit or _goes_far(a)):
        return mean, var
    return None


def _make_reader(char: str) -> tuple[Callable[..., Any], Array]:
    """The compiled function itself, as Numba finds the types of the arguments anew in every call, and its table."""
    sample = np.zeros(1, char)
    table = np.zeros((N_ROWS, WIDTH), np.int64)
    table[PROBLEM, INNER], table[PROBLEM, TILE], table[SRC, STEP_INNER] = _LONGEST_RUN, TILE_BYTES // sample.itemsize, 1
    driver = kernels.small.moments_of_few
    driver(sample, table)
    entry = driver.overloads[(driver.typeof_pyval(sample), driver.typeof_pyval(table))].entry_point
    _readers[char] = entry, table
    return entry, table


def _walk_along(a: Any, axis: Any, omit: bool) -> _Walk | None:
    """Remembered by shape, dtype and memory of the array."""
    if type(a) is not np.ndarray or not (type(axis) is int or axis is None or _are_axes(axis)):
        return None
    dtype, flags = a.dtype, a.flags.num & (_PLAIN | _WRITABLE)
    if not (dtype.char in _CHARS or is_bfloat16(dtype)) or not dtype.isnative or not 0 < a.size <= _MOST_ELEMENTS:
        return None
    if omit and a.size > _MANY and is_float(dtype) and begins_with_nan(a):
        return None
    key = (a.shape, dtype.char, axis, threads._number, flags, None if flags & _PLAIN == _PLAIN else a.strides)
    try:
        return _walks[key]
    except KeyError:
        walk = _make_walk(a, axis)
    if len(_walks) >= _MOST_WALKS:
        _walks.clear()
    _walks[key] = walk
    return walk


def _are_axes(axis: Any) -> bool:
    """Whether it is a tuple of nothing but integers: 1.0 and True would be found under the key of 1."""
    if type(axis) is not tuple or not axis:
        return False
    return all(type(k) is int for k in axis)


def _make_walk(a: Array, axis: Any) -> _Walk | None:
    axes = normalize_axes(axis, a.ndim, "a")
    kept = tuple(n for k, n in enumerate(a.shape) if k not in axes)
    if math.prod(kept) > _MOST_STATISTICS or in_parts(a, axes):
        return None
    walk = plan(a, axes, None)
    if walk.turned is not None and not a.flags.c_contiguous:
        return None
    if walk.turned is not None:
        storage = _storage_of_turned(passes.flattener(a), walk.turned)
    elif a.flags.carray:
        storage = passes.flattener(a)
    else:
        storage = _storage_of_any(layout_of(a.ndim, axes), threads.get_num_threads())
    sizes = None if walk.sizes == kept and sorted(walk.back) == list(walk.back) else walk.sizes
    full = tuple(1 if k in axes else n for k, n in enumerate(a.shape))
    # In float64 what is rounded to 16 bits, as in the general way.
    problem = walk.problem.bare()
    averages = passes.averages_pass(problem, np.float32 if a.dtype.char == "f" else np.float64)
    complete = cache(lambda: _Completion(passes.reduction_pass(problem, "present"), Driver(kernels.reduce, "complete_averages")))
    extremes = cache(lambda: passes.reduction_pass(problem, "extrema"))
    moments = passes.moments_pass(problem, NO_RSTD, 0)
    return _Walk(moments, averages, complete, extremes, storage, sizes, walk.back, kept, full, count_of(a, axes), result_dtype(a.dtype))


def _storage_of_turned(flatten: Callable[[Any], Any], turned: tuple[int, ...]) -> Callable[[Array], Any]:
    return lambda a: flatten(a.transpose(turned))


def _storage_of_any(layout: Layout, n_threads: int) -> Callable[[Array], Any]:
    """Of arrays that are read where they lie."""
    return lambda a: passes.storages(arrange(layout, (a, None, None, None, None), n_threads))[0]
