"""fastnorm.torch: functions and modules beside those of PyTorch. Skipped where PyTorch is not installed."""

from __future__ import annotations

import copy
import doctest
import importlib
import inspect
import io
import itertools
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from checks_torch import (  # noqa: E402
    CASES,
    DTYPES,
    LAYOUTS,
    Case,
    channels_last,
    compare,
    compare_buffers,
    draw,
    every_second,
    one_thread_of_pytorch,  # noqa: F401
    parameters,
    step,
)
from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import fastnorm.torch  # noqa: E402
from fastnorm.interop.torch import functions  # noqa: E402
from fastnorm.interop.torch.tensors import as_array, as_tensor  # noqa: E402

NAMES = ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm")
NEEDS_BFLOAT16 = "PyTorch itself computes where ml_dtypes is not installed"


@pytest.fixture
def nothing_is_delegated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this every test would pass with PyTorch's own functions."""
    monkeypatch.setattr(functions, "F", None)


def twins(case: Case, dtype: Any = torch.float32) -> tuple[nn.Module, nn.Module]:
    """Ours, and PyTorch's in float64 with the same numbers."""
    ours, theirs = case.ours(dtype), case.theirs()
    parameters(ours)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def check(case: Case, layout: Callable[[Tensor], Tensor], dtype: Any, parameter_dtype: Any) -> None:
    """Two batches in training, one in evaluation."""
    ours, theirs = twins(case, parameter_dtype)
    for seed, training in enumerate((True, True, False)):
        theirs.load_state_dict(ours.state_dict())  # rounded to 16 bits, they are other running statistics
        ours.train(training)
        theirs.train(training)
        x, dy = layout(draw(case.shape, dtype, seed)), layout(draw(case.shape, dtype, seed + 7))
        found, exact = step(ours, x, dy), step(theirs, x.double(), dy.double())
        assert found.y.dtype == found.dx.dtype == dtype
        assert [g.dtype for g in found.parameters] == [p.dtype for p in ours.parameters()]
        compare(found, exact, x, dy)
        compare_buffers(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_modules_compute_what_pytorchs_do(name: str, layout: str, nothing_is_delegated: None) -> None:
    check(CASES[name], LAYOUTS[layout], torch.float32, torch.float32)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["batch, NCHW", "instance, tracked", "group, NCHW", "layer", "RMS"])
def test_modules_compute_in_every_dtype(name: str, dtype: str, layout: str, nothing_is_delegated: None) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason=NEEDS_BFLOAT16)
    for parameter_dtype in {DTYPES[dtype], torch.float64 if dtype == "float64" else torch.float32}:
        check(CASES[name], LAYOUTS[layout], DTYPES[dtype], parameter_dtype)


@pytest.mark.parametrize("name", CASES)
def test_memory_formats_are_those_of_pytorch(name: str, nothing_is_delegated: None) -> None:
    """Users call `view` on outputs. One difference is on purpose: instance norm keeps channels_last."""
    case = CASES[name]

    def sliced(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 0)[::2]

    for layout in (*LAYOUTS.values(), sliced, lambda x: sliced(channels_last(x)), lambda x: x[:1].expand(x.shape)):
        x = layout(draw(case.shape, torch.float32))
        y, expected = case.ours()(x), case.theirs(torch.float32)(x)
        if case.name.startswith("Instance"):
            assert y.stride() in (expected.stride(), x.stride())
            assert y.stride() == x.stride() or layout is not channels_last or len(case.shape) < 4
        elif case.name.startswith("RMS") and not x.is_contiguous():
            assert y.is_contiguous()
        else:
            assert y.stride() == expected.stride()


def functional(name: str, shape: tuple[int, ...], running: tuple[Tensor, Tensor] | None = None) -> Callable[..., Tensor]:
    """(x, weight, bias) -> y, of a function of fastnorm.torch."""
    function = getattr(fastnorm.torch, name)
    if name == "batch_norm":
        return lambda x, w, b: function(x, *(running or (None, None)), w, b, running is None)
    if name == "instance_norm":
        return lambda x, w, b: function(x, weight=w, bias=b)
    if name == "group_norm":
        return lambda x, w, b: function(x, 2, w, b)
    return (lambda x, w, b: function(x, shape[-1:], w)) if name == "rms_norm" else lambda x, w, b: function(x, shape[-1:], w, b)


