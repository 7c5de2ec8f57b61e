"""Layers with state: parameters, gradients, running statistics."""

from fastnorm.state.batch_layers import BatchNorm, BatchRenorm
from fastnorm.state.group_layers import GroupNorm, InstanceNorm
from fastnorm.state.row_layers import LayerNorm, RMSNorm

__all__ = ["BatchNorm", "BatchRenorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"]
