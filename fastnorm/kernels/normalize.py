"""Moments and their application in one launch: while a statistic's elements are in cache.

centre : None where deviations are from zero (RMS norm), anything where they are from the mean
"""

from __future__ import annotations

import numpy as np
from numba import prange

from fastnorm._jit import chunk_body, driver, loop, parallel_driver
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.moments import EMPTY, merge
from fastnorm.element.parameters import gain_of, only_with, only_without, shift_of
from fastnorm.element.storage import cut, flush, row, subrun, zero_of
from fastnorm.kernels.apply import apply_to_block, apply_to_span, column_parameters, mean_parts, parameters_of
from fastnorm.kernels.moments import LOW, MEAN, RSTD, VARIANCE, moments_of_block, moments_of_span, record, record_columns
from fastnorm.kernels.scratch import staging, vectors
from fastnorm.kernels.tile import moments_about, normalize_run, sum_of_runs
from fastnorm.kernels.walk import elements_per_statistic, position, span, tile_of_columns, units_of_columns
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
    STREAM,
)


@loop
def means_of(stats, centre):
    """High and low row of the means, or None, None."""
    if centre is None:
        return None, None
    return row(stats, MEAN), row(stats, LOW)


@chunk_body
def planar_normalize_chunk(src, residual, out, stats, gamma, beta, centre, eps, activation, table, chunk):
    """Whole statistics; their cuts are merged as the split path merges them."""
    compact()
    cuts, channel = table[PROBLEM, CUTS], table[PROBLEM, CHANNEL]
    first, last = span(table[PROBLEM, BATCH] * channel, table[PROBLEM, CHUNKS], chunk)
    n = elements_per_statistic(table)
    staged = staging(out)
    mean, low = means_of(stats, centre)
    var = row(stats, VARIANCE)
    for stat in range(first, last):
        b = stat // channel
        c = stat - b * channel
        moments = EMPTY
        for part in range(cuts):
            begin, end = span(n, cuts, part)
            moments = merge(moments, moments_of_span(src, centre, table, b, c, begin, end))
        record(stats, stat, moments, eps)
        apply_to_span(src, residual, out, staged, mean, low, var, gamma, beta, eps, activation, table, b, c, 0, n)
    fence()


@driver
def planar_normalize_serial(src, residual, out, stats, gamma, beta, centre, eps, activation, table):
    for chunk in range(table[PROBLEM, CHUNKS]):
        planar_normalize_chunk(src, residual, out, stats, gamma, beta, centre, eps, activation, table, chunk)


@parallel_driver
def planar_normalize_parallel(src, residual, out, stats, gamma, beta, centre, eps, activation, table):
    for chunk in prange(table[PROBLEM, CHUNKS]):
        planar_normalize_chunk(src, residual, out, stats, gamma, beta, centre, eps, activation, table, np.intp(chunk))


@loop
def normalize_line(line, residual, target, stats, stat, mean, low, gamma, beta, activation, table, b, c):
    """One run that is a whole statistic: in pieces that share their parameters."""
    inner, run = table[PROBLEM, INNER], table[PROBLEM, RUN]
    param, zero = position(table, PARAM, b, 0, c, 0), zero_of(line)
    length = inner if run == 1 else run
    high, rest = mean_parts(zero, mean, low, stat)
    for k in range(inner // length):
        i = k * length
        scale, shift = parameters_of(zero, stats[RSTD, stat], gamma, beta, param + k)
        gain, shifts = gain_of(gamma, param, length), shift_of(beta, shift, param, length)
        extra = cut(residual, position(table, EXTRA, b, 0, c, i), length)
        normalize_run(subrun(line, i, length), extra, subrun(target, i, length), length, high, rest, scale, gain, shifts, activation)


@chunk_body
def rows_normalize_chunk(src, extra, out, total, stats, gamma, beta, centre, eps, activation, table, chunk):
    """A statistic is one run, which stays in L1 from its moments to its output.

    extra : None or the residual, to be added to the output
    total : None, or the sum of source and `extra` is written to it and normalized instead
    """
    wide_vectors()
    residual, addend = only_without(extra, total), only_with(extra, total)
    channel, inner = table[PROBLEM, CHANNEL], table[PROBLEM, INNER]
    first, last = span(table[PROBLEM, BATCH] * channel, table[PROBLEM, CHUNKS], chunk)
    streaming = table[PROBLEM, STREAM] != 0
    staged = staging(out)
    mean, low = means_of(stats, centre)
    for stat in range(first, last):
        b = stat // channel
        c = stat - b * channel
        line = cut(src, position(table, SRC, b, 0, c, 0), inner)
        added = cut(addend, position(table, EXTRA, b, 0, c, 0), inner)
        whole = sum_of_runs(line, added, cut(total, position(table, GRAD_EXTRA, b, 0, c, 0), inner), inner)
        record(stats, stat, moments_about(centre, whole, inner), eps)
        place = position(table, OUT, b, 0, c, 0)
        target = cut(staged, 0, inner) if streaming else cut(out, place, inner)
        normalize_line(whole, residual, target, stats, stat, mean, low, gamma, beta, activation, table, b, c)
        if streaming:
            flush(staged, out, place, inner)
    fence()


@driver
def rows_normalize_serial(src, extra, out, total, stats, gamma, beta, centre, eps, activation, table):
    for chunk in range(table[PROBLEM, CHUNKS]):
        rows_normalize_chunk(src, extra, out, total, stats, gamma, beta, centre, eps, activation, table, chunk)


@parallel_driver
def rows_normalize_parallel(src, extra, out, total, stats, gamma, beta, centre, eps, activation, table):
    for chunk in prange(table[PROBLEM, CHUNKS]):
        rows_normalize_chunk(src, extra, out, total, stats, gamma, beta, centre, eps, activation, table, np.intp(chunk))


@chunk_body
def interleaved_normalize_chunk(src, residual, out, stats, gamma, beta, centre, eps, activation, table, chunk):
    """Whole column tiles, each with all its rows."""
    compact()
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    width = table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD]
    staged = staging(out)
    moments = vectors(0.0, 4, width)
    block_moments = vectors(0.0, 4, width)
    sums = vectors(zero_of(src), 3, width)
    parameters = vectors(zero_of(src), 4, width)
    mean, low = means_of(stats, centre)
    var = row(stats, VARIANCE)
    inner, outer = table[PROBLEM, INNER], table[PROBLEM, OUTER]
    for tile in range(first, last):
        b, column, n = tile_of_columns(table, tile)
        count = moments_of_block(src, centre, table, b, column, n, 0, outer, moments, block_moments, sums)
        record_columns(stats, b * table[PROBLEM, CHANNEL] + column // inner, count, moments, n, inner, eps)
        column_parameters(parameters, table, b, column, n, mean, low, var, gamma, beta, eps)
        apply_to_block(src, residual, out, staged, parameters, gamma, beta, activation, table, b, column, n, 0, outer)
    fence()


@driver
def interleaved_normalize_serial(src, residual, out, stats, gamma, beta, centre, eps, activation, table):
    for chunk in range(table[PROBLEM, CHUNKS]):
        interleaved_normalize_chunk(src, residual, out, stats, gamma, beta, centre, eps, activation, table, chunk)


@parallel_driver
def interleaved_normalize_parallel(src, residual, out, stats, gamma, beta, centre, eps, activation, table):
    for chunk in prange(table[PROBLEM, CHUNKS]):
        interleaved_normalize_chunk(src, residual, out, stats, gamma, beta, centre, eps, activation, table, np.intp(chunk))
