"""`torch.nn`'s norm modules, computed by fastnorm: everything but `forward` is inherited."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastnorm.interop.torch import blocks, functions
from fastnorm.ops.door import check_activation


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        return functions.batch_norm(input, *self._arguments(input))

    def _arguments(self, input: Tensor) -> tuple[Any, ...]:
        """Of the function, behind its input; a batch is counted."""
        self._check_input_dim(input)
        updates = self.training and self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        batches = self.num_batches_tracked if updates else None  # a module looks for its attributes in Python: once each
        if batches is not None:
            batches.add_(1)
            if self.momentum is None:  # the cumulative average
                momentum = 1.0 / float(batches)
        mean, var = (self.running_mean, self.running_var) if updates or not self.training else (None, None)
        of_batch = self.training or (mean is None and var is None)
        return mean, var, self.weight, self.bias, of_batch, momentum, self.eps


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`: its arguments, state and numerics."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`: its arguments, state and numerics.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> layer = fastnorm.torch.BatchNorm2d(3)
    >>> layer(torch.randn(8, 3, 32, 32)).shape
    torch.Size([8, 3, 32, 32])
    """


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`: its arguments, state and numerics."""


class _BatchNormAct(_BatchNorm):
    activation: str | None

    def __init__(self, num_features: int, *arguments: Any, activation: str | None = "relu", **options: Any) -> None:
        check_activation(activation)
        super().__init__(num_features, *arguments, **options)
        self.activation = activation

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return blocks.batch_norm_act(input, *self._arguments(input), activation=self.activation, residual=residual)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation!r}"


class BatchNormAct1d(_BatchNormAct, nn.BatchNorm1d):
    """``activation(BatchNorm1d(input) + residual)`` in one pass: see `BatchNormAct2d`."""


class BatchNormAct2d(_BatchNormAct, nn.BatchNorm2d):
    """``activation(BatchNorm2d(input) + residual)`` in one pass over memory, and so its gradient.

    The arguments and the state of `torch.nn.BatchNorm2d`, and `activation`: one of "relu", "leaky_relu", "silu", "gelu",
    "gelu_tanh", None. `convert` and `revert` leave it alone.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> layer = fastnorm.torch.BatchNormAct2d(8, activation="relu")
    >>> x = torch.randn(4, 8, 16, 16)
    >>> bool((layer(x, x) >= 0).all())
    True
    """


class BatchNormAct3d(_BatchNormAct, nn.BatchNorm3d):
    """``activation(BatchNorm3d(input) + residual)`` in one pass: see `BatchNormAct2d`."""


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        of_input, momentum = self.training or not self.track_running_stats, 0.0 if self.momentum is None else self.momentum
        return functions.instance_norm(input, self.running_mean, self.running_var, self.weight, self.bias, of_input, momentum, self.eps)


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d`: its arguments, state and numerics."""


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d`: its arguments, state and numerics."""


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d`: its arguments, state and numerics."""


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm`: its arguments, state and numerics."""

    def forward(self, input: Tensor) -> Tensor:
        return functions.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm`: its arguments, state and numerics."""

    def forward(self, x: Tensor) -> Tensor:
        return functions.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`: its arguments, state and numerics."""

    def forward(self, input: Tensor) -> Tensor:
        return functions.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


# What a pickle names.
for _module in (
    BatchNorm1d, BatchNorm2d, BatchNorm3d, BatchNormAct1d, BatchNormAct2d, BatchNormAct3d,
    InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, LayerNorm, RMSNorm, GroupNorm,
):  # fmt: skip
    _module.__module__ = "fastnorm.torch"
