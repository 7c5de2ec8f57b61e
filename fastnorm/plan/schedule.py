"""How a geometry is walked: traversal, cuts, chunks, tiles, fold, stores, threads.

Cuts decide in which order partial results are merged and therefore the bits of the result: they follow
from the geometry alone. Everything else may depend on the machine.
"""

from __future__ import annotations

from typing import NamedTuple

from fastnorm.plan.geometry import Geometry
from fastnorm.runtime.machine import last_level_cache_bytes, streaming_stores_pay

# Bytes of one run: with a staged copy it stays in a 32 KB L1.
TILE_BYTES = 16384
# Bytes of a (folded) row of columns: with its parameter vectors it stays in L1.
ROW_BYTES = 4096
# Shorter planes than this are read as columns, if there are rows enough to vectorize over them.
SHORT_RUN = 256
FEW_ROWS = 8
# Elements of one cut: a statistic is dealt to several threads in pieces of at least this size.
CUT_ELEMENTS = 65536
MAX_CUTS = 64
# Elements from which a parallel launch (2 to 5 us) pays.
PARALLEL_ELEMENTS = 32768
# Bytes of a statistic (or column tile) that a second sweep still finds in L2.
L2_BYTES = 1 << 20


class Schedule(NamedTuple):
    planar: bool
    fused: bool  # moments and application in one launch
    parallel: bool
    stream: bool
    cuts: int
    chunks: int
    columns: int
    fold: int
    tile: int


def make_schedule(
    geometry: Geometry,
    compute_bytes: int,
    traffic_bytes: int,
    n_threads: int,
    *,
    columns_contiguous: bool,
    rows_contiguous: bool,
    may_stream: bool,
    two_phases: bool,
) -> Schedule:
    """Decide once; kernels receive the numbers and ask nothing.

    compute_bytes : of one element in registers
    traffic_bytes : of all large operands together
    columns_contiguous : the columns of a row have one distance, in every operand
    rows_contiguous    : rows follow each other without a gap, in every operand
    two_phases : the elements are read a second time after the statistics are known
    """
    interleaved = columns_contiguous and (
        (geometry.inner < SHORT_RUN and geometry.outer >= FEW_ROWS) or (geometry.inner < 16 and geometry.outer > 1)
    )
    parallel = n_threads > 1 and geometry.size >= PARALLEL_ELEMENTS
    stream = may_stream and traffic_bytes > last_level_cache_bytes() and streaming_stores_pay()
    make = _interleaved if interleaved else _planar
    return make(geometry, compute_bytes, n_threads, parallel, stream, rows_contiguous, two_phases)


def _planar(
    geometry: Geometry, compute_bytes: int, n_threads: int, parallel: bool, stream: bool, rows_contiguous: bool, two_phases: bool
) -> Schedule:
    elements = geometry.outer * geometry.inner
    cuts = max(1, min(MAX_CUTS, elements // CUT_ELEMENTS))
    statistics = geometry.statistics
    balanced = not parallel or statistics >= 4 * n_threads or statistics % n_threads == 0
    fused = two_phases and balanced
    units = statistics if fused else statistics * cuts
    return Schedule(True, fused, parallel, stream, cuts, _chunks(units, geometry.size), 0, 1, TILE_BYTES // compute_bytes)


def _interleaved(
    geometry: Geometry, compute_bytes: int, n_threads: int, parallel: bool, stream: bool, rows_contiguous: bool, two_phases: bool
) -> Schedule:
    widest = ROW_BYTES // compute_bytes
    columns = geometry.columns
    if columns > widest:  # tiles of equal width that do not cut a statistic
        tiles = -(-columns // max(geometry.inner, widest // geometry.inner * geometry.inner))
        columns = -(-geometry.channel // tiles) * geometry.inner
    tiles = -(-geometry.columns // columns)
    small = geometry.size < PARALLEL_ELEMENTS
    tile_bytes = geometry.outer * columns * compute_bytes
    fused = two_phases and (small or (geometry.batch * tiles >= 16 and tile_bytes <= L2_BYTES))
    cuts = 1 if fused else max(1, min(MAX_CUTS, geometry.size // 131072 // (geometry.batch * tiles), geometry.outer // 512))
    fold = 1
    if rows_contiguous and tiles == 1:
        fold = _fold(columns, geometry.outer // cuts, widest)
    return Schedule(False, fused, parallel, stream, cuts, _chunks(geometry.batch * tiles * cuts, geometry.size), columns, fold, widest)


def _fold(columns: int, rows: int, widest: int) -> int:
    """Rows read as one: a power of two, so that folded rows of whole vectors stay aligned.

    Every fold costs a merge of `columns` in the end: enough rows have to be left to be worth it, fewer
    where a row does not fill a vector.
    """
    fold = 1
    while columns * fold * 2 <= widest and rows >= fold * 2 * (8 if columns * fold < 32 else 64):
        fold *= 2
    return fold


def _chunks(units: int, elements: int) -> int:
    """At most 256, of at least 4096 elements: a chunk costs a scratch allocation."""
    return max(1, min(units, 256, -(-elements // 4096)))
