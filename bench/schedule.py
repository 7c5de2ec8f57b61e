"""``python -m bench schedule``: what the library's schedules would do with 2 to 128 threads, computed, not timed.

Schedules are the library's own (`fastnorm.plan`); what a launch then does with them is modelled:

- a launch deals `chunks` to threads in equal contiguous ranges: thread t has the chunks from chunks * t // threads on, and takes
  from the next threads when it is done (`kernels.dealing`). A chunk has equal shares of the units (statistics, column tiles,
  or parts of them), likewise;
- work is proportional to elements. A launch ends when the thread with most of them does;
- partial results are merged by one thread: 32 bytes for each statistic and cut;
- a launch costs `LAUNCH_S` and what waking a further thread costs.

Balance is the largest load of a thread / the mean of all threads: 1 is perfect, and the number of threads is what one busy thread
of many makes. The predicted speed-up is time of one thread / time of n, as if bandwidth grew with the threads: an upper bound that
shows what the schedule itself loses.
"""

from __future__ import annotations

import argparse
import heapq
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.problems import AVERAGES, Key, Problem
from bench.shapes import SHAPES
from fastnorm.ops.batch import channel_layout
from fastnorm.ops.group import EVERY_CHANNEL, _groups_of, _layout
from fastnorm.ops.reduction import layout_of
from fastnorm.ops.rows import rows_of
from fastnorm.plan.geometry import Geometry
from fastnorm.plan.problem import Problem as Planned
from fastnorm.plan.problem import arrange
from fastnorm.plan.schedule import Schedule

ELEMENTS_PER_S = 1.5e9  # of one thread, float32, in training: 12 GB/s
MERGED_BYTES_PER_S = 2e9
LAUNCH_S, WAKE_S = 1e-6, 0.1e-6
PARTIAL_BYTES = 32
BAD = 1.5
THREADS = (2, 4, 8, 16, 32, 64, 128)

CALLS: tuple[tuple[str, str, str], ...] = (
    ("train", "NCHW", "resnet50/bn1"),
    ("train", "NCHW", "resnet50/stage4"),
    ("train", "NCHW", "photos"),
    ("train", "NCHW", "odd/one-channel"),
    ("train", "NCHW", "odd/three-channels"),
    ("train", "NCHW", "mobilenet2/first"),
    ("train", "NHWC", "resnet50/bn1"),
    ("train", "NHWC", "resnet50/stage4-wide"),
    ("train", "NHWC", "photos"),
    ("train", "NC", "tabular/tall"),
    ("train", "NC", "odd/rows-of-1"),
    ("inference", "NCHW", "resnet50/bn1"),
    ("inference", "NHWC", "resnet50/stage4"),
    ("backward", "NCHW", "resnet50/bn1"),
    ("backward", "NCHW", "resnet50/stage4"),
    ("backward", "NCHW", "photos"),
    ("backward", "NHWC", "resnet50/stage2"),
    ("layer_norm", "rows", "gpt2/tokens"),
    ("layer_norm", "rows", "bert-large/tokens"),
    ("layer_norm_backward", "rows", "gpt2/tokens"),
    ("layer_norm_backward", "rows", "bert-large/tokens"),
    ("group_norm", "NCHW", "unet/28"),
    ("group_norm", "NHWC", "unet/28"),
    ("group_norm_backward", "NCHW", "unet/28"),
    ("instance_norm", "NCHW", "style/64"),
    ("var", "axis0", "square"),
    ("var", "axis1", "square"),
    ("var", "all", "square"),
)
"""Operation, layout, shape."""


class Phase(NamedTuple):
    """One launch."""

    name: str
    loads: np.ndarray  # elements of each chunk
    merged_bytes: int


class Cost(NamedTuple):
    threads: int
    schedule: Schedule
    statistics: int
    balance: float
    busy: int  # threads that have work, in the launch with the worst balance
    busiest_bytes: float  # of x, that the busiest thread walks over
    merge_s: float
    speed_up: float

    @property
    def inside(self) -> bool:
        """Whether a statistic is cut between threads."""
        return self.schedule.cuts > 1 and not self.schedule.fused


