"""Backward formulas. Source: Ioffe, Szegedy 2015, section 3, with the sums in closed form.

With d = x - mean, g = grad_out * gamma and means over the elements of one statistic:

    grad_src = rstd * (g - mean(g) - d * rstd**2 * mean(g * d))

gamma belongs inside both means (published derivations that leave it out are right for gamma = 1 only),
and the last factor is rstd**2, not 1 / var: eps is part of it.
"""

from __future__ import annotations

from typing import NamedTuple

from fastnorm._jit import element
from fastnorm.element.activation import derivative
from fastnorm.element.affine import affine, with_residual


class GradientSums(NamedTuple):
    """Sums over the elements of one statistic, float64."""

    grad: float  # of grad
    product: float  # of grad * (x - mean)


@element
def through_activation(grad, distance, scale, gain, shift, residual, activation):
    """Gradient of the pre-activation, which is computed again: no mask is saved. residual : number or None

    Takes numbers, no runs: references to a run, counted in a function that a loop calls, kept LLVM from making vectors of the
    loop, and gradients with a residual took 8 times as long as without.
    """
    if activation is not None:
        z = affine(distance, None, scale, None, gain, shift)
        if residual is not None:
            z = with_residual(z, residual)
        grad = grad * derivative(activation, z)
    return grad


@element
def weighted(grad, gain):
    """The gradient times gamma, where every element has its own."""
    if gain is None:
        return grad
    return grad * gain


@element
def add_sums(a, b):
    return GradientSums(a.grad + b.grad, a.product + b.product)


@element
def about_mean(grad, product, low):
    """Sum of grad * (x - mean), from those of grad and of grad * (x - high), where the mean is high + low."""
    return product - low * grad


@element
def mean_terms(sums, count, rstd):
    """What every element's gradient loses: an offset, and a slope times its distance from the mean.

    sums : of g and g * d, g already weighted by gamma
    """
    return rstd * (sums.grad / count), rstd * (sums.product / count) * (rstd * rstd)


@element
def about_high(offset, slope, low):
    """The offset of what is a slope times x - high, where it was one times x - mean."""
    return offset - slope * low


@element
def input_gradient(grad, distance, scale, offset, slope):
    return scale * grad - (offset + distance * slope)
