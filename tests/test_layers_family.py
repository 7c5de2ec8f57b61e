"""Every layer of `fastnorm.layers`: the functions behind it, its gradients, its state. `test_layers` has more on BatchNorm."""

from __future__ import annotations

import copy
import doctest
import importlib
import inspect
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import cases
import numpy as np
import oracle
import pytest
from cases import Problem
from tolerance import assert_within

import fastnorm as fn

Array = np.ndarray
PROBLEM = Problem((6, 4, 5, 6))
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


class Kind(NamedTuple):
    """How a layer for PROBLEM is made, and the functions that it must agree with."""

    make: Callable[..., Any]
    forward: Callable[..., Any]  # of the layer and x: the tuple of the function
    backward: Callable[..., Any]  # of the layer, dy, x and that tuple
    state: tuple[str, ...] = ("gamma", "beta")


def train_norm(layer: Any, x: Array) -> Any:
    pair = layer.running_mean.copy(), layer.running_var.copy()
    return fn.batch_norm_train(x, layer.gamma, layer.beta, eps=layer.eps, running_mean=pair[0], running_var=pair[1])


def train_renorm(layer: Any, x: Array) -> Any:
    pair = layer.running_mean.copy(), layer.running_var.copy()
    return fn.batch_renorm_train(x, *pair, layer.gamma, layer.beta, eps=layer.eps)


KINDS = {
    "BatchNorm": Kind(
        lambda **o: fn.layers.BatchNorm(4, **o),
        train_norm,
        lambda layer, dy, x, saved: fn.batch_norm_backward(dy, x, *saved[1:], layer.gamma),
        ("gamma", "beta", *RUNNING),
    ),
    "BatchRenorm": Kind(
        lambda **o: fn.layers.BatchRenorm(4, **o),
        train_renorm,
        lambda layer, dy, x, saved: fn.batch_renorm_backward(dy, x, *saved[1:], layer.gamma),
        ("gamma", "beta", *RUNNING),
    ),
    "LayerNorm": Kind(
        lambda **o: fn.layers.LayerNorm((5, 6), **o),
        lambda layer, x: fn.layer_norm(x, layer.gamma, layer.beta, axis=(2, 3), eps=layer.eps, return_stats=True),
        lambda layer, dy, x, saved: fn.layer_norm_backward(dy, x, *saved[1:], layer.gamma, axis=(2, 3)),
    ),
    "RMSNorm": Kind(
        lambda **o: fn.layers.RMSNorm(6, **o),
        lambda layer, x: fn.rms_norm(x, layer.gamma, eps=layer.eps, return_stats=True),
        lambda layer, dy, x, saved: fn.rms_norm_backward(dy, x, *saved[1:], layer.gamma),
        ("gamma",),
    ),
    "GroupNorm": Kind(
        lambda **o: fn.layers.GroupNorm(2, 4, **o),
        lambda layer, x: fn.group_norm(x, 2, layer.gamma, layer.beta, eps=layer.eps, return_stats=True),
        lambda layer, dy, x, saved: fn.group_norm_backward(dy, x, 2, *saved[1:], layer.gamma),
    ),
    "InstanceNorm": Kind(
        lambda **o: fn.layers.InstanceNorm(4, **o),
        lambda layer, x: fn.instance_norm(x, layer.gamma, layer.beta, eps=layer.eps, return_stats=True),
        lambda layer, dy, x, saved: fn.instance_norm_backward(dy, x, *saved[1:], layer.gamma),
    ),
}
ALL = pytest.mark.parametrize("name", KINDS)


def learned(name: str, **options: Any) -> Any:
    """A layer whose parameters are not those of a new one."""
    layer = KINDS[name].make(**options)
    for seed, value in enumerate((layer.gamma, layer.beta), 1):
        if value is not None:
            value[...] = cases.parameter(value.size, seed=seed).reshape(value.shape)
    return layer


def same_state(a: Any, b: Any, names: tuple[str, ...]) -> None:
    for name in names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


# Forward and backward


@ALL
def test_a_layer_is_its_functions(name: str) -> None:
    layer, x, dy = learned(name, eps=1e-3), cases.sample(PROBLEM), cases.sample(PROBLEM, seed=7)
    expected = KINDS[name].forward(layer, x)
    gradients = KINDS[name].backward(layer, dy, x, expected)
    np.testing.assert_array_equal(layer(x), expected.y)
    dx = layer.backward(dy)
    np.testing.assert_array_equal(dx, gradients.dx)
    for parameter in [field for field in gradients._fields if field != "dx"]:
        np.testing.assert_array_equal(getattr(layer, parameter), getattr(gradients, parameter), err_msg=parameter)
        assert getattr(layer, parameter).dtype == np.float32


