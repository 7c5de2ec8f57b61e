"""Data that is not one array in memory: streams of batches, memory-mapped files, progress bars."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnorm.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, StandardScaler
from fastnorm.runtime.progress import tracked

LEARNING = (StandardScaler, MinMaxScaler, MaxAbsScaler)
ALL = (*LEARNING, Normalizer)
X = np.random.default_rng(13).normal([0.0, 100.0, -5.0], [1.0, 3.0, 0.5], (100, 3))
CUTS = (17, 18, 60)


class Loader:
    """An iterable with a length, as loaders of batches are, and no array."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(np.split(X, CUTS))

    def __len__(self) -> int:
        return len(CUTS) + 1


def generator() -> Iterator[np.ndarray]:
    yield from np.split(X, CUTS)


def state(scaler: Any) -> list[Any]:
    return [value for name, value in sorted(vars(scaler).items()) if name.endswith("_")]


@pytest.mark.parametrize("stream", [Loader, generator, lambda: map(np.ndarray.tolist, generator())], ids=["loader", "generator", "lists"])
@pytest.mark.parametrize("kind", ALL)
def test_a_stream_of_batches_is_the_whole(kind: Any, stream: Callable[[], Any]) -> None:
    whole, found = kind().fit(X), kind().fit(stream())
    for a, b in zip(state(found), state(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    results = found.transform(stream())
    assert isinstance(results, Iterator)
    np.testing.assert_allclose(np.concatenate(list(results)), whole.transform(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", LEARNING)
def test_partial_fit_goes_on_with_a_stream(kind: Any) -> None:
    found = kind().fit(X[:17]).partial_fit(iter([X[17:60], X[60:]]))
    for a, b in zip(state(found), state(kind().fit(X)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_results_of_a_stream_come_one_by_one() -> None:
    taken = []

    def batches() -> Iterator[np.ndarray]:
        for k in range(5):
            taken.append(k)
            yield X

    results = StandardScaler().fit(X).transform(batches())
    assert taken == []
    next(results)
    assert taken == [0]


def test_results_of_a_stream_are_frames_if_results_are() -> None:
    pytest.importorskip("sklearn")
    pandas = pytest.importorskip("pandas")
    scaler = StandardScaler().set_output(transform="pandas").fit(X)
    for result in scaler.transform(generator()):
        assert isinstance(result, pandas.DataFrame)


def test_what_is_refused_of_streams() -> None:
    for kind in LEARNING:
        with pytest.raises(ValueError, match="stream without a batch"):
            kind().fit(iter([]))
        with pytest.raises(TypeError, match="X is a stream"):
            kind().fit_transform(generator())
        with pytest.raises(TypeError, match="out is for one array"):
            kind().fit(X).transform(generator(), out=np.empty_like(X))
        with pytest.raises(ValueError, match="X has 2 features"):
            kind().fit(iter([X, X[:, :2]]))
    with pytest.raises(ValueError, match="call partial_fit with each batch and its weights"):
        StandardScaler().fit(generator(), sample_weight=np.ones(100))


# Progress.


def test_tracked_items_are_the_items(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    assert list(tracked(range(5), 5, "quiet", False)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")
    assert list(tracked(iter(range(5)), None, "described", True)) == [0, 1, 2, 3, 4]
    printed = capsys.readouterr()
    assert "described" in printed.err
    assert printed.out == ""


def test_without_rich_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    for call in (
        lambda: StandardScaler().fit(X, progress=True),
        lambda: StandardScaler().fit(generator(), progress=True),
        lambda: StandardScaler().fit(X).transform(X, progress=True),
    ):
        with pytest.raises(ImportError, match=r'pip install "fastnorm\[progress\]"'):
            call()


@pytest.mark.parametrize("kind", ALL)
def test_blocks_under_a_progress_bar_are_the_whole(kind: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr("fastnorm.preprocessing.blocks.BLOCK_BYTES", 7 * 24)  # 7 rows
    whole, found = kind().fit(X), kind().fit(X, progress=True)
    for a, b in zip(state(found), state(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(found.transform(X, progress=True), whole.transform(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(kind().fit_transform(X, progress=True), whole.transform(X), rtol=1e-12, atol=1e-12)
    assert len(list(found.transform(generator(), progress=True))) == len(CUTS) + 1
    printed = capsys.readouterr().err
    assert "fit" in printed
    assert "transform" in printed
    if kind is StandardScaler:
        w = np.random.default_rng(3).random(100)
        found, whole = kind().fit(X, sample_weight=w, progress=True), kind().fit(X, sample_weight=w)
        np.testing.assert_allclose(found.var_, whole.var_, rtol=1e-12)


# Data larger than memory.


def test_a_memory_mapped_table_is_read_and_written_in_place(tmp_path: Path) -> None:
    source = np.memmap(tmp_path / "x", np.float64, "w+", shape=X.shape)
    source[:] = X
    source.flush()
    given = np.memmap(tmp_path / "x", np.float64, "r", shape=X.shape)
    out = np.memmap(tmp_path / "y", np.float64, "w+", shape=X.shape)
    for kind in ALL:
        scaler = kind().fit(given)
        assert scaler.transform(given, out=out) is out
        np.testing.assert_allclose(out, kind().fit(X).transform(X), rtol=1e-12, atol=1e-12)
        assert not isinstance(scaler.transform(given), np.memmap)


LIMITED = """
    import resource, sys
    import numpy as np
    from fastnorm.preprocessing import MinMaxScaler, StandardScaler

    HEADROOM, COLUMNS = 40_000_000, 32
    ROWS = 4 * HEADROOM // (4 * COLUMNS)
    source = np.memmap(sys.argv[1], np.float32, "w+", shape=(ROWS, COLUMNS))
    # Most of the file is a hole, zeros that are on no disk; the first and the last rows are not.
    ends = np.random.default_rng(0).normal(3.0, 2.0, (2, 5000, COLUMNS)).astype(np.float32)
    source[:5000], source[-5000:] = ends
    out = np.memmap(sys.argv[2], np.float32, "w+", shape=(ROWS, COLUMNS))
    numbers = ends.astype(np.float64).reshape(-1, COLUMNS)
    mean = numbers.sum(0) / ROWS
    std = np.sqrt((numbers**2).sum(0) / ROWS - mean**2)

    def batches():
        for start in range(0, ROWS, 50_000):
            yield source[start : start + 50_000]

    def check(options):
        scaler = StandardScaler().fit(source, **options)
        np.testing.assert_allclose(scaler.mean_, mean, rtol=1e-6)
        np.testing.assert_allclose(scaler.scale_, std, rtol=1e-6)
        assert scaler.transform(source, out=out, **options) is out
        np.testing.assert_allclose(out[:5000], (ends[0] - mean) / std, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(out[10_000:10_010], np.broadcast_to(-mean / std, (10, COLUMNS)), rtol=1e-5)

    for part in (source[:50_000], source):  # kernels for all that follows are compiled, or loaded, before memory is short
        StandardScaler().fit(part).transform(part, out=out[: len(part)])
        MinMaxScaler().fit(part)
    if "compile" in sys.argv:
        raise SystemExit
    used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + HEADROOM, used + HEADROOM))
    try:
        np.ones(HEADROOM + 1_000_000, np.uint8)
    except MemoryError:
        pass
    else:
        raise SystemExit("the limit does not bite")
    check({})
    if "progress" in sys.argv:
        check({"progress": True})
    scaler = StandardScaler().fit(batches())
    np.testing.assert_allclose(scaler.scale_, std, rtol=1e-6)
    assert sum(len(result) for result in scaler.transform(batches())) == ROWS
    assert MinMaxScaler().fit(source).data_max_.tolist() == ends.max((0, 1)).tolist()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts this limit, and shows what is used")
def test_data_four_times_as_large_as_the_memory_that_is_left(tmp_path: Path, run_python: Any) -> None:
    pytest.importorskip("rich")
    files = (tmp_path / "x", tmp_path / "y")
    try:
        for purpose in ("compile", "progress"):  # what compilations have freed would take an array beyond the limit
            run_python("-c", textwrap.dedent(LIMITED), *map(str, files), purpose)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", [StandardScaler, MinMaxScaler, MaxAbsScaler, Normalizer])
def test_batches_of_a_stream_have_the_same_features(kind: Any) -> None:
    with pytest.raises(ValueError, match="5 features"):
        kind().fit(iter([np.ones((2, 3)), np.ones((2, 5))]))
