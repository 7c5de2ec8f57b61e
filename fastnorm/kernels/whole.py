"""Whole calls on small plain arrays, each one compiled function: `ops.few` says when.

What the door does in 3 to 10 us of Python (do shapes agree, does the output overlap an input, dtypes of parameters) takes
nothing here, and Numba's dispatcher finds the types of the arguments in 60 ns each. The serial drivers are those of all
other calls, so the bits are the same. False: arrays do not fit, nothing was written, and the general way says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from fastnorm._jit import driver, loop, variant
from fastnorm.element.moments import moving_average
from fastnorm.element.storage import row
from fastnorm.kernels.apply import interleaved_apply, planar_apply
from fastnorm.kernels.moments import LOW, MEAN, RSTD, VARIANCE, interleaved_merge, interleaved_moments
from fastnorm.kernels.normalize import interleaved_normalize, planar_normalize, rows_normalize
from fastnorm.kernels.short_planes import planes_normalize
from fastnorm.kernels.short_rows import short_rows_normalize
from fastnorm.kernels.walk import elements_per_statistic, parameters_per_statistic
from fastnorm.plan.table import CHANNEL, CUTS, INNER, PROBLEM


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
def normalize_short_planes(crew, x, gamma, beta, running_mean, running_var, out, stats, eps, momentum, unbiased, table):
    if not can_train(x, gamma, beta, running_mean, running_var, out, momentum, unbiased, table):
        return False
    planes_normalize(crew, x.reshape(-1), None, out.reshape(-1), stats, double(gamma), double(beta), eps, None, None, table)
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
