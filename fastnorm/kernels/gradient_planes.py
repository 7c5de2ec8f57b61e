"""Backward where a statistic is one run of planes, each with its parameter: group and instance norm; or, in batch norm of few samples, one
plane of each of these.

As in `short_rows`, one thing at a time for all planes of a block. Plane by plane, those of 7 x 7 took 80 ns each, and take 20. Where stores
bypass the caches they are written line by line: 1.2 to 1.35 times as fast in planes of 7 x 7 to 11 x 11, 1.6 of 14 x 14, 1.1 of 16 x 16 to
20 x 20 (two cores of a Zen 4). Fetching x of the next block beside the sums, too, took 1.0 to 1.1 times as long.

mean, rstd, sums : as in `gradient`
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.gradient import GradientSums, mean_terms
from fastnorm.element.lanes import lanes_of
from fastnorm.element.parameters import number_of, only_without
from fastnorm.element.storage import FEW_LANES, LANES, at, cut, row, write, zero_of
from fastnorm.kernels.columns import add_run, copy_run
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.dense_runs import by_lines, gradient_lines
from fastnorm.kernels.gradient import forward_parameters, forward_parameters_of_channels
from fastnorm.kernels.gradient_tile import gradient_in_lanes, gradient_sums_in_lanes, gradient_to
from fastnorm.kernels.groups_of_columns import fill_groups
from fastnorm.kernels.prefetch import PAYS, fetch_edges_to_write
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.walk import elements_per_statistic, parameters_per_statistic, position, span
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, EXTRA, GRAD, GRAD_EXTRA, OUT, OUTER, PROBLEM, RUN, SRC, STEP_INNER

# Elements of a block of statistics; x and dy of 3072 stay in L1. With 6144 planes of 7 x 7 and 14 x 14 were 1.02 to 1.07 times as fast,
# of 28 x 28 0.96 to 1.0 times.
BLOCK, BLOCK_OF_LONGER, LONGER = 6144, 3072, 256
# The same of planes of several samples, where what is done for each of these counts more: with 8192 gradients of 8 and 16 samples took 1.05
# to 1.5 times as long, with 4096 training of 10 x 10 to 20 x 20 1.1 to 1.5 times.
BLOCK_OF_SAMPLES = 16384


@loop
def plane_place(table, operand, o, plane):
    """Where a plane of a sample begins, and how far apart they are: they follow each other without a gap."""
    step = table[PROBLEM, RUN] * table[operand, STEP_INNER]
    return position(table, operand, 0, o, 0, 0) + plane * step, step


@chunk_body
def parameters_of_planes(parameters, table, first, n, mean, rstd, gamma, beta):
    """Fill high, low, scale, shift of the planes of n statistics."""
    wide_vectors()
    highs, lows, scales, shifts = row(parameters, 0), row(parameters, 1), row(parameters, 2), row(parameters, 3)
    zero, segments, channel = zero_of(highs), parameters_per_statistic(table), table[PROBLEM, CHANNEL]
    c, plane = first % channel, 0
    if segments == 1:  # vectorizes: half of the time of planes of 4 x 4, a quarter of 7 x 7
        while plane < n:
            m = min(n - plane, channel - c)
            forward_parameters_of_channels(parameters, plane, first + plane, c, m, mean, rstd, gamma, beta)
            c, plane = 0, plane + m
        return
    for stat in range(first, first + n):
        for k in range(segments):
            high, rest, scale, shift = forward_parameters(zero, stat, c * segments + k, mean, rstd, gamma, beta)
            write(highs, plane + k, high)
            write(lows, plane + k, rest)
            write(scales, plane + k, scale)
            write(shifts, plane + k, shift)
        plane += segments
        c = c + 1 if c + 1 < channel else 0


@loop
def sums_in_lanes(grad, src, residual, parameters, activation, table, o, first, n, grads, products, lanes):
    run = table[PROBLEM, RUN]
    place, step = plane_place(table, SRC, o, first)
    of_grad, grad_step = plane_place(table, GRAD, o, first)
    of_residual, residual_step = plane_place(table, EXTRA, o, first)
    highs, lows, scales, shifts = row(parameters, 0), row(parameters, 1), row(parameters, 2), row(parameters, 3)
    for k in range(n):
        addend = cut(residual, of_residual + k * residual_step, run)
        total, product = gradient_sums_in_lanes(
            cut(grad, of_grad + k * grad_step, run), cut(src, place + k * step, run), addend, run,
            at(highs, k), at(lows, k), at(scales, k), at(shifts, k), activation, lanes,
        )  # fmt: skip
        write(grads, k, total)
        write(products, k, product)


@chunk_body
def sums_of_planes(grad, src, residual, parameters, activation, sums, begin, table, o, first, n):
    wide_vectors()
    grads, products = cut(row(sums, 0), begin, n), cut(row(sums, 1), begin, n)
    if table[PROBLEM, RUN] <= FEW_LANES:
        sums_in_lanes(grad, src, residual, parameters, activation, table, o, first, n, grads, products, FEW_LANES)
    else:
        sums_in_lanes(grad, src, residual, parameters, activation, table, o, first, n, grads, products, LANES)


@loop
def sums_of_samples(grad, src, residual, parameters, activation, sums, spare, table, first, n):
    """spare : scratch (2, n), float64; there is one plane to a statistic if there are several samples"""
    sums_of_planes(grad, src, residual, parameters, activation, sums, first, table, 0, first, n)
    for o in range(1, table[PROBLEM, OUTER]):
        sums_of_planes(grad, src, residual, parameters, activation, spare, 0, table, o, first, n)
        for field in range(2):
            add_run(cut(row(sums, field), first, n), row(spare, field), n)


@chunk_body
def weigh_planes(of_stat, of_product, sums, first, gamma, c, n):
    """Sums of n planes with a statistic and a channel each, times gamma: vectorizes. By itself, as what is written here is read next."""
    wide_vectors()
    grads, products = cut(row(sums, 0), first, n), cut(row(sums, 1), first, n)
    for i in range(n):
        weight = number_of(gamma, c + i, 1.0)
        write(of_stat, i, weight * at(grads, i))
        write(of_product, i, weight * at(products, i))


@chunk_body
def weigh_segments(of_stat, of_product, sums, first, gamma, c, n, segments, channel):
    """The same of n statistics of several planes."""
    wide_vectors()
    for i in range(n):
        grads, products = cut(row(sums, 0), (first + i) * segments, segments), cut(row(sums, 1), (first + i) * segments, segments)
        weights = cut(gamma, c * segments, segments)
        total, product = 0.0, 0.0
        for k in range(segments):
            weight = number_of(weights, k, 1.0)
            total += weight * at(grads, k)
            product += weight * at(products, k)
        write(of_stat, i, total)
        write(of_product, i, product)
        c = c + 1 if c + 1 < channel else 0


@chunk_body
def terms_of_planes(parameters, totals, table, first, n, sums, rstd, gamma):
    """Fill offset and slope of the planes of n statistics. totals : scratch (2, n), float64"""
    wide_vectors()
    offsets, slopes, of_stat, of_product = row(parameters, 4), row(parameters, 5), row(totals, 0), row(totals, 1)
    segments, channel = parameters_per_statistic(table), table[PROBLEM, CHANNEL]
    c = first % channel
    if segments > 1:
        weigh_segments(of_stat, of_product, sums, first, gamma, c, n, segments, channel)
    else:
        k = 0
        while k < n:
            m = min(n - k, channel - c)
            weigh_planes(cut(of_stat, k, m), cut(of_product, k, m), sums, first + k, gamma, c, m)
            c, k = 0, k + m
    count = float(elements_per_statistic(table))
    for i in range(n):  # vectorizes
        offset, slope = mean_terms(GradientSums(at(of_stat, i), at(of_product, i)), count, at(rstd, first + i))
        write(of_stat, i, offset)
        write(of_product, i, slope)
    if segments == 1:
        copy_run(offsets, of_stat, n)
        copy_run(slopes, of_product, n)
        return
    fill_groups(offsets, of_stat, n, segments)
    fill_groups(slopes, of_product, n, segments)


@loop
def planes_in_lanes(grad, src, residual, out, grad_residual, parameters, activation, streams, table, o, first, n, lanes):
    run = table[PROBLEM, RUN]
    place, step = plane_place(table, SRC, o, first)
    of_grad, grad_step = plane_place(table, GRAD, o, first)
    target, target_step = plane_place(table, OUT, o, first)
    of_residual, residual_step = plane_place(table, EXTRA, o, first)
    of_extra, extra_step = plane_place(table, GRAD_EXTRA, o, first)
    highs, lows, scales, shifts = row(parameters, 0), row(parameters, 1), row(parameters, 2), row(parameters, 3)
    offsets, slopes = row(parameters, 4), row(parameters, 5)
    for k in range(n):
        x, dy, dx = cut(src, place + k * step, run), cut(grad, of_grad + k * grad_step, run), cut(out, target + k * target_step, run)
        addend, extra = cut(residual, of_residual + k * residual_step, run), cut(grad_residual, of_extra + k * extra_step, run)
        high, low, scale, shift = at(highs, k), at(lows, k), at(scales, k), at(shifts, k)
        offset, slope = at(offsets, k), at(slopes, k)
        if streams is None:
            gradient_in_lanes(dy, x, addend, dx, extra, run, high, low, scale, None, shift, offset, slope, activation, lanes)
        else:
            gradient_to(dy, x, addend, dx, extra, run, high, low, scale, None, shift, offset, slope, activation, streams)


@chunk_body
def gradient_of_planes(grad, src, residual, out, grad_residual, parameters, lines, activation, streams, table, o, first, n):
    wide_vectors()
    run = table[PROBLEM, RUN]
    if lines is not None and run >= lanes_of(out):
        place, of_grad, target = plane_place(table, SRC, o, first), plane_place(table, GRAD, o, first), plane_place(table, OUT, o, first)
        count = n * run
        fetch_edges_to_write(out, target[0], count)
        x, dy, dx = cut(src, place[0], count), cut(grad, of_grad[0], count), cut(out, target[0], count)
        gradient_lines(dy, x, dx, parameters, None, activation, 0 if PAYS else count, n, run)
        return
    if streams is None and table[PROBLEM, RUN] <= FEW_LANES:
        planes_in_lanes(grad, src, residual, out, grad_residual, parameters, activation, None, table, o, first, n, FEW_LANES)
    else:
        planes_in_lanes(grad, src, residual, out, grad_residual, parameters, activation, streams, table, o, first, n, LANES)


@loop
def block_of_planes(table):
    """How many statistics are worked on together."""
    elements = elements_per_statistic(table)
    if table[PROBLEM, OUTER] > 1:
        return max(1, BLOCK_OF_SAMPLES // elements)
    return max(1, (BLOCK if table[PROBLEM, RUN] <= LONGER else BLOCK_OF_LONGER) // elements)


@chunk_body
def planes_sums_chunk(grad, src, residual, mean, rstd, gamma, beta, activation, sums, table, chunk):
    compact()
    segments = parameters_per_statistic(table)
    begin, end = span(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL], table[PROBLEM, CHUNKS], chunk)
    block = block_of_planes(table)
    parameters, spare = vectors(zero_of(src), 4, block * segments), vectors(0.0, 2, block)
    for first in range(begin, end, block):
        n = min(block, end - first)
        parameters_of_planes(parameters, table, first, n, mean, rstd, gamma, beta)
        sums_of_samples(grad, src, residual, parameters, activation, sums, spare, table, first * segments, n * segments)


@driver
def planes_sums(crew, grad, src, residual, mean, rstd, gamma, beta, activation, sums, table):
    deal(crew, planes_sums_chunk, table[PROBLEM, CHUNKS], (grad, src, residual, mean, rstd, gamma, beta, activation, sums, table))


@chunk_body
def planes_backward_chunk(grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, streams, table, chunk):
    compact()
    segments, outer = parameters_per_statistic(table), table[PROBLEM, OUTER]
    begin, end = span(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL], table[PROBLEM, CHUNKS], chunk)
    block = block_of_planes(table)
    parameters, spare = vectors(zero_of(src), 6, block * segments), vectors(0.0, 2, block)
    lines = only_without(only_without(by_lines(out, src, grad, activation, streams), residual), grad_residual)
    for first in range(begin, end, block):
        n = min(block, end - first)
        plane, planes = first * segments, n * segments
        parameters_of_planes(parameters, table, first, n, mean, rstd, gamma, beta)
        sums_of_samples(grad, src, residual, parameters, activation, sums, spare, table, plane, planes)
        terms_of_planes(parameters, spare, table, first, n, sums, rstd, gamma)
        for o in range(outer - 1, -1, -1):
            gradient_of_planes(grad, src, residual, out, grad_residual, parameters, lines, activation, streams, table, o, plane, planes)
    if streams is not None:
        fence()


@driver
def planes_backward(crew, grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, streams, table):
    arguments = (grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, streams, table)
    deal(crew, planes_backward_chunk, table[PROBLEM, CHUNKS], arguments)
