"""Rows of elements taken into the four numbers of every column: the loops of all reductions of `element.reductions`.

state, block : float64 (4, at least n), the four numbers of every column
sums  : scratch (4, at least n)
places, steps : of the first row, and from row to row, in the source and in the weights
"""

from __future__ import annotations

import math
from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, loop, variant
from fastnorm.element.affine import distance, origin_near
from fastnorm.element.bits import choose, wide_vectors
from fastnorm.element.lanes import lanes_of, load_lanes, write_lanes, zero_lanes
from fastnorm.element.moments import about_shift, lopsided
from fastnorm.element.reductions import (
    Absolutes,
    Extrema,
    Present,
    Weighted,
    counted,
    distance_or_nothing,
    exists,
    greater,
    join,
    lesser,
    of_nothing,
    weight_and_distance,
    weight_at,
)
from fastnorm.element.storage import as_compute, at, cut, fetch_for_later, is_repeated, load, row, write, zero_of
from fastnorm.kernels.columns import ROWS
from fastnorm.kernels.prefetch import fetches_rows

# Of one block. The first finds a shift near the mean if the mean of earlier blocks is not; float32 sums of large
# numbers may leave it some standard deviations off, which the third corrects.
SWEEPS = 3


@chunk_body
def clear_state(reduction, state, n):
    wide_vectors()
    nothing = of_nothing(reduction)
    s0, s1, s2, s3 = row(state, 0), row(state, 1), row(state, 2), row(state, 3)
    for i in range(n):
        s0[i] = nothing[0]
        s1[i] = nothing[1]
        s2[i] = nothing[2]
        s3[i] = nothing[3]


@chunk_body
def join_state(reduction, state, other, start, n):
    """The columns from `start` on of `other`, which may be the state itself, joined to the first n."""
    wide_vectors()
    s0, s1, s2, s3 = row(state, 0), row(state, 1), row(state, 2), row(state, 3)
    o0, o1 = cut(row(other, 0), start, n), cut(row(other, 1), start, n)
    o2, o3 = cut(row(other, 2), start, n), cut(row(other, 3), start, n)
    for i in range(n):
        a, b = (s0[i], s1[i], s2[i], s3[i]), (o0[i], o1[i], o2[i], o3[i])
        s0[i], s1[i], s2[i], s3[i] = join(reduction, a, b)


@loop
def join_columns(reduction, state, n):
    """The four numbers of all columns together: halves are joined, vectorized, until one column is left."""
    while n > 1:
        half = (n + 1) // 2
        join_state(reduction, state, state, half, n - half)
        n = half
    return state[0, 0], state[1, 0], state[2, 0], state[3, 0]


@loop
def reduce_rows(reduction, src, weights, places, steps, n_rows, n, apart, ahead, state, block, sums):
    """Join n_rows rows of n columns to the state.

    apart : whether rows are read four at a time. Pieces of one run are not: read in turn, memory is twice as fast.
    ahead : whether the next four are fetched meanwhile
    """
    done = 0
    while done < n_rows:
        count = min(ROWS, n_rows - done)
        for sweep in range(SWEEPS):
            begin_sweep(reduction, src, sweep, state, sums, n)
            line = done
            while apart and line + 4 <= done + count:
                absorb_four(reduction, src, weights, places, steps, line, sums, n, ahead)
                line += 4
            while line < done + count:
                absorb_line(reduction, src, weights, places, steps, line, sums, n)
                line += 1
            if settled(reduction, sums, n):
                break
        end_sweep(reduction, sums, block, n)
        join_state(reduction, state, block, 0, n)
        done += count


@variant
def begin_sweep(reduction: Any, src: Any, sweep: Any, state: Any, sums: Any, n: Any) -> Any:
    """Clear the sums; of moments, choose what distances are measured from."""
    if reduction.instance_class in (Extrema, Absolutes):
        return lambda reduction, src, sweep, state, sums, n: clear_state(reduction, sums, n)
    return lambda reduction, src, sweep, state, sums, n: begin_moments(src, sweep, state, sums, n)


@chunk_body
def begin_moments(src, sweep, state, sums, n):
    wide_vectors()
    zero = zero_of(sums)
    shift, count, total, squares = row(sums, 0), row(sums, 1), row(sums, 2), row(sums, 3)
    mean = row(state, 1)
    for i in range(n):
        step = choose(count[i] > zero, total[i] / count[i], zero)
        shift[i] = origin_near(src, choose(sweep == 0, as_compute(zero, mean[i]), shift[i] + step))
        count[i] = zero
        total[i] = zero
        squares[i] = zero


@loop
def absorb_line(reduction, src, weights, places, steps, line, sums, n):
    """Take row number `line` into the sums of its columns."""
    run, weight = cut(src, places[0] + line * steps[0], n), cut(weights, places[1] + line * steps[1], n)
    absorb_row(reduction, run, weight, sums, n)


