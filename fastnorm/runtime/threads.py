"""The number of threads of the process, and who may run a parallel kernel now."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fastnorm.runtime import crew
from fastnorm.runtime.environment import stated_number
from fastnorm.runtime.machine import CORES
from fastnorm.runtime.team import borrowed


def _limit() -> int:
    """Threads that this process can use; known before Numba is imported.

    What Numba has been told counts. What it has counted itself are the cores of the thread that imported it, which is at our first call.
    """
    stated = os.environ.get("NUMBA_NUM_THREADS", "")
    config = getattr(sys.modules.get("numba"), "config", None)
    if config is None:
        return int(stated) if stated.isdecimal() and int(stated) > 0 else CORES
    number = int(config.NUMBA_NUM_THREADS)
    return max(number, CORES) if not stated and number == config.NUMBA_DEFAULT_NUM_THREADS else number


def _initial() -> int:
    return min(stated_number("FASTNORM_NUM_THREADS", 1, _limit()), _limit())


_number = _initial()


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


def crew_for(elements: int) -> int:
    """What the first argument of a driver has to be for work on so many elements."""
    wanted, team = borrowed.threads, borrowed.crew
    number = min(_number, wanted) if wanted else _number
    if number == 1:
        return 0
    if team is not None:
        return team.called(number, heavy=True)
    return crew.called(number, _limit, elements >= crew.HEAVY)
