"""Batch norm of short planes, from few samples: one thing at a time for a block of channels, of all samples.

As columns, each element of a plane had sums and parameters of its own, as many as x has elements where there are two samples; plane by
plane, what is done around each of them took longer than its elements.

stats : as in `moments`
"""

from __future__ import annotations

from typing import Any

from fastnorm._jit import chunk_body, driver, loop, variant
from fastnorm.element.affine import distance, origin_near
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.lanes import choose_lanes, fused, have_lanes, lanes_of, load_lanes, sum_of_lanes, zero_lanes
from fastnorm.element.moments import lopsided
from fastnorm.element.storage import FEW_LANES, as_compute, at, cut, load, row, write, zero_of
from fastnorm.kernels.apply import parameters_of_channels
from fastnorm.kernels.columns import add_run
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.dense_runs import by_lines, normalize_lines, normalize_runs
from fastnorm.kernels.gradient_planes import block_of_planes, plane_place
from fastnorm.kernels.moments import GUESSES, LOW, MEAN, RSTD, VARIANCE
from fastnorm.kernels.normalize import settle_rows
from fastnorm.kernels.prefetch import fetch_edges_to_write
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.short_rows import sums_of_rows
from fastnorm.kernels.tile import mean_distance, shifted_to_mean
from fastnorm.kernels.walk import elements_per_statistic, span
from fastnorm.plan.table import CHANNEL, CHUNKS, EXTRA, INNER, OUT, OUTER, PROBLEM, SRC, STEP_OUTER

# Elements that are summed in two values of lanes: 16 to a lane, as in `tile.BLOCK`.
SUMMED = 512


