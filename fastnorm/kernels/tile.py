"""Loops over one contiguous cache-resident run.

lanes : None, or LANES or FEW_LANES of `element.storage`: the end of the run in vectors with a mask. It pays where the masks are made
        before a loop over runs of one length: elsewhere rows of 65 to 128 elements took 1.3 times as long with them.
"""

from __future__ import annotations

from typing import Any

from fastnorm._jit import chunk_body, loop, loop_variant
from fastnorm.element.activation import activate, is_for_lanes
from fastnorm.element.affine import affine, distance, origin_near, with_residual
from fastnorm.element.bits import wide_vectors
from fastnorm.element.lanes import lanes_of, load_lanes, rounds_lanes, stream_two_lanes, write_lanes
from fastnorm.element.moments import about_shift, lopsided
from fastnorm.element.parameters import are_for_lanes, lanes_at
from fastnorm.element.storage import as_compute, at, before_lanes, empty_sum, load, subrun, write, zero_of
from fastnorm.element.streaming import BLOCK as STREAMED
from fastnorm.element.streaming import before_line, block_of, flush, stream_block
from fastnorm.kernels.prefetch import fetch_page_later, fetch_run_later

# Elements whose squares are summed in float32: 16 to a vector lane. One outlier absorbs at most
# 16 half roundings of its own square: 5e-7 of the variance.
BLOCK = 1024
# Elements whose mean is the first guess of all.
FEW = 64


@loop
def moments_of_run(run, n):
    shift, total, squares = sums_about_mean(run, n, False)
    return about_shift(float(n), shift, total, squares)


@loop
def mean_distance(run, origin, n, lanes):
    total = zero_of(run)
    whole = before_lanes(run, n, lanes)
    for i in range(whole):
        total += distance(load(run, i), origin)
    if lanes is not None and whole < n:
        rest = subrun(run, whole, n - whole)
        for i in range(lanes):
            if i < n - whole:
                total += distance(load(rest, i), origin)
    return total / as_compute(total, n)


@loop
def sums_about_mean(run, n, ahead):
    """A shift and the sums of d and d*d, where d = x - shift; float64. ahead : as of `sums_about`

    The shift is the mean of the first elements, or the mean of all, should that be far off: nearly always one
    sweep, 1.2 times as fast in cache as summing about the mean of all from the start. A Welford step per element
    has a division on its critical path.
    """
    first = load(run, 0)
    shift = origin_near(run, first + mean_distance(run, first, min(n, FEW), None))
    total64, squares64 = sums_about(run, n, shift, ahead)
    if lopsided(float(n), total64, squares64):
        shift = shifted_to_mean(run, shift, total64, float(n))
        total64, squares64 = sums_about(run, n, shift, False)
    return float(shift), total64, squares64


@loop
def shifted_to_mean(storage, shift, total, count):
    """A better shift than one about which `count` elements have this sum."""
    return origin_near(storage, shift + as_compute(zero_of(storage), total / count))


@loop
def sums_about(run, n, shift, ahead):
    """Of d and d*d, where d = x - shift.

    ahead : whether what follows is fetched into L2 meanwhile, behind the end of the run, too. Means of 400 MB took 18.2 instead of 21.4 ms,
            moments of (32, 256, 56, 56) 4.9 instead of 5.8; from L3 up to 1.1 times as long (two cores of an Emerald Rapids)
    """
    total64 = 0.0
    squares64 = 0.0
    for begin in range(0, n, BLOCK):
        m = min(BLOCK, n - begin)
        if ahead:
            fetch_page_later(run, begin, m)
        total, squares = sums_at_once(subrun(run, begin, m), m, shift, None)
        total64 += float(total)
        squares64 += float(squares)
    return total64, squares64


@loop
def sums_at_once(run, n, shift, lanes):
    """The same of at most BLOCK elements, added to an `empty_sum`."""
    total = empty_sum(run)
    squares = total
    whole = before_lanes(run, n, lanes)
    for i in range(whole):
        d = distance(load(run, i), shift)
        total += d
        squares += d * d
    if lanes is not None and whole < n:
        rest = subrun(run, whole, n - whole)
        for i in range(lanes):
            if i < n - whole:
                d = distance(load(rest, i), shift)
                total += d
                squares += d * d
    return total, squares


@loop
def squares_of_run(run, n):
    """In the compute dtype (float32: up to abs(x) of 5e17), blocks of them in float64. All in float64 took 1.1 times as long."""
    total64 = 0.0
    for begin in range(0, n, BLOCK):
        m = min(BLOCK, n - begin)
        total64 += float(squares_at_once(subrun(run, begin, m), m, None))
    return total64


