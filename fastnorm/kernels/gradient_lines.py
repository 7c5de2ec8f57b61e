"""Backward where every row of the columns has parameters of its own: layer and RMS norm over an outer axis.

mean, rstd : as in `gradient_elements`
totals     : float64 (batch * column tiles, 2, rows): what a tile's columns add to dgamma and dbeta
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.affine import centred
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.gradient import GradientSums, through_activation, weighted
from fastnorm.element.parameters import gain_at, shifts_at
from fastnorm.element.storage import as_compute, at, cut, load, row, write, zero_of
from fastnorm.kernels.apply import mean_or_zeros
from fastnorm.kernels.columns import ROWS, add_run, clear
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.gradient_columns import gradient_of_row
from fastnorm.kernels.gradient_elements import terms_about
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.walk import column_place, span, tile_of_columns, units_of_columns
from fastnorm.plan.table import CHANNEL, CHUNKS, COLUMNS, GRAD, OUT, OUTER, PROBLEM, SRC


@chunk_body
def line_parameters(parameters, table, b, column, n, mean, rstd):
    """Fill high, low, scale of a column tile; no shift: it belongs to rows."""
    wide_vectors()
    highs, lows, scales = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    zero = zero_of(highs)
    first = b * table[PROBLEM, CHANNEL] + column
    for i in range(n):
        high, rest = mean_or_zeros(zero, mean, None, first + i)
        write(highs, i, high)
        write(lows, i, rest)
        write(scales, i, as_compute(zero, at(rstd, first + i)))


@chunk_body
def line_terms(parameters, table, b, column, n, mean, rstd, totals):
    """Fill offset and slope of a column tile."""
    wide_vectors()
    offsets, slopes = row(parameters, 4), row(parameters, 5)
    grads, products = row(totals, 0), row(totals, 1)
    zero = zero_of(offsets)
    first = b * table[PROBLEM, CHANNEL] + column
    count = float(table[PROBLEM, OUTER])
    for i in range(n):
        total = GradientSums(at(grads, i), at(products, i))
        offset, slope = terms_about(mean, total, count, at(rstd, first + i))
        write(offsets, i, as_compute(zero, offset))
        write(slopes, i, as_compute(zero, slope))


@chunk_body
def sums_of_line(grad, run, n, high, low, scale, gain, shift, activation, total, product):
    """Add a row to the sums of its columns; returns its own, of the gradients of its shift and scale."""
    wide_vectors()
    of_shift = zero_of(run)
    of_gain = of_shift
    for i in range(n):
        d = centred(load(run, i), high[i], low[i])
        g = through_activation(load(grad, i), d, scale[i], gain, shift, None, activation)
        of_shift += g
        of_gain += g * (d * scale[i])
        w = weighted(g, gain)
        total[i] += w
        product[i] += w * d
    return GradientSums(float(of_shift), float(of_gain))


@loop
def sums_of_lines(grad, src, parameters, gamma, beta, activation, table, b, column, n, running, totals, of_rows):
    """Fill totals (2, columns) and of_rows (2, rows), float64."""
    high, low, scale = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    zero = zero_of(high)
    outer = table[PROBLEM, OUTER]
    for field in range(2):
        clear(row(running, field), n)
        clear(row(totals, field), n)
    for o in range(outer):
        line = cut(src, column_place(table, SRC, b, o, column), n)
        run_grad = cut(grad, column_place(table, GRAD, b, o, column), n)
        gain, of_beta = gain_at(gamma, o), shifts_at(beta, zero, o)
        own = sums_of_line(run_grad, line, n, high, low, scale, gain, of_beta, activation, row(running, 0), row(running, 1))
        of_rows[0, o] = own.product
        of_rows[1, o] = own.grad
        if o % ROWS == ROWS - 1 or o + 1 == outer:
            for field in range(2):
                add_run(row(totals, field), row(running, field), n)
                clear(row(running, field), n)


@chunk_body
def lines_backward_chunk(grad, src, out, mean, rstd, gamma, beta, activation, streams, totals, table, chunk):
    """Whole column tiles, each with all its rows."""
    compact()
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    width, outer = table[PROBLEM, COLUMNS], table[PROBLEM, OUTER]
    parameters = vectors(zero_of(src), 6, width)
    running = vectors(zero_of(src), 2, width)
    of_columns = vectors(0.0, 2, width)
    high, low, scale = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    offset, slope, zero = row(parameters, 4), row(parameters, 5), zero_of(src)
    for tile in range(first, last):
        b, column, n = tile_of_columns(table, tile)
        line_parameters(parameters, table, b, column, n, mean, rstd)
        sums_of_lines(grad, src, parameters, gamma, beta, activation, table, b, column, n, running, of_columns, totals[tile])
        line_terms(parameters, table, b, column, n, mean, rstd, of_columns)
        for o in range(outer - 1, -1, -1):  # backwards: the sums ended there
            target = cut(out, column_place(table, OUT, b, o, column), n)
            gradient_of_row(
                cut(grad, column_place(table, GRAD, b, o, column), n), cut(src, column_place(table, SRC, b, o, column), n),
                None, target, None, n, high, low, scale, gain_at(gamma, o), shifts_at(beta, zero, o), offset, slope, activation, streams,
            )  # fmt: skip
    fence()


@driver
def lines_backward(crew, grad, src, out, mean, rstd, gamma, beta, activation, streams, totals, table):
    deal(crew, lines_backward_chunk, table[PROBLEM, CHUNKS], (grad, src, out, mean, rstd, gamma, beta, activation, streams, totals, table))
