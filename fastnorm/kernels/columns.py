"""Loops over a tile of columns: rows of all channels side by side, vectorized over the columns."""

from __future__ import annotations

from fastnorm._jit import chunk_body, loop
from fastnorm.element.affine import centred, distance, origin_near
from fastnorm.element.bits import wide_vectors
from fastnorm.element.gradient import through_activation
from fastnorm.element.moments import Moments, about_shift, merge, relative_mean, union_of_equals
from fastnorm.element.storage import as_compute, at, cut, load, row, write, zero_of
from fastnorm.element.streaming import before_line
from fastnorm.kernels.tile import moments_of_run

# Rows between two merges. Sums of this many rows about the mean of their first eight lose at most
# ROWS / 8 float32 roundings to cancellation, whatever the data: 5e-7 of the variance.
ROWS = 64


@chunk_body
def sum_eights(src, start, step, n_rows, n, shift, total, squares):
    """Eight rows at a time: one load and store of the running sums per eight rows. The loop over rows in here, too: called for
    every eight, the moments of (100352, 64) and (1568, 2048) took 1.1 times as long."""
    wide_vectors()
    for k in range(0, n_rows, 8):
        place = start + k * step
        r0 = cut(src, place, n)
        r1 = cut(src, place + step, n)
        r2 = cut(src, place + 2 * step, n)
        r3 = cut(src, place + 3 * step, n)
        r4 = cut(src, place + 4 * step, n)
        r5 = cut(src, place + 5 * step, n)
        r6 = cut(src, place + 6 * step, n)
        r7 = cut(src, place + 7 * step, n)
        for i in range(n):
            m = shift[i]
            d0 = distance(load(r0, i), m)
            d1 = distance(load(r1, i), m)
            d2 = distance(load(r2, i), m)
            d3 = distance(load(r3, i), m)
            d4 = distance(load(r4, i), m)
            d5 = distance(load(r5, i), m)
            d6 = distance(load(r6, i), m)
            d7 = distance(load(r7, i), m)
            total[i] += ((d0 + d1) + (d2 + d3)) + ((d4 + d5) + (d6 + d7))
            squares[i] += ((d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)) + ((d4 * d4 + d5 * d5) + (d6 * d6 + d7 * d7))


@chunk_body
def sum_one_by_one(src, start, step, n_rows, n, shift, total, squares):
    wide_vectors()
    for k in range(n_rows):
        line = cut(src, start + k * step, n)
        for i in range(n):
            d = distance(load(line, i), shift[i])
            total[i] += d
            squares[i] += d * d


@chunk_body
def clear(vector, n):
    wide_vectors()
    for i in range(n):
        vector[i] = 0


@chunk_body
def merge_columns(count, mean, low, m2, other_count, other_mean, other_low, other_m2, n):
    """Moments of every column joined with those of as many further rows."""
    wide_vectors()
    for i in range(n):
        other = Moments(other_count, at(other_mean, i), at(other_low, i), at(other_m2, i))
        joined = merge(Moments(count, at(mean, i), at(low, i), at(m2, i)), other)
        write(mean, i, joined.mean)
        write(low, i, joined.low)
        write(m2, i, joined.m2)


@chunk_body
def load_row(line, target, n):
    wide_vectors()
    for i in range(n):
        target[i] = load(line, i)


@chunk_body
def add_scaled(storage, target, source, factor, n):
    wide_vectors()
    for i in range(n):
        target[i] = origin_near(storage, target[i] + source[i] * factor)


@chunk_body
def moments_of_sums(count, shift, total, squares, mean, low, m2, n):
    wide_vectors()
    for i in range(n):
        joined = about_shift(count, float(at(shift, i)), float(at(total, i)), float(at(squares, i)))
        write(mean, i, joined.mean)
        write(low, i, joined.low)
        write(m2, i, joined.m2)


