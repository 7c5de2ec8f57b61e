"""Backward of layer and RMS norm over rows of few elements: as `short_rows`, one thing at a time for all rows of a block.

mean, rstd, totals : as in `gradient_elements`
streams : as there. Beside stores that bypass the caches the next block is fetched, its elements with the sums, their gradients with
          the gradient: rows of 128 took 1.2 and 1.1 to 1.17 times as long without (67 and 8 MB of x, two cores of a Zen 4), of 192
          1.09. To ask at run time whether to fetch cost rows without it 5 %. Line by line (`dense_runs`), rows of 24 to 100 were 1.2 to
          1.48 times as fast, of 128 to 192 1.1 to 1.24
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.gradient import GradientSums
from fastnorm.element.lanes import lanes_of
from fastnorm.element.parameters import gain_of, instead_of
from fastnorm.element.storage import FEW_LANES, LANES, as_compute, at, cut, row, write, zero_of
from fastnorm.kernels.columns import ROWS, clear
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.dense_runs import by_lines, gradient_lines, repeat_parameter, spare_vectors
from fastnorm.kernels.gradient import forward_parameters_of_channels
from fastnorm.kernels.gradient_elements import settle, shift_sums, terms_about
from fastnorm.kernels.gradient_tile import gradient_in_lanes, gradient_to, weighted_sums_in_lanes
from fastnorm.kernels.prefetch import PAYS, fetch_run_later
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.short_rows import BLOCK, MOST, fetch_edges_of_rows, row_place
from fastnorm.kernels.walk import span
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, GRAD, INNER, OUT, PROBLEM, SRC


@loop
def sums_in_lanes(grad, src, mean, gamma, parameters, sums, running, table, begin, n, inner, lanes, streams):
    place, step = row_place(table, SRC, begin)
    grad_place, grad_step = row_place(table, GRAD, begin)
    highs, lows, scales = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    totals, products = row(sums, 0), row(sums, 1)
    gain, of_gain, of_shift = gain_of(gamma, 0, inner), cut(row(running, 0), 0, inner), shift_sums(running, mean, 0, inner)
    for k in range(n):
        run, run_grad = cut(src, place + k * step, inner), cut(grad, grad_place + k * grad_step, inner)
        total, product = weighted_sums_in_lanes(
            run_grad, run, inner, at(highs, k), at(lows, k), at(scales, k), gain, zero_of(run), None, of_gain, of_shift, lanes
        )
        if streams is not None and not PAYS:
            fetch_run_later(src, place + (k + n) * step, inner)
        write(totals, k, total)
        write(products, k, product)


@chunk_body
def sums_of_short_rows(grad, src, mean, gamma, parameters, sums, running, table, begin, n, inner, streams):
    wide_vectors()
    if inner <= FEW_LANES:
        sums_in_lanes(grad, src, mean, gamma, parameters, sums, running, table, begin, n, inner, FEW_LANES, streams)
    else:
        sums_in_lanes(grad, src, mean, gamma, parameters, sums, running, table, begin, n, inner, LANES, streams)


@chunk_body
def terms_of_short_rows(parameters, sums, mean, rstd, begin, n, inner):
    """Fill offset and slope."""
    wide_vectors()
    offsets, slopes, totals, products = row(parameters, 4), row(parameters, 5), row(sums, 0), row(sums, 1)
    zero, count = zero_of(offsets), float(inner)
    for k in range(n):
        total = GradientSums(float(at(totals, k)), float(at(products, k)))
        offset, slope = terms_about(mean, total, count, at(rstd, begin + k))
        write(offsets, k, as_compute(zero, offset))
        write(slopes, k, as_compute(zero, slope))


@loop
def rows_in_lanes(grad, src, out, gamma, parameters, streams, table, begin, n, inner, lanes):
    place, step = row_place(table, SRC, begin)
    grad_place, grad_step = row_place(table, GRAD, begin)
    target, target_step = row_place(table, OUT, begin)
    highs, lows, scales = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    offsets, slopes, gain = row(parameters, 4), row(parameters, 5), gain_of(gamma, 0, inner)
    for k in range(n):
        run, run_grad = cut(src, place + k * step, inner), cut(grad, grad_place + k * grad_step, inner)
        result = cut(out, target + k * target_step, inner)
        high, low, scale, offset, slope = at(highs, k), at(lows, k), at(scales, k), at(offsets, k), at(slopes, k)
        zero = zero_of(run)
        if streams is not None and not PAYS:
            fetch_run_later(grad, grad_place + (k + n) * grad_step, inner)
        if streams is None:
            gradient_in_lanes(run_grad, run, None, result, None, inner, high, low, scale, gain, zero, offset, slope, None, lanes)
        else:
            gradient_to(run_grad, run, None, result, None, inner, high, low, scale, gain, zero, offset, slope, None, streams)


@loop
def write_lines(grad, src, out, gamma, parameters, spare, table, begin, n, inner):
    place, step = row_place(table, SRC, begin)
    of_grad, grad_step = row_place(table, GRAD, begin)
    target, target_step = row_place(table, OUT, begin)
    if step != inner or grad_step != inner or target_step != inner or inner < lanes_of(out):
        return False
    count, away = n * inner, 0 if PAYS else n * inner
    x, dy, dx = cut(src, place, count), cut(grad, of_grad, count), cut(out, target, count)
    gradient_lines(dy, x, dx, parameters, instead_of(gamma, row(spare, 0)), None, away, n, inner)
    return True


@chunk_body
def gradient_of_short_rows(grad, src, out, gamma, parameters, spare, lines, streams, table, begin, n, inner):
    wide_vectors()
    if lines is not None and write_lines(grad, src, out, gamma, parameters, spare, table, begin, n, inner):
        return
    if streams is None and inner <= FEW_LANES:
        rows_in_lanes(grad, src, out, gamma, parameters, None, table, begin, n, inner, FEW_LANES)
    else:
        rows_in_lanes(grad, src, out, gamma, parameters, streams, table, begin, n, inner, LANES)


@chunk_body
def short_rows_backward_chunk(grad, src, out, mean, rstd, gamma, streams, totals, table, chunk):
    compact()
    inner = table[PROBLEM, INNER]
    first, last = span(table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL], table[PROBLEM, CHUNKS], chunk)
    zero = zero_of(src)
    running = vectors(zero, 2, inner)
    total = totals[chunk]
    for field in range(2):
        clear(row(running, field), inner)
    block = min(ROWS, MOST, BLOCK // inner)
    parameters, sums = vectors(zero, 6, block), vectors(zero, 2, block)
    lines = by_lines(out, src, grad, None, streams)
    spare = spare_vectors(lines, zero, inner)
    repeat_parameter(lines, spare, 0, gain_of(gamma, 0, inner), inner)
    for begin in range(first, last, block):
        n = min(block, last - begin)
        if lines is not None and row_place(table, OUT, begin)[1] == inner:
            fetch_edges_of_rows(out, table, begin, 1, n * inner)
        elif streams is not None:
            fetch_edges_of_rows(out, table, begin, n, inner)
        forward_parameters_of_channels(parameters, 0, begin, 0, n, mean, rstd, None, None)
        sums_of_short_rows(grad, src, mean, gamma, parameters, sums, running, table, begin, n, inner, streams)
        settle(total, running, 0, inner, begin == first)
        terms_of_short_rows(parameters, sums, mean, rstd, begin, n, inner)
        gradient_of_short_rows(grad, src, out, gamma, parameters, spare, lines, streams, table, begin, n, inner)
    if streams is not None:
        fence()


@driver
def short_rows_backward(crew, grad, src, out, mean, rstd, gamma, streams, totals, table):
    deal(crew, short_rows_backward_chunk, table[PROBLEM, CHUNKS], (grad, src, out, mean, rstd, gamma, streams, totals, table))
