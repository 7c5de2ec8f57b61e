"""Moments of every statistic: partial results per cut, then their merge in order.

partial : float64 (cuts, 4, batch * channel): count, mean, low, m2; of uncut columns empty
stats   : float64 (4, batch * channel): mean, low, variance, 1 / sqrt(variance + eps)
grouped : of columns, None where each is a statistic of its own, anything where several may belong to one: a tenth of what is compiled
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, driver, loop, variant
from fastnorm.element.affine import origin_near
from fastnorm.element.bits import compact, wide_vectors
from fastnorm.element.moments import (
    EMPTY,
    Moments,
    about_shift,
    lopsided,
    merge,
    not_finite,
    reciprocal_std,
    rescaled,
    root,
    rounded_mean,
    variance,
)
from fastnorm.element.storage import as_compute, at, cut, load, row, write, zero_of
from fastnorm.kernels.columns import SUMMED_BYTES, clear, copy_run, merge_columns, moments_of_rows
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.groups_of_columns import gather_sums
from fastnorm.kernels.scratch import vectors, vectors_beside
from fastnorm.kernels.tile import FEW, mean_distance, moments_about, shifted_to_mean, sums_about_shift
from fastnorm.kernels.walk import (
    column_place,
    elements_per_statistic,
    fetches_ahead,
    fold_within,
    position,
    row_span,
    run_length,
    span,
    tile_of_columns,
    units_of_columns,
)
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, COLUMNS, CUTS, FOLD, INNER, MEAN_OF, PROBLEM, SRC, START, STD_OF, STEP_OUTER

MEAN, LOW, VARIANCE, RSTD = 0, 1, 2, 3
# Elements of a run up to which all runs of a statistic are summed about one shift: the mean of the first elements of four of them.
SHORT, GUESSES = 1024, 4


@loop
def record(stats, stat, moments, eps):
    stats[MEAN, stat], stats[LOW, stat] = rounded_mean(moments)
    var = variance(moments)
    stats[VARIANCE, stat] = var
    stats[RSTD, stat] = reciprocal_std(var, eps)


@variant
def means_of(stats: Any, centre: Any) -> Any:
    """High and low row of the means, or None, None.

    Not a branch on `centre`, after which both could be None: another type, of which everything is compiled again.
    """
    if centre is types.none:
        return lambda stats, centre: (None, None)
    return lambda stats, centre: (row(stats, MEAN), row(stats, LOW))


@loop
def shift_of_short_runs(src, table, b, c, begin, end):
    """For all runs: the mean of the first elements of some of them."""
    inner = table[PROBLEM, INNER]
    few, origin = min(inner, FEW), load(cut(src, position(table, SRC, b, 0, c, 0), 1), 0)
    guess = zero_of(src)
    for k in range(GUESSES):
        line = cut(src, position(table, SRC, b, (begin + (end - begin) * k // GUESSES) // inner, c, 0), few)
        guess += mean_distance(line, origin, few, None)
    return origin_near(src, origin + guess / as_compute(guess, GUESSES))


@loop
def sums_of_short_runs(src, centre, table, b, c, begin, end, shift):
    """Of d and d*d, where d = x - shift."""
    inner = table[PROBLEM, INNER]
    total, squares = 0.0, 0.0
    o = begin // inner
    i = begin - o * inner
    left = end - begin
    while left > 0:
        n = min(inner - i, left)
        line = cut(src, position(table, SRC, b, o, c, i), n)
        of_run = sums_about_shift(centre, line, n, shift)
        total += of_run[0]
        squares += of_run[1]
        o, i, left = o + 1, 0, left - n
    return total, squares


@chunk_body
def moments_of_short_runs(src, centre, table, b, c, begin, end):
    """About one shift. Moments of each and their merge took three times as long for planes of 8 x 8."""
    wide_vectors()
    count = float(end - begin)
    shift = shift_of_short_runs(src, table, b, c, begin, end) if centre is not None else zero_of(src)
    total, squares = sums_of_short_runs(src, centre, table, b, c, begin, end, shift)
    if centre is not None and lopsided(count, total, squares):
        shift = shifted_to_mean(src, shift, total, count)
        total, squares = sums_of_short_runs(src, centre, table, b, c, begin, end, shift)
    return about_shift(count, float(shift), total, squares)


@chunk_body
def moments_of_span(src, centre, table, b, c, begin, end):
    """Of the elements begin to end of statistic (b, c), counted along outer and inner."""
    wide_vectors()
    inner = table[PROBLEM, INNER]
    if inner <= SHORT and end - begin > inner:
        return moments_of_short_runs(src, centre, table, b, c, begin, end)
    total, ahead = EMPTY, fetches_ahead(table)
    o = begin // inner
    i = begin - o * inner
    left = end - begin
    while left > 0:
        n = run_length(table, i, left)
        total = merge(total, moments_about(centre, cut(src, position(table, SRC, b, o, c, i), n), n, ahead))
        left -= n
        i += n
        if i == inner:
            o, i = o + 1, 0
    return total


@chunk_body
def planar_moments_chunk(src, centre, table, partial, chunk):
    compact()
    cuts, channel = table[PROBLEM, CUTS], table[PROBLEM, CHANNEL]
    statistics = table[PROBLEM, BATCH] * channel
    first, last = span(statistics * cuts, table[PROBLEM, CHUNKS], chunk)
    for unit in range(first, last):
        stat = unit // cuts
        part = unit - stat * cuts
        begin, end = span(elements_per_statistic(table), cuts, part)
        b = stat // channel
        moments = moments_of_span(src, centre, table, b, stat - b * channel, begin, end)
        target = row(partial, part)
        target[stat] = moments.count
        target[statistics + stat] = moments.mean
        target[2 * statistics + stat] = moments.low
        target[3 * statistics + stat] = moments.m2


@driver
def planar_moments(crew, src, centre, table, partial):
    deal(crew, planar_moments_chunk, table[PROBLEM, CHUNKS], (src, centre, table, partial))


@driver
def planar_merge(table, partial, stats, eps):
    n = table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL]
    for stat in range(n):
        total = EMPTY
        for part in range(table[PROBLEM, CUTS]):
            one = row(partial, part)
            total = merge(total, Moments(one[stat], one[n + stat], one[2 * n + stat], one[3 * n + stat]))
        record(stats, stat, total, eps)


@chunk_body
def moments_of_block(src, centre, grouped, table, b, column, n, begin, end, moments, block_moments, sums):
    """Of rows begin to end of the n columns from `column` on: moments[1:4] of their statistics, and the count of each returned."""
    compact()
    each = 1 if grouped is None else table[PROBLEM, INNER]
    mean, low, m2 = row(moments, 1), row(moments, 2), row(moments, 3)
    if centre is None:  # squares are added to what is there
        clear(mean, n)
        clear(low, n)
        clear(m2, m2.size)
    fold, ahead = fold_within(table, n, SUMMED_BYTES // sums.itemsize), fetches_ahead(table)
    folded = (end - begin) // fold
    rest = begin + folded * fold
    count = 0.0
    for part in range(2):  # the folded rows, then those that do not fill one: one copy of the loop
        first = begin if part == 0 else rest
        n_rows = folded if part == 0 else end - rest
        times = fold if part == 0 else 1
        place = column_place(table, SRC, b, first, column)
        count = moments_of_rows(
            src, centre, place, table[SRC, STEP_OUTER] * times, n_rows, n, times, grouped, each, count, moments, block_moments,
            sums, ahead,
        )  # fmt: skip
    if centre is None:
        gather_sums(grouped, m2, m2, n // each, each)
        count *= each
    return count


@chunk_body
def record_columns(stats, first_stat, count, moments, n, eps):
    """n statistics."""
    wide_vectors()
    mean, low, m2 = row(moments, 1), row(moments, 2), row(moments, 3)
    means, lows = cut(row(stats, MEAN), first_stat, n), cut(row(stats, LOW), first_stat, n)
    variances, rstds = cut(row(stats, VARIANCE), first_stat, n), cut(row(stats, RSTD), first_stat, n)
    for i in range(n):  # vectorizes, with `at` and `write`: seven vectors are more than LLVM compares
        of_one = Moments(count, at(mean, i), at(low, i), at(m2, i))
        high, rest = rounded_mean(of_one)
        var = variance(of_one)
        write(means, i, high)
        write(lows, i, rest)
        write(variances, i, var)
    if eps >= 0.0:
        for i in range(n):
            write(rstds, i, reciprocal_std(at(variances, i), eps))


@chunk_body
def put_averages(out, count, moments, n, what, times, by):
    """What is asked for of n columns, in the dtype of `out`: four float64 numbers of each cost more than the sums of a few rows."""
    wide_vectors()
    mean, low, m2 = row(moments, 1), row(moments, 2), row(moments, 3)
    if what == MEAN_OF:
        for i in range(n):
            write(out, i, rounded_mean(Moments(count, at(mean, i), at(low, i), at(m2, i)))[0])
        return
    for i in range(n):
        m2[i] = variance(Moments(count, mean[i], low[i], m2[i]))
    put_variances(out, m2, n, what, times, by)


@chunk_body
def put_variances(out, variances, n, what, times, by):
    """Or their roots; overwrites the variances."""
    wide_vectors()
    if times != by:
        for i in range(n):
            variances[i] = rescaled(variances[i], times, by)
    if what == STD_OF:
        for i in range(n):
            variances[i] = root(variances[i])
    for i in range(n):
        write(out, i, at(variances, i))


@loop
def all_finite(values):
    others = zero_of(values)
    for i in range(values.size):
        others += not_finite(at(values, i))
    return others == 0


@chunk_body
def interleaved_moments_chunk(src, centre, table, partial, stats, eps, grouped, averages, chunk):
    """Uncut columns go straight to their statistics, or averages."""
    compact()
    cuts, channel, inner = table[PROBLEM, CUTS], table[PROBLEM, CHANNEL], table[PROBLEM, INNER]
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    width = table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD]
    moments = vectors(0.0, 4, width)
    block_moments = vectors(0.0, 4, width)
    sums = vectors_beside(zero_of(src), 4, width, src, table[SRC, START])
    each = 1 if grouped is None else inner
    for unit in range(first, last):
        tile = unit // cuts
        part = unit - tile * cuts
        b, column, n = tile_of_columns(table, tile)
        begin, end = row_span(table, part)
        count = moments_of_block(src, centre, grouped, table, b, column, n, begin, end, moments, block_moments, sums)
        first_stat, statistics = b * channel + column // each, n // each
        if cuts == 1:
            if averages is None:
                record_columns(stats, first_stat, count, moments, statistics, eps)
            else:
                target = cut(averages[0], first_stat, statistics)
                put_averages(target, count, moments, statistics, averages[1], averages[2], averages[3])
            continue
        counts = row(moments, 0)
        for i in range(statistics):
            counts[i] = count
        for field in range(4):
            copy_run(cut(row(partial, part), field * partial.shape[2] + first_stat, statistics), row(moments, field), statistics)


@driver
def interleaved_moments(crew, src, centre, table, partial, stats, eps, grouped, averages):
    """Whether all averages are finite.

    averages : None; or, in place of `stats`, a vector for uncut columns with a statistic each, which of MEAN_OF, VARIANCE_OF, STD_OF
        comes there, and two numbers that a variance is multiplied with and divided by
    """
    deal(crew, interleaved_moments_chunk, table[PROBLEM, CHUNKS], (src, centre, table, partial, stats, eps, grouped, averages))
    if averages is None:
        return True
    return all_finite(averages[0])


@driver
def interleaved_merge(table, partial, stats, eps):
    """Row cuts in order, vectorized over the statistics. Of one cut there is nothing to do."""
    if table[PROBLEM, CUTS] == 1:
        return
    n = partial.shape[2]
    total = partial[0]
    mean, low, m2 = row(total, 1), row(total, 2), row(total, 3)
    count = total[0, 0]
    for part in range(1, table[PROBLEM, CUTS]):
        other = row(partial, part)
        merge_columns(count, mean, low, m2, other[0], cut(other, n, n), cut(other, 2 * n, n), cut(other, 3 * n, n), n)
        count += other[0]
    record_columns(stats, 0, count, total, n, eps)


@driver
def merge_into(total, other):
    """Join the moments (4, n) of `other`, count, mean, low and m2, into those of `total`."""
    for i in range(total.shape[1]):
        joined = merge(
            Moments(total[0, i], total[1, i], total[2, i], total[3, i]),
            Moments(other[0, i], other[1, i], other[2, i], other[3, i]),
        )
        total[0, i] = joined.count
        total[1, i] = joined.mean
        total[2, i] = joined.low
        total[3, i] = joined.m2