def leaves(name: str, shape: tuple[int, ...], layout: Callable[[Tensor], Tensor] = lambda x: x, dtype: Any = torch.float64) -> list[Tensor]:
    """x, weight and, except for RMS norm, bias."""
    of_parameters = shape[-1:] if name in ("layer_norm", "rms_norm") else shape[1:2]
    found = [layout(draw(shape, dtype)), draw(of_parameters, dtype, 1), draw(of_parameters, dtype, 2)]
    return [tensor.requires_grad_() for tensor in found[: 2 if name == "rms_norm" else 3]]


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("name", [*NAMES, "batch_norm, fixed"])
def test_gradients_and_gradients_of_gradients_are_differences(name: str, layout: str) -> None:
    shape, name, fixed = (2, 4, 3, 2), name.split(",")[0], "fixed" in name
    function = functional(name, shape, (draw((4,)), draw((4,)) ** 2) if fixed else None)
    inputs = leaves(name, shape, LAYOUTS[layout])
    call = function if len(inputs) == 3 else lambda x, w: function(x, w, None)
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_asked_for_is_returned(name: str, nothing_is_delegated: None) -> None:
    shape = (3, 4, 5)
    function, inputs = functional(name, shape), leaves(name, shape, dtype=torch.float32)
    full = torch.autograd.grad(function(*inputs, *[None] * (3 - len(inputs))).square().sum(), inputs)
    for chosen in itertools.product((False, True), repeat=len(inputs)):
        for tensor, wants in zip(inputs, chosen, strict=True):
            tensor.requires_grad_(wants)
        y = function(*inputs, *[None] * (3 - len(inputs)))
        assert y.requires_grad == any(chosen)
        if any(chosen):
            found = iter(torch.autograd.grad(y.square().sum(), [t for t in inputs if t.requires_grad]))
            assert all(torch.equal(next(found), gradient) for gradient, wants in zip(full, chosen, strict=True) if wants)


def test_a_weight_without_a_bias_and_a_bias_without_a_weight(nothing_is_delegated: None) -> None:
    x, weight, bias = leaves("batch_norm", (3, 4, 5), dtype=torch.float32)
    for w, b in ((weight, None), (None, bias)):
        chosen = [x, w if b is None else b]
        ours = torch.autograd.grad(fastnorm.torch.batch_norm(x, None, None, w, b, True).square().sum(), chosen)
        theirs = torch.autograd.grad(F.batch_norm(x, None, None, w, b, True).square().sum(), chosen)
        for found, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_weight_that_is_computed_from_the_input() -> None:
    """The second derivative takes the partial gradients, once."""

    def loss(module: Any, x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(module.layer_norm(x, (6,), x[0] * 2).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), x)[0]

    x = draw((5, 6)).requires_grad_()
    torch.testing.assert_close(loss(fastnorm.torch, x), loss(F, x))


@pytest.mark.parametrize("name", CASES)
def test_no_grad_and_inference_mode_give_the_same_bits(name: str, nothing_is_delegated: None) -> None:
    case = CASES[name]
    x = draw(case.shape, torch.float32)
    y = case.ours()(x.clone().requires_grad_())
    assert y.requires_grad
    with torch.no_grad():
        found = case.ours()(x)
    assert not found.requires_grad
    assert torch.equal(found, y)
    with torch.inference_mode():
        found = case.ours()(x)
    assert found.is_inference()
    assert torch.equal(found.clone(), y)


