"""Loops over one contiguous cache-resident run."""

from __future__ import annotations

from fastnorm._jit import loop
from fastnorm.element.activation import activate, derivative
from fastnorm.element.affine import affine, centred, distance
from fastnorm.element.gradient import GradientSums, input_gradient
from fastnorm.element.moments import about_shift
from fastnorm.element.storage import as_compute, at, load, store, zero_of

# Elements whose squares are summed in float32: 16 to a vector lane. One outlier absorbs at most
# 16 half roundings of its own square: 5e-7 of the variance.
BLOCK = 1024


@loop
def moments_of_run(run, n):
    """Two sweeps over L1: the mean of the run is the shift of the sums.

    One read of DRAM, like the one-sweep formula, and stable; a Welford step per element has a division
    on its critical path.
    """
    zero = zero_of(run)
    first = load(run, 0)
    total = zero
    for i in range(n):
        total += distance(load(run, i), first)
    shift = first + total / as_compute(zero, n)
    total64 = 0.0
    squares64 = 0.0
    for begin in range(0, n, BLOCK):
        total = zero
        squares = zero
        for i in range(begin, min(begin + BLOCK, n)):
            d = distance(load(run, i), shift)
            total += d
            squares += d * d
        total64 += float(total)
        squares64 += float(squares)
    return about_shift(float(n), float(shift), total64, squares64)


@loop
def normalize_run(run, residual, out, n, high, low, scale, shift, activation):
    """Parameters are numbers (one statistic) or vectors (one per element)."""
    for i in range(n):
        z = affine(load(run, i), at(high, i), at(low, i), at(scale, i), at(shift, i))
        if residual is not None:
            z = z + load(residual, i)
        store(out, i, activate(activation, z))


@loop
def gradient_into(grad, run, residual, i, distance, scale, shift, activation):
    """Gradient of the pre-activation, which is recomputed: no mask is saved."""
    g = load(grad, i)
    if activation is not None:
        z = distance * scale + shift
        if residual is not None:
            z = z + load(residual, i)
        g = g * derivative(activation, z)
    return g


@loop
def gradient_sums_of_run(grad, run, residual, n, high, low, scale, shift, activation):
    total = zero_of(run)
    product = total
    for i in range(n):
        d = centred(load(run, i), at(high, i), at(low, i))
        g = gradient_into(grad, run, residual, i, d, at(scale, i), at(shift, i), activation)
        total += g
        product += g * d
    return GradientSums(float(total), float(product))


@loop
def gradient_of_run(grad, run, residual, out, grad_residual, n, high, low, scale, shift, offset, slope, activation):
    for i in range(n):
        d = centred(load(run, i), at(high, i), at(low, i))
        g = gradient_into(grad, run, residual, i, d, at(scale, i), at(shift, i), activation)
        if grad_residual is not None:
            store(grad_residual, i, g)
        store(out, i, input_gradient(g, d, at(scale, i), at(offset, i), at(slope, i)))
