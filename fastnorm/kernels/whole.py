"""Whole calls on small plain arrays, each one compiled function: `ops.few` says when.

What the door does in 3 to 10 us of Python (do shapes agree, does the output overlap an input, dtypes of parameters) takes
nothing here, and Numba's dispatcher finds the types of the arguments in 60 ns each. The chunk bodies are those of all
other calls, so the bits are the same. False: arrays do not fit, nothing was written, and the general way says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from fastnorm._jit import driver, loop, variant
from fastnorm.element.moments import moving_average
from fastnorm.element.storage import row
from fastnorm.kernels.apply import interleaved_apply_chunk, planar_apply_chunk
from fastnorm.kernels.gradient import parameter_gradients_of_sums, planar_backward_chunk
from fastnorm.kernels.gradient_columns import interleaved_backward_chunk
from fastnorm.kernels.gradient_elements import elements_backward_chunk
from fastnorm.kernels.moments import MEAN, VARIANCE
from fastnorm.kernels.normalize import interleaved_normalize_chunk, planar_normalize_chunk, rows_normalize_chunk
from fastnorm.kernels.walk import elements_per_statistic
from fastnorm.plan.table import CHANNEL, CHUNKS, INNER, PROBLEM


def fits(parameter, n, out):
    """Whether a parameter is None, or has n numbers that lie apart from the output."""
    raise NotImplementedError


@variant(fits)
def _fits(parameter: Any, n: Any, out: Any) -> Any:
    if parameter is types.none:
        return lambda parameter, n, out: True
    return lambda parameter, n, out: parameter.size == n and apart(parameter, out)


def double(parameter):
    """A vector as float64, or None."""
    raise NotImplementedError


@variant(double)
def _double(parameter: Any) -> Any:
    if parameter is types.none or parameter.dtype == types.float64:
        return lambda parameter: parameter
    return lambda parameter: parameter.astype(np.float64)


def along(parameter, x):
    """A vector along the elements of a run, in the dtype of x, or None."""
    raise NotImplementedError


@variant(along)
def _along(parameter: Any, x: Any) -> Any:
    if parameter is types.none:
        return lambda parameter, x: None
    if parameter.dtype == x.dtype:
        return lambda parameter, x: (parameter,)
    return lambda parameter, x: (parameter.astype(x.dtype),)


@loop
def apart(a, b):
    first, second = a.ctypes.data, b.ctypes.data
    return first + a.nbytes <= second or second + b.nbytes <= first


def flat(statistics):
    """A vector, in any shape, or None."""
    raise NotImplementedError


@variant(flat)
def _flat(statistics: Any) -> Any:
    if statistics is types.none:
        return lambda statistics: None
    return lambda statistics: double(statistics.reshape(-1))


def fit_rows(statistics, x, out):
    """Whether there is none, or one number for every run of x along its last axis, apart from the output."""
    raise NotImplementedError


@variant(fit_rows)
def _fit_rows(statistics: Any, x: Any, out: Any) -> Any:
    if statistics is types.none:
        return lambda statistics, x, out: True
    return lambda statistics, x, out: statistics.shape == x.shape[:-1] and apart(statistics, out)


@loop
def agree(x, out):
    """Of one shape, and the same memory or none in common."""
    same = x.ctypes.data == out.ctypes.data and x.nbytes == out.nbytes
    return x.shape == out.shape and (same or apart(x, out))


@driver
def normalize_rows(x, gamma, beta, out, stats, centre, eps, table):
    n = table[PROBLEM, INNER]
    if not (agree(x, out) and fits(gamma, n, out) and fits(beta, n, out)):
        return False
    src, target, scale, shift = x.reshape(-1), out.reshape(-1), along(gamma, x), along(beta, x)
    for chunk in range(table[PROBLEM, CHUNKS]):
        rows_normalize_chunk(src, None, target, None, stats, scale, shift, centre, eps, None, table, chunk)
    return True


@loop
def given_fit(mean, spread, gamma, beta, out, n):
    return fits(mean, n, out) and fits(spread, n, out) and fits(gamma, n, out) and fits(beta, n, out)


@loop
def can_move(momentum, unbiased, table):
    return 0.0 <= momentum <= 1.0 and (elements_per_statistic(table) > 1 or not unbiased)


@loop
def move_vector(running, batch, momentum, bessel):
    for c in range(running.size):
        running[c] = moving_average(float(running[c]), batch[c], momentum, bessel)


def move(running, batch, momentum, bessel):
    """Running statistics, if there are any, towards those of the batch."""
    raise NotImplementedError


@variant(move)
def _move(running: Any, batch: Any, momentum: Any, bessel: Any) -> Any:
    if running is types.none:
        return lambda running, batch, momentum, bessel: None
    return lambda running, batch, momentum, bessel: move_vector(running, batch, momentum, bessel)


@loop
def move_both(running_mean, running_var, stats, momentum, unbiased, table):
    count = float(elements_per_statistic(table))
    move(running_mean, row(stats, MEAN), momentum, 1.0)
    move(running_var, row(stats, VARIANCE), momentum, count / (count - 1.0) if unbiased else 1.0)


@driver
def normalize_planes(x, gamma, beta, running_mean, running_var, out, stats, eps, momentum, unbiased, table):
    if not (given_fit(running_mean, running_var, gamma, beta, out, table[PROBLEM, CHANNEL]) and can_move(momentum, unbiased, table)):
        return False
    if not agree(x, out):
        return False
    src, target, scale, shift = x.reshape(-1), out.reshape(-1), double(gamma), double(beta)
    for chunk in range(table[PROBLEM, CHUNKS]):
        planar_normalize_chunk(src, None, target, stats, scale, shift, 0, eps, None, table, chunk)
    move_both(running_mean, running_var, stats, momentum, unbiased, table)
    return True


@driver
def normalize_columns(x, gamma, beta, running_mean, running_var, out, stats, eps, momentum, unbiased, table):
    if not (given_fit(running_mean, running_var, gamma, beta, out, table[PROBLEM, CHANNEL]) and can_move(momentum, unbiased, table)):
        return False
    if not agree(x, out):
        return False
    src, target, scale, shift = x.reshape(-1), out.reshape(-1), double(gamma), double(beta)
    for chunk in range(table[PROBLEM, CHUNKS]):
        interleaved_normalize_chunk(src, None, target, stats, scale, shift, 0, eps, None, table, chunk)
    move_both(running_mean, running_var, stats, momentum, unbiased, table)
    return True


@driver
def apply_planes(x, mean, var, gamma, beta, out, eps, table):
    if not (agree(x, out) and given_fit(mean, var, gamma, beta, out, table[PROBLEM, CHANNEL])):
        return False
    src, target, centre, spread = x.reshape(-1), out.reshape(-1), double(mean), double(var)
    scale, shift = double(gamma), double(beta)
    for chunk in range(table[PROBLEM, CHUNKS]):
        planar_apply_chunk(src, None, target, centre, None, spread, scale, shift, eps, None, table, chunk)
    return True


@driver
def apply_columns(x, mean, var, gamma, beta, out, eps, table):
    if not (agree(x, out) and given_fit(mean, var, gamma, beta, out, table[PROBLEM, CHANNEL])):
        return False
    src, target, centre, spread = x.reshape(-1), out.reshape(-1), double(mean), double(var)
    scale, shift = double(gamma), double(beta)
    for chunk in range(table[PROBLEM, CHUNKS]):
        interleaved_apply_chunk(src, None, target, centre, None, spread, scale, shift, eps, None, table, chunk)
    return True


@loop
def deliver(table, sums, rstd, gradients):
    """Parameter gradients, rounded to their dtype. gradients : (2, parameters)"""
    exact = np.empty((2, gradients.shape[1]))
    parameter_gradients_of_sums(table, sums, rstd, exact[0], exact[1])
    for k in range(2):
        for p in range(gradients.shape[1]):
            gradients[k, p] = exact[k, p]


@driver
def backward_planes(dy, x, mean, rstd, gamma, out, gradients, table):
    n = table[PROBLEM, CHANNEL]
    if not (agree(x, out) and agree(dy, out) and given_fit(mean, rstd, gamma, None, out, n)):
        return False
    grad, src, target = dy.reshape(-1), x.reshape(-1), out.reshape(-1)
    centre, spread, scale = double(mean), double(rstd), double(gamma)
    sums = np.empty((2, n))
    for chunk in range(table[PROBLEM, CHUNKS]):
        planar_backward_chunk(grad, src, None, target, None, centre, spread, scale, None, None, sums, True, table, chunk)
    deliver(table, sums, spread, gradients)
    return True


@driver
def backward_columns(dy, x, mean, rstd, gamma, out, gradients, table):
    n = table[PROBLEM, CHANNEL]
    if not (agree(x, out) and agree(dy, out) and given_fit(mean, rstd, gamma, None, out, n)):
        return False
    grad, src, target = dy.reshape(-1), x.reshape(-1), out.reshape(-1)
    centre, spread, scale = double(mean), double(rstd), double(gamma)
    sums = np.empty((2, n))
    for chunk in range(table[PROBLEM, CHUNKS]):
        interleaved_backward_chunk(grad, src, None, target, None, centre, spread, scale, None, None, sums, True, table, chunk)
    deliver(table, sums, spread, gradients)
    return True


@driver
def backward_rows(dy, x, mean, rstd, gamma, out, gradients, table):
    """mean : None for RMS norm. One chunk, as small problems have."""
    n = table[PROBLEM, INNER]
    if not (agree(x, out) and agree(dy, out) and fits(gamma, n, out) and fit_rows(mean, x, out) and fit_rows(rstd, x, out)):
        return False
    totals = np.empty((1, 2, n))
    grad, src, target, scale = dy.reshape(-1), x.reshape(-1), out.reshape(-1), along(gamma, x)
    elements_backward_chunk(grad, src, target, flat(mean), flat(rstd), scale, None, None, totals, table, 0)
    for k in range(2):
        for i in range(n):
            gradients[k, i] = totals[0, k, i]
    return True
