"""Into what a walk is cut: tiles, cuts, folded rows, and chunks that are dealt to threads. From counts, and never from the machine where a
bit of a result depends on it."""

from __future__ import annotations

from fastnorm.plan.geometry import Geometry

# Shorter planes than this are read as columns, if there are rows enough to vectorize over them. Training of (16, 128, 14, 14) took
# 127 us as planes and 237 as columns; planes of 13 x 13 took as long, and from memory 1.5 times as long.
SHORT_RUN = 192
FEW_ROWS = 8
# The same of fewer rows. Statistics of one element are columns, too: as planes, inference of (1, 512) took 16 us and takes 3, of (1, 4096)
# 112 and 8.6, its backward 220 and 17, layer norm backward of (10007, 1) 99 and 33, means along its rows 22 and 12.
SHORTEST_RUN = 16
# Planes of batch norm in cache that are columns: at most so many elements, from so many samples on. As planes took as long, 16 KB to 1 MB
# of 2 to 32 samples (Zen 4): training of 3 x 3 1.7 to 5.5 times, 5 x 5 1.4 to 2.7, 7 x 7 1.05 to 1.8, 10 x 10 of 8 samples 1.02 to 1.5, of
# fewer 0.8 to 1.35, 13 x 13 of 32 0.92 to 1.23; gradients of 5 x 5 1.2 to 2, 6 x 6 1.04 to 1.4, 7 x 7 of 8 samples 1.06 to 1.11 (250 KB and
# more) and on a Zen 3, whose vectors have no masks, 1.1 to 1.8; averages of 10 x 10 1.1 to 1.8.
TRAINED, GRADIENTS, AVERAGED = ((32, 191), (8, 100), (2, 64)), ((8, 49), (2, 36)), ((16, 191), (2, 100))
# The same of given statistics: samples at least, and of how many elements. As planes, from 8 samples on, 2 x 2 took 1.2 to 2.5 times as
# long, 3 x 3 1.2 to 2.1, 5 x 5 1.05 to 1.35, but 4 x 4 0.75 to 1.04 and 6 x 6 to 8 x 8 0.65 to 1.1; of 2 samples all of these took 0.44 to
# 0.98 (Zen 5, vectors with masks and without). Single elements are none: from 2 samples on their columns are 15 to 55 times as fast.
APPLIED = ((2, 1, 1), (8, 2, 15), (8, 17, 31))
# Elements from which on gradients of SHORT_RUN are columns: (32, 2048, 7, 7) took 1.1 ms, as planes 2.6.
GRADIENT_ELEMENTS = 5 << 17
# Planes of batch norm, as many as caches hold, that `kernels.short_planes` and `kernels.gradient_planes` take: of so many samples at most,
# and of how many elements.
# In 16 to 1024 channels they were faster by (Zen 5): training of 2 samples of 4 x 4 1.2 to 1.65, 7 x 7 1.3 to 2.2, 10 x 10 1.5 to 3.2,
# 14 x 14 1.4 to 2, 28 x 28 1.2; of 4 samples 1.2 to 2.9 up to 20 x 20; of 8 1.1 to 1.9 up to 17 x 17, but of 7 x 7, where nothing was in
# cache, 0.85; of 16 1.06 to 1.5 of 10 x 10 to 14 x 14; averages of all these 1.1 to 2.2. Gradients of 2 samples 1.1 to 2.4, of 4 1.04 to
# 1.9, of 8 0.7 to 1.7.
# By the geometry alone, whether stores stream or not: another walk adds in another order.
PLANES_ELEMENTS = 1 << 21
TRAINED_PLANES, GRADIENT_PLANES = ((2, 9, 1024), (4, 16, 800), (8, 25, 600), (16, 100, 300)), ((2, 9, 800), (4, 16, 400))
# Of these at least so many channels in a chunk: what is done for each sample of them takes as long as two of 16 elements.
CHANNELS_OF_CHUNK = 8
# Elements of one cut: a statistic is dealt to several threads in pieces of at least this size.
CUT_ELEMENTS = 65536
MAX_CUTS = 64
# Rows of one cut of columns; fewer, where that makes few cuts: three are 1.33 times the work of two threads. Training of
# (1568, 2048) took 1.05 ms with three cuts, 0.86 with twelve, 0.96 with 24.
CUT_ROWS, FEWEST_CUT_ROWS, FEW_CUTS = 512, 32, 16
# Elements of a cut of columns, and of as few as four cuts: they were 1.5 to 2.4 times as fast as one, of 128 KB to 1 MB.
COLUMN_CUT_ELEMENTS, LEAST_CUT_ELEMENTS, LEAST_CUTS = 131072, 16384, 4
# Few short rows are cut into as many narrow tiles, whole again and in one launch: (128, 2048) took 130 us in four cuts of rows,
# 87 in eight tiles of columns. More rows are too far apart: (1024, 256) took 82 us in cuts, 130 in tiles.
# Of as many columns as stay in registers (`kernels.narrow_columns`), where these are four: training of 98 to 250 rows of 512 and 768 was
# 1.16 to 1.28 times as fast as in tiles of 64 and 96, backward 1.17 to 1.2, of (100, 4096) in eight tiles 1.04 and 1.25 (Zen 5). Where L2
# holds half a megabyte, 215 to 250 rows are faster in cuts: training of 520 to 1500 columns 1.07 to 1.3, backward 1.09 to 1.39 (Zen 3), but
# 128 of 2000 and 2048 0.79 to 1.04.
NARROW_TILES, FEWEST_TILES, NARROW_COLUMNS, NARROW_ROWS, NARROW_BYTES, HELD_COLUMNS = 8, 4, 64, 192, 200 << 10, 128
# Statistics from which parameter gradients are summed per chunk of statistics: four chunks, or as many of ROWS_OF_SUMS
# each as there are, so that the sums of all chunks are 0.4 % of x (3 % of 512 rows). Fewer statistics (of more
# elements) are cut along their elements instead.
MANY_STATISTICS = 256
# The same of rows that stay in L1, whose sums are small (1 MB): layer norm backward of 48 to 200 rows of 512 to 4096 was 1.05 to 2.1 times
# as fast as cut along its elements, of 32 0.9 to 1.1, of 16 and 24 0.77 to 0.97 (Zen 4).
ENOUGH_ROWS = 40
FEW_SUMS, ROWS_OF_SUMS, MOST_SUMS = 4, 1024, 64
# The same of groups of single elements: of 64 chunks, backward of group norm took 2.3 ms for (8, 16384), of four 0.39.
SAMPLES_OF_SUMS = 64
# Elements of such a cut: with 256 gradients of 2 to 12 rows of 4096 to 16411 took 1.05 to 1.13 times as long, with 2048 0.96 to 1.1.
CUT_OF_PARAMETERS = 1024


