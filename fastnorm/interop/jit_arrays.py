"""Whole arrays for `jit_overloads`: functions that become part of their callers.

A caller that names the axis in a constant gets the code for runs or that for columns, and not both: they are optimized
again with everything that calls them.
"""

from __future__ import annotations

import math

from fastnorm._jit import exported, loop
from fastnorm.element.affine import split_mean
from fastnorm.element.bits import wide_vectors
from fastnorm.element.moments import reciprocal_std
from fastnorm.element.storage import cut, zero_of
from fastnorm.interop.jit_runs import apply_to_run, moments_of_pieces
from fastnorm.interop.jit_walks import apply_to_columns, contiguous, moments_of_all_columns, normalize_rows, settle_infinities
from fastnorm.kernels.moments import MEAN, RSTD, VARIANCE, record


@loop
def take_freedom(stats, n, ddof):
    if ddof != 0:
        factor = n / (n - ddof) if n > ddof else math.nan
        for stat in range(stats.shape[1]):
            stats[VARIANCE, stat] *= factor


@loop
def at_channel(parameter, c, absent):
    if parameter is None:
        return absent
    return float(parameter[c])


@exported
def rows_of_array(src, out, stats, gamma, beta, centre, eps, rows, n):
    """Layer norm, or RMS norm where centre is None."""
    if src.size > 0:
        normalize_rows(src, out, stats, gamma, beta, centre, eps, rows, n)
    else:
        stats[MEAN], stats[RSTD] = math.nan, math.nan


@exported
def planes_of_array(src, residual, out, mean, var, gamma, beta, eps, activation, outer, channel, inner):
    """Batch norm of runs of `inner` elements."""
    wide_vectors()
    for plane in range(outer * channel if inner > 0 else 0):
        c = plane % channel
        run, target = cut(src, plane * inner, inner), cut(out, plane * inner, inner)
        high, low = split_mean(zero_of(run), mean[c], 0.0)
        gain, shift = at_channel(gamma, c, 1.0), at_channel(beta, c, 0.0)
        rstd = reciprocal_std(var[c], eps)
        apply_to_run(run, cut(residual, plane * inner, inner), target, high, low, rstd, gain, shift, activation)


@exported
def columns_of_array(src, residual, out, mean, var, gamma, beta, eps, activation, outer, channel, inner):
    """Batch norm of channels side by side; inner is 1."""
    if src.size > 0:
        apply_to_columns(src, residual, out, mean, var, gamma, beta, eps, activation, outer, channel)


@exported
def statistics_of_runs(src, stats, ddof, rows, n, columns):
    """Fill stats (4, rows), the variance with ddof; columns is 1."""
    wide_vectors()
    if n == 0:
        stats[MEAN], stats[VARIANCE] = math.nan, math.nan
        return
    for stat in range(rows):
        record(stats, stat, moments_of_pieces(0, cut(src, stat * n, n)), 0.0)
    settle_infinities(src, stats, contiguous(1, 1, rows, n, n))
    take_freedom(stats, n, ddof)


@exported
def statistics_of_columns(src, stats, ddof, batch, rows, columns):
    """Fill stats (4, batch * columns), of `rows` elements each."""
    if rows == 0:
        stats[MEAN], stats[VARIANCE] = math.nan, math.nan
        return
    if src.size > 0:
        moments_of_all_columns(src, stats, batch, rows, columns)
        take_freedom(stats, rows, ddof)
