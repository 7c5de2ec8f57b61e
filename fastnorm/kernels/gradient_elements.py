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
from fastnorm.element.gradient import GradientSums, add_sums, mean_terms
from fastnorm.element.parameters import gain_of, shift_of
from fastnorm.element.storage import as_compute, at_once, cut, row, zero_of
from fastnorm.element.streaming import before_line
from fastnorm.kernels.apply import mean_parts
from fastnorm.kernels.columns import ROWS, add_run, clear
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.normalize import next_statistic
from fastnorm.kernels.prefetch import AHEAD, PIECE, fetch_edges_to_write, fetch_run, fetch_run_to_write
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.tile import gradient_sums_and_parameters, gradient_to
from fastnorm.kernels.walk import elements_per_statistic, position, run_length, run_length_before, span
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, CUTS, GRAD, INNER, OUT, PARAM, PROBLEM, SRC


@variant
def shift_sums(running: Any, mean: Any, start: Any, n: Any) -> Any:
    """Where the gradients of shifts are summed; RMS norm has none."""
    if mean is types.none:
        return lambda running, mean, start, n: None
    return lambda running, mean, start, n: cut(row(running, 1), start, n)


@loop
def sums_of_elements(grad, src, mean, rstd, gamma, beta, activation, running, base, table, stat, begin, end):
    """Of elements begin to end of a statistic; running (2, parameters from `base` on) collects their parameters' gradients."""
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
        n = min(run_length(table, i, end - at), at_once(src, end))
        param = position(table, PARAM, b, o, c, i)
        part = gradient_sums_and_parameters(
            cut(grad, position(table, GRAD, b, o, c, i), n), cut(src, position(table, SRC, b, o, c, i), n), n,
            high, low, scale, gain_of(gamma, param, n), shift_of(beta, zero, param, n), activation,
            cut(row(running, 0), param - base, n), shift_sums(running, mean, param - base, n),
        )  # fmt: skip
        total = add_sums(total, part)
        at += n
    return total


@loop
def terms_about(mean, sums, count, rstd):
    """Offset and slope; deviations from zero leave no offset."""
    if mean is None:
        return mean_terms(GradientSums(0.0, sums.product), count, rstd)
    return mean_terms(sums, count, rstd)


@loop
def gradient_of_elements(grad, src, out, mean, rstd, gamma, beta, activation, streams, terms, table, stat, begin, end):
    """Backwards: the sums have just been the other way. Of the next statistic what its sums read first is fetched."""
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
def settle(totals, running, n):
    """Float32 sums into float64 totals."""
    for field in range(2):
        add_run(row(totals, field), row(running, field), n)
        clear(row(running, field), n)


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
        clear(row(total, field), parameters)
    additions = n // parameters if n > parameters else 1
    unsettled = 0
    channel, inner = table[PROBLEM, CHANNEL], table[PROBLEM, INNER]
    for stat in range(first, last):
        place = position(table, OUT, stat // channel, 0, stat - stat // channel * channel, 0)
        if streams is None:
            fetch_run_to_write(out, place, max(0, inner - AHEAD), inner)
        else:
            fetch_edges_to_write(out, place, inner)
        sums = sums_of_elements(grad, src, mean, rstd, gamma, beta, activation, running, 0, table, stat, 0, n)
        terms = terms_about(mean, sums, float(n), rstd[stat])
        gradient_of_elements(grad, src, out, mean, rstd, gamma, beta, activation, streams, terms, table, stat, 0, n)
        unsettled += additions
        if unsettled >= ROWS or stat + 1 == last:
            settle(total, running, parameters)
            unsettled = 0
    fence()


@driver
def elements_backward(crew, grad, src, out, mean, rstd, gamma, beta, activation, streams, totals, table):
    arguments = (grad, src, out, mean, rstd, gamma, beta, activation, streams, totals, table)
    deal(crew, elements_backward_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def elements_sums_chunk(grad, src, mean, rstd, gamma, beta, activation, partial, totals, table, chunk):
    """A range of elements of all statistics, and thereby all of their parameters' gradients."""
    wide_vectors()
    begin, end = span(elements_per_statistic(table), table[PROBLEM, CUTS], chunk)
    n = end - begin
    running = vectors(zero_of(src), 2, n)
    for field in range(2):
        clear(row(running, field), n)
        clear(cut(row(totals[0], field), begin, n), n)
    last = table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL] - 1
    for stat in range(last + 1):
        sums = sums_of_elements(grad, src, mean, rstd, gamma, beta, activation, running, begin, table, stat, begin, end)
        partial[chunk, 0, stat] = sums.grad
        partial[chunk, 1, stat] = sums.product
        if stat % ROWS == ROWS - 1 or stat == last:
            for field in range(2):
                add_run(cut(row(totals[0], field), begin, n), row(running, field), n)
                clear(row(running, field), n)


@driver
def elements_sums(crew, grad, src, mean, rstd, gamma, beta, activation, partial, totals, table):
    deal(crew, elements_sums_chunk, table[PROBLEM, CHUNKS], (grad, src, mean, rstd, gamma, beta, activation, partial, totals, table))


@chunk_body
def elements_gradient_chunk(grad, src, out, mean, rstd, gamma, beta, activation, streams, sums, table, chunk):
    wide_vectors()
    n = elements_per_statistic(table)
    begin, end = span(n, table[PROBLEM, CUTS], chunk)
    for stat in range(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL] - 1, -1, -1):
        terms = terms_about(mean, GradientSums(sums[0, stat], sums[1, stat]), float(n), rstd[stat])
        gradient_of_elements(grad, src, out, mean, rstd, gamma, beta, activation, streams, terms, table, stat, begin, end)
    fence()


@driver
def elements_gradient(crew, grad, src, out, mean, rstd, gamma, beta, activation, streams, sums, table):
    deal(crew, elements_gradient_chunk, table[PROBLEM, CHUNKS], (grad, src, out, mean, rstd, gamma, beta, activation, streams, sums, table))
