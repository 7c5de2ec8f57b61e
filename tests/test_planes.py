"""Short planes: chunks and cuts that begin and end inside a plane, and runs that have one shift in common."""

from __future__ import annotations

import cases
import numpy as np
import pytest
from cases import Problem
from checks import check_backward, check_inference, check_train
from checks_family import check_group

import fastnorm as fn
import fastnorm.runtime.threads
from fastnorm.plan.geometry import Geometry
from fastnorm.plan.tiles import are_columns

# Several chunks, none of which begins with a plane; channels that wrap within a chunk, and of which a chunk has only some.
CUT_PLANES = [(1, 301, 12, 12), (2, 97, 16, 16), (5, 53, 13, 13), (41, 3, 19, 19), (1, 67, 31, 31)]
# Statistics of two to four cuts, of which only the first begins with a plane.
CUT_STATISTICS = [(1024, 2, 15, 15), (700, 2, 14, 14), (150, 1, 31, 31)]
# Blocks of channels: some that are not full, several in a chunk, planes of less than a vector, of several, with and without a rest, one
# channel, fewer chunks than threads, and planes as long as they may be.
BLOCKS = [
    (2, 67, 3, 3),
    (2, 1, 4, 4),
    (3, 1031, 4, 4),
    (4, 130, 7, 7),
    (7, 19, 5, 7),
    (8, 70, 8, 8),
    (16, 43, 10, 11),
    (2, 9, 32, 32),
    (4, 16, 20, 40),
]
# Gradients are walked so of fewer samples.
GRADIENT_BLOCKS = [shape for shape in BLOCKS if shape[0] <= 4]


@pytest.mark.parametrize("samples", range(2, 10))
def test_tables_are_columns_however_few_their_rows(samples: int) -> None:
    """Inference of 2 to 7 rows had been run by run, runs of one element."""
    table = Geometry(1, samples, 1000, 1, 1)
    for two_phases, gradient, read_only in ((True, False, False), (True, True, False), (False, False, False), (False, False, True)):
        assert are_columns(table, two_phases=two_phases, gradient=gradient, read_only=read_only)


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
@pytest.mark.parametrize("shape", BLOCKS, ids=str)
def test_blocks_of_channels(shape: tuple[int, ...], dtype: np.dtype) -> None:
    x, channels = cases.sample(Problem(shape), dtype, seed=3), shape[1]
    gamma, beta = cases.parameter(channels, seed=4), cases.parameter(channels, seed=5)
    check_train(x, gamma=gamma, beta=beta)
    check_train(cases.sample(Problem(shape), dtype, offset=1000.0), gamma=gamma)
    if dtype == cases.F4:
        check_train(x, gamma=gamma, beta=beta, activation="silu", residual=cases.sample(Problem(shape), dtype, seed=6))


@pytest.mark.parametrize("view", cases.VIEWS)
@pytest.mark.parametrize("shape", [(3, 21, 4, 5), (4, 9, 8, 8)], ids=str)
def test_blocks_of_channels_anywhere_in_memory(shape: tuple[int, ...], view: str) -> None:
    see = cases.VIEWS[view]
    x, dy = see(cases.sample(Problem(shape), seed=3)), see(cases.sample(Problem(shape), seed=7))
    gamma, beta = cases.parameter(shape[1], seed=4), cases.parameter(shape[1], seed=5)
    check_train(x, gamma=gamma, beta=beta)
    check_backward(dy, x, gamma=gamma)
    check_backward(dy, x, gamma=gamma, beta=beta, activation="relu", residual=see(cases.sample(Problem(shape), seed=6)))


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
@pytest.mark.parametrize("shape", GRADIENT_BLOCKS, ids=str)
def test_gradients_of_blocks_of_channels(shape: tuple[int, ...], dtype: np.dtype) -> None:
    x, dy, channels = cases.sample(Problem(shape), dtype, seed=3), cases.sample(Problem(shape), dtype, seed=7), shape[1]
    gamma, beta = cases.parameter(channels, seed=4), cases.parameter(channels, seed=5)
    residual = cases.sample(Problem(shape), dtype, seed=6)
    check_backward(dy, x, gamma=gamma)
    if dtype == cases.F4:
        check_backward(dy, x, gamma=gamma, residual=residual)
        check_backward(dy, x, gamma=gamma, beta=beta, activation="relu", residual=residual)
        check_backward(dy, x, gamma=gamma, beta=beta, activation="gelu_tanh")
        check_backward(dy, x, gamma=gamma, training=False)


