"""Normalize with given statistics, scale, shift, add a residual, activate.

mean, low, spread : float64 vectors (batch * channel,); low, or mean and low, may be None
eps   : None if `spread` is 1 / sqrt(var + eps), else it is the variance
gamma, beta : as `element.parameters` describes them
streams : None where stores go through the caches, anything where they bypass them: two loops to compile
grouped : as in `kernels.moments`
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.affine import offset_of, split_mean
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.lanes import lanes_of
from fastnorm.element.moments import reciprocal_std
from fastnorm.element.parameters import gain_at, gain_of, number_of, of_elements, only_with
from fastnorm.element.storage import as_compute, at, cut, row, write, zero_of
from fastnorm.element.streaming import before_line
from fastnorm.kernels.columns import SPARE, lead_of, repeat_beyond, rows_of
from fastnorm.kernels.dealing import deal, deal_back
from fastnorm.kernels.dense_runs import by_lines, normalize_lines, normalize_runs
from fastnorm.kernels.four_rows import normalize_fours, pays_in_cache, side_by_side, widest_alone
from fastnorm.kernels.groups_of_columns import fill_run
from fastnorm.kernels.narrow_columns import VECTORS, applied_in_registers, normalize_narrow, width_in_registers
from fastnorm.kernels.prefetch import BESIDE_STREAMS, fetch_edges_to_write, fetch_row, fetch_row_to_write
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.tile import normalize_and_fetch
from fastnorm.kernels.walk import (
    column_place,
    column_step,
    fold_within,
    next_plane,
    parameters_per_statistic,
    plane_at,
    position,
    row_span,
    run_length,
    span,
    stretch,
    tile_of_columns,
    units_of_columns,
)
from fastnorm.plan.table import (
    BATCH,
    CHANNEL,
    CHUNKS,
    COLUMNS,
    CUTS,
    EXTRA,
    FOLD,
    INNER,
    OUT,
    OUTER,
    PARAM,
    PROBLEM,
    RUN,
    SRC,
    STEP_CHANNEL,
    STEP_OUTER,
    TILE,
    UNBROKEN,
)

# Planes up to this length get their parameters from vectors, and go through the caches even where stores bypass them, but for those written
# line by line: run by run, inference with silu of 14 x 14 took 1.8 times as long, of 23 x 23 1.47, of 28 x 28 1.14 (50 to 100 MB, Zen 4).
SHORT_PLANE = 1024
AWAY = BESIDE_STREAMS or 0
# Runs from this length on begin at a cache line, after a short run up to it.
SHORT = 512


@loop
def parameters_of(zero, rstd, low, gamma, beta, param):
    """Scale and offset that the elements of one statistic and parameter share, in the compute dtype. low : of `mean_parts`"""
    scale = as_compute(zero, rstd * number_of(gamma, param, 1.0))
    return scale, as_compute(zero, offset_of(low, float(scale), number_of(beta, param, 0.0)))


@loop
def mean_parts(zero, mean, low, stat):
    """High and low part of a mean; None, None where deviations are from zero."""
    if mean is None:
        return None, None
    return split_mean(zero, at(mean, stat), at(low, stat) if low is not None else 0.0)


@loop
def rstd_of(spread, eps, stat):
    if eps is None:
        return at(spread, stat)
    return reciprocal_std(at(spread, stat), eps)


@loop
def mean_or_zeros(zero, mean, low, stat):
    """The same, zeros where there is no mean."""
    if mean is None:
        return zero, zero
    return mean_parts(zero, mean, low, stat)


@chunk_body
def apply_to_span(src, residual, out, mean, low, spread, gamma, beta, eps, activation, streams, table, b, c, o, i, left, away):
    """So many elements of statistic (b, c), counted along outer and inner, from (o, i) on.

    away : as in `tile.normalize_and_fetch`

    No division in the loop: five of them were most of the time of planes of 8 x 8.
    """
    wide_vectors()
    zero = zero_of(src)
    inner, run, channel = table[PROBLEM, INNER], table[PROBLEM, RUN], table[PROBLEM, CHANNEL]
    stat = b * channel + c
    rstd = rstd_of(spread, eps, stat)
    high, rest = mean_parts(zero, mean, low, stat)
    param = c * parameters_per_statistic(table)
    while left > 0:
        n = run_length(table, i, left)
        place = position(table, OUT, b, o, c, i)
        head = before_line(out, place)
        if head > 0 and n >= SHORT:
            n = head
        scale, offset = parameters_of(zero, rstd, rest, gamma, beta, param if run == inner else param + i // run)
        run_src = cut(src, position(table, SRC, b, o, c, i), n)
        run_residual = cut(residual, position(table, EXTRA, b, o, c, i), n)
        of_element = position(table, PARAM, b, o, c, i)
        gain, shift = gain_of(gamma, of_element, n), gain_of(beta, of_element, n)
        target = cut(out, place, n)
        normalize_and_fetch(run_src, run_residual, target, n, high, scale, offset, gain, shift, activation, streams, away)
        left -= n
        i += n
        if i == inner:
            o, i = o + 1, 0


@chunk_body
def parameters_of_channels(parameters, place, stat, param, n, mean, low, spread, gamma, beta, eps):
    """Fill the vectors high, scale, offset from `place` on for n statistics with a parameter each.

    Vectorizes, with `at` and `write`: eight vectors are more than LLVM compares.
    """
    wide_vectors()
    highs, scales, offsets = cut(row(parameters, 0), place, n), cut(row(parameters, 1), place, n), cut(row(parameters, 2), place, n)
    zero = zero_of(highs)
    for k in range(n):
        high, rest = mean_or_zeros(zero, mean, low, stat + k)
        scale, offset = parameters_of(zero, rstd_of(spread, eps, stat + k), rest, gamma, beta, param + k)
        write(highs, k, high)
        write(scales, k, scale)
        write(offsets, k, offset)


@chunk_body
def fill_short_planes(parameters, mean, low, spread, gamma, beta, eps, table, c, n_planes):
    """Parameters of the channels of n planes, the first of which has channel c."""
    n = min(n_planes, table[PROBLEM, CHANNEL] - c)
    parameters_of_channels(parameters, c, c, c, n, mean, low, spread, gamma, beta, eps)
    parameters_of_channels(parameters, 0, 0, 0, min(n_planes - n, c), mean, low, spread, gamma, beta, eps)


@loop
def places_of(table, o, c, i):
    """In src, residual and out."""
    return position(table, SRC, 0, o, c, i), position(table, EXTRA, 0, o, c, i), position(table, OUT, 0, o, c, i)


@chunk_body
def walk_short_planes(lines, src, residual, out, parameters, activation, table, o, c, i, left):
    """So many elements from (o, c, i) on: the first and the last plane may be parts of one.

    lines : None, or anything where planes follow each other without a gap and are written line by line
    """
    inner, channel = table[PROBLEM, INNER], table[PROBLEM, CHANNEL]
    highs, scales, offsets = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    steps = table[SRC, STEP_CHANNEL], table[EXTRA, STEP_CHANNEL], table[OUT, STEP_CHANNEL]
    while left > 0:
        planes = min(channel - c, left // inner) if i == 0 else 0
        run = inner if planes > 0 else min(inner - i, left)
        planes = max(planes, 1)
        h, a, b = cut(highs, c, planes), cut(scales, c, planes), cut(offsets, c, planes)
        places, n = places_of(table, o, c, i), planes * run
        if lines is None:
            normalize_runs(src, residual, out, h, a, b, activation, None, places, steps, planes, run)
        else:
            place, extra, target = places
            fetch_edges_to_write(out, target, n)
            line, addend, result = cut(src, place, n), cut(residual, extra, n), cut(out, target, n)
            normalize_lines(line, addend, result, h, a, b, None, None, activation, AWAY, planes, run)
        left -= n
        i = 0
        c += planes
        if c == channel:
            c, o = 0, o + 1


@chunk_body
def apply_to_short_planes(lines, src, residual, out, mean, low, spread, gamma, beta, eps, activation, table, done, end):
    """A share of the elements of one batch, as they lie in memory, with a plane for every parameter.

    Parameters of all channels first: a root and a division for every plane took longer than 256 elements. Another body
    walks: rows that were borrowed here would be freed with `parameters`, after its last use.
    """
    inner = table[PROBLEM, INNER]
    parameters = vectors(zero_of(src), 3, table[PROBLEM, CHANNEL])
    _, o, c, i = plane_at(table, done)
    fill_short_planes(parameters, mean, low, spread, gamma, beta, eps, table, c, (i + end - done + inner - 1) // inner)
    walk_short_planes(lines, src, residual, out, parameters, activation, table, o, c, i, end - done)


@loop
def are_dense(residual, table, inner):
    """Whether planes follow each other without a gap."""
    return table[SRC, STEP_CHANNEL] == inner == table[OUT, STEP_CHANNEL] and (residual is None or table[EXTRA, STEP_CHANNEL] == inner)


@chunk_body
def planar_apply_chunk(src, residual, out, mean, low, spread, gamma, beta, eps, activation, streams, table, chunk):
    """An even share of all elements, as they lie in memory: 5 % faster than channel by channel."""
    compact()
    inner, channel, outer = table[PROBLEM, INNER], table[PROBLEM, CHANNEL], table[PROBLEM, OUTER]
    n_planes = table[PROBLEM, BATCH] * outer * channel
    done, end = span(n_planes * inner, table[PROBLEM, CHUNKS], chunk)
    lines = by_lines(out, src, residual, activation, streams)
    if table[PROBLEM, BATCH] == 1 and 1 < table[PROBLEM, RUN] == inner:
        if lines is None and inner <= SHORT_PLANE:
            apply_to_short_planes(None, src, residual, out, mean, low, spread, gamma, beta, eps, activation, table, done, end)
            return
        if lines is not None and inner >= lanes_of(out) and are_dense(residual, table, inner):
            apply_to_short_planes(lines, src, residual, out, mean, low, spread, gamma, beta, eps, activation, table, done, end)
            fence()
            return
    b, o, c, i = plane_at(table, done)
    away = only_with(BESIDE_STREAMS, streams)
    while done < end:
        n = min(inner - i, end - done)
        apply_to_span(src, residual, out, mean, low, spread, gamma, beta, eps, activation, streams, table, b, c, o, i, n, away)
        done += n
        b, o, c = next_plane(outer, channel, b, o, c)
        i = 0
    fence()


@driver
def planar_apply(crew, src, residual, out, mean, low, spread, gamma, beta, eps, activation, streams, table):
    arguments = (src, residual, out, mean, low, spread, gamma, beta, eps, activation, streams, table)
    deal(crew, planar_apply_chunk, table[PROBLEM, CHUNKS], arguments)


@chunk_body
def column_parameters(parameters, lead, table, b, column, n, mean, low, spread, gamma, beta, eps, grouped):
    """Fill the vectors high, scale, offset of a column tile from `lead` on, repeated for folded rows."""
    wide_vectors()
    inner, run = table[PROBLEM, INNER], table[PROBLEM, RUN]
    highs, scales, offsets = cut(row(parameters, 0), lead, n), cut(row(parameters, 1), lead, n), cut(row(parameters, 2), lead, n)
    zero = zero_of(highs)
    first_stat = b * table[PROBLEM, CHANNEL] + column // inner
    if grouped is None or inner == 1:
        parameters_of_channels(parameters, lead, first_stat, column, n, mean, low, spread, gamma, beta, eps)
    else:
        for k in range(n // inner):  # one statistic for `inner` columns, and one parameter for `run` of them
            stat, place = first_stat + k, k * inner
            high, rest = mean_or_zeros(zero, mean, low, stat)
            fill_run(cut(highs, place, inner), high, inner)
            rstd = rstd_of(spread, eps, stat)
            for i in range(place, place + inner, run):
                scale, offset = parameters_of(zero, rstd, rest, gamma, beta, (column + i) // run)
                fill_run(cut(scales, i, run), scale, run)
                fill_run(cut(offsets, i, run), offset, run)
    for field in range(3):
        repeat_beyond(cut(row(parameters, field), lead, n), n, table[PROBLEM, FOLD])


@loop
def fold_to_lines(table, out, place, n, unit, streams):
    """Rows of n columns that are written as one: as wide as the table says, or wider, where only every other row begins at a line."""
    for lined in range(min(table[PROBLEM, FOLD], widest_alone(streams, table[PROBLEM, TILE]) // n), 0, -1):
        if before_line(out, place + lined * n * unit) == before_line(out, place):
            return lined
    fold = fold_within(table, n, table[PROBLEM, TILE])
    while fold < table[PROBLEM, FOLD] and before_line(out, place + fold * n * unit) != before_line(out, place):
        fold *= 2
    return fold


@chunk_body
def apply_to_rows(src, residual, out, parameters, lead, gamma, beta, first, places, steps, n_rows, n, wide, streams, activation, away):
    """n columns of every row, the first of which has number `first`; parameters from `lead` on.

    wide : columns from which rows are streamed four side by side: narrower ones are too close to each other; and see `pays_in_cache`
    away : as in `tile.normalize_and_fetch`
    """
    wide_vectors()
    high, scale, offset = cut(row(parameters, 0), lead, n), cut(row(parameters, 1), lead, n), cut(row(parameters, 2), lead, n)
    registers = applied_in_registers(out, src, residual, activation, gamma, beta, streams)
    together = side_by_side(out, activation, gamma, beta, streams)
    done = normalize_narrow(registers, src, residual, out, places, steps, n_rows, n, high, scale, offset, activation, streams)
    if done == 0:
        pays = pays_in_cache(out, n, steps[2], wide) if streams is None else n > wide
        fours = n_rows if pays else 0
        done = normalize_fours(together, src, residual, out, places, steps, fours, n, high, scale, offset, activation, streams)
    for line in range(done, n_rows):
        run_src, run_residual, run_out = rows_of(src, residual, out, places, steps, line, n)
        if streams is None:
            fetch_row(src, places[0] + (line + 1) * steps[0], n)
            fetch_row_to_write(out, places[2] + (line + 1) * steps[2], n)
        gain, shift = gain_at(gamma, first + line), gain_at(beta, first + line)
        normalize_and_fetch(run_src, run_residual, run_out, n, high, scale, offset, gain, shift, activation, streams, away)


@chunk_body
def apply_to_block(src, residual, out, parameters, lead, gamma, beta, activation, streams, table, b, column, n, begin, end, away):
    """Rows begin to end of the n columns from `column` on; rows that are one run as rows that begin at a cache line of `out`."""
    compact()
    places = (
        column_place(table, SRC, b, begin, column),
        column_place(table, EXTRA, b, begin, column),
        column_place(table, OUT, b, begin, column),
    )
    units = column_step(table, SRC), column_step(table, EXTRA), column_step(table, OUT)
    steps = table[SRC, STEP_OUTER], table[EXTRA, STEP_OUTER], table[OUT, STEP_OUTER]
    width, head, total = n, 0, (end - begin) * n
    registers = applied_in_registers(out, src, residual, activation, gamma, beta, streams)
    if table[PROBLEM, UNBROKEN] != 0:
        kept = width_in_registers(registers, VECTORS, src, n, n * table[PROBLEM, FOLD])
        width = kept if kept > 0 else n * fold_to_lines(table, out, places[2], n, units[2], streams)
        head = min(before_line(out, places[2]), total)
        steps = (units[0] * width, units[1] * width, units[2] * width)
    wide = 2 * table[PROBLEM, TILE]
    for part in range(3):
        at, n_rows, columns = stretch(part, head, (total - head) // width, width, total)
        if columns > 0:
            starts = (places[0] + at * units[0], places[1] + at * units[1], places[2] + at * units[2])
            begins = lead if part == 0 else lead + head
            apply_to_rows(
                src, residual, out, parameters, begins, gamma, beta, begin, starts, steps, n_rows, columns, wide, streams, activation, away,
            )  # fmt: skip


@chunk_body
def interleaved_apply_chunk(src, residual, out, mean, low, spread, gamma, beta, eps, activation, streams, grouped, table, chunk):
    compact()
    cuts = table[PROBLEM, CUTS]
    first, last = span(units_of_columns(table), table[PROBLEM, CHUNKS], chunk)
    parameters = vectors(zero_of(src), 3, table[PROBLEM, COLUMNS] * table[PROBLEM, FOLD] + SPARE)
    for unit in range(last - 1, first - 1, -1):  # the moments ended there
        tile = unit // cuts
        b, column, n = tile_of_columns(table, tile)
        begin, end = row_span(table, unit - tile * cuts)
        lead = lead_of(out, column_place(table, OUT, b, begin, column))
        column_parameters(parameters, lead, table, b, column, n, mean, low, spread, gamma, beta, eps, grouped)
        gains, shifts, away = of_elements(gamma), of_elements(beta), only_with(BESIDE_STREAMS, streams)
        apply_to_block(src, residual, out, parameters, lead, gains, shifts, activation, streams, table, b, column, n, begin, end, away)
    fence()


@driver
def interleaved_apply(crew, src, residual, out, mean, low, spread, gamma, beta, eps, activation, streams, grouped, table):
    arguments = (src, residual, out, mean, low, spread, gamma, beta, eps, activation, streams, grouped, table)
    deal_back(crew, interleaved_apply_chunk, table[PROBLEM, CHUNKS], arguments)
