"""A call that has been made often is a short one (`ops.few`), and still refuses what the first one refuses, and has its bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnorm as fn
from fastnorm.ops.few import PATIENCE

OFTEN = 2 * PATIENCE + 4
RNG = np.random.default_rng(7)
X = RNG.standard_normal((6, 8)).astype(np.float32)
IMAGES = RNG.standard_normal((4, 8, 5)).astype(np.float32)
ONES = np.ones(8, np.float32)
BATCH = fn.batch_norm_train(X)
ROWS = fn.layer_norm(X, return_stats=True)
GROUPS = fn.group_norm(IMAGES, 4, return_stats=True)

Call = Callable[..., Any]
REFUSED: dict[str, tuple[Call, list[dict[str, Any]]]] = {
    "train": (lambda gamma=ONES, beta=None: fn.batch_norm_train(X, gamma, beta), [{"gamma": ONES[None]}, {"beta": ONES.reshape(2, 4)}]),
    "inference": (
        lambda mean=ONES, var=ONES, gamma=ONES: fn.batch_norm(X, mean, var, gamma),
        [{"mean": None}, {"var": None}, {"mean": ONES[None]}, {"var": ONES[:, None]}, {"gamma": ONES[None]}],
    ),
    "backward": (
        lambda mean=BATCH.mean, rstd=BATCH.rstd, gamma=ONES: fn.batch_norm_backward(X, X, mean, rstd, gamma),
        [{"mean": None}, {"rstd": None}, {"mean": BATCH.mean[None]}, {"gamma": ONES[None]}],
    ),
    "layer norm": (lambda gamma=ONES: fn.layer_norm(X, gamma), [{"gamma": ONES[None]}, {"gamma": ONES.reshape(4, 2)}]),
    "layer norm backward": (
        lambda mean=ROWS.mean, rstd=ROWS.rstd, gamma=ONES: fn.layer_norm_backward(X, X, mean, rstd, gamma),
        [{"mean": None}, {"rstd": None}, {"gamma": ONES[None]}, {"mean": ROWS.mean[None]}],
    ),
    "RMS norm backward": (lambda rstd=ROWS.rstd: fn.rms_norm_backward(X, X, rstd, ONES), [{"rstd": None}, {"rstd": ROWS.rstd[None]}]),
    "group norm": (lambda gamma=ONES: fn.group_norm(IMAGES, 4, gamma), [{"gamma": ONES.reshape(2, 4)}, {"gamma": np.ones((), np.float32)}]),
    "group norm backward": (
        lambda mean=GROUPS.mean, rstd=GROUPS.rstd, gamma=ONES: fn.group_norm_backward(IMAGES, IMAGES, 4, mean, rstd, gamma),
        [{"mean": None}, {"rstd": None}, {"mean": GROUPS.mean.reshape(-1)}, {"gamma": ONES[None]}],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_stays_refused(name: str) -> None:
    call, wrong = REFUSED[name]
    for _ in range(OFTEN):
        call()
    for options in wrong:
        for _ in range(OFTEN):
            with pytest.raises((TypeError, ValueError)):
                call(**options)
    for _ in range(OFTEN):
        call()


@pytest.mark.parametrize("name", ["batch", "layer", "rms", "group"])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_gradients_of_another_dtype_keep_their_bits(name: str, dtype: type) -> None:
    """Kinds of calls that have been compiled for one dtype must not take another in another way than before."""
    dy = (RNG.standard_normal(IMAGES.shape) + 100).astype(dtype)
    mean, rstd = fn.batch_norm_train(IMAGES)[1:]
    rows, of_rms = fn.layer_norm(IMAGES, return_stats=True), fn.rms_norm(IMAGES, return_stats=True)
    call: Call = {
        "batch": lambda dy: fn.batch_norm_backward(dy, IMAGES, mean, rstd, ONES),
        "layer": lambda dy: fn.layer_norm_backward(dy, IMAGES, rows.mean, rows.rstd),
        "rms": lambda dy: fn.rms_norm_backward(dy, IMAGES, of_rms.rstd),
        "group": lambda dy: fn.group_norm_backward(dy, IMAGES, 4, GROUPS.mean, GROUPS.rstd, ONES),
    }[name]
    first = call(dy)
    for _ in range(OFTEN):
        call(dy.astype(np.float32))
    for _ in range(OFTEN):
        for found, wanted in zip(call(dy), first, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_narrow_gradients_of_wide_columns() -> None:
    """Summed in the dtype of x, not in their own."""
    dy = np.repeat(np.array([[2**24], [1], [1], [1], [-(2**24)], [0], [0], [0]], np.float32), 2, 1)
    x = np.arange(16.0).reshape(8, 2)
    for _ in range(OFTEN):
        np.testing.assert_array_equal(fn.batch_norm_backward(dy, x, [0.0, 0], [1.0, 1]).dbeta, 3.0)
    wide = np.repeat(dy, 2048, 1)
    _, mean, rstd = fn.layer_norm(wide.astype(np.float64), return_stats=True)
    np.testing.assert_array_equal(fn.layer_norm_backward(wide, np.ones(wide.shape), mean * 0, rstd * 0 + 1).dbeta, 3.0)


@pytest.mark.parametrize("add", [fn.add_layer_norm, fn.add_rms_norm])
@pytest.mark.parametrize("axis", [-1, (0, 2)])
def test_sums_are_rounded_to_the_dtype_of_x(add: Call, axis: Any) -> None:
    """Whatever the dtype of the array that receives them."""
    for x, dtype in ((IMAGES.astype(np.float64) / 3, np.float16), (IMAGES.astype(np.float16), np.float32)):
        y, h = add(x, x[::-1], axis=axis)
        out = np.zeros(x.shape, dtype)
        found, kept = add(x, x[::-1], axis=axis, out=(None, out))
        assert kept is out
        np.testing.assert_array_equal(found, y)
        np.testing.assert_array_equal(out, h.astype(dtype))


def test_outputs_that_lie_between_each_other() -> None:
    both = np.zeros((6, 2, 8), np.float32)
    pair = both[:, 0], both[:, 1]
    fn.add_layer_norm(X, X, out=pair)
    np.testing.assert_array_equal(both[:, 1], 2 * X)
    np.testing.assert_allclose(both[:, 0], fn.layer_norm(2 * X), atol=1e-6)
    wanted = fn.batch_norm_backward(X, X, BATCH.mean, BATCH.rstd, residual=X)
    for given in (pair, list(pair)):
        both[...] = 0
        found = fn.batch_norm_backward(X, X, BATCH.mean, BATCH.rstd, residual=X, out=given)  # type: ignore[arg-type]
        assert found.dx is pair[0]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="share memory"):
        fn.add_layer_norm(X, X, out=(both[:, 0], both[:, 0]))
    with pytest.raises(ValueError, match="out has 3 arrays but must be a pair"):
        fn.batch_norm_backward(X, X, BATCH.mean, BATCH.rstd, residual=X, out=(None,) * 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only with a residual"):
        fn.batch_norm_backward(X, X, BATCH.mean, BATCH.rstd, out=(None, None))  # type: ignore[arg-type]


def test_parameters_with_masks() -> None:
    masked = np.ma.array(ONES, mask=[1] + 7 * [0])
    calls: list[Callable[[], Any]] = [
        lambda: fn.batch_norm(X, masked, ONES),
        lambda: fn.batch_norm(X, ONES, masked),
        lambda: fn.batch_norm_train(X, masked),
        lambda: fn.batch_norm_backward(X, X, BATCH.mean, BATCH.rstd, masked),
        lambda: fn.group_norm(IMAGES, 4, masked),
        lambda: fn.instance_norm(IMAGES, masked),
        lambda: fn.batch_renorm_train(X, ONES.copy(), ONES.copy(), masked),
        lambda: fn.fold_batch_norm(np.eye(8), None, masked, ONES),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="masked array"):
            call()


def test_momentum_is_a_number() -> None:
    for momentum in (np.array([0.1]), np.array([0.1, 0.1]), None):
        for _ in range(3):
            with pytest.raises(TypeError, match="momentum must be a number"):
                fn.batch_norm_train(X, momentum=momentum)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
def test_results_that_their_dtype_cannot_hold_come_without_a_warning() -> None:
    x, half = X * np.float32(1e4), np.ones(8, np.float16)
    running_mean, running_var, y = np.zeros(8, np.float16), np.ones(8, np.float16), np.zeros_like(X)
    _, mean, rstd = fn.batch_norm_train(x)
    with np.errstate(all="raise"):
        fn.batch_norm_train(x, running_mean=running_mean, running_var=running_var, momentum=1.0, out=y)
        assert np.isinf(running_var).all()
        for size in (1e10, 1e-20):
            dy = x * np.float32(size)
            fn.batch_norm_backward(dy, x, mean, rstd, half)
            fn.batch_norm_backward(dy.astype(np.float64) * 1e-30, x, mean, rstd, half)
            fn.layer_norm_backward(dy, x, ROWS.mean, ROWS.rstd, half)
            fn.batch_renorm_backward(dy, x, mean, rstd, ONES, ONES, half)
            layer = fn.layers.BatchNorm(8, dtype=np.float16)
            layer(x)
            layer.backward(dy)


def test_a_state_of_the_arrays_of_the_layer() -> None:
    layer = fn.layers.LayerNorm(3)
    assert layer.gamma is not None
    assert layer.beta is not None
    layer.gamma[:], layer.beta[:] = [1, 2, 3], [4, 5, 6]
    layer.load_state_dict({"gamma": layer.beta, "beta": layer.gamma})
    np.testing.assert_array_equal(layer.gamma, [4, 5, 6])
    np.testing.assert_array_equal(layer.beta, [1, 2, 3])
