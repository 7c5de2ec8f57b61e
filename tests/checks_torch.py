"""fastnorm.torch against `torch.nn` in float64: the same values, another implementation, and twice the digits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tolerance import HALF_ULP, PROMISED, assert_within
from torch import Tensor, nn

import fastnorm.torch

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Case(NamedTuple):
    """A module: its name, arguments and the shape of an input."""

    name: str
    arguments: tuple[Any, ...]
    shape: tuple[int, ...]
    options: dict[str, Any] = {}  # noqa: RUF012

    def ours(self, dtype: torch.dtype = torch.float32, **options: Any) -> nn.Module:
        return getattr(fastnorm.torch, self.name)(*self.arguments, **self.options, **options, dtype=dtype)

    def theirs(self, dtype: torch.dtype = torch.float64, **options: Any) -> nn.Module:
        return getattr(nn, self.name)(*self.arguments, **self.options, **options, dtype=dtype)


TRACKED = {"affine": True, "track_running_stats": True}
CASES = {
    "batch, samples x features": Case("BatchNorm1d", (5,), (9, 5)),
    "batch, NCL": Case("BatchNorm1d", (5,), (4, 5, 7)),
    "batch, NCHW": Case("BatchNorm2d", (5,), (3, 5, 6, 7)),
    "batch, NCDHW": Case("BatchNorm3d", (5,), (2, 5, 3, 4, 5)),
    "batch, without parameters": Case("BatchNorm2d", (5,), (3, 5, 6, 7), {"affine": False}),
    "batch, untracked": Case("BatchNorm2d", (5,), (3, 5, 6, 7), {"track_running_stats": False}),
    "batch, cumulative": Case("BatchNorm2d", (5,), (3, 5, 6, 7), {"momentum": None, "eps": 1e-3}),
    "instance, NCL": Case("InstanceNorm1d", (5,), (4, 5, 7)),
    "instance, NCHW": Case("InstanceNorm2d", (5,), (3, 5, 6, 7), {"affine": True}),
    "instance, NCDHW": Case("InstanceNorm3d", (5,), (2, 5, 3, 4, 5), TRACKED),
    "instance, tracked": Case("InstanceNorm2d", (5,), (3, 5, 6, 7), {**TRACKED, "momentum": 0.3}),
    "instance, one sample": Case("InstanceNorm2d", (5,), (5, 6, 7), TRACKED),
    "layer": Case("LayerNorm", (20,), (3, 4, 20)),
    "layer, two axes": Case("LayerNorm", ((4, 9),), (3, 2, 4, 9), {"eps": 1e-3}),
    "layer, without bias": Case("LayerNorm", (20,), (6, 20), {"bias": False}),
    "layer, without parameters": Case("LayerNorm", (20,), (6, 20), {"elementwise_affine": False}),
    "layer, vector": Case("LayerNorm", (20,), (20,)),
    "RMS": Case("RMSNorm", (20,), (3, 4, 20)),
    "RMS, two axes": Case("RMSNorm", ((4, 9),), (3, 2, 4, 9), {"eps": 1e-3}),
    "RMS, without parameters": Case("RMSNorm", (20,), (6, 20), {"elementwise_affine": False}),
    "group, NCHW": Case("GroupNorm", (3, 6), (3, 6, 5, 4)),
    "group, NCDHW": Case("GroupNorm", (2, 6), (2, 6, 3, 2, 4)),
    "group, samples x features": Case("GroupNorm", (2, 6), (7, 6)),
    "group, without parameters": Case("GroupNorm", (2, 6), (4, 6, 5), {"affine": False}),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread_of_pytorch() -> Iterator[None]:
    """The OpenMP threads of two test processes wait for each other busily on the same cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Mean 1 and standard deviation 2, as far as numbers of this dtype go."""
    return (1 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def channels_last(x: Tensor) -> Tensor:
    if x.dim() < 4:
        return x.transpose(-1, 1).contiguous().transpose(-1, 1) if x.dim() == 3 else x.t().contiguous().t()
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def every_second(x: Tensor) -> Tensor:
    return torch.stack([x, torch.full_like(x, 77)], -1)[..., 0]


LAYOUTS = {"contiguous": lambda x: x, "channels last": channels_last, "strided": every_second}


def parameters(module: nn.Module, seed: int = 5) -> None:
    """Numbers between 0.5 and 1.5 instead of ones and zeros."""
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter.copy_(0.5 + torch.rand(parameter.shape, generator=torch.Generator().manual_seed(seed + k)))


def as_double(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


class Step(NamedTuple):
    """Of one forward and backward pass."""

    y: Tensor
    dx: Tensor
    parameters: list[Tensor]


def step(module: nn.Module, x: Tensor, dy: Tensor) -> Step:
    x = x.detach().requires_grad_()
    y = module(x)
    dx, *rest = torch.autograd.grad(y, [x, *module.parameters()], dy.to(y.dtype))
    return Step(y, dx, rest)


def promise(dtype: torch.dtype) -> float:
    return PROMISED[np.dtype(np.float64 if dtype is torch.float64 else np.float32)]


def stored(expected: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """What rounding to 16 bits adds."""
    relative, absolute = HALF_ULP[str(dtype).removeprefix("torch.")]
    return (1 + 2.0**-7) * relative * np.abs(expected) + absolute


def compare(found: Step, exact: Step, x: Tensor, dy: Tensor) -> None:
    """Bounds as of the library, from the largest terms: |gamma| and |beta| are below 1.5, and `found.y` is not far from xhat."""
    unit = promise(x.dtype)
    y, dx = as_double(exact.y), as_double(exact.dx)
    assert_within(as_double(found.y), y, unit * (6 + np.abs(y)) + stored(y, found.y.dtype), "y")
    hat, grad = 2 + np.abs(y).max() / 0.5 + 1.5 / 0.5, np.abs(as_double(dy))
    # dx = gamma * rstd * (dy - mean(dy) - xhat * mean(dy * xhat)), and |dx| itself tells the size of gamma * rstd.
    scale = np.abs(dx).max() / max(np.abs(grad).min(), 0.05 * grad.max())
    assert_within(as_double(found.dx), dx, unit * (scale * grad.max() * (2 + hat) + np.abs(dx)) + stored(dx, found.dx.dtype), "dx")
    for ours, theirs in zip(found.parameters, exact.parameters, strict=True):
        value = as_double(theirs)
        assert_within(as_double(ours), value, unit * hat * grad.sum() + stored(value, ours.dtype), "gradient of a parameter")


def compare_buffers(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, found), (_, exact) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        value = as_double(exact)
        if name == "num_batches_tracked":
            assert int(found) == int(exact)
            continue
        bound = promise(found.dtype) * (1 + np.abs(value)) + stored(value, found.dtype)
        assert_within(as_double(found), value, bound, name)
