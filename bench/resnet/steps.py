"""Steps of training: whole, and of the norm layers alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import fastnorm.torch
from bench.resnet.network import ResNet, fuse, norms

RATE, MOMENTUM = 0.005, 0.9
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ORIGINAL, OURS, FUSED = "torch", "fastnorm", "fused"


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor


def batches(n: int, size: int, side: int, classes: int, memory_format: Any, dtype: torch.dtype = torch.float32) -> list[Batch]:
    """Noise around one pattern per class, so that there is something to learn."""
    draw = torch.Generator().manual_seed(1)
    patterns = torch.randn(classes, 3, side, side, generator=draw, dtype=dtype)
    found = []
    for _ in range(n):
        labels = torch.randint(classes, (size,), generator=draw)
        images = 0.5 * patterns[labels] + torch.randn(size, 3, side, side, generator=draw, dtype=dtype)
        found.append(Batch(images.contiguous(memory_format=memory_format), labels))
    return found


def variants(make: Callable[[], ResNet], memory_format: Any) -> dict[str, nn.Module]:
    """The same initial network three times: as it is, with the norms of fastnorm, and with those that add and activate, too."""
    torch.manual_seed(0)
    original = make().to(memory_format=memory_format)
    ours = fastnorm.torch.convert(copy.deepcopy(original))
    return {ORIGINAL: original, OURS: ours, FUSED: fuse(copy.deepcopy(ours))}


class Trainer:
    """SGD with momentum."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)

    def step(self, batch: Batch) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.model(batch.images), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()


def losses(model: nn.Module, found: list[Batch]) -> list[float]:
    """Of one step per batch."""
    trainer = Trainer(model)
    return [trainer.step(batch) for batch in found]


def largest_difference(a: list[float], b: list[float]) -> float:
    """Relative."""
    return max(abs(x - y) / max(abs(x), abs(y)) for x, y in zip(a, b, strict=True))


def norm_calls(model: nn.Module, images: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Every norm with the input that it has in the network, as a leaf that wants its gradient."""
    found: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append((module, inputs[0].detach().clone().requires_grad_()))

    hooks = [module.register_forward_pre_hook(keep) for module in norms(model)]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


def norms_alone(calls: list[tuple[nn.Module, Tensor]], gradients: list[Tensor]) -> None:
    """Forward and backward of each."""
    for (module, x), dy in zip(calls, gradients, strict=True):
        torch.autograd.grad(module(x), [x, *module.parameters()], dy)


def gradients_like(calls: list[tuple[nn.Module, Tensor]]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(x.shape, generator=draw).contiguous(memory_format=_format(x)) for _, x in calls]


def _format(x: Tensor) -> Any:
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last
