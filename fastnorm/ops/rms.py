"""Root mean square normalization: forward, backward, and of a sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops.row_calls import Sum, backward, of_sum, single

Array = NDArray[Any]
Vector = NDArray[np.float64]


class RMSNorm(NamedTuple):
    """Result of `rms_norm` with ``return_stats=True``."""

    y: Array
    rstd: Vector


class RMSNormOfSum(NamedTuple):
    """Result of `add_rms_norm` with ``return_stats=True``."""

    y: Array
    h: Array
    rstd: Vector


class RMSNormGradients(NamedTuple):
    """Result of `rms_norm_backward`."""

    dx: Array
    dgamma: Array


def _without_mean(y: Array, mean: Vector, rstd: Vector) -> RMSNorm:
    return RMSNorm(y, rstd)


def rms_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
    return_stats: bool = False,
    out: Array | None = None,
) -> Any:
    """Root mean square normalization.

    ``y = x * rstd * gamma`` with ``rstd = 1 / sqrt(mean(x**2) + eps)`` over `axis`.

    Parameters
    ----------
    x, gamma, axis, eps, return_stats, out
        As in `layer_norm`.

    Returns
    -------
    y : array like x
    rstd : float64 array, of the shape of the other axes
        With `return_stats`.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    Source: Zhang, Sennrich 2019, equation 4.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.rms_norm(np.array([[1.0, 7.0]]), eps=0.0)
    array([[0.2, 1.4]])
    """
    return single(x, gamma, None, axis, eps, out, None, _without_mean if return_stats else None)


def add_rms_norm(
    x: ArrayLike,
    residual: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
    return_stats: bool = False,
    out: tuple[Array | None, Array | None] | None = None,
) -> Any:
    """Root mean square normalization of a sum, which is returned too.

    ``h = x + residual``, rounded to the dtype of x; ``y = rms_norm(h)``. One pass over memory.

    Parameters
    ----------
    x, residual, gamma, axis, eps, return_stats, out
        As in `add_layer_norm`.

    Returns
    -------
    y, h : array like x
    rstd : float64 array, of the shape of the other axes
        With `return_stats`. Of h.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    Source: Zhang, Sennrich 2019, equation 4.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.add_rms_norm(np.array([[1.0, 4.0]]), np.array([[0.0, 3.0]]), eps=0.0).y
    array([[0.2, 1.4]])
    """
    all_of_it = bool(return_stats)  # what is neither true nor false says so before anything is written
    y, h, _, rstd = of_sum(x, residual, gamma, None, axis, eps, out, None)
    return RMSNormOfSum(y, h, rstd) if all_of_it else Sum(y, h)


def rms_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    rstd: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    out: Array | None = None,
) -> RMSNormGradients:
    """Gradients of root mean square normalization.

    Parameters
    ----------
    dy, x, gamma, axis, out
        As in `layer_norm_backward`.
    rstd : array_like, of the shape of the axes that are not normalized over
        As `rms_norm` returned it.

    Returns
    -------
    dx : array like x
    dgamma : array of the shape of the normalized axes
        float64, or the float dtype of gamma.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    ``dx = rstd * (g - xhat * mean(g * xhat))`` with ``g = dy * gamma`` and ``xhat = x * rstd``.
    Source: Zhang, Sennrich 2019, section 4.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.array([[1.0, 7.0]])
    >>> y, rstd = fn.rms_norm(x, eps=0.0, return_stats=True)
    >>> fn.rms_norm_backward(np.ones((1, 2)), x, rstd).dgamma
    array([0.2, 1.4])
    """
    dx, dgamma, _ = backward(dy, x, None, rstd, gamma, axis, out, "rms_norm")
    return RMSNormGradients(dx, dgamma)
