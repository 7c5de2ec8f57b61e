"""Runs rows: arrays, reference, check, and only then the clock."""

from __future__ import annotations

import gc
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import numpy as np

from bench import allocator, environment, findings, footprint, oracle, providers, selection
from bench.clock import Clock, fits, nbytes
from bench.problems import Problem, UnsupportedError
from bench.providers import OURS, Prepared
from bench.results import Accuracy, Entry, Footprint, Report, Speed, contract, credible, mistaken
from bench.roofline import Memory, Roof, thread_counts
from bench.rows import OFFSETS, Row
from bench.timing import Samples, measure

_ROOF = "roof"
_SCALING_S = 10.0
_LARGE_BYTES = 1 << 26
"""Of x, from which free memory is a question."""
_SLOW_S = 1.0
"""Of a call in the sweep: who is expected to take longer for the next size ends here."""
Announce = Callable[[str], None]


def start(threads: int) -> Memory:
    """fastnorm and its threads first: with OMP_PROC_BIND the import of PyTorch pins this thread to one core, and
    threads that are started later inherit that."""
    import fastnorm

    allocator.keep_freed_memory()
    if not providers.absent(OURS):
        import fastnorm._jit

        fastnorm.set_num_threads(threads)
        threads = fastnorm.get_num_threads()
    return Memory(threads)


