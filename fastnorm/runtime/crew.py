"""The worker threads of the process.

Why not one of Numba's threading layers: a launch of TBB's takes 5 to 15 us more than the work while its workers are awake, so that
two threads were no faster than one below 500 KB; a child forked next to them could not use them; GNU OpenMP kills forked
children and workqueue aborts on concurrent calls. Here a worker that is awake begins 0.2 us after it is called. It stays awake for
PATIENCE_NS after its last work, then waits on a lock. Who finds the workers busy works alone, with the same bits.

The memory that callers and workers share, in words of 8 bytes (`kernels.dealing` reads and writes it with atomic instructions):

    OPEN     number of the job * 2^16 + threads that may take part in it, the caller included; 0 of them while no job is open
    INSIDE   workers that may touch the job
    BUSY     1 while a caller has the crew
    THREADS  that may take part in the next job
    SIZE     of the crew
    CODE, ARGUMENTS, FAILED   of the job
    ASLEEP   a word per thread, 1 while the worker waits on its lock
    SHARES   a cache line per thread: the next chunk of its share, and the end of it
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from time import perf_counter_ns

import numpy as np

from fastnorm.runtime.interrupts import deferred

LINE = 64  # bytes of a cache line
OPEN, INSIDE, BUSY, THREADS, SIZE = 0, LINE, 2 * LINE, 2 * LINE + 8, 2 * LINE + 16
CODE, ARGUMENTS, FAILED, ASLEEP = 3 * LINE, 3 * LINE + 8, 4 * LINE, 5 * LINE

DESCRIPTION = "own workers: they begin at once, also in forked children; one parallel call at a time, others run serially"
PATIENCE_NS = 200_000
# Waking a worker costs the caller 3 us or more, and the worker comes 10 to 50 us later: a lonely call of fewer elements is done before.
HEAVY = 1 << 19
SOON_NS = 300_000

attend: Callable[[int, int, int], None] | None = None  # set by kernels.dealing, which needs Numba


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


class _Worker:
    def __init__(self, crew: Crew, number: int) -> None:
        self.bell = _thread.allocate_lock()
        self.bell.acquire()
        self.thread = threading.Thread(target=self._serve, args=(crew, number), name=f"fastnorm-{number}", daemon=True)
        self.thread.start()

    def _serve(self, crew: Crew, number: int) -> None:
        assert attend is not None
        while not crew.closed:
            attend(crew.address, number, crew.patience)
            self.bell.acquire()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # rung twice
            self.bell.release()


class Crew:
    """Workers 1 to size - 1; the caller of a job is number 0."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.closed = False
        asleep = -(-8 * size // LINE) * LINE
        memory = np.zeros(ASLEEP + asleep + size * LINE + LINE, np.uint8)
        start = -memory.ctypes.data % LINE
        self.address = memory.ctypes.data + start
        words = memory[start : start + ASLEEP + asleep].view(np.int64)
        self._words, self._asleep = memoryview(words), memoryview(words[ASLEEP // 8 :])
        self._words[SIZE // 8] = size
        self._workers: list[_Worker] = []
        self._called = 0
        self.patience = self._measured_patience()

    def _measured_patience(self) -> int:
        """Turns of a worker's waiting loop in PATIENCE_NS."""
        assert attend is not None
        attend(self.address, 0, 1)
        began = perf_counter_ns()
        attend(self.address, 0, 1000)
        return max(1000, 1000 * PATIENCE_NS // max(1, perf_counter_ns() - began))

    def called(self, threads: int, heavy: bool) -> int:
        """Address for a driver that `threads` may take part in; the workers are awake, or waking up.

        heavy : whether the work is worth waking them. If not, they wake only for the second of two calls in a row.
        """
        threads = min(threads, self.size)
        if len(self._workers) < threads - 1:
            with _all_cores():
                while len(self._workers) < threads - 1:
                    self._workers.append(_Worker(self, len(self._workers) + 1))
        if any(self._asleep[1:threads]):
            now = perf_counter_ns()
            soon, self._called = now - self._called < SOON_NS, now
            if not (heavy or soon):
                return 0
            for number in range(1, threads):
                if self._asleep[number]:
                    self._asleep[number] = 0
                    self._workers[number - 1].ring()
        self._words[THREADS // 8] = threads
        return self.address

    def close(self) -> None:
        self.closed = True
        for worker in self._workers:
            worker.ring()
        for worker in self._workers:
            worker.thread.join(1.0)


_crew: Crew | None = None
_hiring = threading.Lock()
_ended = False


def called(threads: int, limit: int, heavy: bool) -> int:
    """Address of the crew for a driver, 0 if it has to work alone.

    threads : that may take part
    limit   : of the process
    """
    global _crew
    if _crew is None or len(_crew._workers) < min(threads, _crew.size) - 1:
        with deferred(), _hiring:
            if _ended:
                return 0
            try:
                if _crew is None:
                    _crew = Crew(limit)
                return _crew.called(threads, heavy)
            except RuntimeError:  # no more threads: of this process, or at the end of the interpreter
                return 0
    return _crew.called(threads, heavy)


def _forget() -> None:
    """A forked child has none of the threads."""
    global _crew, _hiring
    _crew, _hiring = None, threading.Lock()


def _end() -> None:
    global _crew, _ended
    with _hiring:
        _ended = True
        if _crew is not None:
            _crew.close()
            _crew = None


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
