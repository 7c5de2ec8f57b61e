"""Short planes: chunks and cuts that begin and end inside a plane, and runs that have one shift in common."""

from __future__ import annotations

import cases
import numpy as np
import pytest
from cases import Problem
from checks import check_inference, check_train
from checks_family import check_group

import fastnorm as fn
import fastnorm.runtime.threads

# Several chunks, none of which begins with a plane; channels that wrap within a chunk, and of which a chunk has only some.
CUT_PLANES = [(1, 301, 12, 12), (2, 97, 16, 16), (5, 53, 13, 13), (41, 3, 19, 19), (1, 67, 31, 31)]
# Statistics of two to four cuts, of which only the first begins with a plane.
CUT_STATISTICS = [(1024, 2, 15, 15), (700, 2, 14, 14), (150, 1, 31, 31)]


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


def test_chunks_that_cut_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six statistics in 36 cuts are no whole ones for 32 chunks, of four threads in the schedule; fewer may take part."""
    x = cases.sample(Problem((3, 23, 57, 600), -1))
    monkeypatch.setattr(fastnorm.runtime.threads, "_limit", lambda: 4)
    with fn.num_threads(4):
        check_group(x, 2, -1, gamma=cases.parameter(600), beta=cases.parameter(600, seed=2))
