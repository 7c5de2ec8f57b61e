"""`fastnorm.torch.batch_norm_act`: an addition and an activation in the same pass. Skipped where PyTorch is not installed."""

from __future__ import annotations

import copy
import doctest
import io
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from checks_torch import LAYOUTS, draw, one_thread_of_pytorch, parameters  # noqa: E402, F401
from torch import Tensor, nn  # noqa: E402

import fastnorm.torch  # noqa: E402
from bench.resnet import network, steps  # noqa: E402
from fastnorm.interop.torch import blocks  # noqa: E402

SHAPE = (3, 4, 6, 5)
REFERENCE = {
    None: lambda z: z,
    "relu": torch.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "silu": lambda z: z * torch.sigmoid(z),
    "gelu": lambda z: 0.5 * z * (1 + torch.erf(z / 2**0.5)),
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
}


def inputs(layout: str = "contiguous", dtype: Any = torch.float64) -> list[Tensor]:
    """x, residual, weight, bias."""
    shapes = (SHAPE, SHAPE, (SHAPE[1],), (SHAPE[1],))
    made = [draw(shape, dtype, seed) for seed, shape in enumerate(shapes)]
    made[:2] = [LAYOUTS[layout](tensor) for tensor in made[:2]]
    return [tensor.detach().requires_grad_() for tensor in made]


def reference(activation: Any, x: Tensor, residual: Tensor | None, weight: Any, bias: Any, given: Any = None) -> Tensor:
    mean, var = given or (None, None)
    y = F.batch_norm(x, mean, var, weight, bias, given is None)
    return REFERENCE[activation](y if residual is None else y + residual)


def ours(activation: Any, x: Tensor, residual: Tensor | None, weight: Any, bias: Any, given: Any = None) -> Tensor:
    mean, var = given or (None, None)
    return fastnorm.torch.batch_norm_act(x, mean, var, weight, bias, given is None, activation=activation, residual=residual)


@pytest.fixture
def nothing_is_delegated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("went to PyTorch")

    monkeypatch.setattr(blocks.functions, "batch_norm", refuse)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", REFERENCE)
@pytest.mark.parametrize("fixed", [False, True])
def test_values_and_gradients(activation: Any, layout: str, fixed: bool, nothing_is_delegated: None) -> None:
    given = (draw((4,), seed=8), draw((4,), seed=9) ** 2 + 0.5) if fixed else None
    for without in (None, 1, 2, 3) if activation == "silu" else (None,):  # no residual, no weight, no bias
        chosen: list[Any] = inputs(layout)
        if without is not None:
            chosen[without] = None
        leaves = [tensor for tensor in chosen if tensor is not None]
        found, expected = ours(activation, *chosen, given), reference(activation, *chosen, given)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        dy = draw(SHAPE, seed=5)
        for a, b in zip(torch.autograd.grad(found, leaves, dy), torch.autograd.grad(expected, leaves, dy), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
def test_gradients_and_gradients_of_gradients_are_differences(activation: Any) -> None:
    leaves = inputs("channels last")
    assert torch.autograd.gradcheck(lambda *t: ours(activation, *t), leaves)
    assert torch.autograd.gradgradcheck(lambda *t: ours(activation, *t), leaves)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formats_and_narrow_types(memory_format: Any, dtype: Any, nothing_is_delegated: None) -> None:
    x, residual, weight, bias = inputs(dtype=dtype)
    x = x.detach().contiguous(memory_format=memory_format).requires_grad_()  # the residual keeps its format
    y = ours("relu", x, residual, weight, bias)
    assert y.is_contiguous(memory_format=memory_format)
    assert y.dtype is dtype
    expected = reference("relu", *(t.detach().double() for t in (x, residual, weight, bias)))
    torch.testing.assert_close(y.double(), expected, rtol=2**-8 if dtype is torch.bfloat16 else 1e-6, atol=1e-5)
    for tensor, gradient in zip((x, residual, weight), torch.autograd.grad(y.sum(), (x, residual, weight)), strict=True):
        assert gradient.dtype is tensor.dtype


def test_what_cannot_be_fused_is_computed_one_by_one() -> None:
    x, _, weight, bias = inputs(dtype=torch.float32)
    for residual in (draw((1, 4, 1, 1), torch.float32), draw(SHAPE, torch.float64)):
        found, expected = ours("relu", x, residual, weight, bias), reference("relu", x, residual, weight, bias)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert ours("relu", x.detach().to("meta"), None, None, None).shape == SHAPE
    compiled = torch.compile(lambda t: ours("relu", t, t, weight, bias), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), reference("relu", x, x, weight, bias), rtol=1e-5, atol=1e-5)


def test_modules_keep_state_as_pytorchs_do() -> None:
    module, twin = fastnorm.torch.BatchNormAct2d(4, momentum=None, activation="silu"), nn.BatchNorm2d(4, momentum=None)
    parameters(module)
    twin.load_state_dict(module.state_dict())
    for seed in range(3):
        x, residual = draw(SHAPE, torch.float32, seed), draw(SHAPE, torch.float32, seed + 10)
        torch.testing.assert_close(module(x, residual), F.silu(twin(x) + residual), rtol=1e-5, atol=1e-5)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        copied.eval()
        torch.testing.assert_close(copied(x), F.silu(twin.eval()(x)), rtol=1e-5, atol=1e-5)
        twin.train()
    assert "silu" in repr(module)
    assert type(fastnorm.torch.revert(fastnorm.torch.convert(module))) is fastnorm.torch.BatchNormAct2d


def test_an_activation_that_does_not_exist_is_an_error_before_anything_is_counted() -> None:
    with pytest.raises(ValueError, match=r"activation is 'swish' but must be None or one of relu"):
        fastnorm.torch.BatchNormAct1d(3, activation="swish")
    for junk in ("swish", ["relu"], 1):
        with pytest.raises(ValueError, match="activation is"):
            ours(junk, *inputs())


@pytest.mark.parametrize("name", steps.FORMATS)
def test_a_network_of_blocks_has_the_losses_of_pytorchs(name: str) -> None:
    models = steps.variants(lambda: network.ResNet(widths=(8, 16, 16, 24)).double(), steps.FORMATS[name])
    batches = steps.batches(3, 4, 32, 10, steps.FORMATS[name], torch.float64)
    expected = steps.losses(models[steps.ORIGINAL], batches)
    assert models[steps.FUSED].state_dict().keys() == models[steps.ORIGINAL].state_dict().keys()
    assert sum(isinstance(m, fastnorm.torch.BatchNormAct2d) for m in models[steps.FUSED].modules()) == 17
    assert steps.largest_difference(steps.losses(models[steps.FUSED], batches), expected) <= 1e-9


def test_examples_are_true() -> None:
    found = doctest.testmod(blocks)
    assert found.attempted > 0
    assert found.failed == 0