def check(prepared: Prepared, problem: Problem, entry: Entry) -> None:
    """Call once and compare with the reference. What was not written is NaN."""
    if problem.writes and not problem.sparse:
        problem.out.fill(np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy's about cancellation: the error is measured here
        results = prepared.results(prepared.call())
    entry.errors = oracle.errors(problem, results)
    main = next((entry.errors[name] for name in ("dx", "y") if name in entry.errors), None)
    entry.error = main if main is not None else max(entry.errors.values())
    if not entry.error <= credible(problem):
        entry.status = "wrong"
    elif entry.library == OURS and not entry.error <= contract(problem):
        entry.status, entry.note = "inaccurate", f"contract: {contract(problem):.1e}"
    elif not entry.error <= mistaken(problem):
        entry.status = "inaccurate"


def _prepared(library: str, problem: Problem, fresh: bool, entry: Entry) -> Prepared | None:
    """Ready and checked, or None with the reason in `entry`."""
    reason = providers.absent(library)
    if reason is not None:
        entry.status, entry.note = "absent", reason
        return None
    try:
        prepared = providers.prepare(library, problem, fresh)
        check(prepared, problem, entry)
    except UnsupportedError as refusal:
        entry.status, entry.note = "unsupported", str(refusal)
        return None
    except Exception as failure:  # a peer that fails must not end the run; fastnorm's failure ends it with status 1
        entry.status, entry.note = "failed", "".join(traceback.format_exception_only(failure)).strip()
        return None
    return prepared if entry.status in ("ok", "inaccurate") else None


def _evaluate(entries: list[Entry], samples: Samples, roof: Roof) -> None:
    base = OURS if OURS in samples.names else samples.names[0]
    for entry in entries:
        if entry.library in samples.names:
            entry.time = samples.time(entry.library)
            share = samples.ratio(_ROOF, entry.library)
            entry.share = type(share)(*(value * roof.scale for value in share))
            if entry.library != base:
                entry.ratio = samples.ratio(entry.library, base)


def run_speed(row: Row, problem: Problem, memory: Memory, budget_s: float) -> Speed:
    entries = [Entry(library) for library in row.providers]
    fresh = row.outputs == "fresh"
    prepared = {entry.library: _prepared(entry.library, problem, fresh, entry) for entry in entries}
    calls = {library: ready.call for library, ready in prepared.items() if ready is not None}
    if not calls:
        return Speed(row, problem.shape, problem.traffic, "", entries, problem.nbytes)
    roof = memory.roof(problem.traffic, problem.writes, problem.expansion)
    before = allocator.return_freed_memory if fresh else None
    _evaluate(entries, measure(calls | {_ROOF: roof.call}, budget_s, before), roof)
    return Speed(row, problem.shape, problem.traffic, roof.kind, entries, problem.nbytes)


def run_accuracy(row: Row, offsets: tuple[float, ...] = OFFSETS) -> Accuracy:
    found = Accuracy(row, contract(Problem(row.key)), {library: [] for library in row.providers}, offsets=offsets)
    for offset in offsets:
        problem = Problem(row.key._replace(offset=offset))
        for library in row.providers:
            entry = Entry(library)
            _prepared(library, problem, False, entry)
            found.errors[library].append(entry.error)
            if entry.status == "failed":
                found.failures[library] = entry.note
    return found


def run_memory(row: Row) -> Footprint:
    problem = Problem(row.key)
    extra: dict[str, int | None] = {}
    for library in row.providers:
        prepared = _prepared(library, problem, row.outputs == "fresh", Entry(library))
        extra[library] = footprint.peak_extra_bytes(prepared.call) if prepared is not None else None
    return Footprint(row, problem.nbytes, extra)


def _known(rows: Iterable[Row], announce: Announce) -> list[Row]:
    """Without the operations that fastnorm has not learned yet."""
    rows = list(rows)
    missing = sorted({row.key.operation for row in rows if providers.lacks(row.key.operation)})
    if missing:
        announce(f"left out, because fastnorm has no such function yet: {', '.join(missing)}")
    return [row for row in rows if row.key.operation not in missing]


class Wanted(NamedTuple):
    """How to run."""

    threads: int
    budget_s: float  # for the timing of all rows together
    limit_s: float | None = None  # for everything
    peers: str = selection.DEFAULT  # see `selection.with_peers`
    offsets: tuple[float, ...] = OFFSETS
    scaling: bool = False  # measure memory with every number of threads


@dataclass
class _Runner:
    memory: Memory
    report: Report
    offsets: tuple[float, ...]
    problem: Problem | None = None  # that the next row may share

    def release(self, row: Row) -> None:
        """Give back what the rows before have left, if the row needs it."""
        if nbytes(row) >= _LARGE_BYTES and (self.problem is None or self.problem.key != row.key):
            self.problem = None
            gc.collect()
            allocator.return_freed_memory()

    def affordable(self, row: Row) -> Row:
        """Without peers that would take too long: the row of the next smaller size tells."""
        if not row.name.startswith("sweep/"):
            return row
        curve = findings.of_sweep(self.report.speed).get((row.key.operation, row.key.layout), [])
        if not curve:
            return row
        growth = nbytes(row) / curve[-1].x_bytes
        times = {entry.library: entry.time.median * growth for entry in curve[-1].entries if entry.time is not None}
        there = {entry.library for entry in curve[-1].entries}
        return row._replace(peers=tuple(peer for peer in row.peers if peer in there and times.get(peer, 0.0) <= _SLOW_S))

    def run(self, row: Row, each_s: float) -> None:
        if row.name.startswith("accuracy/"):
            self.report.accuracy.append(run_accuracy(row, self.offsets))
        elif row.name.startswith("memory/"):
            self.report.memory.append(run_memory(row))
        else:
            if self.problem is None or self.problem.key != row.key:
                self.problem = None  # release the last one's arrays first
                self.problem = Problem(row.key)
            self.report.speed.append(run_speed(row, self.problem, self.memory, each_s))


def run(rows: list[Row], wanted: Wanted, announce: Announce, progress: Callable[[list[Row]], Iterable[Row]]) -> Report:
    began = perf_counter()
    memory = start(wanted.threads)
    scaling = memory.scaling(thread_counts(memory.threads), _SCALING_S) if wanted.scaling else {}
    bandwidth = scaling[memory.threads] if wanted.scaling else memory.bandwidth()
    report = Report(environment.describe(memory.threads), bandwidth, scaling=scaling)
    rows = selection.with_peers(_known(rows, announce), wanted.peers)
    asked = [name for name in providers.MODULES if any(name in row.providers for row in rows)]
    report.absent = {name: reason for name in asked if (reason := providers.absent(name))}
    for name, reason in report.absent.items():
        announce(f"{name} is left out: {reason}")
    limit_s = None if wanted.limit_s is None else wanted.limit_s - (perf_counter() - began)
    clock = Clock(rows, wanted.budget_s, limit_s)
    runner = _Runner(memory, report, wanted.offsets)
    for row in progress(rows):
        runner.release(row)
        each_s = clock.begin(row) if fits(row) else clock.leave(row)
        if each_s is None:
            report.skipped.append(row.name)
        else:
            runner.run(runner.affordable(row), each_s)
            clock.end(row)
    if report.skipped:
        announce(f"{len(report.skipped)} rows are left out for lack of time or memory, the first of them {report.skipped[0]}")
    report.seconds = perf_counter() - began
    return report
