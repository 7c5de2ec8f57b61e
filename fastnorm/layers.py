"""Layers with state: `BatchNorm`."""

from fastnorm.state.layers import BatchNorm

__all__ = ["BatchNorm"]
