"""The number of threads of the process, and who may run a parallel kernel now."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastnorm.runtime import forks, threading_layer
from fastnorm.runtime.interrupts import deferred


def _limit() -> int:
    """Threads that Numba can use in this process; known before Numba is imported."""
    numba = sys.modules.get("numba")
    if numba is not None and hasattr(numba, "config"):
        return int(numba.config.NUMBA_NUM_THREADS)
    stated = os.environ.get("NUMBA_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _initial() -> int:
    stated = os.environ.get("FASTNORM_NUM_THREADS", "")
    return min(int(stated), _limit()) if stated.isdigit() and int(stated) > 0 else _limit()


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


_number = _initial()
_cores_at_import = _cores()
_started = False
_one_at_a_time = threading.Lock()
_forked = False


def _after_fork_in_child() -> None:
    """The lock may have been held by a thread that does not exist here."""
    global _one_at_a_time, _forked
    _one_at_a_time = threading.Lock()
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def get_num_threads() -> int:
    """Number of threads that a large call uses."""
    return _number


def set_num_threads(n: int) -> None:
    """Set the number of threads for the whole process.

    Parameters
    ----------
    n : int
        At least 1. More than the machine offers means all of them.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1.

    Examples
    --------
    >>> import fastnorm as fn
    >>> fn.set_num_threads(1)
    >>> fn.get_num_threads()
    1
    """
    global _number
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an integer, got {type(n).__name__}; pass a number of threads such as 2")
    n = n.__index__()
    if n < 1:
        raise ValueError(f"n is {n} but at least one thread is needed; pass 1 for serial kernels")
    _number = min(n, _limit())


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set the number of threads inside a ``with`` block, for the whole process."""
    global _number
    before = _number
    set_num_threads(n)
    try:
        yield
    finally:
        _number = before


def run(serial: Callable[..., Any], parallel: Callable[..., Any], worthwhile: bool, *arguments: Any) -> None:
    """Call the parallel driver where it pays and is safe, else the serial one: the bits are the same."""
    if not worthwhile or _number == 1:
        serial(*arguments)
        return
    layer = threading_layer.current()
    if (layer == "omp" and _forked) or (layer == "tbb" and forks.workers_lost()):  # GNU OpenMP kills a child that launches a region
        serial(*arguments)
    elif layer == "workqueue":  # aborts the process on concurrent calls
        lock = _one_at_a_time
        if not lock.acquire(blocking=False):
            serial(*arguments)
            return
        try:
            _run_parallel(parallel, arguments)
        finally:
            lock.release()
    else:
        _run_parallel(parallel, arguments)


def _run_parallel(parallel: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Numba keeps a number of threads per Python thread; the caller finds his as he left it.

    Not inside the driver: Numba's jitted setter makes a function that the disk cache refuses.
    """
    global _started
    import numba

    if not _started:
        _started = True
        with deferred(), _all_cores():
            _run_parallel(parallel, arguments)
        return
    forks.note_user()
    before = numba.get_num_threads()
    if before == _number:
        parallel(*arguments)
        return
    try:
        numba.set_num_threads(_number)
        parallel(*arguments)
    finally:
        numba.set_num_threads(before)


@contextmanager
def _all_cores() -> Iterator[None]:
    """Start the workers with the cores that the process had when fastnorm was imported.

    With OMP_PROC_BIND an OpenMP library pins the thread that imports it to one core, and a worker
    inherits the pin of the thread that starts it: two threads of ours then shared a core, at half the speed.
    """
    now = _cores()
    if now == _cores_at_import:
        yield
        return
    os.sched_setaffinity(0, _cores_at_import)
    try:
        yield
    finally:
        os.sched_setaffinity(0, now)