@ALL
def test_backward_overwrites_gradients_in_place(name: str) -> None:
    layer, x, dy = learned(name), cases.sample(PROBLEM), cases.sample(PROBLEM, seed=7)
    layer(x)
    layer.backward(dy)
    held = [gradient for _, gradient in layer.parameters()]
    once = [gradient.copy() for gradient in held]
    for gradient in held:
        gradient[...] = 77
    layer.backward(dy)
    for gradient, old, (_, now) in zip(held, once, layer.parameters(), strict=True):
        assert gradient is now
        np.testing.assert_array_equal(gradient, old)


@ALL
def test_out_receives_the_result_and_the_gradient(name: str) -> None:
    layer, x, dy = learned(name), cases.sample(PROBLEM), cases.sample(PROBLEM, seed=7)
    twin = copy.deepcopy(layer)
    y, dx = twin(x), twin.backward(dy)
    out = np.empty_like(x)
    assert layer.forward(x, out=out) is out
    np.testing.assert_array_equal(out, y)
    assert layer.backward(dy, out=dy) is dy
    np.testing.assert_array_equal(dy, dx)


@ALL
def test_backward_says_that_its_input_was_overwritten(name: str) -> None:
    layer, x = learned(name), cases.sample(PROBLEM)
    expected = copy.deepcopy(layer)(x)
    np.testing.assert_array_equal(layer(x, out=x), expected)
    with pytest.raises(RuntimeError, match=r"out= overwrote.*another array"):
        layer.backward(x)
    layer(x)
    layer.backward(x)


@ALL
def test_backward_needs_a_forward(name: str) -> None:
    layer = KINDS[name].make()
    with pytest.raises(RuntimeError, match="forward pass before it; call the layer"):
        layer.backward(np.ones(PROBLEM.shape, np.float32))


@ALL
def test_without_affine_there_are_no_parameters(name: str) -> None:
    layer, empty = KINDS[name].make(affine=False), np.empty((0, 4, 5, 6), np.float32)
    assert layer.gamma is layer.beta is layer.dgamma is layer.dbeta is None
    layer(empty)  # `test_layers` and the tests of the functions compile what has no parameters
    layer.backward(empty)
    assert layer.parameters() == []
    assert set(layer.state_dict()) == set(KINDS[name].state) - {"gamma", "beta"}
    layer.load_state_dict(layer.state_dict())


@ALL
def test_empty_input(name: str) -> None:
    layer = learned(name)
    before = copy.deepcopy(layer)
    empty = np.empty((0, 4, 5, 6), np.float32)
    assert layer(empty).shape == empty.shape
    assert layer.backward(empty).shape == empty.shape
    same_state(layer, before, KINDS[name].state)
    for _, gradient in layer.parameters():
        assert (gradient == 0).all()


@ALL
def test_training_and_evaluation(name: str) -> None:
    layer, x = learned(name), cases.sample(PROBLEM)
    assert layer.training is True
    y = layer(x)
    before = copy.deepcopy(layer)
    assert layer.eval() is layer
    assert layer.training is False
    evaluated = layer(x)
    same_state(layer, before, KINDS[name].state)
    assert np.array_equal(evaluated, y) == (name not in ("BatchNorm", "BatchRenorm"))
    assert layer.train() is layer
    assert layer.train(False).training is False


# State


@ALL
def test_state_dict_restores_a_layer(name: str) -> None:
    layer, x = learned(name), cases.sample(PROBLEM)
    layer(x)
    state = layer.state_dict()
    assert tuple(state) == KINDS[name].state
    other = KINDS[name].make()
    other.load_state_dict(state)
    same_state(other, layer, KINDS[name].state)
    np.testing.assert_array_equal(other(x), layer(x))
    for value in state.values():  # copies: neither layer lives in them
        value[...] = 77
    same_state(other, layer, KINDS[name].state)
    assert not (layer.gamma == 77).any()


@ALL
@pytest.mark.parametrize("damage", ["missing", "unknown", "shape", "dtype"])
def test_a_wrong_state_is_refused_as_a_whole(name: str, damage: str) -> None:
    layer = learned(name)
    before = copy.deepcopy(layer)
    state = {key: value + 1 for key, value in layer.state_dict().items()}
    last = KINDS[name].state[-1]
    if damage == "missing":
        del state[last]
    elif damage == "unknown":
        state["weight"] = np.ones(3)
    else:
        state[last] = np.ones(9) if damage == "shape" else np.full(np.shape(state[last]), "a")
    exception = {"shape": ValueError, "dtype": TypeError}.get(damage, KeyError)
    with pytest.raises(exception, match="weight" if damage == "unknown" else last):
        layer.load_state_dict(state)
    same_state(layer, before, KINDS[name].state)


