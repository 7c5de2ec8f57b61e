"""Four rows of columns side by side: what belongs to a column is loaded once for all of them.

A core fetches ahead of a loop as many lines as the instructions that it has in flight ask for, and five vectors of parameters for every
line of x are most of these. Where stores bypass the caches the rows have to be 5 KB wide or more, 4 KB excepted: nearer ones are fetched
more slowly than one by one. Against single rows, medians of pairs on two cores of a Zen 4: gradients of (100352, 64) 1.22 times as fast,
(100352, 256) 1.2, (100000, 1000) 1.5, (1000000, 50) 1.46; inference of (1568, 2048) 1.44, (100000, 1000) 1.2, but of 256 columns, folded to
2048, 0.8, and of 1024 0.88. In cache: inference of (400, 256) 1.5, its gradient 1.47, (1568, 512) 1.15 and 1.18. On an Emerald Rapids,
where single rows are asked for before: gradients of (100352, 64) 1.03, (100352, 256) 1.07, (12544, 1024) 1.2, (100000, 1000) 1.16, of
(1568, 512) in cache 1.07; but inference of (1568, 2048) 1.0 to 1.08, of (25088, 64) in cache 0.95. On a Zen 3, which has AVX2, single rows
are faster where stores bypass the caches: inference of (1568, 2048) 1.29 times, (8192, 2048) 1.17, (4080, 4112) 1.37, training of the last
1.43, gradients of 64 to 4112 columns 0.98 to 1.09; and in cache where `pays_in_cache` says so.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, loop, loop_variant, variant
from fastnorm.element.activation import is_cheap
from fastnorm.element.bits import wide_vectors
from fastnorm.element.lanes import are_registers, lanes_of, stream_two_lanes, write_lanes
from fastnorm.element.parameters import is_per_element, lanes_at
from fastnorm.element.storage import at, cut, is_strided, subrun
from fastnorm.element.streaming import BLOCK as STREAMED
from fastnorm.element.streaming import before_line, block_of, stream_block
from fastnorm.kernels.columns import rows_of
from fastnorm.kernels.gradient_tile import gradient_edges, gradient_line, gradient_of_one
from fastnorm.kernels.prefetch import PAYS, are_pages_apart
from fastnorm.kernels.tile import are_lines, blocks_within, normalize_edges, normalize_one, normalized_line

# Elements of a row whose gradients `pays_for_gradients` takes one by one.
WIDEST_APART = 2048


@variant
def side_by_side(out: Any, activation: Any, gamma: Any, beta: Any, streams: Any) -> Any:
    """None where rows are taken one by one: elements that take long to collect or to compute gain nothing, and are long to compile;
    rows with parameters of their own share too little; and where the next row is asked for before it is read, little is left to gain."""
    if PAYS or is_per_element(gamma) or is_per_element(beta):
        return lambda out, activation, gamma, beta, streams: None
    return lambda out, activation, gamma, beta, streams: gradients_side_by_side(out, activation, streams)


@variant
def gradients_side_by_side(out: Any, activation: Any, streams: Any) -> Any:
    """The same of gradients, whose rows share two vectors more, on every processor."""
    bypassing = streams is not types.none
    if is_strided(out) or not is_cheap(activation) or (bypassing and not are_registers()):
        return lambda out, activation, streams: None
    return lambda out, activation, streams: 4


@variant
def widest_alone(streams: Any, width: Any) -> Any:
    """Elements of the widest folded row, of those that begin at a line, where stores bypass the caches and rows are taken one by one: 4000
    bytes where the table says 2560; otherwise 0.

    Rows of 2000 elements, which 50, 100 and 200 columns made, have parameters that leave no place for themselves in L1: of 800, inference
    was 1.1 to 1.3 times as fast, of 48 to 120 columns 0.96 to 1.25; of float64 500 elements, not 1000, 1.01 to 1.1 (Zen 3).
    """
    if streams is types.none or are_registers():
        return lambda streams, width: 0
    return lambda streams, width: width * 25 // 16


@variant
def pays_in_cache(out: Any, n: Any, step: Any, wide: Any) -> Any:
    """Whether rows of n columns, `step` apart, are normalized faster side by side where their stores go through the caches.

    Single rows of up to `wide` columns without a gap are: inference of 2 to 25 MB in rows of 256 to 1024 1.04 to 1.5 times, training 1.03
    to 1.33 (two cores of a Zen 4; of 100 KB to 1 MB 0.95 to 1.2). With a gap, without AVX-512, only if all rows lie in the same lines of
    L1: training and inference of 1024 columns 1.1 to 1.8, but of 1040 0.82 to 1.05. The parameters of wider ones are more than L1 holds:
    0.68 to 1.1.
    """
    if are_registers():
        return lambda out, n, step, wide: n > wide or step != n
    return lambda out, n, step, wide: n > wide or (step != n and not are_pages_apart(out, step))


@variant
def pays_for_gradients(out: Any, n: Any, step: Any) -> Any:
    """The same of gradients. Without AVX-512 not of rows whole pages apart, twelve of which would share a set of L1: single ones were 1.02
    to 1.6 times as fast (128 to 1568 rows of 1024 and 2048, but 64 of 1024 and, two threads, 256 of 2048 0.9; of 4096 0.94 to 1.13)."""
    if are_registers():
        return lambda out, n, step: True
    return lambda out, n, step: n > WIDEST_APART or not are_pages_apart(out, step)


@loop
def four_of(storage, place, step, n):
    """Runs of n elements that are `step` apart; of None None."""
    return cut(storage, place, n), cut(storage, place + step, n), cut(storage, place + 2 * step, n), cut(storage, place + 3 * step, n)


@loop
def subruns(runs, index, n):
    r0, r1, r2, r3 = runs
    return subrun(r0, index, n), subrun(r1, index, n), subrun(r2, index, n), subrun(r3, index, n)


@loop
def four_blocks(outs):
    o0, o1, o2, o3 = outs
    return block_of(o0), block_of(o1), block_of(o2), block_of(o3)


@loop
def stream_blocks(blocks, outs, index):
    b0, b1, b2, b3 = blocks
    o0, o1, o2, o3 = outs
    stream_block(b0, o0, index)
    stream_block(b1, o1, index)
    stream_block(b2, o2, index)
    stream_block(b3, o3, index)


@loop_variant
def normalize_four(runs: Any, residuals: Any, outs: Any, n: Any, high: Any, scale: Any, offset: Any, activation: Any) -> Any:
    if are_lines(outs[0], activation, runs[0], residuals[0], high, scale, offset):
        return normalize_four_by_lines
    return normalize_four_by_elements


@loop
def three_lanes(high, scale, offset, i, count, like):
    return lanes_at(high, i, count, like), lanes_at(scale, i, count, like), lanes_at(offset, i, count, like)


@loop
def normalize_four_lines(runs, residuals, outs, begin, end, count, high, scale, offset, activation):
    r0, r1, r2, r3 = runs
    e0, e1, e2, e3 = residuals
    o0, o1, o2, o3 = outs
    for i in range(begin, end, lanes_of(o0)):
        h, a, b = three_lanes(high, scale, offset, i, count, o0)
        write_lanes(o0, i, normalized_line(r0, e0, i, count, o0, h, a, b, None, None, activation), count)
        write_lanes(o1, i, normalized_line(r1, e1, i, count, o0, h, a, b, None, None, activation), count)
        write_lanes(o2, i, normalized_line(r2, e2, i, count, o0, h, a, b, None, None, activation), count)
        write_lanes(o3, i, normalized_line(r3, e3, i, count, o0, h, a, b, None, None, activation), count)


def normalize_four_by_lines(runs, residuals, outs, n, high, scale, offset, activation):
    whole = n & -lanes_of(outs[0])
    normalize_four_lines(runs, residuals, outs, 0, whole, None, high, scale, offset, activation)
    normalize_four_lines(runs, residuals, outs, whole, n, n - whole, high, scale, offset, activation)


def normalize_four_by_elements(runs, residuals, outs, n, high, scale, offset, activation):
    r0, r1, r2, r3 = runs
    e0, e1, e2, e3 = residuals
    o0, o1, o2, o3 = outs
    for i in range(n):
        h, a, b = at(high, i), at(scale, i), at(offset, i)
        normalize_one(r0, e0, o0, i, h, a, b, None, None, activation)
        normalize_one(r1, e1, o1, i, h, a, b, None, None, activation)
        normalize_one(r2, e2, o2, i, h, a, b, None, None, activation)
        normalize_one(r3, e3, o3, i, h, a, b, None, None, activation)


@loop_variant
def normalize_streaming(
    runs: Any, residuals: Any, outs: Any, begin: Any, end: Any, high: Any, scale: Any, offset: Any, activation: Any
) -> Any:
    """Elements begin to end, in blocks from a cache line on."""
    if are_lines(outs[0], activation, runs[0], residuals[0], high, scale, offset):
        return stream_four_by_lines
    return stream_four_by_elements


@loop
def stream_two_lines(run, residual, out, i, first, second, activation):
    """Both halves of a cache line."""
    h0, a0, b0 = first
    h1, a1, b1 = second
    z0 = normalized_line(run, residual, i, None, out, h0, a0, b0, None, None, activation)
    z1 = normalized_line(run, residual, i + lanes_of(out), None, out, h1, a1, b1, None, None, activation)
    stream_two_lanes(out, i, z0, z1)


def stream_four_by_lines(runs, residuals, outs, begin, end, high, scale, offset, activation):
    r0, r1, r2, r3 = runs
    e0, e1, e2, e3 = residuals
    o0, o1, o2, o3 = outs
    for i in range(begin, end, 2 * lanes_of(o0)):
        first, second = three_lanes(high, scale, offset, i, None, o0), three_lanes(high, scale, offset, i + lanes_of(o0), None, o0)
        stream_two_lines(r0, e0, o0, i, first, second, activation)
        stream_two_lines(r1, e1, o1, i, first, second, activation)
        stream_two_lines(r2, e2, o2, i, first, second, activation)
        stream_two_lines(r3, e3, o3, i, first, second, activation)


def stream_four_by_elements(runs, residuals, outs, begin, end, high, scale, offset, activation):
    blocks = four_blocks(outs)
    for index in range(begin, end, STREAMED):
        normalize_four(
            subruns(runs, index, STREAMED), subruns(residuals, index, STREAMED), blocks, STREAMED,
            subrun(high, index, STREAMED), subrun(scale, index, STREAMED), subrun(offset, index, STREAMED), activation,
        )  # fmt: skip
        stream_blocks(blocks, outs, index)


@loop
def normalize_fours(together, src, residual, out, places, steps, n_rows, n, high, scale, offset, activation, streams):
    """Normalize as many fours of rows as there are, and return how many rows these were."""
    if together is None:
        return 0
    if streams is not None and before_line(out, places[2]) != before_line(out, places[2] + steps[2]):
        return 0
    for line in range(0, n_rows - 3, 4):
        runs = four_of(src, places[0] + line * steps[0], steps[0], n)
        residuals = four_of(residual, places[1] + line * steps[1], steps[1], n)
        outs = four_of(out, places[2] + line * steps[2], steps[2], n)
        if streams is None:
            normalize_four(runs, residuals, outs, n, high, scale, offset, activation)
        else:
            begin, end = blocks_within(outs[0], n)
            normalize_streaming(runs, residuals, outs, begin, end, high, scale, offset, activation)
            for k in range(line, line + 4):
                run, extra, target = rows_of(src, residual, out, places, steps, k, n)
                normalize_edges(run, extra, target, n, begin, end, high, scale, offset, None, None, activation)
    return n_rows & -4


@loop_variant
def gradient_of_four(
    grads: Any, runs: Any, residuals: Any, outs: Any, extras: Any, n: Any, high: Any, scale: Any, shift: Any, offset: Any, slope: Any,
    activation: Any,
) -> Any:  # fmt: skip
    if are_lines(outs[0], activation, grads[0], runs[0], residuals[0], extras[0], high, scale, shift, offset, slope):
        return gradient_of_four_by_lines
    return gradient_of_four_by_elements


@loop
def five_lanes(high, scale, shift, offset, slope, i, count, like):
    h, a, b = three_lanes(high, scale, shift, i, count, like)
    return h, a, b, lanes_at(offset, i, count, like), lanes_at(slope, i, count, like)


@loop
def gradient_of_four_lines(grads, runs, residuals, outs, extras, begin, end, count, high, scale, shift, offset, slope, activation):
    g0, g1, g2, g3 = grads
    r0, r1, r2, r3 = runs
    e0, e1, e2, e3 = residuals
    o0, o1, o2, o3 = outs
    x0, x1, x2, x3 = extras
    for i in range(begin, end, lanes_of(o0)):
        h, a, b, c, s = five_lanes(high, scale, shift, offset, slope, i, count, o0)
        write_lanes(o0, i, gradient_line(g0, r0, e0, x0, i, count, o0, h, None, a, None, b, c, s, activation), count)
        write_lanes(o1, i, gradient_line(g1, r1, e1, x1, i, count, o0, h, None, a, None, b, c, s, activation), count)
        write_lanes(o2, i, gradient_line(g2, r2, e2, x2, i, count, o0, h, None, a, None, b, c, s, activation), count)
        write_lanes(o3, i, gradient_line(g3, r3, e3, x3, i, count, o0, h, None, a, None, b, c, s, activation), count)


def gradient_of_four_by_lines(grads, runs, residuals, outs, extras, n, high, scale, shift, offset, slope, activation):
    whole = n & -lanes_of(outs[0])
    gradient_of_four_lines(grads, runs, residuals, outs, extras, 0, whole, None, high, scale, shift, offset, slope, activation)
    gradient_of_four_lines(grads, runs, residuals, outs, extras, whole, n, n - whole, high, scale, shift, offset, slope, activation)


def gradient_of_four_by_elements(grads, runs, residuals, outs, extras, n, high, scale, shift, offset, slope, activation):
    g0, g1, g2, g3 = grads
    r0, r1, r2, r3 = runs
    e0, e1, e2, e3 = residuals
    o0, o1, o2, o3 = outs
    x0, x1, x2, x3 = extras
    for i in range(n):
        h, a, b, c, s = at(high, i), at(scale, i), at(shift, i), at(offset, i), at(slope, i)
        gradient_of_one(g0, r0, e0, o0, x0, i, h, None, a, None, b, c, s, activation)
        gradient_of_one(g1, r1, e1, o1, x1, i, h, None, a, None, b, c, s, activation)
        gradient_of_one(g2, r2, e2, o2, x2, i, h, None, a, None, b, c, s, activation)
        gradient_of_one(g3, r3, e3, o3, x3, i, h, None, a, None, b, c, s, activation)


@loop_variant
def gradient_streaming(
    grads: Any, runs: Any, residuals: Any, outs: Any, extras: Any, begin: Any, end: Any,
    high: Any, scale: Any, shift: Any, offset: Any, slope: Any, activation: Any,
) -> Any:  # fmt: skip
    """Elements begin to end, in blocks from a cache line on."""
    if are_lines(outs[0], activation, grads[0], runs[0], residuals[0], extras[0], high, scale, shift, offset, slope):
        return stream_gradient_of_four_by_lines
    return stream_gradient_of_four_by_elements


@loop
def stream_two_gradient_lines(grad, run, residual, out, extra, i, first, second, activation):
    h0, a0, b0, c0, s0 = first
    h1, a1, b1, c1, s1 = second
    z0 = gradient_line(grad, run, residual, extra, i, None, out, h0, None, a0, None, b0, c0, s0, activation)
    z1 = gradient_line(grad, run, residual, extra, i + lanes_of(out), None, out, h1, None, a1, None, b1, c1, s1, activation)
    stream_two_lanes(out, i, z0, z1)


def stream_gradient_of_four_by_lines(grads, runs, residuals, outs, extras, begin, end, high, scale, shift, offset, slope, activation):
    g0, g1, g2, g3 = grads
    r0, r1, r2, r3 = runs
    e0, e1, e2, e3 = residuals
    o0, o1, o2, o3 = outs
    x0, x1, x2, x3 = extras
    for i in range(begin, end, 2 * lanes_of(o0)):
        first = five_lanes(high, scale, shift, offset, slope, i, None, o0)
        second = five_lanes(high, scale, shift, offset, slope, i + lanes_of(o0), None, o0)
        stream_two_gradient_lines(g0, r0, e0, o0, x0, i, first, second, activation)
        stream_two_gradient_lines(g1, r1, e1, o1, x1, i, first, second, activation)
        stream_two_gradient_lines(g2, r2, e2, o2, x2, i, first, second, activation)
        stream_two_gradient_lines(g3, r3, e3, o3, x3, i, first, second, activation)


def stream_gradient_of_four_by_elements(grads, runs, residuals, outs, extras, begin, end, high, scale, shift, offset, slope, activation):
    blocks = four_blocks(outs)
    for index in range(begin, end, STREAMED):
        gradient_of_four(
            subruns(grads, index, STREAMED), subruns(runs, index, STREAMED), subruns(residuals, index, STREAMED), blocks,
            subruns(extras, index, STREAMED), STREAMED, subrun(high, index, STREAMED),
            subrun(scale, index, STREAMED), subrun(shift, index, STREAMED), subrun(offset, index, STREAMED), subrun(slope, index, STREAMED),
            activation,
        )  # fmt: skip
        stream_blocks(blocks, outs, index)


@chunk_body
def gradient_of_fours(
    together, grad, src, residual, out, grad_residual, places, steps, n_rows, n, high, scale, shift, offset, slope, streams, activation
):
    """Of as many fours of rows as there are; returns how many rows these were."""
    wide_vectors()
    if together is None:
        return 0
    if streams is not None and before_line(out, places[3]) != before_line(out, places[3] + steps[3]):
        return 0
    for line in range(0, n_rows - 3, 4):
        grads = four_of(grad, places[0] + line * steps[0], steps[0], n)
        runs = four_of(src, places[1] + line * steps[1], steps[1], n)
        residuals = four_of(residual, places[2] + line * steps[2], steps[2], n)
        outs = four_of(out, places[3] + line * steps[3], steps[3], n)
        extras = four_of(grad_residual, places[4] + line * steps[4], steps[4], n)
        if streams is None:
            gradient_of_four(grads, runs, residuals, outs, extras, n, high, scale, shift, offset, slope, activation)
        else:
            begin, end = blocks_within(outs[0], n)
            gradient_streaming(grads, runs, residuals, outs, extras, begin, end, high, scale, shift, offset, slope, activation)
            for k in range(line, line + 4):
                g, run, extra = rows_of(grad, src, residual, places[:3], steps[:3], k, n)
                target = cut(out, places[3] + k * steps[3], n)
                kept = cut(grad_residual, places[4] + k * steps[4], n)
                gradient_edges(g, run, extra, target, kept, n, begin, end, high, None, scale, None, shift, offset, slope, activation)
    return n_rows & -4
