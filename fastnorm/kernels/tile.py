"""Loops over one contiguous cache-resident run."""

from __future__ import annotations

from fastnorm._jit import loop
from fastnorm.element.activation import activate, derivative
from fastnorm.element.affine import affine, centred, distance, origin_near
from fastnorm.element.gradient import GradientSums, input_gradient, weighted
from fastnorm.element.moments import about_shift, lopsided
from fastnorm.element.parameters import either
from fastnorm.element.storage import as_compute, at, at_once, load, store, write, zero_of

# Elements whose squares are summed in float32: 16 to a vector lane. One outlier absorbs at most
# 16 half roundings of its own square: 5e-7 of the variance.
BLOCK = 1024
# Elements whose mean is the first guess of all.
FEW = 64


@loop
def moments_of_run(run, n):
    shift, total, squares = sums_about_mean(run, n)
    return about_shift(float(n), shift, total, squares)


@loop
def mean_distance(run, origin, n):
    total = zero_of(run)
    for i in range(n):
        total += distance(load(run, i), origin)
    return total / as_compute(total, n)


@loop
def sums_about_mean(run, n):
    """A shift and the sums of d and d*d, where d = x - shift; float64.

    The shift is the mean of the first elements, or the mean of all, should that be far off: nearly always one
    sweep, 1.2 times as fast in cache as summing about the mean of all from the start. A Welford step per element
    has a division on its critical path.
    """
    first = load(run, 0)
    shift = origin_near(run, first + mean_distance(run, first, min(n, FEW)))
    total64, squares64 = sums_about(run, n, shift)
    if lopsided(float(n), total64, squares64):
        shift = shifted_to_mean(run, shift, total64, float(n))
        total64, squares64 = sums_about(run, n, shift)
    return float(shift), total64, squares64


@loop
def shifted_to_mean(storage, shift, total, count):
    """A better shift than one about which `count` elements have this sum."""
    return origin_near(storage, shift + as_compute(zero_of(storage), total / count))


@loop
def sums_about(run, n, shift):
    """Of d and d*d, where d = x - shift."""
    total64 = 0.0
    squares64 = 0.0
    block = at_once(run, BLOCK)
    for begin in range(0, n, block):
        total = zero_of(run)
        squares = total
        for i in range(begin, min(begin + block, n)):
            d = distance(load(run, i), shift)
            total += d
            squares += d * d
        total64 += float(total)
        squares64 += float(squares)
    return total64, squares64


@loop
def squares_of_run(run, n):
    """In the compute dtype (float32: up to abs(x) of 5e17), blocks of them in float64. All in float64 took 1.1 times as long."""
    total64 = 0.0
    block = at_once(run, BLOCK)
    for begin in range(0, n, block):
        total = zero_of(run)
        for i in range(begin, min(begin + block, n)):
            value = load(run, i)
            total += value * value
        total64 += float(total)
    return total64


@loop
def sums_about_guess(centre, run, n):
    """As `sums_about_mean`; about zero where `centre` is None."""
    if centre is None:
        return 0.0, 0.0, squares_of_run(run, n)
    return sums_about_mean(run, n)


@loop
def sums_about_shift(centre, run, n, shift):
    """Of d and d*d; about zero where `centre` is None."""
    if centre is None:
        return 0.0, squares_of_run(run, n)
    return sums_about(run, n, shift)


@loop
def moments_about(centre, run, n):
    """centre : None for moments about zero, anything for the mean"""
    shift, total, squares = sums_about_guess(centre, run, n)
    return about_shift(float(n), shift, total, squares)


@loop
def sum_of_runs(run, addend, total, n):
    """Write run + addend to `total` and go on with that; without them with the run."""
    if addend is not None:
        for i in range(n):
            store(total, i, load(run, i) + load(addend, i))
    return either(total, run)


@loop
def normalize_run(run, residual, out, n, high, low, scale, gain, shift, activation):
    """Parameters are numbers (one statistic), vectors (one per element), or None."""
    for i in range(n):
        z = affine(load(run, i), at(high, i), at(low, i), at(scale, i), at(gain, i), at(shift, i))
        if residual is not None:
            z = z + load(residual, i)
        write(out, i, activate(activation, z))


@loop
def gradient_into(grad, run, residual, i, distance, scale, gain, shift, activation):
    """Gradient of the pre-activation, which is recomputed: no mask is saved."""
    g = load(grad, i)
    if activation is not None:
        z = affine(distance, None, None, scale, gain, shift)
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
        g = gradient_into(grad, run, residual, i, d, at(scale, i), None, at(shift, i), activation)
        total += g
        product += g * d
    return GradientSums(float(total), float(product))


@loop
def gradient_sums_and_parameters(grad, run, n, high, low, scale, gain, shift, activation, of_gain, of_shift):
    """Sums of the weighted gradient; what every element adds to the gradients of its own parameters."""
    total = zero_of(run)
    product = total
    for i in range(n):
        d = centred(load(run, i), at(high, i), at(low, i))
        g = gradient_into(grad, run, None, i, d, at(scale, i), at(gain, i), at(shift, i), activation)
        of_gain[i] += g * (d * at(scale, i))
        if of_shift is not None:
            of_shift[i] += g
        w = weighted(g, at(gain, i))
        total += w
        product += w * d
    return GradientSums(float(total), float(product))


@loop
def gradient_of_run(grad, run, residual, out, grad_residual, n, high, low, scale, gain, shift, offset, slope, activation):
    for i in range(n):
        d = centred(load(run, i), at(high, i), at(low, i))
        g = gradient_into(grad, run, residual, i, d, at(scale, i), at(gain, i), at(shift, i), activation)
        if grad_residual is not None:
            write(grad_residual, i, g)
        g = weighted(g, at(gain, i))
        write(out, i, input_gradient(g, d, at(scale, i), at(offset, i), at(slope, i)))