@pytest.mark.parametrize(("count", "exception"), [(2.5, TypeError), (np.float64(2), TypeError), (-1, ValueError)])
def test_the_number_of_batches_is_a_count(count: Any, exception: type[Exception]) -> None:
    layer = learned("BatchRenorm")
    with pytest.raises(exception, match="num_batches_tracked"):
        layer.load_state_dict({**layer.state_dict(), "num_batches_tracked": count})
    layer.load_state_dict({**layer.state_dict(), "num_batches_tracked": 5})
    assert layer.num_batches_tracked == 5


@ALL
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"])
def test_copies_continue_on_their_own(name: str, clone: Any) -> None:
    layer, x = learned(name, eps=1e-3), cases.sample(PROBLEM)
    layer(x)
    twin = clone(layer)
    same_state(twin, layer, KINDS[name].state)
    before = copy.deepcopy(layer)
    y = twin(x)
    same_state(layer, before, KINDS[name].state)
    np.testing.assert_array_equal(layer(x), y)
    assert clone(layer.eval()).training is False


@ALL
def test_activations_are_not_pickled(name: str) -> None:
    layer, large = learned(name), Problem((7, 4, 20, 5, 6))
    size = len(pickle.dumps(layer))
    layer(cases.sample(large))
    data = pickle.dumps(layer)
    assert len(data) < size + 100
    with pytest.raises(RuntimeError, match="forward pass"):
        pickle.loads(data).backward(np.ones(PROBLEM.shape))
    layer.backward(cases.sample(large, seed=7))


# Optimizers


def sgd(pairs: list[tuple[Array, Array]]) -> Callable[[], None]:
    def step() -> None:
        for value, gradient in pairs:
            value -= 0.5 * gradient

    return step


def adam(pairs: list[tuple[Array, Array]]) -> Callable[[], None]:
    """Kingma, Ba 2015, without the correction of the first steps' bias."""
    memory = [(value, gradient, np.zeros_like(value), np.ones_like(value)) for value, gradient in pairs]

    def step() -> None:
        for value, gradient, first, second in memory:
            first += 0.3 * (gradient - first)
            second += 0.1 * (gradient**2 - second)
            value -= 0.1 * first / (np.sqrt(second) + 1e-8)

    return step


@ALL
@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_an_optimizer_learns_scale_and_shift(name: str, optimizer: Callable[..., Callable[[], None]]) -> None:
    """The target is the output of a layer of the same kind: the loss has its minimum, 0, at that layer's parameters."""
    x = cases.sample(PROBLEM)
    options = {"r_max": 1.0, "d_max": 0.0} if name == "BatchRenorm" else {}
    target, layer = learned(name, **options)(x), KINDS[name].make(**options)
    step, losses = optimizer(layer.parameters()), []
    for _ in range(150):
        error = layer(x) - target
        losses.append(float((error**2).mean()))
        layer.backward(error * (layer.gamma.size / error.size))
        step()
    assert losses[0] > 0.1
    assert losses[-1] < 0.01 * losses[0]


# Layers with running statistics


@pytest.mark.parametrize("momentum", [0.3, None])
def test_renorm_updates_its_running_statistics(momentum: float | None) -> None:
    layer = learned("BatchRenorm", momentum=momentum, dtype=np.float64)
    pair = np.zeros(4), np.ones(4)
    for n in range(3):
        x = cases.sample(PROBLEM, seed=n)
        weight = 1 / (n + 1) if momentum is None else momentum
        expected = fn.batch_renorm_train(x, *pair, layer.gamma, layer.beta, momentum=weight)
        np.testing.assert_array_equal(layer(x), expected.y)
    np.testing.assert_array_equal(layer.running_mean, pair[0])
    np.testing.assert_array_equal(layer.running_var, pair[1])
    assert layer.num_batches_tracked == 3


def test_renorm_evaluates_as_batch_norm_with_constant_statistics() -> None:
    layer, x, dy = learned("BatchRenorm"), cases.sample(PROBLEM), cases.sample(PROBLEM, seed=7)
    layer(x)
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    np.testing.assert_array_equal(layer.eval()(x), fn.batch_norm(x, mean, var, layer.gamma, layer.beta))
    rstd = 1 / np.sqrt(var.astype(np.float64) + layer.eps)
    expected = fn.batch_norm_backward(dy, x, mean, rstd, layer.gamma, training=False)
    np.testing.assert_array_equal(layer.backward(dy), expected.dx)
    np.testing.assert_array_equal(layer.dgamma, expected.dgamma)
    np.testing.assert_array_equal(layer.dbeta, expected.dbeta)


