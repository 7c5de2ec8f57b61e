"""Tensors as arrays over the same memory, and which tensors fastnorm computes with."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from fastnorm.plan.intake import is_bfloat16
from fastnorm.runtime import recycling

Array = NDArray[Any]

try:
    import ml_dtypes

    _BFLOAT16: Any = np.dtype(ml_dtypes.bfloat16)
except ModuleNotFoundError:
    _BFLOAT16 = None

# That memory is made of; bfloat16 gets its own dtype afterwards.
_NUMPY: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(np.uint16),
}
# By dtype of x: what parameters and running statistics may have, as in PyTorch.
_PARAMETERS = {torch.float32: {torch.float32}, torch.float64: {torch.float64}, torch.float16: {torch.float16, torch.float32}}
if _BFLOAT16 is not None:
    _PARAMETERS[torch.bfloat16] = {torch.bfloat16, torch.float32}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_MOVED = {4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
# Absent in other versions of PyTorch; then the transform's own error is what users see.
_is_exporting = getattr(torch.compiler, "is_exporting", bool)
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", bool)


def as_array(tensor: Tensor) -> Array:
    """The same memory; a copy only of the imaginary part of a conjugate, which PyTorch negates when it is read."""
    if tensor.dtype is torch.bfloat16:  # which NumPy has only by the name of ml_dtypes
        raw: Array = tensor.detach().view(torch.uint16).numpy()
        return raw.view(_BFLOAT16)
    plain: Array = tensor.numpy(force=True)  # a third faster than detach, resolve_neg and numpy one by one
    return plain


def optional_array(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else as_array(tensor)


def as_tensor(array: Array) -> Tensor:
    """The same memory."""
    if is_bfloat16(array.dtype):
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def format_of(x: Tensor) -> Any:
    """The memory format of what is computed from x: that of x; of strided x the one that it is nearest to, as in PyTorch."""
    last = _CHANNELS_LAST.get(x.dim())
    if last is None or x.is_contiguous():
        return torch.contiguous_format
    if x.is_contiguous(memory_format=last):
        return last
    return last if _has_channels_inside(x) else torch.contiguous_format


def _has_channels_inside(x: Tensor) -> bool:
    """Whether the steps grow from the channels over the last axis to the samples. PyTorch: c10/core/MemoryFormat.h."""
    channel_step = least = x.stride(1)
    if channel_step == 0:
        return False
    for axis in (1, *range(x.dim() - 1, 1, -1), 0):
        step = x.stride(axis)
        if step < least or (axis == 0 and least == channel_step):  # the latter: one pixel of one channel says nothing
            return False
        least = step * x.shape[axis]
    return True


def empty_like(x: Tensor, memory_format: Any) -> Tensor:
    """Exactly the strides of x where it has this format, also along axes of length 1, which tell a convolution its format."""
    exact = x.is_contiguous(memory_format=memory_format)
    if recycling.is_active() and x.nbytes >= recycling.SMALLEST:
        model = x if exact else torch.empty_like(x, memory_format=memory_format, device="meta")
        size = x.element_size()
        fresh = torch.from_numpy(recycling.empty(x.shape, _NUMPY[x.dtype], [size * step for step in model.stride()]))
        if fresh.dtype is x.dtype:
            return fresh
        # No view, which could not be changed in place as the result of an autograd function: ReLU(inplace=True) does so.
        return torch.empty(0, dtype=x.dtype).set_(fresh.untyped_storage(), 0, x.shape, model.stride())
    return torch.empty_like(x) if exact else torch.empty_like(x, memory_format=memory_format)


def present(x: Tensor, memory_format: Any) -> tuple[Array, int]:
    """An array with the channels where they lie in memory, and their axis: fastnorm is fastest on C-contiguous arrays."""
    if memory_format is torch.contiguous_format:
        return as_array(x), 1
    return as_array(x).transpose(_MOVED[x.dim()]), -1


def _is_watched() -> bool:
    """Whether PyTorch wants to see the operations themselves: torch.func, forward-mode derivatives, torch.jit.trace, torch.export."""
    if torch.compiler.is_compiling():
        return bool(_is_exporting())
    return bool(_transforms_active() or forward_ad._current_level >= 0 or torch.jit.is_tracing())


def computable(x: Tensor, *parameters: Tensor | None) -> bool:
    """Whether fastnorm computes with these; the rest goes to PyTorch's own function, for a result or for its error.

    Loops, not functions for each: between two convolutions no code is in cache, and these checks took 30 us.
    """
    if not isinstance(x, Tensor) or x.dtype not in _PARAMETERS:
        return False
    allowed, common = _PARAMETERS[x.dtype], None
    for tensor in (x, *parameters):
        if tensor is None:
            continue
        kind = type(tensor)
        # A subclass or a meta, fake, sparse or quantized tensor has no memory that may be read past PyTorch.
        if (kind is not Tensor and kind is not Parameter) or not tensor.is_cpu or tensor.layout is not torch.strided:
            return False
        if tensor is not x:
            if tensor.dtype not in allowed or (common is not None and tensor.dtype is not common):
                return False
            common = tensor.dtype
    return bool(x.numel()) and not _is_watched()


def have_shape(shape: tuple[int, ...], *parameters: Tensor | None) -> bool:
    for parameter in parameters:  # noqa: SIM110
        if parameter is not None and parameter.shape != shape:
            return False
    return True


def is_number(value: Any, least: float, most: float = sys.float_info.max) -> bool:
    """A number of Python's within bounds: what else PyTorch takes, infinity say, it also computes."""
    return isinstance(value, int | float) and least <= value <= most


def can_run(mean: Tensor | None, var: Tensor | None) -> bool:
    """Whether these are running statistics to PyTorch: both or neither, an element for each, and no gradients wanted of them."""
    if mean is None or var is None:
        return mean is var
    return not (mean.requires_grad or var.requires_grad or mean.stride(0) == 0 or var.stride(0) == 0)