@variant
def absorb_row(reduction: Any, run: Any, weights: Any, sums: Any, n: Any) -> Any:
    if reduction.instance_class is Extrema:
        return lambda reduction, run, weights, sums, n: absorb_extrema(reduction, run, weights, sums, n)
    if reduction.instance_class is Absolutes:
        return lambda reduction, run, weights, sums, n: absorb_absolutes(run, sums, n)
    return lambda reduction, run, weights, sums, n: absorb_moments(reduction, run, weights, sums, n)


@variant
def absorb_four(reduction: Any, src: Any, weights: Any, places: Any, steps: Any, line: Any, sums: Any, n: Any, ahead: Any) -> Any:
    """Four rows, whose sums are loaded and stored once for all: half the time of one by one. Where weights of elements are read, too, that
    gains nothing."""
    tag = reduction.instance_class
    if (tag in (Extrema, Present) and weights is types.none) or (tag in (Weighted, Present) and is_repeated(weights)):

        def side_by_side(reduction, src, weights, places, steps, line, sums, n, ahead):
            given = four_weights(src, weights, places[1] + line * steps[1], steps[1])
            absorb_side_by_side(reduction, src, places[0] + line * steps[0], steps[0], given, sums, n, ahead)

        return side_by_side

    def one_by_one(reduction, src, weights, places, steps, line, sums, n, ahead):
        for k in range(line, line + 4):
            absorb_line(reduction, src, weights, places, steps, k, sums, n)

    return one_by_one


@loop
def four_weights(src, weights, place, step):
    """Of rows that have one each, None without."""
    if weights is None:
        return None
    zero = zero_of(src)
    w = weight_at(cut(weights, place, 1), 0, zero), weight_at(cut(weights, place + step, 1), 0, zero)
    return (*w, weight_at(cut(weights, place + 2 * step, 1), 0, zero), weight_at(cut(weights, place + 3 * step, 1), 0, zero))


@chunk_body
def absorb_side_by_side(reduction, src, place, step, weights, sums, n, ahead):
    wide_vectors()
    lanes = lanes_of(src)
    whole = n // lanes * lanes
    rows = cut(src, place, n), cut(src, place + step, n), cut(src, place + 2 * step, n), cut(src, place + 3 * step, n)
    fetches = lanes > 1 and fetches_rows(src, ahead, step)
    for i in range(0, whole, lanes):
        if fetches:
            for k in range(4, 8):
                fetch_for_later(src, place + k * step + i)
        take_four(reduction, src, rows, weights, i, None, sums)
    if whole < n:
        take_four(reduction, src, rows, weights, whole, n - whole, sums)


@variant
def take_four(reduction: Any, src: Any, rows: Any, weights: Any, i: Any, lanes: Any, sums: Any) -> Any:
    """Lanes of four rows from column i on, only as many as `lanes` says unless that is None."""
    if reduction.instance_class is Extrema:
        return lambda reduction, src, rows, weights, i, lanes, sums: take_four_extrema(src, rows, i, lanes, sums)
    if weights is types.none:
        return lambda reduction, src, rows, weights, i, lanes, sums: take_four_moments(src, rows, i, lanes, sums)
    return lambda reduction, src, rows, weights, i, lanes, sums: take_four_weighted(reduction, src, rows, weights, i, lanes, sums)


@chunk_body
def absorb_moments(reduction, run, weights, sums, n):
    wide_vectors()
    zero = zero_of(run)
    shift, count, total, squares = row(sums, 0), row(sums, 1), row(sums, 2), row(sums, 3)
    for i in range(n):
        value = load(run, i)
        weight = weight_at(weights, i, zero)
        there = exists(reduction, weight, value)
        d = choose(there, distance(value, at(shift, i)), zero)
        weight = choose(there, weight, zero)
        write(count, i, at(count, i) + weight)
        write(total, i, at(total, i) + weight * d)
        write(squares, i, at(squares, i) + weight * d * d)


@chunk_body
def absorb_extrema(reduction, run, weights, sums, n):
    wide_vectors()
    zero = zero_of(run)
    count, low, high = row(sums, 0), row(sums, 1), row(sums, 2)
    for i in range(n):
        value = load(run, i)
        there = exists(reduction, weight_at(weights, i, zero), value)
        write(count, i, at(count, i) + choose(there, as_compute(zero, 1.0), zero))
        write(low, i, lesser(choose(there, value, as_compute(zero, math.inf)), at(low, i)))
        write(high, i, greater(choose(there, value, as_compute(zero, -math.inf)), at(high, i)))


@loop
def take_four_moments(src, rows, i, lanes, sums):
    zero = zero_lanes(src)
    count, total, squares = row(sums, 1), row(sums, 2), row(sums, 3)
    m = load_lanes(row(sums, 0), i, lanes, src)
    a, b, c, d = load_four(src, rows, i, lanes)
    number = (counted(a, zero) + counted(b, zero)) + (counted(c, zero) + counted(d, zero))
    a, b = distance_or_nothing(a, m, zero), distance_or_nothing(b, m, zero)
    c, d = distance_or_nothing(c, m, zero), distance_or_nothing(d, m, zero)
    write_lanes(count, i, load_lanes(count, i, lanes, src) + number, lanes)
    write_lanes(total, i, load_lanes(total, i, lanes, src) + ((a + b) + (c + d)), lanes)
    write_lanes(squares, i, load_lanes(squares, i, lanes, src) + ((a * a + b * b) + (c * c + d * d)), lanes)


