"""The bench's own logic: what it computes from times, what it compares results with, and its table of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench import oracle, rows, timing
from bench.environment import cache_bytes
from bench.problems import Key, Problem
from bench.shapes import SHAPES


def test_ratio_is_paired_and_immune_to_a_change_of_speed() -> None:
    state = np.array([1.0, 1.9, 1.0, 1.9, 1.9, 1.0])  # the machine's
    ratio = timing.paired_ratio(3.0 * state, 1.5 * state)
    assert ratio == (2.0, 2.0, 2.0)
    assert not ratio.noisy


def test_turns_that_one_sat_out_do_not_count() -> None:
    samples = timing.Samples(["a", "b"], np.array([[1.0, np.nan], [2.0, 8.0], [5.0, np.nan], [1.0, 4.0]]))
    assert samples.ratio("b", "a").median == 4.0
    assert samples.time("b").median == 6.0


@pytest.mark.parametrize("values", [[1.0, 3.0, 5.0, 1.0], [math.nan]])
def test_a_wide_or_empty_spread_is_noisy(values: list[float]) -> None:
    assert timing.spread(np.array(values)).noisy


def test_slow_providers_sit_turns_out_and_fast_ones_are_batched() -> None:
    plans, turns = timing.make_plans({"slow": 0.2, "fast": 1e-3, "tiny": 2e-6}, budget_s=1.0)
    assert plans["fast"] == timing.Plan(3, 2, 1)
    assert plans["tiny"].repeats >= 100
    assert turns // plans["slow"].stride <= 6


def test_measure_calls_everybody() -> None:
    called = []
    samples = timing.measure({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, budget_s=0.01)
    assert set(called) == {"a", "b"}
    assert (samples.seconds > 0).all()


def _small(monkeypatch: pytest.MonkeyPatch, operation: str, layout: str, dims: tuple[int, ...]) -> Problem:
    monkeypatch.setitem(SHAPES, "small", dims)
    return Problem(Key(operation, "small", layout, "float64"))


CASES = [
    ("train", "NCHW", (2, 3, 4, 5)),
    ("train", "NHWC", (2, 3, 4, 5)),
    ("train", "NC", (6, 3)),
    ("layer_norm", "rows", (4, 7)),
    ("rms_norm", "rows", (4, 7)),
    ("group_norm", "NCHW", (2, 64, 3, 3)),
    ("group_norm", "NHWC", (2, 64, 3, 3)),
    ("instance_norm", "NHWC", (2, 3, 4, 5)),
]


def _one_by_one(problem: Problem) -> np.ndarray:
    """y from the definition: for every element its statistic's members are looked up anew."""
    x = np.moveaxis(problem.x, problem.axis, 1) if not problem.rowwise else problem.x
    n, c = problem.dims[:2]
    size = c // problem.groups
    y = np.empty_like(x)
    for b in range(n):
        for k in range(c):
            group = slice(k // size * size, k // size * size + size)
            members = x[b] if problem.rowwise else x[b, group] if problem.operation.startswith(("group", "inst")) else x[:, k]
            values = members.ravel().tolist()
            mean = 0.0 if problem.operation.startswith("rms") else math.fsum(values) / len(values)
            var = math.fsum((v - mean) ** 2 for v in values) / len(values)
            beta = 0.0 if problem.operation.startswith("rms") else problem.beta[k]
            y[b, k] = (x[b, k] - mean) / math.sqrt(var + problem.eps) * problem.gamma[k] + beta
    return np.moveaxis(y, 1, problem.axis) if not problem.rowwise else y


@pytest.mark.parametrize(("operation", "layout", "dims"), CASES)
def test_oracle_forward(monkeypatch: pytest.MonkeyPatch, operation: str, layout: str, dims: tuple[int, ...]) -> None:
    problem = _small(monkeypatch, operation, layout, dims)
    assert oracle.error(_one_by_one(problem), problem.reference["y"]) < 1e-13


@pytest.mark.parametrize(("operation", "layout", "dims"), CASES)
def test_oracle_gradients_are_central_differences(
    monkeypatch: pytest.MonkeyPatch, operation: str, layout: str, dims: tuple[int, ...]
) -> None:
    backward = _small(monkeypatch, operation.replace("train", "backward").replace("_norm", "_norm_backward"), layout, dims)
    found = backward.reference
    forward = Problem(backward.key._replace(operation=operation))

    def loss(name: str, index: int, step: float) -> float:
        moved = Problem(forward.key)
        array = getattr(moved, name).copy()
        array.ravel()[index] += step
        setattr(moved, name, array)
        return float((moved.reference["y"] * backward.dy).sum())

    names = (("x", "dx"), ("gamma", "dgamma")) if operation.startswith("rms") else (("x", "dx"), ("gamma", "dgamma"), ("beta", "dbeta"))
    for name, gradient in names:
        for index in (0, found[gradient].size // 2, found[gradient].size - 1):
            expected = (loss(name, index, 1e-5) - loss(name, index, -1e-5)) / 2e-5
            assert found[gradient].ravel()[index] == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_error_sees_nan_and_shape() -> None:
    y = np.array([1.0, -3.0])
    assert oracle.error(y + np.array([0.0, 4e-3]), y) == pytest.approx(1e-3)
    assert oracle.error(np.array([1.0, np.nan]), y) == math.inf
    assert oracle.error(np.array([1.0, np.nan]), np.array([1.0, np.nan])) == 0.0
    assert oracle.error(y[:1], y) == math.inf


def test_traffic_counts_a_second_read_only_where_a_statistic_exceeds_l2(monkeypatch: pytest.MonkeyPatch) -> None:
    row = cache_bytes(2, 1 << 20) // 4
    assert _small(monkeypatch, "train", "NCHW", (1, 4, row, 1)).traffic == 2 * 8 * 4 * row + 8 * 4 * row
    small = _small(monkeypatch, "train", "NCHW", (4, 4, 8, 8))
    assert small.traffic == 2 * small.nbytes
    assert _small(monkeypatch, "backward", "NCHW", (4, 4, 8, 8)).traffic == 3 * small.nbytes
    assert _small(monkeypatch, "add_layer_norm", "rows", (8, 128)).traffic == 4 * 8 * 128 * 8
    assert _small(monkeypatch, "inference", "NCHW", (1, 4, row, 1)).traffic == 2 * 8 * 4 * row


def test_rows_are_well_formed() -> None:
    table = rows.ROWS + rows.ACCURACY + rows.MEMORY
    assert len({row.name for row in table}) == len(table)
    assert {row.name for row in table} >= rows.QUICK
    for row in table:
        dims = SHAPES[row.key.shape]
        assert row.outputs in ("out", "fresh")
        assert row.outputs == "out" or "torch-out" not in row.peers
        assert (len(dims) == 4) == (row.key.layout in ("NCHW", "NHWC"))


def test_selection() -> None:
    assert {row.name for row in rows.select(["train/NCHW"], False)} == {r.name for r in rows.ROWS if r.name.startswith("train/NCHW/")}
    assert rows.select(["*/tiny/rows"], False)
    assert len(rows.select([], True)) < len(rows.select([], False))
    with pytest.raises(ValueError, match="no-such-row"):
        rows.select(["no-such-row"], False)
