"""Calls on few elements that come again and again: the same bits and the same errors as the first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastnorm as fn
from fastnorm.ops import calls, few
from fastnorm.plan import schedule

Array = np.ndarray[Any, Any]
PATIENCE = 3


class Subclass(np.ndarray[Any, Any]):
    """Taken as a plain array."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(few, "PATIENCE", PATIENCE)
    forget()
    yield
    forget()


def forget() -> None:
    for known in (few._known, few._offered, calls._known):
        known.clear()


def arrays(shape: tuple[int, ...], dtype: Any, n: int, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(shape) * 3 + 1).astype(dtype) for _ in range(n)]


def vectors(n: int, dtype: Any, count: int) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.uniform(0.5, 2.0, n).astype(dtype) for _ in range(count)]


def row_calls(shape: tuple[int, ...], dtype: Any, of_parameters: Any) -> dict[str, Callable[[Array, Array | None], Any]]:
    x, dy = arrays(shape, dtype, 2)
    gamma, beta = vectors(shape[-1], of_parameters, 2)
    _, mean, rstd = fn.layer_norm(x, return_stats=True)
    return {
        "layer_norm": lambda x, out: fn.layer_norm(x, gamma, beta, return_stats=True, out=out),
        "layer_norm, plain": lambda x, out: (fn.layer_norm(x, out=out),),
        "rms_norm": lambda x, out: (fn.rms_norm(x, gamma, out=out),),
        "layer_norm_backward": lambda x, out: fn.layer_norm_backward(dy, x, mean, rstd, gamma, out=out),
        "rms_norm_backward": lambda x, out: fn.rms_norm_backward(dy, x, rstd, out=out),
    }


def batch_calls(shape: tuple[int, ...], dtype: Any, of_parameters: Any) -> dict[str, Callable[[Array, Array | None], Any]]:
    x, dy = arrays(shape, dtype, 2)
    gamma, beta, mean, var = vectors(shape[1], of_parameters, 4)
    _, centre, rstd = fn.batch_norm_train(x)

    def train(x: Array, out: Array | None) -> Any:
        running_mean, running_var = mean.copy(), var.copy()
        result = fn.batch_norm_train(x, gamma, beta, running_mean=running_mean, running_var=running_var, momentum=0.3, out=out)
        return (*result, running_mean, running_var)

    return {
        "train": train,
        "train, plain": lambda x, out: fn.batch_norm_train(x, out=out),
        "inference": lambda x, out: (fn.batch_norm(x, mean, var, gamma, beta, out=out),),
        "backward": lambda x, out: fn.batch_norm_backward(dy, x, centre, rstd, gamma, out=out),
    }


def one_sample_calls(shape: tuple[int, ...], dtype: Any, of_parameters: Any) -> dict[str, Callable[[Array, Array | None], Any]]:
    """Training in which every plane is a statistic is not compiled."""
    calls_of_batch = batch_calls(shape, dtype, of_parameters)
    return {name: calls_of_batch[name] for name in ("inference", "backward")}


def group_calls(shape: tuple[int, ...], dtype: Any, of_parameters: Any) -> dict[str, Callable[[Array, Array | None], Any]]:
    gamma, beta = vectors(shape[1], of_parameters, 2)
    last = vectors(shape[-1], of_parameters, 2)
    x, dy = arrays(shape, dtype, 2)
    of_groups = fn.group_norm(x, 2, return_stats=True)[1:]
    of_last = fn.group_norm(x, 2, axis=-1, return_stats=True)[1:]
    of_instances = fn.instance_norm(x, return_stats=True)[1:]
    return {
        "group_norm_backward": lambda x, out: fn.group_norm_backward(dy, x, 2, *of_groups, gamma, out=out),
        "group_norm_backward, plain": lambda x, out: fn.group_norm_backward(dy, x, 2, *of_groups, out=out),
        "group_norm_backward, last": lambda x, out: fn.group_norm_backward(dy, x, 2, *of_last, last[0], axis=-1, out=out),
        "instance_norm_backward": lambda x, out: fn.instance_norm_backward(dy, x, *of_instances, gamma, out=out),
        "group_norm": lambda x, out: fn.group_norm(x, 2, gamma, beta, return_stats=True, out=out),
        "group_norm, last": lambda x, out: (fn.group_norm(x, 2, *last, axis=-1, out=out),),
        "instance_norm": lambda x, out: fn.instance_norm(x, gamma, beta, return_stats=True, out=out),
    }


