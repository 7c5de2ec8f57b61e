"""Layers: parameters, gradients, running statistics, training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnorm.ops.batch import batch_norm, batch_norm_backward, batch_norm_train
from fastnorm.ops.door import check_activation
from fastnorm.plan.intake import as_array, eps_of, is_float, normalize_axis, number
from fastnorm.state.moments import RunningMoments

Array = NDArray[Any]


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value.__index__() < 1:
        raise ValueError(f"{name} is {value!r} but must be at least 1")
    return int(value)


class Layer:
    """What all layers share: mode, parameters with their gradients, and saved state."""

    _state: tuple[str, ...] = ()  # attributes that state_dict holds

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, affine: bool) -> None:
        kind = np.dtype(dtype)
        if not is_float(kind):
            raise TypeError(f"dtype is {kind} but parameters are floats; pass np.float32 or np.float64")
        self.dtype = kind
        self.training = True
        self.affine = bool(affine)
        self.gamma: Array | None = np.ones(shape, kind) if affine else None
        self.beta: Array | None = np.zeros(shape, kind) if affine else None
        self.dgamma: Array | None = np.zeros(shape, kind) if affine else None
        self.dbeta: Array | None = np.zeros(shape, kind) if affine else None
        self._saved: Any = None

    def __call__(self, x: ArrayLike, **options: Any) -> Array:
        return self.forward(x, **options)

    def forward(self, x: ArrayLike, *, residual: ArrayLike | None = None, out: Array | None = None) -> Array:
        raise NotImplementedError

    def train(self, mode: bool = True) -> Any:
        """Use and update the statistics of the batch. Returns the layer."""
        self.training = bool(mode)
        return self

    def eval(self) -> Any:
        """Use the running statistics. Returns the layer."""
        return self.train(False)

    def parameters(self) -> list[tuple[Array, Array]]:
        """Pairs of a parameter and its gradient, both live: an optimizer changes the first in place.

        Examples
        --------
        >>> import fastnorm as fn
        >>> layer = fn.layers.BatchNorm(3)
        >>> for value, gradient in layer.parameters():
        ...     value -= 0.1 * gradient
        """
        pairs = ((self.gamma, self.dgamma), (self.beta, self.dbeta))
        return [(value, gradient) for value, gradient in pairs if value is not None and gradient is not None]

    def _keep_gradients(self, dgamma: Array, dbeta: Array | None = None) -> None:
        for kept, new in ((self.dgamma, dgamma), (self.dbeta, dbeta)):
            if kept is not None and new is not None:
                kept[...] = new

    def _remembered(self) -> Any:
        if self._saved is None:
            raise RuntimeError("backward needs a forward pass before it; call the layer on x first")
        return self._saved

    def _names(self) -> list[str]:
        return [name for name in self._state if getattr(self, name) is not None]

    def state_dict(self) -> dict[str, Any]:
        """Copies of parameters and running statistics, by name."""
        return {name: np.array(getattr(self, name)) for name in self._names()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state, all of it or nothing.

        Raises
        ------
        KeyError
            If a name is missing or unknown.
        ValueError
            If a shape differs.
        """
        names = self._names()
        for name in (*(n for n in names if n not in state), *(n for n in state if n not in names)):
            raise KeyError(f"{name!r} is {'missing from' if name in names else 'unknown to'} the state of {type(self).__name__}")
        for name in names:
            if np.shape(state[name]) != np.shape(getattr(self, name)):
                raise ValueError(f"{name} has shape {np.shape(state[name])} but the layer has {np.shape(getattr(self, name))}")
        for name in names:
            held = getattr(self, name)
            if isinstance(held, np.ndarray):
                held[...] = state[name]
            else:
                setattr(self, name, int(state[name]))


class BatchNorm(Layer):
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

    _state = ("gamma", "beta", "running_mean", "running_var", "num_batches_tracked")

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
        self.num_features = _positive("num_features", num_features)
        super().__init__((self.num_features,), dtype, affine)
        self.axis = axis
        self.eps = eps_of(eps)
        self.momentum = None if momentum is None else number("momentum", momentum, 0.0, 1.0, "None or between 0 and 1")
        self.unbiased = bool(unbiased)
        check_activation(activation)
        self.activation = activation
        self.running_mean = np.zeros(self.num_features, self.dtype)
        self.running_var = np.ones(self.num_features, self.dtype)
        self.num_batches_tracked = 0

    def forward(self, x: ArrayLike, *, residual: ArrayLike | None = None, out: Array | None = None) -> Array:
        """Normalize with the statistics of the batch in training, with the running ones in evaluation."""
        x = as_array("x", x)
        residual = None if residual is None else as_array("residual", residual)
        shared: dict[str, Any] = {"axis": self.axis, "eps": self.eps, "activation": self.activation, "residual": residual, "out": out}
        if not self.training:
            y = batch_norm(x, self.running_mean, self.running_var, self.gamma, self.beta, **shared)
            rstd = 1.0 / np.sqrt(self.running_var.astype(np.float64) + self.eps)
            self._saved = (x, self.running_mean.astype(np.float64), rstd, residual, False)
            return y
        momentum = 1.0 / (self.num_batches_tracked + 1) if self.momentum is None else self.momentum
        y, mean, rstd = batch_norm_train(
            x, self.gamma, self.beta, running_mean=self.running_mean, running_var=self.running_var,
            momentum=momentum, unbiased=self.unbiased, **shared,
        )  # fmt: skip
        if x.size:
            self.num_batches_tracked += 1
        self._saved = (x, mean, rstd, residual, True)
        return y

    def backward(self, dy: ArrayLike, *, out: Any = None) -> Any:
        """Gradient of x for the last forward pass; with a residual the pair (dx, dresidual).

        The input of that pass must not have been overwritten.

        Raises
        ------
        RuntimeError
            Before any forward pass.
        """
        x, mean, rstd, residual, training = self._remembered()
        gradients: Any = batch_norm_backward(
            dy, x, mean, rstd, self.gamma, axis=self.axis, training=training, activation=self.activation,
            beta=self.beta, residual=residual, out=out,
        )  # fmt: skip
        self._keep_gradients(gradients.dgamma, gradients.dbeta)
        return gradients.dx if residual is None else (gradients.dx, gradients.dresidual)

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
            channel = normalize_axis(self.axis, array.ndim)
            if array.shape[channel] != self.num_features:
                raise ValueError(f"batch has {array.shape[channel]} channels but the layer has {self.num_features}")
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
