"""What memory allows, measured in the same run with all threads: a copy with streaming stores, a plain copy, a read.

The roof of a row is the faster of the two copies moving as many bytes as the row must move at least
(`problems.minimal_traffic`); where the result is of a wider type, they write what they read several times.
Its chunks are dealt to the library's workers: those of Numba's OpenMP would spin on the core that the next provider wants.
It takes turns with the row's providers, so that a share is a paired ratio as well.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numba import njit

import fastnorm
from bench.environment import cache_bytes
from bench.timing import timed
from fastnorm.element.bits import fence, stream
from fastnorm.kernels.dealing import deal
from fastnorm.runtime.threads import crew_for

_CHUNK = 1 << 16  # float32: 256 KB, a part of L2
LARGEST = max(128 << 20, min(3 * cache_bytes(3, 0), 1 << 30))
"""Bytes read and written beyond which bandwidth no longer changes: longer copies are extrapolated."""


@njit(boundscheck=False)
def _copy_chunk(source: Any, target: Any, times: int, streaming: bool, chunk: Any) -> None:
    start = chunk * _CHUNK
    run = source[start : min(start + _CHUNK, source.size)]
    for k in range(times):
        at = start * times + k * run.size
        out = target[at : at + run.size]
        if streaming:
            stream(run, out)  # type: ignore[call-arg]
        else:
            for i in range(run.size):
                out[i] = run[i]
    fence()


@njit
def _copy(crew: Any, source: Any, target: Any, times: int, streaming: bool) -> None:
    deal(crew, _copy_chunk, (source.size + _CHUNK - 1) // _CHUNK, (source, target, times, streaming))


@njit(forceinline=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _sum(run: Any) -> Any:
    total = np.float32(0.0)
    for i in range(run.size):
        total += run[i]
    return total


@njit(boundscheck=False)
def _read_chunk(source: Any, totals: Any, chunk: Any) -> None:
    start = chunk * _CHUNK
    totals[chunk] = _sum(source[start : min(start + _CHUNK, source.size)])


@njit
def _read(crew: Any, source: Any, totals: Any) -> None:
    deal(crew, _read_chunk, totals.size, (source, totals))


class Roof(NamedTuple):
    """A call that moves bytes as fast as they can be moved."""

    kind: str
    call: Callable[[], Any]
    scale: float  # the row's bytes per byte moved: times of the call are multiplied by it


class Memory:
    """Buffers of the copies, made once per run; pages are touched before anything is timed."""

    def __init__(self, threads: int) -> None:
        with fastnorm.num_threads(threads):
            self.threads = fastnorm.get_num_threads()
        self._source = np.ones(0, np.float32)
        self._target = self._source.copy()
        self._grow(_CHUNK * 8)
        self.roof(_CHUNK * 8, writes=True)

    def _grow(self, size: int) -> None:
        if size > self._source.size:
            self._source, self._target = np.ones(size, np.float32), np.ones(size, np.float32)

    def calls(self, n_bytes: int, writes: bool, times: int = 1, threads: int | None = None) -> dict[str, Callable[[], Any]]:
        """The kernels moving `n_bytes`: a copy writes `times` as many as it reads. threads : None for all"""
        size = max(1, n_bytes // (4 * (1 + times) if writes else 4))
        self._grow(size * times)
        source, target = self._source[:size], self._target[: size * times]
        totals = np.empty((size + _CHUNK - 1) // _CHUNK, np.float32)
        kernels: dict[str, Callable[[], Any]] = {"read": lambda: _read(crew_for(size), source, totals)}
        if writes:
            kernels = {
                "streaming copy": lambda: _copy(crew_for(size), source, target, times, True),
                "copy": lambda: _copy(crew_for(size), source, target, times, False),
            }
        return {kind: _with_threads(kernel, threads or self.threads) for kind, kernel in kernels.items()}

    def roof(self, n_bytes: int, writes: bool, times: int = 1) -> Roof:
        """The fastest way to move `n_bytes`: small copies stay in the cache, where streaming stores only cost."""
        moved = min(n_bytes, LARGEST)
        calls = self.calls(moved, writes, times)
        for call in calls.values():
            call()
        best = min(calls, key=lambda kind: min(timed(calls[kind], 1) for _ in range(3)))
        return Roof(best, calls[best], n_bytes / moved)

    def bandwidth(self) -> dict[str, float]:
        """GB/s of each kernel on buffers that no cache holds."""
        return self.scaling([self.threads])[self.threads]

    def scaling(self, counts: list[int], most_s: float = 6.0) -> dict[int, dict[str, float]]:
        """The same by number of threads: turns are interleaved, so that a change of the machine's speed hits all.

        most_s : seconds after which no further turn begins
        """
        calls: dict[tuple[int, str], Callable[[], Any]] = {}
        for threads in counts:
            for writes in (True, False):
                calls |= {(threads, kind): call for kind, call in self.calls(LARGEST, writes, threads=threads).items()}
        times: dict[tuple[int, str], list[float]] = {key: [] for key in calls}
        end = perf_counter() + most_s
        for turn in range(8):
            if turn > 1 and perf_counter() > end:
                break
            for key, call in calls.items():
                times[key].append(timed(call, 1))
        return {
            threads: {kind: LARGEST / float(np.median(times[n, kind][1:] or times[n, kind])) / 1e9 for n, kind in calls if n == threads}
            for threads in counts
        }


def thread_counts(most: int) -> list[int]:
    """All up to 8, then powers of two, and the last."""
    return [n for n in range(1, most + 1) if n <= 8 or n & (n - 1) == 0 or n == most]


def _with_threads(kernel: Callable[[], Any], threads: int) -> Callable[[], Any]:
    def call() -> None:
        with fastnorm.num_threads(threads):
            kernel()

    return call
