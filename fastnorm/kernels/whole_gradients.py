"""Whole gradients on small plain arrays, each one compiled function, as in `whole`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from fastnorm._jit import driver, loop, maker, variant
from fastnorm.kernels.columns import add_run, copy_run
from fastnorm.kernels.gradient import merge_gradient_sums, parameter_gradients_of_sums, planar_backward
from fastnorm.kernels.gradient_columns import interleaved_backward, interleaved_gradient, interleaved_sums
from fastnorm.kernels.gradient_elements import elements_backward, elements_gradient, elements_sums
from fastnorm.kernels.gradient_planes import planes_backward
from fastnorm.kernels.gradient_short_rows import short_rows_backward
from fastnorm.kernels.whole import agree, along, apart, double, fits, given_fit, groups_fit, is_there
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, CUTS, INNER, PROBLEM


@variant
def like(grad: Any, x: Any) -> Any:
    """Whether a gradient has the dtype of x: the general way rounds others."""
    if grad.dtype == x.dtype:
        return lambda grad, x: True
    return lambda grad, x: False


@variant
def flat(statistics: Any) -> Any:
    """A vector, in any shape, or None."""
    if statistics is types.none:
        return lambda statistics: None
    return lambda statistics: double(statistics.reshape(-1))


@variant
def fit_rows(statistics: Any, x: Any, out: Any) -> Any:
    """Whether there is none, or one number for every run of x along its last axis, apart from the output."""
    if statistics is types.none:
        return lambda statistics, x, out: True
    return lambda statistics, x, out: statistics.shape == x.shape[:-1] and apart(statistics, out)


@loop
def can_go_back(dy, x, mean, rstd, gamma, out, table):
    there = is_there(mean) and is_there(rstd) and like(dy, x)
    return there and agree(x, out) and agree(dy, out) and given_fit(mean, rstd, gamma, None, out, table[PROBLEM, CHANNEL])


@maker
def deliver(table, sums, rstd, gradients):
    """Parameter gradients, rounded to their dtype. gradients : (2, parameters)"""
    n = gradients.shape[1]
    exact = np.empty((2, n))
    parameter_gradients_of_sums(table, sums, rstd, exact[0], exact[1])
    for field in range(2):  # `gradients[:] = exact` took four seconds to compile
        copy_run(gradients[field], exact[field], n)


@driver
def backward_planes(crew, dy, x, mean, rstd, gamma, out, gradients, table):
    if not can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    sums, parameters = np.empty((2, gradients.shape[1])), (double(mean), double(rstd), double(gamma), None)
    operands = dy.reshape(-1), x.reshape(-1), None, out.reshape(-1), None
    planar_backward(crew, *operands, *parameters, None, sums, True, None, table)
    deliver(table, sums, parameters[1], gradients)
    return True


@driver
def backward_short_planes(crew, dy, x, mean, rstd, gamma, out, gradients, table):
    """Short planes, of one sample or a few."""
    if not can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    sums, spread = np.empty((2, gradients.shape[1])), double(rstd)
    operands = dy.reshape(-1), x.reshape(-1), None, out.reshape(-1), None
    planes_backward(crew, *operands, double(mean), spread, double(gamma), None, None, sums, None, table)
    deliver(table, sums, spread, gradients)
    return True


@driver
def backward_columns(crew, dy, x, mean, rstd, gamma, out, gradients, grouped, table):
    if not can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    sums, parameters = np.empty((2, gradients.shape[1])), (double(mean), double(rstd), double(gamma), None)
    operands = dy.reshape(-1), x.reshape(-1), None, out.reshape(-1), None
    interleaved_backward(crew, *operands, *parameters, None, sums, True, None, grouped, table)
    deliver(table, sums, parameters[1], gradients)
    return True


@driver
def backward_columns_in_two(crew, dy, x, mean, rstd, gamma, out, gradients, grouped, table):
    if not can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    grad, src, columns = dy.reshape(-1), x.reshape(-1), table[PROBLEM, CHANNEL] * table[PROBLEM, INNER]
    sums, partial = np.empty((2, gradients.shape[1])), np.empty((table[PROBLEM, CUTS], 2, columns))
    parameters = double(mean), double(rstd), double(gamma), None
    interleaved_sums(crew, grad, src, None, *parameters, None, partial, grouped, table)
    merge_gradient_sums(table, partial, sums)
    interleaved_gradient(crew, grad, src, None, out.reshape(-1), None, *parameters, None, sums, True, None, grouped, table)
    deliver(table, sums, parameters[1], gradients)
    return True


@variant
def fit_groups(statistics: Any, x: Any, out: Any, table: Any) -> Any:
    """Whether there is one number for every group of every sample, apart from the output."""
    if statistics is types.none or statistics.ndim != 2:
        return lambda statistics, x, out, table: False
    return lambda statistics, x, out, table: (
        statistics.shape[0] == x.shape[0] and statistics.size == table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL] and apart(statistics, out)
    )


@loop
def groups_can_go_back(dy, x, mean, rstd, gamma, out, table):
    fit = like(dy, x) and agree(dy, out) and groups_fit(x, gamma, None, out, table)
    return fit and fit_groups(mean, x, out, table) and fit_groups(rstd, x, out, table)


@driver
def backward_group_planes(crew, dy, x, mean, rstd, gamma, out, gradients, table):
    if not groups_can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    sums, spread = np.empty((2, table[PROBLEM, BATCH] * gradients.shape[1])), flat(rstd)
    operands = dy.reshape(-1), x.reshape(-1), None, out.reshape(-1), None
    planes_backward(crew, *operands, flat(mean), spread, double(gamma), None, None, sums, None, table)
    deliver(table, sums, spread, gradients)
    return True


@driver
def backward_group_columns(crew, dy, x, mean, rstd, gamma, out, gradients, grouped, table):
    if not groups_can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    sums, spread = np.empty((2, table[PROBLEM, BATCH] * gradients.shape[1])), flat(rstd)
    operands = dy.reshape(-1), x.reshape(-1), None, out.reshape(-1), None
    interleaved_backward(crew, *operands, flat(mean), spread, double(gamma), None, None, sums, True, None, grouped, table)
    deliver(table, sums, spread, gradients)
    return True


@loop
def rows_can_go_back(dy, x, mean, rstd, gamma, out, table):
    fit = is_there(rstd) and like(dy, x) and agree(x, out) and agree(dy, out) and fits(gamma, table[PROBLEM, INNER], out)
    return fit and fit_rows(mean, x, out) and fit_rows(rstd, x, out)


@loop
def deliver_elements(totals, gradients):
    """Sums of all parts, in order, rounded to the dtype of parameter gradients."""
    for field in range(2):
        for part in range(1, totals.shape[0]):
            add_run(totals[0, field], totals[part, field], totals.shape[2])
        copy_run(gradients[field], totals[0, field], totals.shape[2])


@driver
def backward_rows(crew, dy, x, mean, rstd, gamma, out, gradients, table):
    """mean : None for RMS norm."""
    if not rows_can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    totals = np.empty((table[PROBLEM, CHUNKS], 2, table[PROBLEM, INNER]))
    operands = dy.reshape(-1), x.reshape(-1), out.reshape(-1)
    elements_backward(crew, *operands, flat(mean), flat(rstd), along(gamma, x), None, None, None, totals, table)
    deliver_elements(totals, gradients)
    return True


@driver
def backward_few_rows(crew, dy, x, mean, rstd, gamma, out, gradients, table):
    """Rows so few that they are cut along their elements."""
    if not rows_can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    n, statistics = table[PROBLEM, INNER], table[PROBLEM, BATCH] * table[PROBLEM, CHANNEL]
    partial, totals, sums = np.empty((table[PROBLEM, CUTS], 2, statistics)), np.empty((1, 2, n)), np.zeros((2, statistics))
    grad, src, parameters = dy.reshape(-1), x.reshape(-1), (flat(mean), flat(rstd), along(gamma, x))
    elements_sums(crew, grad, src, *parameters, None, None, None, partial, totals, table)
    for field in range(2):
        for part in range(table[PROBLEM, CUTS]):
            add_run(sums[field], partial[part, field], statistics)
    elements_gradient(crew, grad, src, out.reshape(-1), *parameters, None, None, None, sums, table)
    deliver_elements(totals, gradients)
    return True


@driver
def backward_short_rows(crew, dy, x, mean, rstd, gamma, out, gradients, table):
    if not rows_can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    totals = np.empty((table[PROBLEM, CHUNKS], 2, table[PROBLEM, INNER]))
    operands = dy.reshape(-1), x.reshape(-1), out.reshape(-1)
    short_rows_backward(crew, *operands, flat(mean), flat(rstd), along(gamma, x), None, totals, table)
    deliver_elements(totals, gradients)
    return True
