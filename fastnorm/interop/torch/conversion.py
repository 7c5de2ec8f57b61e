"""Models, converted in place: the norm modules change their class and keep everything else."""

from __future__ import annotations

from typing import Any

from torch import nn

from fastnorm.interop.torch import modules

_NAMES = (
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "LayerNorm", "RMSNorm", "GroupNorm",
)  # fmt: skip
_OURS = {getattr(nn, name): getattr(modules, name) for name in _NAMES}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def convert(model: Any) -> Any:
    """Let fastnorm compute the norms of a PyTorch model.

    Every module that is exactly a `torch.nn` BatchNorm, InstanceNorm, LayerNorm, RMSNorm or GroupNorm becomes the one of
    this name here: the same object, with its parameters, buffers, hooks and flags, in another class. Subclasses
    (SyncBatchNorm, lazy and parametrized modules, other people's) are left alone.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; may be a norm itself.

    Returns
    -------
    torch.nn.Module
        The same object.

    Raises
    ------
    TypeError
        If `model` is no module.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    >>> fastnorm.torch.convert(model) is model
    True
    >>> isinstance(model[1], fastnorm.torch.BatchNorm2d)
    True
    """
    return _swap(model, _OURS)


def revert(model: Any) -> Any:
    """Undo `convert`: fastnorm's modules become PyTorch's again, for torch.jit.script, torch.fx and for machines without fastnorm.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; may be a norm itself.

    Returns
    -------
    torch.nn.Module
        The same object.

    Raises
    ------
    TypeError
        If `model` is no module.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> fastnorm.torch.revert(fastnorm.torch.LayerNorm(8))
    LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=True)
    """
    return _swap(model, _THEIRS)


def _swap(model: Any, classes: dict[type, type]) -> Any:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}; pass the module whose norms are to change")
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
    return model