def _span(n_items: int, n_parts: int) -> np.ndarray:
    """Sizes of the parts, as `kernels.walk.span` deals them."""
    return np.diff(n_items * np.arange(n_parts + 1, dtype=np.int64) // n_parts)


def _dealt(sizes: np.ndarray, n_parts: int) -> np.ndarray:
    """Sums of the sizes of the neighbouring items that each part is dealt."""
    sums = np.concatenate([[0], np.cumsum(sizes)])
    return np.diff(sums[len(sizes) * np.arange(n_parts + 1, dtype=np.int64) // n_parts])


def _shared(chunks: np.ndarray, threads: int) -> np.ndarray:
    """Elements that each thread has walked over in the end, all threads equally fast."""
    ends = len(chunks) * np.arange(1, threads + 1, dtype=np.int64) // threads
    following = len(chunks) * np.arange(threads, dtype=np.int64) // threads
    loads = np.zeros(threads)
    waiting = [(0.0, thread) for thread in range(threads)]
    while waiting:
        load, thread = heapq.heappop(waiting)
        loads[thread] = load
        for share in ((thread + k) % threads for k in range(threads)):
            if following[share] < ends[share]:
                heapq.heappush(waiting, (load + float(chunks[following[share]]), thread))
                following[share] += 1
                break
    return loads


def _untouched(shape: tuple[int, ...]) -> np.ndarray:
    """What a plan looks at of a contiguous array, without its memory: an allocator may write to what it hands out."""
    steps = np.cumprod((4, *shape[:0:-1]))[::-1]
    return np.lib.stride_tricks.as_strided(np.empty(1, np.float32), shape, steps.tolist())


def _planned(problem: Problem, threads: int) -> Planned:
    """The library's plan."""
    operation = problem.operation
    x, out, grad = (_untouched(problem.shape) for _ in range(3))
    backward = operation.endswith("backward")
    operands = (x, out, None, grad if backward else None, None)
    if problem.rowwise:
        rows = rows_of(x, problem.axis)
        return arrange(rows.backward if backward else rows.forward, rows.present(*operands), threads)
    if operation.startswith(("group", "instance")):
        groups = _groups_of(x, problem.axis, EVERY_CHANNEL if operation.startswith("instance") else problem.groups)
        return arrange(_layout(x.ndim + 1, groups.axis, backward), tuple(groups.split(a) for a in operands), threads)
    if operation in AVERAGES:
        axes = tuple(range(x.ndim)) if problem.reduced is None else (problem.reduced,)
        return arrange(layout_of(x.ndim, axes), (x, None, None, None, None), threads)
    return arrange(channel_layout(x.ndim, problem.axis, operation != "inference"), operands, threads)


def _units(g: Geometry, s: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Elements of every part of a statistic or column tile, in order, and of every whole one."""
    if s.planar:
        return np.tile(_span(g.elements, s.cuts), g.statistics), np.full(g.statistics, g.elements)
    tiles = -(-g.columns // s.columns)
    widths = np.full(tiles, s.columns)
    widths[-1] = g.columns - s.columns * (tiles - 1)
    rows = _span(-(-g.outer // s.fold), s.cuts) * s.fold
    return np.tile(np.outer(widths, rows).ravel(), g.batch), np.tile(widths * g.outer, g.batch)


def phases(operation: str, planned: Planned) -> list[Phase]:
    """The launches of a call."""
    g, s = planned.geometry, planned.schedule
    parts, whole = _units(g, s)
    of_columns = not s.planar and operation.endswith("backward")  # moments of columns are already those of their statistics
    merged = PARTIAL_BYTES * s.cuts * (g.batch * g.columns if of_columns else g.statistics)
    if operation in AVERAGES:
        return [Phase("moments", _dealt(parts, s.chunks), merged if s.cuts > 1 else 0)]
    if s.fused and operation != "inference":
        return [Phase("fused", _dealt(whole, s.chunks), 0)]
    if s.planar and planned.per_element and operation.endswith("backward"):  # chunks are cuts of the elements of all statistics
        elements = _span(g.elements, s.cuts) * g.statistics
        return [Phase("sums", elements, merged), Phase("gradient", elements, 0)]
    # Application is dealt by elements where they lie in runs, else in the parts of the moments.
    planar_apply = s.planar and not operation.endswith("backward")
    second = _span(g.size, s.chunks) if planar_apply else _dealt(parts, s.chunks)
    if operation == "inference":
        return [Phase("apply", second, 0)]
    return [Phase("moments", _dealt(parts, s.chunks), merged), Phase("apply", second, 0)]


def cost(problem: Problem, threads: int) -> Cost:
    """Of one call."""
    planned = _planned(problem, threads)
    found = phases(problem.operation, planned)
    n = threads if planned.schedule.parallel else 1
    each_s = problem.elements / ELEMENTS_PER_S / len(found)
    launch_s = (LAUNCH_S + WAKE_S * n) * len(found) if n > 1 else 0.0
    merge_s = sum(phase.merged_bytes for phase in found) / MERGED_BYTES_PER_S
    loads = [_shared(phase.loads, n) for phase in found]
    balances = [float(load.max() * threads / load.sum()) for load in loads]
    worst = loads[int(np.argmax(balances))]
    time_s = each_s * sum(balances) / threads + launch_s + merge_s
    return Cost(
        threads,
        planned.schedule,
        planned.geometry.statistics,
        max(balances),
        int((worst > 0).sum()),
        float(worst.max()) * problem.dtype.itemsize,
        merge_s,
        (each_s * len(found) + merge_s) / time_s,
    )


def _table(costs: dict[str, list[Cost]]) -> Table:
    table = Table(title="balance, and predicted speed-up, by number of threads; red: balance above 1.5", title_justify="left")
    table.add_column("call", no_wrap=True)
    table.add_column("statistics", justify="right")
    table.add_column("walk")
    table.add_column("cuts", justify="right")
    for cost in next(iter(costs.values())):
        table.add_column(str(cost.threads), justify="right", no_wrap=True)
    for name, found in costs.items():
        s = found[-1].schedule
        walk = ("rows" if s.rows else "planar" if s.planar else "columns") + (", fused" if s.fused else "")
        cells = [
            Text(f"{c.balance:.2f} {c.speed_up:.0f}x" if c.schedule.parallel else "serial", style="red" if _bad(c) else "") for c in found
        ]
        table.add_row(name, str(found[-1].statistics), walk, str(s.cuts), *cells)
    return table


def _bad(cost: Cost) -> bool:
    return cost.schedule.parallel and cost.balance > BAD


def _detail(name: str, cost: Cost) -> str:
    s = cost.schedule
    cut = f"{s.cuts} cuts of each statistic" if cost.inside else "statistics are not cut"
    return (
        f"{name}, {cost.threads} threads: balance {cost.balance:.2f}, {cost.busy} of {cost.threads} threads have work, {s.chunks} chunks,"
        f" {cost.statistics} statistics, {cut}, {cost.busiest_bytes / 1e6:.3g} MB of x in the busiest thread,"
        f" merge {cost.merge_s * 1e6:.1f} µs, speed-up {cost.speed_up:.1f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench schedule", description="What the library's schedules do with many threads, computed."
    )
    parser.add_argument(
        "calls", nargs="*", metavar="CALL", help="such as train/NCHW/photos: operation, layout, shape; globs of those listed too"
    )
    parser.add_argument("--threads", default=",".join(map(str, THREADS)), help="numbers joined by commas (default: %(default)s)")
    parser.add_argument("--detail", action="store_true", help="every call and number of threads, not only the first out of balance")
    return parser


def calls_of(patterns: list[str]) -> dict[str, Problem]:
    """Name -> problem. Raises ValueError for a pattern that names nothing."""
    known = ["/".join(call) for call in CALLS]
    names = [] if patterns else known
    for pattern in patterns:
        matching = [name for name in known if fnmatchcase(name, pattern) or name.startswith(pattern.rstrip("/") + "/")]
        if not matching and pattern.partition("/")[2].partition("/")[2] in SHAPES:
            matching = [pattern]
        if not matching:
            raise ValueError(f"no call is called {pattern!r}; pass operation/layout/shape, with a shape of bench/shapes.py")
        names += matching
    keys = {name: (*name.split("/", 2),) for name in dict.fromkeys(names)}
    return {name: Problem(Key(operation, shape, layout, "float32")) for name, (operation, layout, shape) in keys.items()}


def main(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        problems = calls_of(arguments.calls)
        threads = [int(n) for n in arguments.threads.split(",")]
    except ValueError as wrong:
        parser.error(str(wrong))
    if min(threads) < 1:
        parser.error(f"--threads is {arguments.threads}; every number must be at least 1")
    costs = {name: [cost(problem, n) for n in threads] for name, problem in problems.items()}
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    console.print(_table(costs))
    for name, found in costs.items():
        for each in found if arguments.detail else [each for each in found if _bad(each)][:1]:
            console.print(_detail(name, each), highlight=False)
    return 0
