"""Backward of interleaved layouts: as `gradient`, vectorized over the columns."""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.gradient import GradientSums, about_high, mean_terms
from fastnorm.element.storage import as_compute, at, cut, row, write, zero_of
from fastnorm.element.streaming import before_line
from fastnorm.kernels.apply import column_parameters, fold_to_lines, mean_or_zeros
from fastnorm.kernels.columns import SPARE, clear, copy_run, lead_of, repeat_beyond
from fastnorm.kernels.dealing import deal, deal_back
from fastnorm.kernels.four_rows import gradient_of_fours, gradients_side_by_side, pays_for_gradients
from fastnorm.kernels.gradient import record_sums, terms_of_statistic
from fastnorm.kernels.gradient_rows import gradient_sums_of_rows
from fastnorm.kernels.gradient_tile import gradient_to
from fastnorm.kernels.groups_of_columns import fill_run
from fastnorm.kernels.narrow_columns import HALF, VECTORS, derived_in_registers, gradient_narrow, width_in_registers
from fastnorm.kernels.prefetch import fetch_row, fetch_row_to_write
from fastnorm.kernels.scratch import vectors, vectors_beside
from fastnorm.kernels.walk import (
    column_place,
    column_step,
    elements_per_statistic,
    fetches_ahead,
    fold_within,
    parameters_per_statistic,
    row_span,
    span,
    stretch,
    tile_of_columns,
    units_of_columns,
)
from fastnorm.plan.table import (
    AT_ONCE,
    CHANNEL,
    CHUNKS,
    COLUMNS,
    CUTS,
    EXTRA,
    FOLD,
    GRAD,
    GRAD_EXTRA,
    INNER,
    OUT,
    OUTER,
    PROBLEM,
    RUN,
    SRC,
    START,
    STEP_OUTER,
    UNBROKEN,
)

# Bytes of a folded row whose gradients are summed, whatever the machine: the order of a sum makes its last bits.
SUMMED_BYTES = 5120
# Rows of the parameters: high, scale, shift of forward; low, offset, slope.
LOWS = 3


