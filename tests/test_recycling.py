"""`recycle_outputs`: memory of garbage and of nothing else, bounded, for all threads."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import RunPython

import fastnorm as fn
from fastnorm.runtime import recycling

LARGE = (64, 64, 64)  # 1 MB of float32
BIG = 1 << 30


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return rng.standard_normal(LARGE, np.float32)


@pytest.fixture(autouse=True)
def what_others_left() -> Iterator[None]:
    """Not to be looked through by every collection here."""
    gc.freeze()
    yield
    gc.unfreeze()


def place(array: np.ndarray[Any, Any]) -> int:
    return int(array.ctypes.data)


def test_memory_of_garbage_is_used_again_and_the_numbers_are_the_same(x: np.ndarray[Any, Any]) -> None:
    wanted = fn.batch_norm_train(x)
    places = set()
    with fn.recycle_outputs(BIG):
        for _ in range(5):
            y, mean, rstd = fn.batch_norm_train(x)
            np.testing.assert_array_equal(y, wanted.y)
            np.testing.assert_array_equal(mean, wanted.mean)
            np.testing.assert_array_equal(rstd, wanted.rstd)
            places.add(place(y))
            del y
    assert len(places) == 1


@pytest.mark.parametrize(
    "keep",
    [
        lambda y: y,
        lambda y: y[3:, ::2],
        lambda y: y.T,
        lambda y: y.reshape(-1).view(np.uint8),
        lambda y: memoryview(y),
        lambda y: np.frombuffer(y, np.float32)[5:],
        lambda y: np.broadcast_to(y[0], (2, *y.shape[1:])),
        lambda y: y.ravel()[100:].reshape(-1, 4)[:, 1],
        lambda y: np.lib.stride_tricks.sliding_window_view(y[0], 3, axis=0),
    ],
    ids=["itself", "slice", "transpose", "bytes", "memoryview", "frombuffer", "broadcast", "view of view", "windows"],
)
def test_memory_that_is_referred_to_is_never_handed_out(keep: Any, x: np.ndarray[Any, Any]) -> None:
    with fn.recycle_outputs(BIG):
        y = fn.layer_norm(x)
        first, held = place(y), keep(y)
        before = np.array(held)
        del y
        gc.collect()
        others = [fn.layer_norm(x + k) for k in range(3)]
        assert first not in {place(other) for other in others}
        np.testing.assert_array_equal(np.array(held), before)
        del held
        gc.collect()
        assert place(fn.layer_norm(x)) == first


def test_a_result_outlives_its_block(x: np.ndarray[Any, Any]) -> None:
    with fn.recycle_outputs(BIG) as recycler:
        y = fn.layer_norm(x)
    wanted = fn.layer_norm(x)
    np.testing.assert_array_equal(y, wanted)
    del y
    assert recycler.free_bytes == 0


def test_what_is_kept_is_bounded_and_freed_at_the_end(x: np.ndarray[Any, Any]) -> None:
    bound = 3 * x.nbytes
    with fn.recycle_outputs(bound) as recycler:
        results = [fn.rms_norm(x) for _ in range(8)]
        assert len({place(y) for y in results}) == 8
        del results
        assert 0 < recycler.free_bytes <= bound
    assert recycler.free_bytes == 0


def test_a_bound_of_nothing_keeps_nothing(x: np.ndarray[Any, Any]) -> None:
    with fn.recycle_outputs(0) as recycler:
        fn.layer_norm(x)
        assert recycler.free_bytes == 0


def test_blocks_nest_and_end_in_any_order(x: np.ndarray[Any, Any]) -> None:
    outer, inner = fn.recycle_outputs(BIG), fn.recycle_outputs(BIG)
    with outer:
        inner.__enter__()
        fn.layer_norm(x)
        assert (outer.free_bytes, inner.free_bytes > 0) == (0, True)  # type: ignore[attr-defined]
    fn.layer_norm(x)
    assert recycling._active is inner
    inner.__exit__(None, None, None)
    assert recycling._active is None
    with outer, outer:  # once more, and twice
        fn.layer_norm(x)
    assert recycling._active is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, "bfloat16"])
def test_results_are_aligned_and_ordered_as_without(dtype: Any, rng: np.random.Generator) -> None:
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    base = rng.standard_normal((64, 32, 48, 4)).astype(dtype)
    for x in (base, base.transpose(0, 3, 1, 2), np.asfortranarray(base), base[:, ::-1], base[::2]):
        plain = fn.batch_norm_train(x, axis=1).y
        with fn.recycle_outputs(BIG):
            y = fn.batch_norm_train(x, axis=1).y
        assert place(y) % 64 == 0
        assert (y.strides, y.dtype, y.flags.writeable) == (plain.strides, plain.dtype, True)
        np.testing.assert_array_equal(y, plain)


def test_gradients_images_and_scalers_take_part(x: np.ndarray[Any, Any], rng: np.random.Generator) -> None:
    images = rng.integers(0, 255, (8, 64, 64, 3), np.uint8)
    table = x.reshape(-1, 64)
    _, mean, rstd = fn.batch_norm_train(x)
    calls: list[Any] = [
        lambda: fn.batch_norm(x, mean, mean * 0 + 1),
        lambda: fn.batch_norm_backward(x, x, mean, rstd).dx,
        lambda: fn.group_norm(x, 4),
        lambda: fn.instance_norm_backward(x, x, np.zeros((64, 64)), np.ones((64, 64))).dx,
        lambda: fn.add_layer_norm(x, x).h,
        lambda: fn.normalize_images(images, [0.5] * 3, [0.2] * 3),
        lambda: fn.zscore(table),
        lambda: fn.preprocessing.StandardScaler().fit_transform(table),
    ]
    for call in calls:
        with fn.recycle_outputs(BIG) as recycler:
            call()
            call()
            assert recycler.free_bytes > 0


def test_small_results_are_made_as_always() -> None:
    with fn.recycle_outputs(BIG) as recycler:
        assert fn.layer_norm(np.ones((8, 8))).flags.owndata
        assert recycler.free_bytes == 0


def test_many_threads_never_share_a_block(rng: np.random.Generator) -> None:
    wrong: list[Any] = []
    inputs = [rng.standard_normal((n, 64), np.float32) for n in (1000, 1010, 2000, 3000)]
    wanted = [fn.layer_norm(x) for x in inputs]

    def work(seed: int) -> None:
        order = np.random.default_rng(seed)
        held: list[tuple[int, np.ndarray[Any, Any]]] = []
        for _ in range(150):
            k = int(order.integers(len(inputs)))
            held.append((k, fn.layer_norm(inputs[k])))
            if len(held) > 4:
                j, y = held.pop(int(order.integers(len(held))))
                if not np.array_equal(y, wanted[j]):
                    wrong.append(j)

    with fn.recycle_outputs(4 << 20) as recycler:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert recycler.free_bytes <= 4 << 20
    assert not wrong
    assert recycler.free_bytes == 0


def test_collection_in_the_middle_of_a_request_does_not_wait(x: np.ndarray[Any, Any]) -> None:
    """A result in a cycle is collected whenever the collector runs: also while the lock is held."""
    with fn.recycle_outputs(BIG) as recycler:
        cycle: list[Any] = [fn.layer_norm(x)]
        cycle.append(cycle)
        del cycle
        with recycler._lock:
            gc.collect()
            assert recycler.free_bytes == 0
            y = fn.layer_norm(x)  # does not wait either
        del y
        assert recycler.free_bytes >= 2 * x.nbytes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on(run_python: RunPython) -> None:
    code = """
import os
import numpy as np
import fastnorm as fn
x = np.random.default_rng(0).standard_normal((64, 64, 64), np.float32)
with fn.recycle_outputs(1 << 30) as recycler:
    wanted = fn.layer_norm(x)
    with recycler._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(fn.layer_norm(x), wanted) and recycler.free_bytes > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
"""
    run_python("-c", code)


@pytest.mark.parametrize(("value", "error"), [(1.5, TypeError), ("1", TypeError), (None, TypeError), (True, TypeError), (-1, ValueError)])
def test_bad_bounds(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_bytes"):
        fn.recycle_outputs(value)
