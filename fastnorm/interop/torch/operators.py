"""The norms as operators of PyTorch, which torch.compile keeps in its graph as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnorm.interop.torch import norms
from fastnorm.interop.torch.autograd import backward, forward
from fastnorm.interop.torch.norms import Norm
from fastnorm.interop.torch.tensors import as_array, as_tensor, empty_like, format_of, optional_array

_NORM = "Tensor? running_mean, Tensor? running_var, str kind, float eps, SymInt[] sizes"


def run(norm: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """As `autograd.run`, traced by torch.compile."""
    kind, running, sizes = type(norm).__name__, (None, None), []
    if isinstance(norm, norms.FixedBatchNorm):
        running = (norm.running_mean, norm.running_var)
    elif isinstance(norm, norms.GroupNorm):
        sizes = [norm.num_groups]
    elif isinstance(norm, norms.LayerNorm | norms.RMSNorm):
        sizes = list(norm.shape)
    y, mean, rstd = normalize(x, weight, bias, *running, kind, norm.eps, sizes)
    if isinstance(norm, norms.BatchNorm | norms.InstanceNorm) and (norm.running_mean is not None or norm.running_var is not None):
        update_running(norm.running_mean, norm.running_var, mean, rstd, norm.eps, norm.momentum, x.numel() // mean.numel())
    result: Tensor = y
    return result


def _norm(running_mean: Tensor | None, running_var: Tensor | None, kind: str, eps: float, sizes: list[int]) -> Norm:
    if kind == "FixedBatchNorm":
        assert running_mean is not None
        assert running_var is not None
        return norms.FixedBatchNorm(eps, running_mean, running_var)
    if kind == "BatchNorm":
        return norms.BatchNorm(eps, None, None, 0.1)
    if kind == "InstanceNorm":
        return norms.InstanceNorm(eps, None, None, 0.1)
    if kind == "GroupNorm":
        return norms.GroupNorm(eps, sizes[0])
    return norms.LayerNorm(eps, tuple(sizes)) if kind == "LayerNorm" else norms.RMSNorm(eps, tuple(sizes))


def _statistic_shapes(x: Tensor, kind: str, sizes: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of mean and rstd."""
    if kind == "FixedBatchNorm":
        return (0,), (0,)
    if kind in ("LayerNorm", "RMSNorm"):
        kept = tuple(x.shape[: x.dim() - len(sizes)])
        return kept if kind == "LayerNorm" else (0,), kept
    channels = x.shape[1]
    shape = {"BatchNorm": (channels,), "InstanceNorm": (x.shape[0], channels), "GroupNorm": (x.shape[0], *sizes)}[kind]
    return shape, shape


def _statistic(values: Any, like: Tensor) -> Tensor:
    return like.new_empty((0,), dtype=torch.float64) if values is None else as_tensor(values)


@torch.library.custom_op(
    "fastnorm::normalize", mutates_args=(), schema=f"(Tensor x, Tensor? weight, Tensor? bias, {_NORM}) -> (Tensor, Tensor, Tensor)"
)
def normalize(x: Tensor, weight: Tensor | None, bias: Tensor | None, *norm: Any) -> tuple[Tensor, Tensor, Tensor]:
    y, (mean, rstd) = forward(_norm(*norm), x, weight, bias)
    return y, _statistic(mean, x), _statistic(rstd, x)


@normalize.register_fake
def _(x: Tensor, weight: Tensor | None, bias: Tensor | None, *norm: Any) -> tuple[Tensor, ...]:
    _, _, kind, _, sizes = norm
    statistics = (x.new_empty(shape, dtype=torch.float64) for shape in _statistic_shapes(x, kind, sizes))
    return _like(x, kind), *statistics


def _like(x: Tensor, kind: str) -> Tensor:
    return empty_like(x, torch.contiguous_format if kind in ("LayerNorm", "RMSNorm") else format_of(x))


@torch.library.custom_op(
    "fastnorm::gradients",
    mutates_args=(),
    schema=f"(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, Tensor? bias, {_NORM}) -> (Tensor, Tensor, Tensor)",
)
def gradients(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, *norm: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = backward(_norm(*norm), dy, x, (as_array(mean), as_array(rstd)), weight)
    if dbias is None:
        dbias = dweight.new_empty((0,))
    return dx, dweight, dbias if bias is None else dbias.to(bias.dtype)


@gradients.register_fake
def _(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, *norm: Any
) -> tuple[Tensor, Tensor, Tensor]:
    _, _, kind, _, sizes = norm
    of_weight = torch.float64 if weight is None else weight.dtype
    shape = tuple(sizes) if kind in ("LayerNorm", "RMSNorm") else (x.shape[1],)
    dbias = x.new_empty((0,) if kind == "RMSNorm" else shape, dtype=of_weight if bias is None else bias.dtype)
    return _like(x, kind), x.new_empty(shape, dtype=of_weight), dbias


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, mean, var, *ctx.rest = inputs
    ctx.save_for_backward(x, *output[1:], weight, bias, mean, var)


def _differentiate(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    found = gradients(dy, *ctx.saved_tensors, *ctx.rest)
    return *(g if wants else None for g, wants in zip(found, ctx.needs_input_grad, strict=False)), None, None, None, None, None


normalize.register_autograd(_differentiate, setup_context=_save)


@torch.library.custom_op(
    "fastnorm::update_running",
    mutates_args=("running_mean", "running_var"),
    schema="(Tensor(a!)? running_mean, Tensor(b!)? running_var, Tensor mean, Tensor rstd, float eps, float momentum, SymInt count) -> ()",
)
def update_running(
    running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor, rstd: Tensor, eps: float, momentum: float, count: int
) -> None:
    norms.update_running(optional_array(running_mean), optional_array(running_var), as_array(mean), as_array(rstd), eps, momentum, count)


@update_running.register_fake
def _(*arguments: Any) -> None:
    return None
