"""Moments and their application in one launch: while a statistic's elements are in cache.

centre  : None where deviations are from zero (RMS norm), anything where they are from the mean
streams : as in `kernels.apply`; a branch cost rows of 1 to 64 elements half of their speed
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.moments import EMPTY, about_shift, merge, reciprocal_std, rounded_mean, variance
from fastnorm.element.parameters import either, gain_of, of_elements, only_with, only_without
from fastnorm.element.storage import cut, row, subrun, zero_of
from fastnorm.element.streaming import before_line
from fastnorm.kernels.apply import apply_to_block, apply_to_span, column_parameters, mean_parts, parameters_of
from fastnorm.kernels.columns import SPARE, lead_of
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.dense_runs import by_lines
from fastnorm.kernels.group_runs import are_lines, normalize_by_lines, normalize_statistic, shared_by_runs, vectors_of_runs
from fastnorm.kernels.moments import LOW, MEAN, RSTD, VARIANCE, means_of, moments_of_block, moments_of_span, record, record_columns
from fastnorm.kernels.prefetch import AHEAD, PIECE, fetch_edges_to_write, fetch_run, fetch_run_later, fetch_run_to_write
from fastnorm.kernels.scratch import holding, vectors, vectors_beside
from fastnorm.kernels.tile import normalize_run, normalize_to, put_sum_of_runs, sums_about_guess
from fastnorm.kernels.walk import (
    column_place,
    distance_to_next,
    elements_per_statistic,
    fetches_ahead,
    next_statistic,
    position,
    span,
    tile_of_columns,
    units_of_columns,
)
from fastnorm.plan.table import (
    BATCH,
    CHANNEL,
    CHUNKS,
    COLUMNS,
    CUTS,
    EXTRA,
    FOLD,
    GRAD_EXTRA,
    INNER,
    OUT,
    OUTER,
    PARAM,
    PROBLEM,
    RUN,
    SRC,
    START,
    STEP_CHANNEL,
)

# Elements of a block of rows: their sums do not wait for each other. In cache 4096 are 1.03 to 1.08 times as fast as 1024 (rows of 512 to
# 1024), 8192 no faster; streaming 0.93 to 0.97, rows of `add_layer_norm` 0.81 to 0.97 (two cores of a Zen 4).
BLOCK, STREAMED_BLOCK = 4096, 1024


@chunk_body
def planar_normalize_chunk(src, residual, out, stats, gamma, beta, centre, eps, activation, streams, table, chunk):
    """Whole statistics; their cuts are merged as the split path merges them.

    With the next statistic fetched into L2 while this one is written, streaming, (32, 256, 56, 56) was 1.1 times as fast,
    (8, 64, 224, 224) 1.14, (32, 192, 28, 28) 1.4 (two cores of a Zen 4). Fetched into L1, it took 1.05 to 1.2 times as long.
    """
    compact()
    cuts, channel = table[PROBLEM, CUTS], table[PROBLEM, CHANNEL]
    first, last = span(table[PROBLEM, BATCH] * channel, table[PROBLEM, CHUNKS], chunk)
    n = elements_per_statistic(table)
    mean, low = means_of(stats, centre)
    rstd = row(stats, RSTD)
    for stat in range(first, last):
        b = stat // channel
        c = stat - b * channel
        moments = EMPTY
        for part in range(cuts):
            begin, end = span(n, cuts, part)
            moments = merge(moments, moments_of_span(src, centre, table, b, c, begin, end))
        record(stats, stat, moments, eps)
        away = only_with(distance_to_next(table, SRC, b, c), streams)
        apply_to_span(src, residual, out, mean, low, rstd, gamma, beta, None, activation, streams, table, b, c, 0, 0, n, away)
    fence()


@driver
def planar_normalize(crew, src, residual, out, stats, gamma, beta, centre, eps, activation, streams, table):
    arguments = (src, residual, out, stats, gamma, beta, centre, eps, activation, streams, table)
    deal(crew, planar_normalize_chunk, table[PROBLEM, CHUNKS], arguments)


@loop
def length_of_piece(streams, head, left):
    """Of the next piece of a run, which begins so many elements before a cache line of the output.

    Vectors that cross lines take two accesses: (1024, 1024) from L2 took 132 us, where x and y begin 16 bytes behind a line, as large
    arrays of NumPy do, and takes 111.
    """
    if streams is not None:
        return PIECE + head
    return head if head > 0 and left > PIECE else PIECE


@loop
def normalize_line(
    line, residual, target, rstd, high, low, gamma, beta, activation, streams, table, b, c, run, src, ahead, addend, addend_ahead
):
    """One run that is a whole statistic: its elements share parameters by `run`, but those that have their own.

    What lies `ahead` is fetched piece by piece.
    """
    param, zero, inner = position(table, PARAM, b, 0, c, 0), zero_of(line), table[PROBLEM, INNER]
    segment = 0
    while segment < inner:
        scale, offset = parameters_of(zero, rstd, low, gamma, beta, param)
        end = segment + run
        at = segment
        while at < end:
            n = min(length_of_piece(streams, before_line(target, at), end - at), end - at)
            gain, shift = gain_of(gamma, param + at, n), gain_of(beta, param + at, n)
            extra = cut(residual, position(table, EXTRA, b, 0, c, at), n)
            piece, of_target = subrun(line, at, n), subrun(target, at, n)
            if streams is None:
                fetch_run(src, ahead + at, n)
                fetch_run_to_write(target, 0, at + AHEAD, min(at + AHEAD + n, inner))
                normalize_run(piece, extra, of_target, n, high, scale, offset, gain, shift, activation)
            else:
                fetch_run_later(src, ahead + at, n)
                fetch_run_later(addend, addend_ahead + at, n)
                normalize_to(piece, extra, of_target, n, high, scale, offset, gain, shift, activation, streams)
            at += n
        segment = end
        param += 1


@loop
def sums_of_row(src, addend, total, held, stats, centre, table, stat, b, c, inner):
    """Sums of a row, or of its sum with the addend, about a shift: for `settle_rows`."""
    line = cut(src, position(table, SRC, b, 0, c, 0), inner)
    added = cut(addend, position(table, EXTRA, b, 0, c, 0), inner)
    both = cut(total, position(table, GRAD_EXTRA, b, 0, c, 0), inner)
    if addend is not None:
        put_sum_of_runs(line, added, both, held, inner)
    stats[MEAN, stat], stats[LOW, stat], stats[VARIANCE, stat] = sums_about_guess(
        centre, either(held, either(both, line)), inner, fetches_ahead(table)
    )


@loop
def settle_rows(stats, first, n, inner, eps):
    """From shift, sum and sum of squares to statistics, in place: vectorized, row by row it was 40 % of a short row."""
    means, lows = cut(row(stats, MEAN), first, n), cut(row(stats, LOW), first, n)
    variances, rstds = cut(row(stats, VARIANCE), first, n), cut(row(stats, RSTD), first, n)
    count = float(inner)
    for k in range(n):
        moments = about_shift(count, means[k], lows[k], variances[k])
        var = variance(moments)
        means[k], lows[k] = rounded_mean(moments)
        variances[k] = var
    if eps >= 0.0:
        for k in range(n):
            rstds[k] = reciprocal_std(variances[k], eps)


@loop
def normalize_block(
    src, residual, addend, out, total, held, stats, gamma, beta, centre, activation, streams, runs, parameters, table, begin, end, b, c, run
):
    """Statistics begin to end, the first of which is (b, c).

    Beside stores that bypass the caches the block after the next one is fetched into L2: 1.05 to 1.25 times as fast as the next one into
    L1 ((65536, 256) to (8192, 2048), two cores of a Zen 4).
    """
    channel, inner, zero = table[PROBLEM, CHANNEL], table[PROBLEM, INNER], zero_of(src)
    distance = end - begin if streams is None else 2 * (end - begin)
    mean, low = means_of(stats, centre)
    for stat in range(begin, end):
        high, rest = mean_parts(zero, mean, low, stat)
        ahead = position(table, SRC, b, 0, c, 0) + distance * table[SRC, STEP_CHANNEL]
        target = cut(out, position(table, OUT, b, 0, c, 0), inner)
        line = cut(src, position(table, SRC, b, 0, c, 0), inner)
        param = position(table, PARAM, b, 0, c, 0)
        if normalize_statistic(
            runs, line, target, parameters, high, rest, stats[RSTD, stat], gamma, beta, param, activation, inner // run, run
        ):
            b, c = next_statistic(b, c, channel)
            continue
        line = either(cut(held, (stat - begin) * inner, inner), either(cut(total, position(table, GRAD_EXTRA, b, 0, c, 0), inner), line))
        normalize_line(
            line, residual, target, stats[RSTD, stat], high, rest, gamma, beta, activation, streams, table, b, c, run, src, ahead, addend,
            position(table, EXTRA, b, 0, c, 0) + distance * table[EXTRA, STEP_CHANNEL],
        )  # fmt: skip
        b, c = next_statistic(b, c, channel)


@chunk_body
def rows_normalize_chunk(src, extra, out, total, stats, gamma, beta, centre, eps, activation, streams, table, chunk):
    """A statistic is one run; a block of them stays in L1 from the moments to the output.

    out   : None for the moments alone
    extra : None or the residual, to be added to the output
    total : None, or the sum of source and `extra` is written to it and normalized instead. Streaming, `add_layer_norm` takes 2.1 to 2.4
            times as long as `layer_norm` (twice as many tensors), with stores of the sum through the caches it took 2.6 to 2.9.
    """
    wide_vectors()
    residual, addend = only_without(extra, total), only_with(extra, total)
    channel, inner, run = table[PROBLEM, CHANNEL], table[PROBLEM, INNER], table[PROBLEM, RUN]
    first, last = span(table[PROBLEM, BATCH] * channel, table[PROBLEM, CHUNKS], chunk)
    run = inner if run == 1 else run
    block = max(1, (BLOCK if streams is None else STREAMED_BLOCK) // inner)
    held = holding(total, streams, block * inner)
    runs = shared_by_runs(gamma, beta, extra, total, streams)
    lines = only_with(by_lines(out, src, None, activation, streams), runs)
    parameters = vectors_of_runs(runs, zero_of(src), block * (inner // run))
    by_line = are_lines(runs, lines, src, out, table, run)
    b = first // channel
    c = first - b * channel
    for begin in range(first, last, block):
        end = min(begin + block, last)
        of_b, of_c = b, c
        for stat in range(begin, end):
            if out is not None:
                place = position(table, OUT, of_b, 0, of_c, 0)
                if streams is None:
                    fetch_run_to_write(out, place, 0, min(inner, AHEAD))
                elif by_line:
                    if stat == begin:
                        fetch_edges_to_write(out, place, (end - begin) * inner)
                else:
                    fetch_edges_to_write(out, place, inner)
                    fetch_edges_to_write(total, position(table, GRAD_EXTRA, of_b, 0, of_c, 0) + table[GRAD_EXTRA, STEP_CHANNEL], inner)
            sums_of_row(src, addend, total, cut(held, (stat - begin) * inner, inner), stats, centre, table, stat, of_b, of_c, inner)
            of_b, of_c = next_statistic(of_b, of_c, channel)
        settle_rows(stats, begin, end - begin, inner, eps)
        if by_line:
            normalize_by_lines(lines, src, out, stats, gamma, beta, centre, activation, parameters, table, begin, end, b, c, run)
        elif out is not None:
            normalize_block(
                src, residual, addend, out, total, held, stats, gamma, beta, centre, activation, streams, runs, parameters,
                table, begin, end, b, c, run,
            )  # fmt: skip
        b, c = of_b, of_c
    if streams is not None:
        fence()


@driver
def rows_normalize(crew, src, extra, out, total, stats, gamma, beta, centre, eps, activation, streams, table):
    arguments = (src, extra, out, total, stats, gamma, beta, centre, eps, activation, streams, table)
    deal(crew, rows_normalize_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def interleaved_normalize_chunk(src, residual, out, stats, gamma, beta, centre, eps, activation, streams, grouped, table, chunk):
    """Whole column tiles, each with all its rows; beside stores that bypass the caches the next tile is fetched, as in planes (1.04 to
    1.1 times as fast)."""
    compact()
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    width = table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD]
    moments = vectors(0.0, 4, width)
    block_moments = vectors(0.0, 4, width)
    sums = vectors_beside(zero_of(src), 4, width, src, table[SRC, START])
    parameters = vectors(zero_of(src), 3, width + SPARE)
    mean, low = means_of(stats, centre)
    rstd = row(stats, RSTD)
    outer, each = table[PROBLEM, OUTER], 1 if grouped is None else table[PROBLEM, INNER]
    for tile in range(first, last):
        b, column, n = tile_of_columns(table, tile)
        count = moments_of_block(src, centre, grouped, table, b, column, n, 0, outer, moments, block_moments, sums)
        record_columns(stats, b * table[PROBLEM, CHANNEL] + column // each, count, moments, n // each, eps)
        lead = lead_of(out, column_place(table, OUT, b, 0, column))
        column_parameters(parameters, lead, table, b, column, n, mean, low, rstd, gamma, beta, None, grouped)
        nb, next_column, _ = tile_of_columns(table, tile + 1)
        away = only_with(column_place(table, SRC, nb, 0, next_column) - column_place(table, SRC, b, 0, column), streams)
        gains, shifts = of_elements(gamma), of_elements(beta)
        apply_to_block(src, residual, out, parameters, lead, gains, shifts, activation, streams, table, b, column, n, 0, outer, away)
    fence()


@driver
def interleaved_normalize(crew, src, residual, out, stats, gamma, beta, centre, eps, activation, streams, grouped, table):
    arguments = (src, residual, out, stats, gamma, beta, centre, eps, activation, streams, grouped, table)
    deal(crew, interleaved_normalize_chunk, table[PROBLEM, CHUNKS], arguments)
