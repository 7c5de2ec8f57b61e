"""A norm as a node of PyTorch's graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor, is_legacy_batchedtensor

from fastnorm.interop.torch.norms import Norm, Statistics, read_again
from fastnorm.interop.torch.team import dealt
from fastnorm.interop.torch.tensors import as_tensor, empty_like, format_of, optional_array, present


def run(norm: Norm, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The normalized tensor; a node of the graph only where somebody may ask for gradients."""
    if wants_gradients(x, weight, bias):
        result: Tensor = _Normalize.apply(norm, x, weight, bias)
        return result
    return forward(norm, x, weight, bias)[0]


def wants_gradients(*tensors: Tensor | None) -> bool:
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def contiguous_as(tensor: Tensor, memory_format: Any) -> Tensor:
    """A gradient of another format, or one number for all elements, is brought to that of y: as PyTorch does."""
    return tensor.contiguous(memory_format=memory_format)


def forward(norm: Norm, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Statistics]:
    memory_format = _format(norm, x)
    y = empty_like(x, memory_format)
    source, axis = present(x, memory_format)
    target, _ = present(y, memory_format)
    return y, dealt(norm.forward, source, optional_array(weight), optional_array(bias), axis, target)


def backward(norm: Norm, dy: Tensor, x: Tensor, statistics: Statistics, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """dx, and the gradients of weight and bias."""
    memory_format = _format(norm, x)
    dx = empty_like(x, memory_format)
    grad, axis = present(contiguous_as(dy, memory_format), memory_format)
    source, _ = present(x, memory_format)
    target, _ = present(dx, memory_format)
    dgamma, dbeta = dealt(norm.backward, grad, source, statistics, optional_array(weight), axis, target)
    return dx, as_tensor(dgamma), None if dbeta is None else as_tensor(dbeta)


def _format(norm: Norm, x: Tensor) -> Any:
    return format_of(x) if norm.channelwise else torch.contiguous_format


def by_pytorch(dy: Tensor) -> bool:
    """Whether a gradient is one that PyTorch's own backward has to take: to be differentiated again (``create_graph=True``), or many at
    once (``is_grads_batched=True``, ``vectorize=True``)."""
    return bool(torch.is_grad_enabled() or is_legacy_batchedtensor(dy) or is_batchedtensor(dy))


class _Normalize(torch.autograd.Function):
    """Saves x and the parameters, and mean and rstd, which are small. The engine brings gradients to the dtype of their tensor."""

    @staticmethod
    def forward(ctx: Any, norm: Norm, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        y, ctx.statistics = forward(norm, x, weight, bias)
        ctx.norm = norm
        ctx.save_for_backward(x, weight, bias, *read_again(norm))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors[:3]
        _, wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        if by_pytorch(dy):
            return (None, *_differentiable(ctx.norm, dy, (x, weight, bias), ctx.needs_input_grad[1:]))
        dx, dweight, dbias = backward(ctx.norm, dy, x, ctx.statistics, weight)
        return None, dx if wants_x else None, dweight if wants_weight else None, dbias if wants_bias else None


def _differentiable(norm: Norm, dy: Tensor, inputs: tuple[Tensor | None, ...], wanted: tuple[bool, ...]) -> list[Tensor | None]:
    """Gradients that can be differentiated again, for gradient penalties and the like: PyTorch's own backward."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: a weight that is itself computed from x must not add to the partial derivative by x.
        aliases = [None if t is None else t.view_as(t) for t in inputs]
        y = norm.original(*aliases)  # type: ignore[arg-type]
    found = iter(torch.autograd.grad(y, [t for t, wants in zip(aliases, wanted, strict=True) if wants], dy, create_graph=again))
    return [next(found) if wants else None for wants in wanted]
