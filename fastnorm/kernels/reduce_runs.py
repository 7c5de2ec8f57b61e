"""Contiguous runs of one statistic reduced to its four numbers: the planar side of `kernels.reduce`."""

from __future__ import annotations

from typing import Any

from fastnorm._jit import chunk_body, loop, variant
from fastnorm.element.affine import distance, origin_near
from fastnorm.element.bits import choose, compact, wide_vectors
from fastnorm.element.moments import about_shift, lopsided
from fastnorm.element.reductions import Absolutes, Extrema, exists, weight_at
from fastnorm.element.storage import as_compute, cut, load, zero_of
from fastnorm.kernels.reduce_rows import SWEEPS, clear_state, join_columns, reduce_rows
from fastnorm.kernels.tile import BLOCK
from fastnorm.kernels.walk import position
from fastnorm.plan.table import EXTRA, INNER, PROBLEM, SRC, STEP_INNER


@variant
def reduce_span(
    reduction: Any, src: Any, weights: Any, table: Any, b: Any, c: Any, begin: Any, end: Any, lanes: Any, state: Any, block: Any, sums: Any
) -> Any:
    """The four numbers of elements begin to end of statistic (b, c)."""
    if reduction.instance_class in (Extrema, Absolutes):
        return lambda reduction, src, weights, table, b, c, begin, end, lanes, state, block, sums: reduce_in_lanes(
            reduction, src, weights, table, b, c, begin, end, lanes, state, block, sums
        )
    return lambda reduction, src, weights, table, b, c, begin, end, lanes, state, block, sums: moments_of_counted(
        reduction, src, weights, table, b, c, begin, end
    )


@chunk_body
def reduce_in_lanes(reduction, src, weights, table, b, c, begin, end, lanes, state, block, sums):
    """Runs are read as rows of `lanes` columns, joined in the end: a minimum has no vector form that knows NaN."""
    compact()
    clear_state(reduction, state, lanes)
    steps = (table[SRC, STEP_INNER] * lanes, table[EXTRA, STEP_INNER] * lanes)
    at = begin
    while at < end:
        o = at // table[PROBLEM, INNER]
        i = at - o * table[PROBLEM, INNER]
        n = min(table[PROBLEM, INNER] - i, end - at)
        for piece in range(2):  # whole rows of columns, then the rest: one copy of the loop
            n_rows = n // lanes if piece == 0 else 1
            width = lanes if piece == 0 else n - n // lanes * lanes
            start = i if piece == 0 else i + n // lanes * lanes
            places = (position(table, SRC, b, o, c, start), position(table, EXTRA, b, o, c, start))
            if width > 0:
                reduce_rows(reduction, src, weights, places, steps, n_rows, width, False, False, state, block, sums)
        at += n
    return join_columns(reduction, state, lanes)


@chunk_body
def moments_of_counted(reduction, src, weights, table, b, c, begin, end):
    """About one shift: zero first, then the mean that was found, until it is near enough.

    In lanes, as extrema, rows of 5000 took twice as long: every lane is merged for itself.
    """
    wide_vectors()
    zero = zero_of(src)
    shift = zero
    count, total, squares = 0.0, 0.0, 0.0
    for _ in range(SWEEPS):
        count, total, squares = sums_of_counted(reduction, src, weights, table, b, c, begin, end, shift)
        if not lopsided(count, total, squares):
            break
        shift = origin_near(src, shift + as_compute(zero, total / count))
    if count == 0.0:
        return 0.0, 0.0, 0.0, 0.0
    found = about_shift(count, as_compute(0.0, shift), total, squares)
    return count, found.mean, found.low, found.m2


@loop
def sums_of_counted(reduction, src, weights, table, b, c, begin, end, shift):
    count, total, squares = 0.0, 0.0, 0.0
    at = begin
    while at < end:
        o = at // table[PROBLEM, INNER]
        i = at - o * table[PROBLEM, INNER]
        n = min(min(table[PROBLEM, INNER] - i, end - at), BLOCK)
        run = cut(src, position(table, SRC, b, o, c, i), n)
        part = sums_of_block(reduction, run, cut(weights, position(table, EXTRA, b, o, c, i), n), n, shift)
        count += part[0]
        total += part[1]
        squares += part[2]
        at += n
    return count, total, squares


@loop
def sums_of_block(reduction, run, weights, n, shift):
    """Sums of weights w, w * d and w * d * d, where d = x - shift, in the compute dtype."""
    zero = zero_of(run)
    count, total, squares = zero, zero, zero
    for i in range(n):
        value, weight = load(run, i), weight_at(weights, i, zero)
        there = exists(reduction, weight, value)
        d = choose(there, distance(value, shift), zero)
        weight = choose(there, weight, zero)
        count += weight
        total += weight * d
        squares += weight * d * d
    return count, total, squares
