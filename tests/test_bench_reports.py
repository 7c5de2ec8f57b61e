"""The bench's reports: sweep, findings, summary, stored ratios, clock, peers on demand, and what a model says of schedules."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import clock, findings, guard, oracle, providers, run, selection, summary, sweep, timing
from bench.colours import LOOKS
from bench.problems import REPEATED, Key, Problem
from bench.results import Accuracy, Entry, Report, Speed
from bench.rows import ALL_OFFSETS, Row
from bench.shapes import SHAPES, SWEEP
from bench.timing import Spread


def _speed(name: str, ratios: dict[str, float | Spread], time: float = 1.0, share: float = 0.9, x_bytes: int = 1 << 24) -> Speed:
    operation, layout, shape = name.removeprefix("sweep/").split("/", 2)
    row = Row(name, Key(operation, shape, layout, "float32"), "out", tuple(ratios))
    ours = Entry("fastnorm", time=Spread(time, 0.99 * time, 1.01 * time), share=Spread(share, share, share))
    entries = [ours]
    for library, ratio in ratios.items():
        spread = ratio if isinstance(ratio, Spread) else Spread(ratio, ratio, ratio)
        entries.append(Entry(library, time=Spread(time * spread.median, 0.0, 0.0), ratio=spread))
    return Speed(row, (2, 3), 100, "copy", entries, x_bytes)


def _report(*speeds: Speed) -> Report:
    return Report({"cpu": "a processor", "threads": 2, "versions": {}}, speed=list(speeds))


def test_summary_is_the_geometric_mean_by_family() -> None:
    speeds = [
        _speed("train/NCHW/a", {"numpy": 8.0, "torch": 0.5, "fastnorm-f32": 9.0}),
        _speed("backward/NCHW/a", {"numpy": 2.0}),
        _speed("layer_norm/rows/a", {"numpy": Spread(3.0, 0.5, 5.0)}),
    ]
    lines = {(line.family, line.peer): line for line in summary.lines(speeds)}
    assert lines["batch norm", "numpy"].ratio == pytest.approx(4.0)
    assert lines["batch norm", "torch"].slower == 1
    assert lines["batch norm", summary.BEST].ratio == pytest.approx(1.0)
    assert lines["layer, RMS norm", "numpy"][4:] == (0, 1, 1)  # slower, even, noisy
    assert lines[summary.ALL, "numpy"].ratio == pytest.approx(48 ** (1 / 3))
    assert ("batch norm", "fastnorm-f32") not in lines


def test_findings_of_a_curve() -> None:
    speeds = [_speed("sweep/train/NCHW/1KB", {}, time=2.0, x_bytes=1), _speed("sweep/train/NCHW/4KB", {}, time=1.0, x_bytes=2)]
    speeds.append(_speed("sweep/train/NCHW/16KB", {"numpy": 0.9}, time=8.0, share=0.3, x_bytes=1 << 24))
    curves = findings.of_sweep(speeds[::-1])
    assert curves == {("train", "NCHW"): speeds}
    found = [(finding.row.rpartition("/")[2], finding.kind) for finding in findings.findings(_report(*speeds), curves)]
    assert found == [("4KB", "not monotone"), ("16KB", "step"), ("16KB", "slower"), ("16KB", "far from the roof")]


def test_stored_ratios_tell_what_fell_back(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    assert guard.load(path) is None
    before = _report(_speed("train/NCHW/a", {"numpy": 4.0, "torch": 2.0, "jax": 1.0}), _speed("train/NCHW/b", {"numpy": 4.0}))
    guard.store(guard.merged(before, None), path)
    stored = guard.load(path)
    assert stored is not None
    assert stored["cpu"] == "a processor"
    noisy = Spread(2.5, 1.0, 3.9)
    now = _report(_speed("train/NCHW/a", {"numpy": Spread(3.3, 3.2, 3.6), "torch": noisy, "onednn": 1.0}))
    kinds = {change.peer: change.kind for change in guard.compare(now, stored)}
    assert kinds == {"numpy": "fell back", "torch": "noisy", "onednn": "new", "jax": "missing"}
    assert {change.kind for change in guard.compare(before, stored)} == {"same"}
    table = guard.merged(now, stored)["ratios"]
    assert table == {"train/NCHW/a": {"jax": 1.0, "numpy": 3.3, "onednn": 1.0, "torch": 2.0}, "train/NCHW/b": {"numpy": 4.0}}
    assert guard.strangeness(now, stored) is None
    assert "with 1" in str(guard.strangeness(Report({"cpu": "another", "threads": 1}), stored))
    path.write_text("[]")
    with pytest.raises(ValueError, match="no ratios"):
        guard.load(path)


def test_sitting_turns_out_keeps_pairs() -> None:
    plans, turns = timing.make_plans({"a": 0.004, "b": 0.05, "c": 0.03, "d": 1.0}, budget_s=2.0)
    strides = [plan.stride for plan in plans.values()]
    assert all(stride & (stride - 1) == 0 for stride in strides)
    assert len(range(0, turns, max(strides))) >= 4


def test_a_block_repeated_has_the_reference_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.problems._BLOCK_ELEMENTS", 60)
    monkeypatch.setitem(SHAPES, "small", (8, 3, 2, 5))
    for operation, layout in (("train", "NCHW"), ("train", "NHWC"), ("backward", "NCHW"), ("inference", "NHWC")):
        problem = Problem(Key(operation, "small", layout, "float64", REPEATED))
        assert problem.repeats == 4
        whole = Problem(problem.key._replace(source="random"))
        whole.x, whole.dy = problem.x, problem.dy
        assert oracle.errors(problem, whole.reference)["dx" if operation == "backward" else "y"] < 1e-13
        assert oracle.error(problem.mean, whole.mean) < 1e-14
        if operation == "backward":
            assert oracle.error(problem.reference["dgamma"], whole.reference["dgamma"]) < 1e-12
    wrong = dict(problem.reference) | {"y": np.concatenate([problem.block.reference["y"]] * 3 + [np.zeros_like(problem.block.x)])}
    assert oracle.errors(problem, wrong)["y"] > 0.1


def test_clock_ends_in_time_and_leaves_out_the_last() -> None:
    rows = [row for row in sweep.ROWS if row.key.operation == "train"]
    unlimited = clock.Clock(rows, 4.4)
    assert {unlimited.begin(row) for row in rows} == {4.4 / len(rows)}
    hurried = clock.Clock(rows, 4.4, limit_s=1.0)
    dealt = [hurried.begin(row) for row in rows]
    assert dealt[0] is not None
    assert dealt[-1] is None
    rich = clock.Clock(rows, 4.4, limit_s=1e6)
    assert rich.begin(rows[0]) == clock.MOST_S


def test_sizes_of_the_sweep() -> None:
    for sizes in SWEEP.values():
        assert [4 * math.prod(dims) for dims in sizes.values()] == [1024 * 4**k for k in range(11)]
    table = [*sweep.ROWS, *sweep.ODD]
    assert len({row.name for row in table}) == len(table)
    assert {row.name for row in selection.select(["sweep/var"])} == {row.name for row in sweep.ROWS if row.key.operation == "var"}
    assert not {row.name for row in table} & {row.name for row in selection.select([])}
    assert {row.name for row in table} < {row.name for row in selection.reported()}


def test_who_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "absent", lambda library: None)
    monkeypatch.setattr(providers, "offers", lambda library, key, fresh: library == "jax")
    row = Row("train/NCHW/a", Key("train", "a", "NCHW", "float32"), "out", ("numpy", "torch-out"))
    wanted = {
        "default": row.peers,
        "all": (*row.peers, "jax"),
        "numpy,jax": ("numpy", "jax"),
        "openvino": (),
        "default,jax": (*row.peers, "jax"),
    }
    assert {names: selection.with_peers([row], names)[0].peers for names in wanted} == wanted
    monkeypatch.setattr(providers, "module", lambda library: pytest.fail(f"{library} is imported, and nobody asked for it"))
    assert selection.with_peers([row], "default,numpy") == [row]
    selection.check_peers("numpy,jax,all")
    with pytest.raises(ValueError, match="cupy"):
        selection.check_peers("numpy,cupy")
    assert set(LOOKS) == set(providers.MODULES)
    assert len({look[:3] for look in LOOKS.values()}) == len(LOOKS)


def test_fastnorm_promises_nothing_beyond_a_million() -> None:
    row = Row("accuracy/train/NCHW", Key("train", "a", "NCHW", "float32"), "out", ())
    within, beyond = [1e-7] * 7 + [1.0], [1e-7] * 6 + [1.0, 1e-7]
    assert not Accuracy(row, 1e-6, {"fastnorm": list(within)}, offsets=ALL_OFFSETS).bad
    assert Accuracy(row, 1e-6, {"fastnorm": list(beyond)}, offsets=ALL_OFFSETS).bad


FORWARD = [("train", "NCHW"), ("inference", "NCHW"), ("group_norm", "NCHW"), ("instance_norm", "NCHW"), ("train", "NC")]
FORWARD += [("layer_norm", "rows"), ("rms_norm", "rows"), ("add_layer_norm", "rows"), ("mean", "axis0"), ("mean", "all")]
BACKWARD = [
    ("train", "NHWC"),
    ("group_norm", "NHWC"),
    ("backward", "NHWC"),
    ("group_norm_backward", "NCHW"),
    ("instance_norm_backward", "NHWC"),
]
BACKWARD += [("layer_norm_backward", "rows"), ("rms_norm_backward", "rows"), ("mean_var", "NCHW"), ("standardize", "NC"), ("var", "axis1")]


def _peer(library: str, imports: tuple[str, ...], operation: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> Entry:
    for name in imports:
        pytest.importorskip(name)
    monkeypatch.setitem(SHAPES, "small", (4, 32, 3, 5) if layout in ("NCHW", "NHWC") else (24, 32))
    problem, entry = Problem(Key(operation, "small", layout, "float32")), Entry(library)
    run.check(providers.prepare(library, problem, False), problem, entry)
    return entry


@pytest.mark.parametrize(("operation", "layout"), FORWARD)
@pytest.mark.parametrize(("library", "imports"), [("onnxruntime", ("onnx", "onnxruntime")), ("openvino", ("onnx", "openvino"))])
def test_runtimes_of_models(library: str, imports: tuple[str, ...], operation: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _peer(library, imports, operation, layout, monkeypatch)
    assert entry.status == "ok", entry.note
    assert entry.error is not None
    assert entry.error < 1e-5


@pytest.mark.parametrize(("operation", "layout"), FORWARD + BACKWARD)
def test_jax(operation: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _peer("jax", ("jax",), operation, layout, monkeypatch)
    assert entry.error is not None
    assert entry.error < 1e-5
    if operation.endswith("backward"):
        assert {"dx", "dgamma"} <= set(entry.errors)
        assert max(entry.errors.values()) < 1e-5


def test_a_model_refuses_what_it_has_not() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    key = Key("train", "digits", "NHWC", "float32")
    assert not providers.offers("onnxruntime", key, False)
    assert providers.offers("onnxruntime", key._replace(layout="NCHW"), False)
    assert not providers.offers("onnxruntime", key._replace(layout="NCHW"), True)
    assert not providers.offers("onnxruntime", key._replace(layout="NCHW", operation="backward"), False)


def _cost(name: str, threads: int) -> Any:
    from bench import schedule

    return schedule.cost(schedule.calls_of([name])[name], threads)


def test_schedules_deal_all_elements_and_few_channels_are_cut() -> None:
    from bench import schedule

    for name, problem in schedule.calls_of([]).items():
        for threads in (2, 7, 128):
            planned = schedule._planned(problem, threads)
            for phase in schedule.phases(problem.operation, planned):
                assert problem.elements <= phase.loads.sum() <= problem.elements * 1.005, (name, phase.name)
    few = _cost("train/NCHW/photos", 16)
    assert few.inside
    assert few.statistics == 3
    assert few.busy == 16
    assert few.balance < 1.2
    assert _cost("train/NCHW/resnet50/bn1", 4).balance == 1.0


def test_schedule_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    from bench import schedule

    assert schedule.main(["train/NCHW/photos", "--threads", "2,64", "--detail"]) == 0
    printed = capsys.readouterr().out
    assert "64 threads: balance" in printed.replace("\n", " ")
    with pytest.raises(SystemExit):
        schedule.main(["no/such/call"])


def test_a_report_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from bench import document

    monkeypatch.setattr("bench.roofline.LARGEST", 1 << 20)
    rows = selection.with_peers(
        selection.select(["sweep/train/NCHW/1KB", "sweep/train/NCHW/4KB", "odd/layer_norm/rows/rows-of-3"]), "numpy"
    )
    progress: Callable[[list[Row]], list[Row]] = lambda known: known  # noqa: E731
    found = run.run(rows, run.Wanted(1, 0.05, 120.0, "numpy", scaling=True), lambda text: None, progress)
    assert not found.skipped
    assert not found.bad
    text = document.write(found, tmp_path).read_text()
    for heading in ("## Summary", "## Roofline", "## Size sweep", "## To look at", "## Rows"):
        assert heading in text
    assert "sweep/train/NCHW/4KB" in text
    for name in ("sweep.png", "roofline.png"):
        assert (tmp_path / name).stat().st_size > 5_000
        assert f"({name})" in text
    assert json.loads((tmp_path / "bench.json").read_text())["scaling"]["1"].keys() == {"streaming copy", "copy", "read"}


def test_memory_is_measured_by_threads() -> None:
    from bench.roofline import thread_counts

    assert thread_counts(2) == [1, 2]
    assert thread_counts(40) == [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 40]
