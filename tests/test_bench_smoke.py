"""The bench's own logic: what it computes from times, what it compares results with, and its table of rows."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from bench import oracle, problems, rows, run, selection, timing
from bench.environment import cache_bytes
from bench.problems import Key, Problem
from bench.providers import Prepared
from bench.results import Entry
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


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not say which threads run")
def test_nobody_is_timed_while_anothers_thread_runs() -> None:
    numbers = np.random.default_rng(0).random(400_000)
    began, ended = threading.Event(), []

    def work() -> None:
        began.set()
        np.sort(numbers)  # without the interpreter's lock, as the workers of libraries
        ended.append(perf_counter())

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(10.0)
    timing.settle()
    settled = perf_counter()
    thread.join()
    assert ended[0] < settled


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


def _average_of(values: list[float]) -> dict[str, float]:
    known = [v for v in values if v == v]
    mean = math.fsum(known) / len(known)
    return {"mean": mean, "var": math.fsum((v - mean) ** 2 for v in known) / len(known)}


@pytest.mark.parametrize("layout", ["axis0", "axis1", "all"])
@pytest.mark.parametrize(("operation", "source"), [("mean", "random"), ("var", "random"), ("nanmean", "gaps"), ("nanvar", "gaps")])
def test_oracle_averages(monkeypatch: pytest.MonkeyPatch, operation: str, source: str, layout: str) -> None:
    monkeypatch.setitem(SHAPES, "small", (20, 25))
    monkeypatch.setattr("bench.oracle_tables._BLOCK", 60)  # several blocks
    problem = Problem(Key(operation, "small", layout, "float64", source))
    x = problem.x
    assert np.isnan(x).any() == (source == "gaps")
    lines = {"axis0": x.T, "axis1": x, "all": x.reshape(1, -1)}[layout]
    name = operation.removeprefix("nan")
    assert problem.reference[name].ravel() == pytest.approx([_average_of(line.tolist())[name] for line in lines], rel=1e-14)


def _scaled(scaler: str, column: list[float]) -> list[float]:
    if scaler == "standard":
        found = _average_of(column)
        return [(v - found["mean"]) / math.sqrt(found["var"]) for v in column]
    if scaler == "minmax":
        return [(v - min(column)) / (max(column) - min(column)) for v in column]
    return [v / max(map(abs, column)) for v in column]


@pytest.mark.parametrize("scaler", problems.SCALERS)
def test_oracle_scalers(monkeypatch: pytest.MonkeyPatch, scaler: str) -> None:
    problem = _small(monkeypatch, f"{scaler}_scaler_fit_transform", "NC", (30, 7))
    expected = np.array([_scaled(scaler, column.tolist()) for column in problem.x.T]).T
    assert oracle.error(problem.reference["y"], expected) < 1e-14
    fitted = Problem(problem.key._replace(operation=f"{scaler}_scaler_fit")).reference
    assert "y" not in fitted
    assert all(found.shape == (7,) for found in fitted.values())


@pytest.mark.parametrize("scaler", ["standard", "maxabs"])
def test_oracle_of_a_sparse_table_is_that_of_the_dense_one(monkeypatch: pytest.MonkeyPatch, scaler: str) -> None:
    problem = _small(monkeypatch, f"{scaler}_scaler_transform", "CSR", (40, 300))
    x = problem.csr.toarray()
    assert np.count_nonzero(x) == x.size // 100
    scale = np.sqrt(x.var(0)) if scaler == "standard" else np.abs(x).max(0)
    row, column = problem.csr.nonzero()
    assert oracle.error(problem.reference["y"], x[row, column] / scale[column]) < 1e-14


def test_neighbours_share_numbers_and_others_get_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = _small(monkeypatch, "mean", "axis0", (20, 25))
    first = problem.x
    assert Problem(problem.key._replace(operation="var", layout="all")).x is first
    assert np.isnan(Problem(problem.key._replace(operation="nanvar", source="gaps")).x).any()
    assert len(problems._shared) == 1


def test_inaccurate_averages_are_timed_and_wrong_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = _small(monkeypatch, "mean", "all", (20, 25))
    mean = float(problem.x.mean())
    for distance, library, status in ((0.0, "a peer", "ok"), (0.1, "a peer", "inaccurate"), (5.0, "a peer", "wrong")):
        entry = Entry(library)
        found = np.float64(mean + distance)
        run.check(Prepared(lambda found=found: found, lambda mean: {"mean": mean}), problem, entry)
        assert entry.status == status
        assert not entry.bad
    ours = Entry("fastnorm")
    run.check(Prepared(lambda: np.float64(mean + 1e-9), lambda mean: {"mean": mean}), problem, ours)
    assert ours.bad


def test_picture_of_normalized_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    pytest.importorskip("matplotlib")
    from bench import picture

    assert picture.main(["--output", str(tmp_path)]) == 0
    assert 20_000 < (tmp_path / "images.png").stat().st_size < 200_000
    lines = capsys.readouterr().out.splitlines()[2:5]
    for name, _, _, mean, var in map(str.split, lines):
        assert abs(float(mean)) < 1e-6, name
        assert abs(float(var) - 1) < 1e-5, name


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
    tall = cache_bytes(2, 1 << 20) // 64 + 1  # one cache line per row exceeds L2
    sizes = {"standard_scaler_fit": 1, "minmax_scaler_transform": 2, "standard_scaler_fit_transform": 3}
    assert {name: _small(monkeypatch, name, "NC", (tall, 2)).traffic // (16 * tall) for name in sizes} == sizes
    assert _small(monkeypatch, "nanvar", "axis0", (tall, 2)).traffic == 16 * tall
    assert Problem(Key("normalize_images", "small", "NHWC", "uint8")).traffic == 5 * 2 * tall
    assert _small(monkeypatch, "maxabs_scaler_transform", "CSR", (40, 300)).traffic == 2 * 120 * 8


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
    assert {row.name for row in selection.select(["train/NCHW"], False)} == {r.name for r in rows.ROWS if r.name.startswith("train/NCHW/")}
    assert selection.select(["*/tiny/rows"], False)
    assert len(selection.select([], True)) < len(selection.select([], False))
    with pytest.raises(ValueError, match="no-such-row"):
        selection.select(["no-such-row"], False)
