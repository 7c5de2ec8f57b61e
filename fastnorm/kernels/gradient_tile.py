"""Loops over the gradients of one contiguous cache-resident run. lanes : as in `kernels.tile`"""

from __future__ import annotations

from typing import Any

from fastnorm._jit import loop, loop_variant
from fastnorm.element.affine import centred
from fastnorm.element.gradient import GradientSums, input_gradient, through_activation, weighted
from fastnorm.element.lanes import lanes_of, load_lanes, stream_two_lanes, write_lanes
from fastnorm.element.parameters import lanes_at
from fastnorm.element.storage import as_compute, at, before_lanes, empty_sum, load, subrun, write
from fastnorm.element.streaming import BLOCK as STREAMED
from fastnorm.element.streaming import block_of, flush, stream_block
from fastnorm.kernels.tile import are_lines, blocks_within, fetch_block


@loop
def gradient_and_distance(grad, run, residual, i, high, low, scale, gain, shift, activation):
    """Of one element: the gradient before the activation, and x - mean."""
    d = centred(load(run, i), at(high, i), at(low, i))
    return through_activation(as_compute(d, load(grad, i)), d, at(scale, i), at(gain, i), at(shift, i), load(residual, i), activation), d


@loop
def gradient_sums_of_run(grad, run, residual, n, high, low, scale, shift, activation):
    total, product = gradient_sums_in_lanes(grad, run, residual, n, high, low, scale, shift, activation, None)
    return GradientSums(float(total), float(product))


@loop
def gradient_sums_in_lanes(grad, run, residual, n, high, low, scale, shift, activation, lanes):
    total = empty_sum(run)
    product = total
    whole = before_lanes(run, n, lanes)
    for i in range(whole):
        g, d = gradient_and_distance(grad, run, residual, i, high, low, scale, None, shift, activation)
        total += g
        product += g * d
    if lanes is not None and whole < n:
        for k in range(lanes):
            if k < n - whole:
                i = whole + k
                g, d = gradient_and_distance(grad, run, residual, i, high, low, scale, None, shift, activation)
                total += g
                product += g * d
    return total, product


@loop
def gradient_sums_and_parameters(grad, run, n, high, low, scale, gain, shift, activation, of_gain, of_shift):
    """Sums of the weighted gradient; what every element adds to the gradients of its own parameters."""
    sums = weighted_sums_in_lanes(grad, run, n, high, low, scale, gain, shift, activation, of_gain, of_shift, None)
    return GradientSums(float(sums[0]), float(sums[1]))


@loop
def weighted_of_one(grad, run, i, high, low, scale, gain, shift, activation, of_gain, of_shift):
    """The weighted gradient and x - mean of one element, which adds to the gradients of its own parameters."""
    g, d = gradient_and_distance(grad, run, None, i, high, low, scale, gain, shift, activation)
    of_gain[i] += g * (d * at(scale, i))
    if of_shift is not None:
        of_shift[i] += g
    return weighted(g, at(gain, i)), d


@loop
def weighted_sums_in_lanes(grad, run, n, high, low, scale, gain, shift, activation, of_gain, of_shift, lanes):
    total = empty_sum(run)
    product = total
    whole = before_lanes(run, n, lanes)
    for i in range(whole):
        w, d = weighted_of_one(grad, run, i, high, low, scale, gain, shift, activation, of_gain, of_shift)
        total += w
        product += w * d
    if lanes is not None and whole < n:
        for k in range(lanes):
            if k < n - whole:
                i = whole + k
                w, d = weighted_of_one(grad, run, i, high, low, scale, gain, shift, activation, of_gain, of_shift)
                total += w
                product += w * d
    return total, product


@loop
def gradient_of_piece(grad, run, residual, target, grad_residual, at, n, high, low, scale, gain, shift, offset, slope, activation):
    """Of n elements of a run, from `at` on, to a run of their own."""
    gradient_of_run(
        subrun(grad, at, n), subrun(run, at, n), subrun(residual, at, n), target, subrun(grad_residual, at, n), n,
        subrun(high, at, n), subrun(low, at, n), subrun(scale, at, n), subrun(gain, at, n), subrun(shift, at, n),
        subrun(offset, at, n), subrun(slope, at, n), activation,
    )  # fmt: skip


@loop
def gradient_to(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation, streams):
    gradient_and_fetch(
        grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation, streams, None, None,
    )  # fmt: skip


@loop
def gradient_and_fetch(
    grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation, streams, away_grad, away
):
    """As `gradient_of_run`; out with stores as in `normalize_and_fetch`."""
    if streams is None:
        gradient_of_run(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation)
        return
    begin, end = blocks_within(out, n)
    gradient_of_blocks(
        grad, run, residual, out, grad_residual, begin, end, high, low, scale, gain, shift, offset, slope, activation, away_grad, away
    )
    gradient_edges(grad, run, residual, out, grad_residual, n, begin, end, high, low, scale, gain, shift, offset, slope, activation)


@loop_variant
def gradient_of_blocks(
    grad: Any, run: Any, residual: Any, out: Any, grad_residual: Any, begin: Any, end: Any,
    high: Any, low: Any, scale: Any, gain: Any, shift: Any, offset: Any, slope: Any, activation: Any, away_grad: Any, away: Any,
) -> Any:  # fmt: skip
    if are_lines(out, activation, grad, run, residual, grad_residual, high, low, scale, gain, shift, offset, slope):
        return stream_gradient_by_lines
    return stream_gradient_by_elements


