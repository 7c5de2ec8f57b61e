"""Activations and their derivatives, for one element.

A tag chooses the function when the kernel is compiled. float64 calls the C library; float32 has
polynomials of its own, because a call does not vectorize.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from fastnorm._jit import element, variant
from fastnorm.element import bits
from fastnorm.element.storage import as_compute


class Relu(NamedTuple):
    """max(z, 0)"""

    floor: float = 0.0


class LeakyRelu(NamedTuple):
    """z, or slope * z where z is negative"""

    slope: float = 0.01


class Silu(NamedTuple):
    """z * sigmoid(steepness * z). Source: Hendrycks, Gimpel 2016; Ramachandran et al. 2017"""

    steepness: float = 1.0


class Gelu(NamedTuple):
    """z * Phi(z / deviation), exact. Source: Hendrycks, Gimpel 2016"""

    deviation: float = 1.0


class GeluTanh(NamedTuple):
    """z * (1 + tanh(sqrt(2/pi) * (z + cubic * z**3))) / 2. Source: Hendrycks, Gimpel 2016"""

    cubic: float = 0.044715


class Clip(NamedTuple):
    """z, no less than `low` and no more than `high`; not of gradients."""

    low: float
    high: float


def is_cheap(activation: Any) -> bool:
    """Whether it takes an instruction or two."""
    return activation is types.none or activation.instance_class in (Relu, LeakyRelu, Clip)


def is_for_lanes(activation: Any) -> bool:
    """Whether `activate` and `derivative` take `lanes`, too."""
    return activation is types.none or activation.instance_class in (Relu, LeakyRelu)


@element
def exp_single(value):
    """exp in float32, of -87 to 88: relative error below 2e-7. Of NaN some number."""
    # Adding 1.5 * 2**23 rounds to an integer in the last bits: a conversion that vectorizes everywhere.
    magic = np.float32(12582912.0)
    power = (value * np.float32(1.4426950408889634) + magic) - magic
    rest = value - power * np.float32(0.693359375)  # Cody, Waite 1980: ln 2 in two parts
    rest = rest - power * np.float32(-2.12194440e-4)
    # Least squares on [-ln2/2, ln2/2] of (exp(r) - 1 - r) / r**2, relative error 4e-9.
    poly = np.float32(1.3751407897e-3)
    poly = poly * rest + np.float32(8.3689163414e-3)
    poly = poly * rest + np.float32(4.1669533109e-2)
    poly = poly * rest + np.float32(1.6666518460e-1)
    poly = poly * rest + np.float32(4.9999988595e-1)
    poly = poly * (rest * rest) + rest + np.float32(1.0)
    word = np.uint32((np.int32(power) + np.int32(127)) << np.int32(23))
    return poly * bits.bits_to_single(word)


@element
def erf_single(value):
    """erf in float32, absolute error below 4e-7, exactly +-1 beyond 3.925."""
    bound = np.float32(3.925)
    x = value if value < bound else bound
    x = x if x > -bound else -bound
    t = x * x
    # Rational least-squares fit of erf(x)/x in x**2, reweighted to minimax: relative error 2e-8.
    top = np.float32(2.046036868e-06)
    top = top * t + np.float32(2.848424968e-04)
    top = top * t + np.float32(3.772503253e-03)
    top = top * t + np.float32(5.276916024e-02)
    top = top * t + np.float32(1.905926532e-01)
    top = top * t + np.float32(1.128379146e00)
    low = np.float32(3.804781728e-05)
    low = low * t + np.float32(1.163846310e-03)
    low = low * t + np.float32(1.498310655e-02)
    low = low * t + np.float32(1.141822721e-01)
    low = low * t + np.float32(5.022410720e-01)
    low = low * t + np.float32(1.0)
    inside = x * top / low
    saturated = np.float32(1.0) if value > np.float32(0.0) else np.float32(-1.0)
    return saturated if abs(value) >= bound else inside


@variant
def exp(z: Any) -> Any:
    """Of z within the bounds of `exp_single`."""
    if z == types.float32:
        return lambda z: exp_single(z)
    return lambda z: math.exp(z)


@variant
def erf(z: Any) -> Any:
    if z == types.float32:
        return lambda z: erf_single(z)
    return lambda z: math.erf(z)


@element
def sigmoid(z):
    """Of z within the bounds of `exp`."""
    one = as_compute(z, 1.0)
    return one / (one + exp(-z))


@element
def normal_cdf(z):
    """No product: of a sum of two products either may be fused, and one loop of a kernel fused the other than its twin."""
    return as_compute(z, 0.5) + as_compute(z, 0.5) * erf(z * as_compute(z, 0.7071067811865476))


@element
def normal_pdf(z):
    """Of z near 0."""
    return as_compute(z, 0.3989422804014327) * exp(as_compute(z, -0.5) * z * z)


@element
def slope_of_cdf(z):
    return z * normal_pdf(z)


@element
def gelu_tanh_argument(z, cubic):
    # (1 + tanh(u)) / 2 = sigmoid(2 u); 2 * sqrt(2 / pi) = 1.5957691216057308
    return as_compute(z, 1.5957691216057308) * (z + as_compute(z, cubic) * z * z * z)


@element
def gelu_tanh_slope(z, cubic):
    return as_compute(z, 1.5957691216057308) * (as_compute(z, 1.0) + as_compute(z, 3.0 * cubic) * z * z)


@element
def floored(z, low):
    """NaN passes through."""
    return low if z < low else z


@element
def clip(z, low, high):
    """NaN passes through."""
    above = floored(z, low)
    return high if above > high else above


# Beyond these a sigmoid or a density is nothing, or all; of nothing as `exp` has it, 1e-38, a product with any z would be a number. Up
# to these its argument needs no other bounds: silu and gelu_tanh, and their gradients, took 1.05 to 1.2 times as long with those of `exp`.
_SILU, _GELU, _GELU_TANH = 87.0, 13.0, 9.9


@element
def within(z, bound):
    return clip(z, as_compute(z, -bound), as_compute(z, bound))


@variant
def activate(activation: Any, z: Any) -> Any:
    """The activation of a pre-activation."""
    if activation is types.none:
        return lambda activation, z: z
    tag = activation.instance_class
    if tag is Relu:  # written so that NaN passes through
        return lambda activation, z: bits.choose(z < as_compute(z, 0.0), as_compute(z, 0.0), z)
    if tag is LeakyRelu:
        return lambda activation, z: bits.choose(z < as_compute(z, 0.0), z * as_compute(z, activation.slope), z)
    if tag is Clip:
        return lambda activation, z: clip(z, as_compute(z, activation.low), as_compute(z, activation.high))
    if tag is Silu:
        return lambda activation, z: floored(z, as_compute(z, -_SILU)) * sigmoid(within(z, _SILU))
    if tag is Gelu:
        return lambda activation, z: z * normal_cdf(z)
    return lambda activation, z: (
        floored(z, as_compute(z, -_GELU_TANH)) * sigmoid(gelu_tanh_argument(within(z, _GELU_TANH), activation.cubic))
    )


@variant
def derivative(activation: Any, z: Any) -> Any:
    """Of the activation, at a pre-activation; 0 at the kink of the rectifiers."""
    tag = activation.instance_class
    if tag is Relu:
        return lambda activation, z: bits.choose(z > as_compute(z, 0.0), as_compute(z, 1.0), as_compute(z, 0.0))
    if tag is LeakyRelu:
        return lambda activation, z: bits.choose(z > as_compute(z, 0.0), as_compute(z, 1.0), as_compute(z, activation.slope))

    if tag is Silu:

        def silu_derivative(activation, z):
            near = within(z, _SILU)
            s = sigmoid(near)
            return s * (as_compute(z, 1.0) + near * (as_compute(z, 1.0) - s))

        return silu_derivative
    if tag is Gelu:
        return lambda activation, z: normal_cdf(z) + slope_of_cdf(within(z, _GELU))

    def gelu_tanh_derivative(activation, z):
        near = within(z, _GELU_TANH)
        s = sigmoid(gelu_tanh_argument(near, activation.cubic))
        return s * (as_compute(z, 1.0) + near * (as_compute(z, 1.0) - s) * gelu_tanh_slope(near, activation.cubic))

    return gelu_tanh_derivative