@loop
def guess_of_channel(src, place, step, outer, few, origin):
    """Of the first elements of some samples the sum of their distances from an origin."""
    total = zero_lanes(src)
    near = as_compute(total, origin)
    guesses = min(outer, GUESSES)
    for part in range(guesses):
        d = distance(load_lanes(cut(src, place + outer * part // guesses * step, few), 0, few, src), near)
        total = total + choose_lanes(few, d, zero_lanes(src))
    return sum_of_lanes(total)


@chunk_body
def shifts_in_lanes(src, table, first, n, shifts):
    wide_vectors()
    outer, few = table[PROBLEM, OUTER], min(table[PROBLEM, INNER], lanes_of(src))
    place, step = plane_place(table, SRC, 0, first)
    for k in range(n):
        origin = load(cut(src, place + k * step, few), 0)
        guess = guess_of_channel(src, place + k * step, table[SRC, STEP_OUTER], outer, few, origin)
        write(shifts, k, origin_near(src, origin + guess / as_compute(guess, few * min(outer, GUESSES))))


@chunk_body
def shifts_plane_by_plane(src, table, first, n, shifts):
    wide_vectors()
    outer, few = table[PROBLEM, OUTER], min(table[PROBLEM, INNER], FEW_LANES)
    guesses = min(outer, GUESSES)
    place, step = plane_place(table, SRC, 0, first)
    for k in range(n):
        origin = load(cut(src, place + k * step, few), 0)
        guess = zero_of(src)
        for part in range(guesses):
            of_sample, _ = plane_place(table, SRC, outer * part // guesses, first)
            guess += mean_distance(cut(src, of_sample + k * step, few), origin, few, FEW_LANES)
        write(shifts, k, origin_near(src, origin + guess / as_compute(guess, guesses)))


@variant
def shifts_of_channels(src: Any, table: Any, first: Any, n: Any, shifts: Any) -> Any:
    """Of every channel the mean of the first elements of some samples."""
    if have_lanes(src):
        return lambda src, table, first, n, shifts: shifts_in_lanes(src, table, first, n, shifts)
    return lambda src, table, first, n, shifts: shifts_plane_by_plane(src, table, first, n, shifts)


@loop
def sums_of_channel(src, place, step, outer, some, n, shift):
    """Of d and d*d over all samples of a channel, in lanes that live from plane to plane."""
    lanes, zero = lanes_of(src), zero_lanes(src)
    about = as_compute(zero, shift)
    total64, squares64 = 0.0, 0.0
    for begin in range(0, outer, some):
        total, other, squares, others = zero, zero, zero, zero
        for o in range(begin, min(begin + some, outer)):
            run, i = cut(src, place + o * step, n), 0
            while i + 2 * lanes <= n:
                d, e = distance(load_lanes(run, i, None, src), about), distance(load_lanes(run, i + lanes, None, src), about)
                total, other = total + d, other + e
                squares, others = fused(d, d, squares), fused(e, e, others)
                i += 2 * lanes
            if i + lanes <= n:
                d = distance(load_lanes(run, i, None, src), about)
                total, squares = total + d, fused(d, d, squares)
                i += lanes
            if i < n:
                e = choose_lanes(n - i, distance(load_lanes(run, i, n - i, src), about), zero)
                other, others = other + e, fused(e, e, others)
        total64 += float(sum_of_lanes(total + other))
        squares64 += float(sum_of_lanes(squares + others))
    return total64, squares64


@chunk_body
def sums_in_lanes(src, table, first, n, shifts, totals, squares):
    wide_vectors()
    place, step = plane_place(table, SRC, 0, first)
    inner, outer, step_outer = table[PROBLEM, INNER], table[PROBLEM, OUTER], table[SRC, STEP_OUTER]
    some = max(1, SUMMED // inner)
    for k in range(n):
        total, square = sums_of_channel(src, place + k * step, step_outer, outer, some, inner, at(shifts, k))
        write(totals, k, total)
        write(squares, k, square)


@loop
def sums_plane_by_plane(src, table, first, n, shifts, totals, squares, spare):
    inner = table[PROBLEM, INNER]
    place, step = plane_place(table, SRC, 0, first)
    sums_of_rows(src, place, step, n, inner, shifts, totals, squares)
    for o in range(1, table[PROBLEM, OUTER]):
        place, step = plane_place(table, SRC, o, first)
        sums_of_rows(src, place, step, n, inner, shifts, row(spare, 0), row(spare, 1))
        add_run(totals, row(spare, 0), n)
        add_run(squares, row(spare, 1), n)


@variant
def sums_about_shifts(src: Any, table: Any, first: Any, n: Any, shifts: Any, totals: Any, squares: Any, spare: Any) -> Any:
    """Of d and d*d, where d = x - shift, over all samples."""
    if have_lanes(src):
        return lambda src, table, first, n, shifts, totals, squares, spare: sums_in_lanes(src, table, first, n, shifts, totals, squares)
    return lambda src, table, first, n, shifts, totals, squares, spare: sums_plane_by_plane(
        src, table, first, n, shifts, totals, squares, spare
    )


@chunk_body
def statistics_of_channels(src, stats, spare, table, first, n, eps):
    """Of n channels, to the statistics from `first` on."""
    shifts, totals, squares = cut(row(stats, MEAN), first, n), cut(row(stats, LOW), first, n), cut(row(stats, VARIANCE), first, n)
    shifts_of_channels(src, table, first, n, shifts)
    sums_about_shifts(src, table, first, n, shifts, totals, squares, spare)
    elements = elements_per_statistic(table)
    count = float(elements)
    for k in range(n):
        if lopsided(count, totals[k], squares[k]):
            shifts[k] = shifted_to_mean(src, as_compute(zero_of(src), shifts[k]), totals[k], count)
            sums_about_shifts(src, table, first + k, 1, cut(shifts, k, 1), cut(totals, k, 1), cut(squares, k, 1), spare)
    settle_rows(stats, first, n, elements, eps)


@chunk_body
def normalize_planes(src, residual, out, parameters, lines, activation, streams, table, o, first, n):
    run = table[PROBLEM, INNER]
    (place, step), (of_residual, residual_step) = plane_place(table, SRC, o, first), plane_place(table, EXTRA, o, first)
    target, target_step = plane_place(table, OUT, o, first)
    highs, scales, offsets = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    if lines is not None and run >= lanes_of(out):
        count = n * run
        fetch_edges_to_write(out, target, count)
        x, addend, y = cut(src, place, count), cut(residual, of_residual, count), cut(out, target, count)
        normalize_lines(x, addend, y, highs, scales, offsets, None, None, activation, 0, n, run)
        return
    places, steps = (place, of_residual, target), (step, residual_step, target_step)
    normalize_runs(src, residual, out, highs, scales, offsets, activation, streams, places, steps, n, run)


@chunk_body
def planes_normalize_chunk(src, residual, out, stats, gamma, beta, eps, activation, streams, table, chunk):
    """out : None for the moments alone"""
    compact()
    begin, end = span(table[PROBLEM, CHANNEL], table[PROBLEM, CHUNKS], chunk)
    block = block_of_planes(table)
    parameters, spare = vectors(zero_of(src), 3, block), vectors(0.0, 2, block)
    lines = by_lines(out, src, residual, activation, streams)
    for first in range(begin, end, block):
        n = min(block, end - first)
        statistics_of_channels(src, stats, spare, table, first, n, eps)
        if out is not None:
            parameters_of_channels(parameters, 0, first, first, n, row(stats, MEAN), row(stats, LOW), row(stats, RSTD), gamma, beta, None)
            for o in range(table[PROBLEM, OUTER] - 1, -1, -1):
                normalize_planes(src, residual, out, parameters, lines, activation, streams, table, o, first, n)
    if streams is not None:
        fence()


@driver
def planes_normalize(crew, src, residual, out, stats, gamma, beta, eps, activation, streams, table):
    arguments = (src, residual, out, stats, gamma, beta, eps, activation, streams, table)
    deal(crew, planes_normalize_chunk, table[PROBLEM, CHUNKS], arguments)
