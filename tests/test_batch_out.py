"""``out=`` of batch normalization: any memory, any float dtype, in place, and in the memory of an input."""

from __future__ import annotations

import cases
import numpy as np
import pytest
from cases import VIEWS, Problem
from checks import check_inference, check_train

import fastnorm as fn

PLANAR, INTERLEAVED = Problem((6, 4, 9, 11)), Problem((6, 9, 11, 4), -1)
TRAVERSALS = pytest.mark.parametrize("problem", [PLANAR, INTERLEAVED], ids=["planar", "interleaved"])


def filled(problem: Problem, dtype: np.dtype = cases.F4) -> np.ndarray:
    return np.full(problem.shape, 3, dtype)


@pytest.mark.parametrize("view", cases.WRITABLE_VIEWS)
def test_out_in_every_kind_of_memory(view: str) -> None:
    for problem in (PLANAR, INTERLEAVED, Problem((37, 5)), Problem((5, 37), 0)):
        check_train(cases.sample(problem), problem.axis, out=VIEWS[view](filled(problem)))
        check_inference(
            cases.sample(problem), np.zeros(problem.channels), np.ones(problem.channels), problem.axis, out=VIEWS[view](filled(problem))
        )


@pytest.mark.parametrize("view", ["every second, axis 1", "every second, last axis", "inner part", "negative strides"])
def test_nothing_is_written_beside_a_strided_out(view: str) -> None:
    for problem in (PLANAR, INTERLEAVED):
        x = cases.sample(problem)
        out = VIEWS[view](filled(problem))
        owner = out
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        owner[...] = 77
        fn.batch_norm_train(x, axis=problem.axis, out=out)
        out[...] = 77
        assert (owner == 77).all()


PAIRS = [
    ("float32", "float64"), ("float32", "float16"), ("float32", "bfloat16"), ("float64", "float32"),
    ("float16", "float32"), ("uint8", "float32"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "out_dtype"), [p for p in PAIRS if cases.BFLOAT16 is not None or "bfloat16" not in p])
def test_out_of_another_float_dtype(dtype: str, out_dtype: str) -> None:
    check_train(cases.sample(PLANAR, cases.dtype_of(dtype)), out=filled(PLANAR, cases.dtype_of(out_dtype)))


def test_out_of_another_float_dtype_interleaved_and_in_inference() -> None:
    check_train(cases.sample(INTERLEAVED), INTERLEAVED.axis, out=filled(INTERLEAVED, cases.F2))
    check_inference(cases.sample(PLANAR), np.zeros(4), np.ones(4), out=filled(PLANAR, cases.F2))


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
@TRAVERSALS
def test_in_place(problem: Problem, dtype: np.dtype) -> None:
    x = cases.sample(problem, dtype)
    fresh = fn.batch_norm_train(x, axis=problem.axis).y
    check_train(x, problem.axis, out=x, shared=True)
    np.testing.assert_array_equal(x, fresh)


@pytest.mark.parametrize("view", cases.WRITABLE_VIEWS)
def test_in_place_in_every_kind_of_memory(view: str) -> None:
    x = VIEWS[view](cases.sample(PLANAR))
    check_train(x, out=x, shared=True)
    x = VIEWS[view](cases.sample(PLANAR))
    check_inference(x, np.zeros(4), np.ones(4), out=x, shared=True)


@TRAVERSALS
def test_out_may_be_the_residual(problem: Problem) -> None:
    x, residual = cases.sample(problem), cases.sample(problem, seed=1)
    check_train(x, problem.axis, activation="relu", residual=residual, out=residual, shared=True)
    x, residual = cases.sample(problem), cases.sample(problem, seed=1)
    check_inference(x, np.zeros(4), np.ones(4), problem.axis, residual=residual, out=residual, shared=True)


@TRAVERSALS
def test_input_residual_and_out_may_be_one_array(problem: Problem) -> None:
    x = cases.sample(problem)
    check_train(x, problem.axis, activation="relu", residual=x, out=x, shared=True)