F4, F8 = np.float32, np.float64
SHAPES: list[tuple[Callable[..., Any], tuple[int, ...], Any, Any]] = [
    (row_calls, (6, 5, 32), F4, F4),
    (row_calls, (6, 5, 32), F8, F8),
    (batch_calls, (12, 7), F4, F8),
    (batch_calls, (2, 3, 20, 20), F4, F4),
    (batch_calls, (9, 5, 3, 3), F4, F4),
    (one_sample_calls, (1, 6, 7, 5), F4, F4),
    (group_calls, (3, 6, 9, 8), F4, F4),
    (batch_calls, (700, 60), F4, F4),  # from here on for several threads; in two walks
    (batch_calls, (4, 24, 40, 40), F4, F4),
    (row_calls, (300, 2, 250), F4, F4),
    (row_calls, (5001, 70), F4, F4),
    (row_calls, (9, 5003), F4, F4),  # cut along their elements
    (row_calls, (50, 1000), F4, F8),
    (one_sample_calls, (1, 1200, 7, 5), F4, F8),
    (group_calls, (40, 6, 30, 8), F4, F4),
]
CALLS = [
    (f"{name}-{np.dtype(dtype)}-{'x'.join(map(str, shape))}", shape, call, dtype)
    for calls, shape, dtype, of_parameters in SHAPES
    for name, call in calls(shape, dtype, of_parameters).items()
]


def copies(result: Any) -> list[Array]:
    return [np.array(a) for a in result]


def same(result: Any, wanted: list[Array]) -> None:
    assert len(result) == len(wanted)
    for a, b in zip(result, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)


