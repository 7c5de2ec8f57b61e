"""Layers with running statistics: batch normalization and batch renormalization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnorm.ops.batch import batch_norm, batch_norm_train
from fastnorm.ops.batch_backward import batch_norm_backward
from fastnorm.ops.door import check_activation
from fastnorm.ops.renorm import batch_renorm_backward, batch_renorm_train, check_limits
from fastnorm.plan.intake import as_array, eps_of, number
from fastnorm.state.layer import Layer, axis_of, check_channels, count_of
from fastnorm.state.moments import RunningMoments

Array = NDArray[Any]


class RunningLayer(Layer):
    """A layer that remembers the statistics of the batches of training, and uses them in evaluation."""

    _state = ("gamma", "beta", "running_mean", "running_var", "num_batches_tracked")

    def __init__(
        self, num_features: int, axis: int, eps: float, momentum: float | None, unbiased: bool, affine: bool, dtype: DTypeLike
    ) -> None:
        self.num_features = count_of("num_features", num_features)
        super().__init__((self.num_features,), dtype, affine)
        self.axis = axis_of(axis)
        self.eps = eps_of(eps)
        rule = "None or between 0 and 1, the weight of the new batch; pass for example 0.1"
        self.momentum = None if momentum is None else number("momentum", momentum, 0.0, 1.0, rule)
        self.unbiased = bool(unbiased)
        self.running_mean: Array = np.zeros(self.num_features, self.dtype)
        self.running_var: Array = np.ones(self.num_features, self.dtype)
        self.num_batches_tracked = 0

    def _input(self, x: ArrayLike) -> Array:
        array = as_array("x", x)
        check_channels("x", array, self.axis, self.num_features)
        return array

    def _weight_of_batch(self) -> float:
        return 1.0 / (self.num_batches_tracked + 1) if self.momentum is None else self.momentum

    def _count_batch(self, x: Array) -> None:
        if x.size:
            self.num_batches_tracked += 1

    def _running(self) -> tuple[Array, Array]:
        """Mean and 1 / sqrt(var + eps) for the backward pass of an evaluation: float64 copies."""
        with np.errstate(all="ignore"):
            rstd = 1.0 / np.sqrt(self.running_var.astype(np.float64) + self.eps)
        return self.running_mean.astype(np.float64), rstd

    def recompute_statistics(self, batches: Iterable[ArrayLike]) -> None:
        """Replace the running statistics by the exact ones of the pooled inputs of this layer.

        Source: Ioffe, Szegedy 2015, algorithm 2, lines 8 to 12, with one population instead of an average.

        Raises
        ------
        ValueError
            If there is no element, or one per channel where the variance is unbiased; nothing is changed.
        """
        moments: RunningMoments | None = None
        for batch in batches:
            array = as_array("batch", batch)
            channel = check_channels("batch", array, self.axis, self.num_features)
            of_batch = RunningMoments(tuple(k for k in range(array.ndim) if k != channel))
            of_batch.update(array)
            if moments is None:
                moments = of_batch
            else:
                moments.merge(of_batch)
        needed = 2 if self.unbiased else 1
        if moments is None or moments.count < needed:
            raise ValueError(f"batches have fewer than {needed} values per channel; pass the training data")
        self.running_mean[...] = moments.mean
        self.running_var[...] = moments.var(1 if self.unbiased else 0)


class BatchNorm(RunningLayer):
    """Batch normalization with running statistics.

    Parameters
    ----------
    num_features : int
        Channels.
    axis : int
        The channel axis of x: 1 for (N, C, H, W), -1 for (N, H, W, C), 0 for (C, N).
    eps : float
    momentum : float or None
        Weight of the new batch in the running statistics; None averages all batches equally.
    unbiased : bool
        Whether `running_var` holds variances with n - 1 in the denominator.
    activation : {None, "relu", "leaky_relu", "silu", "gelu", "gelu_tanh"}
    affine : bool
        Whether there are gamma and beta.
    dtype : dtype
        Of parameters and running statistics.

    Attributes
    ----------
    gamma, beta, running_mean, running_var : array (C,)
    dgamma, dbeta : array (C,)
        Overwritten by every `backward`.
    num_batches_tracked : int
    training : bool

    Notes
    -----
    Source: Ioffe, Szegedy 2015.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> layer = fn.layers.BatchNorm(2)
    >>> layer(np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.running_mean
    array([0.2, 2. ], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        axis: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        unbiased: bool = True,
        activation: str | None = None,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, axis, eps, momentum, unbiased, affine, dtype)
        check_activation(activation)
        self.activation = activation

    def forward(self, x: ArrayLike, *, residual: ArrayLike | None = None, out: Array | None = None) -> Array:
        """Normalize with the statistics of the batch in training, with the running ones in evaluation."""
        x = self._input(x)
        residual = None if residual is None else as_array("residual", residual)
        shared: dict[str, Any] = {"axis": self.axis, "eps": self.eps, "activation": self.activation, "residual": residual, "out": out}
        if self.training:
            y, mean, rstd = batch_norm_train(
                x, self.gamma, self.beta, running_mean=self.running_mean, running_var=self.running_var,
                momentum=self._weight_of_batch(), unbiased=self.unbiased, **shared,
            )  # fmt: skip
            self._count_batch(x)
        else:
            y = batch_norm(x, self.running_mean, self.running_var, self.gamma, self.beta, **shared)
            mean, rstd = self._running()
        read = residual if self.activation is not None else None
        self._remember(out, (x, mean, rstd, residual, self.training), x, read)
        return y

    def backward(self, dy: ArrayLike, *, out: Any = None) -> Any:
        """Gradient of x for the last forward pass; with a residual the pair (dx, dresidual).

        The input of that pass must not have been overwritten.

        Raises
        ------
        RuntimeError
            Before any forward pass, and after one whose `out` was its input.
        """
        x, mean, rstd, residual, training = self._remembered()
        gradients: Any = batch_norm_backward(
            dy, x, mean, rstd, self.gamma, axis=self.axis, training=training, activation=self.activation,
            beta=self.beta, residual=residual, out=out,
        )  # fmt: skip
        self._keep_gradients(gradients.dgamma, gradients.dbeta)
        return gradients.dx if residual is None else (gradients.dx, gradients.dresidual)


class BatchRenorm(RunningLayer):
    """Batch renormalization: in training it agrees with what evaluation will do, within bounds.

    Parameters
    ----------
    num_features : int
        Channels.
    axis : int
        The channel axis of x: 1 for (N, C, H, W), -1 for (N, H, W, C), 0 for (C, N).
    eps : float
    momentum : float or None
        Weight of the new batch in the running statistics; None averages all batches equally.
    r_max, d_max : float
        Bounds of the correction; 1 and 0 make this batch normalization. They are attributes: training begins with
        1 and 0 and raises them from step to step.
    unbiased : bool
        Whether `running_var` holds variances with n - 1 in the denominator.
    affine : bool
        Whether there are gamma and beta.
    dtype : dtype
        Of parameters and running statistics.

    Attributes
    ----------
    gamma, beta, running_mean, running_var : array (C,)
    dgamma, dbeta : array (C,)
        Overwritten by every `backward`.
    num_batches_tracked : int
    training : bool

    Notes
    -----
    Source: Ioffe 2017.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> layer, x = fn.layers.BatchRenorm(1, eps=0.0), np.array([[1.0], [3.0]], np.float32)
    >>> layer(x)  # the running statistics are still those of a new layer: mean 0, variance 1
    array([[1.],
           [3.]], dtype=float32)
    >>> layer.r_max, layer.d_max = 1.0, 0.0
    >>> layer(x)
    array([[-1.],
           [ 1.]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        axis: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        r_max: float = 3.0,
        d_max: float = 5.0,
        unbiased: bool = True,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, axis, eps, momentum, unbiased, affine, dtype)
        self.r_max, self.d_max = check_limits(r_max, d_max)

    def forward(self, x: ArrayLike, *, out: Array | None = None) -> Array:
        """Renormalize the batch in training; normalize with the running statistics in evaluation."""
        x = self._input(x)
        shared: dict[str, Any] = {"axis": self.axis, "eps": self.eps, "out": out}
        if self.training:
            y, *saved = batch_renorm_train(
                x, self.running_mean, self.running_var, self.gamma, self.beta, momentum=self._weight_of_batch(),
                r_max=self.r_max, d_max=self.d_max, unbiased=self.unbiased, **shared,
            )  # fmt: skip
            self._count_batch(x)
        else:
            y = batch_norm(x, self.running_mean, self.running_var, self.gamma, self.beta, **shared)
            saved = list(self._running())
        self._remember(out, (x, *saved), x)
        return y

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Array:
        """Gradient of x for the last forward pass. The input of that pass must not have been overwritten.

        Raises
        ------
        RuntimeError
            Before any forward pass, and after one whose `out` was its input.
        """
        x, mean, rstd, *correction = self._remembered()
        gradients: Any
        if correction:
            r, d = correction
            gradients = batch_renorm_backward(dy, x, mean, rstd, r, d, self.gamma, axis=self.axis, out=out)
        else:
            gradients = batch_norm_backward(dy, x, mean, rstd, self.gamma, axis=self.axis, training=False, out=out)
        self._keep_gradients(gradients.dgamma, gradients.dbeta)
        dx: Array = gradients.dx
        return dx
