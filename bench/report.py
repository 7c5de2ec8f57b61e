"""Tables for people and JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import summary
from bench.findings import findings, of_sweep
from bench.providers import OURS
from bench.results import Accuracy, Entry, Footprint, Report, Speed
from bench.summary import Line
from bench.timing import Spread

_SILENT = ("absent",)  # said once, above the tables


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def _ratio(spread: Spread | None) -> Text:
    if spread is None:
        return Text("")
    text = f"{spread.median:.2f}x [dim]\\[{spread.low:.2f} {spread.high:.2f}][/]" + (" noisy" if spread.noisy else "")
    found = Text.from_markup(text)
    found.stylize("yellow" if spread.noisy or spread.even else "green" if spread.median >= 1 else "red", 0, text.index("x") + 1)
    return found


def _error(error: float | None, bad: bool) -> Text:
    return Text("" if error is None else f"{error:.1e}", style="bold red" if bad else "")


def _line(entry: Entry) -> tuple[Text, ...]:
    note = f" {entry.status}: {entry.note}" if entry.status not in ("ok",) else ""
    name = Text(entry.library, style="bold" if entry.library == OURS else "")
    time = Text(duration(entry.time.median) if entry.time else "")
    share = Text(f"{entry.share.median:.2f}" if entry.share else "")
    ratio = _ratio(entry.ratio)
    if note:
        ratio = (ratio if not entry.ratio else ratio + Text(" ")) + Text(
            note.strip().rstrip(": "), style="bold red" if entry.bad else "dim"
        )
    return name, time, ratio, share, _error(entry.error, entry.bad or entry.status in ("wrong", "inaccurate"))


def speed_table(rows: list[Speed]) -> Table:
    title = "time; how many times longer than fastnorm, with quartiles; share of the roof; largest error/(1+|y|)"
    table = Table(title=title, title_justify="left")
    for name in ("row", "library"):
        table.add_column(name, no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("x ours", overflow="fold")
    table.add_column("roof", justify="right", no_wrap=True)
    table.add_column("error", justify="right", no_wrap=True)
    for found in rows:
        dims = "x".join(map(str, found.dims)) + f" {found.row.key.dtype} {found.row.outputs}"
        labels = [Text(found.row.name), Text(dims, style="dim"), *([Text("noisy", style="yellow")] if found.noisy else [])]
        lines = [_line(entry) for entry in found.entries if entry.status not in _SILENT]
        for at in range(max(len(labels), len(lines))):
            label = labels[at] if at < len(labels) else Text("")
            table.add_row(label, *(lines[at] if at < len(lines) else ()))
        table.add_section()
    return table


def accuracy_table(rows: list[Accuracy]) -> Table:
    table = Table(title="largest error/(1+|y|) as |mean|/std grows, float32", title_justify="left")
    for name in ("operation", "library"):
        table.add_column(name, no_wrap=True)
    for offset in rows[0].offsets:
        table.add_column(f"{offset:.0e}".replace("e+0", "e"), justify="right")
    for found in rows:
        able = [(name, errors) for name, errors in found.errors.items() if any(e is not None for e in errors) or name in found.failures]
        for at, (library, errors) in enumerate(able):
            label = found.row.name.removeprefix("accuracy/") if at == 0 else ""
            cells = [_error(e, library == OURS and found.beyond(place)) for place, e in enumerate(errors)]
            failure = found.failures.get(library, "")
            table.add_row(label, Text(f"{library} {failure}", style="bold" if library == OURS else ""), *cells)
        table.add_section()
    return table


def memory_table(rows: list[Footprint]) -> Table:
    table = Table(title="peak extra memory of a call, in % of x", title_justify="left")
    libraries = list(dict.fromkeys(library for found in rows for library in found.extra_bytes))
    table.add_column("operation", no_wrap=True)
    table.add_column("x", justify="right")
    for library in libraries:
        table.add_column(library, justify="right")
    for found in rows:
        cells = [found.extra_bytes.get(library) for library in libraries]
        shown = ["" if extra is None else f"{100 * extra / found.x_bytes:.2f}" for extra in cells]
        table.add_row(found.row.name.removeprefix("memory/"), f"{found.x_bytes / 1e6:.0f} MB", *shown)
    return table


def summary_table(lines: list[Line]) -> Table:
    title = "geometric mean of time of the peer / time of fastnorm; rows in which fastnorm is slower"
    table = Table(title=title, title_justify="left")
    table.add_column("family", no_wrap=True)
    table.add_column("peer", no_wrap=True)
    for name in ("x ours", "rows", "below 1.0", "even", "noisy"):
        table.add_column(name, justify="right")
    last = lines[0].family
    for line in lines:
        if line.family != last:
            table.add_section()
        style = "green" if line.ratio >= 1 else "red"
        cells = (line.family if line.family != last or line is lines[0] else "", line.peer, Text(f"{line.ratio:.2f}", style=style))
        table.add_row(*cells, str(line.rows), str(line.slower), str(line.even), str(line.noisy))
        last = line.family
    return table


def show(report: Report, console: Console) -> None:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    console.print(f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores; {versions}", highlight=False)
    console.print("memory: " + ", ".join(f"{kind} {rate:.1f} GB/s" for kind, rate in report.bandwidth.items()), highlight=False)
    if report.speed:
        console.print(speed_table(report.speed))
    if report.accuracy:
        console.print(accuracy_table(report.accuracy))
    if report.memory:
        console.print(memory_table(report.memory))
    lines = summary.lines(report.speed)
    if lines:
        console.print(summary_table(lines))
    for name in report.bad:
        console.print(f"[bold red]fastnorm fails or breaks its accuracy contract in {name}[/]")


def show_findings(report: Report, console: Console) -> None:
    """Where the sweep is not monotone, a peer is faster, the roof is far."""
    for finding in findings(report, of_sweep(report.speed)):
        console.print(f"{finding.row}: {finding.kind}, {finding.text}", style="dim", highlight=False, markup=False)


def write_json(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report.as_json(), indent=1, allow_nan=False) + "\n")
