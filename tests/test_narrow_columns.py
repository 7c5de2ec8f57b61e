"""Tables of so few columns that these stay in registers: whole vectors of rows, and what is left before and behind them."""

from __future__ import annotations

import cases
import numpy as np
import pytest
from cases import Problem
from checks import check_backward, check_inference, check_train

import fastnorm as fn
import fastnorm.runtime.threads

# Of one launch and of two, of rows that fill no vectors, one and several, more than are summed at once, and a few over.
SHAPES = [(517, 1), (4099, 2), (300, 16), (261, 32), (2103, 32), (16, 64), (131, 64), (3001, 64), (8, 128), (197, 128), (2309, 128)]


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(shape: tuple[int, int], dtype: np.dtype) -> None:
    x, channels = cases.sample(Problem(shape), dtype, seed=3), shape[1]
    gamma, beta = cases.parameter(channels, seed=4), cases.parameter(channels, seed=5)
    mean, var = cases.parameter(channels, cases.F8), cases.parameter(channels, cases.F8, 3) ** 2 + 0.1
    check_train(x, gamma=gamma, beta=beta)
    check_train(cases.sample(Problem(shape), dtype, offset=1000.0), gamma=gamma)
    check_inference(x, mean, var, gamma=gamma, beta=beta)
    if dtype == cases.F4:
        residual = cases.sample(Problem(shape), dtype, seed=6)
        for activation in (None, "relu", "leaky_relu", "silu"):
            check_train(x, beta=beta, activation=activation, residual=residual)


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(shape: tuple[int, int], dtype: np.dtype) -> None:
    x, dy, channels = cases.sample(Problem(shape), dtype, seed=3), cases.sample(Problem(shape), dtype, seed=7), shape[1]
    gamma, beta = cases.parameter(channels, seed=4), cases.parameter(channels, seed=5)
    residual = cases.sample(Problem(shape), dtype, seed=6)
    check_backward(dy, x, gamma=gamma)
    if dtype == cases.F4:
        check_backward(dy, x, gamma=gamma, training=False)
        check_backward(dy, x, gamma=gamma, beta=beta, activation="relu", residual=residual)
        check_backward(dy, x, gamma=gamma, beta=beta, activation="silu")


@pytest.mark.parametrize("shape", [(3001, 64), (2309, 128), (98, 512)], ids=str)
def test_threads_change_no_bit(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to eight in the schedule; (98, 512) is cut into tiles of 128 columns with gaps between their rows."""
    monkeypatch.setattr(fastnorm.runtime.threads, "_limit", lambda: 8)
    x, dy, gamma = cases.sample(Problem(shape), seed=3), cases.sample(Problem(shape), seed=7), cases.parameter(shape[1])
    check_train(x, gamma=gamma)
    check_backward(dy, x, gamma=gamma)
    results = []
    for threads in (1, 2, 3, 8):
        with fn.num_threads(threads):
            y, mean, rstd = fn.batch_norm_train(x, gamma)
            given = fn.batch_norm(x, mean, rstd, gamma)
            results.append([a.tobytes() for a in (y, mean, rstd, given, *fn.batch_norm_backward(dy, x, mean, rstd, gamma))])
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("other", [cases.F2, cases.F8], ids=str)
@pytest.mark.parametrize("shape", [(261, 32), (2309, 128)], ids=str)
def test_results_of_another_dtype(shape: tuple[int, int], other: np.dtype) -> None:
    x, gamma = cases.sample(Problem(shape), seed=3), cases.parameter(shape[1], seed=4)
    check_train(x, gamma=gamma, out=np.empty(shape, other))
    check_train(x.astype(other), gamma=gamma, out=np.empty(shape, cases.F4))


@pytest.mark.parametrize("view", cases.VIEWS)
def test_anywhere_in_memory(view: str) -> None:
    see = cases.VIEWS[view]
    x, dy = see(cases.sample(Problem((9, 64, 5, 7), 1), seed=3)), see(cases.sample(Problem((9, 64, 5, 7), 1), seed=7))
    for axis in (1, -1):
        gamma = cases.parameter(x.shape[axis], seed=4)
        check_train(x, axis, gamma=gamma)
        check_backward(dy, x, axis, gamma=gamma)


@pytest.mark.parametrize("place", [0, 700, 1500, 2999])
@pytest.mark.parametrize("columns", [32, 64, 128])
def test_an_outlier_is_added_to_few(columns: int, place: int) -> None:
    """Each of what is added to its square one by one is lost to the variance."""
    x = np.full((3000, columns), 1.0, np.float32)
    x[1::2] = -1.0
    x[place] = 5790.0  # half a rounding of its square is 1
    check_train(x, gamma=np.ones(columns, np.float32))


@pytest.mark.parametrize("columns", [32, 128])
def test_roundings_of_equal_gradients_do_not_add_up(columns: int) -> None:
    x = cases.sample(Problem((5000, columns)), seed=3)
    dy = np.full_like(x, 1.1)
    check_backward(dy, x)


def test_a_column_is_nobody_elses_business() -> None:
    x = cases.sample(Problem((700, 64)), offset=50.0)
    plain = fn.batch_norm_train(x)
    x[-1, 0], x[3, 1], x[:, 2] = np.nan, np.inf, 1234.567
    y, mean, rstd = fn.batch_norm_train(x)
    assert np.isnan(mean[0])
    assert np.isnan(rstd[:2]).all()
    assert rstd[2] == 1 / np.sqrt(1e-5)
    assert not y[:, 2].any()
    for found, expected in zip((y[:, 3:], mean[3:], rstd[3:]), (plain.y[:, 3:], plain.mean[3:], plain.rstd[3:]), strict=True):
        np.testing.assert_array_equal(found, expected)
