"""Backward where every element of a statistic has parameters of its own: layer and RMS norm.

streams : None where stores go through the caches, anything where they bypass them: compiling both took 1.2 s more
mean   : float64 (batch * channel,), or None where deviations are from zero (RMS norm)
rstd   : float64 (batch * channel,)
totals : float64 (parts, 2, parameters): what a part of the statistics, or of the columns, adds to dgamma and dbeta
sums   : float64 (2, batch * channel), of the weighted gradient and of its product with the deviation
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, driver, loop, variant
from fastnorm.element.bits import fence, wide_vectors
from fastnorm.element.gradient import GradientSums, add_sums, mean_terms, weighted
from fastnorm.element.parameters import gain_of, shift_of
from fastnorm.element.storage import as_compute, at, bytes_of, cut, is_strided, row, zero_of
from fastnorm.element.streaming import before_line
from fastnorm.kernels.apply import mean_parts
from fastnorm.kernels.columns import ROWS, add_run, clear, copy_run
from fastnorm.kernels.dealing import deal, deal_back
from fastnorm.kernels.gradient_tile import gradient_and_distance, gradient_sums_and_parameters, gradient_to
from fastnorm.kernels.prefetch import AHEAD, PAYS, PIECE, fetch_edges_to_write, fetch_run, fetch_run_later, fetch_run_to_write
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.walk import elements_per_statistic, next_statistic, position, run_length, run_length_before, span
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, CUTS, GRAD, INNER, OUT, OUTER, PARAM, PROBLEM, SRC, STEP_CHANNEL

# Statistics ahead of one of which a range of elements is read.
AHEAD_OF_RANGE = 0 if PAYS else 1


@variant
def shift_sums(running: Any, mean: Any, start: Any, n: Any) -> Any:
    """Where the gradients of shifts are summed; RMS norm has none."""
    if mean is types.none:
        return lambda running, mean, start, n: None
    return lambda running, mean, start, n: cut(row(running, 1), start, n)


# Elements that are summed in the compute dtype: 32 or 64 to a vector lane. Roundings of equal elements all go one way; with 2048 the
# gradient of a constant was off by 1.1e-6 of its terms, with 4096 and vectors of AVX2 by 2.6e-6.
PIECE_OF_SUMS = 512


# Bytes of rows that lie between one and another that is fetched for later meanwhile: its elements with the sums, their gradients with the
# gradient. Two cores of a Zen 4 took 1.48 times as long without for (4096, 1024), 1.23 for (16384, 768), 1.16 for (65536, 256), 1.05 for
# rows of 4096; twice or half as many bytes 0.85 to 1.06. Of the next row alone 1.25, 1.0, 0.98, and all of it in one of the sweeps less.
AHEAD_BYTES = 8192


@loop
def statistics_ahead(streams, src, table, at_once):
    """How many statistics to look ahead; 0 beside stores through the caches, which hold what comes, and where `fetch_run` does it."""
    if streams is None or PAYS:
        return 0
    return max(at_once, AHEAD_BYTES // max(1, bytes_of(src, elements_per_statistic(table))))


@loop
def fetch_of_statistic(storage, table, operand, stat, i, n):
    """n elements from the i-th on, of a statistic of one run, for later."""
    channel = table[PROBLEM, CHANNEL]
    b = stat // channel
    fetch_run_later(storage, position(table, operand, b, 0, stat - b * channel, i), n)


@loop
def sums_of_elements(grad, src, mean, rstd, gamma, beta, activation, running, base, table, stat, begin, end, streams, ahead, partly):
    """Of elements begin to end of a statistic; running (2, parameters from `base` on) collects their parameters' gradients.

    ahead  : how many statistics ahead memory is asked for, or 0
    partly : whether that is for these elements of it, which other statistics were read before, their gradients, too
    """
    zero = zero_of(src)
    channel, inner = table[PROBLEM, CHANNEL], table[PROBLEM, INNER]
    b = stat // channel
    c = stat - b * channel
    high, low = mean_parts(zero, mean, None, stat)
    scale = as_compute(zero, rstd[stat])
    total = GradientSums(0.0, 0.0)
    at = begin
    while at < end:
        o = at // inner
        i = at - o * inner
        n = min(run_length(table, i, end - at), PIECE_OF_SUMS)
        param = position(table, PARAM, b, o, c, i)
        part = gradient_sums_and_parameters(
            cut(grad, position(table, GRAD, b, o, c, i), n), cut(src, position(table, SRC, b, o, c, i), n), n,
            high, low, scale, gain_of(gamma, param, n), shift_of(beta, zero, param, n), activation,
            cut(row(running, 0), param - base, n), shift_sums(running, mean, param - base, n),
        )  # fmt: skip
        total = add_sums(total, part)
        if streams is not None and ahead != 0:
            fetch_of_statistic(src, table, SRC, stat + ahead, at, n)
            if partly:
                fetch_of_statistic(grad, table, GRAD, stat + ahead, at, n)
        at += n
    return total


@variant
def four_together(src: Any, activation: Any) -> Any:
    """None where rows are summed one by one."""
    if is_strided(src) or activation is not types.none:
        return lambda src, activation: None
    return lambda src, activation: 4


@loop
def weighted_by(grad, run, i, high, low, scale, gain):
    """Of one element: the gradient, its weighted, x - mean, and what the gradient of gamma is the sum of."""
    g, d = gradient_and_distance(grad, run, None, i, high, low, scale, gain, scale, None)
    return g, weighted(g, gain), d, g * (d * scale)


@chunk_body
def sums_of_four(grads, runs, n, highs, lows, scales, gain, of_gain, of_shift):
    """Of n elements of four rows that share their parameters: these are loaded, and what they get is stored, once for all of them."""
    wide_vectors()
    g0, g1, g2, g3 = grads
    r0, r1, r2, r3 = runs
    h0, h1, h2, h3 = highs
    l0, l1, l2, l3 = lows
    s0, s1, s2, s3 = scales
    zero = zero_of(r0)
    t0, t1, t2, t3 = zero, zero, zero, zero
    p0, p1, p2, p3 = zero, zero, zero, zero
    for i in range(n):
        weight = at(gain, i)
        e0, w0, d0, c0 = weighted_by(g0, r0, i, h0, l0, s0, weight)
        e1, w1, d1, c1 = weighted_by(g1, r1, i, h1, l1, s1, weight)
        e2, w2, d2, c2 = weighted_by(g2, r2, i, h2, l2, s2, weight)
        e3, w3, d3, c3 = weighted_by(g3, r3, i, h3, l3, s3, weight)
        of_gain[i] += (c0 + c1) + (c2 + c3)
        if of_shift is not None:
            of_shift[i] += (e0 + e1) + (e2 + e3)
        t0 += w0
        t1 += w1
        t2 += w2
        t3 += w3
        p0 += w0 * d0
        p1 += w1 * d1
        p2 += w2 * d2
        p3 += w3 * d3
    return (t0, t1, t2, t3), (p0, p1, p2, p3)


@loop
def of_four_statistics(zero, vector, stat):
    v0, v1, v2, v3 = at(vector, stat), at(vector, stat + 1), at(vector, stat + 2), at(vector, stat + 3)
    return as_compute(zero, v0), as_compute(zero, v1), as_compute(zero, v2), as_compute(zero, v3)


@loop
def means_of_four(zero, mean, stat):
    """High and low parts of four means; None where deviations are from zero."""
    if mean is None:
        return (None, None, None, None), (None, None, None, None)
    h0, l0 = mean_parts(zero, mean, None, stat)
    h1, l1 = mean_parts(zero, mean, None, stat + 1)
    h2, l2 = mean_parts(zero, mean, None, stat + 2)
    h3, l3 = mean_parts(zero, mean, None, stat + 3)
    return (h0, h1, h2, h3), (l0, l1, l2, l3)


@loop
def four_of_rows(storage, table, operand, stat, i, n):
    """n elements from the i-th on of four statistics that are one run each."""
    channel = table[PROBLEM, CHANNEL]
    p0 = position(table, operand, stat // channel, 0, stat % channel, i)
    p1 = position(table, operand, (stat + 1) // channel, 0, (stat + 1) % channel, i)
    p2 = position(table, operand, (stat + 2) // channel, 0, (stat + 2) % channel, i)
    p3 = position(table, operand, (stat + 3) // channel, 0, (stat + 3) % channel, i)
    return cut(storage, p0, n), cut(storage, p1, n), cut(storage, p2, n), cut(storage, p3, n)


# Bytes of rows that are summed four side by side: nearer ones are fetched more slowly than one by one. Layer norm backward of (4096, 1024)
# was 0.99 times as fast as row by row, of (1024, 4096) 1.25, (8192, 4096) 1.13, but of (16384, 768) 0.9 and of (65536, 256) 0.6 (two cores
# of a Zen 4).
WIDE_BYTES = 8192


@loop
def in_fours(together, src, table):
    """Whether statistics are one long run each, with parameters that all of them share."""
    if together is None:
        return False
    return table[PROBLEM, OUTER] == 1 and table[PARAM, STEP_CHANNEL] == 0 and bytes_of(src, table[PROBLEM, INNER]) >= WIDE_BYTES


@loop
def sums_of_fours(together, grad, src, mean, rstd, gamma, running, base, table, stat, begin, end, sums, streams, ahead, partly):
    """Fill sums (2, four), float64, as `sums_of_elements` does of one statistic."""
    if together is None:
        return
    zero = zero_of(src)
    highs, lows = means_of_four(zero, mean, stat)
    scales = of_four_statistics(zero, rstd, stat)
    for field in range(2):
        clear(row(sums, field), 4)
    for i in range(begin, end, PIECE_OF_SUMS):
        m = min(end - i, PIECE_OF_SUMS)
        param = position(table, PARAM, 0, 0, 0, i)
        totals, products = sums_of_four(
            four_of_rows(grad, table, GRAD, stat, i, m), four_of_rows(src, table, SRC, stat, i, m), m, highs, lows, scales,
            gain_of(gamma, param, m), cut(row(running, 0), param - base, m), shift_sums(running, mean, param - base, m),
        )  # fmt: skip
        for k in range(4):
            sums[0, k] += float(totals[k])
            sums[1, k] += float(products[k])
            if streams is not None and ahead > 0:
                fetch_of_statistic(src, table, SRC, stat + ahead + k, i, m)
                if partly:
                    fetch_of_statistic(grad, table, GRAD, stat + ahead + k, i, m)


@loop
def terms_about(mean, sums, count, rstd):
    """Offset and slope; deviations from zero leave no offset."""
    if mean is None:
        return mean_terms(GradientSums(0.0, sums.product), count, rstd)
    return mean_terms(sums, count, rstd)


@loop
def gradient_of_elements(
    grad, src, out, mean, rstd, gamma, beta, activation, streams, terms, table, stat, begin, end, ahead, partly
):  # fmt: skip
    """Backwards: the sums have just been the other way. Of the next statistic what its sums read first is fetched.

    ahead, partly : as of `sums_of_elements`; `ahead` is negative where statistics are walked backwards
    """
    zero = zero_of(src)
    channel, inner = table[PROBLEM, CHANNEL], table[PROBLEM, INNER]
    b = stat // channel
    c = stat - b * channel
    high, low = mean_parts(zero, mean, None, stat)
    scale = as_compute(zero, rstd[stat])
    offset, slope = as_compute(zero, terms[0]), as_compute(zero, terms[1])
    nb, nc = next_statistic(b, c, channel)
    next_src, next_grad = position(table, SRC, nb, 0, nc, 0), position(table, GRAD, nb, 0, nc, 0)
    at = end
    while at > begin:
        o = (at - 1) // inner
        n = min(run_length_before(table, at - o * inner, at - begin), PIECE)
        i = at - o * inner - n
        if streams is not None:  # a piece begins at a line
            head = before_line(out, position(table, OUT, b, o, c, i))
            if i > 0 and n > head:
                i, n = i + head, n - head
        fetch_run(src, next_src + end - at, n)
        fetch_run(grad, next_grad + end - at, n)
        if streams is not None and ahead != 0:
            fetch_of_statistic(grad, table, GRAD, stat + ahead, at - n if partly else end - at, n)
            if partly:
                fetch_of_statistic(src, table, SRC, stat + ahead, at - n, n)
        if streams is None:
            fetch_run_to_write(out, position(table, OUT, b, o, c, 0), max(0, i - AHEAD), i - AHEAD + n)
        param = position(table, PARAM, b, o, c, i)
        target = cut(out, position(table, OUT, b, o, c, i), n)
        gradient_to(
            cut(grad, position(table, GRAD, b, o, c, i), n), cut(src, position(table, SRC, b, o, c, i), n), None, target, None, n,
            high, low, scale, gain_of(gamma, param, n), shift_of(beta, zero, param, n), offset, slope, activation, streams,
        )  # fmt: skip
        at -= n


@loop
def settle(totals, running, begin, n, first):
    """Float32 sums into float64 totals, from `begin` on; the first ones are what these are then."""
    for field in range(2):
        total, sums = cut(row(totals, field), begin, n), row(running, field)
        if first:
            copy_run(total, sums, n)
        else:
            add_run(total, sums, n)
        clear(sums, n)


@chunk_body
def elements_backward_chunk(grad, src, out, mean, rstd, gamma, beta, activation, streams, totals, table, chunk):
    """Whole statistics: the second sweep finds x and dy in cache."""
    wide_vectors()
    first, last = span(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL], table[PROBLEM, CHUNKS], chunk)
    n, parameters = elements_per_statistic(table), totals.shape[2]
    running = vectors(zero_of(src), 2, parameters)
    total = totals[chunk]
    for field in range(2):
        clear(row(running, field), parameters)
    additions = n // parameters if n > parameters else 1
    unsettled, settled = 0, False
    channel, inner = table[PROBLEM, CHANNEL], table[PROBLEM, INNER]
    together = four_together(src, activation)
    fours = in_fours(together, src, table)
    of_four = vectors(0.0, 2, 4)
    ahead = statistics_ahead(streams, src, table, 4 if fours else 1) if inner == n else 0
    stat = first
    while stat < last:
        rows = 4 if fours and stat + 4 <= last else 1
        for k in range(stat, stat + rows):
            place = position(table, OUT, k // channel, 0, k % channel, 0)
            if streams is None:
                fetch_run_to_write(out, place, max(0, inner - AHEAD), inner)
            else:
                fetch_edges_to_write(out, place, inner)
        if rows == 4:
            sums_of_fours(together, grad, src, mean, rstd, gamma, running, 0, table, stat, 0, n, of_four, streams, ahead, False)
        else:
            sums = sums_of_elements(grad, src, mean, rstd, gamma, beta, activation, running, 0, table, stat, 0, n, streams, ahead, False)
            of_four[0, 0], of_four[1, 0] = sums.grad, sums.product
        for k in range(rows - 1, -1, -1):
            terms = terms_about(mean, GradientSums(of_four[0, k], of_four[1, k]), float(n), rstd[stat + k])
            gradient_of_elements(grad, src, out, mean, rstd, gamma, beta, activation, streams, terms, table, stat + k, 0, n, ahead, False)
        stat += rows
        unsettled += rows * additions
        if unsettled >= ROWS or stat == last:
            settle(total, running, 0, parameters, not settled)
            unsettled, settled = 0, True
    fence()


@driver
def elements_backward(crew, grad, src, out, mean, rstd, gamma, beta, activation, streams, totals, table):
    arguments = (grad, src, out, mean, rstd, gamma, beta, activation, streams, totals, table)
    deal(crew, elements_backward_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def elements_sums_chunk(grad, src, mean, rstd, gamma, beta, activation, streams, partial, totals, table, chunk):
    """A range of elements of all statistics, and thereby all of their parameters' gradients.

    Here and in `elements_gradient_chunk` the range of the next statistic is fetched, x and dy: from memory, backward of 16 rows of 1048576
    to 255 of 65536 took 22 and takes 11 to 12.5 ms (two cores of a Zen 4).
    """
    wide_vectors()
    begin, end = span(elements_per_statistic(table), table[PROBLEM, CUTS], chunk)
    n = end - begin
    running = vectors(zero_of(src), 2, n)
    for field in range(2):
        clear(row(running, field), n)
    together = four_together(src, activation)
    fours, of_four = in_fours(together, src, table), vectors(0.0, 2, 4)
    stat, statistics = 0, table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL]
    while stat < statistics:
        rows = 4 if fours and stat + 4 <= statistics else 1
        if rows == 4:
            sums_of_fours(
                together, grad, src, mean, rstd, gamma, running, begin, table, stat, begin, end, of_four, streams, 4 * AHEAD_OF_RANGE, True
            )
        else:
            sums = sums_of_elements(
                grad, src, mean, rstd, gamma, beta, activation, running, begin, table, stat, begin, end, streams, AHEAD_OF_RANGE, True
            )
            of_four[0, 0], of_four[1, 0] = sums.grad, sums.product
        for k in range(rows):
            partial[chunk, 0, stat + k], partial[chunk, 1, stat + k] = of_four[0, k], of_four[1, k]
        stat += rows
        if stat % ROWS == 0 or stat == statistics:
            settle(totals[0], running, begin, n, stat <= ROWS)


@driver
def elements_sums(crew, grad, src, mean, rstd, gamma, beta, activation, streams, partial, totals, table):
    arguments = (grad, src, mean, rstd, gamma, beta, activation, streams, partial, totals, table)
    deal(crew, elements_sums_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def elements_gradient_chunk(grad, src, out, mean, rstd, gamma, beta, activation, streams, sums, table, chunk):
    wide_vectors()
    n = elements_per_statistic(table)
    begin, end = span(n, table[PROBLEM, CUTS], chunk)
    for stat in range(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL] - 1, -1, -1):
        terms = terms_about(mean, GradientSums(sums[0, stat], sums[1, stat]), float(n), rstd[stat])
        gradient_of_elements(
            grad, src, out, mean, rstd, gamma, beta, activation, streams, terms, table, stat, begin, end, -AHEAD_OF_RANGE, True
        )
    fence()


@driver
def elements_gradient(crew, grad, src, out, mean, rstd, gamma, beta, activation, streams, sums, table):
    deal_back(
        crew, elements_gradient_chunk, table[PROBLEM, CHUNKS], (grad, src, out, mean, rstd, gamma, beta, activation, streams, sums, table)
    )
