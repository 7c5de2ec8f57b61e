"""Whole contiguous arrays on one thread, from compiled code: the table is made there, then a chunk body walks it.

What `fn.layer_norm` and its kin in nopython mode, and the C functions, are made of.
"""

from __future__ import annotations

import math

import numpy as np

from fastnorm._jit import loop, maker
from fastnorm.element.storage import load
from fastnorm.kernels.apply import interleaved_apply_chunk, planar_apply_chunk
from fastnorm.kernels.gradient import parameter_gradients, planar_backward_chunk
from fastnorm.kernels.gradient_columns import interleaved_backward_chunk
from fastnorm.kernels.gradient_elements import elements_backward_chunk
from fastnorm.kernels.moments import (
    MEAN,
    interleaved_moments_chunk,
    planar_merge,
    planar_moments_chunk,
)
from fastnorm.kernels.normalize import interleaved_normalize_chunk, planar_normalize_chunk, rows_normalize_chunk
from fastnorm.kernels.walk import position
from fastnorm.plan import tiles
from fastnorm.plan.schedule import (
    FOLD_BYTES,
    MANY_ROWS,
    READ_PIECE_BYTES,
    ROW_BYTES,
    ROWS_AT_ONCE,
    TILE_BYTES,
    WHOLE_ROW_BYTES,
    WRITTEN_ROW_BYTES,
)
from fastnorm.plan.table import (
    AT_ONCE,
    BATCH,
    CHANNEL,
    CHUNKS,
    COLUMNS,
    CUTS,
    FOLD,
    GRAD_EXTRA,
    INNER,
    N_ROWS,
    OUTER,
    PARAM,
    PROBLEM,
    RUN,
    SRC,
    STEP_BATCH,
    STEP_CHANNEL,
    STEP_INNER,
    STEP_OUTER,
    TILE,
    UNBROKEN,
    WIDTH,
)

has_short_runs, cuts_of = loop(tiles.has_short_runs), loop(tiles.cuts_of)
columns_of_tile, fold_of = loop(tiles.columns_of_tile), loop(tiles.fold_of)


@maker
def contiguous(batch, outer, channel, inner, run):
    """Table of operands that all are contiguous, in one chunk; stores go through the caches."""
    table = np.zeros((N_ROWS, WIDTH), np.int64)
    table[PROBLEM, BATCH], table[PROBLEM, OUTER], table[PROBLEM, CHANNEL] = batch, outer, channel
    table[PROBLEM, INNER], table[PROBLEM, RUN] = inner, run
    table[PROBLEM, CUTS], table[PROBLEM, CHUNKS], table[PROBLEM, FOLD], table[PROBLEM, AT_ONCE] = 1, 1, 1, ROWS_AT_ONCE
    for operand in range(SRC, GRAD_EXTRA + 1):
        table[operand, STEP_BATCH] = outer * channel * inner
        table[operand, STEP_OUTER] = channel * inner
        table[operand, STEP_CHANNEL] = inner
        table[operand, STEP_INNER] = 1
    table[PARAM, STEP_CHANNEL], table[PARAM, STEP_INNER] = inner // run, 1
    return table


@maker
def table_of_rows(rows, n, itemsize):
    """Every row is a statistic; its elements have parameters of their own."""
    table = contiguous(rows, 1, 1, n, 1)
    table[PROBLEM, TILE] = TILE_BYTES // itemsize
    return table


