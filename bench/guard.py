"""``python -m bench --check``: did a ratio fall back behind the stored one? For people, on a quiet machine; never for a test.

The table holds ratios only, time of the peer / time of fastnorm, and what they were measured on: another processor has others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from bench.results import Report
from bench.summary import peers

TOLERANCE = 0.15
"""A ratio this much smaller has fallen back."""
STORED = Path(__file__).parent / "ratios.json"


class Change(NamedTuple):
    row: str
    peer: str
    kind: str  # "fell back", "noisy", "new", "missing", "same", "better"
    stored: float | None
    now: float | None
    low: float | None = None  # quartiles of the ratio now
    high: float | None = None

    def __str__(self) -> str:
        numbers = f"{self.stored or float('nan'):.2f} -> {self.now or float('nan'):.2f}"
        spread = f" [{self.low:.2f} {self.high:.2f}]" if self.low is not None else ""
        return f"{self.row} against {self.peer}: {self.kind}, {numbers}{spread}"


def _ratios(report: Report) -> dict[tuple[str, str], Any]:
    return {(speed.row.name, entry.library): entry.ratio for speed in report.speed for entry in peers(speed)}


def compare(report: Report, stored: dict[str, Any]) -> list[Change]:
    """What was measured beside what is stored. A noisy ratio tells nothing, unless even its upper quartile has fallen back."""
    tolerance = float(stored.get("tolerance", TOLERANCE))
    known = {(row, peer): float(ratio) for row, ratios in stored["ratios"].items() for peer, ratio in ratios.items()}
    now = _ratios(report)
    measured = {speed.row.name for speed in report.speed}
    changes = []
    for (row, peer), ratio in now.items():
        before = known.get((row, peer))
        if before is None:
            kind = "new"
        elif ratio.high < before * (1 - tolerance):
            kind = "fell back"
        elif ratio.noisy:
            kind = "noisy"
        elif ratio.median < before * (1 - tolerance):
            kind = "fell back"
        else:
            kind = "better" if ratio.median > before * (1 + tolerance) else "same"
        changes.append(Change(row, peer, kind, before, ratio.median, ratio.low, ratio.high))
    lost = [key for key in known if key not in now and key[0] in measured]
    return changes + [Change(row, peer, "missing", known[row, peer], None) for row, peer in lost]


def merged(report: Report, stored: dict[str, Any] | None) -> dict[str, Any]:
    """The table with what was measured now; ratios that are too noisy to tell are not taken."""
    ratios: dict[str, dict[str, float]] = {row: dict(found) for row, found in (stored or {}).get("ratios", {}).items()}
    for (row, peer), ratio in _ratios(report).items():
        if not ratio.noisy:
            ratios.setdefault(row, {})[peer] = round(ratio.median, 3)
    machine = report.machine
    return {
        "cpu": machine["cpu"],
        "threads": machine["threads"],
        "versions": machine["versions"],
        "tolerance": (stored or {}).get("tolerance", TOLERANCE),
        "ratios": {row: dict(sorted(ratios[row].items())) for row in sorted(ratios)},
    }


def load(path: Path) -> dict[str, Any] | None:
    """The stored table, or None if there is none. Raises ValueError if it is not one."""
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    if not isinstance(stored, dict) or not isinstance(stored.get("ratios"), dict):
        raise ValueError(f"{path} has no ratios; write it with python -m bench --check --update")
    return stored


def store(table: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(table, indent=1, allow_nan=False) + "\n")


def strangeness(report: Report, stored: dict[str, Any]) -> str | None:
    """Why the stored ratios may not apply here."""
    here = (report.machine["cpu"], report.machine["threads"])
    there = (stored.get("cpu"), stored.get("threads"))
    if here == there:
        return None
    return f"the stored ratios are those of {there[0]} with {there[1]} threads; this is {here[0]} with {here[1]}"
