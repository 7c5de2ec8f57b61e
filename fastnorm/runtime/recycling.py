"""Results in the memory of results that are garbage: a large fresh array costs more page faults than its kernel takes."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The C library keeps smaller blocks by itself.
SMALLEST = 1 << 17
_ALIGNMENT = 64


class _Block:
    """Memory that starts at a multiple of 64 bytes."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._memory = np.empty(n_bytes + _ALIGNMENT, np.uint8)
        address = self._memory.ctypes.data
        self.interface = {"version": 3, "shape": (n_bytes,), "typestr": "|u1", "data": (address + -address % _ALIGNMENT, False)}


class _Lease:
    """What a result and all its views refer to; without any of them left the block goes back."""

    __slots__ = ("__array_interface__", "_block", "_give_back")

    def __init__(self, block: _Block, give_back: Callable[[_Block], None]) -> None:
        self._block, self._give_back = block, give_back
        self.__array_interface__ = block.interface

    def __del__(self) -> None:
        self._give_back(self._block)


class _Recycler(AbstractContextManager["_Recycler"]):
    """Blocks that no result refers to, the newest last, of `free_bytes` together, at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._free: list[_Block] = []
        self.free_bytes = 0
        self._returned: deque[_Block] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> _Recycler:
        global _active
        with _activation:
            _entered.append(self)
            _active = self
        return self

    def __exit__(self, *error: object) -> None:
        global _active
        with _activation:
            position = len(_entered) - 1 - _entered[::-1].index(self)
            del _entered[position]
            _active = _entered[-1] if _entered else None
        self._tidy()

    def give_back(self, block: _Block) -> None:
        """Called by the garbage collector: in any thread, in the middle of anything, also of `take`."""
        self._returned.append(block)
        self._tidy()

    def _tidy(self) -> None:
        """Never waits for the lock: whoever holds it looks again after he has released it."""
        while self._lock.acquire(blocking=False):
            try:
                self._sort_in()
            finally:
                self._lock.release()
            if not self._returned:
                return

    def _sort_in(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._free.append(block)
            self.free_bytes += block.n_bytes
        limit = self._max_bytes if self in _entered else 0
        while self.free_bytes > limit:
            self.free_bytes -= self._free.pop(0).n_bytes

    def take(self, n_bytes: int) -> _Block:
        size = _rounded(n_bytes)
        found = None
        if self._lock.acquire(blocking=False):
            try:
                for position in range(len(self._free) - 1, -1, -1):
                    if self._free[position].n_bytes == size:
                        found = self._free.pop(position)
                        self.free_bytes -= size
                        break
            finally:
                self._lock.release()
        if self._returned:
            self._tidy()
        return found or _Block(size)

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any], strides: Sequence[int] | None, n_bytes: int) -> Array:
        lease = _Lease(self.take(n_bytes), self.give_back)
        return np.ndarray(shape, dtype, np.asarray(lease), strides=strides)


_active: _Recycler | None = None
_entered: list[_Recycler] = []
_activation = threading.Lock()


def _rounded(n_bytes: int) -> int:
    """Up to an eighth of a power of two, so that results of nearly the same size share blocks."""
    step = max(4096, 1 << max(0, n_bytes.bit_length() - 4))
    return -(-n_bytes // step) * step


def recycle_outputs(max_bytes: int) -> AbstractContextManager[Any]:
    """Let large results reuse the memory of results that are garbage, inside a ``with`` block.

    A loop that makes a large new result in every step otherwise pays for its page faults in every step, which
    takes longer than the normalization. A result keeps its memory as long as anything refers to it, also a view,
    a slice, or another library's tensor of the same memory; also after the block has ended.

    Parameters
    ----------
    max_bytes : int
        The most memory to keep for further results while no result uses it; the oldest is freed first.

    Returns
    -------
    context manager
        For the whole process: calls of other threads take part too. Blocks may be nested; the innermost counts.

    Raises
    ------
    TypeError, ValueError
        If `max_bytes` is not an integer of at least 0.

    Notes
    -----
    Results of less than 128 KB are made as always. Recycled ones start at a multiple of 64 bytes.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.ones((64, 1024, 8), np.float32)
    >>> with fn.recycle_outputs(1 << 30):
    ...     places = {fn.layer_norm(x).ctypes.data for step in range(5)}
    >>> len(places)
    1
    """
    if isinstance(max_bytes, bool) or not hasattr(max_bytes, "__index__"):
        raise TypeError(f"max_bytes must be an integer, got {type(max_bytes).__name__}; pass a number of bytes such as 1 << 30")
    if max_bytes.__index__() < 0:
        raise ValueError(f"max_bytes is {max_bytes} but must be at least 0; pass a number of bytes such as 1 << 30")
    return _Recycler(max_bytes.__index__())


def is_active() -> bool:
    return _active is not None


def empty(shape: Sequence[int], dtype: np.dtype[Any], strides: Sequence[int] | None = None) -> Array:
    """An array of any content. strides : a permutation of those of a C-contiguous array, or None for those."""
    recycler = _active
    if recycler is not None:
        n_bytes = dtype.itemsize
        for n in shape:
            n_bytes *= n
        if n_bytes >= SMALLEST:
            return recycler.empty(shape, dtype, strides, n_bytes)
    return np.empty(shape, dtype) if strides is None else np.ndarray(shape, dtype, strides=strides)


def empty_like(model: Array, dtype: np.dtype[Any]) -> Array:
    """As ``np.empty_like``: in the memory order of the model."""
    if model.flags.c_contiguous:
        return empty(model.shape, dtype)
    fresh = np.empty_like(model, dtype, subok=False)
    return fresh if _active is None else empty(model.shape, dtype, fresh.strides)


def _after_fork_in_child() -> None:
    """Locks may be held by threads that do not exist here."""
    global _activation
    _activation = threading.Lock()
    for recycler in _entered:
        recycler._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
