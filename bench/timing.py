"""Times that can be compared on machines that change their speed while one looks.

Cloud CPUs flip between two states, 1.4 to 1.9 times apart, every second or so. So the providers of a row take short
turns, and what is compared are the times of one turn: the ratio's median and quartiles, never two medians.

A turn begins with calls that do not count: everybody is timed with his own workers awake and his own arrays in cache,
as in a program that uses one library. Without them the 3 MB of a (32, 7, 7, 512) tensor came from wherever the last
provider had left them, and its workers still spun: 0.48 ms of ours became 0.80, 0.44 of PyTorch's 0.61.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import get_native_id
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from bench import environment

Call = Callable[[], Any]

SMALL_S = 2e-3
"""Shorter calls are timed in batches that last at least this long."""
WARM_S = 5e-3
"""Shorter calls are preceded by calls that do not count."""
_WARM_CALLS = 3
NOISY = 0.25
"""Inter-quartile range of a ratio, relative to its median, above which the row says nothing certain."""
_SETTLE_S, _RESTLESS_S = 200e-6, 0.2
"""So long nobody else may run before a call is timed; others are waited for, but not for ever."""
_RUNNING, _THREADS = Path("/proc/loadavg"), Path("/proc/self/task")
_LEAST, _MOST = 4, 60


class Spread(NamedTuple):
    median: float
    low: float
    high: float

    @property
    def even(self) -> bool:
        """Of a ratio: whether the spread does not tell who is faster."""
        return not (self.low > 1.0 or self.high < 1.0)

    @property
    def noisy(self) -> bool:
        return not (self.high - self.low) <= NOISY * abs(self.median)


@dataclass
class Samples:
    """Seconds per call, one row per turn; NaN where a slow provider sat a turn out."""

    names: list[str]
    seconds: np.ndarray

    def of(self, name: str) -> np.ndarray:
        return self.seconds[:, self.names.index(name)]

    def time(self, name: str) -> Spread:
        return spread(self.of(name))

    def ratio(self, name: str, base: str) -> Spread:
        """How many times longer `name` takes than `base`."""
        return paired_ratio(self.of(name), self.of(base))


def spread(values: np.ndarray) -> Spread:
    values = values[~np.isnan(values)]
    if not values.size:
        return Spread(math.nan, math.nan, math.nan)
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high))


def paired_ratio(numerator: np.ndarray, denominator: np.ndarray) -> Spread:
    """Of samples taken in the same turn; turns that one of the two sat out do not count."""
    return spread(numerator / denominator)


def settle() -> None:
    """Wait, busy so that the core stays awake, until the last provider's workers have stopped, spinning or working.

    XLA gives back what a call needed after the call has returned: 50 ms for the temporary arrays of a `nanmean` of 400 MB, in
    which ours took 55 ms instead of 15. The CPU time of a thread that stays in the kernel shows every 4 ms only; who runs shows at once.
    """
    begin = quiet = perf_counter()
    while (now := perf_counter()) < quiet + _SETTLE_S and now < begin + _RESTLESS_S:
        if _others_run():
            quiet = perf_counter()


def _others_run() -> bool:
    """Whether another thread of this process runs or wants to (Linux; elsewhere nobody is said to).

    Asked of the machine first, which takes 5 us: of a hundred threads it takes half a millisecond.
    """
    try:
        if _RUNNING.read_text().split()[3].startswith("1/"):
            return False
        states = {int(task.name): (task / "stat").read_text().rpartition(") ")[2][:1] for task in _THREADS.iterdir()}
    except OSError:  # no such files, or a thread that has just ended
        return False
    return any(state in "RD" for thread, state in states.items() if thread != get_native_id())


def timed(call: Call, repeats: int, before: Call | None = None, warm: int = 0) -> float:
    """Seconds per call. `before` is called first and not timed, nor are the calls of `warm`."""
    if before is not None:
        before()
    settle()
    for _ in range(warm):
        call()
    start = perf_counter()
    for _ in range(repeats):
        call()
    return (perf_counter() - start) / repeats


class Plan(NamedTuple):
    warm: int  # calls before a batch
    repeats: int  # calls in a batch
    stride: int  # takes part in every stride-th turn


def make_plans(first: dict[str, float], budget_s: float) -> tuple[dict[str, Plan], int]:
    """Share `budget_s` evenly: a provider too slow for every turn sits turns out. Returns plans and number of turns.

    first: seconds of one call of each.
    """
    repeats = {name: max(1, math.ceil(SMALL_S / max(t, 1e-7))) for name, t in first.items()}
    warm = {name: _WARM_CALLS if t < WARM_S else 0 for name, t in first.items()}
    share = budget_s / len(first)
    counts = {name: min(_MOST, max(_LEAST, int(share / (t * (warm[name] + repeats[name]) + _SETTLE_S)))) for name, t in first.items()}
    turns = max(counts.values())
    return {name: Plan(warm[name], repeats[name], _stride(turns, counts[name])) for name in first}, turns


def _stride(turns: int, count: int) -> int:
    """A power of two: two who sit turns out, every 7th and every 9th, would meet in one turn of sixty. At least _LEAST turns are left."""
    wanted = max(1, turns // count)
    most = max(1, (turns - 1) // (_LEAST - 1))
    return 1 << min((wanted - 1).bit_length(), most.bit_length() - 1)


def measure(calls: dict[str, Call], budget_s: float, before: Call | None = None) -> Samples:
    """Time the calls in turns, for about `budget_s` seconds; `before` precedes each.

    The first of a turn changes from turn to turn: otherwise one provider always finds the caches as the same other left them.

    This thread stays on the first core, as OpenMP wants it, whose workers are pinned to the others (OMP_PROC_BIND): wherever the system had
    put it beside one, oneDNN took 40 to 130 us for 3 to 8.
    """
    with environment.some_cores(1):
        return _measured(calls, budget_s, before)


def _measured(calls: dict[str, Call], budget_s: float, before: Call | None) -> Samples:
    names = list(calls)
    first = {name: timed(calls[name], 1, before) for name in names}  # warm: the check has called it before
    plans, turns = make_plans(first, budget_s)
    seconds = np.full((turns, len(names)), np.nan)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(turns):
            for place in range(len(names)):
                column = (turn + place) % len(names)
                plan = plans[names[column]]
                if turn % plan.stride == 0:
                    seconds[turn, column] = timed(calls[names[column]], plan.repeats, before, plan.warm)
    finally:
        if collecting:
            gc.enable()
    return Samples(names, seconds)
