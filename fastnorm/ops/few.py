"""Calls on few elements, up to four million: after a while a kind of call becomes one compiled function, `kernels.whole`.

`ops.calls` skips checks and plans, and is left with 3 to 10 us of Python around a kernel of 0.5 to 2. Compiling takes up to
a second with an empty cache, so a kind of call has to come again and again first.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops import passes
from fastnorm.plan.problem import Problem
from fastnorm.runtime import recycling, threads
from fastnorm.runtime.threads import crew_for

# Of more, a call takes 1 ms and longer. Between two convolutions Python's code is in no cache, and the little that is left counts: with
# 1 << 18 the norms of a ResNet-18, forward and backward, took 17.6 ms contiguous and 20.8 channels_last, so 16.4 and 20.5.
FEW_ELEMENTS = 1 << 22
# Calls of a kind before it is compiled.
PATIENCE = 16
_MOST = 4096
_compiling = threading.Lock()


def _after_fork_in_child() -> None:
    """The lock may have been held by a thread that does not exist here."""
    global _compiling
    _compiling = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Few:
    """A kind of call: a compiled function and the table of its plan."""

    def __init__(self, x: NDArray[Any], key: Hashable, name: str, problem: Problem) -> None:
        self.shape, self.dtype = x.shape, x.dtype
        self._stats = (4, problem.geometry.statistics)
        self._none = np.empty((4, 0)) if name.startswith("normalize_short") else None
        self._shared = x.size if problem.schedule.parallel else 0
        self._threads = threads._number  # that the plan is for
        self._key, self._name = key, name
        self._plan = (*passes.of_columns(problem), problem.table)
        self._left = PATIENCE
        self._misfits = 0
        self._ready = False
        self._driver: Any = None

    def output(self) -> NDArray[Any]:
        return recycling.empty(self.shape, self.dtype)

    def statistics(self, wanted: bool = True) -> NDArray[np.float64]:
        """wanted : whether anybody looks at them; short rows write none otherwise"""
        return np.empty(self._stats) if wanted or self._none is None else self._none

    def wait(self) -> None:
        """Another call of this kind has gone the usual way."""
        self._left -= 1
        if self._left <= 0:
            room = kernels.whole_gradients if self._name.startswith("backward") else kernels.whole
            self._driver = getattr(room, self._name)
            _known[self._key] = self

    def run(self, arrays: tuple[Any, ...], *others: Any) -> bool:
        """Whether the call was one of this kind and is done; otherwise nothing was written.

        arrays : of the user, or None. others : what the driver takes after them
        """
        for a in arrays:  # a masked array is an array to Numba, and one of the other byte order, once it has seen a misaligned one
            if a is not None and (type(a) is not _ARRAY or not a.dtype.isnative):
                return False
        if not self._ready or self._threads < threads._number or _compiling.locked():
            return self._prepare((*arrays, *others))
        try:
            crew = crew_for(self._shared) if self._shared else 0
            return self._driver(crew, *arrays, *others, *self._plan)  # type: ignore[no-any-return]
        except Exception:  # other types than those it was compiled for; the usual way knows what to do or to say
            return self._misfit((*arrays, *others))

    def _prepare(self, arguments: tuple[Any, ...]) -> bool:
        """Compile, if nobody else does and the plan is not of fewer threads than there are now."""
        if _compiling.locked():
            return False
        if self._threads < threads._number:
            _known.pop(self._key, None)
            _offered.pop(self._key, None)
            return False
        return self._compile(arguments)

    def _misfit(self, arguments: tuple[Any, ...]) -> bool:
        """Types that come again and again, gamma and None in turns, are compiled for as well: an exception takes 0.1 ms."""
        self._misfits += 1
        if self._misfits < PATIENCE and all(_plain(a) for a in arguments):
            return False
        self._misfits = 0
        return self._compile(arguments)

    def _compile(self, arguments: tuple[Any, ...]) -> bool:
        """For plain arrays of these types, and from then on for no others: an array that is read-only is another type."""
        if not all(_plain(a) for a in arguments):
            self._left = PATIENCE
            _known.pop(self._key, None)
            return False
        if not _compiling.acquire(blocking=False):
            return False
        driver = self._driver
        try:
            driver.disable_compile(False)
            done = bool(driver(crew_for(self._shared) if self._shared else 0, *arguments, *self._plan))
            self._ready = True
            return done
        except Exception:  # never again
            self._left = sys.maxsize
            _known.pop(self._key, None)
            return False
        finally:
            if driver.signatures:
                driver.disable_compile()
            _compiling.release()


_ARRAY = np.ndarray
_SCALARS = (float, int, bool)  # other numbers may be equal to these, but nothing is compiled for them
_known: dict[Hashable, Few] = {}
_offered: dict[Hashable, Few] = {}


def _plain(argument: Any) -> bool:
    """Read and written as it is: the compiled function then takes nothing else for it."""
    if type(argument) is not np.ndarray:
        return argument is None or type(argument) in _SCALARS
    return argument.dtype.char in "fd" and argument.dtype.isnative and bool(argument.flags.carray)


def find(x: Any, options: tuple[Any, ...]) -> Few | None:
    """The compiled call of this kind, if there is one."""
    try:
        return _known.get((x.shape, x.dtype, options))
    except (AttributeError, TypeError):  # no array, an option without a hash
        return None


def offer(x: Any, options: tuple[Any, ...], name: str, problem: Problem) -> None:
    """Remember how this kind of call is planned. name : in kernels.whole, or of gradients in kernels.whole_gradients"""
    streams = problem.schedule.stream  # rows would take another driver; and such a call takes half a millisecond
    if x.size >= FEW_ELEMENTS or x.dtype.char not in "fd" or problem.detours or streams:
        return
    if len(_offered) >= _MOST:
        _offered.clear()
        _known.clear()
    key = (x.shape, x.dtype, options)
    with contextlib.suppress(TypeError):  # an option that has no hash
        _offered.setdefault(key, Few(x, key, name, problem))


def offer_walk(x: Any, options: tuple[Any, ...], what: str, problem: Problem) -> None:
    """As `offer`, of what is walked in planes or columns, twice."""
    schedule = problem.schedule
    if schedule.planar and schedule.fused:
        offer(x, options, f"{what}_short_planes" if schedule.planes else f"{what}_planes", problem)
    elif not schedule.planar:
        offer(x, options, f"{what}_columns" if schedule.fused else f"{what}_columns_in_two", problem)


def again(x: Any, options: tuple[Any, ...]) -> None:
    """A call of this kind was remembered and is about to go the usual way."""
    if x.size < FEW_ELEMENTS:
        few = _offered.get((x.shape, x.dtype, options))
        if few is not None:
            few.wait()
