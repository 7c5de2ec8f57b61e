"""The worker threads of the process.

Why not one of Numba's threading layers: a launch of TBB's takes 5 to 15 us more than the work while its workers are awake, so that
two threads were no faster than one below 500 KB; a child forked next to them could not use them; GNU OpenMP kills forked
children and workqueue aborts on concurrent calls. Here a worker that is awake begins 0.2 us after it is called. It stays awake for
about a millisecond after its last work, giving way to whoever wants its core, then sleeps. Who finds the workers busy works alone,
with the same bits.

The memory that callers and workers share, in words of 8 bytes (`kernels.dealing` reads and writes it with atomic instructions):

    OPEN     number of the job * 2^16 + threads that may take part in it, the caller included; 0 of them while no job is open
    INSIDE   workers that may touch the job
    BUSY     1 while a caller has the crew
    THREADS  that may take part in the next job
    CODE, ARGUMENTS, FAILED   of the job
    TEAM, MEMBERS   address that launches the threads of a guest (`runtime.team`) instead of ours, or 0; how many of them have come
    ENDED    1 when workers that are awake have to leave
    PATIENCE  turns without work before a worker sleeps
    SHARES   a cache line per thread: the next chunk of its share, END of it, ASLEEP, 1 while the worker sleeps: who makes it 0 wakes him,
             MIRROR, what a chunk's number is taken from where the share is worked on from its end, else -1
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import ctypes
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any

import numpy as np

from fastnorm.runtime.environment import stated_number
from fastnorm.runtime.interrupts import deferred

LINE = 64  # bytes of a cache line
OPEN, INSIDE, BUSY, THREADS = 0, LINE, 2 * LINE, 2 * LINE + 8
CODE, ARGUMENTS, FAILED, ENDED, PATIENCE = 3 * LINE, 3 * LINE + 8, 4 * LINE, 5 * LINE, 5 * LINE + 8
TEAM, MEMBERS, SHARES = 5 * LINE + 16, 6 * LINE, 7 * LINE
END, ASLEEP, MIRROR = 8, 16, 24  # within a share

DESCRIPTION = "own workers: they begin at once, also in forked children; one parallel call at a time, others run serially"
# Turns without work before a worker sleeps: 1 ms on an Intel with AMX. Programs return to us within 0.1 to 1 ms (Python between two
# calls, a product of matrices): training of (16, 512, 4, 4) then took 56 us, and 102 with workers that sleep after 0.08 ms.
# GNU OpenMP's spin for up to 20 ms and give way to nobody.
SPIN_COUNT = 80_000
# Waking a worker costs the caller 3 to 17 us, and the worker comes 10 to 70 us later: a lonely call of fewer elements is done before.
# After 2 to 5 ms of other work, woken and alone: layer norm of 131072 elements 123 and 124 us, of 262144 208 and 238, of 409600
# 275 and 363, each from memory.
HEAVY = 1 << 18
# Longer than the call itself takes alone: with 0.3 ms, calls of 0.4 ms never had a worker.
SOON_NS = 1_500_000


def _patience() -> int:
    return min(stated_number("FASTNORM_SPIN_COUNT", 0, SPIN_COUNT), sys.maxsize)


attend: Any = None  # a driver, set by kernels.dealing: this room does without Numba


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


_cores_at_import = _cores()


@contextlib.contextmanager
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


class Crew:
    """Workers 1 to size - 1; the caller of a job is number 0.

    launch : address that launches a guest's threads instead of workers, or 0
    """

    def __init__(self, size: int, launch: int = 0) -> None:
        self.size = size
        memory = np.zeros(SHARES + size * LINE + LINE, np.uint8)
        start = -memory.ctypes.data % LINE
        self.address = memory.ctypes.data + start
        self._words = memoryview(memory[start : start + SHARES + size * LINE].view(np.int64))
        self._words[PATIENCE // 8], self._words[TEAM // 8] = _patience(), launch
        self._asleep = self._words[(SHARES + ASLEEP) // 8 :: LINE // 8]
        self._workers: list[threading.Thread] = []
        self._called = 0
        # Never freed: workers sleep on it until the very end of the process, and other threads may be in the middle of a call.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))

    def hire(self, threads: int) -> None:
        """Until there are so many threads, the caller included, or as many as the system allows."""
        if not isinstance(_thread.start_new_thread, types.BuiltinFunctionType):
            self.size = 1  # gevent or eventlet has made threads take turns in one: a worker would never give way
            return
        attend.compile("void(int64, int64)")
        with _all_cores():
            for number in range(len(self._workers) + 1, min(threads, self.size)):
                worker = threading.Thread(target=attend, args=(self.address, number), name=f"fastnorm-{number}", daemon=True)
                try:
                    worker.start()
                except RuntimeError:  # no more threads: of this process, or at the end of the interpreter
                    self.size = number
                    return
                self._workers.append(worker)

    def has(self, threads: int) -> bool:
        return len(self._workers) >= min(threads, self.size) - 1

    def called(self, threads: int, heavy: bool) -> int:
        """Address for a driver that `threads` may take part in, who are there; 0 if they had better sleep on.

        heavy : whether the work is worth waking them. If not, they wake only for the second of two calls in a row.
        """
        threads = min(threads, self.size)
        if any(self._asleep[1:threads]):
            now = perf_counter_ns()
            soon, self._called = now - self._called < SOON_NS, now
            if not (heavy or soon):
                return 0
        self._words[THREADS // 8] = threads
        return self.address

    def close(self) -> None:
        """Workers that are awake end; those asleep never wake."""
        self._words[ENDED // 8] = 1
        for number, worker in enumerate(self._workers, 1):
            while worker.is_alive() and not self._asleep[number]:
                worker.join(0.001)


_crew: Crew | None = None
_hiring = threading.Lock()
_ended = False


def called(threads: int, limit: Callable[[], int], heavy: bool) -> int:
    """Address of the crew for a driver, 0 if it has to work alone.

    threads : that may take part
    limit   : of the process; asked once
    """
    crew = _crew
    if crew is None or not crew.has(threads):
        with deferred(), _hiring:
            crew = _hired(threads, limit)
    return 0 if crew is None or _ended else crew.called(threads, heavy)


def _hired(threads: int, limit: Callable[[], int]) -> Crew | None:
    global _crew
    if _ended:
        return None
    if _crew is None:
        _crew = Crew(limit())
    _crew.hire(threads)
    return _crew


def _forget() -> None:
    """A forked child has none of the threads."""
    global _crew, _hiring
    _crew, _hiring = None, threading.Lock()


def _end() -> None:
    global _ended
    with _hiring:
        _ended = True
        if _crew is not None:
            _crew.close()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
