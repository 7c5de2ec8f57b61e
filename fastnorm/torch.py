"""PyTorch on CPUs: functions and modules with PyTorch's signatures, and whole models converted.

What fastnorm cannot compute goes to PyTorch's own function: other devices, meta and fake tensors, tensor subclasses, empty
tensors, torch.func, forward-mode derivatives, torch.jit.trace, torch.export, and every call that PyTorch refuses, with its
error. torch.compile keeps the norms in its graph as operators. torch.jit.script and torch.fx read source code: `revert` first.

PyTorch and fastnorm have a pool of threads each, which take turns; `fastnorm.set_num_threads` sets the number of fastnorm's.
"""

from fastnorm.interop.torch.blocks import batch_norm_act
from fastnorm.interop.torch.conversion import convert, revert
from fastnorm.interop.torch.functions import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from fastnorm.interop.torch.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchNormAct1d,
    BatchNormAct2d,
    BatchNormAct3d,
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
    "BatchNormAct1d",
    "BatchNormAct2d",
    "BatchNormAct3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "RMSNorm",
    "batch_norm",
    "batch_norm_act",
    "convert",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "revert",
    "rms_norm",
]