@maker
def table_of_columns(batch, outer, channel, inner, run, itemsize, read_only):
    """Rows of all channels side by side. Numbers are shared by `run` elements."""
    table = contiguous(batch, outer, channel, inner, run)
    many = read_only and outer >= MANY_ROWS
    whole, piece = READ_PIECE_BYTES if many else WHOLE_ROW_BYTES, READ_PIECE_BYTES if many else ROW_BYTES
    columns = columns_of_tile(channel, inner, whole // itemsize, piece // itemsize)
    table[PROBLEM, COLUMNS] = columns
    table[PROBLEM, TILE] = WRITTEN_ROW_BYTES // itemsize
    if columns == channel * inner:
        table[PROBLEM, FOLD], table[PROBLEM, UNBROKEN] = fold_of(columns, outer, FOLD_BYTES // itemsize), 1
    return table


@maker
def table_of(batch, outer, channel, inner, run, itemsize, read_only):
    """Table, and whether columns are walked instead of runs."""
    if has_short_runs(outer, inner) or (run == 1 and inner > 1):
        return table_of_columns(batch, outer, channel, inner, run, itemsize, read_only), True
    table = contiguous(batch, outer, channel, inner, run)
    table[PROBLEM, CUTS] = cuts_of(outer * inner)
    table[PROBLEM, TILE] = TILE_BYTES // itemsize
    return table, False


@maker
def normalize_rows(src, out, stats, gamma, beta, centre, eps, rows, n):
    """gamma, beta : None, or a vector in a tuple; centre : None for RMS norm; stats (4, rows)"""
    table = table_of_rows(rows, n, src.itemsize)
    rows_normalize_chunk(src, None, out, None, stats, gamma, beta, centre, eps, None, None, table, np.intp(0))


@maker
def normalize_array(src, out, stats, gamma, beta, eps, batch, outer, channel, inner, run):
    """With statistics of its own, which are written to stats (4, batch * channel)."""
    table, interleaved = table_of(batch, outer, channel, inner, run, src.itemsize, False)
    if interleaved:
        interleaved_normalize_chunk(src, None, out, stats, gamma, beta, np.intp(0), eps, None, None, 0, table, np.intp(0))
    else:
        planar_normalize_chunk(src, None, out, stats, gamma, beta, np.intp(0), eps, None, None, table, np.intp(0))


@maker
def apply_to_columns(src, residual, out, mean, var, gamma, beta, eps, activation, rows, channel):
    """With given statistics of every column."""
    table = table_of_columns(1, rows, channel, 1, 1, src.itemsize, False)
    interleaved_apply_chunk(src, residual, out, mean, None, var, gamma, beta, eps, activation, None, None, table, np.intp(0))


@maker
def apply_to_array(src, out, mean, var, gamma, beta, eps, outer, channel, inner):
    """With given statistics of every channel."""
    table, interleaved = table_of(1, outer, channel, inner, inner, src.itemsize, False)
    if interleaved:
        interleaved_apply_chunk(src, None, out, mean, None, var, gamma, beta, eps, None, None, 0, table, np.intp(0))
    else:
        planar_apply_chunk(src, None, out, mean, None, var, gamma, beta, eps, None, None, table, np.intp(0))


@maker
def moments_of_all_columns(src, stats, batch, rows, columns):
    """Fill stats (4, batch * columns): mean, its low part, variance, 1 / sqrt(variance)."""
    table = table_of_columns(batch, rows, columns, 1, 1, src.itemsize, True)
    interleaved_moments_chunk(src, np.intp(0), table, np.empty((0, 4, 0)), stats, 0.0, None, None, np.intp(0))
    settle_infinities(src, stats, table)


@maker
def moments_of_array(src, stats, outer, channel, inner):
    """The same of every channel."""
    table, interleaved = table_of(1, outer, channel, inner, inner, src.itemsize, True)
    if interleaved:
        interleaved_moments_chunk(src, np.intp(0), table, np.empty((0, 4, 0)), stats, 0.0, 0, None, np.intp(0))
    else:
        partial = np.empty((table[PROBLEM, CUTS], 4, channel))
        planar_moments_chunk(src, np.intp(0), table, partial, np.intp(0))
        planar_merge(table, partial, stats, 0.0)
    settle_infinities(src, stats, table)


@loop
def settle_infinities(src, stats, table):
    """Differences from a shift turn an infinity into NaN; the mean of numbers and infinities of one sign is infinite."""
    channel = table[PROBLEM, CHANNEL]
    for stat in range(table[PROBLEM, BATCH] * channel):
        if math.isnan(stats[MEAN, stat]):
            stats[MEAN, stat] = plain_mean(src, table, stat // channel, stat % channel)


@loop
def plain_mean(src, table, b, c):
    outer, inner = table[PROBLEM, OUTER], table[PROBLEM, INNER]
    share = 1.0 / (outer * inner)
    total = 0.0
    for o in range(outer):
        for i in range(inner):
            total += load(src, position(table, SRC, b, o, c, i)) * share
    return total


@maker
def gradient_of_array(grad, src, out, mean, rstd, gamma, training, dgamma, dbeta, batch, outer, channel, inner, run):
    """dgamma, dbeta : float64 (channel * inner / run,)"""
    table, interleaved = table_of(batch, outer, channel, inner, run, src.itemsize, False)
    sums = np.empty((2, batch * channel * (inner // run)))
    if interleaved:
        interleaved_backward_chunk(grad, src, None, out, None, mean, rstd, gamma, None, None, sums, training, None, 0, table, np.intp(0))
    else:
        planar_backward_chunk(grad, src, None, out, None, mean, rstd, gamma, None, None, sums, training, None, table, np.intp(0))
    parameter_gradients(table, sums, rstd, dgamma, dbeta)


@maker
def gradient_of_rows(grad, src, out, mean, rstd, gamma, totals, rows, n):
    """gamma : a vector in a tuple; mean : None for RMS norm; totals (1, 2, n): of gamma, of beta"""
    table = table_of_rows(rows, n, src.itemsize)
    elements_backward_chunk(grad, src, out, mean, rstd, gamma, None, None, None, totals, table, np.intp(0))