BAD: dict[str, Callable[[Any, Any], Any]] = {
    "one value per channel": lambda f, m: f.batch_norm(torch.ones(1, 3), None, None, training=True),
    "eps of 0 in training": lambda f, m: f.batch_norm(torch.ones(4, 3), None, None, training=True, eps=0.0),
    "no running statistics": lambda f, m: f.batch_norm(torch.ones(4, 3), None, None),
    "short weight": lambda f, m: f.batch_norm(torch.ones(4, 3), None, None, torch.ones(2), training=True),
    "short running mean": lambda f, m: f.batch_norm(torch.ones(4, 3), torch.ones(2), torch.ones(2)),
    "weight of another dtype": lambda f, m: f.layer_norm(torch.ones(4, 3), (3,), torch.ones(3).double()),
    "integers": lambda f, m: f.layer_norm(torch.ones(4, 3).int(), (3,)),
    "no tensor": lambda f, m: f.rms_norm([1.0, 2.0], (2,)),
    "normalized shape": lambda f, m: f.layer_norm(torch.ones(4, 3), (4,)),
    "no normalized shape": lambda f, m: f.rms_norm(torch.ones(4, 3), ()),
    "one value per instance": lambda f, m: f.instance_norm(torch.ones(4, 3, 1)),
    "number of groups": lambda f, m: f.group_norm(torch.ones(4, 3), 2),
    "one value per group": lambda f, m: f.group_norm(torch.ones(1, 3), 3),
    "dimensions of BatchNorm1d": lambda f, m: m.BatchNorm1d(3)(torch.ones(4, 3, 2, 2)),
    "dimensions of BatchNorm2d": lambda f, m: m.BatchNorm2d(3)(torch.ones(4, 3)),
    "dimensions of BatchNorm3d": lambda f, m: m.BatchNorm3d(3)(torch.ones(4, 3)),
    "dimensions of InstanceNorm2d": lambda f, m: m.InstanceNorm2d(3)(torch.ones(4, 3)),
    "channels of InstanceNorm1d": lambda f, m: m.InstanceNorm1d(3, affine=True)(torch.ones(4, 2, 5)),
    "one running statistic": lambda f, m: f.batch_norm(torch.ones(4, 3), torch.zeros(3), None, training=True),
    "one running statistic of instances": lambda f, m: f.instance_norm(torch.ones(4, 3, 2), None, torch.ones(3)),
    "running statistics with gradients": lambda f, m: f.batch_norm(torch.ones(4, 3), *torch.ones(2, 3, requires_grad=True), training=True),
    "expanded running statistics": lambda f, m: f.instance_norm(torch.ones(4, 3, 2), *(torch.ones(1).expand(3) for _ in range(2))),
    "training is a word": lambda f, m: f.batch_norm(torch.ones(4, 3), None, None, training="yes"),
    "use_input_stats is a word": lambda f, m: f.instance_norm(torch.ones(4, 3, 2), use_input_stats="yes"),
    "no momentum": lambda f, m: f.batch_norm(torch.ones(4, 3), None, None, training=True, momentum=None),
    "no eps": lambda f, m: f.layer_norm(torch.ones(4, 3), (3,), eps=None),
    "eps of groups is a word": lambda f, m: f.group_norm(torch.ones(4, 4), 2, eps="small"),
    "a float in the normalized shape": lambda f, m: f.layer_norm(torch.ones(4, 3), (3.0,)),
    "a truth in the normalized shape": lambda f, m: f.rms_norm(torch.ones(4, 1), (True,)),
    "one value, module": lambda f, m: m.BatchNorm1d(3)(torch.ones(1, 3)),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_are_pytorchs(name: str) -> None:
    with pytest.raises((ValueError, RuntimeError, TypeError, AttributeError)) as theirs:
        BAD[name](F, nn)
    with pytest.raises(theirs.type) as ours:
        BAD[name](fastnorm.torch, fastnorm.torch)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_infinite_eps_is_what_pytorch_makes_of_it(name: str) -> None:
    arguments: tuple[Any, ...] = {"group_norm": (2,), "batch_norm": (torch.zeros(4), torch.ones(4))}.get(name, ())
    arguments = ((3,),) if name in ("layer_norm", "rms_norm") else arguments
    x = draw((2, 4, 3), torch.float32)
    found, expected = (getattr(module, name)(x, *arguments, eps=float("inf")) for module in (fastnorm.torch, F))
    assert torch.equal(found, expected)


def test_one_value_per_channel_writes_nothing() -> None:
    mean, var = torch.zeros(3), torch.ones(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fastnorm.torch.batch_norm(torch.full((1, 3), 5.0), mean, var, training=True)
    assert torch.equal(mean, torch.zeros(3))
    assert torch.equal(var, torch.ones(3))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_pytorchs(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (fastnorm.torch, F))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own, of the rules of torch.func.jvp
def test_what_fastnorm_cannot_see_goes_to_pytorch() -> None:
    x = draw((4, 6), torch.float32)
    norm = lambda t: fastnorm.torch.layer_norm(t, (6,))  # noqa: E731
    theirs = lambda t: F.layer_norm(t, (6,))  # noqa: E731
    assert norm(x.to("meta")).device.type == "meta"
    assert norm(x[:0]).shape == (0, 6)
    assert type(norm(x.as_subclass(type("Mine", (torch.Tensor,), {})))).__name__ == "Mine"
    assert torch.equal(torch.func.vmap(norm)(x), torch.func.vmap(theirs)(x))
    derivative, expected = (torch.func.jvp(f, (x,), (x.roll(1),))[1] for f in (norm, theirs))
    assert torch.equal(derivative, expected)
    assert expected.abs().max() > 0.01
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x.roll(1))
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(norm(dual)).tangent, expected)