@loop
def sum_rows(src, start, step, n_rows, n, shift, total, squares):
    """Sums of d and d*d of every column, where d = x - shift."""
    clear(total, n)
    clear(squares, n)
    eights = n_rows // 8 * 8
    sum_eights(src, start, step, eights, n, shift, total, squares)
    sum_one_by_one(src, start + eights * step, step, n_rows - eights, n, shift, total, squares)


@chunk_body
def add_squares(line, m2, n):
    wide_vectors()
    for i in range(n):
        value = load(line, i)
        m2[i] += value * value


@loop
def moments_of_rows(src, centre, start, step, n_rows, n, count, moments, block_moments, sums):
    """Merge the moments of n_rows rows of n columns into moments[1:4], that hold `count` rows already.

    centre : None for moments about zero
    block_moments : scratch like moments; sums : scratch (3, at least n) in the compute dtype
    """
    if centre is None:
        for line in range(n_rows):
            add_squares(cut(src, start + line * step, n), row(moments, 3), n)
        return count + float(n_rows)
    return moments_of_centred_rows(src, start, step, n_rows, n, count, moments, block_moments, sums)


@loop
def moments_of_centred_rows(src, start, step, n_rows, n, count, moments, block_moments, sums):
    shift, total, squares = row(sums, 0), row(sums, 1), row(sums, 2)
    mean, low, m2 = row(block_moments, 1), row(block_moments, 2), row(block_moments, 3)
    done = 0
    while done < n_rows:
        place = start + done * step
        block = min(ROWS, n_rows - done)
        first = cut(src, place, n)
        load_row(first, shift, n)
        for sweep in range(2):  # a better shift from the first rows; then all rows: one copy of the loop
            rows = min(8, block) if sweep == 0 else block
            sum_rows(src, place, step, rows, n, shift, total, squares)
            if sweep == 0:
                add_scaled(src, shift, total, as_compute(zero_of(src), 1.0 / rows), n)
        if count == 0.0:
            moments_of_sums(float(block), shift, total, squares, row(moments, 1), row(moments, 2), row(moments, 3), n)
        else:
            moments_of_sums(float(block), shift, total, squares, mean, low, m2, n)
            merge_columns(count, row(moments, 1), row(moments, 2), row(moments, 3), float(block), mean, low, m2, n)
        count += float(block)
        done += block
    return count


@loop
def unfold(count, mean, low, m2, fold, n):
    """Merge `fold` copies of n columns, lying side by side, into the first."""
    for k in range(1, fold):
        a = k * n
        merge_columns(count * k, mean, low, m2, count, cut(mean, a, n), cut(low, a, n), cut(m2, a, n), n)


@chunk_body
def moments_of_columns(count, mean, low, m2, n):
    """Moments of the union of n columns of `count` elements each. Overwrites `mean`."""
    wide_vectors()
    origin = mean[0]
    m2_total = 0.0
    for i in range(n):
        mean[i] = relative_mean(mean[i], low[i], origin)
        m2_total += m2[i]
    return union_of_equals(count, origin, moments_of_run(mean, n), m2_total)


@chunk_body
def copy_run(target, source, n):
    """By itself, because the loops around it are compiled for size: a scalar copy took longer than the sums."""
    wide_vectors()
    for i in range(n):
        target[i] = source[i]


@loop
def repeat(vector, n, fold):
    """Copy the first n elements fold - 1 times behind themselves."""
    for k in range(1, fold):
        copy_run(cut(vector, k * n, n), vector, n)


# Elements beyond those of a vector of parameters: before the first one, so that they meet cache lines where those of the output do, and
# behind the last one, those of the first again.
SPARE, PERIOD = 64, 32


@loop
def lead_of(out, place):
    """Elements to leave free before the parameters of those of `out` from `place` on, so that both meet a cache line together.

    Large arrays of NumPy begin 16 bytes behind one. Rows whose vectors cross lines, four of parameters among them, and that share
    their first and last line with others: inference of (100352, 256) took 9.6 ms instead of 3.9, training 14.4 instead of 7.7.
    """
    return -before_line(out, place) & (PERIOD - 1)


