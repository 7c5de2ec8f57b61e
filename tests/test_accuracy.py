"""The error bound far from 0, over thirty decades of std, at every layout: where one-pass and folded formulas fail."""

from __future__ import annotations

import math

import cases
import numpy as np
import oracle
import pytest
import tolerance
from cases import LAYOUTS, Problem
from checks import check_inference, check_train
from tolerance import assert_within

import fastnorm as fn

RATIOS = pytest.mark.parametrize("ratio", [1.0, 1e2, 1e4, 1e5, 1e6])
DTYPES = pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
TALL = {
    "planar, long runs": Problem((3, 4, 20_011)),
    "planar, small planes": Problem((200, 11, 7, 7)),
    "interleaved, narrow": Problem((20_011, 3)),
    "interleaved, wide": Problem((130, 513)),
    "feature-major": Problem((3, 50_021), 0),
    "channels last": Problem((7, 13, 17, 50), -1),
}
ALL = {**LAYOUTS, **TALL}
# float64 below the size of parallel kernels: those would be compiled for these tests alone, and have the same chunks.
SERIAL = {**LAYOUTS, "planar, runs": Problem((3, 4, 2011)), "interleaved": Problem((4001, 3)), "wide": Problem((20, 513))}
CASES = [pytest.param(p, cases.F4, id=f"{name}, float32") for name, p in ALL.items()]
CASES += [pytest.param(p, cases.F8, id=f"{name}, float64") for name, p in SERIAL.items()]


@RATIOS
@pytest.mark.parametrize(("problem", "dtype"), CASES)
def test_training_within_the_bound_at_any_offset(problem: Problem, dtype: np.dtype, ratio: float) -> None:
    check_train(cases.sample(problem, dtype, offset=ratio), problem.axis, eps=0.0 if problem.per_channel > 1 else 1e-5)


@RATIOS
@DTYPES
def test_inference_within_the_bound_at_any_offset(dtype: np.dtype, ratio: float) -> None:
    tall = [TALL[name] for name in ("planar, small planes", "interleaved, narrow", "feature-major")]
    for problem in tall if dtype == cases.F4 else [SERIAL["NCHW"], SERIAL["interleaved"]]:
        x = cases.sample(problem, dtype, offset=ratio)
        at = oracle.forward(x, problem.axis)
        check_inference(x, at.mean, at.var, problem.axis)


@RATIOS
@pytest.mark.parametrize(("problem", "dtype"), CASES)
def test_mean_var_within_the_bound_at_any_offset(problem: Problem, dtype: np.dtype, ratio: float) -> None:
    x = cases.sample(problem, dtype, offset=ratio)
    axes = tuple(ax for ax in range(x.ndim) if ax != problem.axis % x.ndim)
    expected_mean, expected_var = oracle.mean_var(x, axes)
    mean, var = fn.mean_var(x, axes)
    assert_within(mean, expected_mean, tolerance.mean(expected_mean, expected_var, dtype))
    assert_within(var, expected_var, tolerance.var(expected_var, dtype))


@pytest.mark.parametrize("std", [1e-15, 1e-10, 1e-5, 1e5, 1e10, 1e15])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("problem", TALL.values(), ids=TALL.keys())
def test_thirty_decades_of_std(problem: Problem, offset: float, std: float) -> None:
    check_train(cases.sample(problem, offset=offset, std=std), problem.axis, eps=0.0)