@pytest.mark.parametrize("shape", BLOCKS, ids=str)
def test_threads_change_no_bit_of_blocks_of_channels(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to eight in the schedule, however many cores there are; fewer may take part."""
    monkeypatch.setattr(fastnorm.runtime.threads, "_limit", lambda: 8)
    x, dy = cases.sample(Problem(shape), seed=3), cases.sample(Problem(shape), seed=7)
    residual, beta = cases.sample(Problem(shape), seed=6), cases.parameter(shape[1], seed=5)
    results = []
    for threads in (1, 2, 3, 8):
        with fn.num_threads(threads):
            y, mean, rstd = fn.batch_norm_train(x, None, beta, activation="relu", residual=residual)
            gradients = fn.batch_norm_backward(dy, x, mean, rstd, beta=beta, activation="relu", residual=residual)
        results.append([a.tobytes() for a in (y, mean, rstd, *gradients)])
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("shape", [(2, 5, 3, 3), (4, 12, 7, 7), (8, 9, 6, 6), (16, 8, 12, 12)], ids=str)
def test_a_channel_is_nobody_elses_business(shape: tuple[int, ...]) -> None:
    """NaN, infinity, a constant, an outlier where a shift is looked for, and beside them others."""
    x = cases.sample(Problem(shape), offset=50.0)
    plain = fn.batch_norm_train(x)
    x[-1, 0, -1, -1], x[0, 1, 0, 0], x[:, 2], x[0, 3, 0, 0] = np.nan, np.inf, 1234.567, 1e7
    y, mean, rstd = fn.batch_norm_train(x, eps=1e-5)
    assert np.isnan(mean[0])
    assert np.isnan(rstd[:2]).all()
    assert rstd[2] == 1 / np.sqrt(1e-5)
    assert not y[:, 2].any()
    assert all(np.array_equal(a, b) for a, b in [(y[:, 4:], plain.y[:, 4:]), (mean[4:], plain.mean[4:]), (rstd[4:], plain.rstd[4:])])
    check_train(x[:, 3:].copy())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", CUT_PLANES, ids=str)
def test_chunks_that_cut_planes(shape: tuple[int, ...], threads: int) -> None:
    x, channels = cases.sample(Problem(shape), seed=3), shape[1]
    mean, var = cases.parameter(channels, cases.F8), cases.parameter(channels, cases.F8, 3) ** 2 + 0.1
    gamma, beta = cases.parameter(channels, seed=4), cases.parameter(channels, seed=5)
    residual = cases.sample(Problem(shape), seed=6)
    with fn.num_threads(threads):
        check_inference(x, mean, var, gamma=gamma, beta=beta)
        check_inference(x, mean, var, gamma=gamma, beta=beta, activation="relu", residual=residual)


@pytest.mark.parametrize("shape", CUT_STATISTICS, ids=str)
def test_cuts_inside_a_plane(shape: tuple[int, ...]) -> None:
    x = cases.sample(Problem(shape), offset=100.0)
    x += np.arange(shape[0], dtype=np.float32).reshape(-1, 1, 1, 1)  # what is counted twice or not at all has another mean
    check_train(x)


@pytest.mark.parametrize("height", [1e4 / 3, 7e3, 9173.1, 1e5 / 7])
def test_a_shift_that_is_far_from_the_mean_is_replaced(height: float) -> None:
    """Outliers wherever a shift is looked for put it 20 standard deviations off: squares about it lose 400 roundings."""
    x = np.zeros((120, 2, 31, 31), np.float32)
    x[::30].reshape(4, 2, -1)[..., :64] = height
    check_train(x, eps=0.0)
    x = np.zeros((16, 9, 17, 17), np.float32)
    x[::4].reshape(4, 9, -1)[..., :16] = height
    check_train(x, eps=0.0)
    check_train(cases.big_endian(x), eps=0.0)


def test_chunks_that_cut_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six statistics in 36 cuts are no whole ones for 32 chunks, of four threads in the schedule; fewer may take part."""
    x = cases.sample(Problem((3, 23, 57, 600), -1))
    monkeypatch.setattr(fastnorm.runtime.threads, "_limit", lambda: 4)
    with fn.num_threads(4):
        check_group(x, 2, -1, gamma=cases.parameter(600), beta=cases.parameter(600, seed=2))


@pytest.mark.parametrize("dtype", [cases.F4, cases.F8, np.dtype("uint8")], ids=str)
@pytest.mark.parametrize("shape", BLOCKS, ids=str)
def test_averages_of_blocks_of_channels(shape: tuple[int, ...], dtype: np.dtype) -> None:
    x = cases.sample(Problem(shape), dtype, offset=9.0, std=2.0)
    mean, var = fn.mean_var(x, axis=(0, 2, 3))
    exact = x.astype(np.float64)
    bound = {"f": 1e-6 if dtype == cases.F4 else 1e-13, "u": 1e-15}[dtype.kind]  # sums of integers are exact
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=bound)
    np.testing.assert_allclose(var, exact.var((0, 2, 3)), rtol=max(bound, 1e-14))