@loop
def take_four_weighted(reduction, src, rows, weights, i, lanes, sums):
    """Sums are stored in whole lanes, behind the last column too, where nobody reads them: with masks two to ten columns took 1.3 to
    2 times as long (two cores of a Zen 3)."""
    zero = zero_lanes(src)
    count, total, squares = row(sums, 1), row(sums, 2), row(sums, 3)
    m = load_lanes(row(sums, 0), i, lanes, src)
    a, b, c, d = load_four(src, rows, i, lanes)
    wa, da = weight_and_distance(reduction, a, m, as_compute(zero, weights[0]), zero)
    wb, db = weight_and_distance(reduction, b, m, as_compute(zero, weights[1]), zero)
    wc, dc = weight_and_distance(reduction, c, m, as_compute(zero, weights[2]), zero)
    wd, dd = weight_and_distance(reduction, d, m, as_compute(zero, weights[3]), zero)
    a, b, c, d = wa * da, wb * db, wc * dc, wd * dd
    write_lanes(count, i, load_lanes(count, i, None, src) + ((wa + wb) + (wc + wd)), None)
    write_lanes(total, i, load_lanes(total, i, None, src) + ((a + b) + (c + d)), None)
    write_lanes(squares, i, load_lanes(squares, i, None, src) + ((a * da + b * db) + (c * dc + d * dd)), None)


@loop
def take_four_extrema(src, rows, i, lanes, sums):
    zero = zero_lanes(src)
    count, low, high = row(sums, 0), row(sums, 1), row(sums, 2)
    a, b, c, d = load_four(src, rows, i, lanes)
    number = (counted(a, zero) + counted(b, zero)) + (counted(c, zero) + counted(d, zero))
    write_lanes(count, i, load_lanes(count, i, lanes, src) + number, lanes)
    # `lesser` and `greater` give their second operand where the first is NaN.
    write_lanes(low, i, lesser(a, lesser(b, lesser(c, lesser(d, load_lanes(low, i, lanes, src))))), lanes)
    write_lanes(high, i, greater(a, greater(b, greater(c, greater(d, load_lanes(high, i, lanes, src))))), lanes)


@loop
def load_four(src, rows, i, lanes):
    r0, r1, r2, r3 = rows
    return load_lanes(r0, i, lanes, src), load_lanes(r1, i, lanes, src), load_lanes(r2, i, lanes, src), load_lanes(r3, i, lanes, src)


@chunk_body
def absorb_absolutes(run, sums, n):
    wide_vectors()
    count, total, largest, squares = row(sums, 0), row(sums, 1), row(sums, 2), row(sums, 3)
    for i in range(n):
        value = abs(as_compute(0.0, load(run, i)))  # float() of a float32 stays one in Numba
        write(count, i, at(count, i) + 1.0)
        write(total, i, at(total, i) + value)
        write(largest, i, greater(value, at(largest, i)))
        write(squares, i, at(squares, i) + value * value)


@variant
def settled(reduction: Any, sums: Any, n: Any) -> Any:
    """Whether no column needs a further sweep."""
    if reduction.instance_class in (Extrema, Absolutes):
        return lambda reduction, sums, n: True
    return lambda reduction, sums, n: settled_moments(sums, n)


@chunk_body
def settled_moments(sums, n):
    wide_vectors()
    count, total, squares = row(sums, 1), row(sums, 2), row(sums, 3)
    far = 0
    for i in range(n):
        far += lopsided(count[i], total[i], squares[i])
    return far == 0


@variant
def end_sweep(reduction: Any, sums: Any, block: Any, n: Any) -> Any:
    """From sums to the four numbers of every column."""
    if reduction.instance_class in (Extrema, Absolutes):
        return lambda reduction, sums, block, n: end_plain(sums, block, n)
    return lambda reduction, sums, block, n: end_moments(sums, block, n)


@chunk_body
def end_plain(sums, block, n):
    wide_vectors()
    for field in range(4):
        source, target = row(sums, field), row(block, field)
        for i in range(n):
            target[i] = source[i]


@chunk_body
def end_moments(sums, block, n):
    """Nothing counted gives zeros."""
    wide_vectors()
    shift, count, total, squares = row(sums, 0), row(sums, 1), row(sums, 2), row(sums, 3)
    counts, means, lows, m2s = row(block, 0), row(block, 1), row(block, 2), row(block, 3)
    for i in range(n):
        n_here = as_compute(0.0, count[i])
        some = n_here > 0.0
        origin = choose(some, as_compute(0.0, shift[i]), 0.0)
        found = about_shift(choose(some, n_here, 1.0), origin, as_compute(0.0, total[i]), as_compute(0.0, squares[i]))
        counts[i] = n_here
        means[i] = found.mean
        lows[i] = found.low
        m2s[i] = found.m2
