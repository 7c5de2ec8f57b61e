"""What each norm is to the library and to PyTorch: forward and backward on arrays, and PyTorch's own function on tensors."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastnorm.interop.torch.tensors import as_array, optional_array
from fastnorm.ops.batch import batch_norm, batch_norm_train
from fastnorm.ops.batch_backward import batch_norm_backward
from fastnorm.ops.door import RunningPair
from fastnorm.ops.group import group_norm, group_norm_backward, instance_norm, instance_norm_backward
from fastnorm.ops.layer import layer_norm, layer_norm_backward
from fastnorm.ops.rms import rms_norm, rms_norm_backward

Array = NDArray[Any]
Statistics = tuple[Any, Any]
Gradients = tuple[Array, Array | None]
"""Of weight and bias."""


def update_running(
    running_mean: Array | None, running_var: Array | None, mean: Array, rstd: Array, eps: float, momentum: float, count: int
) -> None:
    """In place. mean, rstd : (C,) or (N, C) of `count` elements each; running statistics receive the mean over the samples."""
    # The variance itself is not returned; what is lost is relative to var + eps, 2**-52 of it.
    var = np.maximum(1.0 / rstd**2 - eps, 0.0)
    if mean.ndim == 2:
        mean, var = mean.mean(axis=0), var.mean(axis=0)
    RunningPair(running_mean, running_var, momentum, unbiased=True).update(mean, var, count)


class Norm(Protocol):
    """`axis` is that of the channels, 1 or -1; norms that are not channelwise ignore it.

    Of running statistics that backward reads again, `read_again` tells: who changes them in between is told so, as by PyTorch.
    """

    @property
    def channelwise(self) -> bool: ...

    def forward(self, x: Array, gamma: Array | None, beta: Array | None, axis: int, out: Array) -> Statistics:
        """Write y; mean and rstd for backward."""

    def backward(self, dy: Array, x: Array, statistics: Statistics, gamma: Array | None, axis: int, out: Array) -> Gradients:
        """Write dx."""

    def original(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """PyTorch's own function, without an update of running statistics: for derivatives of the backward pass."""


class BatchNorm(NamedTuple):
    """With the statistics of the batch."""

    eps: float
    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    channelwise: bool = True

    def forward(
        self, x: Array, gamma: Array | None, beta: Array | None, axis: int, out: Array, activation: str | None = None, residual: Any = None
    ) -> Statistics:
        result = batch_norm_train(
            x,
            gamma,
            beta,
            axis=axis,
            eps=self.eps,
            activation=activation,
            residual=residual,
            running_mean=optional_array(self.running_mean),
            running_var=optional_array(self.running_var),
            momentum=self.momentum,
            out=out,
        )
        return result.mean, result.rstd

    def backward(
        self, dy: Array, x: Array, statistics: Statistics, gamma: Array | None, axis: int, out: Any, activation: str | None = None,
        beta: Array | None = None, residual: Array | None = None,
    ) -> Gradients:  # fmt: skip
        """With an activation also the residual's gradient, if out is a pair."""
        return batch_norm_backward(
            dy, x, *statistics, gamma, axis=axis, activation=activation, beta=beta, residual=residual, out=out
        )[1:3]  # fmt: skip

    def original(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)


class FixedBatchNorm(NamedTuple):
    """With running statistics, which backward reads again, as PyTorch does."""

    eps: float
    running_mean: Tensor
    running_var: Tensor
    channelwise: bool = True

    def forward(
        self, x: Array, gamma: Array | None, beta: Array | None, axis: int, out: Array, activation: str | None = None, residual: Any = None
    ) -> Statistics:
        given, block = (as_array(self.running_mean), as_array(self.running_var)), {"activation": activation, "residual": residual}
        batch_norm(x, *given, gamma, beta, axis=axis, eps=self.eps, out=out, **block)
        return None, None

    def backward(
        self, dy: Array, x: Array, statistics: Statistics, gamma: Array | None, axis: int, out: Any, activation: str | None = None,
        beta: Array | None = None, residual: Array | None = None,
    ) -> Gradients:  # fmt: skip
        mean, var = (as_array(running).astype(np.float64) for running in (self.running_mean, self.running_var))
        rstd = 1.0 / np.sqrt(var + self.eps)
        return batch_norm_backward(
            dy, x, mean, rstd, gamma, axis=axis, training=False, activation=activation, beta=beta, residual=residual, out=out
        )[1:3]  # fmt: skip

    def original(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, weight, bias, False, 0.0, self.eps)


