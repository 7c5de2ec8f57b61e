"""Runs rows: arrays, reference, check, and only then the clock."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from time import perf_counter

import numpy as np

from bench import allocator, environment, footprint, oracle, providers
from bench.problems import Problem, UnsupportedError
from bench.providers import OURS, Prepared
from bench.results import Accuracy, Entry, Footprint, Report, Speed, contract, credible, mistaken
from bench.roofline import Memory, Roof
from bench.rows import ACCURACY, MEMORY, OFFSETS, Row
from bench.timing import Samples, measure

_ROOF = "roof"
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
    results = prepared.results(prepared.call())
    entry.errors = {name: oracle.error(found, problem.reference[name]) for name, found in results.items() if name in problem.reference}
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
        return Speed(row, problem.shape, problem.traffic, "", entries)
    roof = memory.roof(problem.traffic, problem.writes, problem.expansion)
    before = allocator.return_freed_memory if fresh else None
    _evaluate(entries, measure(calls | {_ROOF: roof.call}, budget_s, before), roof)
    return Speed(row, problem.shape, problem.traffic, roof.kind, entries)


def run_accuracy(row: Row) -> Accuracy:
    found = Accuracy(row, contract(Problem(row.key)), {library: [] for library in row.providers})
    for offset in OFFSETS:
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


def run(rows: list[Row], threads: int, budget_s: float, announce: Announce, progress: Callable[[list[Row]], Iterable[Row]]) -> Report:
    """budget_s: seconds for the timing of all rows together."""
    began = perf_counter()
    memory = start(threads)
    report = Report(environment.describe(memory.threads), memory.bandwidth())
    rows = _known(rows, announce)
    asked = [name for name in providers.MODULES if any(name in row.providers for row in rows)]
    report.absent = {name: reason for name in asked if (reason := providers.absent(name))}
    for name, reason in report.absent.items():
        announce(f"{name} is left out: {reason}")
    n_timed = sum(row not in ACCURACY and row not in MEMORY for row in rows)
    each_s = min(2.0, budget_s / max(1, n_timed))
    problem: Problem | None = None
    for row in progress(rows):
        if row in ACCURACY:
            report.accuracy.append(run_accuracy(row))
        elif row in MEMORY:
            report.memory.append(run_memory(row))
        else:
            if problem is None or problem.key != row.key:
                problem = None  # release the last one's arrays first
                problem = Problem(row.key)
            report.speed.append(run_speed(row, problem, memory, each_s))
    report.seconds = perf_counter() - began
    return report
