"""PyTorch's kernels with ``out=``.

`native_batch_norm.out` writes where it is told. `native_batch_norm_backward.out` computes into a fresh tensor and
copies it (2.13); it stands here because users reach for it, and `torch` (fresh, into warm memory) beside it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from bench import images
from bench.libraries.torch_tensors import array, tensor, vector
from bench.problems import Problem
from bench.providers import Prepared, Results, Setup

_aten = torch.ops.aten


def _only_out(fresh: bool) -> None:
    if fresh:
        raise ValueError("torch-out in a row with fresh outputs")


def _forward(p: Problem, weight: torch.Tensor | None, bias: torch.Tensor | None) -> Prepared:
    statistics = torch.empty(p.channels, dtype=vector(p, p.gamma).dtype)
    out, mean, rstd = tensor(p, p.out), statistics, statistics.clone()
    kernel = partial(_aten.native_batch_norm.out, tensor(p, p.x), weight, bias, None, None, True, 0.1, p.eps)

    def results(returned: Any) -> Results:
        return {"y": array(p, out), "mean": mean.numpy(), "rstd": rstd.numpy()}

    return Prepared(partial(kernel, out=out, save_mean=mean, save_invstd=rstd), results)


def train(p: Problem, fresh: bool) -> Prepared:
    _only_out(fresh)
    return _forward(p, vector(p, p.gamma), vector(p, p.beta))


def standardize(p: Problem, fresh: bool) -> Prepared:
    _only_out(fresh)
    return _forward(p, None, None)


def inference(p: Problem, fresh: bool) -> Prepared:
    _only_out(fresh)
    out, empty = tensor(p, p.out), torch.empty(0)
    parameters = [vector(p, v) for v in (p.gamma, p.beta, p.mean, p.var)]
    kernel = partial(_aten.native_batch_norm.out, tensor(p, p.x), *parameters, False, 0.1, p.eps)
    return Prepared(partial(kernel, out=out, save_mean=empty, save_invstd=empty.clone()), lambda _: {"y": array(p, out)})


def backward(p: Problem, fresh: bool) -> Prepared:
    _only_out(fresh)
    out, gamma = tensor(p, p.out), vector(p, p.gamma)
    dgamma, dbeta = torch.empty_like(gamma), torch.empty_like(gamma)
    inputs = (tensor(p, p.dy), tensor(p, p.x), gamma, None, None, vector(p, p.mean), vector(p, p.rstd), True, p.eps, [True] * 3)
    call = partial(_aten.native_batch_norm_backward.out, *inputs, out0=out, out1=dgamma, out2=dbeta)
    return Prepared(call, lambda _: {"dx": array(p, out), "dgamma": dgamma.numpy(), "dbeta": dbeta.numpy()})


def normalize_images(p: Problem, fresh: bool) -> Prepared:
    """In place, as torchvision's transforms: into the order of the channels first, then to float, divide, subtract, divide."""
    _only_out(fresh)
    x, out = torch.from_numpy(p.x).permute(0, 3, 1, 2), torch.from_numpy(p.out)
    mean, std = (torch.tensor(v).float().reshape(1, 3, 1, 1) for v in (images.MEAN, images.STD))
    return Prepared(lambda: out.copy_(x).div_(255).sub_(mean).div_(std), lambda _: {"y": p.out})


_FUNCTIONS = (train, standardize, inference, backward, normalize_images)
SETUPS: dict[str, Setup] = {f.__name__: f for f in _FUNCTIONS}
