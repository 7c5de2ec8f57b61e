"""Short runs that follow each other without a gap, each with a mean, a scale and a shift of its own: rows, planes, planes of a group.

Stored past the caches, they are written line by line, and a line in which one run ends and the next begins has numbers of both. Run by
run, the ends of all of them went through the caches. From memory (two cores of a Zen 4): layer norm of rows of 16 to 128 is 1.15 to 1.7
times as fast, of 160 1.05, group norm of planes of 5 x 5 to 14 x 14 1.4 to 3.4, inference of planes of 4 x 4 to 24 x 24 1.3 to 2.7, of
56 x 56 1.1; for gradients see `gradient_planes` and `gradient_short_rows`.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, loop, maker, variant
from fastnorm.element.activation import is_for_lanes
from fastnorm.element.bits import wide_vectors
from fastnorm.element.lanes import choose_lanes, have_lanes, lanes_of, stream_lanes, write_lanes, zero_lanes
from fastnorm.element.parameters import either, lanes_at
from fastnorm.element.storage import FEW_LANES, LANES, as_compute, at, cut, row
from fastnorm.element.streaming import before_line
from fastnorm.kernels.columns import copy_run
from fastnorm.kernels.gradient_tile import gradient_line
from fastnorm.kernels.prefetch import fetch_run_later
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.tile import normalize_in_lanes, normalize_to, normalized_line

# Elements that are fetched at once beside such stores: line by line, rows of 200 took 1.3 times as long, of 768 1.25.
FETCHED = 256


@variant
def by_lines(out: Any, src: Any, other: Any, activation: Any, streams: Any) -> Any:
    """Anything where whole lines are computed as one value and stored past the caches, else None. other : residual, gradient, or None"""
    plain = isinstance(out, types.Array) and have_lanes(src, out) and (other is types.none or have_lanes(other, out))
    if streams is types.none or not plain or not is_for_lanes(activation):
        return lambda out, src, other, activation, streams: None
    return lambda out, src, other, activation, streams: 0


@maker
def spare_vectors(lines, zero, run):
    """Memory for two parameters of elements, as of `repeat_parameter`."""
    if lines is None:
        return None
    return vectors(zero, 2, run + LANES)


@loop
def repeat_parameter(lines, spare, k, parameter, run):
    """Copy a parameter of elements, and its first ones behind it: a line that goes on in the next run finds them there."""
    if lines is not None and parameter is not None:
        copy_run(row(spare, k), parameter, run)
        copy_run(cut(row(spare, k), run, LANES), row(spare, k), min(run, LANES))


@loop
def number_lanes(vector, k, like):
    if vector is None:
        return None
    return as_compute(zero_lanes(like), at(vector, k))


@loop
def numbers_of(numbers, k, like):
    highs, lows, scales, shifts, offsets, slopes = numbers
    return (
        number_lanes(highs, k, like), number_lanes(lows, k, like), number_lanes(scales, k, like),
        number_lanes(shifts, k, like), number_lanes(offsets, k, like), number_lanes(slopes, k, like),
    )  # fmt: skip


@loop
def chosen(count, first, second):
    if first is None:
        return None
    return choose_lanes(count, first, second)


@loop
def choose_numbers(count, first, second):
    h0, l0, a0, b0, o0, s0 = first
    h1, l1, a1, b1, o1, s1 = second
    return (
        chosen(count, h0, h1), chosen(count, l0, l1), chosen(count, a0, a1),
        chosen(count, b0, b1), chosen(count, o0, o1), chosen(count, s0, s1),
    )  # fmt: skip


@loop
def line_of(src, grad, residual, i, count, like, numbers, gains, shifts, place, activation):
    high, low, scale, shift, offset, slope = numbers
    gain = lanes_at(gains, place, count, like)
    if grad is None:
        return normalized_line(src, residual, i, count, like, high, scale, offset, gain, lanes_at(shifts, place, count, like), activation)
    return gradient_line(grad, src, None, None, i, count, like, high, low, scale, gain, shift, offset, slope, activation)


@loop
def walk_lines(src, grad, residual, out, numbers, gains, shifts, activation, away, n, run):
    """The results of `normalize_lines`, or, where there is a gradient, of `gradient_lines`."""
    lanes, total, i = lanes_of(out), n * run, min(before_line(out, 0), n * run)
    of_run = numbers_of(numbers, 0, out)
    if i > 0:
        write_lanes(out, 0, line_of(src, grad, residual, 0, i, out, of_run, gains, shifts, 0, activation), i)
    begin, fetched = 0, 0
    for k in range(n):
        end = begin + run
        while i + lanes <= end:
            if i >= fetched and away != 0:
                fetch_run_later(either(grad, src), fetched + away, FETCHED)
                fetched += FETCHED
            stream_lanes(out, i, line_of(src, grad, residual, i, None, out, of_run, gains, shifts, i - begin, activation))
            i += lanes
        if k + 1 < n:
            of_next = numbers_of(numbers, k + 1, out)
            if i < end:
                both = choose_numbers(end - i, of_run, of_next)
                stream_lanes(out, i, line_of(src, grad, residual, i, None, out, both, gains, shifts, i - begin, activation))
                i += lanes
            of_run = of_next
            begin = end
    if i < total:
        write_lanes(out, i, line_of(src, grad, residual, i, total - i, out, of_run, gains, shifts, i - begin, activation), total - i)


@chunk_body
def normalize_lines(src, residual, out, highs, scales, offsets, gains, shifts, activation, away, n, run):
    """n runs, of at least as many elements as a line.

    highs, scales, offsets : vectors of a number for every run
    gains, shifts : None, or as of `repeat_parameter`
    away : how far away the elements are that are fetched meanwhile, or 0
    """
    wide_vectors()
    numbers = highs, None, scales, None, offsets, None
    walk_lines(src, None, residual, out, numbers, gains, shifts, activation, away, n, run)


@chunk_body
def gradient_lines(grad, src, out, parameters, gains, activation, away, n, run):
    """The gradient of n runs. parameters : vectors of high, low, scale, shift, offset, slope; away : of gradients that are fetched"""
    wide_vectors()
    highs, lows, scales, shifts = row(parameters, 0), row(parameters, 1), row(parameters, 2), row(parameters, 3)
    numbers = highs, lows, scales, shifts, row(parameters, 4), row(parameters, 5)
    walk_lines(src, grad, None, out, numbers, gains, None, activation, away, n, run)


@loop
def normalize_in_some_lanes(src, residual, out, numbers, activation, streams, places, steps, n, run, lanes):
    highs, scales, offsets = numbers
    of_src, of_residual, of_out = places
    step, residual_step, out_step = steps
    for k in range(n):
        x, addend, y = (
            cut(src, of_src + k * step, run),
            cut(residual, of_residual + k * residual_step, run),
            cut(out, of_out + k * out_step, run),
        )
        high, scale, offset = at(highs, k), at(scales, k), at(offsets, k)
        if streams is None:
            normalize_in_lanes(x, addend, y, run, high, scale, offset, None, None, activation, lanes)
        else:
            normalize_to(x, addend, y, run, high, scale, offset, None, None, activation, streams)


@chunk_body
def normalize_runs(src, residual, out, highs, scales, offsets, activation, streams, places, steps, n, run):
    """n runs at any distance. places, steps : of the first run, and from one to the next, in src, residual and out"""
    wide_vectors()
    numbers = highs, scales, offsets
    if streams is None and run <= FEW_LANES:
        normalize_in_some_lanes(src, residual, out, numbers, activation, None, places, steps, n, run, FEW_LANES)
    else:
        normalize_in_some_lanes(src, residual, out, numbers, activation, streams, places, steps, n, run, LANES)
