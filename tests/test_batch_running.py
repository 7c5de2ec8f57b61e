"""Running statistics: updated in place, in their own dtype, after the output is complete, and only then."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import oracle
import pytest
import tolerance
from cases import Problem
from tolerance import assert_within

import fastnorm as fn

PLANAR, INTERLEAVED = Problem((6, 4, 9, 11)), Problem((6, 9, 11, 4), -1)
TRAVERSALS = pytest.mark.parametrize("problem", [PLANAR, INTERLEAVED], ids=["planar", "interleaved"])
STATISTICS = pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)


def start(dtype: Any = cases.F4, channels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return cases.parameter(channels, dtype, 5), cases.parameter(channels, dtype, 6) ** 2


def check_update(x: np.ndarray, axis: int, means: np.ndarray, variances: np.ndarray, **options: Any) -> None:
    momentum, unbiased = options.get("momentum", 0.1), options.get("unbiased", True)
    old_mean, old_var = means.copy(), variances.copy()
    batch = oracle.forward(x, axis)
    n = x.size // x.shape[axis]
    batch_var = batch.var * (n / (n - 1) if unbiased else 1.0)
    fn.batch_norm_train(x, axis=axis, running_mean=means, running_var=variances, **options)
    expected_mean, expected_var = oracle.running(old_mean, batch.mean, momentum), oracle.running(old_var, batch_var, momentum)
    mean_bound, var_bound = tolerance.mean(batch.mean, batch.var, x.dtype), tolerance.var(batch_var, x.dtype)
    assert_within(means, expected_mean, tolerance.running(old_mean, expected_mean, momentum, mean_bound, means.dtype), "running_mean")
    assert_within(variances, expected_var, tolerance.running(old_var, expected_var, momentum, var_bound, variances.dtype), "running_var")


@STATISTICS
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.99, 1.0, 1])
@TRAVERSALS
def test_momentum_is_the_weight_of_the_new_batch(problem: Problem, momentum: float, dtype: np.dtype) -> None:
    check_update(cases.sample(problem), problem.axis, *start(dtype), momentum=momentum)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("n", [2, 3, 50])
def test_bessel_correction_is_chosen_by_unbiased(n: int, unbiased: bool) -> None:
    check_update(cases.sample(Problem((n, 4))), 1, *start(cases.F8), momentum=1.0, unbiased=unbiased)


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_input_of_every_dtype_updates_float32_and_float64(dtype: np.dtype) -> None:
    for statistics in (cases.F4, cases.F8):
        check_update(cases.sample(PLANAR, dtype), 1, *start(statistics))


def test_float64_statistics_of_float64_input_are_exact() -> None:
    check_update(cases.sample(PLANAR, cases.F8, offset=1e4), 1, *start(cases.F8), momentum=1.0)


def test_running_arrays_may_differ_in_dtype_and_be_strided() -> None:
    means, variances = np.zeros(8)[::2], np.ones(9, np.float32)[8:0:-2]
    check_update(cases.sample(PLANAR), 1, means, variances)
    assert (means.base[1::2] == 0).all()


def test_two_updates_follow_each_other() -> None:
    means, variances = start(cases.F8)
    check_update(cases.sample(PLANAR), 1, means, variances)
    check_update(cases.sample(PLANAR, seed=9), 1, means, variances)


@TRAVERSALS
def test_output_does_not_depend_on_running_statistics(problem: Problem) -> None:
    x = cases.sample(problem)
    plain = fn.batch_norm_train(x, axis=problem.axis)
    means, variances = start()
    updated = fn.batch_norm_train(x, axis=problem.axis, running_mean=means, running_var=variances)
    for a, b in zip(plain, updated, strict=True):
        np.testing.assert_array_equal(a, b)


def test_running_statistics_may_lie_in_the_memory_of_a_parameter() -> None:
    """They are written after the output is complete: the output uses the parameter as it was."""
    x = cases.sample(PLANAR)
    gamma, variances = start()[1], np.ones(4, np.float32)
    expected = fn.batch_norm_train(x, gamma.copy()).y
    result = fn.batch_norm_train(x, gamma, running_mean=gamma, running_var=variances)
    np.testing.assert_array_equal(result.y, expected)
    assert not np.array_equal(gamma, start()[1])


@pytest.mark.parametrize("calls", [1, 40])
def test_running_statistics_that_share_memory_are_refused(calls: int) -> None:
    x, memory = cases.sample(Problem((8, 3))), np.ones(24)
    before, together = memory.copy(), memory[:3]
    for _ in range(calls):
        fn.batch_norm_train(x, running_mean=np.zeros(3), running_var=np.ones(3))
    for other in (together, together[:], memory[2:5]):
        with pytest.raises(ValueError, match="running_mean and running_var share memory"):
            fn.batch_norm_train(x, running_mean=together, running_var=other)
    with pytest.raises(ValueError, match="running_var and out share memory"):
        fn.batch_norm_train(x, running_mean=np.zeros(3), running_var=together, out=memory.reshape(8, 3))
    with pytest.raises(ValueError, match="running_mean and running_var share memory"):
        fn.batch_renorm_train(x, running_mean=memory[:3], running_var=memory[2:5])
    np.testing.assert_array_equal(memory, before)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3, 3), (3, 4, 0)])
@pytest.mark.parametrize("unbiased", [True, False])
def test_empty_input_leaves_them_alone(unbiased: bool, shape: tuple[int, ...]) -> None:
    means, variances = start()
    fn.batch_norm_train(np.zeros(shape, np.float32), running_mean=means, running_var=variances, unbiased=unbiased)
    np.testing.assert_array_equal(means, start()[0])
    np.testing.assert_array_equal(variances, start()[1])


def test_one_value_per_channel_needs_a_biased_update() -> None:
    x, out = cases.sample(Problem((1, 4))), np.full((1, 4), 3, np.float32)
    means, variances = start()
    with pytest.raises(ValueError, match="unbiased"):
        fn.batch_norm_train(x, running_mean=means, running_var=variances, out=out)
    assert (out == 3).all()
    np.testing.assert_array_equal(means, start()[0])
    np.testing.assert_array_equal(variances, start()[1])
    check_update(x, 1, means, variances, unbiased=False, momentum=0.5)
    assert fn.batch_norm_train(x, None, np.ones(4)).y.tolist() == [[1.0] * 4]


def test_nan_reaches_its_own_running_statistic_only() -> None:
    x = cases.sample(PLANAR)
    x[0, 2, 0, 0] = np.nan
    means, variances = start()
    fn.batch_norm_train(x, running_mean=means, running_var=variances)
    np.testing.assert_array_equal(np.isnan(means), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(variances), [False, False, True, False])
