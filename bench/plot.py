"""One picture of a run: how many times longer each peer takes than fastnorm, and fastnorm's share of the roof."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.colours import LOOKS, ORDER
from bench.results import Entry, Report, Speed

_BAR = 0.16  # inches


def _peers(found: Speed) -> list[Entry]:
    return [entry for entry in found.entries if entry.ratio is not None]


def _positions(rows: list[Speed]) -> tuple[list[list[int]], int]:
    """Vertical slots, top down: one per peer, one free between rows."""
    slots, at = [], 0
    for found in rows:
        n = max(1, len(_peers(found)))
        slots.append(list(range(at, at + n)))
        at += n + 1
    return slots, at


def _ratios(axes: Axes, rows: list[Speed], slots: list[list[int]]) -> None:
    named: set[str] = set()
    for found, places in zip(rows, slots, strict=True):
        for entry, place in zip(_peers(found), places, strict=False):
            ratio = entry.ratio
            assert ratio is not None
            label = entry.library if entry.library not in named else None
            named.add(entry.library)
            colour = LOOKS[entry.library].colour
            axes.barh(place, ratio.median - 1, left=1, height=0.9, color=colour, alpha=0.4 if ratio.noisy else 1.0, label=label)
            axes.plot([ratio.low, ratio.high], [place, place], color="black", linewidth=0.8)
            end = max(ratio.high, 1.0)
            axes.annotate(f"{ratio.median:.1f}", (end, place), (3, 0), textcoords="offset points", va="center", fontsize=6)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("time of the peer / time of fastnorm (log; line: quartiles; pale: noisy)")
    axes.set_yticks([sum(p) / len(p) for p in slots], [found.row.name for found in rows], fontsize=7)
    axes.grid(axis="x", alpha=0.3)


def _shares(axes: Axes, rows: list[Speed], slots: list[list[int]]) -> None:
    for found, places in zip(rows, slots, strict=True):
        ours = found.ours
        if ours is None or ours.share is None:
            continue
        middle, height = sum(places) / len(places), 0.9 * len(places)
        axes.barh(middle, ours.share.median, height=height, color="tab:gray")
        axes.annotate(f"{ours.share.median:.2f}", (ours.share.median, middle), (3, 0), textcoords="offset points", va="center", fontsize=6)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(0, 1.35)
    axes.set_xlabel("share of the fastest copy")
    axes.grid(axis="x", alpha=0.3)


def draw(report: Report, path: Path) -> bool:
    """Returns whether there was anything to draw."""
    rows = [found for found in report.speed if any(entry.time for entry in found.entries)]
    if not rows:
        return False
    slots, height = _positions(rows)
    size = (12, max(3.0, _BAR * height + 1.6))
    figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=(3, 1), layout="constrained")
    _ratios(left, rows, slots)
    _shares(right, rows, slots)
    left.set_ylim(height - 0.5, -1.0)
    if left.get_legend_handles_labels()[0]:
        named = sorted(zip(*left.get_legend_handles_labels(), strict=True), key=lambda pair: ORDER[pair[1]])
        figure.legend(*zip(*named, strict=True), loc="outside upper right", ncols=7, fontsize=8, frameon=False)
    machine = report.machine
    figure.suptitle(f"{machine['cpu']}, {machine['threads']} threads", fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True
