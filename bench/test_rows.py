"""The same rows under pytest-benchmark: ``pytest bench/ --benchmark-only``.

It compares runs of one library over time (``--benchmark-autosave``, ``--benchmark-compare``), which the paired ratios
of ``python -m bench`` do not. Nothing here asserts a time: speed never lives in a test.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")

from bench import environment

environment.prepare(environment.default_threads())

from bench import providers, run  # noqa: E402
from bench.problems import Problem, UnsupportedError  # noqa: E402
from bench.results import Entry  # noqa: E402
from bench.rows import ROWS, Row  # noqa: E402

CASES = [(row, library) for row in ROWS if row.quick for library in row.providers]


@pytest.fixture(scope="module", autouse=True)
def _threads() -> None:
    run.start(environment.default_threads())


@pytest.mark.parametrize(("row", "library"), CASES, ids=[f"{row.name}-{library}" for row, library in CASES])
def test_row(benchmark: Any, row: Row, library: str) -> None:
    if providers.absent(library):
        pytest.skip(f"{library}: {providers.absent(library)}")
    problem = Problem(row.key)
    fresh = row.outputs == "fresh"
    try:
        prepared = providers.prepare(library, problem, fresh)
    except UnsupportedError as refusal:
        pytest.skip(str(refusal))
    entry = Entry(library)
    run.check(prepared, problem, entry)
    assert entry.status == "ok", f"error {entry.error}: {entry.errors}"
    benchmark.group = row.name
    benchmark(prepared.call)