def read_again(norm: Any) -> tuple[Tensor, ...]:
    return (norm.running_mean, norm.running_var) if type(norm) is FixedBatchNorm else ()


class InstanceNorm(NamedTuple):
    """Running statistics receive the mean over the samples of those of the instances."""

    eps: float
    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    channelwise: bool = True

    def forward(self, x: Array, gamma: Array | None, beta: Array | None, axis: int, out: Array) -> Statistics:
        _, mean, rstd = instance_norm(x, gamma, beta, axis=axis, eps=self.eps, return_stats=True, out=out)
        if self.running_mean is not None or self.running_var is not None:
            running = optional_array(self.running_mean), optional_array(self.running_var)
            update_running(*running, mean, rstd, self.eps, self.momentum, x.size // mean.size)
        return mean, rstd

    def backward(self, dy: Array, x: Array, statistics: Statistics, gamma: Array | None, axis: int, out: Array) -> Gradients:
        return instance_norm_backward(dy, x, *statistics, gamma, axis=axis, out=out)[1:3]

    def original(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.instance_norm(x, weight=weight, bias=bias, eps=self.eps)


class GroupNorm(NamedTuple):
    eps: float
    num_groups: int
    channelwise: bool = True

    def forward(self, x: Array, gamma: Array | None, beta: Array | None, axis: int, out: Array) -> Statistics:
        result = group_norm(x, self.num_groups, gamma, beta, axis=axis, eps=self.eps, return_stats=True, out=out)
        return result.mean, result.rstd

    def backward(self, dy: Array, x: Array, statistics: Statistics, gamma: Array | None, axis: int, out: Array) -> Gradients:
        return group_norm_backward(dy, x, self.num_groups, *statistics, gamma, axis=axis, out=out)[1:3]

    def original(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.group_norm(x, self.num_groups, weight, bias, self.eps)


class LayerNorm(NamedTuple):
    eps: float
    shape: tuple[int, ...]
    channelwise: bool = False

    def forward(self, x: Array, gamma: Array | None, beta: Array | None, axis: int, out: Array) -> Statistics:
        result = layer_norm(x, gamma, beta, axis=_last(self.shape), eps=self.eps, return_stats=True, out=out)
        return result.mean, result.rstd

    def backward(self, dy: Array, x: Array, statistics: Statistics, gamma: Array | None, axis: int, out: Array) -> Gradients:
        return layer_norm_backward(dy, x, *statistics, gamma, axis=_last(self.shape), out=out)[1:3]

    def original(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.layer_norm(x, self.shape, weight, bias, self.eps)


class RMSNorm(NamedTuple):
    eps: float
    shape: tuple[int, ...]
    channelwise: bool = False

    def forward(self, x: Array, gamma: Array | None, beta: Array | None, axis: int, out: Array) -> Statistics:
        return None, rms_norm(x, gamma, axis=_last(self.shape), eps=self.eps, return_stats=True, out=out).rstd

    def backward(self, dy: Array, x: Array, statistics: Statistics, gamma: Array | None, axis: int, out: Array) -> Gradients:
        return rms_norm_backward(dy, x, statistics[1], gamma, axis=_last(self.shape), out=out).dgamma, None

    def original(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.rms_norm(x, self.shape, weight, self.eps)


def _last(shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """Axes of this shape at the end; of one axis its number, as most callers of the library write it."""
    return -1 if len(shape) == 1 else tuple(range(-len(shape), 0))
