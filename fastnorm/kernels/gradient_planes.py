"""Backward where a statistic is one run of planes, each with its parameter: group and instance norm.

As in `short_rows`, one thing at a time for all planes of a block. Plane by plane, those of 7 x 7 took 80 ns each, and take 20.

mean, rstd, sums : as in `gradient`
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.gradient import GradientSums, mean_terms
from fastnorm.element.storage import FEW_LANES, LANES, as_compute, at, cut, row, write, zero_of
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.gradient import forward_parameters
from fastnorm.kernels.gradient_tile import gradient_in_lanes, gradient_sums_in_lanes, gradient_to
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.walk import parameters_per_statistic, position, span
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, GRAD, INNER, OUT, PROBLEM, RUN, SRC, STEP_INNER

# Elements of a block of statistics: x and dy of it stay in L1.
BLOCK = 3072


@loop
def plane_place(table, operand, plane):
    """Where a plane begins: they follow each other without a gap."""
    step = table[PROBLEM, RUN] * table[operand, STEP_INNER]
    return position(table, operand, 0, 0, 0, 0) + plane * step, step


@chunk_body
def parameters_of_planes(parameters, table, first, n, mean, rstd, gamma, beta):
    """Fill high, low, scale, shift of the planes of n statistics."""
    wide_vectors()
    highs, lows, scales, shifts = row(parameters, 0), row(parameters, 1), row(parameters, 2), row(parameters, 3)
    zero, segments, channel = zero_of(highs), parameters_per_statistic(table), table[PROBLEM, CHANNEL]
    c, plane = first % channel, 0
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
def sums_in_lanes(grad, src, parameters, activation, table, first, n, grads, products, lanes):
    run = table[PROBLEM, RUN]
    place, step = plane_place(table, SRC, first)
    of_grad, grad_step = plane_place(table, GRAD, first)
    highs, lows, scales, shifts = row(parameters, 0), row(parameters, 1), row(parameters, 2), row(parameters, 3)
    for k in range(n):
        total, product = gradient_sums_in_lanes(
            cut(grad, of_grad + k * grad_step, run), cut(src, place + k * step, run), None, run,
            at(highs, k), at(lows, k), at(scales, k), at(shifts, k), activation, lanes,
        )  # fmt: skip
        write(grads, k, total)
        write(products, k, product)


@chunk_body
def sums_of_planes(grad, src, parameters, activation, sums, table, first, n):
    wide_vectors()
    grads, products = cut(row(sums, 0), first, n), cut(row(sums, 1), first, n)
    if table[PROBLEM, RUN] <= FEW_LANES:
        sums_in_lanes(grad, src, parameters, activation, table, first, n, grads, products, FEW_LANES)
    else:
        sums_in_lanes(grad, src, parameters, activation, table, first, n, grads, products, LANES)


@chunk_body
def terms_of_planes(parameters, totals, table, first, n, sums, rstd, gamma):
    """Fill offset and slope of the planes of n statistics. totals : scratch (2, n), float64"""
    wide_vectors()
    offsets, slopes, of_stat, of_product = row(parameters, 4), row(parameters, 5), row(totals, 0), row(totals, 1)
    grads, products = row(sums, 0), row(sums, 1)
    segments, channel = parameters_per_statistic(table), table[PROBLEM, CHANNEL]
    c, plane = first % channel, first * segments
    for i in range(n):
        total, product = 0.0, 0.0
        for k in range(segments):
            weight = gamma[c * segments + k] if gamma is not None else 1.0
            total += weight * grads[plane + k]
            product += weight * products[plane + k]
        of_stat[i], of_product[i] = total, product
        plane += segments
        c = c + 1 if c + 1 < channel else 0
    zero, count = zero_of(offsets), float(table[PROBLEM, INNER])
    for i in range(n):  # vectorizes
        offset, slope = mean_terms(GradientSums(at(of_stat, i), at(of_product, i)), count, at(rstd, first + i))
        write(of_stat, i, offset)
        write(of_product, i, slope)
    for i in range(n):
        for k in range(i * segments, (i + 1) * segments):
            offsets[k], slopes[k] = as_compute(zero, of_stat[i]), as_compute(zero, of_product[i])


@loop
def planes_in_lanes(grad, src, out, parameters, activation, streams, table, first, n, lanes):
    run = table[PROBLEM, RUN]
    place, step = plane_place(table, SRC, first)
    of_grad, grad_step = plane_place(table, GRAD, first)
    target, target_step = plane_place(table, OUT, first)
    highs, lows, scales, shifts = row(parameters, 0), row(parameters, 1), row(parameters, 2), row(parameters, 3)
    offsets, slopes = row(parameters, 4), row(parameters, 5)
    for k in range(n):
        x, dy, dx = cut(src, place + k * step, run), cut(grad, of_grad + k * grad_step, run), cut(out, target + k * target_step, run)
        high, low, scale, shift = at(highs, k), at(lows, k), at(scales, k), at(shifts, k)
        offset, slope = at(offsets, k), at(slopes, k)
        if streams is None:
            gradient_in_lanes(dy, x, None, dx, None, run, high, low, scale, None, shift, offset, slope, activation, lanes)
        else:
            gradient_to(dy, x, None, dx, None, run, high, low, scale, None, shift, offset, slope, activation, streams)


@chunk_body
def gradient_of_planes(grad, src, out, parameters, activation, streams, table, first, n):
    wide_vectors()
    if streams is None and table[PROBLEM, RUN] <= FEW_LANES:
        planes_in_lanes(grad, src, out, parameters, activation, None, table, first, n, FEW_LANES)
    else:
        planes_in_lanes(grad, src, out, parameters, activation, streams, table, first, n, LANES)


@chunk_body
def planes_backward_chunk(grad, src, out, mean, rstd, gamma, beta, activation, sums, streams, table, chunk):
    compact()
    segments = parameters_per_statistic(table)
    begin, end = span(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL], table[PROBLEM, CHUNKS], chunk)
    block = max(1, BLOCK // table[PROBLEM, INNER])
    parameters = vectors(zero_of(src), 6, block * segments)
    totals = vectors(0.0, 2, block)
    for first in range(begin, end, block):
        n = min(block, end - first)
        plane, planes = first * segments, n * segments
        parameters_of_planes(parameters, table, first, n, mean, rstd, gamma, beta)
        sums_of_planes(grad, src, parameters, activation, sums, table, plane, planes)
        terms_of_planes(parameters, totals, table, first, n, sums, rstd, gamma)
        gradient_of_planes(grad, src, out, parameters, activation, streams, table, plane, planes)
    if streams is not None:
        fence()


@driver
def planes_backward(crew, grad, src, out, mean, rstd, gamma, beta, activation, sums, streams, table):
    arguments = (grad, src, out, mean, rstd, gamma, beta, activation, sums, streams, table)
    deal(crew, planes_backward_chunk, table[PROBLEM, CHUNKS], arguments)