@pytest.mark.parametrize("problem", TALL.values(), ids=TALL.keys())
def test_outliers_do_not_cost_the_others_their_digits(problem: Problem) -> None:
    x = cases.sample(problem)
    np.moveaxis(x, problem.axis, 0)[:, 0] += 1e5  # one sample far from all others
    check_train(x, problem.axis)
    x = cases.sample(problem)
    rows = np.moveaxis(x, problem.axis, 0).reshape(problem.channels, -1).copy()
    rows[:, rows.shape[1] // 2 :] += 1e4  # the second half lies elsewhere: tiles differ from their merge
    check_train(np.moveaxis(rows.reshape(np.moveaxis(x, problem.axis, 0).shape), 0, problem.axis), problem.axis)


def drifting(rng: np.random.Generator, rows: int, columns: int) -> dict[str, np.ndarray]:
    """Columns whose first rows, or first blocks of rows, tell nothing of the others: sums are taken about their mean."""
    noise, time = rng.standard_normal((rows, columns)), np.arange(rows)[:, None]
    return {
        "sorted": np.sort(noise, axis=0),
        "a walk": np.cumsum(noise, axis=0),
        "another mean after 1 row": noise + np.where(time < 1, 0, 1e3),
        "after 8 rows": noise + np.where(time < 8, 0, 100),
        "after 64 rows": noise + np.where(time < 64, 0, 1e4),
        "steps": noise * 1e-3 + 1e3 * (time // 64 % 2),
        "seven decades": noise + 10.0 ** (time / rows * 6),
        "nearly constant at first": np.where(time < 128, 5 + 1e-6 * noise, noise),
        "constant but for the last": np.where(time < rows - 1, 3.0, noise),
        "mixed": np.where(np.arange(columns) % 2 == 0, noise, noise + 1e4 * (time >= 64)),
    }


@DTYPES
@pytest.mark.parametrize("shape", [(200, 40), (1568, 513), (5000, 3)], ids=str)
def test_columns_that_drift_away_from_their_first_rows(shape: tuple[int, int], dtype: np.dtype) -> None:
    for kind, values in drifting(np.random.default_rng(12), *shape).items():
        x = values.astype(dtype)
        expected_mean, expected_var = oracle.mean_var(x, 0)
        mean, var = fn.mean_var(x, 0)
        assert_within(mean, expected_mean, tolerance.mean(expected_mean, expected_var, dtype), f"mean of {kind}")
        assert_within(var, expected_var, tolerance.var(expected_var, dtype), f"variance of {kind}")


@DTYPES
@pytest.mark.parametrize("shape", [(40_000, 2, 3, 1), (700, 2, 5, 4), (40, 60, 7, 7), (6, 30, 2, 2)], ids=str)
def test_planes_that_drift_away_from_those_of_the_first_samples(shape: tuple[int, ...], dtype: np.dtype) -> None:
    for kind, values in drifting(np.random.default_rng(13), shape[0], math.prod(shape[1:])).items():
        x = values.astype(dtype).reshape(shape)
        expected_mean, expected_var = oracle.mean_var(x, (0, 2, 3))
        mean, var = fn.mean_var(x, (0, 2, 3))
        assert_within(mean, expected_mean, tolerance.mean(expected_mean, expected_var, dtype), f"mean of {kind}")
        assert_within(var, expected_var, tolerance.var(expected_var, dtype), f"variance of {kind}")
        check_train(x)


@pytest.mark.parametrize("value", [0.1, 1e6 + 1 / 3, -1e-20, 1e15, 16777217.0])
@pytest.mark.parametrize(("problem", "dtype"), CASES)
def test_constant_arrays_have_variance_exactly_0(problem: Problem, value: float, dtype: np.dtype) -> None:
    x = np.full(problem.shape, value, dtype)
    axes = tuple(ax for ax in range(x.ndim) if ax != problem.axis % x.ndim)
    mean, var = fn.mean_var(x, axes)
    assert (var == 0.0).all()
    assert (mean == float(dtype.type(value))).all()
    y, _, rstd = fn.batch_norm_train(x, axis=problem.axis)
    assert (rstd == 1 / np.sqrt(1e-5)).all()
    assert (y == 0.0).all()


@DTYPES
def test_variance_is_never_negative(dtype: np.dtype) -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        center = 10.0 ** rng.uniform(-3, 8)
        x = (center * (1 + np.finfo(dtype).eps * rng.integers(0, 2, (37, 5)))).astype(dtype)  # two neighbouring numbers
        found = fn.mean_var(x, 0)
        assert (found.var >= 0).all()
        _, expected_var = oracle.mean_var(x, 0)
        # mean / std reaches 2**24 or 2**53 here: beyond the promise for y, but the two numbers' spacing is representable.
        assert_within(found.var, expected_var, 1e-3 * expected_var)
        assert ((found.mean >= x.min(axis=0)) & (found.mean <= x.max(axis=0))).all()


@pytest.mark.parametrize("n", [192, 193, 400, 5000])
@pytest.mark.parametrize("memory", ["contiguous", "every other", "big-endian"])
def test_an_outlier_among_equal_elements(n: int, memory: str) -> None:
    """After it all roundings of a sum go one way; strided elements have no vector lanes to share them."""
    x = np.full((12, n), 0.003, np.float32)
    x[:, : n // 3], x[:, n // 3 + 6] = 0.0, 1.0
    given = {"contiguous": x, "every other": np.repeat(x, 2, axis=1)[:, ::2], "big-endian": x.astype(">f4")}[memory]
    exact = oracle.forward(x, 0)
    assert_within(fn.layer_norm(given), exact.y, tolerance.output(exact, np.float32))
    assert_within(fn.batch_norm_train(given, axis=0).y, exact.y, tolerance.output(exact, np.float32))
    assert_within(fn.var(given, axis=1), exact.var, tolerance.var(exact.var, np.float32))
    square = fn.rms_norm(given, return_stats=True).rstd
    assert_within(square, 1.0 / np.sqrt((x.astype(float) ** 2).mean(1) + 1e-5), tolerance.rstd(square, np.float32))


@pytest.mark.parametrize("memory", ["contiguous", "every other"])
def test_the_gradient_of_a_constant_is_nothing(memory: str) -> None:
    """All roundings of its sums go one way, too: the sum of a row, and of a channel."""
    x, dy = cases.sample(Problem((6, 5000)), cases.F4), np.full((6, 5000), 0.1, np.float32)
    if memory == "every other":
        x, dy = np.repeat(x, 2, axis=1)[:, ::2], np.repeat(dy, 2, axis=1)[:, ::2]
    _, mean, rstd = fn.layer_norm(x, return_stats=True)
    for dx in (fn.layer_norm_backward(dy, x, mean, rstd).dx, fn.batch_norm_backward(dy, x, mean, rstd, axis=0).dx):
        assert np.abs(dx / rstd[:, None]).max() <= 1e-6 * 0.1 * (1 + 5.0)
