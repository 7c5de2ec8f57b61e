"""Backward: sums of the gradient per (batch, parameter), then the gradient of every element.

grad, src, residual : operands GRAD, SRC, EXTRA of the table
out, grad_residual  : operands OUT, GRAD_EXTRA
mean, rstd : float64 (batch * channel,)
sums       : float64 (2, batch * parameters), of g and of g * (x - mean)
streams    : as in `kernels.apply`
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.gradient import GradientSums, add_sums, mean_terms
from fastnorm.element.storage import LANES, as_compute, at, cut, row, write, zero_of
from fastnorm.element.streaming import before_line
from fastnorm.kernels.apply import SHORT, mean_or_zeros
from fastnorm.kernels.columns import add_run, clear, copy_run
from fastnorm.kernels.dealing import deal, deal_back
from fastnorm.kernels.gradient_tile import gradient_and_fetch, gradient_in_lanes, gradient_sums_in_lanes
from fastnorm.kernels.groups_of_columns import sums_of_groups
from fastnorm.kernels.walk import distance_to_next, elements_per_statistic, lines_of, parameters_per_statistic, place_on, span
from fastnorm.plan.table import (
    BATCH,
    CHANNEL,
    CHUNKS,
    CUTS,
    EXTRA,
    GRAD,
    GRAD_EXTRA,
    OUT,
    OUTER,
    PROBLEM,
    RUN,
    SRC,
    TILE,
)

# Elements that are summed in the compute dtype, in 32 lanes where there are no wider vectors than AVX2's: with 4096 the gradient of a
# constant was off by 1.3e-6 of its terms, with 2048 by 7.5e-7.
SUMMED_AT_ONCE = 1024


@loop
def forward_parameters(zero, stat, param, mean, rstd, gamma, beta):
    """High and low part of the mean, scale and shift that forward used."""
    high, low = mean_or_zeros(zero, mean, None, stat)
    scale = at(rstd, stat) * at(gamma, param) if gamma is not None else at(rstd, stat)
    shift = at(beta, param) if beta is not None else 0.0
    return high, low, as_compute(zero, scale), as_compute(zero, shift)


@chunk_body
def forward_parameters_of_channels(parameters, place, stat, param, n, mean, rstd, gamma, beta):
    """Fill the vectors high, low, scale, shift from `place` on for n statistics with a parameter each. Vectorizes."""
    wide_vectors()
    highs, lows = cut(row(parameters, 0), place, n), cut(row(parameters, 1), place, n)
    scales, shifts = cut(row(parameters, 2), place, n), cut(row(parameters, 3), place, n)
    zero = zero_of(highs)
    for k in range(n):
        high, rest, scale, shift = forward_parameters(zero, stat + k, param + k, mean, rstd, gamma, beta)
        write(highs, k, high)
        write(lows, k, rest)
        write(scales, k, scale)
        write(shifts, k, shift)


@loop
def terms_of_statistic(table, stat, sums, rstd, gamma, training):
    """Offset and slope of a statistic, float64."""
    if not training:
        return 0.0, 0.0
    segments = parameters_per_statistic(table)
    c = stat % table[PROBLEM, CHANNEL]
    total = GradientSums(0.0, 0.0)
    for k in range(segments):
        weight = gamma[c * segments + k] if gamma is not None else 1.0
        total = add_sums(total, GradientSums(weight * sums[0, stat * segments + k], weight * sums[1, stat * segments + k]))
    return mean_terms(total, float(elements_per_statistic(table)), rstd[stat])


@chunk_body
def sums_of_span(grad, src, residual, mean, rstd, gamma, beta, activation, table, b, p, begin, end):
    """Of elements begin to end of parameter p in batch b, counted along outer and run."""
    wide_vectors()
    run = table[PROBLEM, RUN]
    segments = parameters_per_statistic(table)
    c = p // segments
    stat = b * table[PROBLEM, CHANNEL] + c
    high, low, scale, shift = forward_parameters(zero_of(src), stat, p, mean, rstd, gamma, beta)
    total = GradientSums(0.0, 0.0)
    start, left = (p - c * segments) * run, end - begin
    o = begin // run
    i = begin - o * run
    of_grad, of_src = lines_of(table, GRAD, b, c, start), lines_of(table, SRC, b, c, start)
    of_residual = lines_of(table, EXTRA, b, c, start)
    while left > 0:
        n = min(run - i, left, SUMMED_AT_ONCE)
        for _ in range(left // n if n == run else 1):  # of one length: their masks are made once
            run_grad, run_src = cut(grad, place_on(of_grad, o, i), n), cut(src, place_on(of_src, o, i), n)
            run_residual = cut(residual, place_on(of_residual, o, i), n)
            sums = gradient_sums_in_lanes(run_grad, run_src, run_residual, n, high, low, scale, shift, activation, LANES)
            total = add_sums(total, GradientSums(float(sums[0]), float(sums[1])))
            left -= n
            i += n
            if i == run:
                o, i = o + 1, 0
    return total


@chunk_body
def gradient_of_span(
    grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, terms, streams, table, b, p, begin, end, away_grad, away
):
    """Elements begin to end of parameter p in batch b, backwards: the sums have just been the other way."""
    wide_vectors()
    zero = zero_of(src)
    run = table[PROBLEM, RUN]
    segments = parameters_per_statistic(table)
    c = p // segments
    stat = b * table[PROBLEM, CHANNEL] + c
    high, low, scale, shift = forward_parameters(zero, stat, p, mean, rstd, gamma, beta)
    offset, slope = as_compute(zero, terms[0]), as_compute(zero, terms[1])
    start, left = (p - c * segments) * run, end - begin
    o = (end - 1) // run
    last = end - o * run
    of_grad, of_src = lines_of(table, GRAD, b, c, start), lines_of(table, SRC, b, c, start)
    of_residual = lines_of(table, EXTRA, b, c, start)
    of_out, of_extra, longest = lines_of(table, OUT, b, c, start), lines_of(table, GRAD_EXTRA, b, c, start), table[PROBLEM, TILE]
    while left > 0:
        n = min(min(last, left), longest)
        if streams is None and n >= SHORT:  # begins at a line, before a short run up to it: 1.1 times as fast from L2
            n -= before_line(out, place_on(of_out, o, last - n))
        for _ in range(left // n if n == run else 1):
            last -= n
            run_grad, run_src = cut(grad, place_on(of_grad, o, last), n), cut(src, place_on(of_src, o, last), n)
            run_residual, extra = cut(residual, place_on(of_residual, o, last), n), cut(grad_residual, place_on(of_extra, o, last), n)
            target = cut(out, place_on(of_out, o, last), n)
            if streams is None:
                gradient_in_lanes(
                    run_grad, run_src, run_residual, target, extra, n, high, low, scale, None, shift, offset, slope, activation, LANES,
                )  # fmt: skip
            else:
                gradient_and_fetch(
                    run_grad, run_src, run_residual, target, extra, n, high, low, scale, None, shift, offset, slope, activation, streams,
                    away_grad, away,
                )  # fmt: skip
            left -= n
            if last == 0:
                o, last = o - 1, run


@chunk_body
def planar_sums_chunk(grad, src, residual, mean, rstd, gamma, beta, activation, partial, table, chunk):
    compact()
    cuts = table[PROBLEM, CUTS]
    params = table[PROBLEM, CHANNEL] * parameters_per_statistic(table)
    first, last = span(table[PROBLEM, BATCH] * params * cuts, table[PROBLEM, CHUNKS], chunk)
    for unit in range(first, last):
        q = unit // cuts
        part = unit - q * cuts
        begin, end = span(table[PROBLEM, OUTER] * table[PROBLEM, RUN], cuts, part)
        b = q // params
        total = sums_of_span(grad, src, residual, mean, rstd, gamma, beta, activation, table, b, q - b * params, begin, end)
        partial[part, 0, q] = total.grad
        partial[part, 1, q] = total.product


@driver
def planar_sums(crew, grad, src, residual, mean, rstd, gamma, beta, activation, partial, table):
    deal(crew, planar_sums_chunk, table[PROBLEM, CHUNKS], (grad, src, residual, mean, rstd, gamma, beta, activation, partial, table))


@driver
def merge_gradient_sums(table, partial, sums):
    """Cuts in order; then the `run` columns of a parameter, where partial has one entry per column."""
    n = partial.shape[2]
    for part in range(1, partial.shape[0]):
        add_run(row(partial, 0), row(partial, part), 2 * n)
    record_sums(sums, 0, partial[0], n, n // sums.shape[1])


@chunk_body
def record_sums(sums, first, totals, n, run):
    """By itself: inlined here and there, the columns of a parameter were added in another order."""
    wide_vectors()
    for field in range(2):
        target, source = row(sums, field), row(totals, field)
        if run == 1:
            copy_run(cut(target, first, n), source, n)
            continue
        sums_of_groups(source, cut(target, first, n // run), n // run, run)


@chunk_body
def add_products(target, source, rstd, n, segments):
    """Source times 1 / std, of which each belongs to so many neighbours. Without a division for every parameter: 10 ns."""
    wide_vectors()
    if segments == 1:
        for p in range(n):
            write(target, p, at(target, p) + at(source, p) * at(rstd, p))
        return
    for c in range(n // segments):
        of_target, of_source, factor = cut(target, c * segments, segments), cut(source, c * segments, segments), at(rstd, c)
        for p in range(segments):
            write(of_target, p, at(of_target, p) + at(of_source, p) * factor)


@chunk_body
def parameter_gradients_of_sums(table, sums, rstd, dgamma, dbeta):
    """Sums over the batch: dgamma of g * (x - mean) * rstd, dbeta of g."""
    channel, segments = table[PROBLEM, CHANNEL], parameters_per_statistic(table)
    params = channel * segments
    clear(dgamma, params)
    clear(dbeta, params)
    for b in range(table[PROBLEM, BATCH]):
        products = cut(row(sums, 1), b * params, params)
        add_products(dgamma, products, cut(rstd, b * channel, channel), params, segments)
        add_run(dbeta, cut(row(sums, 0), b * params, params), params)


@driver
def parameter_gradients(table, sums, rstd, dgamma, dbeta):
    parameter_gradients_of_sums(table, sums, rstd, dgamma, dbeta)


@chunk_body
def planar_gradient_chunk(
    grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, table, chunk
):
    compact()
    cuts = table[PROBLEM, CUTS]
    segments = parameters_per_statistic(table)
    params = table[PROBLEM, CHANNEL] * segments
    first, last = span(table[PROBLEM, BATCH] * params * cuts, table[PROBLEM, CHUNKS], chunk)
    for unit in range(last - 1, first - 1, -1):  # the sums ended there
        q = unit // cuts
        begin, end = span(table[PROBLEM, OUTER] * table[PROBLEM, RUN], cuts, unit - q * cuts)
        b = q // params
        terms = terms_of_statistic(table, q // segments, sums, rstd, gamma, training)
        gradient_of_span(
            grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, terms,
            streams, table, b, q - b * params, begin, end, None, None,
        )  # fmt: skip
    fence()


@driver
def planar_gradient(crew, grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, table):
    arguments = (grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, table)
    deal_back(crew, planar_gradient_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def planar_backward_chunk(
    grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, table, chunk
):
    """Whole statistics: the second sweep finds x and dy in L2, and, streaming, fetches those of the next one: (32, 256, 56, 56) was
    1.1 times as fast, (32, 512, 28, 28) 1.15, (32, 192, 28, 28) 1.18 (two cores of a Zen 4)."""
    compact()
    cuts, channel = table[PROBLEM, CUTS], table[PROBLEM, CHANNEL]
    segments = parameters_per_statistic(table)
    n = table[PROBLEM, OUTER] * table[PROBLEM, RUN]
    first, last = span(table[PROBLEM, BATCH] * channel, table[PROBLEM, CHUNKS], chunk)
    for stat in range(first, last):
        b = stat // channel
        p = (stat - b * channel) * segments
        for k in range(segments):
            total = GradientSums(0.0, 0.0)
            for part in range(cuts):
                begin, end = span(n, cuts, part)
                total = add_sums(total, sums_of_span(grad, src, residual, mean, rstd, gamma, beta, activation, table, b, p + k, begin, end))
            sums[0, stat * segments + k] = total.grad
            sums[1, stat * segments + k] = total.product
        terms = terms_of_statistic(table, stat, sums, rstd, gamma, training)
        of_grad, of_src = distance_to_next(table, GRAD, b, stat - b * channel), distance_to_next(table, SRC, b, stat - b * channel)
        for k in range(segments - 1, -1, -1):
            gradient_of_span(
                grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, terms,
                streams, table, b, p + k, 0, n, of_grad, of_src,
            )  # fmt: skip
    fence()


@driver
def planar_backward(crew, grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, table):
    arguments = (grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, table)
    deal(crew, planar_backward_chunk, table[PROBLEM, CHUNKS], arguments)
