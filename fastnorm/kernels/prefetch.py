"""Asking for memory before it is needed: what rows read next, and the lines that they are about to write.

A store that misses waits in the same queue as the loads. With the lines of the output asked for while the moments are summed,
layer norm of (65536, 256) went from 1.72 to 1.2 times a copy, of (16384, 768) from 1.31 to 1.0; with both, its backward from
1.44 to 1.22 times an addition of two arrays, and inference of 102 MB of columns from 1.5 to 1.0 copies (Intel, two cores).

A Zen's own prefetchers see rows coming; there it cost 5 to 30 % of layer norm from L3, 10 to 20 % of its backward.
"""

from __future__ import annotations

from typing import Any

from fastnorm._jit import loop, variant
from fastnorm.element.lanes import are_registers
from fastnorm.element.storage import bytes_of, fetch, fetch_for_later, fetch_to_write
from fastnorm.kernels.scratch import PAGE_BYTES
from fastnorm.runtime.machine import prefetching_pays

# Of the processor that code is compiled for, whose name is a part of every key of the disk cache.
PAYS = prefetching_pays()

# Elements of a piece of a row, between which the next are fetched: reading and writing at once is what memory does best.
PIECE = 256
# Elements of the output that are fetched ahead. Whole rows of 16 KB took 1.31 times a copy, not fetched at all 1.15, so 1.1.
AHEAD = 512
# Elements ahead of stores that bypass the caches, of what is read once: inference of 103 MB took 6.1 instead of 7.5 ms in planes, and 6.9
# instead of 7.0 to 8.6 in columns, whose next row was fetched into L1 before; of 26 MB as long as before (Emerald Rapids). A Zen had 0.78
# to 1.03 of its speed.
BESIDE_STREAMS = 4096 if PAYS else None
# Elements of a cache line of float32; of float64 every other line is fetched, and the rest by the CPU itself.
LINE = 16


# Elements of a row of columns up to which the next one is fetched: rows of 8 KB with their parameters are more than L1 holds,
# and took 1.5 times as long.
SHORT_ROW = 1024


@loop
def are_pages_apart(storage, step):
    """Whether elements `step` apart lie in the same lines of their pages, so in the same set of L1."""
    return bytes_of(storage, step) % PAGE_BYTES == 0


@variant
def fetches_rows(storage: Any, ahead: Any, step: Any) -> Any:
    """Whether rows `step` apart, some of which are read side by side, are fetched meanwhile.

    Not whole pages apart, without AVX-512: variances of 1024 and 2048 columns, 6 to 51 MB, took 1.2 to 1.6 times as long so, training 1.06
    to 1.2, backward 0.93 to 1.15; without it those of 64, 1040 and 2064 1.03 to 1.3 (Zen 3).
    """
    if are_registers():
        return lambda storage, ahead, step: ahead
    return lambda storage, ahead, step: ahead and not are_pages_apart(storage, step)


@loop
def fetch_run(storage, place, n):
    if PAYS:
        fetch_run_anyway(storage, place, n)


@loop
def fetch_run_anyway(storage, place, n):
    """Beside stores that bypass the caches it pays everywhere: rows of 4096 took 13 instead of 16 ms (268 MB, Zen 4)."""
    for i in range(place, place + n, LINE):
        fetch(storage, i)


@loop
def fetch_run_later(storage, place, n):
    """Into L2, whatever the processor."""
    for i in range(place, place + n, LINE):
        fetch_for_later(storage, i)


@loop
def fetch_page_later(storage, place, n):
    """As many elements as n that lie 4 KB further into L2, every line of them."""
    if PAYS:
        line = 64 // bytes_of(storage, 1)
        for i in range(place + 64 * line, place + 64 * line + n, line):
            fetch_for_later(storage, i)


@loop
def fetch_run_to_write(storage, place, begin, end):
    """Elements begin to end of the run at `place`."""
    if PAYS:
        for i in range(place + begin, place + end, LINE):
            fetch_to_write(storage, i)


@loop
def fetch_edges_to_write(storage, place, n):
    """The first and the last line of a run, where others are stored without them: waiting for two lines of 17, rows of 256 took as long
    as all lines through the caches."""
    fetch_to_write(storage, place)
    fetch_to_write(storage, place + n - 1)


@loop
def fetch_row(storage, place, n):
    """The next row of columns."""
    if n <= SHORT_ROW:
        fetch_run(storage, place, n)


@loop
def fetch_row_to_write(storage, place, n):
    if n <= SHORT_ROW:
        fetch_run_to_write(storage, place, 0, n)
