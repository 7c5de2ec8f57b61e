"""``fn.mean_var`` of batches and of data larger than memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
from cases import Problem

import fastnorm as fn

ROWS = cases.sample(Problem((500, 4)), cases.F8, offset=10.0)


class Loader:
    """As a data loader: batches and their number, but no sequence."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(np.array_split(ROWS, 5))


STREAMS: dict[str, Any] = {
    "generator": lambda: (ROWS[k : k + 64] for k in range(0, 500, 64)),
    "with an empty batch": lambda: iter([ROWS[:200], ROWS[:0], ROWS[200:]]),
    "loader": Loader,
    "map": lambda: map(np.asarray, np.array_split(ROWS, 3)),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("axis", [0, None])
def test_batches_are_one_data_set(name: str, axis: Any) -> None:
    whole = fn.mean_var(ROWS, axis, ddof=1)
    found = fn.mean_var(STREAMS[name](), axis, ddof=1)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(found.var, whole.var, rtol=1e-12)
    assert fn.mean_var(STREAMS[name](), axis, keepdims=True).mean.shape == ((1, 4) if axis == 0 else (1, 1))


def test_nan_in_a_stream() -> None:
    holed = ROWS.copy()
    holed[::7, 1] = np.nan
    found = fn.mean_var(iter(np.array_split(holed, 4)), 0, nan_policy="omit")
    np.testing.assert_allclose(found.mean, np.nanmean(holed, 0), rtol=1e-13)
    assert np.isnan(fn.mean_var(iter([holed]), 0).mean[1])
    with pytest.raises(ValueError, match="nan"):
        fn.mean_var(iter([ROWS, holed]), 0, nan_policy="raise")


def test_infinity_in_one_batch() -> None:
    mean, _ = fn.mean_var(iter([[1.0, 2.0], [np.inf, 3.0], [4.0]]))
    assert mean == np.inf


def test_progress_of_an_array_and_of_a_stream(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    from fastnorm.ops import statistics

    monkeypatch.setattr(statistics, "STEP_BYTES", 4000)
    found = fn.mean_var(ROWS, 0, progress=True, weights=np.arange(500.0))
    np.testing.assert_allclose(found.mean, fn.mean_var(ROWS, 0, weights=np.arange(500.0)).mean, rtol=1e-14)
    fn.mean_var(Loader(), 0, progress=True)
    shown = capsys.readouterr()
    assert "mean and variance" in shown.err
    assert not shown.out


def test_errors() -> None:
    with pytest.raises(ValueError, match="no batch"):
        fn.mean_var(iter([]), 0)
    with pytest.raises(ValueError, match=r"shape \(3,\) but earlier ones had \(4,\)"):
        fn.mean_var(iter([ROWS, ROWS[:, :3]]), 0)
    with pytest.raises(TypeError, match="weights of a stream"):
        fn.mean_var(iter([ROWS]), 0, weights=np.ones(500))
    with pytest.raises(TypeError, match="a batch of a has dtype object"):
        fn.mean_var(iter([[None]]), 0)


def test_larger_than_memory(tmp_path: Path) -> None:
    """A file four times as large as the memory that the process may still allocate."""
    code = """
        import resource, sys
        import numpy as np
        import fastnorm as fn

        shape = (1_600_000, 64)  # 410 MB of float32
        data = np.memmap(sys.argv[1], np.float32, "w+", shape=shape)
        for k in range(0, len(data), 100_000):
            data[k : k + 100_000] = np.arange(64, dtype=np.float32) + k // 100_000
        fn.mean_var(data[:200_000], 0)  # compiled
        used = int(open("/proc/self/status").read().split("VmData:")[1].split()[0]) * 1024
        limit = data.nbytes // 4
        resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
        try:
            np.empty(data.nbytes // 3, np.uint8)[:] = 1
            raise SystemExit("the limit does not hold")
        except MemoryError:
            pass
        expected = np.arange(64) + 7.5
        for a in (data, (data[k : k + 250_000] for k in range(0, len(data), 250_000))):
            mean, var = fn.mean_var(a, 0)
            np.testing.assert_allclose(mean, expected, rtol=1e-12)
            np.testing.assert_allclose(var, (16**2 - 1) / 12, rtol=1e-12)
        """
    if not Path("/proc/self/status").exists():
        pytest.skip("the limit is Linux's")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path / "data"], capture_output=True, text=True, check=False)
    (tmp_path / "data").unlink()
    assert done.returncode == 0, done.stderr
