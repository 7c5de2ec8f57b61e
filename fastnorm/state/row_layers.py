"""Layers that normalize every sample over its last axes: layer and RMS normalization."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnorm.ops.layer import layer_norm, layer_norm_backward
from fastnorm.ops.rms import rms_norm, rms_norm_backward
from fastnorm.plan.intake import as_array, eps_of
from fastnorm.state.layer import Layer, count_of

Array = NDArray[Any]


class RowLayer(Layer):
    """A layer that normalizes over the last axes of x, whose shape it knows."""

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float, affine: bool, dtype: DTypeLike, *, shifts: bool) -> None:
        sizes: tuple[Any, ...] = tuple(np.atleast_1d(np.asarray(normalized_shape, object)))
        if not sizes:
            raise ValueError("normalized_shape is empty; pass the sizes of the last axes of x, for example (64,)")
        self.normalized_shape = tuple(count_of("normalized_shape", size) for size in sizes)
        super().__init__(self.normalized_shape, dtype, affine, shifts=shifts)
        self.eps = eps_of(eps)
        self._axes = tuple(range(-len(sizes), 0))

    def _input(self, x: ArrayLike) -> Array:
        array = as_array("x", x)
        if array.shape[-len(self._axes) :] != self.normalized_shape:
            raise ValueError(
                f"x has shape {array.shape} but the layer normalizes last axes of shape {self.normalized_shape}; "
                f"pass x of shape (..., {', '.join(map(str, self.normalized_shape))})"
            )
        return array


class LayerNorm(RowLayer):
    """Layer normalization. Training and evaluation are the same.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Sizes of the last axes of x, which are normalized over.
    eps : float
    affine : bool
        Whether there are gamma and beta.
    dtype : dtype
        Of parameters.

    Attributes
    ----------
    gamma, beta, dgamma, dbeta : array of shape normalized_shape
        The gradients are overwritten by every `backward`.
    training : bool

    Notes
    -----
    Source: Ba, Kiros, Hinton 2016.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> layer = fn.layers.LayerNorm(2, eps=0.0)
    >>> layer(np.array([[1.0, 3.0], [10.0, 30.0]], np.float32))
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], *, eps: float = 1e-5, affine: bool = True, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__(normalized_shape, eps, affine, dtype, shifts=True)

    def forward(self, x: ArrayLike, *, out: Array | None = None) -> Array:
        """Normalize every sample over the last axes."""
        x = self._input(x)
        y, mean, rstd = layer_norm(x, self.gamma, self.beta, axis=self._axes, eps=self.eps, return_stats=True, out=out)
        self._remember(out, (x, mean, rstd), x)
        return y  # type: ignore[no-any-return]

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """Gradient of x for the last forward pass. The input of that pass must not have been overwritten.

        Raises
        ------
        RuntimeError
            Before any forward pass, and after one whose `out` was its input.
        """
        x, mean, rstd = self._remembered()
        gradients = layer_norm_backward(dy, x, mean, rstd, self.gamma, axis=self._axes, out=out)
        self._keep_gradients(gradients.dgamma, gradients.dbeta)
        return gradients.dx


class RMSNorm(RowLayer):
    """Root mean square normalization. Training and evaluation are the same.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Sizes of the last axes of x, which are normalized over.
    eps : float
    affine : bool
        Whether there is gamma.
    dtype : dtype
        Of gamma.

    Attributes
    ----------
    gamma, dgamma : array of shape normalized_shape
        The gradient is overwritten by every `backward`. There is no shift: beta and dbeta are None.
    training : bool

    Notes
    -----
    Source: Zhang, Sennrich 2019.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> layer = fn.layers.RMSNorm(2, eps=0.0)
    >>> layer(np.array([[1.0, 7.0]], np.float32))
    array([[0.2, 1.4]], dtype=float32)
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], *, eps: float = 1e-5, affine: bool = True, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__(normalized_shape, eps, affine, dtype, shifts=False)

    def forward(self, x: ArrayLike, *, out: Array | None = None) -> Array:
        """Divide every sample by its root mean square over the last axes."""
        x = self._input(x)
        y, rstd = rms_norm(x, self.gamma, axis=self._axes, eps=self.eps, return_stats=True, out=out)
        self._remember(out, (x, rstd), x)
        return y  # type: ignore[no-any-return]

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """Gradient of x for the last forward pass. The input of that pass must not have been overwritten.

        Raises
        ------
        RuntimeError
            Before any forward pass, and after one whose `out` was its input.
        """
        x, rstd = self._remembered()
        gradients = rms_norm_backward(dy, x, rstd, self.gamma, axis=self._axes, out=out)
        self._keep_gradients(gradients.dgamma)
        return gradients.dx
