"""How a geometry is walked: traversal, cuts, chunks, tiles, fold, stores, threads.

Cuts decide in which order partial results are merged and therefore the bits of the result: they follow
from the geometry alone. Everything else may depend on the machine.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastnorm.plan.geometry import Geometry
from fastnorm.plan.tiles import (
    CHANNELS_OF_CHUNK,
    ENOUGH_ROWS,
    FEW_ROWS,
    FEW_SUMS,
    MANY_STATISTICS,
    are_columns,
    are_planes,
    chunks_of,
    chunks_of_rows,
    chunks_of_samples,
    columns_of_tile,
    cuts_of,
    cuts_of_parameters,
    cuts_of_rows,
    fold_of,
    has_short_runs,
    narrow_tile,
)
from fastnorm.runtime.machine import is_amd, is_zen_4, is_zen_5, last_level_cache_bytes, streaming_stores_pay

# Bytes of one run: it stays in a 32 KB L1 with what is written.
TILE_BYTES = 16384
# Tiles of a statistic that is read from L1 or L2 by one loop, without cutting it, and of one whose gradient is. Of four to 16 tiles, the
# elements of one cut, layer norm was 1.04 to 1.75 times as fast as run by run, `add_layer_norm` 1.2 to 4.5, averages 1.0 to 1.17, group
# norm 1.0 to 1.1, but gradients 0.96 to 1.0 (1 to 64 rows of 16411 to 65536, Zen 5).
ROW_TILES, GRADIENT_ROW_TILES = 16, 4
# Bytes of a column tile's row.
ROW_BYTES = 4096
# Bytes of a folded row whose columns are summed: three vectors of sums, and long contiguous rows. Moments of
# (65536, 256) took 1.2 times as long with 4096, of (1000000, 50) 1.15 times.
FOLD_BYTES = 8192
# Bytes of a folded row that is written: six vectors of parameters stay in L1 with it. With 4096, inference of
# (32, 112, 112, 64) took 1.5 times as long and its gradient 1.75 times (one core of a Zen); with 2048, (1000000, 50) twice.
# Streamed gradients are written four rows side by side (`kernels.four_rows`), and these have to be as wide as those that are summed.
WRITTEN_ROW_BYTES = 2560
# Bytes up to which a row is not cut into column tiles. Two tiles of 4096 bytes skip every other page: inference on
# (1568, 2048) took 2.7 instead of 1.9 ms. Narrow tiles, all rows of which fit L2, were twice as slow in training.
WHOLE_ROW_BYTES = 8192
# The same of both, where stores bypass the caches and nobody finds anything in L2 a second time. In these pieces training of (4096, 4096),
# (2048, 8192), (1000, 16384) and (8192, 3000) was 1.2 to 1.6 times as fast, backward 1.1 to 1.27, inference 1.2 to 1.6 (Zen 4); planes of
# 14 x 14 as columns, 256 to 512 of them in a statistic, 0.66 to 1.07, because tiles that L2 held no longer fitted.
WIDEST_ROW_BYTES, WIDE_PIECE_BYTES = 65536, 16384
# The same of both, where so many rows are only read: pieces of 4096 bytes are too short for a processor to fetch ahead. Variances of
# (10000, 10000) took 35.6 ms in such pieces, 30.2 in these and 34.1 whole, where the scratch memory of sums is more than L2 holds; but of
# (128, 16384) 0.9, 1.27 and 1.67, of (4, 16384) 44, 46 and 53 us (two cores of a Zen 3).
READ_PIECE_BYTES, MANY_ROWS = 16384, 2048
# The same where stores bypass the caches, on a Zen: training as columns was 1.4 to 1.7 times as fast in planes of 14 x 14, 1.44 of 17 x 17,
# 1.13 to 1.5 of 20 x 20 to 24 x 24, 1.03 of 28 x 28, 0.8 to 1.07 of 32 x 32, and 0.9 from caches; backward 1.4 (14 x 14), 1.07 to 1.2
# (17 x 17), 0.9 to 1.07 (21 x 21).
STREAMED_RUN, STREAMED_GRADIENT_RUN = 600, 300
# The same of fewer samples than FEW_ROWS.
STREAMED_OF_FEW = 64
# Elements of rows up to which `kernels.short_rows` takes them: layer norm of 1 MB in rows of 3 took 722 us before and takes
# 323, of 50 90 and 54, of 128 47 and 38, of 256 37 and 33, but of 67 MB 3.2 and 3.6 ms.
SHORT_ROW = 192
# From which their stores bypass the caches, and planes': 128 MB in rows of 64 took 14.1 ms streaming and 9.2 not, of 100 10.4 and 10.3, of
# 128 7.7 and 10.2 (two cores of a Zen 4).
SHORT_STREAMED_ROW = 128
# The same of those that are written line by line (`kernels.dense_runs`), because they have at least the elements of a line; from two thirds
# of the last-level cache on: eight calls in a row took 0.5 to 1.2 times as long on 4 to 6 MB of x, 1.0 to 1.3 on 8 to 12.
LINE_STREAMED_ROW = 16
# Elements of planes up to which `kernels.gradient_planes` takes them. Group norm backward of (64, 256, 7, 7) took 806 and takes 191 us, of
# (8, 128, 28, 28) 158 and 120, but planes of 56 x 56 1.2 and 1.6 ms.
SHORT_PLANE = 1024
# Elements from which the work of two threads pays: 4 us of one, and a compiled call of one thread takes 3 us less around it.
PARALLEL_ELEMENTS = 32768
# As which a short row counts there, 3 to 5 ns, however few elements it has; and a plane that is read twice, which takes 30 ns:
# training of (8, 32, 8, 8) was 1.2 times as fast with two threads. Of a block of short planes less.
ROW_ELEMENTS, PLANE_ELEMENTS, SHORT_PLANE_ELEMENTS = 16, 96, 48
# Of the last-level cache that operands may fill before stores stream; rows, and columns in forward passes: all of it, but on a Zen. Two
# cores, 90 MB of traffic: training of planes took 3.0 and, streaming, 2.4 ms, inference 2.5 and 2.0; of columns 3.6 and 3.8, 1.9 and 2.4;
# backward of 77 MB 3.1 and 2.1 as planes, 4.0 and 3.2 as columns. On a Zen, columns of 26 MB of traffic and 32 of cache: streaming,
# training was 1.14 to 1.26 times as fast, inference 1.2 to 1.36, of rows of 2048 1.05 and 0.93 to 1.08; of 18 MB 0.84 and 0.72. Layer norm
# on an Emerald Rapids: rows of 1024 0.84 (25 MB of traffic), 0.86 to 1.26 (34), 1.2 to 1.35 (67); of 256 0.92 to 1.0, 0.84 to 1.02.
PART_OF_CACHE = 2 / 3
# The same for planes and rows that are read twice, on a Zen, where a loop over the same arrays of x, streaming, was faster by: layer
# norm 0.85 (4 MB of x), 1.17 (6), 1.53 (8), its backward 1.03 (2), 1.6 (4 to 24); training of planes 0.97 (4), 1.33 (6), 1.4 (16), their
# gradient 0.9 (2), 1.4 (4 to 8). Planes that are read once may fill all of it: inference of 12 MB took 219 to 247 us and, streaming, 255
# or 469 as memory was in its fast or slow state, of 16 MB 366 to 389 and 341 or 640, of 20 MB 575 to 812 and 408 or 800 (Zen 4).
PART_OF_CACHE_READ_TWICE = 1 / 3
# Both on a Zen 5: of plain columns in rows of up to WHOLE_ROW_BYTES; of planes and rows of more than SHORT_ROW elements, read twice, but
# gradients of rows. In a loop over the same arrays streaming less was faster by 1.3 to 1.95 (columns of 25 MB of traffic, training and
# inference; rows of 12 KB 0.75 and 1.09), 1.1 to 1.84 (training of planes, 11 to 16 MB; 21 to 26 MB 0.94 to 1.65, as memory was in its fast
# or slow state), 1.0 to 1.47 (their gradients), 1.3 to 1.7 (layer and RMS norm, 12 to 16 MB; 22 MB 1.07 to 1.4); from memory it was 0.92 to
# 1.05, but gradients of rows 0.77 to 0.84, short rows and planes 0.43 to 0.95.
PART_OF_ZEN_5, PART_OF_ZEN_5_READ_TWICE = 0.8, 1 / 2
# The first one also on a Zen 4, in forward passes of rows of so many bytes, whose parameters and sums stay in registers: in a loop over the
# same arrays of 26 MB of traffic 1.04 to 1.7 times as fast, after other things 0.82 (inference) to 1.06; and of 16-bit numbers: 1.0 to 1.7
# and 0.82 to 1.0. Rows of 200 to 2048 float32 numbers stream: 0.55 to 1.3 and 0.7 to 0.95.
NARROW_ROW_BYTES = 512
# Rows of columns whose gradients are summed at once, which saves loads and stores of their sums; of as many bytes as caches do not hold
# only one, because memory is read faster in two streams than in eight: backward took 3.7 and 3.4 ms (26 MB), 11.5 and 10.3 (67 MB),
# but of 13 MB 1.09 and 1.22 (two cores of a Zen 4). From the size alone: the order of a sum makes its last bits. Where vectors are written
# out (`element.lanes`: no activation) they are always four, or eight of moments.
ROWS_AT_ONCE, LARGE_BYTES = 4, 1 << 24
# Bytes of columns from which on the next of these are fetched meanwhile, on a Zen (others: LARGE_BYTES). Four calls in a row, and each
# after the caches were filled with other things: training of 12 MB 1.02 and 1.13 times as fast with it, backward 1.08 and 1.1, of 6 MB
# 1.0 and 1.05 to 1.09, of 3 MB 0.94 and 1.03 to 1.14 (Zen 4).
# A Zen 5 from LARGE_BYTES on: in calls in a row variances of 6 MB took 1.22 to 1.27 times as long with it, of 12 MB 1.01 to 1.11, of 24 MB
# 0.83 to 1.05, training of 6 MB 1.07 to 1.1, of 24 MB 0.93 to 0.99; after other things as long as before.
FETCHED_COLUMNS = 6 << 20
# Bytes that are read once, in planes or rows, from which on what follows is fetched meanwhile: 51 MB took 1.03 times as long with it,
# 103 MB 0.84 times, 400 MB of float64 0.91 to 1.1 times (Emerald Rapids; `kernels.tile.sums_about`).
FETCHED_BYTES = 1 << 26
# Bytes of a statistic (or column tile) that a second sweep still finds in L2.
L2_BYTES = 1 << 20
# Column tiles from which one launch with whole tiles keeps enough threads busy.
FUSED_TILES = 8


class Schedule(NamedTuple):
    planar: bool
    rows: bool  # planar and fused, and a statistic is one run that stays in L1
    short: bool  # rows, so short that what is done around each of them matters most
    planes: bool  # short ones with a parameter each, that follow each other without a gap, of a sample or a few
    fused: bool  # moments and application in one launch
    parallel: bool
    stream: bool
    cuts: int
    chunks: int
    columns: int
    fold: int
    tile: int
    at_once: int
    unbroken: bool  # interleaved rows are one run
    ahead: bool  # sums fetch what they read next


def make_schedule(
    geometry: Geometry,
    compute_bytes: int,
    traffic_bytes: int,
    n_threads: int,
    *,
    columns_contiguous: bool,
    rows_contiguous: bool,
    rows_apart: bool,
    no_gaps: bool,
    may_stream: bool,
    two_phases: bool,
    per_element: bool,
    accumulates: bool,
    gradient: bool,
    read_only: bool,
    widened: bool,
) -> Schedule:
    """Decide once; kernels receive the numbers and ask nothing.

    compute_bytes : of one element in registers
    traffic_bytes : of all large operands together
    columns_contiguous : the columns of a row have one distance, in every operand
    rows_contiguous    : rows follow each other without a gap, in every operand
    rows_apart         : statistics of all batches have one distance, in every operand
    no_gaps            : and so have the elements of each, in every operand
    two_phases : the elements are read a second time after the statistics are known
    per_element, accumulates : of the layout
    gradient : a gradient is among the operands
    read_only : nothing as large as the source is written
    widened : elements are computed in a wider type
    """
    parallel = n_threads > 1 and geometry.size >= PARALLEL_ELEMENTS
    cache_bytes = last_level_cache_bytes(widened) if may_stream and streaming_stores_pay() else math.inf
    stream = traffic_bytes > cache_bytes * PART_OF_CACHE
    blocks = (two_phases or read_only) and not per_element and no_gaps and _is_batch(geometry) and are_planes(geometry, gradient=gradient)
    interleaved, by_lines = _walks(
        geometry, stream, columns_contiguous, two_phases=two_phases, gradient=gradient, read_only=read_only, widened=widened
    )
    if blocks or (per_element and geometry.inner > 1):
        interleaved = False
    if interleaved:
        schedule = _interleaved(
            geometry,
            compute_bytes,
            n_threads,
            parallel,
            traffic_bytes > cache_bytes * (_part_for_columns(geometry, compute_bytes, gradient, widened) if accumulates or is_amd() else 1),
            foldable=rows_contiguous and not per_element,
            gradient=gradient,
            two_phases=two_phases,
            read_only=read_only,
        )
        return _accumulating_columns(schedule, geometry, n_threads) if accumulates and per_element else schedule
    if is_amd() and not by_lines:
        stream = traffic_bytes > cache_bytes * (_part_of_planes(geometry, compute_bytes, gradient) if two_phases else 1)
    elif two_phases and not is_amd() and _are_rows(geometry, TILE_BYTES // compute_bytes, gradient):
        stream = traffic_bytes > cache_bytes
    schedule = _planar(
        geometry,
        compute_bytes,
        n_threads,
        parallel,
        stream,
        two_phases=two_phases,
        per_element=per_element,
        accumulates=accumulates,
        rows_apart=rows_apart,
        planes_contiguous=no_gaps,
        gradient=gradient,
        read_only=read_only,
        stream_lines=traffic_bytes > cache_bytes * PART_OF_CACHE and not widened,
        blocks=blocks,
    )
    if accumulates and (per_element or (geometry.run == 1 and geometry.inner > 1)):
        return _accumulating(schedule, geometry, per_element)
    return schedule._replace(ahead=read_only and compute_bytes == 4 and traffic_bytes >= FETCHED_BYTES)


def _part_for_columns(geometry: Geometry, compute_bytes: int, gradient: bool, widened: bool) -> float:
    """Of the last-level cache that columns may fill."""
    row_bytes = geometry.channel * compute_bytes
    if geometry.inner > 1 or not (is_zen_5() or is_zen_4()):
        return PART_OF_CACHE
    if is_zen_4():
        halves = widened and compute_bytes == 4
        return PART_OF_ZEN_5 if not gradient and (halves or row_bytes <= NARROW_ROW_BYTES) else PART_OF_CACHE
    return PART_OF_ZEN_5 if row_bytes <= WHOLE_ROW_BYTES else PART_OF_CACHE


def _part_of_planes(geometry: Geometry, compute_bytes: int, gradient: bool) -> float:
    """The same of planes and rows that are read twice, on a Zen."""
    of_rows = gradient and _are_rows(geometry, TILE_BYTES // compute_bytes, gradient)
    held = is_zen_5() and geometry.inner > SHORT_ROW and not of_rows
    return PART_OF_ZEN_5_READ_TWICE if held else PART_OF_CACHE_READ_TWICE


def _is_batch(geometry: Geometry) -> bool:
    return geometry.batch == 1 and geometry.inner == geometry.run


def _walks(
    geometry: Geometry, stream: bool, columns_contiguous: bool, *, two_phases: bool, gradient: bool, read_only: bool, widened: bool
) -> tuple[bool, bool]:
    """Whether rows of columns are walked instead of runs, and whether runs that could be columns are written line by line.

    The latter are short planes of given statistics on a Zen, whose stores bypass the caches (`kernels.dense_runs`): inference of planes of
    4 x 4 to 13 x 13 was 1.5 to 1.8 times as fast.
    """
    if not columns_contiguous:
        return False, False
    if geometry.outer == geometry.inner == 1:
        return geometry.channel > 1, False
    is_batch = _is_batch(geometry)
    if is_batch and not stream:
        return are_columns(geometry, two_phases=two_phases, gradient=gradient, read_only=read_only), False
    few = is_batch and two_phases and geometry.outer > 1 and geometry.inner <= STREAMED_OF_FEW
    if not (few or has_short_runs(geometry.outer, geometry.inner)):
        longest = STREAMED_GRADIENT_RUN if gradient else STREAMED_RUN
        return stream and is_amd() and two_phases and is_batch and geometry.outer >= FEW_ROWS and geometry.inner < longest, False
    by_lines = stream and is_amd() and is_batch and not (two_phases or gradient or read_only or widened)
    if by_lines and geometry.inner >= LINE_STREAMED_ROW:
        return False, True
    return True, False


def _planar(
    geometry: Geometry,
    compute_bytes: int,
    n_threads: int,
    parallel: bool,
    stream: bool,
    *,
    two_phases: bool,
    per_element: bool,
    accumulates: bool,
    rows_apart: bool,
    planes_contiguous: bool,
    gradient: bool,
    read_only: bool,
    stream_lines: bool,
    blocks: bool,
) -> Schedule:
    cuts = cuts_of(geometry.elements)
    statistics = geometry.statistics
    balanced = not parallel or statistics >= 4 * n_threads or statistics % n_threads == 0
    tile = TILE_BYTES // compute_bytes
    # Only read, (4096, 16) took 419 us as planes and 60 as rows. A single statistic has the bits of `kernels.small`: those of planes.
    rows = (two_phases or (read_only and statistics > 1)) and _are_rows(geometry, tile, gradient)
    fused = rows or blocks or (two_phases and balanced)
    units = max(1, statistics // CHANNELS_OF_CHUNK) if blocks else statistics if fused else statistics * cuts
    short = rows and rows_apart and geometry.inner <= SHORT_ROW and (per_element or geometry.run == geometry.inner)
    overhead = ROW_ELEMENTS * short or (SHORT_PLANE_ELEMENTS if blocks else PLANE_ELEMENTS) * (two_phases and not rows)
    parallel |= n_threads > 1 and geometry.size + overhead * (geometry.size // max(1, geometry.inner)) >= PARALLEL_ELEMENTS
    planes = blocks or (rows and planes_contiguous and gradient and not per_element and 1 < geometry.run <= SHORT_PLANE)
    width = geometry.inner if short else geometry.run
    if (short or planes) and width < SHORT_STREAMED_ROW:
        stream = stream_lines and planes_contiguous and width >= LINE_STREAMED_ROW
    return Schedule(
        True, rows, short, planes, fused, parallel, stream, cuts, chunks_of(units, n_threads, parallel), 0, 1, tile, 0, False, False
    )


def _are_rows(geometry: Geometry, tile: int, gradient: bool) -> bool:
    """Longer runs than a tile are summed in other pieces than by the split path: never a matter of threads."""
    return geometry.outer == 1 and geometry.inner <= (GRADIENT_ROW_TILES if gradient else ROW_TILES) * tile


def _accumulating(schedule: Schedule, geometry: Geometry, per_element: bool) -> Schedule:
    """Parameter gradients are sums over statistics: kept per chunk, or chunks are ranges of elements."""
    statistics = geometry.statistics
    if geometry.size < PARALLEL_ELEMENTS:
        return schedule._replace(fused=True, cuts=1, chunks=1)
    if not per_element:  # parameters are fewer than the elements of a statistic
        return schedule._replace(fused=True, cuts=1, chunks=chunks_of_samples(geometry))
    if statistics >= (ENOUGH_ROWS if schedule.rows else MANY_STATISTICS):
        return schedule._replace(fused=True, cuts=1, chunks=chunks_of_rows(statistics))
    cuts = cuts_of_parameters(geometry.elements)
    return schedule._replace(fused=False, rows=False, short=False, cuts=cuts, chunks=cuts)


def _accumulating_columns(schedule: Schedule, geometry: Geometry, n_threads: int) -> Schedule:
    """A row's parameter gradient is summed over the columns of a tile."""
    least = min(FEW_SUMS, geometry.columns // 256) if geometry.batch < FEW_SUMS else 1
    tiles = max(1, least, -(-geometry.columns // schedule.columns))
    columns = -(-geometry.columns // tiles)
    units = geometry.batch * -(-geometry.columns // columns)
    return schedule._replace(fused=True, cuts=1, columns=columns, chunks=chunks_of(units, n_threads, schedule.parallel))


def _interleaved(
    geometry: Geometry,
    compute_bytes: int,
    n_threads: int,
    parallel: bool,
    stream: bool,
    *,
    foldable: bool,
    gradient: bool,
    two_phases: bool,
    read_only: bool,
) -> Schedule:
    whole, piece = WHOLE_ROW_BYTES, ROW_BYTES
    if read_only and geometry.outer >= MANY_ROWS:
        whole = piece = READ_PIECE_BYTES
    elif stream and not read_only and not (two_phases and geometry.outer * ROW_BYTES <= L2_BYTES):
        whole, piece = WIDEST_ROW_BYTES, WIDE_PIECE_BYTES
    columns = columns_of_tile(geometry.channel, geometry.inner, whole // compute_bytes, piece // compute_bytes)
    small = geometry.size < PARALLEL_ELEMENTS
    narrow = narrow_tile(geometry, compute_bytes) if two_phases and not small and geometry.columns < FUSED_TILES * columns else 0
    columns = narrow or columns
    tiles = -(-geometry.columns // columns)
    tile_bytes = geometry.outer * columns * compute_bytes
    enough = narrow > 0 or geometry.batch * tiles >= FUSED_TILES
    fused = two_phases and (small or (enough and tile_bytes <= L2_BYTES))
    cuts = 1 if fused else cuts_of_rows(geometry, geometry.batch * tiles)
    unbroken = foldable and tiles == 1
    fold = fold_of(columns, geometry.outer // cuts, FOLD_BYTES // compute_bytes) if unbroken else 1
    chunks = chunks_of(geometry.batch * tiles * cuts, n_threads, parallel)
    x_bytes = geometry.size * compute_bytes
    at_once, ahead = (
        1 if x_bytes >= LARGE_BYTES else ROWS_AT_ONCE,
        x_bytes >= (FETCHED_COLUMNS if is_amd() and not is_zen_5() else LARGE_BYTES),
    )
    tile = (FOLD_BYTES if gradient and stream else WRITTEN_ROW_BYTES) // compute_bytes
    return Schedule(False, False, False, False, fused, parallel, stream, cuts, chunks, columns, fold, tile, at_once, unbroken, ahead)