@loop
def squares_at_once(run, n, lanes):
    total = empty_sum(run)
    whole = before_lanes(run, n, lanes)
    for i in range(whole):
        value = load(run, i)
        total += value * value
    if lanes is not None and whole < n:
        rest = subrun(run, whole, n - whole)
        for i in range(lanes):
            if i < n - whole:
                value = load(rest, i)
                total += value * value
    return total


@loop
def sums_about_guess(centre, run, n, ahead):
    """As `sums_about_mean`; about zero where `centre` is None."""
    if centre is None:
        return 0.0, 0.0, squares_of_run(run, n)
    return sums_about_mean(run, n, ahead)


@loop
def sums_about_shift(centre, run, n, shift):
    """Of d and d*d; about zero where `centre` is None."""
    if centre is None:
        return 0.0, squares_of_run(run, n)
    return sums_about(run, n, shift, False)


@loop
def moments_about(centre, run, n, ahead):
    """centre : None for moments about zero, anything for the mean; ahead : as of `sums_about`"""
    shift, total, squares = sums_about_guess(centre, run, n, ahead)
    return about_shift(float(n), shift, total, squares)


@chunk_body
def put_sum_of_runs(run, addend, total, held, n):
    """Write run + addend to `total`; unless `held` is None with stores that bypass the caches, and to `held`, which is read next.

    By itself: nothing in here reads what was written, and sums that follow find it as they find any other run.
    """
    wide_vectors()
    if held is None:
        add_runs(run, addend, total, None, n)
        return
    begin, end = blocks_within(total, n)
    block = block_of(total)
    for index in range(begin, end, STREAMED):
        add_runs(subrun(run, index, STREAMED), subrun(addend, index, STREAMED), subrun(held, index, STREAMED), block, STREAMED)
        stream_block(block, total, index)
    for part in range(2):
        index, m = (0, begin) if part == 0 else (end, n - end)
        edge = subrun(held, index, m)
        add_runs(subrun(run, index, m), subrun(addend, index, m), edge, None, m)
        flush(edge, total, index, m)


@loop
def add_runs(run, addend, target, block, n):
    for i in range(n):
        both = load(run, i) + load(addend, i)
        write(target, i, both)
        if block is not None:
            write(block, i, both)


@loop
def normalize_one(run, residual, out, i, high, scale, offset, gain, shift, activation):
    z = affine(load(run, i), at(high, i), at(scale, i), at(offset, i), at(gain, i), at(shift, i))
    if residual is not None:
        z = with_residual(z, load(residual, i))
    write(out, i, activate(activation, z))


@loop
def normalize_run(run, residual, out, n, high, scale, offset, gain, shift, activation):
    """Parameters are numbers (one statistic), vectors (one per element), or None."""
    normalize_in_lanes(run, residual, out, n, high, scale, offset, gain, shift, activation, None)


def are_lines(out: Any, activation: Any, *operands: Any) -> bool:
    """Whether a run is walked line by line. operands : runs, numbers, and None"""
    return rounds_lanes(out) and is_for_lanes(activation) and are_for_lanes(out, *operands)


@loop_variant
def normalize_in_lanes(
    run: Any, residual: Any, out: Any, n: Any, high: Any, scale: Any, offset: Any, gain: Any, shift: Any, activation: Any, lanes: Any
) -> Any:
    """Line by line, bfloat16 from caches took 0.5 to 0.75 of the time in inference, 0.7 in training of planes, 0.77 to 0.9 in layer norm,
    and past them 0.77 to 0.97 (two cores of a Zen 4)."""
    if are_lines(out, activation, run, residual, high, scale, offset, gain, shift):
        return normalize_by_lines
    return normalize_by_elements


@loop
def normalized_line(run, residual, i, count, like, high, scale, offset, gain, shift, activation):
    """Lanes of a result. Parameters : lanes, or None"""
    z = affine(load_lanes(run, i, count, like), high, scale, offset, gain, shift)
    if residual is not None:
        z = with_residual(z, load_lanes(residual, i, count, like))
    return activate(activation, z)


@loop
def normalized_line_at(run, residual, i, count, like, high, scale, offset, gain, shift, activation):
    """The same with parameters as of a run."""
    h, a, b = lanes_at(high, i, count, like), lanes_at(scale, i, count, like), lanes_at(offset, i, count, like)
    return normalized_line(
        run, residual, i, count, like, h, a, b, lanes_at(gain, i, count, like), lanes_at(shift, i, count, like), activation
    )


def normalize_by_lines(run, residual, out, n, high, scale, offset, gain, shift, activation, lanes):
    whole = n & -lanes_of(out)
    for i in range(0, whole, lanes_of(out)):
        write_lanes(out, i, normalized_line_at(run, residual, i, None, out, high, scale, offset, gain, shift, activation), None)
    if whole < n:
        count = n - whole
        write_lanes(out, whole, normalized_line_at(run, residual, whole, count, out, high, scale, offset, gain, shift, activation), count)