def are_columns(geometry: Geometry, *, two_phases: bool, gradient: bool, read_only: bool) -> bool:
    """Whether planes of batch norm, which caches hold, are walked as rows of columns."""
    if gradient and geometry.size > GRADIENT_ELEMENTS and has_short_runs(geometry.outer, geometry.inner):
        return True
    if not (gradient or read_only or two_phases):
        return any(geometry.outer >= least and shortest <= geometry.inner <= longest for least, shortest, longest in APPLIED)
    bounds = GRADIENTS if gradient else AVERAGED if read_only else TRAINED
    return any(geometry.outer >= samples and geometry.inner <= longest for samples, longest in bounds)


def are_planes(geometry: Geometry, *, gradient: bool) -> bool:
    """Whether planes of batch norm are walked a block of channels at a time."""
    bounds = GRADIENT_PLANES if gradient else TRAINED_PLANES
    some = geometry.outer > 1 and geometry.size <= PLANES_ELEMENTS
    return some and any(geometry.outer <= most and shortest <= geometry.inner <= longest for most, shortest, longest in bounds)


def narrow_tile(geometry: Geometry, compute_bytes: int) -> int:
    """Columns of one of a few narrow tiles, of whole statistics; 0 where they do not pay."""
    tiles = min(NARROW_TILES, max(geometry.columns // HELD_COLUMNS, min(FEWEST_TILES, geometry.columns // NARROW_COLUMNS)))
    if geometry.batch > 1 or tiles < FEWEST_TILES or geometry.outer > NARROW_ROWS:
        return 0
    columns = -(-geometry.channel // tiles) * geometry.inner
    return columns if geometry.outer * columns * compute_bytes <= NARROW_BYTES else 0


def cuts_of_rows(geometry: Geometry, units: int) -> int:
    """Into which so many units, tiles of columns, are cut."""
    of_size = max(geometry.size // COLUMN_CUT_ELEMENTS, min(LEAST_CUTS, geometry.size // LEAST_CUT_ELEMENTS)) // units
    of_rows = max(geometry.outer // CUT_ROWS, min(FEW_CUTS, geometry.outer // FEWEST_CUT_ROWS))
    return max(1, min(MAX_CUTS, of_size, of_rows))


def chunks_of_rows(statistics: int) -> int:
    """Of statistics whose elements have parameters: what gradients of these are summed over."""
    return max(FEW_SUMS, min(MOST_SUMS, statistics // ROWS_OF_SUMS))


def chunks_of_samples(geometry: Geometry) -> int:
    """The same of groups of single elements."""
    return min(geometry.statistics, max(FEW_SUMS, min(MOST_SUMS, geometry.batch // SAMPLES_OF_SUMS)))


def cuts_of_parameters(elements: int) -> int:
    """Ranges of elements with parameters."""
    return max(1, min(MAX_CUTS, elements // CUT_OF_PARAMETERS))


# Plain functions of integers, which `interop` compiles, too.


def has_short_runs(outer: int, inner: int) -> bool:
    """Whether rows are read, vectorized over their columns, instead of runs."""
    return (inner < SHORT_RUN and outer >= FEW_ROWS) or (inner < SHORTEST_RUN and outer > 1)


def cuts_of(elements: int) -> int:
    """Pieces in which the elements of one statistic are summed."""
    return max(1, min(MAX_CUTS, elements // CUT_ELEMENTS))


def columns_of_tile(channel: int, inner: int, whole: int, piece: int) -> int:
    """Columns of a row up to `whole`, or of tiles of equal width, `piece` at most, that do not cut a statistic."""
    columns = channel * inner
    if columns > whole:
        tiles = -(-columns // max(inner, piece // inner * inner))
        columns = -(-channel // tiles) * inner
    return columns


def fold_of(columns: int, rows: int, widest: int) -> int:
    """Rows read as one: a power of two, so that folded rows of whole vectors stay aligned.

    Every fold costs an addition of all its columns in the end: enough rows have to be left to be worth it, fewer
    where a row does not fill a vector.
    """
    fold = 1
    while columns * fold * 2 <= widest and rows >= fold * 2 * (8 if columns * fold < 32 else 64):
        fold *= 2
    return fold


def chunks_of(units: int, n_threads: int, parallel: bool) -> int:
    """Dealt to threads in equal ranges, and who is done takes from the others: with eight per thread nobody waits for long.

    256 took 1.2 times as long on (512, 1024), each with its scratch memory.

    No result depends on their number: partial results belong to statistics and cuts.
    """
    return min(units, 8 * n_threads) if parallel else 1