def test_the_bounds_of_renorm_can_be_raised_during_training() -> None:
    layer, x = learned("BatchRenorm", r_max=1.0, d_max=0.0), cases.sample(PROBLEM)
    np.testing.assert_array_equal(layer(x), fn.batch_norm_train(x, layer.gamma, layer.beta).y)
    layer.r_max, layer.d_max = np.inf, np.inf
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    expected = fn.batch_norm(x, mean, var, layer.gamma, layer.beta)
    assert_within(layer(x), expected, 1e-5 * (1 + np.abs(expected)))
    layer.r_max = 0.5
    before = copy.deepcopy(layer)
    with pytest.raises(ValueError, match=r"r_max is 0.5"):
        layer(x)
    same_state(layer, before, KINDS["BatchRenorm"].state)


def test_recomputed_statistics_are_those_of_the_pooled_data() -> None:
    layer = learned("BatchRenorm", dtype=np.float64)
    seen = [cases.sample(Problem((n, 4, 5, 6)), cases.F8, seed=n) for n in (2, 3, 4)]
    layer.recompute_statistics(iter(seen))
    mean, var = oracle.mean_var(np.concatenate(seen), (0, 2, 3), ddof=1)
    assert_within(layer.running_mean, mean, 1e-12 * (np.abs(mean) + np.sqrt(var)))
    assert_within(layer.running_var, var, 1e-12 * var)
    for wrong in ([], [np.ones((1, 4), np.float32)], [np.ones((5, 3), np.float32)], [np.ones(4, np.float32)]):
        before = copy.deepcopy(layer)
        with pytest.raises(ValueError, match="batch"):
            layer.recompute_statistics(wrong)
        same_state(layer, before, KINDS["BatchRenorm"].state)


# Shapes, axes, options


def test_normalized_shape_is_the_last_axes() -> None:
    x = cases.sample(Problem((3, 4, 5)))
    for layer, axis in (
        (fn.layers.LayerNorm(5), -1),
        (fn.layers.LayerNorm([4, 5]), (1, 2)),
        (fn.layers.LayerNorm((3, 4, 5)), (0, 1, 2)),
        (fn.layers.LayerNorm(np.int64(5), affine=False), -1),
    ):
        np.testing.assert_array_equal(layer(x), fn.layer_norm(x, layer.gamma, layer.beta, axis=axis))
        assert layer.affine is False or layer.gamma.shape == layer.dbeta.shape == layer.normalized_shape


def test_axis_and_activation_of_groups_are_passed_on() -> None:
    for shape, options in (((3, 1, 1, 4), {"axis": -1}), (PROBLEM.shape, {"axis": 1, "activation": "relu"})):
        x, dy = cases.sample(Problem(shape)), cases.sample(Problem(shape), seed=7)
        layer = learned("GroupNorm", **options)
        expected = fn.group_norm(x, 2, layer.gamma, layer.beta, return_stats=True, **options)
        np.testing.assert_array_equal(layer(x), expected.y)
        gradients = fn.group_norm_backward(dy, x, 2, *expected[1:], layer.gamma, beta=layer.beta, **options)
        np.testing.assert_array_equal(layer.backward(dy), gradients.dx)
        np.testing.assert_array_equal(layer.dbeta, gradients.dbeta)


def test_an_axis_of_renorm() -> None:
    x = cases.sample(Problem((4, 60), 0))
    layer = learned("BatchRenorm", axis=0)
    np.testing.assert_array_equal(layer(x), fn.batch_renorm_train(x, np.zeros(4), np.ones(4), layer.gamma, layer.beta, axis=0).y)


WRONG_INPUTS = {
    "BatchNorm": np.ones((5, 3)),
    "BatchRenorm": np.ones((5, 3)),
    "LayerNorm": np.ones((4, 5, 5)),
    "RMSNorm": np.ones((4, 5)),
    "GroupNorm": np.ones((2, 8, 3)),
    "InstanceNorm": np.ones((2, 8, 3)),
}


