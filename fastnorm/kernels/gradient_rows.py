"""Sums of gradients of rows of columns: of grad and of grad * d, where d is the distance of x from the mean."""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, loop, variant
from fastnorm.element.affine import added, distance
from fastnorm.element.bits import wide_vectors
from fastnorm.element.gradient import about_mean, through_activation
from fastnorm.element.lanes import fused, have_lanes, lanes_of, load_lanes, write_lanes
from fastnorm.element.storage import as_compute, at, fetch_for_later, load, row, write
from fastnorm.kernels.columns import ROWS, clear, rows_of, unfold
from fastnorm.kernels.narrow_columns import MOST_ROWS, kept_in_registers, sum_narrow, summed_in_registers
from fastnorm.kernels.prefetch import fetches_rows


@variant
def vectors_for(grad: Any, src: Any, activation: Any) -> Any:
    """Whether rows are summed in `Lanes`: activations have conditions, and other elements no lanes."""
    if activation is types.none and have_lanes(grad, src):
        return lambda grad, src, activation: 1
    return lambda grad, src, activation: None


@loop
def gradient_sums_of_rows(
    grad, src, residual, places, steps, n_rows, n, fold, high, low, scale, shift, activation, totals, sums, at_once, ahead
):
    """Add the sums of grad and grad * d over n_rows rows, `fold` of them side by side, to the float64 vectors totals[0], totals[1].

    shift   : as forward adds it to (x - high) * scale
    at_once : rows that are summed side by side, 4, or 1 where caches do not hold them; lanes are of four rows
    ahead   : whether lanes fetch the next four meanwhile
    """
    kind = vectors_for(grad, src, activation)
    total, product = row(sums, 0), row(sums, 1)
    done, width = 0, n * fold
    registers = summed_in_registers(src, grad, activation)
    kept = kept_in_registers(registers, src, n, width, steps[0], steps[1])
    copies = kept // n if kept > 0 else fold
    most = max(1, MOST_ROWS * kept // width) if kept > 0 else ROWS
    while done < n_rows:
        block = min(most, n_rows - done)
        of_grad, place = places[0] + done * steps[0], places[1] + done * steps[1]
        if not sum_narrow(registers, grad, src, of_grad, place, steps[0], steps[1], block, width, kept, high, total, product, ahead):
            clear(total, width)
            clear(product, width)
            sums_of_rows(
                kind, grad, src, residual, places, steps, done, done + block, width, high, scale, shift, activation, sums, at_once, ahead
            )
        unfold(total, copies, n)
        unfold(product, copies, n)
        add_about_mean(totals, total, product, low, n)
        done += block


@chunk_body
def add_about_mean(totals, total, product, low, n):
    """Sums of grad and of grad * (x - high): a subtraction for every column, in place of one for every element, makes them grad * d."""
    wide_vectors()
    totals0, totals1 = row(totals, 0), row(totals, 1)
    for i in range(n):
        of_grad = as_compute(0.0, at(total, i))
        write(totals0, i, at(totals0, i) + of_grad)
        write(totals1, i, at(totals1, i) + about_mean(of_grad, as_compute(0.0, at(product, i)), as_compute(0.0, at(low, i))))


@loop
def sums_of_rows(kind, grad, src, residual, places, steps, first, last, n, high, scale, shift, activation, sums, at_once, ahead):
    if kind is not None:
        gradient_sums_in_lanes(grad, src, places, steps, first, last, n, high, sums, ahead)
    else:
        rest = first + (last - first) // 4 * 4 if at_once == 4 else first
        gradient_sums_of_fours(grad, src, residual, places, steps, first, rest, n, high, scale, shift, activation, sums)
        gradient_sums_one_by_one(grad, src, residual, places, steps, rest, last, n, high, scale, shift, activation, sums)


@chunk_body
def gradient_sums_in_lanes(grad, src, places, steps, first, last, n, high, sums, ahead):
    """Of grad and grad * (x - high), four rows at a time, and the last ones.

    ahead : whether the next four are fetched meanwhile. Without it memory is read faster in two streams than in eight; with it, 51 MB of x
    and dy went from 31 to 72 GB/s, 200 MB from 27 to 50, as fast as a sum of both (two cores of a Zen 4, in C).
    """
    wide_vectors()
    lanes = lanes_of(src)
    whole = n // lanes * lanes
    fours = first + (last - first) // 4 * 4
    fetches = fetches_rows(src, ahead, steps[1])
    for line in range(first, fours, 4):
        g0, x0, _ = rows_of(grad, src, None, places, steps, line, n)
        g1, x1, _ = rows_of(grad, src, None, places, steps, line + 1, n)
        g2, x2, _ = rows_of(grad, src, None, places, steps, line + 2, n)
        g3, x3, _ = rows_of(grad, src, None, places, steps, line + 3, n)
        for i in range(0, whole, lanes):
            if fetches:
                for k in range(line + 4, line + 8):
                    fetch_for_later(grad, places[0] + k * steps[0] + i)
                    fetch_for_later(src, places[1] + k * steps[1] + i)
            add_four(src, g0, g1, g2, g3, x0, x1, x2, x3, i, None, high, sums)
        if whole < n:
            add_four(src, g0, g1, g2, g3, x0, x1, x2, x3, whole, n - whole, high, sums)
    if fours < last:
        for i in range(0, whole, lanes):
            add_few(grad, src, places, steps, fours, last, n, i, None, high, sums)
        if whole < n:
            add_few(grad, src, places, steps, fours, last, n, whole, n - whole, high, sums)


@loop
def add_four(src, g0, g1, g2, g3, x0, x1, x2, x3, i, count, high, sums):
    """Lanes of four rows from column i on, only the first `count` of them unless that is None."""
    h = load_lanes(high, i, count, src)
    total, product = row(sums, 0), row(sums, 1)
    e0, e1 = load_lanes(g0, i, count, src), load_lanes(g1, i, count, src)
    e2, e3 = load_lanes(g2, i, count, src), load_lanes(g3, i, count, src)
    d0, d1 = distance(load_lanes(x0, i, count, src), h), distance(load_lanes(x1, i, count, src), h)
    d2, d3 = distance(load_lanes(x2, i, count, src), h), distance(load_lanes(x3, i, count, src), h)
    products = fused(e3, d3, fused(e2, d2, fused(e1, d1, e0 * d0)))
    write_lanes(total, i, added(load_lanes(total, i, count, src), (e0 + e1) + (e2 + e3)), count)
    write_lanes(product, i, added(load_lanes(product, i, count, src), products), count)


@loop
def add_few(grad, src, places, steps, first, last, n, i, count, high, sums):
    """Of less than four rows."""
    h = load_lanes(high, i, count, src)
    total, product = row(sums, 0), row(sums, 1)
    of_rows, products = load_lanes(total, i, count, src), load_lanes(product, i, count, src)
    for line in range(first, last):
        g0, x0, _ = rows_of(grad, src, None, places, steps, line, n)
        e = load_lanes(g0, i, count, src)
        of_rows = of_rows + e
        products = fused(e, distance(load_lanes(x0, i, count, src), h), products)
    write_lanes(total, i, of_rows, count)
    write_lanes(product, i, products, count)


@chunk_body
def gradient_sums_of_fours(grad, src, residual, places, steps, first, last, n, high, scale, shift, activation, sums):
    """Four rows at a time: one load and store of the running sums per four rows."""
    wide_vectors()
    total, product = row(sums, 0), row(sums, 1)
    for line in range(first, last, 4):
        g0, x0, r0 = rows_of(grad, src, residual, places, steps, line, n)
        g1, x1, r1 = rows_of(grad, src, residual, places, steps, line + 1, n)
        g2, x2, r2 = rows_of(grad, src, residual, places, steps, line + 2, n)
        g3, x3, r3 = rows_of(grad, src, residual, places, steps, line + 3, n)
        for i in range(n):
            h, a, b = high[i], scale[i], shift[i]
            d0 = distance(load(x0, i), h)
            d1 = distance(load(x1, i), h)
            d2 = distance(load(x2, i), h)
            d3 = distance(load(x3, i), h)
            e0 = through_activation(as_compute(d0, load(g0, i)), d0, a, None, b, load(r0, i), activation)
            e1 = through_activation(as_compute(d1, load(g1, i)), d1, a, None, b, load(r1, i), activation)
            e2 = through_activation(as_compute(d2, load(g2, i)), d2, a, None, b, load(r2, i), activation)
            e3 = through_activation(as_compute(d3, load(g3, i)), d3, a, None, b, load(r3, i), activation)
            total[i] += (e0 + e1) + (e2 + e3)
            product[i] += (e0 * d0 + e1 * d1) + (e2 * d2 + e3 * d3)


@chunk_body
def gradient_sums_one_by_one(grad, src, residual, places, steps, first, last, n, high, scale, shift, activation, sums):
    """The loop over rows in here, too: called for each row, (1000000, 50) and (50000, 1000) took 1.13 and 1.15 times as long."""
    wide_vectors()
    total, product = row(sums, 0), row(sums, 1)
    for line in range(first, last):
        g0, x0, r0 = rows_of(grad, src, residual, places, steps, line, n)
        for i in range(n):
            d = distance(load(x0, i), high[i])
            g = through_activation(load(g0, i), d, scale[i], None, shift[i], load(r0, i), activation)
            total[i] += g
            product[i] += g * d
