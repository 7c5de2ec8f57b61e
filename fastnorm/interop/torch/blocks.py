"""Batch norm with what follows it in a residual network: the addition of a shortcut and an activation, in the same pass over memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnorm.interop.torch import functions, norms
from fastnorm.interop.torch.autograd import by_pytorch, contiguous_as, wants_gradients
from fastnorm.interop.torch.team import dealt
from fastnorm.interop.torch.tensors import (
    as_array,
    as_tensor,
    can_run,
    computable,
    empty_like,
    format_of,
    have_shape,
    is_number,
    optional_array,
    present,
)
from fastnorm.ops.door import check_activation

ACTIVATIONS: dict[str | None, Any] = {
    None: lambda z: z,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}
"""PyTorch's own, of the names that fastnorm has for them."""


def batch_norm_act(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = "relu",
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(batch_norm(input) + residual)``, forward and backward in one pass over memory each.

    Parameters
    ----------
    input, running_mean, running_var, weight, bias, training, momentum, eps
        As in `batch_norm`.
    activation : {"relu", None, "leaky_relu", "silu", "gelu", "gelu_tanh"}
        "leaky_relu" has a slope of 0.01, "gelu" is exact.
    residual : Tensor like input, optional
        Added before the activation. (Of another shape or dtype it is what PyTorch's addition makes of it.)

    Returns
    -------
    Tensor like input
        Of its memory format.

    Raises
    ------
    ValueError, RuntimeError
        If there is no such activation; PyTorch's, for arguments that it does not accept.

    Notes
    -----
    Saved for backward are input and residual, no output and no mask: the argument of the activation is computed again.
    Source: He, Zhang, Ren, Sun 2016, figure 2; Ioffe, Szegedy 2015, algorithm 1.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    >>> fastnorm.torch.batch_norm_act(x, None, None, training=True, eps=1e-12, residual=torch.ones(2, 2))
    tensor([[0., 0.],
            [2., 2.]])
    """
    check_activation(activation)
    norm = _norm_of(input, running_mean, running_var, weight, bias, residual, training, momentum, eps)
    if norm is None:
        y = functions.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        return ACTIVATIONS[activation](y if residual is None else y + residual)  # type: ignore[no-any-return]
    if wants_gradients(input, weight, bias, residual):
        return _Block.apply(norm, activation, input, residual, weight, bias)  # type: ignore[no-any-return]
    return _forward(norm, activation, input, residual, weight, bias)[0]


def _norm_of(
    x: Any, mean: Tensor | None, var: Tensor | None, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> norms.BatchNorm | norms.FixedBatchNorm | None:  # fmt: skip
    """None where PyTorch's operations do the work, one by one; torch.compile fuses them by itself."""
    if torch.compiler.is_compiling() or not computable(x, weight, bias, mean, var) or x.dim() < 2:
        return None
    if residual is not None and not (computable(residual) and residual.dtype is x.dtype and residual.shape == x.shape):
        return None
    channels = x.shape[1]
    if not (have_shape((channels,), weight, bias, mean, var) and can_run(mean, var) and is_number(eps, 0.0)):
        return None
    if training is False:
        return None if mean is None or var is None else norms.FixedBatchNorm(eps, mean, var)
    trains = training is True and x.numel() > channels and eps > 0 and is_number(momentum, 0.0, 1.0)
    return norms.BatchNorm(eps, mean, var, momentum) if trains else None


def _forward(
    norm: Any, activation: str | None, x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Any]:
    memory_format = format_of(x)
    y = empty_like(x, memory_format)
    source, axis = present(x, memory_format)
    target, _ = present(y, memory_format)
    extra = None if residual is None else present(contiguous_as(residual, memory_format), memory_format)[0]
    arrays = (source, optional_array(weight), optional_array(bias), axis, target)
    return y, dealt(norm.forward, *arrays, activation, extra)


def _backward(norm: Any, activation: str | None, dy: Tensor, inputs: Any, statistics: Any) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Of x, the residual, weight and bias."""
    x, residual, weight, bias = inputs
    memory_format = format_of(x)
    grad, axis = present(contiguous_as(dy, memory_format), memory_format)
    source, _ = present(x, memory_format)
    dx = empty_like(x, memory_format)
    target: Any = present(dx, memory_format)[0]
    dresidual, extra = None, None
    if residual is not None and activation is None:
        dresidual = dy  # of a plain sum
    elif residual is not None:
        extra = present(contiguous_as(residual, memory_format), memory_format)[0]
        dresidual = empty_like(x, memory_format)
        target = target, present(dresidual, memory_format)[0]
    beta = None if bias is None else as_array(bias)
    dgamma, dbeta = dealt(norm.backward, grad, source, statistics, optional_array(weight), axis, target, activation, beta, extra)
    return dx, dresidual, as_tensor(dgamma), as_tensor(dbeta)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, norm: Any, activation: str | None, x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        y, ctx.statistics = _forward(norm, activation, x, residual, weight, bias)
        ctx.norm, ctx.activation = norm, activation
        ctx.save_for_backward(x, residual, weight, bias, *norms.read_again(norm))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        inputs = ctx.saved_tensors[:4]
        if by_pytorch(dy):
            return None, None, *_differentiable(ctx.norm, ctx.activation, dy, inputs, wanted)
        found = _backward(ctx.norm, ctx.activation, dy, inputs, ctx.statistics)
        return None, None, *(g if wants else None for g, wants in zip(found, wanted, strict=True))


def _differentiable(norm: Any, activation: str | None, dy: Tensor, inputs: Any, wanted: tuple[bool, ...]) -> list[Tensor | None]:
    """As `autograd.differentiable`, of the whole block."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        x, residual, weight, bias = (None if t is None else t.view_as(t) for t in inputs)
        y = norm.original(x, weight, bias)
        z = ACTIVATIONS[activation](y if residual is None else y + residual)
    asked = [t for t, wants in zip((x, residual, weight, bias), wanted, strict=True) if wants]
    found = iter(torch.autograd.grad(z, asked, dy, create_graph=again))  # type: ignore[arg-type]
    return [next(found) if wants else None for wants in wanted]
