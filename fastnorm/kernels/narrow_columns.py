"""Rows of so few columns that what belongs to each stays in registers: vectors of 128 numbers (float64: 64), a whole number of rows.

Without gaps such rows are one run, which is read once from its beginning to its end. Beside one vector of x, `four_rows` and `columns` load
most of a vector of parameters or sums again, and their streams, 2 KB apart, are read from L2 more slowly than one. Two cores of a Zen 5,
paired, 64 KB to 100 MB of 16 to 128 columns: training 1.03 to 1.3 times as fast, inference 1.0 to 1.4, gradients 1.05 to 1.26.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, loop, variant
from fastnorm.element.activation import is_for_lanes
from fastnorm.element.affine import added, distance
from fastnorm.element.bits import wide_vectors
from fastnorm.element.lanes import are_registers, fused, have_lanes, lanes_of, load_lanes, stream_lanes, write_lanes, zero_lanes
from fastnorm.element.parameters import is_per_element
from fastnorm.element.storage import cut, fetch_for_later, holds_integers, is_repeated
from fastnorm.element.streaming import before_line
from fastnorm.kernels.gradient_tile import gradient_line
from fastnorm.kernels.tile import normalized_line
from fastnorm.runtime.machine import is_zen_5

# Of parameters or sums, and of those that a gradient has twice as many of.
VECTORS, HALF = 8, 4
# Rows whose sums stay in registers, before they are added to those of others, and the most of these before they become float64: an outlier
# absorbs what is added to its square one by one, half a rounding of it each.
ROWS_AT_ONCE, MOST_ROWS = 16, 256
# Whether stores bypass the caches, too: of the processors on which it was measured. A Zen 4 reads memory faster in four rows 4 KB apart.
STREAMED = is_zen_5()
# Elements between what is summed and what is fetched, where that is asked for.
AHEAD = 2048


def _are_held(streams: Any) -> bool:
    return are_registers() and (streams is types.none or STREAMED)


def _have_lanes(results: tuple[Any, ...], *sources: Any) -> bool:
    """Whether all that are there have lanes of one kind, and results are written by them."""
    there = [storage for storage in (*results, *sources) if storage is not types.none]
    return have_lanes(*there) and not any(holds_integers(result) or is_repeated(result) for result in results)


@variant
def summed_in_registers(src: Any, grad: Any, activation: Any) -> Any:
    """Anything where sums of columns can stay in registers, else None. grad : None for moments"""
    if are_registers() and activation is types.none and have_lanes(src, *(() if grad is types.none else (grad,))):
        return lambda src, grad, activation: 0
    return lambda src, grad, activation: None


@variant
def applied_in_registers(out: Any, src: Any, residual: Any, activation: Any, gamma: Any, beta: Any, streams: Any) -> Any:
    """The same of parameters."""
    own = is_per_element(gamma) or is_per_element(beta)
    if _are_held(streams) and _have_lanes((out,), src, residual) and is_for_lanes(activation) and not own:
        return lambda out, src, residual, activation, gamma, beta, streams: 0
    return lambda out, src, residual, activation, gamma, beta, streams: None


@variant
def derived_in_registers(out: Any, grad: Any, src: Any, residual: Any, grad_residual: Any, activation: Any, streams: Any) -> Any:
    """The same of gradients."""
    if _are_held(streams) and _have_lanes((out, grad_residual), grad, src, residual) and is_for_lanes(activation):
        return lambda out, grad, src, residual, grad_residual, activation, streams: 0
    return lambda out, grad, src, residual, grad_residual, activation, streams: None


@loop
def width_in_registers(kind, vectors, src, n, most):
    """Elements of whole rows of n columns in so many vectors; 0 where nothing stays in registers, or these are more than `most`."""
    if kind is None:
        return 0
    width = vectors * lanes_of(src)
    return width if width <= most and width % n == 0 else 0


@loop
def four(vector, begin, like):
    lanes = lanes_of(like)
    return (
        load_lanes(vector, begin, None, like), load_lanes(vector, begin + lanes, None, like),
        load_lanes(vector, begin + 2 * lanes, None, like), load_lanes(vector, begin + 3 * lanes, None, like),
    )  # fmt: skip


@loop
def eight(vector, like):
    v0, v1, v2, v3 = four(vector, 0, like)
    v4, v5, v6, v7 = four(vector, 4 * lanes_of(like), like)
    return v0, v1, v2, v3, v4, v5, v6, v7


@loop
def put_lanes(target, i, value, streams):
    if streams is None:
        write_lanes(target, i, value, None)
    else:
        stream_lanes(target, i, value)


@loop
def begin_at_lines(out, place, step, streams):
    """Whether all rows do, which stores past the caches ask for."""
    return streams is None or (before_line(out, place) == 0 and step % lanes_of(out) == 0)


@loop
def normalize_lane(x, residual, y, i, high, scale, offset, activation, streams):
    put_lanes(y, i, normalized_line(x, residual, i, None, y, high, scale, offset, None, None, activation), streams)


@loop
def normalize_narrow(registers, src, residual, out, places, steps, n_rows, n, high, scale, offset, activation, streams):
    """All rows, if registers hold n columns; returns how many these were. registers : of `applied_in_registers`"""
    if registers is None or n != VECTORS * lanes_of(src) or not begin_at_lines(out, places[2], steps[2], streams):
        return 0
    normalize_in_registers(src, residual, out, places, steps, n_rows, high, scale, offset, activation, streams)
    return n_rows


@chunk_body
def normalize_in_registers(src, residual, out, places, steps, n_rows, high, scale, offset, activation, streams):
    """places, steps : of the first row, and from one to the next, in src, residual and out"""
    wide_vectors()
    lanes = lanes_of(src)
    h0, h1, h2, h3, h4, h5, h6, h7 = eight(high, src)
    a0, a1, a2, a3, a4, a5, a6, a7 = eight(scale, src)
    b0, b1, b2, b3, b4, b5, b6, b7 = eight(offset, src)
    n = VECTORS * lanes
    for line in range(n_rows):
        x, y = cut(src, places[0] + line * steps[0], n), cut(out, places[2] + line * steps[2], n)
        extra = cut(residual, places[1] + line * steps[1], n)
        normalize_lane(x, extra, y, 0, h0, a0, b0, activation, streams)
        normalize_lane(x, extra, y, lanes, h1, a1, b1, activation, streams)
        normalize_lane(x, extra, y, 2 * lanes, h2, a2, b2, activation, streams)
        normalize_lane(x, extra, y, 3 * lanes, h3, a3, b3, activation, streams)
        normalize_lane(x, extra, y, 4 * lanes, h4, a4, b4, activation, streams)
        normalize_lane(x, extra, y, 5 * lanes, h5, a5, b5, activation, streams)
        normalize_lane(x, extra, y, 6 * lanes, h6, a6, b6, activation, streams)
        normalize_lane(x, extra, y, 7 * lanes, h7, a7, b7, activation, streams)


@loop
def gradient_lane(grad, x, residual, dx, grad_residual, i, high, scale, shift, offset, slope, activation, streams):
    g = gradient_line(grad, x, residual, grad_residual, i, None, dx, high, None, scale, None, shift, offset, slope, activation)
    put_lanes(dx, i, g, streams)


@loop
def gradient_narrow(
    registers, grad, src, residual, out, grad_residual, places, steps, n_rows, n, high, scale, shift, offset, slope, activation, streams
):
    """As `normalize_narrow`, of rows without a gap. registers : of `derived_in_registers`; places, steps : as of
    `gradient_columns.gradient_of_rows`

    With gaps, half of the columns after the other half took 1.3 times as long as four rows side by side (1024 columns, Zen 5).
    """
    width = HALF * lanes_of(src)
    fits = (n == width or n == 2 * width) and steps[0] == n and steps[1] == n
    if registers is None or not fits or not begin_at_lines(out, places[3], steps[3], streams):
        return 0
    for begin in range(0, n, width):
        gradient_in_registers(
            grad, src, residual, out, grad_residual, places, steps, n_rows, begin, high, scale, shift, offset, slope, activation, streams
        )
    return n_rows


@chunk_body
def gradient_in_registers(
    grad, src, residual, out, grad_residual, places, steps, n_rows, begin, high, scale, shift, offset, slope, activation, streams
):
    """HALF vectors of columns from `begin` on."""
    wide_vectors()
    lanes = lanes_of(src)
    h0, h1, h2, h3 = four(high, begin, src)
    a0, a1, a2, a3 = four(scale, begin, src)
    b0, b1, b2, b3 = four(shift, begin, src)
    o0, o1, o2, o3 = four(offset, begin, src)
    s0, s1, s2, s3 = four(slope, begin, src)
    n = HALF * lanes
    for line in range(n_rows):
        dy, x = cut(grad, places[0] + line * steps[0] + begin, n), cut(src, places[1] + line * steps[1] + begin, n)
        extra, dx = cut(residual, places[2] + line * steps[2] + begin, n), cut(out, places[3] + line * steps[3] + begin, n)
        kept = cut(grad_residual, places[4] + line * steps[4] + begin, n)
        gradient_lane(dy, x, extra, dx, kept, 0, h0, a0, b0, o0, s0, activation, streams)
        gradient_lane(dy, x, extra, dx, kept, lanes, h1, a1, b1, o1, s1, activation, streams)
        gradient_lane(dy, x, extra, dx, kept, 2 * lanes, h2, a2, b2, o2, s2, activation, streams)
        gradient_lane(dy, x, extra, dx, kept, 3 * lanes, h3, a3, b3, o3, s3, activation, streams)


@loop
def sums_of_lane(grad, line, i, m, total, products, src):
    """With d and d*d, where d = x - shift; or with the gradient and its product with d."""
    d = distance(load_lanes(line, i, None, src), m)
    if grad is None:
        return added(total, d), fused(d, d, products)
    e = load_lanes(grad, i, None, src)
    return added(total, e), fused(e, d, products)


@loop
def put_eight(vector, first, lanes, values):
    """Write, or unless they are the first add to what is there."""
    v0, v1, v2, v3, v4, v5, v6, v7 = values
    if not first:
        w0, w1, w2, w3, w4, w5, w6, w7 = eight(vector, vector)
        v0, v1, v2, v3 = added(v0, w0), added(v1, w1), added(v2, w2), added(v3, w3)
        v4, v5, v6, v7 = added(v4, w4), added(v5, w5), added(v6, w6), added(v7, w7)
    write_lanes(vector, 0, v0, None)
    write_lanes(vector, lanes, v1, None)
    write_lanes(vector, 2 * lanes, v2, None)
    write_lanes(vector, 3 * lanes, v3, None)
    write_lanes(vector, 4 * lanes, v4, None)
    write_lanes(vector, 5 * lanes, v5, None)
    write_lanes(vector, 6 * lanes, v6, None)
    write_lanes(vector, 7 * lanes, v7, None)


@loop
def kept_in_registers(registers, src, n, width, step, other_step):
    """Columns whose sums stay in registers: rows of `width`, or, without a gap, a part of them, of which the others are copies; or 0.
    registers : of `summed_in_registers`"""
    kept = width_in_registers(registers, VECTORS, src, n, width)
    gapless = width % max(kept, 1) == 0 and step == width and other_step == width
    return kept if kept == width or gapless else 0


@loop
def sum_narrow(registers, grad, src, of_grad, start, grad_step, step, n_rows, width, kept, shift, total, products, ahead):
    """As `sum_in_registers`, unless `kept` is 0; whether it is not."""
    if registers is None or kept == 0:
        return False
    copies = width // kept
    if copies > 1:
        grad_step, step = kept, kept
    sum_in_registers(grad, src, of_grad, start, grad_step, step, n_rows * copies, shift, total, products, ahead)
    return True


@loop
def fetch_lines(storage, place, n, lanes):
    for i in range(0, n, lanes):
        fetch_for_later(storage, place + i)


@chunk_body
def sum_in_registers(grad, src, of_grad, start, grad_step, step, n_rows, shift, total, products, ahead):
    """Sums of d and d*d, where d = x - shift, of n_rows rows; or, if there is one, of the gradient and its product with d."""
    wide_vectors()
    lanes = lanes_of(src)
    n, zero = VECTORS * lanes, zero_lanes(src)
    m0, m1, m2, m3, m4, m5, m6, m7 = eight(shift, src)
    for begin in range(0, n_rows, ROWS_AT_ONCE):
        t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = zero
        q0 = q1 = q2 = q3 = q4 = q5 = q6 = q7 = zero
        for k in range(begin, min(begin + ROWS_AT_ONCE, n_rows)):
            place, of_line = start + k * step, of_grad + k * grad_step
            if ahead:
                fetch_lines(src, place + AHEAD, n, lanes)
                fetch_lines(grad, of_line + AHEAD, n, lanes)
            x, dy = cut(src, place, n), cut(grad, of_line, n)
            t0, q0 = sums_of_lane(dy, x, 0, m0, t0, q0, src)
            t1, q1 = sums_of_lane(dy, x, lanes, m1, t1, q1, src)
            t2, q2 = sums_of_lane(dy, x, 2 * lanes, m2, t2, q2, src)
            t3, q3 = sums_of_lane(dy, x, 3 * lanes, m3, t3, q3, src)
            t4, q4 = sums_of_lane(dy, x, 4 * lanes, m4, t4, q4, src)
            t5, q5 = sums_of_lane(dy, x, 5 * lanes, m5, t5, q5, src)
            t6, q6 = sums_of_lane(dy, x, 6 * lanes, m6, t6, q6, src)
            t7, q7 = sums_of_lane(dy, x, 7 * lanes, m7, t7, q7, src)
        put_eight(total, begin == 0, lanes, (t0, t1, t2, t3, t4, t5, t6, t7))
        put_eight(products, begin == 0, lanes, (q0, q1, q2, q3, q4, q5, q6, q7))
