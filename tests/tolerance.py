"""Derived bounds. The source of every number is written beside it; nothing is tuned until it passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle

Array = np.ndarray

# The contract: output error <= 1e-6 * (1 + |y|) for float32 arithmetic, 1e-13 * (1 + |y|) for float64 arithmetic,
# for |mean| / std up to 1e6. It is attainable: (x - hi) - lo costs two roundings of 2**-24, the product with rstd,
# gamma and the sum with beta three more, and the statistics add as much again: 8 * 2**-24 = 4.8e-7.
# float64: 2**-53 * 8 = 9e-16 plus n roundings in sums of n values, hence the margin.
PROMISED = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-13}

# Half a unit in the last place, relative (p bits of precision: 2**-p), and half the spacing of subnormals.
HALF_ULP = {
    "float64": (2.0**-53, 2.0**-1075),
    "float32": (2.0**-24, 2.0**-150),
    "float16": (2.0**-11, 2.0**-25),
    "bfloat16": (2.0**-8, 2.0**-134),
}


def arithmetic(dtype: Any, out: Any = None) -> np.dtype:
    """The dtype in which values of `dtype` are computed; integers follow the dtype of `out`, or use float64."""
    dtype = np.dtype(dtype)
    if dtype.kind in "biu":
        return arithmetic(out) if out is not None else np.dtype(np.float64)
    return np.dtype(np.float64) if dtype.itemsize == 8 else np.dtype(np.float32)


def unit(dtype: Any, out: Any = None) -> float:
    return PROMISED[arithmetic(dtype, out)]


def storage(values: Array, stored: Any, computed: np.dtype) -> Array | float:
    """What rounding to the output's dtype adds when it is narrower than the arithmetic; else the promise includes it."""
    if np.dtype(stored).itemsize >= computed.itemsize:
        return 0.0
    relative, absolute = HALF_ULP[np.dtype(stored).newbyteorder("=").name]
    # The rounding happens at the computed value, at most a few units from the exact one: (1 + 2**-7) covers that.
    return relative * (1 + 2.0**-7) * np.abs(values) + absolute


def output(expected: oracle.Forward, dtype: Any, out: Any = None) -> Array:
    """Of y. With gamma, beta, residual of any size the error is relative to the largest term, not to their sum.

    Activations: |slope| <= 1.13 for all five, and where it exceeds 1 it does by less than the promise's slack.
    """
    stored = dtype if out is None and np.dtype(dtype).kind not in "biu" else out if out is not None else np.float64
    return unit(dtype, out) * expected.terms + storage(expected.y, stored, arithmetic(dtype, out))


def agreement(y: Array, dtype: Any) -> Array:
    """Of two results for one exact value near y, each within the promise; with no parameters |y| is the largest term."""
    return 2 * unit(dtype) * (1 + np.abs(np.asarray(y, np.float64)))


def mean(expected_mean: Array, expected_var: Array, dtype: Any, out: Any = None) -> Array:
    """An error of the mean is an error of y, in units of std; float64 rounds the returned mean, and the expected one."""
    return unit(dtype, out) * np.sqrt(expected_var) + 2.0**-52 * np.abs(expected_mean)


def var(expected_var: Array, dtype: Any, out: Any = None) -> Array:
    """y is proportional to var**-0.5: an error of 1 in y's promise is an error of 2 in var. Zero stays exactly zero."""
    return 2 * unit(dtype, out) * expected_var


def rstd(expected_rstd: Array, dtype: Any, out: Any = None) -> Array:
    return unit(dtype, out) * expected_rstd


def running(old: Array, expected: Array, momentum: float, batch_bound: Array, dtype: Any) -> Array:
    """The batch's error, weighted; one rounding to the running array's dtype; float64 rounds in between."""
    size = (1 - momentum) * np.abs(np.asarray(old, np.float64)) + np.abs(expected)
    return momentum * batch_bound + (HALF_ULP[np.dtype(dtype).name][0] + 2.0**-51) * size


class Gradient:
    """Bounds of the four gradients: the promise, relative to the largest term of the slice (1 + |value| in its units).

    Sums are relative to the sum of their terms' sizes. An element whose pre-activation is too close to the kink of
    relu to be on a known side at this precision may have either slope: that much is added, for those elements only.
    """

    def __init__(self, expected: oracle.Backward, dtype: Any, gamma: Any = None) -> None:
        u = unit(dtype)
        computed = arithmetic(dtype)
        stored = np.float64 if np.dtype(dtype).kind in "biu" else dtype
        kinks = expected.kink(u)
        self.dx = u * (expected.dx_terms + np.abs(expected.dx)) + kinks[0] + storage(expected.dx, stored, computed)
        parameter = np.float64 if gamma is None else np.asarray(gamma).dtype
        f8 = np.dtype(np.float64)
        self.dgamma = u * expected.dgamma_terms + kinks[1] + storage(expected.dgamma, parameter, f8)
        self.dbeta = u * expected.dbeta_terms + kinks[2] + storage(expected.dbeta, parameter, f8)
        self.dresidual = u * expected.dresidual_terms + kinks[3] + storage(expected.dresidual, stored, computed)


def difference(gradient: Array, size: float) -> Array:
    """Of `oracle.central_difference` of a function of that size.

    The truncation is h**2 / 6 times the third derivative (below 10 times the gradient for these functions), the
    rounding a few 2**-53 * size / h, and h = 2**(-53 / 3): both are a small multiple of 2**(-106 / 3) = 2.3e-11.
    """
    return 32 * 2.0 ** (-106 / 3) * (size + np.abs(gradient).max(initial=1.0))


def assert_within(actual: Any, expected: Any, bound: Any, what: str = "value") -> None:
    """Every element within its own bound; NaN where NaN is expected and nowhere else; infinities equal."""
    found, wanted = np.asarray(actual).astype(np.float64), np.asarray(expected, np.float64)
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, expected {wanted.shape}"
    allowed = np.broadcast_to(np.asarray(bound, np.float64), wanted.shape)
    with np.errstate(invalid="ignore"):
        error = np.where(found == wanted, 0.0, np.abs(found - wanted))
        good = (error <= allowed) | (np.isnan(found) & np.isnan(wanted))
    if not good.all():
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(good, 0.0, np.nan_to_num(error / allowed, nan=np.inf, posinf=np.inf))
        worst = np.unravel_index(np.argmax(ratio), ratio.shape)
        raise AssertionError(
            f"{what}: {np.count_nonzero(~good)} of {good.size} outside their bound; worst at {tuple(map(int, worst))}: "
            f"{found[worst]!r}, expected {wanted[worst]!r}, error {error[worst]:.3g}, bound {allowed[worst]:.3g}"
        )
