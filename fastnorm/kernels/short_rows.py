"""Rows of few elements, SHORT_ROW of `plan.schedule` at most: one thing at a time for all rows of a block, in loops so small that
the next rows are begun before.

What is done around a long row takes longer than a short one: rows of 1 to 64 elements took 20 to 50 ns each.
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.affine import origin_near
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.lanes import lanes_of
from fastnorm.element.parameters import either, gain_of, instead_of, only_without
from fastnorm.element.storage import FEW_LANES, LANES, as_compute, at, cut, load, row, write, zero_of
from fastnorm.kernels.apply import parameters_of_channels
from fastnorm.kernels.columns import clear, copy_run
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.dense_runs import FETCHED, by_lines, normalize_lines, repeat_parameter, spare_vectors
from fastnorm.kernels.moments import LOW, MEAN, RSTD, VARIANCE, all_finite, means_of, put_variances
from fastnorm.kernels.normalize import settle_rows
from fastnorm.kernels.prefetch import fetch_edges_to_write, fetch_run_anyway, fetch_run_later
from fastnorm.kernels.scratch import holding, vectors
from fastnorm.kernels.tile import (
    FEW,
    mean_distance,
    normalize_in_lanes,
    normalize_to,
    put_sum_of_runs,
    squares_at_once,
    sums_at_once,
)
from fastnorm.kernels.walk import span
from fastnorm.plan.table import (
    BATCH,
    CHANNEL,
    CHUNKS,
    EXTRA,
    GRAD_EXTRA,
    INNER,
    MEAN_OF,
    NO_RSTD,
    OUT,
    PROBLEM,
    SRC,
    START,
    STEP_BATCH,
    STEP_CHANNEL,
)

# Elements of a block of rows, which stays in L1; and rows of a block at most.
BLOCK, MOST = 2048, 256


@loop
def row_place(table, operand, stat):
    """Where a row begins: batches follow each other as the rows of one do."""
    step = table[operand, STEP_CHANNEL] if table[PROBLEM, CHANNEL] > 1 else table[operand, STEP_BATCH]
    return table[operand, START] + stat * step, step


@loop
def shifts_in_lanes(src, place, step, n, few, shifts, lanes):
    for k in range(n):
        run = cut(src, place + k * step, few)
        first = load(run, 0)
        write(shifts, k, origin_near(run, first + mean_distance(run, first, few, lanes)))


@chunk_body
def shifts_of_rows(src, place, step, n, inner, shifts):
    """Of every row the mean of its first elements: of 192 and FEW never more than 1.5 standard deviations off."""
    wide_vectors()
    if inner <= FEW_LANES:
        shifts_in_lanes(src, place, step, n, inner, shifts, FEW_LANES)
    else:
        shifts_in_lanes(src, place, step, n, min(inner, FEW), shifts, LANES)


@loop
def sums_in_lanes(src, place, step, n, inner, shifts, totals, squares, lanes):
    for k in range(n):
        run = cut(src, place + k * step, inner)
        total, square = sums_at_once(run, inner, as_compute(zero_of(run), at(shifts, k)), lanes)
        write(totals, k, total)
        write(squares, k, square)


@chunk_body
def sums_of_rows(src, place, step, n, inner, shifts, totals, squares):
    """Of d and d*d, where d = x - shift."""
    wide_vectors()
    if inner <= FEW_LANES:
        sums_in_lanes(src, place, step, n, inner, shifts, totals, squares, FEW_LANES)
    else:
        sums_in_lanes(src, place, step, n, inner, shifts, totals, squares, LANES)


@loop
def squares_in_lanes(src, place, step, n, inner, squares, lanes):
    for k in range(n):
        write(squares, k, squares_at_once(cut(src, place + k * step, inner), inner, lanes))


@chunk_body
def squares_of_rows(src, place, step, n, inner, squares):
    wide_vectors()
    if inner <= FEW_LANES:
        squares_in_lanes(src, place, step, n, inner, squares, FEW_LANES)
    else:
        squares_in_lanes(src, place, step, n, inner, squares, LANES)


@loop
def sums_of_some(src, centre, place, step, n, inner, shifts, totals, squares):
    if centre is None:
        squares_of_rows(src, place, step, n, inner, squares)
    else:
        sums_of_rows(src, place, step, n, inner, shifts, totals, squares)


@chunk_body
def statistics_of_short_rows(src, stats, first, centre, eps, lines, place, step, n, inner):
    """Of n rows, to the statistics from `first` on.

    lines : None, or anything if the next block is fetched meanwhile, some rows at once. Not in the loops over rows: compiled with it, these
            had other last bits
    """
    wide_vectors()
    shifts, totals, squares = cut(row(stats, MEAN), first, n), cut(row(stats, LOW), first, n), cut(row(stats, VARIANCE), first, n)
    if centre is None:
        clear(shifts, n)
        clear(totals, n)
    else:
        shifts_of_rows(src, place, step, n, inner, shifts)
    if lines is None:
        sums_of_some(src, centre, place, step, n, inner, shifts, totals, squares)
    else:
        some = max(1, FETCHED // inner)
        for k in range(0, n, some):
            m = min(some, n - k)
            fetch_run_later(src, place + (n + k) * step, m * step)
            sums_of_some(
                src, centre, place + k * step, step, m, inner, cut(shifts, k, m), cut(totals, k, m), cut(squares, k, m)
            )  # fmt: skip
    settle_rows(stats, first, n, inner, eps)


@loop
def parameters_of_rows(parameters, table, begin, n, stats, first, centre, gamma, beta):
    """Fill high, scale, offset of n statistics from `first` on, of rows from `begin` on; learned parameters begin again with every
    batch."""
    mean, low = means_of(stats, centre)
    channel = table[PROBLEM, CHANNEL]
    c, k = begin % channel, 0
    while k < n:
        m = min(n - k, channel - c)
        parameters_of_channels(parameters, k, first + k, c, m, mean, low, row(stats, RSTD), gamma, beta, None)
        c, k = 0, k + m


@loop
def normalize_rows_in_lanes(src, ahead, out, parameters, gamma, beta, activation, streams, place, step, table, begin, n, inner, lanes):
    target, target_step = row_place(table, OUT, begin)
    highs, scales, offsets = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    gain, shift = gain_of(gamma, 0, inner), gain_of(beta, 0, inner)
    for k in range(n):
        run, result = cut(src, place + k * step, inner), cut(out, target + k * target_step, inner)
        if streams is None:
            normalize_in_lanes(run, None, result, inner, at(highs, k), at(scales, k), at(offsets, k), gain, shift, activation, lanes)
        else:
            fetch_run_anyway(ahead, place + (n + k) * step, inner)
            normalize_to(run, None, result, inner, at(highs, k), at(scales, k), at(offsets, k), gain, shift, activation, streams)


@loop
def write_lines(src, out, parameters, spare, gamma, beta, activation, place, step, table, begin, n, inner):
    target, target_step = row_place(table, OUT, begin)
    if step != inner or target_step != inner or inner < lanes_of(out):
        return False
    highs, scales, offsets = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    gains, shifts = instead_of(gamma, row(spare, 0)), instead_of(beta, row(spare, 1))
    count = n * inner
    line, result = cut(src, place, count), cut(out, target, count)
    normalize_lines(line, None, result, highs, scales, offsets, gains, shifts, activation, 0, n, inner)
    return True


@chunk_body
def normalize_short_rows(src, ahead, out, parameters, spare, lines, gamma, beta, activation, streams, place, step, table, begin, n, inner):
    """ahead : the source if its next rows are to be fetched, or None"""
    wide_vectors()
    if lines is not None and write_lines(src, out, parameters, spare, gamma, beta, activation, place, step, table, begin, n, inner):
        return
    if streams is None and inner <= FEW_LANES:
        normalize_rows_in_lanes(
            src, ahead, out, parameters, gamma, beta, activation, None, place, step, table, begin, n, inner, FEW_LANES
        )  # fmt: skip
    else:
        normalize_rows_in_lanes(src, ahead, out, parameters, gamma, beta, activation, streams, place, step, table, begin, n, inner, LANES)


@loop
def fetch_edges_of_rows(out, table, begin, n, inner):
    place, step = row_place(table, OUT, begin)
    for k in range(n):
        fetch_edges_to_write(out, place + k * step, inner)


@loop
def add_rows(src, addend, total, held, streams, table, begin, n, inner):
    """Write the sums of n rows and their addends, as `put_sum_of_runs`: where nothing lies between them, of all in one run."""
    place, step = row_place(table, SRC, begin)
    of_addend, addend_step = row_place(table, EXTRA, begin)
    target, target_step = row_place(table, GRAD_EXTRA, begin)
    whole = step == inner and addend_step == inner and target_step == inner
    times, length = (1, n * inner) if whole else (n, inner)
    for k in range(times):
        if streams is not None:
            fetch_run_later(src, place + n * step + k * step, length)
            fetch_run_later(addend, of_addend + n * addend_step + k * addend_step, length)
        run, added = cut(src, place + k * step, length), cut(addend, of_addend + k * addend_step, length)
        put_sum_of_runs(run, added, cut(total, target + k * target_step, length), cut(held, k * inner, length), length)


@loop
def place_of_rows(total, held, table, begin, inner):
    """Where what is normalized begins, and how far apart its rows lie."""
    if held is not None:
        return 0, inner
    return row_place(table, SRC if total is None else GRAD_EXTRA, begin)


@chunk_body
def short_rows_normalize_chunk(src, addend, out, total, stats, gamma, beta, centre, eps, activation, streams, table, chunk):
    """out   : None for the moments alone
    addend, total : None, or the sum of source and addend is written to `total` and normalized instead
    stats : or of no columns, where nobody asks for statistics: rows of 16 then take half as long, of 32 0.75 of the time
    """
    compact()
    inner = table[PROBLEM, INNER]
    first, last = span(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL], table[PROBLEM, CHUNKS], chunk)
    block = min(MOST, BLOCK // inner)
    held = holding(total, streams, block * inner)
    source, ahead = either(held, either(total, src)), only_without(src, total)
    lines = by_lines(out, source, None, activation, streams)
    parameters, spare = vectors(zero_of(src), 3, block), spare_vectors(lines, zero_of(src), inner)
    wanted = stats.shape[1] > 0
    found = stats if wanted else vectors(0.0, 4, block)
    repeat_parameter(lines, spare, 0, gain_of(gamma, 0, inner), inner)
    repeat_parameter(lines, spare, 1, gain_of(beta, 0, inner), inner)
    for begin in range(first, last, block):
        n = min(block, last - begin)
        target = begin if wanted else 0
        if lines is not None and row_place(table, OUT, begin)[1] == inner:
            fetch_edges_of_rows(out, table, begin, 1, n * inner)
        elif streams is not None:
            fetch_edges_of_rows(out, table, begin, n, inner)
        if total is not None:
            add_rows(src, addend, total, held, streams, table, begin, n, inner)
        place, step = place_of_rows(total, held, table, begin, inner)
        statistics_of_short_rows(source, found, target, centre, eps, only_without(lines, total), place, step, n, inner)
        if out is not None:
            parameters_of_rows(parameters, table, begin, n, found, target, centre, gamma, beta)
            normalize_short_rows(
                source, ahead, out, parameters, spare, lines, gamma, beta, activation, streams, place, step, table, begin, n, inner
            )  # fmt: skip
    if streams is not None:
        fence()


@driver
def short_rows_normalize(crew, src, addend, out, total, stats, gamma, beta, centre, eps, activation, streams, table):
    arguments = (src, addend, out, total, stats, gamma, beta, centre, eps, activation, streams, table)
    deal(crew, short_rows_normalize_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def short_rows_averages_chunk(src, averages, what, times, by, table, chunk):
    compact()
    inner = table[PROBLEM, INNER]
    first, last = span(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL], table[PROBLEM, CHUNKS], chunk)
    block = min(MOST, BLOCK // inner)
    stats = vectors(0.0, 4, block)
    for begin in range(first, last, block):
        n = min(block, last - begin)
        place, step = row_place(table, SRC, begin)
        statistics_of_short_rows(src, stats, 0, 0, NO_RSTD, None, place, step, n, inner)
        target = cut(averages, begin, n)
        if what == MEAN_OF:
            copy_run(target, row(stats, MEAN), n)
        else:
            put_variances(target, row(stats, VARIANCE), n, what, times, by)


@driver
def short_rows_averages(crew, src, averages, what, times, by, table):
    """Whether all averages are finite; averages, what, times, by : as of `kernels.moments.interleaved_moments`"""
    deal(crew, short_rows_averages_chunk, table[PROBLEM, CHUNKS], (src, averages, what, times, by, table))
    return all_finite(averages)
