"""Seconds, dealt to rows so that a run ends in time."""

from __future__ import annotations

from math import prod
from pathlib import Path
from time import perf_counter

from bench.rows import Row
from bench.shapes import SHAPES

MOST_S, LEAST_S = 2.0, 0.05
"""Of timing, for one row."""
_ROW_S, _COMPILED_S, _BYTES_PER_S = 0.03, {"torch-compile": 1.0, "jax": 0.15}, 3e9
_CALLS = 8
"""Of every provider, at least: check, warm-up, turns."""
_PRIOR_S, _MOST_FACTOR = 10.0, 4.0
"""How much the guess weighs against the first rows, in which libraries start, and how wrong it can be."""
_ARRAYS = 15
"""As large as x: inputs, output, copies and results of ten peers. 1 GB in training: 15.7 GB at most."""
_OFFSETS = 8
"""Of a row about accuracy, at most."""


def is_timed(row: Row) -> bool:
    return not row.name.startswith(("accuracy/", "memory/"))


def nbytes(row: Row) -> int:
    """Of x, before it is made; a sparse x is much smaller."""
    sizes = {"float64": 8, "float32": 4, "uint8": 1}
    return prod(SHAPES[row.key.shape]) * sizes.get(row.key.dtype, 2) // (50 if row.key.layout == "CSR" else 1)


def fits(row: Row) -> bool:
    """Whether the memory that is free now holds the row's arrays."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return True
    return _ARRAYS * nbytes(row) < free


def effort(row: Row) -> float:
    """Seconds of everything but timing, roughly: a guess to be corrected by those of the rows before."""
    compiled = sum(_COMPILED_S.get(library, 0.0) for library in row.providers)
    moved = nbytes(row) * _CALLS * len(row.providers) / _BYTES_PER_S
    return _ROW_S + compiled + moved * (1 if is_timed(row) else _OFFSETS)


class Clock:
    """Without a limit the timing alone is budgeted, in equal shares. With one, arrays, references and compilation count too:
    they are expected to take as much longer than `effort` as they did so far, and a row that would end too late is left out.
    """

    def __init__(self, rows: list[Row], budget_s: float, limit_s: float | None = None) -> None:
        timed = sum(map(is_timed, rows))
        self._each_s = min(MOST_S, budget_s / max(1, timed))
        self._end = None if limit_s is None else perf_counter() + limit_s
        self._left, self._left_s = timed, sum(map(effort, rows))
        self._guessed, self._spent = _PRIOR_S, _PRIOR_S
        self._began, self._dealt = 0.0, 0.0

    def begin(self, row: Row) -> float | None:
        """Seconds of timing for the row, or None if there is no time left for it."""
        self._began = perf_counter()
        self._dealt = self._each_s if is_timed(row) else 0.0
        if self._end is None:
            return self._each_s
        factor = min(_MOST_FACTOR, self._spent / self._guessed)
        left = self._end - self._began
        if factor * effort(row) + (LEAST_S if is_timed(row) else 0.0) > left:
            return self.leave(row)
        spare = (left - factor * self._left_s) / max(1, self._left)
        self._dealt = min(MOST_S, max(LEAST_S, spare)) if is_timed(row) else 0.0
        return self._dealt

    def end(self, row: Row) -> None:
        self._spent += max(0.0, perf_counter() - self._began - self._dealt)
        self._guessed += effort(row)
        self.leave(row)

    def leave(self, row: Row) -> None:
        """It is not among those that remain."""
        self._left -= is_timed(row)
        self._left_s -= effort(row)
