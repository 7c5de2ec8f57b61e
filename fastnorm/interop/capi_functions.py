"""The C functions: checks, then walks over what the pointers point to. No exception leaves them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastnorm._jit import c_function, loop, maker, variant
from fastnorm.element.moments import variance
from fastnorm.interop.capi_declarations import STATUS, declaration_of, parameters_of
from fastnorm.interop.jit_runs import moments_of_pieces
from fastnorm.interop.jit_walks import (
    apply_to_array,
    gradient_of_array,
    gradient_of_rows,
    moments_of_array,
    normalize_array,
    normalize_rows,
)
from fastnorm.kernels.moments import MEAN, RSTD, VARIANCE

OK, NULL_POINTER, BAD_SIZE, BAD_EPS, OUT_OF_MEMORY = (value for value, _ in STATUS.values())
# Elements of an array that no machine has: products of sizes up to it do not overflow in bytes.
MOST = 1 << 58


@intrinsic(prefer_literal=False)
def is_null(typing_context: Any, pointer: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return cgutils.is_null(builder, arguments[0])

    return types.boolean(pointer), generate


@variant
def elements_of(pointer: Any, n: Any, absent: Any) -> Any:
    """Of the type that the pointer has; n times the number `absent` if it is NULL."""
    if pointer.dtype == types.float32:
        return lambda pointer, n, absent: np.full(n, np.float32(absent), np.float32) if is_null(pointer) else carray(pointer, (n,))
    return lambda pointer, n, absent: np.full(n, absent, np.float64) if is_null(pointer) else carray(pointer, (n,))


@maker
def numbers_of(pointer, n, absent):
    """The same in float64."""
    values = elements_of(pointer, n, absent)
    numbers = np.empty(n)
    for i in range(n):
        numbers[i] = values[i]
    return numbers


@maker
def deliver(pointer, values, n):
    """Copy to a pointer that may be NULL."""
    if not is_null(pointer):
        target = carray(pointer, (n,))
        for i in range(n):
            target[i] = values[i]


@maker
def fill(pointer, n, value):
    if not is_null(pointer):
        target = carray(pointer, (n,))
        for i in range(n):
            target[i] = value


@loop
def fits(a, b, c, d):
    """Whether no size is negative and their product can be addressed."""
    if min(min(a, b), min(c, d)) < 0:
        return False
    product = 1.0 * max(a, 1) * max(b, 1) * max(c, 1) * max(d, 1)
    return product <= MOST


@loop
def status_of(sizes_fit, eps, n, any_null):
    """Before anything is written. Without elements no pointer to any is needed."""
    if not sizes_fit:
        return BAD_SIZE
    if not (eps >= 0.0 and eps < math.inf):
        return BAD_EPS
    return NULL_POINTER if n > 0 and any_null else OK


@maker
def normalize_channels(x, gamma, beta, batch, outer, channel, inner, groups, eps, y, mean, rstd):
    statistics, n = batch * groups, batch * outer * channel * inner
    stats = np.full((4, statistics), math.nan)
    if n > 0:
        gain, shift = numbers_of(gamma, channel, 1.0), numbers_of(beta, channel, 0.0)
        size = channel // groups * inner
        normalize_array(carray(x, (n,)), carray(y, (n,)), stats, gain, shift, eps, batch, outer, groups, size, inner)
    deliver(mean, stats[MEAN], statistics)
    deliver(rstd, stats[RSTD], statistics)
    return stats[VARIANCE]


@maker
def backward_of_channels(dy, x, mean, rstd, gamma, batch, outer, channel, inner, groups, training, dx, dgamma, dbeta):
    statistics, n = batch * groups, batch * outer * channel * inner
    of_gamma, of_beta = np.zeros(channel), np.zeros(channel)
    if n > 0:
        gain, means, rstds = numbers_of(gamma, channel, 1.0), carray(mean, (statistics,)), carray(rstd, (statistics,))
        size = channel // groups * inner
        gradient_of_array(
            carray(dy, (n,)), carray(x, (n,)), carray(dx, (n,)), means, rstds, gain, training, of_gamma, of_beta,
            batch, outer, groups, size, inner,
        )  # fmt: skip
    deliver(dgamma, of_gamma, channel)
    deliver(dbeta, of_beta, channel)


def batch_norm_train(x, gamma, beta, outer, channel, inner, eps, y, mean, rstd, var):
    status = status_of(fits(1, outer, channel, inner), eps, outer * channel * inner, is_null(x) or is_null(y))
    if status != OK:
        return status
    try:
        variances = normalize_channels(x, gamma, beta, 1, outer, channel, inner, channel, eps, y, mean, rstd)
        deliver(var, variances, channel)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def batch_norm(x, mean, var, gamma, beta, outer, channel, inner, eps, y):
    n = outer * channel * inner
    status = status_of(fits(1, outer, channel, inner), eps, n, is_null(x) or is_null(y) or is_null(mean) or is_null(var))
    if status != OK or n == 0:
        return status
    try:
        gain, shift = numbers_of(gamma, channel, 1.0), numbers_of(beta, channel, 0.0)
        means, variances = carray(mean, (channel,)), carray(var, (channel,))
        apply_to_array(carray(x, (n,)), carray(y, (n,)), means, variances, gain, shift, eps, outer, channel, inner)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def batch_norm_backward(dy, x, mean, rstd, gamma, outer, channel, inner, training, dx, dgamma, dbeta):
    missing = is_null(dy) or is_null(x) or is_null(mean) or is_null(rstd) or is_null(dx)
    status = status_of(fits(1, outer, channel, inner), 0.0, outer * channel * inner, missing)
    if status != OK:
        return status
    try:
        backward_of_channels(dy, x, mean, rstd, gamma, 1, outer, channel, inner, channel, training != 0, dx, dgamma, dbeta)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def group_norm(x, gamma, beta, batch, outer, channel, inner, groups, eps, y, mean, rstd):
    fitting = fits(batch, outer, channel, inner) and groups > 0 and channel % max(groups, 1) == 0
    status = status_of(fitting, eps, batch * outer * channel * inner, is_null(x) or is_null(y))
    if status != OK:
        return status
    try:
        normalize_channels(x, gamma, beta, batch, outer, channel, inner, groups, eps, y, mean, rstd)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def group_norm_backward(dy, x, mean, rstd, gamma, batch, outer, channel, inner, groups, dx, dgamma, dbeta):
    missing = is_null(dy) or is_null(x) or is_null(mean) or is_null(rstd) or is_null(dx)
    fitting = fits(batch, outer, channel, inner) and groups > 0 and channel % max(groups, 1) == 0
    status = status_of(fitting, 0.0, batch * outer * channel * inner, missing)
    if status != OK:
        return status
    try:
        backward_of_channels(dy, x, mean, rstd, gamma, batch, outer, channel, inner, groups, True, dx, dgamma, dbeta)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def layer_norm(x, gamma, beta, rows, n, eps, y, mean, rstd):
    status = status_of(fits(rows, n, 1, 1), eps, rows * n, is_null(x) or is_null(y))
    if status != OK:
        return status
    try:
        stats = np.full((4, rows), math.nan)
        if rows * n > 0:
            gain, shift = (elements_of(gamma, n, 1.0),), (elements_of(beta, n, 0.0),)
            normalize_rows(carray(x, (rows * n,)), carray(y, (rows * n,)), stats, gain, shift, np.intp(0), eps, rows, n)
        deliver(mean, stats[MEAN], rows)
        deliver(rstd, stats[RSTD], rows)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def rms_norm(x, gamma, rows, n, eps, y, rstd):
    status = status_of(fits(rows, n, 1, 1), eps, rows * n, is_null(x) or is_null(y))
    if status != OK:
        return status
    try:
        stats = np.full((4, rows), math.nan)
        if rows * n > 0:
            gain = (elements_of(gamma, n, 1.0),)
            normalize_rows(carray(x, (rows * n,)), carray(y, (rows * n,)), stats, gain, None, None, eps, rows, n)
        deliver(rstd, stats[RSTD], rows)
    except Exception:
        return OUT_OF_MEMORY
    return OK


@maker
def backward_of_rows(dy, x, mean, rstd, gamma, rows, n, dx, totals):
    if rows * n > 0:
        size = rows * n
        gain = (elements_of(gamma, n, 1.0),)
        gradient_of_rows(carray(dy, (size,)), carray(x, (size,)), carray(dx, (size,)), mean, carray(rstd, (rows,)), gain, totals, rows, n)


def layer_norm_backward(dy, x, mean, rstd, gamma, rows, n, dx, dgamma, dbeta):
    missing = is_null(dy) or is_null(x) or is_null(mean) or is_null(rstd) or is_null(dx)
    status = status_of(fits(rows, n, 1, 1), 0.0, rows * n, missing)
    if status != OK:
        return status
    try:
        totals = np.zeros((1, 2, n))
        backward_of_rows(dy, x, carray(mean, (rows,)), rstd, gamma, rows, n, dx, totals)
        deliver(dgamma, totals[0, 0], n)
        deliver(dbeta, totals[0, 1], n)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def rms_norm_backward(dy, x, rstd, gamma, rows, n, dx, dgamma):
    status = status_of(fits(rows, n, 1, 1), 0.0, rows * n, is_null(dy) or is_null(x) or is_null(rstd) or is_null(dx))
    if status != OK:
        return status
    try:
        totals = np.zeros((1, 2, n))
        backward_of_rows(dy, x, None, rstd, gamma, rows, n, dx, totals)
        deliver(dgamma, totals[0, 0], n)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def moments(x, outer, channel, inner, mean, var):
    n = outer * channel * inner
    status = status_of(fits(1, outer, channel, inner), 0.0, channel, is_null(mean) or (is_null(x) and n > 0))
    if status != OK:
        return status
    try:
        stats = np.full((4, channel), math.nan)
        if n > 0:
            moments_of_array(carray(x, (n,)), stats, outer, channel, inner)
        deliver(mean, stats[MEAN], channel)
        deliver(var, stats[VARIANCE], channel)
    except Exception:
        return OUT_OF_MEMORY
    return OK


def filter_variance(window, size, result, data):
    if size < 1 or is_null(window) or is_null(result):
        return 0
    carray(result, (1,))[0] = variance(moments_of_pieces(0, carray(window, (size,))))
    return 1


_KINDS = {"float": types.float32, "double": types.float64, "int64_t": types.int64, "int32_t": types.int32, "void *": types.voidptr}


def compiled(name: str) -> Any:
    """The C callback of a name such as "layer_norm_f32"."""
    function, _, _ = declaration_of(name)
    arguments = [
        types.CPointer(_KINDS[kind[:-2]]) if kind.endswith("*") and kind not in _KINDS else _KINDS[kind] for kind, _ in parameters_of(name)
    ]
    return c_function(globals()[function], types.int32(*arguments))
