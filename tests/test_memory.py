"""No temporary as large as the input. NumPy reports its allocations to tracemalloc."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import cases
import numpy as np
import pytest
from cases import Problem

import fastnorm as fn

PROBLEM = Problem((64, 16, 96, 96))  # 9.4 million elements
SHARE = 0.01  # of the input's bytes: the target of the bench for large arrays
# Scratch of one thread, which tracemalloc sees too: eight float64 and three float32 vectors along a folded row of 8192 bytes.
TILES = (8 * 8 + 3 * 4) * (8192 // 4 + 80)


def little(x: np.ndarray) -> float:
    """What a call may allocate beside its result: O(statistics) and tiles, whatever the threads do at the same time."""
    return SHARE * x.nbytes + TILES * fn.get_num_threads()


def peak(call: Callable[[], object]) -> int:
    call()  # compiled, and lasting buffers made
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_tracemalloc_sees_a_temporary() -> None:
    assert peak(lambda: np.ones(10_000).sum()) >= 80_000


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(PROBLEM.shape, np.float32)


@pytest.mark.parametrize("axis", [1, -1], ids=["planar", "interleaved"])
def test_forward_and_inference_with_out(x: np.ndarray, axis: int) -> None:
    out, channels = np.empty_like(x), x.shape[axis]
    mean, var = np.zeros(channels), np.ones(channels)
    assert peak(lambda: fn.batch_norm_train(x, axis=axis, out=out)) < little(x)
    assert peak(lambda: fn.batch_norm(x, mean, var, axis=axis, out=out)) < little(x)
    assert peak(lambda: fn.batch_norm_train(x, axis=axis, out=x)) < little(x)


@pytest.mark.parametrize("axis", [1, -1], ids=["planar", "interleaved"])
def test_backward_with_out(x: np.ndarray, axis: int) -> None:
    out, channels = np.empty_like(x), x.shape[axis]
    mean, rstd = np.zeros(channels), np.ones(channels)
    assert peak(lambda: fn.batch_norm_backward(x, x, mean, rstd, rstd, axis=axis, out=out)) < little(x)


def test_a_fresh_result_is_the_only_large_allocation(x: np.ndarray) -> None:
    assert peak(lambda: fn.batch_norm_train(x)) < x.nbytes + little(x)
    assert peak(lambda: fn.mean_var(x, (0, 2, 3))) < little(x)


def test_strides_that_collapse_are_read_in_place(x: np.ndarray) -> None:
    for view, axis in (
        (x[:, ::2], 1),
        (x[::2], 1),
        (x[::-1], 1),
        (x.transpose(0, 2, 3, 1), -1),
        (x.transpose(3, 2, 1, 0), 2),
        (x.transpose(1, 0, 2, 3), 0),
    ):
        out = np.empty_like(view)
        statistics = np.zeros(view.shape[axis]), np.ones(view.shape[axis])
        assert peak(lambda v=view, a=axis, o=out: fn.batch_norm_train(v, axis=a, out=o)) < little(view)
        assert peak(lambda v=view, a=axis, o=out, s=statistics: fn.batch_norm(v, *s, axis=a, out=o)) < little(view)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_input_of_another_dtype_is_not_converted_first(dtype: type) -> None:
    x = np.random.default_rng(0).integers(0, 100, PROBLEM.shape).astype(dtype)
    out = np.empty(PROBLEM.shape, np.float32)
    assert peak(lambda: fn.batch_norm_train(x, out=out)) < little(out)


def test_strides_that_do_not_collapse_cost_one_copy(x: np.ndarray) -> None:
    view = x[:, :, ::2, ::-1]
    out = np.empty_like(view)
    assert peak(lambda: fn.batch_norm_train(view, out=out)) < view.nbytes + little(view)


def test_misaligned_and_big_endian_input_costs_at_most_one_copy(x: np.ndarray) -> None:
    for view in (cases.misaligned(x), cases.big_endian(x)):
        out = np.empty(x.shape, np.float32)
        assert peak(lambda v=view, o=out: fn.batch_norm_train(v, out=o)) < x.nbytes + little(x)