def stream_gradient_by_lines(
    grad, run, residual, out, grad_residual, begin, end, high, low, scale, gain, shift, offset, slope, activation, away_grad, away
):
    for index in range(begin, end, STREAMED):
        fetch_block(grad, away_grad, index)
        fetch_block(run, away, index)
        for i in range(index, index + STREAMED, 2 * lanes_of(out)):
            first = gradient_line_at(
                grad, run, residual, grad_residual, i, None, out, high, low, scale, gain, shift, offset, slope, activation
            )  # fmt: skip
            k = i + lanes_of(out)
            second = gradient_line_at(
                grad, run, residual, grad_residual, k, None, out, high, low, scale, gain, shift, offset, slope, activation
            )  # fmt: skip
            stream_two_lanes(out, i, first, second)


def stream_gradient_by_elements(
    grad, run, residual, out, grad_residual, begin, end, high, low, scale, gain, shift, offset, slope, activation, away_grad, away
):
    block = block_of(out)
    for index in range(begin, end, STREAMED):
        fetch_block(grad, away_grad, index)
        fetch_block(run, away, index)
        gradient_of_piece(
            grad, run, residual, block, grad_residual, index, STREAMED, high, low, scale, gain, shift, offset, slope, activation,
        )  # fmt: skip
        stream_block(block, out, index)


@loop
def gradient_edges(grad, run, residual, out, grad_residual, n, begin, end, high, low, scale, gain, shift, offset, slope, activation):
    """Of a run what is before its blocks and behind them."""
    edge = block_of(out)
    for part in range(2):
        at, m = (0, begin) if part == 0 else (end, n - end)
        gradient_of_piece(grad, run, residual, edge, grad_residual, at, m, high, low, scale, gain, shift, offset, slope, activation)
        flush(edge, out, at, m)


@loop
def gradient_of_one(grad, run, residual, out, grad_residual, i, high, low, scale, gain, shift, offset, slope, activation):
    g, d = gradient_and_distance(grad, run, residual, i, high, low, scale, gain, shift, activation)
    if grad_residual is not None:
        write(grad_residual, i, g)
    g = weighted(g, at(gain, i))
    write(out, i, input_gradient(g, d, at(scale, i), at(offset, i), at(slope, i)))


@loop
def gradient_of_run(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation):
    gradient_in_lanes(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation, None)


@loop_variant
def gradient_in_lanes(
    grad: Any, run: Any, residual: Any, out: Any, grad_residual: Any, n: Any,
    high: Any, low: Any, scale: Any, gain: Any, shift: Any, offset: Any, slope: Any, activation: Any, lanes: Any,
) -> Any:  # fmt: skip
    if are_lines(out, activation, grad, run, residual, grad_residual, high, low, scale, gain, shift, offset, slope):
        return gradient_by_lines
    return gradient_by_elements


@loop
def gradient_line(grad, run, residual, grad_residual, i, count, like, high, low, scale, gain, shift, offset, slope, activation):
    """Lanes of a gradient. Parameters : lanes, or None"""
    d = centred(load_lanes(run, i, count, like), high, low)
    g = load_lanes(grad, i, count, like)
    g = through_activation(g, d, scale, gain, shift, lanes_at(residual, i, count, like), activation)
    if grad_residual is not None:
        write_lanes(grad_residual, i, g, count)
    return input_gradient(weighted(g, gain), d, scale, offset, slope)


@loop
def gradient_line_at(grad, run, residual, grad_residual, i, count, like, high, low, scale, gain, shift, offset, slope, activation):
    """The same with parameters as of a run."""
    h, rest, a = lanes_at(high, i, count, like), lanes_at(low, i, count, like), lanes_at(scale, i, count, like)
    b, c = lanes_at(shift, i, count, like), lanes_at(gain, i, count, like)
    o, s = lanes_at(offset, i, count, like), lanes_at(slope, i, count, like)
    return gradient_line(grad, run, residual, grad_residual, i, count, like, h, rest, a, c, b, o, s, activation)


def gradient_by_lines(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation, lanes):
    whole = n & -lanes_of(out)
    for i in range(0, whole, lanes_of(out)):
        value = gradient_line_at(
            grad, run, residual, grad_residual, i, None, out, high, low, scale, gain, shift, offset, slope, activation
        )  # fmt: skip
        write_lanes(out, i, value, None)
    if whole < n:
        i, count = whole, n - whole
        value = gradient_line_at(
            grad, run, residual, grad_residual, i, count, out, high, low, scale, gain, shift, offset, slope, activation
        )  # fmt: skip
        write_lanes(out, i, value, count)


def gradient_by_elements(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation, lanes):
    whole = before_lanes(run, n, lanes)
    for i in range(whole):
        gradient_of_one(grad, run, residual, out, grad_residual, i, high, low, scale, gain, shift, offset, slope, activation)
    if lanes is not None and whole < n:
        for k in range(lanes):
            if k < n - whole:
                i = whole + k
                gradient_of_one(grad, run, residual, out, grad_residual, i, high, low, scale, gain, shift, offset, slope, activation)
