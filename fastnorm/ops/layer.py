"""Layer normalization: forward, backward, and of a sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops.calls import result_of
from fastnorm.ops.row_calls import Sum, backward, of_sum, single

Array = NDArray[Any]
Vector = NDArray[np.float64]


class LayerNorm(NamedTuple):
    """Result of `layer_norm` with ``return_stats=True``."""

    y: Array
    mean: Vector
    rstd: Vector


class LayerNormOfSum(NamedTuple):
    """Result of `add_layer_norm` with ``return_stats=True``."""

    y: Array
    h: Array
    mean: Vector
    rstd: Vector


class LayerNormGradients(NamedTuple):
    """Result of `layer_norm_backward`."""

    dx: Array
    dgamma: Array
    dbeta: Array


def layer_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
    return_stats: bool = False,
    out: Array | None = None,
) -> Any:
    """Layer normalization.

    ``y = (x - mean) * rstd * gamma + beta``, mean and variance over `axis`, for every index of the other axes.

    Parameters
    ----------
    x : array_like
        Any layout.
    gamma, beta : array_like, optional
        Learned scale and shift, of the shape of the normalized axes in the order of x, of any float dtype.
    axis : int or tuple of int
        What is normalized over.
    eps : float
        Added to the variance inside the square root.
    return_stats : bool
        Whether to return mean and rstd too, which backward needs.
    out : array, same shape as x, optional
        Receives `y`; may be `x` itself.

    Returns
    -------
    y : array like x
        Of the dtype of x (float64 for integers).
    mean, rstd : float64 array, of the shape of the other axes
        With `return_stats`.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    Source: Ba, Kiros, Hinton 2016, equations 3 and 4.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return single(x, gamma, beta, axis, eps, out, 0, LayerNorm if return_stats else None)


def add_layer_norm(
    x: ArrayLike,
    residual: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
    return_stats: bool = False,
    out: tuple[Array | None, Array | None] | None = None,
) -> Any:
    """Layer normalization of a sum, which is returned too: the residual stream of a transformer.

    ``h = x + residual``, rounded to the dtype of x; ``y = layer_norm(h)``. One pass over memory.

    Parameters
    ----------
    x : array_like
    residual : array_like, same shape as x
    gamma, beta, axis, eps, return_stats
        As in `layer_norm`.
    out : pair of arrays (y, h), optional
        Each like x or None; either may be `x` or `residual`.

    Returns
    -------
    y, h : array like x
    mean, rstd : float64 array, of the shape of the other axes
        With `return_stats`. Of h.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    The gradient of x and that of residual are both ``dh + layer_norm_backward(dy, h, mean, rstd, gamma).dx``.
    Source: Ba, Kiros, Hinton 2016, after the sum of Vaswani et al. 2017, section 3.1.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.add_layer_norm(np.array([[1.0, 2.0]]), np.array([[0.0, 1.0]]), eps=0.0)
    Sum(y=array([[-1.,  1.]]), h=array([[1., 3.]]))
    """
    all_of_it = bool(return_stats)  # what is neither true nor false says so before anything is written
    y, h, mean, rstd = of_sum(x, residual, gamma, beta, axis, eps, out, 0)
    return LayerNormOfSum(y, h, mean, rstd) if all_of_it else Sum(y, h)


def layer_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    rstd: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    out: Array | None = None,
) -> LayerNormGradients:
    """Gradients of layer normalization.

    Parameters
    ----------
    dy : array_like, same shape as x
        Gradient of the loss with respect to `y`.
    x : array_like
        Input of the forward pass.
    mean, rstd : array_like, of the shape of the axes that are not normalized over
        As `layer_norm` returned them.
    gamma, axis
        As in the forward pass.
    out : array like x, optional
        Receives `dx`; may be `dy` or `x` itself.

    Returns
    -------
    dx : array like x
    dgamma, dbeta : array of the shape of the normalized axes
        float64, or the float dtype of gamma.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    ``dx = rstd * (g - mean(g) - xhat * mean(g * xhat))`` with ``g = dy * gamma``.
    Source: Ba, Kiros, Hinton 2016, differentiated as in Ioffe, Szegedy 2015, section 3.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.array([[1.0, 3.0], [10.0, 30.0]])
    >>> y, mean, rstd = fn.layer_norm(x, eps=0.0, return_stats=True)
    >>> fn.layer_norm_backward(np.ones((2, 2)), x, mean, rstd).dgamma
    array([-2.,  2.])
    """
    return result_of(LayerNormGradients, backward(dy, x, mean, rstd, gamma, axis, out, "layer_norm"))
