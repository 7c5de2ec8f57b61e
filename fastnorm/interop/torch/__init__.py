"""Norms of PyTorch models on CPUs."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as absence:
    raise ImportError("fastnorm.torch needs PyTorch, which is not installed; pip install 'fastnorm[torch]'") from absence

from fastnorm.interop.torch.conversion import convert, revert
from fastnorm.interop.torch.functions import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from fastnorm.interop.torch.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "RMSNorm",
    "batch_norm",
    "convert",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "revert",
    "rms_norm",
]