@pytest.mark.parametrize(("shape", "call", "dtype"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_every_call_has_the_bits_of_the_first(shape: tuple[int, ...], call: Callable[..., Any], dtype: Any) -> None:
    x, other = arrays(shape, dtype, 2, seed=3)
    wanted, of_other = copies(call(x, None)), copies(call(other, None))
    assert not few._known
    for _ in range(PATIENCE + 2):
        same(call(x, None), wanted)
    assert [f._ready for f in few._known.values()] == [True], "this kind of call was not compiled"
    same(call(other, None), of_other)
    out = np.full_like(x, 7)
    result = call(x, out)
    assert result[0] is out
    same(result, wanted)
    inside = x.copy()
    same(call(inside, inside), wanted)
    x[0, 0] = np.nan
    for memory in (few._known, few._offered, calls._known):
        memory.clear()
    for nan, known in itertools.pairwise([copies(call(x, None)) for _ in range(PATIENCE + 3)]):
        same(nan, known)


def ready(call: Callable[[], Any]) -> None:
    for _ in range(PATIENCE + 2):
        call()
    assert few._known


def test_other_arrays_of_the_same_shape_go_the_usual_way() -> None:
    (base,) = arrays((6, 64), np.float32, 1)
    x, gamma = base[:, ::2].copy(), np.ones(32, np.float32)
    wanted = fn.layer_norm(x, gamma)
    ready(lambda: fn.layer_norm(x, gamma))
    locked = x.copy()
    locked.flags.writeable = False
    misaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    for other in (base[:, ::2], np.asfortranarray(x), x.astype(">f4"), locked, misaligned, x.tolist(), x.view(Subclass)):
        for _ in range(PATIENCE + 2):
            np.testing.assert_allclose(fn.layer_norm(other, gamma), wanted, rtol=2e-6, atol=2e-6)
            np.testing.assert_array_equal(fn.layer_norm(x, gamma), wanted)
    np.testing.assert_array_equal(fn.layer_norm(x, np.ones(32)), wanted)
    out = np.zeros(x.shape)
    np.testing.assert_allclose(fn.layer_norm(x, gamma, out=out), wanted, rtol=2e-6, atol=2e-6)


def test_two_kinds_in_turns_are_both_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gamma and without, in two dtypes: each drove the other out, at 0.1 ms a call."""
    monkeypatch.setattr(few, "PATIENCE", 5)  # calls after which it was always the turn of the first
    served: list[bool] = []
    run = few.Few.run
    monkeypatch.setattr(few.Few, "run", lambda *arguments: served.append(run(*arguments)) or served[-1])
    (x,) = arrays((4, 96), F4, 1)
    kinds = [(*vectors(96, F4, 2),), (None, None), (*vectors(96, F8, 2),)]
    wanted = [fn.layer_norm(x, *kind) for kind in kinds]
    for _ in range(24):
        for kind, y in zip(kinds, wanted, strict=True):
            np.testing.assert_array_equal(fn.layer_norm(x, *kind), y)
    assert all(served[-3 * len(kinds) :])


def test_errors_are_those_of_the_first_call() -> None:
    (x,) = arrays((6, 32), np.float32, 1)
    gamma, mean, var = np.ones(32, np.float32), np.zeros(32), np.ones(32)
    locked = np.zeros_like(x)
    locked.flags.writeable = False
    ready(lambda: fn.layer_norm(x, gamma))
    ready(lambda: fn.batch_norm_train(x, gamma, running_mean=mean, running_var=var))
    ready(lambda: fn.batch_norm(x, mean, var))
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: fn.layer_norm(x, gamma[:5].copy()), ValueError, "gamma has shape"),
        (lambda: fn.layer_norm(x, gamma.reshape(2, 16)), ValueError, "gamma has shape"),
        (lambda: fn.layer_norm(x, gamma.astype(int)), TypeError, "gamma has dtype"),
        (lambda: fn.layer_norm(x, gamma, out=np.zeros((32, 6), np.float32)), ValueError, "out has shape"),
        (lambda: fn.layer_norm(x, gamma, out=locked), ValueError, "out is read-only"),
        (lambda: fn.layer_norm(x, gamma, out=np.zeros(x.shape, int)), TypeError, "out has dtype"),
        (lambda: fn.layer_norm(np.ma.masked_array(x), gamma), TypeError, "masked array"),
        (lambda: fn.layer_norm(x, gamma, axis=-1.0), TypeError, "axis"),  # type: ignore[arg-type]
        (lambda: fn.batch_norm_train(x, gamma, momentum=1.5), ValueError, "momentum"),
        (lambda: fn.batch_norm_train(x, gamma, running_mean=mean[:3], running_var=var), ValueError, "running_mean has shape"),
        (lambda: fn.batch_norm_train(x, gamma, running_mean=mean.astype(int), running_var=var), TypeError, "running_mean has dtype"),
        (lambda: fn.batch_norm(x, mean, var[:4].copy()), ValueError, "var has shape"),
    ]
    planes = x.reshape(3, 4, 4, 4)
    of_groups = fn.group_norm(planes, 2, return_stats=True)[1:]
    ready(lambda: fn.group_norm_backward(planes, planes, 2, *of_groups))
    wrong += [
        (lambda: fn.group_norm_backward(planes, planes, 2, of_groups[0].reshape(-1), of_groups[1]), ValueError, "mean has shape"),
        (lambda: fn.group_norm_backward(planes, planes, 2, of_groups[0].T.copy(), of_groups[1]), ValueError, "mean has shape"),
        (lambda: fn.group_norm_backward(planes, planes, 2, of_groups[0], of_groups[1][:2].copy()), ValueError, "rstd has shape"),
        (lambda: fn.group_norm_backward(planes, planes, 2, *of_groups, gamma[:3].copy()), ValueError, "gamma has shape"),
        (lambda: fn.group_norm_backward(planes[:2].copy(), planes, 2, *of_groups), ValueError, "dy has shape"),
        (lambda: fn.group_norm_backward(planes, planes, 2, None, of_groups[1]), TypeError, "mean"),
    ]
    before = mean.copy(), var.copy()
    for call, error, message in wrong:
        for _ in range(2):
            with pytest.raises(error, match=message):
                call()
        ready(lambda: fn.layer_norm(x, gamma))
    np.testing.assert_array_equal((mean, var), before)
    assert not locked.any()


def test_one_value_per_channel_is_refused_after_many_calls_too() -> None:
    x, mean, var = np.ones((1, 5), np.float32), np.zeros(5), np.ones(5)
    for _ in range(PATIENCE + 3):
        fn.batch_norm_train(x, running_mean=mean, running_var=var, unbiased=False)
    before = mean.copy()
    with pytest.raises(ValueError, match="one value per channel"):
        fn.batch_norm_train(x, running_mean=mean, running_var=var)
    np.testing.assert_array_equal(mean, before)


def test_overlapping_outputs_give_what_a_copy_gives() -> None:
    memory = np.random.default_rng(0).standard_normal(8 * 32 + 16).astype(np.float32)
    x = memory[: 6 * 32].reshape(6, 32)
    gamma = memory[6 * 32 : 7 * 32]
    wanted = fn.layer_norm(x.copy(), gamma.copy())
    ready(lambda: fn.layer_norm(x, gamma, out=np.empty_like(x)))
    original = memory.copy()
    for start in (8, 16, 32, 40):  # over x, and over x and gamma
        memory[:] = original
        out = memory[start : start + 6 * 32].reshape(6, 32)
        np.testing.assert_array_equal(fn.layer_norm(x, gamma, out=out), wanted)


@pytest.mark.parametrize("shape", [(4, 24, 40, 40), (700, 60)], ids=str)
def test_stores_that_bypass_the_cache_change_no_bit(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    (x,) = arrays(shape, np.float32, 1)
    for name, call in batch_calls(shape, np.float32, np.float32).items():
        wanted = copies(call(x, None))
        with monkeypatch.context() as patched:
            patched.setattr(schedule, "streaming_stores_pay", lambda: True)
            patched.setattr(schedule, "last_level_cache_bytes", lambda _: 0)
            calls._known.clear()
            for _ in range(PATIENCE + 2):
                same(call(x, None), wanted)
        assert any(f._ready for f in few._known.values()), name
        forget()


def test_a_batch_of_one_keeps_its_bits() -> None:
    """Its statistics are single runs, which are summed as the rows of layer norm are."""
    (x,) = arrays((1, 3, 5, 5), np.float32, 1)
    wanted = copies(fn.batch_norm_train(x))
    for _ in range(PATIENCE + 3):
        same(fn.batch_norm_train(x), wanted)


def test_larger_calls_and_other_options_are_not_compiled() -> None:
    x = np.ones((2050, 2050), np.float32)
    assert x.size > few.FEW_ELEMENTS
    for _ in range(PATIENCE + 2):
        fn.layer_norm(x)
        fn.batch_norm_train(x[:4].copy(), activation="relu")
        fn.layer_norm(x[:4].copy(), axis=0)
        fn.layer_norm(x[:0])
        fn.layer_norm(x[:4].astype(np.float16))
    assert not few._known


@pytest.mark.parametrize("shape", [(6, 4, 32), (3, 4, 300)])
def test_statistics_are_asked_for_now_and_then(shape: tuple[int, ...]) -> None:
    """Short rows write none that nobody asks for, by the same compiled function."""
    (x,) = arrays(shape, np.float32, 1)
    kinds: list[Callable[[bool], Any]] = [
        lambda wanted: fn.layer_norm(x, return_stats=wanted),
        lambda wanted: fn.rms_norm(x, return_stats=wanted),
        lambda wanted: fn.group_norm(x, 2, return_stats=wanted),
    ]
    for call in kinds:
        with_statistics, alone = copies(call(True)), call(False)
        for k in range(2 * PATIENCE + 4):
            same((call(False),), [alone])
            if k % 2:
                same(call(True), with_statistics)
        assert any(f._ready for f in few._known.values())
        forget()


@pytest.mark.parametrize("which", ["out", "mean", "gamma"])
def test_another_byte_order_after_a_misaligned_array(which: str) -> None:
    """Numba takes the one for the other: it knows both by number of axes, order and type."""
    x, gamma, mean = arrays((8, 16), F4, 1)[0], *vectors(16, F4, 2)
    given = {"out": np.zeros_like(x), "mean": mean, "gamma": gamma}

    def call(**others: Array) -> Array:
        a = given | others
        return fn.batch_norm(x, a["mean"], np.ones(16, F4), a["gamma"], out=a["out"])

    for _ in range(2 * few.PATIENCE + 2):
        expected = call().copy()
    raw = np.zeros(given[which].nbytes + 1, np.uint8)[1:]
    misaligned = raw.view(F4).reshape(given[which].shape)
    misaligned[...] = given[which]
    np.testing.assert_allclose(call(**{which: misaligned}), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(call(**{which: given[which].astype(">f4")}), expected, rtol=1e-6, atol=1e-6)