@pytest.mark.parametrize("affine", [True, False])
@ALL
def test_an_input_of_another_shape_is_refused(name: str, affine: bool) -> None:
    layer, x = KINDS[name].make(affine=affine), WRONG_INPUTS[name].astype(np.float32)
    before, out = copy.deepcopy(layer), np.full(x.shape, 3, np.float32)
    for call in (layer, layer.eval()):
        with pytest.raises(ValueError, match=r"x has shape .*the layer.*pass x"):
            call(x, out=out)
    assert (out == 3).all()
    same_state(layer, before, tuple(layer.state_dict()))


@ALL
def test_an_input_without_dimensions_is_refused(name: str) -> None:
    with pytest.raises((ValueError, np.exceptions.AxisError)):
        KINDS[name].make()(np.float32(1.0))
    with pytest.raises(TypeError, match="complex"):
        KINDS[name].make()(np.ones(PROBLEM.shape, complex))


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "normalized_shape empty": (lambda: fn.layers.LayerNorm(()), ValueError, "normalized_shape is empty"),
    "normalized_shape 0": (lambda: fn.layers.RMSNorm((3, 0)), ValueError, "normalized_shape is 0"),
    "normalized_shape a float": (lambda: fn.layers.LayerNorm(2.5), TypeError, "normalized_shape.*2.5"),
    "normalized_shape a string": (lambda: fn.layers.RMSNorm("3"), TypeError, "normalized_shape.*'3'"),
    "num_groups no divisor": (lambda: fn.layers.GroupNorm(3, 4), ValueError, "num_groups is 3.*4.*divisor of 4"),
    "num_groups 0": (lambda: fn.layers.GroupNorm(0, 4), ValueError, "num_groups is 0"),
    "num_groups True": (lambda: fn.layers.GroupNorm(True, 4), TypeError, "num_groups"),
    "num_channels a float": (lambda: fn.layers.GroupNorm(2, 4.0), TypeError, "num_channels"),
    "num_features negative": (lambda: fn.layers.InstanceNorm(-1), ValueError, "num_features is -1"),
    "axis of the samples": (lambda: fn.layers.GroupNorm(2, 4, axis=0), ValueError, "axis is 0.*samples"),
    "axis a float": (lambda: fn.layers.BatchRenorm(4, axis=1.0), TypeError, "axis.*1.0"),
    "r_max below 1": (lambda: fn.layers.BatchRenorm(4, r_max=0.9), ValueError, "r_max is 0.9"),
    "d_max negative": (lambda: fn.layers.BatchRenorm(4, d_max=-1), ValueError, "d_max is -1"),
    "momentum above 1": (lambda: fn.layers.BatchRenorm(4, momentum=1.1), ValueError, "momentum is 1.1"),
    "activation unknown": (lambda: fn.layers.InstanceNorm(4, activation="tanh"), ValueError, "activation.*tanh"),
    **{f"{name}: eps negative": (lambda kind=kind: kind.make(eps=-1.0), ValueError, "eps is -1.0") for name, kind in KINDS.items()},
    **{f"{name}: dtype of integers": (lambda kind=kind: kind.make(dtype=int), TypeError, "dtype is int") for name, kind in KINDS.items()},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_bad_options_are_refused(bad: tuple[Callable[[], Any], type[Exception], str]) -> None:
    make, exception, message = bad
    with pytest.raises(exception, match=message):
        make()


SIGNATURES = {
    "BatchNorm": "(num_features, *, axis=1, eps=1e-05, momentum=0.1, unbiased=True, activation=None, affine=True, dtype=float32)",
    "BatchRenorm": ("(num_features, *, axis=1, eps=1e-05, momentum=0.01, r_max=3.0, d_max=5.0, unbiased=True, affine=True, dtype=float32)"),
    "LayerNorm": "(normalized_shape, *, eps=1e-05, affine=True, dtype=float32)",
    "RMSNorm": "(normalized_shape, *, eps=1e-05, affine=True, dtype=float32)",
    "GroupNorm": "(num_groups, num_channels, *, axis=1, eps=1e-05, activation=None, affine=True, dtype=float32)",
    "InstanceNorm": "(num_features, *, axis=1, eps=1e-05, activation=None, affine=True, dtype=float32)",
}


@ALL
def test_signatures_are_those_of_the_contract(name: str) -> None:
    cls = getattr(fn.layers, name)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(cls).parameters.values()]
    assert str(inspect.Signature(bare)).replace("<class 'numpy.float32'>", "float32") == SIGNATURES[name]
    assert name in fn.layers.__all__
    assert "Source" in cls.__doc__


@pytest.mark.parametrize("name", ["layer", "group_layers", "row_layers"])
def test_examples_of_docstrings_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"fastnorm.state.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
