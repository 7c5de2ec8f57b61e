"""Moments and their application in one launch: while a statistic's elements are in L2."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastnorm._jit import chunk_body, driver, parallel_driver
from fastnorm.element.bits import compact, fence
from fastnorm.element.moments import EMPTY, merge
from fastnorm.element.storage import row, zero_of
from fastnorm.kernels.apply import apply_to_block, apply_to_span, column_parameters
from fastnorm.kernels.moments import LOW, MEAN, VARIANCE, moments_of_block, moments_of_span, record, record_columns
from fastnorm.kernels.scratch import staging, vectors
from fastnorm.kernels.walk import elements_per_statistic, span, tile_of_columns, units_of_columns
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, COLUMNS, CUTS, FOLD, INNER, OUTER, PROBLEM


@chunk_body
def planar_normalize_chunk(src, residual, out, stats, gamma, beta, eps, activation, table, chunk):
    """Whole statistics; their cuts are merged as the split path merges them."""
    compact()
    cuts, channel = table[PROBLEM, CUTS], table[PROBLEM, CHANNEL]
    first, last = span(table[PROBLEM, BATCH] * channel, table[PROBLEM, CHUNKS], chunk)
    n = elements_per_statistic(table)
    staged = staging(out)
    mean, low, var = row(stats, MEAN), row(stats, LOW), row(stats, VARIANCE)
    for stat in range(first, last):
        b = stat // channel
        c = stat - b * channel
        moments = EMPTY
        for part in range(cuts):
            begin, end = span(n, cuts, part)
            moments = merge(moments, moments_of_span(src, table, b, c, begin, end))
        record(stats, stat, moments, eps)
        apply_to_span(src, residual, out, staged, mean, low, var, gamma, beta, eps, activation, table, b, c, 0, n)
    fence()


@driver
def planar_normalize_serial(src, residual, out, stats, gamma, beta, eps, activation, table):
    for chunk in range(table[PROBLEM, CHUNKS]):
        planar_normalize_chunk(src, residual, out, stats, gamma, beta, eps, activation, table, chunk)


@parallel_driver
def planar_normalize_parallel(src, residual, out, stats, gamma, beta, eps, activation, table):
    for chunk in prange(table[PROBLEM, CHUNKS]):
        planar_normalize_chunk(src, residual, out, stats, gamma, beta, eps, activation, table, np.intp(chunk))


@chunk_body
def interleaved_normalize_chunk(src, residual, out, stats, gamma, beta, eps, activation, table, chunk):
    """Whole column tiles, each with all its rows."""
    compact()
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    width = table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD]
    staged = staging(out)
    moments = vectors(0.0, 4, width)
    block_moments = vectors(0.0, 4, width)
    sums = vectors(zero_of(src), 3, width)
    parameters = vectors(zero_of(src), 4, width)
    mean, low, var = row(stats, MEAN), row(stats, LOW), row(stats, VARIANCE)
    inner, outer = table[PROBLEM, INNER], table[PROBLEM, OUTER]
    for tile in range(first, last):
        b, column, n = tile_of_columns(table, tile)
        count = moments_of_block(src, table, b, column, n, 0, outer, moments, block_moments, sums)
        record_columns(stats, b * table[PROBLEM, CHANNEL] + column // inner, count, moments, n, inner, eps)
        column_parameters(parameters, table, b, column, n, mean, low, var, gamma, beta, eps)
        apply_to_block(src, residual, out, staged, parameters, activation, table, b, column, n, 0, outer)
    fence()


@driver
def interleaved_normalize_serial(src, residual, out, stats, gamma, beta, eps, activation, table):
    for chunk in range(table[PROBLEM, CHUNKS]):
        interleaved_normalize_chunk(src, residual, out, stats, gamma, beta, eps, activation, table, chunk)


@parallel_driver
def interleaved_normalize_parallel(src, residual, out, stats, gamma, beta, eps, activation, table):
    for chunk in prange(table[PROBLEM, CHUNKS]):
        interleaved_normalize_chunk(src, residual, out, stats, gamma, beta, eps, activation, table, np.intp(chunk))