def normalize_by_elements(run, residual, out, n, high, scale, offset, gain, shift, activation, lanes):
    whole = before_lanes(run, n, lanes)
    for i in range(whole):
        normalize_one(run, residual, out, i, high, scale, offset, gain, shift, activation)
    if lanes is not None and whole < n:
        for k in range(lanes):
            if k < n - whole:
                normalize_one(run, residual, out, whole + k, high, scale, offset, gain, shift, activation)


@loop
def blocks_within(out, n):
    """Elements of a run before its first cache line, and before what is left behind the last block that begins at one."""
    head = min(before_line(out, 0), n)
    return head, head + (n - head) // STREAMED * STREAMED


@loop
def normalize_piece(run, residual, target, at, n, high, scale, offset, gain, shift, activation):
    """n elements of a run, from `at` on, to a run of their own."""
    of_high, of_scale, of_offset = subrun(high, at, n), subrun(scale, at, n), subrun(offset, at, n)
    of_gain, of_shift = subrun(gain, at, n), subrun(shift, at, n)
    normalize_run(subrun(run, at, n), subrun(residual, at, n), target, n, of_high, of_scale, of_offset, of_gain, of_shift, activation)


@loop
def normalize_to(run, residual, out, n, high, scale, offset, gain, shift, activation, streams):
    normalize_and_fetch(run, residual, out, n, high, scale, offset, gain, shift, activation, streams, None)


@loop
def normalize_and_fetch(run, residual, out, n, high, scale, offset, gain, shift, activation, streams, away):
    """As `normalize_run`; with stores that bypass the caches unless `streams` is None, beside which memory is read `away` from the run.

    Straight from registers: staged in L1 and copied, every element takes two places in the queue of stores, and layer norm
    of (16384, 1024) took 5.7 instead of 3.2 ms, of (65536, 256) 3.7 instead of 2.7 (two cores of a Zen 4). The edges last: stores that wait
    for their lines let no others pass. Before the blocks, float16 inference of planes of 3136 took 1.2 to 1.4 times as long, gradients of
    784 1.14 times, other rows and planes 0.96 to 1.07 times; asked for as a run begins, rows of layer norm 1.4 times (Zen 3).
    """
    if streams is None:
        normalize_run(run, residual, out, n, high, scale, offset, gain, shift, activation)
        return
    begin, end = blocks_within(out, n)
    normalize_blocks(run, residual, out, begin, end, high, scale, offset, gain, shift, activation, away)
    normalize_edges(run, residual, out, n, begin, end, high, scale, offset, gain, shift, activation)


@loop_variant
def normalize_blocks(
    run: Any, residual: Any, out: Any, begin: Any, end: Any, high: Any, scale: Any, offset: Any, gain: Any, shift: Any, activation: Any,
    away: Any,
) -> Any:  # fmt: skip
    """Elements begin to end, in blocks from a cache line on."""
    if are_lines(out, activation, run, residual, high, scale, offset, gain, shift):
        return stream_by_lines
    return stream_by_elements


def stream_by_lines(run, residual, out, begin, end, high, scale, offset, gain, shift, activation, away):
    for index in range(begin, end, STREAMED):
        fetch_block(run, away, index)
        for i in range(index, index + STREAMED, 2 * lanes_of(out)):
            first = normalized_line_at(run, residual, i, None, out, high, scale, offset, gain, shift, activation)
            second = normalized_line_at(run, residual, i + lanes_of(out), None, out, high, scale, offset, gain, shift, activation)
            stream_two_lanes(out, i, first, second)


def stream_by_elements(run, residual, out, begin, end, high, scale, offset, gain, shift, activation, away):
    block = block_of(out)
    for index in range(begin, end, STREAMED):
        fetch_block(run, away, index)
        normalize_piece(run, residual, block, index, STREAMED, high, scale, offset, gain, shift, activation)
        stream_block(block, out, index)


@loop
def fetch_block(run, away, index):
    """What is read next, so many elements away from a block that bypasses the caches: memory reads and writes at once."""
    if away is not None:
        fetch_run_later(run, away + index, STREAMED)


@loop
def normalize_edges(run, residual, out, n, begin, end, high, scale, offset, gain, shift, activation):
    """Of a run what is before its blocks and behind them."""
    edge = block_of(out)
    for part in range(2):
        at, m = (0, begin) if part == 0 else (end, n - end)
        normalize_piece(run, residual, edge, at, m, high, scale, offset, gain, shift, activation)
        flush(edge, out, at, m)
