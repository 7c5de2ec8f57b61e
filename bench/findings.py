"""What a reader should look at: where the sweep is not monotone, where a peer is faster, where a row is far from the roof."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from bench import summary, sweep
from bench.results import Entry, Report, Speed

FALLS = 0.95
"""A larger array whose call takes less than this share of the smaller one's, beyond the spread of both, is a finding."""
STEP = 2.0
"""And one whose time grows by this factor more than the roof's does, where a call is more than its launch."""
STEP_BYTES = 1 << 18
FAR = 0.8
"""Share of the roof below which a row of at least `LARGE` bytes is named."""
LARGE = 1 << 22


Curves = dict[tuple[str, str], list[Speed]]


class Finding(NamedTuple):
    row: str
    kind: str  # "not monotone", "step", "slower", "far from the roof"
    text: str


def of_sweep(speeds: list[Speed]) -> Curves:
    """The sweep's rows by operation and layout, from the smallest size to the largest."""
    found: Curves = {}
    for speed in speeds:
        if speed.row.name.startswith("sweep/"):
            found.setdefault((speed.row.key.operation, speed.row.key.layout), []).append(speed)
    return {curve: sorted(found[curve], key=lambda speed: speed.x_bytes) for curve in sweep.PANELS if curve in found}


def _ours(speed: Speed) -> Entry | None:
    entry = speed.ours
    return entry if entry is not None and entry.time is not None else None


def of_curve(speeds: list[Speed]) -> list[Finding]:
    """Of rows of one operation by rising size."""
    found = []
    for small, large in pairwise(speeds):
        first, second = _ours(small), _ours(large)
        if first is None or second is None or first.time is None or second.time is None:
            continue
        change = second.time.median / first.time.median
        if change < FALLS and second.time.high < first.time.low:
            found.append(Finding(large.row.name, "not monotone", f"takes {change:.2f} times as long as {small.row.name}"))
        if first.share is None or second.share is None or large.x_bytes < STEP_BYTES:
            continue
        # Shares are paired with a copy of the same bytes: what the caches and the machine's states do is in both.
        step = first.share.median / second.share.median
        if step > STEP and second.share.high * STEP < first.share.low:
            found.append(
                Finding(large.row.name, "step", f"{first.share.median:.2f} of the roof at {small.row.name}, {second.share.median:.2f} here")
            )
    return found


def slower(speed: Speed) -> Finding | None:
    """If the best peer is faster."""
    best = summary.best(speed)
    if best is None or best.ratio is None or best.ratio.median >= 1.0:
        return None
    sure = "" if best.ratio.high < 1.0 else ", not beyond the spread"
    noisy = ", noisy" if best.ratio.noisy else ""
    ratio = best.ratio
    return Finding(speed.row.name, "slower", f"{best.library} {ratio.median:.2f} [{ratio.low:.2f} {ratio.high:.2f}]{sure}{noisy}")


def far(speed: Speed) -> Finding | None:
    share = speed.share
    if share is None or share >= FAR or speed.x_bytes < LARGE:
        return None
    return Finding(speed.row.name, "far from the roof", f"{share:.2f} of a {speed.roof}")


def findings(report: Report, curves: Curves) -> list[Finding]:
    found = [finding for speeds in curves.values() for finding in of_curve(speeds)]
    found += [finding for speed in report.speed if (finding := slower(speed)) is not None]
    return found + [finding for speed in report.speed if (finding := far(speed)) is not None]
