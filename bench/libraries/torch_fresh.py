"""PyTorch's functions that return new tensors; in a row with ``out=`` the allocator keeps that memory warm.

Most of the family has no kernel behind its ``out=``: `native_layer_norm.out` computes fresh and copies.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import torch
from torch.nn import functional

from bench import images
from bench.libraries import averages
from bench.libraries.torch_tensors import array, tensor, vector
from bench.problems import Problem
from bench.providers import Prepared, Results, Setup

_aten = torch.ops.aten


def _y(p: Problem, call: Any) -> Prepared:
    return Prepared(call, lambda y: {"y": array(p, y)})


def _gradients(p: Problem, returned: Any) -> Results:
    names = ("dx", "dgamma", "dbeta")
    return {name: array(p, g) if name == "dx" else g.numpy() for name, g in zip(names, returned, strict=False)}


def train(p: Problem, fresh: bool) -> Prepared:
    weight, bias = vector(p, p.gamma), vector(p, p.beta)
    return _y(p, partial(functional.batch_norm, tensor(p, p.x), None, None, weight, bias, training=True, eps=p.eps))


def standardize(p: Problem, fresh: bool) -> Prepared:
    """`functional.batch_norm` refuses eps = 0."""
    call = partial(_aten.native_batch_norm, tensor(p, p.x), None, None, None, None, True, 0.1, p.eps)
    return Prepared(call, lambda returned: {"y": array(p, returned[0])})


def inference(p: Problem, fresh: bool) -> Prepared:
    mean, var, gamma, beta = (vector(p, v) for v in (p.mean, p.var, p.gamma, p.beta))
    return _y(p, partial(functional.batch_norm, tensor(p, p.x), mean, var, gamma, beta, eps=p.eps))


def backward(p: Problem, fresh: bool) -> Prepared:
    statistics = (vector(p, p.mean), vector(p, p.rstd))
    inputs = (tensor(p, p.dy), tensor(p, p.x), vector(p, p.gamma), None, None, *statistics, True, p.eps, [True] * 3)
    return Prepared(partial(_aten.native_batch_norm_backward, *inputs), partial(_gradients, p))


def mean_var(p: Problem, fresh: bool) -> Prepared:
    axes = [0, *range(2, len(p.dims))]
    return Prepared(partial(torch.var_mean, tensor(p, p.x), axes, correction=0), lambda r: {"var": r[0].numpy(), "mean": r[1].numpy()})


def layer_norm(p: Problem, fresh: bool) -> Prepared:
    return _y(p, partial(functional.layer_norm, tensor(p, p.x), (p.channels,), vector(p, p.gamma), vector(p, p.beta), p.eps))


def layer_norm_backward(p: Problem, fresh: bool) -> Prepared:
    mean, rstd = vector(p, p.mean)[:, None], vector(p, p.rstd)[:, None]
    inputs = (tensor(p, p.dy), tensor(p, p.x), [p.channels], mean, rstd, vector(p, p.gamma), vector(p, p.beta), [True] * 3)
    return Prepared(partial(_aten.native_layer_norm_backward, *inputs), partial(_gradients, p))


def rms_norm(p: Problem, fresh: bool) -> Prepared:
    return _y(p, partial(functional.rms_norm, tensor(p, p.x), (p.channels,), vector(p, p.gamma), p.eps))


def rms_norm_backward(p: Problem, fresh: bool) -> Prepared:
    """Through autograd: it has no native backward on CPUs."""
    x, gamma, dy = tensor(p, p.x).requires_grad_(), vector(p, p.gamma).requires_grad_(), tensor(p, p.dy)
    with torch.enable_grad():
        y = functional.rms_norm(x, (p.channels,), gamma, p.eps)
    return Prepared(partial(torch.autograd.grad, y, (x, gamma), dy, retain_graph=True), partial(_gradients, p))


def add_layer_norm(p: Problem, fresh: bool) -> Prepared:
    x, residual, gamma, beta = tensor(p, p.x), tensor(p, p.residual), vector(p, p.gamma), vector(p, p.beta)
    out = None if fresh else tensor(p, p.out_sum)
    return _y(p, lambda: functional.layer_norm(torch.add(x, residual, out=out), (p.channels,), gamma, beta, p.eps))


def group_norm(p: Problem, fresh: bool) -> Prepared:
    return _y(p, partial(functional.group_norm, tensor(p, p.x), p.groups, vector(p, p.gamma), vector(p, p.beta), p.eps))


def instance_norm(p: Problem, fresh: bool) -> Prepared:
    return _y(p, partial(functional.instance_norm, tensor(p, p.x), weight=vector(p, p.gamma), bias=vector(p, p.beta), eps=p.eps))


def group_norm_backward(p: Problem, fresh: bool) -> Prepared:
    """Instance norm too: PyTorch's own has no native backward, groups of one channel have."""
    n, c, *space = p.dims
    statistics = (vector(p, p.mean), vector(p, p.rstd))
    inputs = (tensor(p, p.dy), tensor(p, p.x), *statistics, vector(p, p.gamma), n, c, prod(space), p.groups, [True] * 3)
    return Prepared(partial(_aten.native_group_norm_backward, *inputs), partial(_gradients, p))


def normalize_images(p: Problem, fresh: bool) -> Prepared:
    """As one writes it down: to float, divide, subtract, divide, turn."""
    x, mean, std = torch.from_numpy(p.x), torch.tensor(images.MEAN).float(), torch.tensor(images.STD).float()
    call = lambda: ((x.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()  # noqa: E731
    return Prepared(call, lambda y: {"y": y.numpy()})


def _mean(x: torch.Tensor, axis: int | None) -> torch.Tensor:
    return torch.mean(x, axis)


def _var(x: torch.Tensor, axis: int | None) -> torch.Tensor:
    return torch.var(x, axis, correction=0)


_AVERAGES = {"mean": averages.setup(_mean, torch.from_numpy), "var": averages.setup(_var, torch.from_numpy)}
_FUNCTIONS = (train, standardize, inference, backward, mean_var, layer_norm, layer_norm_backward, normalize_images)
_FAMILY = (rms_norm, rms_norm_backward, add_layer_norm, group_norm, instance_norm, group_norm_backward)
SETUPS: dict[str, Setup] = {f.__name__: f for f in _FUNCTIONS + _FAMILY} | {"instance_norm_backward": group_norm_backward} | _AVERAGES
