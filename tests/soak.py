"""Drawn calls from many threads for a long time, with flat memory: ``python tests/soak.py --minutes 10``.

Every thread draws the calls of the fuzz tests, checked against the oracle, calls with junk, and a large call of
parallel kernels, whose bits must not change. Memory is read after garbage collection.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from fuzz_values import CHECKS
from strategies import CALLS, at_random, spoiled

import fastnorm as fn

# Their checks change what belongs to the whole process: the number of threads, the filters of warnings.
ALONE = {"set_num_threads", "zscore"}
VALUES = [name for name in CHECKS if name not in ALONE]
JUNK = [name for name in CALLS if name not in ALONE]
REFUSALS = (ValueError, TypeError, MemoryError, KeyError)
SEEDS = 2000  # drawn calls come back: the plans that are kept for them are bounded anyway


def resident_mb() -> float:
    """Memory of this process; where no /proc tells it, the most that it ever had."""
    gc.collect()
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


class Soak:
    """Threads at work until told to stop; `errors` is what went wrong, `calls` how many there were."""

    def __init__(self, n_threads: int, only: list[str] | None = None) -> None:
        self.values, self.junk = only or VALUES, [] if only else JUNK
        self.stop = threading.Event()
        self.errors: list[str] = []
        self.counts = [0] * n_threads
        self.large = np.random.default_rng(0).standard_normal((8, 16, 33, 31)).astype(np.float32)
        self.expected = fn.batch_norm_train(self.large).y
        self.threads = [threading.Thread(target=self.work, args=(k,), daemon=True) for k in range(n_threads)]

    @property
    def calls(self) -> int:
        return sum(self.counts)

    def work(self, thread: int) -> None:
        order = np.random.default_rng(thread)
        for n in itertools.count():
            if self.stop.is_set():
                return
            seed = int(order.integers(SEEDS))
            try:
                self.one(at_random(seed), n)
            except BaseException as error:
                self.errors.append(f"thread {thread}, seed {seed}, {error!r}")
                return
            self.counts[thread] += 1

    def one(self, c, n: int) -> None:
        if n % 16 == 0 and not np.array_equal(fn.batch_norm_train(self.large).y, self.expected):
            raise AssertionError("parallel kernels gave other bits")
        if n % 2 or not self.junk:
            CHECKS[c.one(self.values)](c)
            return
        call = spoiled(c, c.one(self.junk))
        with contextlib.suppress(*REFUSALS):
            call.function(**call.arguments)

    def run(self, seconds: float, every: float) -> list[float]:
        """Resident memory in MB, at the beginning, now and then, and at the end."""
        for thread in self.threads:
            thread.start()
        end, memory = time.monotonic() + seconds, []
        while time.monotonic() < end and not self.errors:
            time.sleep(min(every, max(0.0, end - time.monotonic())))
            memory.append(resident_mb())
            print(f"{self.calls:>9} calls  {memory[-1]:8.1f} MB", flush=True)
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self.threads), "a thread hangs"
        return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--tolerate-mb", type=float, default=20.0, help="growth after the first fifth, in which plans and code are made")
    parser.add_argument("--only", nargs="+", choices=VALUES, help="these calls, and no junk")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    soak = Soak(options.threads, options.only)
    seconds = 60 * options.minutes
    memory = soak.run(seconds, seconds / 20)
    if soak.errors:
        raise SystemExit("\n".join(soak.errors))
    settled = memory[len(memory) // 5 :]
    growth = settled[-1] - settled[0]
    print(f"{soak.calls} calls, {memory[0]:.1f} MB at first, {settled[0]:.1f} MB when settled, {settled[-1]:.1f} MB at the end")
    if growth > options.tolerate_mb:
        raise SystemExit(f"memory has grown by {growth:.1f} MB")


if __name__ == "__main__":
    main()
