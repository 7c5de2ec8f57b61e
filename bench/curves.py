"""Pictures of a report: time against size, share of the roof against size, error against offset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from bench.colours import LOOKS, ORDER
from bench.findings import of_sweep
from bench.providers import OURS
from bench.results import Accuracy, Report

_COLUMNS, _SIDE = 3, 3.4  # of panels; inches
_SIZES = {1024.0**k * 4**j: f"{4**j} {unit}B" for k, unit in ((1, "K"), (2, "M"), (3, "G")) for j in (0, 2, 4) if 1024.0**k * 4**j <= 2**30}
_HIGHEST = 1.5  # share that is drawn
_OPERATION_LOOKS = (("o", "-"), ("s", "--"), ("^", "-"), ("v", "--"), ("D", "-"), ("P", "--"), ("X", "-"), ("*", "--"))


def _grid(n: int, title: str) -> tuple[Figure, list[Axes]]:
    rows = -(-n // _COLUMNS)
    columns = min(n, _COLUMNS)
    figure, grid = plt.subplots(rows, columns, figsize=(1.3 * _SIDE * columns, _SIDE * rows + 0.9), layout="constrained", squeeze=False)
    panels = list(grid.ravel())
    for empty in panels[n:]:
        empty.set_axis_off()
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure, panels[:n]


def _finish(figure: Figure, panels: Iterable[Axes], path: Path) -> None:
    """One legend for all panels, in the order of the libraries."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    labels = sorted(handles, key=lambda label: ORDER.get(label, len(ORDER)))
    figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=8, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bytes_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(_SIZES)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(_SIZES), list(_SIZES.values()), fontsize=7, rotation=35)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(alpha=0.3)


def _machine(report: Report) -> str:
    return f"{report.machine['cpu']}, {report.machine['threads']} threads"


def draw_sweep(report: Report, path: Path) -> bool:
    """Time of a call against the bytes of x. Returns whether there was anything to draw."""
    curves = of_sweep(report.speed)
    if not curves:
        return False
    figure, panels = _grid(len(curves), f"time of a call against bytes of x; {_machine(report)}")
    for axes, ((operation, layout), speeds) in zip(panels, curves.items(), strict=True):
        libraries = sorted({entry.library for speed in speeds for entry in speed.entries if entry.time}, key=ORDER.__getitem__)
        for library in libraries:
            points = [
                (speed.x_bytes, entry.time.median) for speed in speeds for entry in speed.entries if entry.library == library and entry.time
            ]
            axes.plot(*zip(*points, strict=True), label=library, **LOOKS[library].line())
        axes.set_title(f"{operation} {layout}", fontsize=9)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("seconds", fontsize=8)
        _bytes_axis(axes)
    _finish(figure, panels, path)
    return True


def draw_roofline(report: Report, path: Path) -> bool:
    """fastnorm's share of the fastest copy against the bytes of x: curves of the sweep, points for the named rows."""
    curves = of_sweep(report.speed)
    others = [speed for speed in report.speed if not speed.row.name.startswith("sweep/") and speed.share is not None]
    if not curves and not others:
        return False
    figure, axes = plt.subplots(figsize=(10, 5.6), layout="constrained")
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    for at, ((operation, layout), speeds) in enumerate(curves.items()):
        points = [(speed.x_bytes, min(_HIGHEST, speed.share)) for speed in speeds if speed.share is not None]
        marker, dashes = _OPERATION_LOOKS[at % len(_OPERATION_LOOKS)]
        axes.plot(
            *zip(*points, strict=True), label=f"{operation} {layout}", marker=marker, linestyle=dashes, markersize=4, color=colours[at % 10]
        )
    if others:
        points = [(speed.x_bytes, min(_HIGHEST, speed.share or 0.0)) for speed in others]
        axes.scatter(*zip(*points, strict=True), s=14, color="0.55", label="other rows", zorder=1)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.axhline(0.9, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1.03 * _HIGHEST)
    axes.set_ylabel(f"least time of the minimal traffic / time\n(dotted: the target; above {_HIGHEST}: drawn there)")
    axes.set_xlabel("bytes of x")
    _bytes_axis(axes)
    axes.set_title(f"fastnorm's share of the fastest copy; {_machine(report)}", fontsize=10, loc="left")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def draw_scaling(report: Report, path: Path) -> bool:
    """Bandwidth against the number of threads."""
    if len(report.scaling) < 2:
        return False
    figure, axes = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
    for kind, marker in zip(report.bandwidth, "osD", strict=False):
        axes.plot(list(report.scaling), [rates[kind] for rates in report.scaling.values()], marker=marker, label=kind)
    axes.set_xticks(list(report.scaling))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("threads")
    axes.set_ylabel("GB/s")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def draw_accuracy(report: Report, path: Path) -> bool:
    """Largest error against abs(mean)/std."""
    rows = [found for found in report.accuracy if any(e is not None for e in found.errors.get(OURS, []))]
    if not rows:
        return False
    figure, panels = _grid(
        len(rows), "largest error/(1+|y|) against |mean|/std, float32 (dotted: what fastnorm promises, up to 1e6); beyond 1e3: drawn there"
    )
    for axes, found in zip(panels, rows, strict=True):
        _errors(axes, found)
    _finish(figure, panels, path)
    return True


_LEAST, _MOST = 1e-9, 1e3  # of the axis: an error of zero is drawn at its end, as is one that is not finite


def _errors(axes: Axes, found: Accuracy) -> None:
    for library in sorted(found.errors, key=ORDER.__getitem__):
        points = [(x, min(_MOST, max(_LEAST, e))) for x, e in zip(found.offsets, found.errors[library], strict=True) if e is not None]
        if points:
            # Hollow, and of sizes of their own: many libraries make the same error.
            look = LOOKS[library].line() | {"markersize": 4 + 1.2 * (ORDER[library] % 5), "markerfacecolor": "none"}
            axes.plot(*zip(*points, strict=True), label=library, **look)
    axes.axhline(found.limit, color="black", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(_LEAST, None)
    axes.set_title(found.row.name.removeprefix("accuracy/"), fontsize=9)
    axes.yaxis.set_major_locator(LogLocator(100, numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
