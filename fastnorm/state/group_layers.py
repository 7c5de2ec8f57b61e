"""Layers that normalize every sample over groups of channels: group and instance normalization."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnorm.ops.door import check_activation
from fastnorm.ops.group import group_norm, group_norm_backward
from fastnorm.plan.intake import as_array, eps_of
from fastnorm.state.layer import Layer, axis_of, check_channels, count_of

Array = NDArray[Any]


class GroupLayer(Layer):
    """A layer whose statistics are those of one sample and one group of channels."""

    def __init__(
        self, num_groups: int, num_channels: int, axis: int, eps: float, activation: str | None, affine: bool, dtype: DTypeLike
    ) -> None:
        super().__init__((num_channels,), dtype, affine)
        self._groups, self._channels = num_groups, num_channels
        self.axis = axis_of(axis)
        if self.axis == 0:
            raise ValueError("axis is 0, the samples of x, but must name its channels; pass 1 for (N, C, ...) or -1 for (N, ..., C)")
        self.eps = eps_of(eps)
        check_activation(activation)
        self.activation = activation

    def forward(self, x: ArrayLike, *, out: Array | None = None) -> Array:
        """Normalize every sample over each group of channels and all further axes."""
        x = as_array("x", x)
        check_channels("x", x, self.axis, self._channels)
        y, mean, rstd = group_norm(
            x, self._groups, self.gamma, self.beta, axis=self.axis, eps=self.eps, activation=self.activation, return_stats=True, out=out
        )
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
        gradients = group_norm_backward(
            dy, x, self._groups, mean, rstd, self.gamma, axis=self.axis, activation=self.activation, beta=self.beta, out=out
        )
        self._keep_gradients(gradients.dgamma, gradients.dbeta)
        return gradients.dx


class GroupNorm(GroupLayer):
    """Group normalization. Training and evaluation are the same.

    Parameters
    ----------
    num_groups : int
        A divisor of num_channels.
    num_channels : int
    axis : int
        The channel axis of x: 1 for (N, C, H, W), -1 for (N, H, W, C); not 0.
    eps : float
    activation : {None, "relu", "leaky_relu", "silu", "gelu", "gelu_tanh"}
    affine : bool
        Whether there are gamma and beta.
    dtype : dtype
        Of parameters.

    Attributes
    ----------
    gamma, beta, dgamma, dbeta : array (C,)
        The gradients are overwritten by every `backward`.
    training : bool

    Notes
    -----
    Source: Wu, He 2018.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> layer = fn.layers.GroupNorm(2, 4, eps=0.0)
    >>> layer(np.array([[1.0, 3.0, 10.0, 30.0]], np.float32))
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        *,
        axis: int = 1,
        eps: float = 1e-5,
        activation: str | None = None,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_groups, self.num_channels = count_of("num_groups", num_groups), count_of("num_channels", num_channels)
        if self.num_channels % self.num_groups:
            raise ValueError(
                f"num_groups is {self.num_groups} but num_channels is {self.num_channels}; pass a divisor of {self.num_channels}"
            )
        super().__init__(self.num_groups, self.num_channels, axis, eps, activation, affine, dtype)


class InstanceNorm(GroupLayer):
    """Instance normalization: every channel of a sample is a group. Training and evaluation are the same.

    Parameters
    ----------
    num_features : int
        Channels.
    axis, eps, activation, affine, dtype
        As in `GroupNorm`.

    Attributes
    ----------
    gamma, beta, dgamma, dbeta : array (C,)
        The gradients are overwritten by every `backward`.
    training : bool

    Notes
    -----
    Source: Ulyanov, Vedaldi, Lempitsky 2016.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> layer = fn.layers.InstanceNorm(2, eps=0.0)
    >>> layer(np.array([[[1.0, 3.0], [10.0, 30.0]]], np.float32))
    array([[[-1.,  1.],
            [-1.,  1.]]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        axis: int = 1,
        eps: float = 1e-5,
        activation: str | None = None,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_features = count_of("num_features", num_features)
        super().__init__(self.num_features, self.num_features, axis, eps, activation, affine, dtype)
