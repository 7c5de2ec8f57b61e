"""Statistics of several short runs, each with a scale and a shift of its own: groups of channels, and what stores bypass the caches for.

Run by run, what is done around each took longer than its elements: group norm of planes of 7 x 7 from memory took 3 times as long.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, loop, maker, variant
from fastnorm.element.bits import wide_vectors
from fastnorm.element.lanes import lanes_of
from fastnorm.element.parameters import is_per_element
from fastnorm.element.storage import LANES, at, cut, row, write, zero_of
from fastnorm.kernels.apply import mean_parts, parameters_of
from fastnorm.kernels.dense_runs import normalize_lines
from fastnorm.kernels.moments import RSTD, means_of
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.tile import normalize_in_lanes
from fastnorm.kernels.walk import next_statistic, position
from fastnorm.plan.table import BATCH, CHANNEL, INNER, OUT, PARAM, PROBLEM, SRC, STEP_BATCH, STEP_CHANNEL

# Elements of runs of a statistic that are taken all at once where stores bypass the caches: group norm of planes of 5 x 5 to 11 x 11 was 2
# to 3.4 times as fast, of 13 x 13 1.9 to 2.1, of 15 x 15 1.25, of 16 x 16 0.86 to 1.12, of 28 x 28 0.95, in cache 0.75 to 0.95 (Zen 4).
SHORT_RUN = 255


@variant
def shared_by_runs(gamma: Any, beta: Any, residual: Any, total: Any, streams: Any) -> Any:
    """Anything where every run of a statistic may have a scale and a shift of its own, nothing is added, and stores bypass the caches."""
    numbers = isinstance(gamma, types.Array) or isinstance(beta, types.Array)
    plain = residual is types.none and total is types.none and streams is not types.none
    if not (numbers and plain) or is_per_element(gamma) or is_per_element(beta):
        return lambda gamma, beta, residual, total, streams: None
    return lambda gamma, beta, residual, total, streams: 0


@chunk_body
def fill_numbers(parameters, place, high, low, rstd, gamma, beta, param, n):
    """Of n runs of one statistic, with the parameters from `param` on, to the vectors from `place` on."""
    wide_vectors()
    highs, scales, offsets = cut(row(parameters, 0), place, n), cut(row(parameters, 1), place, n), cut(row(parameters, 2), place, n)
    zero = zero_of(highs)
    for k in range(n):
        scale, offset = parameters_of(zero, rstd, low, gamma, beta, param + k)
        write(highs, k, zero if high is None else high)
        write(scales, k, scale)
        write(offsets, k, offset)


@maker
def vectors_of_runs(runs, zero, n):
    """Memory for `fill_numbers`, where it is called."""
    if runs is None:
        return None
    return vectors(zero, 3, n)


@chunk_body
def normalize_runs(src, out, parameters, activation, n, run):
    """Runs without a gap, through the caches."""
    wide_vectors()
    highs, scales, offsets = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    for k in range(n):  # of one length: their masks are made once
        x, y = cut(src, k * run, run), cut(out, k * run, run)
        normalize_in_lanes(x, None, y, run, at(highs, k), at(scales, k), at(offsets, k), None, None, activation, LANES)


@loop
def normalize_statistic(runs, src, out, parameters, high, low, rstd, gamma, beta, param, activation, n, run):
    """n runs of one statistic, if they are so short that all at once pays; else False."""
    if runs is None or n == 1 or run > SHORT_RUN:
        return False
    fill_numbers(parameters, 0, high, low, rstd, gamma, beta, param, n)
    normalize_runs(src, out, parameters, activation, n, run)
    return True


@loop
def follow_each_other(table, operand):
    """Whether statistics do, without a gap."""
    inner, channel = table[PROBLEM, INNER], table[PROBLEM, CHANNEL]
    step = table[operand, STEP_CHANNEL] if channel > 1 else table[operand, STEP_BATCH]
    return step == inner and (channel == 1 or table[PROBLEM, BATCH] == 1 or table[operand, STEP_BATCH] == channel * inner)


@loop
def are_lines(runs, lines, src, out, table, run):
    """Whether `normalize_by_lines` is for them."""
    if runs is None or lines is None:
        return False
    dense = follow_each_other(table, SRC) and follow_each_other(table, OUT)
    return dense and lanes_of(out) <= run <= SHORT_RUN and run < table[PROBLEM, INNER]


@loop
def normalize_by_lines(lines, src, out, stats, gamma, beta, centre, activation, parameters, table, begin, end, b, c, run):
    """Statistics begin to end, the first of which is (b, c), of several runs each, as one run."""
    if lines is None:
        return
    channel, inner = table[PROBLEM, CHANNEL], table[PROBLEM, INNER]
    segments, count = inner // run, (end - begin) * inner
    mean, low = means_of(stats, centre)
    line, target = cut(src, position(table, SRC, b, 0, c, 0), count), cut(out, position(table, OUT, b, 0, c, 0), count)
    for stat in range(begin, end):
        high, rest = mean_parts(zero_of(src), mean, low, stat)
        param, place = position(table, PARAM, b, 0, c, 0), (stat - begin) * segments
        fill_numbers(parameters, place, high, rest, stats[RSTD, stat], gamma, beta, param, segments)
        b, c = next_statistic(b, c, channel)
    highs, scales, offsets = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    n = (end - begin) * segments
    normalize_lines(line, None, target, highs, scales, offsets, None, None, activation, 2 * count, n, run)
