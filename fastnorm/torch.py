"""PyTorch on CPUs: functions and modules with PyTorch's signatures, and whole models converted."""

from fastnorm.interop.torch import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
    batch_norm,
    convert,
    group_norm,
    instance_norm,
    layer_norm,
    revert,
    rms_norm,
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
