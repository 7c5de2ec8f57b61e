"""Calls that are remembered, and the shortest way of `mean_var`: the bits and the warnings of the general way."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import oracle
import pytest

import fastnorm as fn
from fastnorm import preprocessing
from fastnorm.ops import calls, few

Array = np.ndarray[Any, Any]
F2, F4, F8 = np.float16, np.float32, np.float64


def forget() -> None:
    for known in (few._known, few._offered, calls._known):
        known.clear()


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    forget()
    yield
    forget()


def draw(shape: tuple[int, ...], dtype: Any, seed: int) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 3 + 1).astype(dtype)


def repeats(call: Callable[..., Any], make: Callable[[int], tuple[Array, ...]]) -> int:
    """Check a first, a second and a third call, of other arrays, against calls that nothing is known of; how many kinds are known then."""
    found = [[np.array(a) for a in call(*make(seed))] for seed in (0, 1, 2)]
    known = len(calls._known)
    for seed, results in enumerate(found):
        forget()
        for a, b in zip(results, call(*make(seed)), strict=True):
            np.testing.assert_array_equal(a, b)
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
    return known


@pytest.mark.parametrize("shape", [(6, 5, 32), (40, 7), (1, 1), (3, 3000)], ids=str)
@pytest.mark.parametrize(("name", "dtype", "other"), [("layer", F4, False), ("layer", F2, False), ("rms", F4, True), ("rms", F8, False)])
def test_norms_of_sums(name: str, dtype: Any, shape: tuple[int, ...], other: bool) -> None:
    def call(x: Array, residual: Array, gamma: Array) -> Any:
        if name == "layer":
            return fn.add_layer_norm(x, residual, gamma, gamma, return_stats=True)
        return fn.add_rms_norm(x, residual, gamma, return_stats=True)

    def make(seed: int) -> tuple[Array, ...]:
        return draw(shape, dtype, seed), draw(shape, F8 if other else dtype, seed + 9), draw(shape[-1:], F4, seed + 5)

    assert repeats(call, make) == 1
    x, residual, gamma = make(0)
    y, h = call(x, residual, gamma)[:2]
    np.testing.assert_array_equal(h, (x.astype(F8) + residual).astype(dtype) if dtype == F8 or other else (x + residual))
    assert not np.may_share_memory(y, h)


@pytest.mark.parametrize("shape", [(6, 5, 32), (40, 7), (3, 3000)], ids=str)
def test_norms_of_sums_into_given_arrays(shape: tuple[int, ...]) -> None:
    """Remembered where both outputs are in memory of their own; the same results wherever they are."""
    x, residual, gamma = draw(shape, F4, 0), draw(shape, F4, 1), draw(shape[-1:], F4, 2)
    wanted = [np.array(a) for a in fn.add_layer_norm(x, residual, gamma, gamma)]
    forget()
    memory = np.zeros(2 * x.size + 64, F4)
    for _ in range(3):
        out = np.empty_like(x), np.empty_like(x)
        y, h = fn.add_layer_norm(x, residual, gamma, gamma, out=out)
        assert y is out[0]
        assert h is out[1]
        np.testing.assert_array_equal((y, h), wanted)
        assert len(calls._known) == 1
    views = [memory[k : k + x.size].reshape(shape) for k in (0, 32, x.size, x.size + 32)]
    for first, second in ((0, 2), (2, 0), (1, 3)):  # apart
        np.testing.assert_array_equal(fn.add_layer_norm(x, residual, gamma, gamma, out=(views[first], views[second])), wanted)
    for first, second in ((0, 1), (0, 0), (1, 0)):  # not apart from each other
        with pytest.raises(ValueError, match="out has two arrays that share memory"):
            fn.add_layer_norm(x, residual, gamma, gamma, out=(views[first], views[second]))
    for place in (0, 1):  # the memory of an input, whole and in part
        for shift in (0, 16):
            views[0][...] = x
            overlapping, other = memory[shift : shift + x.size].reshape(shape), np.empty_like(x)
            out = (overlapping, other) if place == 0 else (other, overlapping)
            np.testing.assert_array_equal(fn.add_layer_norm(views[0], residual, gamma, gamma, out=out), wanted)
    for missing in (0, 1):
        out = (None, np.empty_like(x)) if missing == 0 else (np.empty_like(x), None)
        np.testing.assert_array_equal(fn.add_layer_norm(x, residual, gamma, gamma, out=out), wanted)


def test_sums_that_cannot_be_remembered() -> None:
    x, residual = draw((5, 6, 7), F4, 0), draw((5, 6, 7), F4, 1)
    expected = fn.add_layer_norm(x, residual)
    calls._known.clear()
    for arrays in ((x[::-1], residual[::-1]), (x.tolist(), residual), (x, residual.astype(np.int16))):
        fn.add_layer_norm(*arrays)
    first, _ = fn.add_layer_norm(x.transpose(1, 0, 2), residual.transpose(1, 0, 2))
    np.testing.assert_array_equal(first.transpose(1, 0, 2), expected.y)
    out = np.empty_like(x), np.empty_like(x)
    assert fn.add_layer_norm(x, residual, out=out).y is out[0]
    np.testing.assert_array_equal(out[1], expected.h)


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize(("dtype", "activation"), [(F4, None), (F4, "relu"), (F8, "silu"), (F2, "relu")])
def test_backward_with_a_residual(dtype: Any, axis: int, activation: Any) -> None:
    shape = (4, 6, 5, 6)

    def call(dy: Array, x: Array, residual: Array, gamma: Array, out: Any = None) -> Any:
        given = {"axis": axis, "activation": activation, "residual": residual}
        _, mean, rstd = fn.batch_norm_train(x, gamma, gamma, **given)
        calls._known.clear() if out is not None else None
        return fn.batch_norm_backward(dy, x, mean, rstd, gamma, beta=gamma, out=out, **given)

    def make(seed: int) -> tuple[Array, ...]:
        return *(draw(shape, dtype, seed + k) for k in (0, 3, 6)), draw(shape[axis : axis + 1 or None], F4, seed + 8)

    assert repeats(call, make) == 2  # forward and backward
    arrays = make(0)
    expected = call(*arrays)
    again = call(*arrays)
    assert type(again) is type(expected)
    assert again._fields == ("dx", "dgamma", "dbeta", "dresidual")
    pair = np.empty(shape, dtype), np.empty(shape, dtype)
    found = call(*arrays, out=pair)
    assert found.dx is pair[0]
    np.testing.assert_array_equal(pair[1], expected.dresidual)
    assert not np.may_share_memory(again.dx, again.dresidual)


KEEPING: dict[str, Callable[[Array], Any]] = {  # plans, passes, calls
    "mean": lambda a: fn.mean(a, axis=1),
    "nanvar": lambda a: fn.nanvar(np.where(a > 2, np.nan, a), 0),
    "zscore": fn.zscore,
    "training": fn.batch_norm_train,
    "backward": lambda a: fn.batch_norm_backward(a, a, a[0].copy(), a[1].copy()),
    "layer norm": fn.layer_norm,
    "layer norm backward": lambda a: fn.layer_norm_backward(a, a, a[:, 0].copy(), a[:, 1].copy()),
    "group norm": lambda a: fn.group_norm(a, 2),
    "where": lambda a: fn.var(a, axis=0, where=np.isfinite(a)),
    "omit": lambda a: fn.mean_var(a, 1, nan_policy="omit"),
    "running": lambda a: fn.RunningMoments(axis=0).update(a),
    "scaler": lambda a: preprocessing.MinMaxScaler((0, a[0, 0])).fit_transform(a),
    "inference": lambda a: fn.batch_norm(a, a[0], np.abs(a[1]), activation="silu", eps=float(np.abs(a[0, 0]))),
}


@pytest.mark.parametrize("name", KEEPING)
def test_plans_keep_no_array_alive(name: str) -> None:
    for form in (lambda a: a, lambda a: a[::2], np.asfortranarray):
        for seed in range(3):
            base = draw((50, 6), F8, seed)
            array = form(base)
            KEEPING[name](array)
            references = weakref.ref(base), weakref.ref(array)
            del base, array
            if any(reference() is not None for reference in references):
                gc.collect()  # half a second in this process
            assert all(reference() is None for reference in references)


def test_a_plan_keeps_a_pass_for_every_activation_and_parameter() -> None:
    """Tags of two activations may be equal as tuples; `eps` may be 0 and 0.0."""
    x = draw((40, 6), F4, 0)[::2]
    mean, var = x.mean(0), x.var(0) + 1
    for _ in range(3):
        for activation in (None, "silu", "gelu", "gelu_tanh"):
            for gamma, beta in ((None, None), (var, None), (None, mean), (var, mean)):
                for eps in (0, 0.5, 0.0):
                    found = fn.batch_norm(x, mean, var, gamma, beta, eps=eps, activation=activation)
                    z = (x.astype(F8) - mean) / np.sqrt(var.astype(F8) + eps)
                    z = z * (1 if gamma is None else gamma) + (0 if beta is None else beta)
                    np.testing.assert_allclose(found, oracle.activate(z, activation), 1e-6, 1e-6)


def general(a: Array, axis: Any, ddof: Any) -> Any:
    """`keepdims` goes the general way."""
    mean, var = fn.mean_var(a, axis, ddof=ddof, keepdims=True)
    shape = () if axis is None else np.delete(a.shape, axis).tolist()
    return mean.reshape(shape)[()], var.reshape(shape)[()]


@pytest.mark.parametrize("trap", [None, np.nan, np.inf])
@pytest.mark.parametrize("ddof", [0, 1, 3, 0.5])
@pytest.mark.parametrize("dtype", [F4, F8, F2])
@pytest.mark.parametrize("shape", [(5, 7), (300, 40), (1, 9), (7,), (4, 3, 5), (64, 1500)], ids=str)
def test_mean_var_by_the_shortest_way(shape: tuple[int, ...], dtype: Any, ddof: Any, trap: Any) -> None:
    a = draw(shape, dtype, 4)
    if trap is not None:
        a.flat[a.size // 2] = trap
    for axis in (None, *range(a.ndim)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            expected = general(a, axis, ddof)
        with warnings.catch_warnings(record=True) as tells:
            warnings.simplefilter("always")
            found = fn.mean_var(a, axis, ddof=ddof)
        assert [str(w.message) for w in tells] == [str(w.message) for w in told]
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_array_equal(x, y)
            assert (type(x), x.dtype, x.shape) == (type(y), y.dtype, y.shape)