@loop
def repeat_beyond(vector, n, fold):
    """The same, and PERIOD elements further: rows that begin anywhere in the first ones."""
    repeat(vector, n, fold)
    copy_run(cut(vector, n * fold, PERIOD), vector, PERIOD)


@loop
def gradient_sums_of_rows(grad, src, residual, places, steps, n_rows, n, high, low, scale, shift, activation, totals, sums, at_once):
    """Add the sums of grad and grad * d over n_rows rows to the float64 vectors totals[0], totals[1].

    at_once : rows that are summed side by side, 4 or 1
    """
    done = 0
    while done < n_rows:
        block = min(ROWS, n_rows - done)
        clear(row(sums, 0), n)
        clear(row(sums, 1), n)
        fours = block // 4 if at_once == 4 else 0
        line = done + 4 * fours
        gradient_sums_of_fours(grad, src, residual, places, steps, done, line, n, high, low, scale, shift, activation, sums)
        gradient_sums_one_by_one(grad, src, residual, places, steps, line, done + block, n, high, low, scale, shift, activation, sums)
        for k in range(2):
            add_run(row(totals, k), row(sums, k), n)
        done += block


@chunk_body
def gradient_sums_of_fours(grad, src, residual, places, steps, first, last, n, high, low, scale, shift, activation, sums):
    """Four rows at a time: one load and store of the running sums per four rows."""
    wide_vectors()
    total, product = row(sums, 0), row(sums, 1)
    for line in range(first, last, 4):
        g0, x0, r0 = rows_of(grad, src, residual, places, steps, line, n)
        g1, x1, r1 = rows_of(grad, src, residual, places, steps, line + 1, n)
        g2, x2, r2 = rows_of(grad, src, residual, places, steps, line + 2, n)
        g3, x3, r3 = rows_of(grad, src, residual, places, steps, line + 3, n)
        for i in range(n):
            h, w, a, b = high[i], low[i], scale[i], shift[i]
            d0 = centred(load(x0, i), h, w)
            d1 = centred(load(x1, i), h, w)
            d2 = centred(load(x2, i), h, w)
            d3 = centred(load(x3, i), h, w)
            e0 = through_activation(load(g0, i), d0, a, None, b, load(r0, i), activation)
            e1 = through_activation(load(g1, i), d1, a, None, b, load(r1, i), activation)
            e2 = through_activation(load(g2, i), d2, a, None, b, load(r2, i), activation)
            e3 = through_activation(load(g3, i), d3, a, None, b, load(r3, i), activation)
            total[i] += (e0 + e1) + (e2 + e3)
            product[i] += (e0 * d0 + e1 * d1) + (e2 * d2 + e3 * d3)


@chunk_body
def add_run(target, source, n):
    wide_vectors()
    for i in range(n):
        target[i] += source[i]


@loop
def unfold_sums(totals, fold, n):
    """Add `fold` copies of n columns, lying side by side, to the first."""
    for field in range(2):
        total = row(totals, field)
        for k in range(1, fold):
            add_run(total, cut(total, k * n, n), n)


@loop
def rows_of(first, second, third, places, steps, line, n):
    """Row number `line` of three operands."""
    return (
        cut(first, places[0] + line * steps[0], n),
        cut(second, places[1] + line * steps[1], n),
        cut(third, places[2] + line * steps[2], n),
    )


@chunk_body
def gradient_sums_one_by_one(grad, src, residual, places, steps, first, last, n, high, low, scale, shift, activation, sums):
    """The loop over rows in here, too: called for each row, (1000000, 50) and (50000, 1000) took 1.13 and 1.15 times as long."""
    wide_vectors()
    total, product = row(sums, 0), row(sums, 1)
    for line in range(first, last):
        g0, x0, r0 = rows_of(grad, src, residual, places, steps, line, n)
        for i in range(n):
            d = centred(load(x0, i), high[i], low[i])
            g = through_activation(load(g0, i), d, scale[i], None, shift[i], load(r0, i), activation)
            total[i] += g
            product[i] += g * d
