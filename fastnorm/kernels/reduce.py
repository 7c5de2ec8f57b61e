"""Reductions of every statistic to four numbers: partial results per cut, then their union in order.

reduction : a tag of `element.reductions`
weights   : storage like the source's, or None
partial   : float64 (cuts, 4, batch * channel), planar, or (cuts, 4, batch * channel * inner)
numbers   : float64 (4, batch * channel)
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver
from fastnorm.element.bits import choose, compact, wide_vectors
from fastnorm.element.moments import average_of
from fastnorm.element.reductions import join, of_nothing, summed_in
from fastnorm.element.storage import as_compute, at, cut, row, write, zero_of
from fastnorm.kernels.columns import SUMMED_BYTES, copy_run
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.reduce_rows import clear_state, join_state, reduce_rows
from fastnorm.kernels.reduce_runs import reduce_span
from fastnorm.kernels.scratch import vectors, vectors_beside
from fastnorm.kernels.walk import (
    column_place,
    elements_per_statistic,
    fetches_ahead,
    fold_within,
    row_span,
    span,
    tile_of_columns,
    units_of_columns,
)
from fastnorm.plan.table import AT_ONCE, BATCH, CHANNEL, CHUNKS, COLUMNS, CUTS, EXTRA, FOLD, INNER, PROBLEM, SRC, START, STEP_OUTER

# Columns of the rows as which a long run is read. Joining them costs as much as reading LANES * 4 elements, so shorter
# runs have fewer.
LANES, FEW_LANES, SHORT_STATISTIC = 256, 32, 2048


@chunk_body
def planar_reduce_chunk(reduction, src, weights, table, partial, chunk):
    compact()
    cuts, channel = table[PROBLEM, CUTS], table[PROBLEM, CHANNEL]
    n_statistics, n_elements = table[PROBLEM, BATCH] * channel, elements_per_statistic(table)
    first, last = span(n_statistics * cuts, table[PROBLEM, CHUNKS], chunk)
    lanes = LANES if n_elements >= SHORT_STATISTIC else FEW_LANES
    state, block = vectors(0.0, 4, lanes), vectors(0.0, 4, lanes)
    sums = vectors(summed_in(reduction, zero_of(src)), 4, lanes)
    for unit in range(first, last):
        stat = unit // cuts
        part = unit - stat * cuts
        b = stat // channel
        c = stat - b * channel
        begin, end = span(n_elements, cuts, part)
        total = reduce_span(reduction, src, weights, table, b, c, begin, end, lanes, state, block, sums)
        target = row(partial, part)
        for field in range(4):
            target[field * n_statistics + stat] = total[field]


@driver
def planar_reduce(crew, reduction, src, weights, table, partial):
    deal(crew, planar_reduce_chunk, table[PROBLEM, CHUNKS], (reduction, src, weights, table, partial))


@chunk_body
def reduce_block(reduction, src, weights, table, b, column, n, begin, end, state, block, sums):
    """Rows begin to end of the n columns from `column` on."""
    compact()
    large = table[PROBLEM, AT_ONCE] == 1  # from memory four rows of 2048 bytes, next to each other, take 1.3 times as long
    fold = table[PROBLEM, FOLD] if large else fold_within(table, n, SUMMED_BYTES // sums.itemsize)
    folded = (end - begin) // fold
    rest = begin + folded * fold
    clear_state(reduction, state, n * fold)
    for part in range(2):  # the folded rows, then those that do not fill one: one copy of the loop
        first = begin if part == 0 else rest
        n_rows = folded if part == 0 else end - rest
        times = fold if part == 0 else 1
        places = (column_place(table, SRC, b, first, column), column_place(table, EXTRA, b, first, column))
        steps = (table[SRC, STEP_OUTER] * times, table[EXTRA, STEP_OUTER] * times)
        reduce_rows(reduction, src, weights, places, steps, n_rows, n * times, True, fetches_ahead(table), state, block, sums)
        while part == 0 and fold > 1:  # half of the copies with the other half
            fold //= 2
            join_state(reduction, state, state, fold * n, fold * n)


@chunk_body
def interleaved_reduce_chunk(reduction, src, weights, table, partial, chunk):
    compact()
    cuts = table[PROBLEM, CUTS]
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    width = table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD]
    state, block = vectors(0.0, 4, width), vectors(0.0, 4, width)
    sums = vectors_beside(summed_in(reduction, zero_of(src)), 4, width, src, table[SRC, START])
    columns = partial.shape[2]
    for unit in range(first, last):
        tile = unit // cuts
        part = unit - tile * cuts
        b, column, n = tile_of_columns(table, tile)
        begin, end = row_span(table, part)
        reduce_block(reduction, src, weights, table, b, column, n, begin, end, state, block, sums)
        place = b * table[PROBLEM, CHANNEL] * table[PROBLEM, INNER] + column
        for field in range(4):
            copy_run(cut(row(partial, part), field * columns + place, n), row(state, field), n)


@driver
def interleaved_reduce(crew, reduction, src, weights, table, partial):
    deal(crew, interleaved_reduce_chunk, table[PROBLEM, CHUNKS], (reduction, src, weights, table, partial))


@driver
def union_of_parts(reduction, partial, numbers):
    """Cuts in order; then, where a statistic has several columns, its columns."""
    n = numbers.shape[1]
    per_statistic = partial.shape[2] // n
    for stat in range(n):
        total = of_nothing(reduction)
        for column in range(stat * per_statistic, (stat + 1) * per_statistic):
            for part in range(partial.shape[0]):
                one = (partial[part, 0, column], partial[part, 1, column], partial[part, 2, column], partial[part, 3, column])
                total = join(reduction, total, one)
        for field in range(4):
            numbers[field, stat] = total[field]


@chunk_body
def averages_of_counted(averages, numbers, what, ddof):
    """In place of those that are NaN; returns how many were counted from too little, or are not finite."""
    wide_vectors()
    counts, means, lows, m2s = row(numbers, 0), row(numbers, 1), row(numbers, 2), row(numbers, 3)
    least = max(float(ddof), 0.0)
    unsettled = 0
    for k in range(averages.size):
        count, value = at(counts, k), as_compute(0.0, at(averages, k))
        value = choose(value == value, value, average_of(what, count, at(means, k), at(lows, k), at(m2s, k), ddof))
        write(averages, k, value)
        unsettled += (count <= least) | (value - value != 0.0)
    return unsettled


@driver
def complete_averages(averages, numbers, what, ddof):
    """Fill in averages that came out NaN, from the numbers of what is present.

    averages : float32 or float64 (statistics); what : MEAN_OF, VARIANCE_OF or STD_OF
    """
    return averages_of_counted(averages, numbers, what, ddof)