@TRAVERSALS
@pytest.mark.parametrize("shift", [-64, -1, 1, 3, 100])
@pytest.mark.parametrize("shared_input", ["x", "residual"])
def test_out_that_overlaps_partially_acts_as_a_copy(shared_input: str, shift: int, problem: Problem) -> None:
    size = int(np.prod(problem.shape))
    buffer = np.zeros(size + 200, np.float32)
    moved = buffer[100 : 100 + size].reshape(problem.shape)
    moved[...] = cases.sample(problem, seed=1)
    out = buffer[100 + shift : 100 + shift + size].reshape(problem.shape)
    x = moved if shared_input == "x" else cases.sample(problem)
    residual = None if shared_input == "x" else moved
    check_train(x, problem.axis, residual=residual, out=out, shared=True)
    moved[...] = cases.sample(problem, seed=1)
    check_inference(x, np.zeros(4), np.ones(4), problem.axis, residual=residual, out=out, shared=True)


def test_out_that_is_a_reversed_or_transposed_input_acts_as_a_copy() -> None:
    x = cases.sample(PLANAR)
    check_train(x, out=x[::-1], shared=True)
    x = cases.sample(PLANAR)
    check_train(x, out=x[..., ::-1], shared=True)
    square = cases.sample(Problem((20, 20)))
    check_train(square, out=square.T, shared=True)
    square = cases.sample(Problem((20, 20)))
    check_inference(square, np.zeros(20), np.ones(20), 0, out=square.T, shared=True)


def test_every_second_element_of_one_buffer() -> None:
    """x and out interleave in memory without sharing an element."""
    buffer = np.zeros((6, 4, 9, 22), np.float32)
    x, out = buffer[..., ::2], buffer[..., 1::2]
    x[...] = cases.sample(PLANAR)
    check_train(x, out=out)


def test_out_in_the_memory_of_another_dtype() -> None:
    """float64 results over float32 input, both in the same bytes."""
    memory = np.zeros(int(np.prod(PLANAR.shape)) * 8, np.uint8)
    x = memory[: memory.size // 2].view(np.float32).reshape(PLANAR.shape)
    x[...] = cases.sample(PLANAR)
    check_train(x, out=memory.view(np.float64).reshape(PLANAR.shape), shared=True)


def test_out_that_covers_a_parameter_acts_as_a_copy() -> None:
    """float64 parameters need no conversion that would be a copy by chance."""
    x, out = cases.sample(PLANAR, cases.F8), filled(PLANAR, cases.F8)
    gamma, beta = out.reshape(-1)[:4], out.reshape(-1)[-4:]
    gamma[...], beta[...] = cases.parameter(4), cases.parameter(4, seed=2)
    check_train(x, gamma=gamma, beta=beta, out=out, shared=True)


def test_out_that_covers_the_statistics_acts_as_a_copy() -> None:
    out = filled(PLANAR, cases.F8)
    mean, var = out.reshape(-1)[:4], out.reshape(-1)[-4:]
    mean[...], var[...] = cases.parameter(4), cases.parameter(4, seed=2) ** 2
    check_inference(cases.sample(PLANAR, cases.F8), mean, var, out=out, shared=True)


@pytest.mark.parametrize("problem", [cases.LARGE["large planes"], cases.LARGE["large channels last"]], ids=["planar", "interleaved"])
def test_large_in_place_and_overlapping(problem: Problem) -> None:
    size = int(np.prod(problem.shape))
    buffer = np.zeros(size + 4096, np.float32)
    for shift in (0, 17, 4096):
        x = buffer[:size].reshape(problem.shape)
        x[...] = cases.sample(problem)
        check_train(x, problem.axis, out=buffer[shift : shift + size].reshape(problem.shape), shared=True)


def test_out_without_elements() -> None:
    """NumPy gives such an array strides of 0, as if its elements shared memory."""
    x = np.empty((0, 4, 5), np.float32).copy()
    assert fn.batch_norm_train(x, out=x).y is x
    assert fn.batch_norm_backward(x, x, np.zeros(4), np.ones(4), out=x).dx is x
