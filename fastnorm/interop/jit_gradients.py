"""Backward of one row; what its elements contribute to the gradients of their parameters."""

from __future__ import annotations

from typing import Any

from numba.core import errors, types

from fastnorm._jit import exported, loop, variant
from fastnorm.element.affine import split_mean
from fastnorm.element.bits import wide_vectors
from fastnorm.element.gradient import GradientSums, add_sums
from fastnorm.element.storage import as_compute, cut, zero_of
from fastnorm.interop.jit_operands import own, takes
from fastnorm.kernels.gradient_elements import terms_about
from fastnorm.kernels.gradient_tile import gradient_of_run, gradient_sums_and_parameters, gradient_sums_of_run
from fastnorm.plan.schedule import TILE_BYTES


@variant
def sums_of_piece(dy: Any, row: Any, high: Any, low: Any, scale: Any, gamma: Any, dgamma: Any, dbeta: Any, start: Any, n: Any) -> Any:
    """Sums of the weighted gradient; what every element adds to the gradients of its parameters."""
    for kind in (gamma, dgamma, dbeta):
        if isinstance(kind, types.Number):
            raise errors.TypingError("gamma, dgamma or dbeta is a number; pass None, or an array like the row")
    if dgamma is types.none:
        if gamma is not types.none or dbeta is not types.none:
            raise errors.TypingError("dgamma is None but gamma or dbeta is not; pass an array that gradients of gamma are added to")
        return lambda dy, row, high, low, scale, gamma, dgamma, dbeta, start, n: gradient_sums_of_run(
            cut(dy, start, n), cut(row, start, n), None, n, high, low, scale, zero_of(row), None
        )
    return lambda dy, row, high, low, scale, gamma, dgamma, dbeta, start, n: gradient_sums_and_parameters(
        cut(dy, start, n), cut(row, start, n), n, high, low, scale, own(gamma, start, n), zero_of(row), None,
        cut(dgamma, start, n), cut(dbeta, start, n),
    )  # fmt: skip


@loop
def backward_of_row(dy, row, out, mean, high, low, rstd, gamma, dgamma, dbeta):
    zero = zero_of(row)
    scale = as_compute(zero, rstd)
    total = GradientSums(0.0, 0.0)
    at, tile = 0, TILE_BYTES // row.itemsize
    while at < row.size:  # sums of a tile in the dtype of the row, of tiles in float64
        n = min(tile, row.size - at)
        total = add_sums(total, sums_of_piece(dy, row, high, low, scale, gamma, dgamma, dbeta, at, n))
        at += n
    terms = terms_about(mean, total, float(row.size), rstd)
    offset, slope = as_compute(zero, terms[0]), as_compute(zero, terms[1])
    gradient_of_run(dy, row, None, out, None, row.size, high, low, scale, own(gamma, 0, row.size), zero, offset, slope, None)


@exported
def layer_norm_row_backward(dy, row, out, mean, rstd, gamma, dgamma, dbeta):
    """Gradients of `layer_norm_row`.

    Parameters
    ----------
    dy, row, out : contiguous float32 or float64 arrays of one length
        `out` receives the gradient of the row; it may be `dy` or `row`.
    mean, rstd : float
        As `layer_norm_row` returned them.
    gamma : None or array like row
    dgamma, dbeta : None or array like row
        What this row contributes is added to them; float64 keeps the sums of many rows exact. `dgamma` may be None where
        `gamma` and `dbeta` are. In ``prange`` every thread needs its own.

    Notes
    -----
    Source: Ioffe, Szegedy 2015, section 3, in closed form.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> dx, dgamma = np.empty(2), np.zeros(2)
    >>> fn.jit.layer_norm_row_backward(np.array([1.0, 2.0]), np.array([1.0, 3.0]), dx, 2.0, 1.0, None, dgamma, None)
    >>> dgamma
    array([-1.,  2.])
    """
    wide_vectors()
    row = takes(row, out, gamma, None)
    dy = takes(dy, None, dgamma, dbeta)
    high, low = split_mean(zero_of(row), mean, 0.0)
    backward_of_row(dy, row, out, 0, high, low, rstd, gamma, dgamma, dbeta)


@exported
def rms_norm_row_backward(dy, row, out, rstd, gamma, dgamma):
    """Gradients of `rms_norm_row`.

    Parameters
    ----------
    dy, row, out : contiguous float32 or float64 arrays of one length
        `out` receives the gradient of the row; it may be `dy` or `row`.
    rstd : float
        As `rms_norm_row` returned it.
    gamma, dgamma
        As in `layer_norm_row_backward`.

    Notes
    -----
    Source: Zhang, Sennrich 2019, section 4, differentiated as in Ioffe, Szegedy 2015, section 3.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> dx, dgamma = np.empty(2), np.zeros(2)
    >>> fn.jit.rms_norm_row_backward(np.ones(2), np.array([3.0, 4.0]), dx, 0.5, None, dgamma)
    >>> dgamma
    array([1.5, 2. ])
    """
    wide_vectors()
    row = takes(row, out, gamma, None)
    dy = takes(dy, None, dgamma, None)
    backward_of_row(dy, row, out, None, None, None, rstd, gamma, dgamma, None)
