"""Whole calls on small plain arrays, each one compiled function: `ops.few` says when.

What the door does in 3 to 10 us of Python (do shapes agree, does the output overlap an input, dtypes of parameters) takes
nothing here, and Numba's dispatcher finds the types of the arguments in 60 ns each. The serial drivers are those of all
other calls, so the bits are the same. False: arrays do not fit, nothing was written, and the general way says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from fastnorm._jit import driver, loop, maker, variant
from fastnorm.element.moments import moving_average
from fastnorm.element.storage import row
from fastnorm.kernels.apply import interleaved_apply, planar_apply
from fastnorm.kernels.columns import add_run, copy_run
from fastnorm.kernels.gradient import merge_gradient_sums, parameter_gradients_of_sums, planar_backward
from fastnorm.kernels.gradient_columns import interleaved_backward, interleaved_gradient, interleaved_sums
from fastnorm.kernels.gradient_elements import elements_backward, elements_gradient, elements_sums
from fastnorm.kernels.gradient_planes import planes_backward
from fastnorm.kernels.gradient_short_rows import short_rows_backward
from fastnorm.kernels.moments import LOW, MEAN, RSTD, VARIANCE, interleaved_merge, interleaved_moments
from fastnorm.kernels.normalize import interleaved_normalize, planar_normalize, rows_normalize
from fastnorm.kernels.short_rows import short_rows_normalize
from fastnorm.kernels.walk import elements_per_statistic, parameters_per_statistic
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, CUTS, INNER, PROBLEM


@variant
def fits(parameter: Any, n: Any, out: Any) -> Any:
    """Whether a parameter is None, or a vector of n numbers that lie apart from the output."""
    if parameter is types.none:
        return lambda parameter, n, out: True
    if parameter.ndim != 1:
        return lambda parameter, n, out: False
    return lambda parameter, n, out: parameter.size == n and apart(parameter, out)


@variant
def is_there(parameter: Any) -> Any:
    if parameter is types.none:
        return lambda parameter: False
    return lambda parameter: True


@variant
def like(grad: Any, x: Any) -> Any:
    """Whether a gradient has the dtype of x: the general way rounds others."""
    if grad.dtype == x.dtype:
        return lambda grad, x: True
    return lambda grad, x: False


@variant
def double(parameter: Any) -> Any:
    """A vector as float64, or None."""
    if parameter is types.none or parameter.dtype == types.float64:
        return lambda parameter: parameter
    return lambda parameter: parameter.astype(np.float64)


@variant
def along(parameter: Any, x: Any) -> Any:
    """A vector along the elements of a run, in the dtype of x, or None."""
    if parameter is types.none:
        return lambda parameter, x: None
    if parameter.dtype == x.dtype:
        return lambda parameter, x: (parameter,)
    return lambda parameter, x: (parameter.astype(x.dtype),)


@loop
def apart(a, b):
    first, second = a.ctypes.data, b.ctypes.data
    return first + a.nbytes <= second or second + b.nbytes <= first


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
def agree(x, out):
    """Of one shape, and the same memory or none in common."""
    same = x.ctypes.data == out.ctypes.data and x.nbytes == out.nbytes
    return x.shape == out.shape and (same or apart(x, out))


@loop
def rows_fit(x, gamma, beta, out, table):
    n = table[PROBLEM, INNER]
    return agree(x, out) and fits(gamma, n, out) and fits(beta, n, out)


@driver
def normalize_rows(crew, x, gamma, beta, out, stats, centre, eps, table):
    if not rows_fit(x, gamma, beta, out, table):
        return False
    rows_normalize(crew, x.reshape(-1), None, out.reshape(-1), None, stats, along(gamma, x), along(beta, x), centre, eps, None, None, table)
    return True


@driver
def normalize_short_rows(crew, x, gamma, beta, out, stats, centre, eps, table):
    if not rows_fit(x, gamma, beta, out, table):
        return False
    short_rows_normalize(
        crew, x.reshape(-1), None, out.reshape(-1), None, stats, along(gamma, x), along(beta, x), centre, eps, None, None, table
    )
    return True


@loop
def groups_fit(x, gamma, beta, out, table):
    n = table[PROBLEM, CHANNEL] * parameters_per_statistic(table)
    return agree(x, out) and fits(gamma, n, out) and fits(beta, n, out)


@driver
def normalize_group_rows(crew, x, gamma, beta, out, stats, eps, table):
    if not groups_fit(x, gamma, beta, out, table):
        return False
    rows_normalize(crew, x.reshape(-1), None, out.reshape(-1), None, stats, double(gamma), double(beta), 0, eps, None, None, table)
    return True


@driver
def normalize_short_group_rows(crew, x, gamma, beta, out, stats, eps, table):
    if not groups_fit(x, gamma, beta, out, table):
        return False
    short_rows_normalize(crew, x.reshape(-1), None, out.reshape(-1), None, stats, double(gamma), double(beta), 0, eps, None, None, table)
    return True


@driver
def normalize_group_columns(crew, x, gamma, beta, out, stats, eps, grouped, table):
    if not groups_fit(x, gamma, beta, out, table):
        return False
    interleaved_normalize(
        crew, x.reshape(-1), None, out.reshape(-1), stats, double(gamma), double(beta), 0, eps, None, None, grouped, table
    )
    return True


@loop
def given_fit(mean, spread, gamma, beta, out, n):
    return fits(mean, n, out) and fits(spread, n, out) and fits(gamma, n, out) and fits(beta, n, out)


@loop
def can_train(x, gamma, beta, running_mean, running_var, out, momentum, unbiased, table):
    fit = agree(x, out) and given_fit(running_mean, running_var, gamma, beta, out, table[PROBLEM, CHANNEL])
    return fit and 0.0 <= momentum <= 1.0 and (elements_per_statistic(table) > 1 or not unbiased)


@loop
def move_vector(running, batch, momentum, bessel):
    for c in range(running.size):
        running[c] = moving_average(float(running[c]), batch[c], momentum, bessel)


@variant
def move(running: Any, batch: Any, momentum: Any, bessel: Any) -> Any:
    """Running statistics, if there are any, towards those of the batch."""
    if running is types.none:
        return lambda running, batch, momentum, bessel: None
    return lambda running, batch, momentum, bessel: move_vector(running, batch, momentum, bessel)


@loop
def move_both(running_mean, running_var, stats, momentum, unbiased, table):
    count = float(elements_per_statistic(table))
    move(running_mean, row(stats, MEAN), momentum, 1.0)
    move(running_var, row(stats, VARIANCE), momentum, count / (count - 1.0) if unbiased else 1.0)


@driver
def normalize_planes(crew, x, gamma, beta, running_mean, running_var, out, stats, eps, momentum, unbiased, table):
    if not can_train(x, gamma, beta, running_mean, running_var, out, momentum, unbiased, table):
        return False
    planar_normalize(crew, x.reshape(-1), None, out.reshape(-1), stats, double(gamma), double(beta), 0, eps, None, None, table)
    move_both(running_mean, running_var, stats, momentum, unbiased, table)
    return True


@driver
def normalize_columns(crew, x, gamma, beta, running_mean, running_var, out, stats, eps, momentum, unbiased, grouped, table):
    if not can_train(x, gamma, beta, running_mean, running_var, out, momentum, unbiased, table):
        return False
    interleaved_normalize(
        crew, x.reshape(-1), None, out.reshape(-1), stats, double(gamma), double(beta), 0, eps, None, None, grouped, table
    )
    move_both(running_mean, running_var, stats, momentum, unbiased, table)
    return True


@driver
def normalize_columns_in_two(crew, x, gamma, beta, running_mean, running_var, out, stats, eps, momentum, unbiased, grouped, table):
    """Where the second sweep does not find the columns in cache, or rows are dealt to threads."""
    if not can_train(x, gamma, beta, running_mean, running_var, out, momentum, unbiased, table):
        return False
    src, partial = x.reshape(-1), np.empty((table[PROBLEM, CUTS], 4, table[PROBLEM, CHANNEL]))
    interleaved_moments(crew, src, 0, table, partial, stats, eps, grouped, None)
    interleaved_merge(table, partial, stats, eps)
    parameters = row(stats, MEAN), row(stats, LOW), row(stats, RSTD), double(gamma), double(beta)
    interleaved_apply(crew, src, None, out.reshape(-1), *parameters, None, None, None, grouped, table)
    move_both(running_mean, running_var, stats, momentum, unbiased, table)
    return True


@driver
def apply_planes(crew, x, mean, var, gamma, beta, out, eps, table):
    if not (agree(x, out) and is_there(mean) and is_there(var) and given_fit(mean, var, gamma, beta, out, table[PROBLEM, CHANNEL])):
        return False
    parameters = double(mean), None, double(var), double(gamma), double(beta)
    planar_apply(crew, x.reshape(-1), None, out.reshape(-1), *parameters, eps, None, None, table)
    return True


@driver
def apply_columns(crew, x, mean, var, gamma, beta, out, eps, grouped, table):
    if not (agree(x, out) and is_there(mean) and is_there(var) and given_fit(mean, var, gamma, beta, out, table[PROBLEM, CHANNEL])):
        return False
    parameters = double(mean), None, double(var), double(gamma), double(beta)
    interleaved_apply(crew, x.reshape(-1), None, out.reshape(-1), *parameters, eps, None, None, grouped, table)
    return True


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
def backward_planes_of_one(crew, dy, x, mean, rstd, gamma, out, gradients, table):
    """Short planes of one sample, each a statistic."""
    if not can_go_back(dy, x, mean, rstd, gamma, out, table):
        return False
    sums, spread = np.empty((2, gradients.shape[1])), double(rstd)
    operands = dy.reshape(-1), x.reshape(-1), out.reshape(-1)
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
    operands = dy.reshape(-1), x.reshape(-1), out.reshape(-1)
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