def test_a_negated_view_is_read_as_its_values() -> None:
    x = torch.conj(torch.complex(draw((4, 6), torch.float32), draw((4, 6), torch.float32, 1))).imag
    assert x.is_neg()
    torch.testing.assert_close(fastnorm.torch.layer_norm(x, (6,)), F.layer_norm(x, (6,)))


def test_autocast_leaves_norms_as_pytorch_does(nothing_is_delegated: None) -> None:
    """On CPUs no norm is in its lists: y has the dtype of x, whatever the parameters have."""
    pytest.importorskip("ml_dtypes", reason=NEEDS_BFLOAT16)
    model = nn.Sequential(nn.Linear(6, 8), fastnorm.torch.LayerNorm(8))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(draw((4, 6), torch.float32))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert model[1].weight.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_the_memory_of_tensors(dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason=NEEDS_BFLOAT16)
    tensor = draw((4, 6), DTYPES[dtype]).t()
    array = as_array(tensor)
    assert array.__array_interface__["data"][0] == tensor.data_ptr()
    assert array.dtype.name == dtype
    back = as_tensor(array)
    assert back.data_ptr() == tensor.data_ptr()
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)


class Operations(TorchDispatchMode):
    """The names of PyTorch's operations that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("name", ["batch, NCHW", "instance, tracked", "group, NCHW"])
def test_nothing_as_large_as_the_input_is_copied(name: str, layout: str, nothing_is_delegated: None) -> None:
    case = CASES[name]
    module, shape = case.ours(), (64, case.shape[1], 40, 40)
    x, dy = (LAYOUTS[layout](draw(shape, torch.float32, seed)).detach().requires_grad_(seed == 0) for seed in (0, 1))
    step(module, x, dy)
    with Operations() as made:
        y = module(x)
        torch.autograd.grad(y, [x, *module.parameters()], dy)
    assert made.names.count("empty_like") == 2
    assert set(made.names) <= {"empty_like", "detach", "permute", "add_", "lift_fresh"}
    tracemalloc.start()
    step(module, x, dy)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.1 * x.numel() * x.itemsize


def test_hooks_and_retained_graphs() -> None:
    module, seen = fastnorm.torch.BatchNorm2d(5), []
    module.register_forward_hook(lambda *_: seen.append("forward"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    module.weight.register_hook(lambda g: 2 * g)
    x = draw((3, 5, 4, 4), torch.float32).requires_grad_()
    y = module(x)
    first, second = (torch.autograd.grad(y.sum() + y.square().sum(), [x, module.weight], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert seen == ["forward", "backward", "backward"]


def test_an_input_that_changes_before_backward_is_an_error() -> None:
    x = draw((3, 6), torch.float32).requires_grad_()
    copied = x.clone()
    y = fastnorm.torch.layer_norm(copied, (6,))
    copied.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_act"])
def test_running_statistics_that_change_before_backward_are_an_error(name: str) -> None:
    x, running = draw((5, 4), torch.float32).requires_grad_(), (torch.zeros(4), torch.ones(4))
    y = getattr(fastnorm.torch, name)(x, *running)
    running[1].fill_(100.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_many_gradients_at_once() -> None:
    x, weight = draw((3, 6), torch.float64).requires_grad_(), draw((6,), torch.float64, 3).requires_grad_()
    many = draw((4, 3, 6), torch.float64, 5)
    calls: dict[str, Any] = {
        "layer": lambda f, x: f.layer_norm(x, (6,), weight),
        "batch": lambda f, x: f.batch_norm(x, None, None, weight, training=True),
        "block": lambda f, x: (
            F.relu(F.batch_norm(x, None, None, weight, None, True) + x)
            if f is F
            else f.batch_norm_act(x, None, None, weight, None, True, residual=x)
        ),
    }
    for name, call in calls.items():
        ours, theirs = (torch.autograd.grad(call(f, x), (x, weight), many, is_grads_batched=True) for f in (fastnorm.torch, F))
        torch.testing.assert_close(ours, theirs, msg=name)
        jacobians = (torch.autograd.functional.jacobian(lambda x, f=f, c=call: c(f, x), x, vectorize=True) for f in (fastnorm.torch, F))
        torch.testing.assert_close(*jacobians, msg=name)


def test_parameters_of_several_dtypes_are_pytorchs() -> None:
    x = draw((3, 6), torch.float32).to(torch.bfloat16)
    for f in (F, fastnorm.torch):
        with pytest.raises(RuntimeError, match="expected scalar type"):
            f.layer_norm(x, (6,), torch.ones(6, dtype=torch.bfloat16), torch.zeros(6))


def test_an_expanded_gradient_and_one_of_another_format() -> None:
    x = channels_last(draw((3, 5, 4, 6), torch.float32)).requires_grad_()
    dense = draw(x.shape, torch.float32, 3)
    for dy in (dense, torch.ones(()).expand(x.shape), every_second(dense)):
        ours, theirs = (torch.autograd.grad(f.group_norm(x, 5), x, dy)[0] for f in (fastnorm.torch, F))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_several_python_threads_at_once() -> None:
    case = CASES["batch, NCHW"]
    x, dy = draw((32, 5, 40, 40), torch.float32), draw((32, 5, 40, 40), torch.float32, 1)
    expected, found = step(case.ours(), x, dy), []
    threads = [threading.Thread(target=lambda: found.append(step(case.ours(), x, dy))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for result in found:
        assert torch.equal(result.y, expected.y)
        assert torch.equal(result.dx, expected.dx)


def test_copies_do_not_share_state() -> None:
    module = fastnorm.torch.BatchNorm1d(5)
    twin = copy.deepcopy(module)
    twin(draw((9, 5), torch.float32))
    assert torch.equal(module.running_mean, torch.zeros(5))
    assert int(module.num_batches_tracked) == 0


@pytest.mark.parametrize("name", ["interop.torch.functions", "interop.torch.conversion", "torch"])
def test_examples_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"fastnorm.{name}"))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_results_in_recycled_memory(memory_format: Any, dtype: Any) -> None:
    """In a loop of training all large results find memory that is warm; a result that somebody keeps is never written again."""
    x = draw((8, 16, 24, 24), torch.float32).to(dtype).contiguous(memory_format=memory_format)
    wanted = fastnorm.torch.batch_norm(x, None, None, training=True)
    seen, kept = set(), []
    with fastnorm.recycle_outputs(1 << 24):
        for turn in range(8):
            given = x.clone().requires_grad_()
            y = fastnorm.torch.batch_norm(given, None, None, training=True)
            assert y.stride() == wanted.stride()
            assert torch.equal(y, wanted)
            seen.add(y.data_ptr())
            if turn == 3:
                kept.append(y.detach()[1:])
            F.relu(y, inplace=True).sum().backward()
            assert given.grad is not None
            del y, given
    assert len(seen) <= 3
    assert torch.equal(kept[0], F.relu(wanted)[1:])


def test_a_result_outlives_its_recycler() -> None:
    x = draw((8, 16, 24, 24), torch.float32)
    with fastnorm.recycle_outputs(1 << 24):
        y = fastnorm.torch.layer_norm(x, (24,))
    torch.manual_seed(0)
    others = [torch.randn_like(x) for _ in range(20)]
    assert torch.equal(y, fastnorm.torch.layer_norm(x, (24,)))
    del others
    buffer = io.BytesIO()
    torch.save(y, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer), y)