@chunk_body
def column_forward_parameters(vectors_of, lead, table, b, column, n, mean, rstd, gamma, beta, grouped):
    """Fill high, scale, shift as `apply.column_parameters` does, and low of n columns, from `lead` on."""
    column_parameters(vectors_of, lead, table, b, column, n, mean, None, rstd, gamma, beta, None, grouped)
    inner = table[PROBLEM, INNER]
    lows_of_columns(cut(row(vectors_of, LOWS), lead, n), b * table[PROBLEM, CHANNEL] + column // inner, n, inner, mean, grouped)


@chunk_body
def lows_of_columns(lows, first_stat, n, inner, mean, grouped):
    wide_vectors()
    zero = zero_of(lows)
    if grouped is None or inner == 1:
        for i in range(n):
            write(lows, i, mean_or_zeros(zero, mean, None, first_stat + i)[1])
    else:
        for k in range(n // inner):
            fill_run(cut(lows, k * inner, inner), mean_or_zeros(zero, mean, None, first_stat + k)[1], inner)


@loop
def terms_of_columns(offsets, slopes, lows, sums, rstd, gamma, stat, param, n, count):
    """Where every column is a statistic and has a parameter. Vectorizes: one by one, with a division, they took 15 ns each."""
    zero = zero_of(offsets)
    grads, products = row(sums, 0), row(sums, 1)
    for k in range(n):
        weight = at(gamma, param + k) if gamma is not None else 1.0
        total = GradientSums(weight * at(grads, stat + k), weight * at(products, stat + k))
        offset, slope = mean_terms(total, count, at(rstd, stat + k))
        write(offsets, k, as_compute(zero, about_high(offset, slope, at(lows, k))))
        write(slopes, k, as_compute(zero, slope))


@chunk_body
def column_terms(vectors_of, lead, table, b, column, n, sums, rstd, gamma, training, grouped):
    """Fill offset and slope of a column tile from `lead` on, of distances from the high parts of means, repeated for folded rows."""
    wide_vectors()
    inner = table[PROBLEM, INNER]
    offsets, slopes, lows = cut(row(vectors_of, 4), lead, n), cut(row(vectors_of, 5), lead, n), cut(row(vectors_of, LOWS), lead, n)
    zero = zero_of(offsets)
    first_stat = b * table[PROBLEM, CHANNEL] + column // inner
    if not training:
        clear(offsets, n)
        clear(slopes, n)
    elif grouped is None:
        terms_of_columns(offsets, slopes, lows, sums, rstd, gamma, first_stat, column, n, float(elements_per_statistic(table)))
    else:
        for k in range(n // inner):
            offset, slope = terms_of_statistic(table, first_stat + k, sums, rstd, gamma, training)
            offset = about_high(offset, slope, at(lows, k * inner))
            fill_run(cut(offsets, k * inner, inner), as_compute(zero, offset), inner)
            fill_run(cut(slopes, k * inner, inner), as_compute(zero, slope), inner)
    repeat_beyond(offsets, n, table[PROBLEM, FOLD])
    repeat_beyond(slopes, n, table[PROBLEM, FOLD])


@chunk_body
def sums_of_block(grad, src, residual, parameters, lead, activation, table, b, column, n, begin, end, totals, sums):
    """Fill totals (2, columns), float64, from rows begin to end of n columns."""
    compact()
    fold = fold_within(table, n, SUMMED_BYTES // parameters.itemsize)
    high, scale = cut(row(parameters, 0), lead, n), cut(row(parameters, 1), lead, n)
    shift, low = cut(row(parameters, 2), lead, n), cut(row(parameters, LOWS), lead, n)
    folded = (end - begin) // fold
    rest = begin + folded * fold
    clear(row(totals, 0), n)
    clear(row(totals, 1), n)
    for part in range(2):  # the folded rows, then those that do not fill one: one copy of the loop
        first = begin if part == 0 else rest
        n_rows = folded if part == 0 else end - rest
        times = fold if part == 0 else 1
        places = (
            column_place(table, GRAD, b, first, column),
            column_place(table, SRC, b, first, column),
            column_place(table, EXTRA, b, first, column),
        )
        steps = (table[GRAD, STEP_OUTER] * times, table[SRC, STEP_OUTER] * times, table[EXTRA, STEP_OUTER] * times)
        gradient_sums_of_rows(
            grad, src, residual, places, steps, n_rows, n, times, high, low, scale, shift, activation, totals, sums,
            table[PROBLEM, AT_ONCE], fetches_ahead(table),
        )  # fmt: skip


@chunk_body
def gradient_of_row(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation, streams):
    """By itself, because the loops around it are compiled for size."""
    wide_vectors()
    gradient_to(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation, streams)


@loop
def further(places, units, k):
    """Where five operands are k elements further."""
    return (
        places[0] + k * units[0],
        places[1] + k * units[1],
        places[2] + k * units[2],
        places[3] + k * units[3],
        places[4] + k * units[4],
    )


@loop
def gradient_of_rows(grad, src, residual, out, grad_residual, parameters, lead, places, steps, n_rows, n, streams, activation):
    """n columns of every row; parameters from `lead` on."""
    high, scale, shift = cut(row(parameters, 0), lead, n), cut(row(parameters, 1), lead, n), cut(row(parameters, 2), lead, n)
    offset, slope = cut(row(parameters, 4), lead, n), cut(row(parameters, 5), lead, n)
    registers = derived_in_registers(out, grad, src, residual, grad_residual, activation, streams)
    together = gradients_side_by_side(out, activation, streams)
    fours = n_rows if pays_for_gradients(out, n, steps[3]) else 0
    done = gradient_narrow(
        registers, grad, src, residual, out, grad_residual, places, steps, n_rows, n, high, scale, shift, offset, slope, activation, streams
    )
    if done == 0:
        done = gradient_of_fours(
            together, grad, src, residual, out, grad_residual, places, steps, fours, n, high, scale, shift, offset, slope,
            streams, activation,
        )  # fmt: skip
    for line in range(done, n_rows):
        run_grad = cut(grad, places[0] + line * steps[0], n)
        run_src = cut(src, places[1] + line * steps[1], n)
        run_residual = cut(residual, places[2] + line * steps[2], n)
        place = places[3] + line * steps[3]
        extra = cut(grad_residual, places[4] + line * steps[4], n)
        target = cut(out, place, n)
        fetch_row(grad, places[0] + (line + 1) * steps[0], n)
        fetch_row(src, places[1] + (line + 1) * steps[1], n)
        if streams is None:
            fetch_row_to_write(out, place + steps[3], n)
        gradient_of_row(
            run_grad, run_src, run_residual, target, extra, n, high, None, scale, None, shift, offset, slope, activation, streams,
        )  # fmt: skip


@chunk_body
def gradient_of_block(grad, src, residual, out, grad_residual, parameters, lead, activation, streams, table, b, column, n, begin, end):
    """Rows begin to end of the n columns from `column` on; rows that are one run as in `apply.apply_to_block`."""
    compact()
    places = (
        column_place(table, GRAD, b, begin, column),
        column_place(table, SRC, b, begin, column),
        column_place(table, EXTRA, b, begin, column),
        column_place(table, OUT, b, begin, column),
        column_place(table, GRAD_EXTRA, b, begin, column),
    )
    steps = (
        table[GRAD, STEP_OUTER],
        table[SRC, STEP_OUTER],
        table[EXTRA, STEP_OUTER],
        table[OUT, STEP_OUTER],
        table[GRAD_EXTRA, STEP_OUTER],
    )
    units = (
        column_step(table, GRAD),
        column_step(table, SRC),
        column_step(table, EXTRA),
        column_step(table, OUT),
        column_step(table, GRAD_EXTRA),
    )
    width, head, total = n, 0, (end - begin) * n
    if table[PROBLEM, UNBROKEN] != 0:
        registers = derived_in_registers(out, grad, src, residual, grad_residual, activation, streams)
        most = n * table[PROBLEM, FOLD]
        kept = max(width_in_registers(registers, HALF, src, n, most), width_in_registers(registers, VECTORS, src, n, most))
        width = kept if kept > 0 else n * fold_to_lines(table, out, places[3], n, units[3], streams)
        head = min(before_line(out, places[3]), total)
        steps = further((0, 0, 0, 0, 0), units, width)
    for part in range(3):
        at, n_rows, columns = stretch(part, head, (total - head) // width, width, total)
        if columns > 0:
            gradient_of_rows(
                grad, src, residual, out, grad_residual, parameters, lead if part == 0 else lead + head,
                further(places, units, at), steps, n_rows, columns, streams, activation,
            )  # fmt: skip


@chunk_body
def interleaved_sums_chunk(grad, src, residual, mean, rstd, gamma, beta, activation, partial, grouped, table, chunk):
    compact()
    cuts = table[PROBLEM, CUTS]
    width = table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD]
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    parameters = vectors(zero_of(src), 6, width + SPARE)
    sums = vectors_beside(zero_of(src), 2, width, src, table[SRC, START])
    totals = vectors(0.0, 2, width)
    for unit in range(first, last):
        tile = unit // cuts
        part = unit - tile * cuts
        b, column, n = tile_of_columns(table, tile)
        begin, end = row_span(table, part)
        column_forward_parameters(parameters, 0, table, b, column, n, mean, rstd, gamma, beta, grouped)
        sums_of_block(grad, src, residual, parameters, 0, activation, table, b, column, n, begin, end, totals, sums)
        columns = partial.shape[2]
        place = b * table[PROBLEM, CHANNEL] * table[PROBLEM, INNER] + column
        for field in range(2):
            copy_run(cut(row(partial, part), field * columns + place, n), row(totals, field), n)


@driver
def interleaved_sums(crew, grad, src, residual, mean, rstd, gamma, beta, activation, partial, grouped, table):
    arguments = (grad, src, residual, mean, rstd, gamma, beta, activation, partial, grouped, table)
    deal(crew, interleaved_sums_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def interleaved_gradient_chunk(
    grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, grouped, table, chunk
):
    compact()
    cuts = table[PROBLEM, CUTS]
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    parameters = vectors(zero_of(src), 6, table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD] + SPARE)
    for unit in range(last - 1, first - 1, -1):  # the sums ended there
        tile = unit // cuts
        b, column, n = tile_of_columns(table, tile)
        begin, end = row_span(table, unit - tile * cuts)
        lead = lead_of(out, column_place(table, OUT, b, begin, column))
        column_forward_parameters(parameters, lead, table, b, column, n, mean, rstd, gamma, beta, grouped)
        column_terms(parameters, lead, table, b, column, n, sums, rstd, gamma, training, grouped)
        gradient_of_block(grad, src, residual, out, grad_residual, parameters, lead, activation, streams, table, b, column, n, begin, end)
    fence()


@driver
def interleaved_gradient(
    crew, grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, grouped, table
):
    arguments = (grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, grouped, table)
    deal_back(crew, interleaved_gradient_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def interleaved_backward_chunk(
    grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, grouped, table, chunk
):
    """Whole column tiles, each with all its rows: the second sweep finds x and dy in L2."""
    compact()
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    width = table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD]
    run, outer = table[PROBLEM, RUN], table[PROBLEM, OUTER]
    params = table[PROBLEM, CHANNEL] * parameters_per_statistic(table)
    parameters = vectors(zero_of(src), 6, width + SPARE)
    running = vectors_beside(zero_of(src), 2, width, src, table[SRC, START])
    totals = vectors(0.0, 2, width)
    for tile in range(first, last):
        b, column, n = tile_of_columns(table, tile)
        lead = lead_of(out, column_place(table, OUT, b, 0, column))
        column_forward_parameters(parameters, lead, table, b, column, n, mean, rstd, gamma, beta, grouped)
        sums_of_block(grad, src, residual, parameters, lead, activation, table, b, column, n, 0, outer, totals, running)
        record_sums(sums, b * params + column // run, totals, n, run)
        column_terms(parameters, lead, table, b, column, n, sums, rstd, gamma, training, grouped)
        gradient_of_block(grad, src, residual, out, grad_residual, parameters, lead, activation, streams, table, b, column, n, 0, outer)
    fence()


@driver
def interleaved_backward(
    crew, grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, grouped, table
):
    arguments = (grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, streams, grouped, table)
    deal(crew, interleaved_backward_chunk, table[PROBLEM, CHUNKS], arguments)
