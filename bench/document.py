"""A report in one folder: report.md with its tables, and the pictures that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import curves, plot, summary
from bench.findings import FALLS, FAR, LARGE, STEP, Finding, findings, of_sweep
from bench.providers import OURS
from bench.report import duration, write_json
from bench.results import Report, Speed
from bench.timing import NOISY, Spread

_PICTURES: tuple[tuple[str, str, Callable[[Report, Path], bool]], ...] = (
    ("Roofline", "roofline.png", curves.draw_roofline),
    ("Size sweep", "sweep.png", curves.draw_sweep),
    ("Accuracy", "accuracy.png", curves.draw_accuracy),
    ("Bandwidth by threads", "bandwidth.png", curves.draw_scaling),
)


def table(head: Sequence[str], lines: Iterable[Sequence[str]], texts: int = 1) -> str:
    """In Markdown; the first columns, of texts, to the left, the others to the right."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines)) + "\n"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{spread.median:.2f} [{spread.low:.2f} {spread.high:.2f}]" + (" noisy" if spread.noisy else "")


def _machine(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    absent = "".join(f"- {name} is left out: {reason}\n" for name, reason in report.absent.items())
    skipped = f"- left out for lack of time or memory: {', '.join(report.skipped)}\n" if report.skipped else ""
    return (
        f"`{' '.join(machine['command'])}`, {report.seconds:.0f} s\n\n"
        f"- {machine['cpu']}, {machine['threads']} of {machine['cores']} cores, L2 {machine['l2_bytes'] >> 10} KB per core,"
        f" last level {machine['l3_bytes'] >> 20} MB, {machine['system']}\n"
        f"- {versions}\n{absent}{skipped}"
    )


def _bandwidth(report: Report) -> str:
    by_threads = report.scaling or {report.machine["threads"]: report.bandwidth}
    lines = [[str(threads), *(f"{rate:.1f}" for rate in rates.values())] for threads, rates in by_threads.items()]
    return table(("threads", *(f"{kind}, GB/s" for kind in report.bandwidth)), lines)


def _summary(report: Report) -> str:
    head = ("family", "peer", "geometric mean of time of the peer / time of fastnorm", "rows", "below 1.0", "even", "noisy")
    lines = [
        (line.family, line.peer, f"{line.ratio:.2f}", str(line.rows), str(line.slower), str(line.even), str(line.noisy))
        for line in summary.lines(report.speed)
    ]
    return table(head, lines, 2)


def _findings(found: list[Finding]) -> str:
    return table(("row", "finding", ""), found, 3) if found else "Nothing.\n"


def _rows(speeds: list[Speed]) -> str:
    lines = []
    for speed in speeds:
        for entry in speed.entries:
            if entry.status == "absent":
                continue
            status = (
                ""
                if entry.status == "ok"
                else f"{entry.status} {entry.note.splitlines()[0] if entry.note else ''}".strip().replace("|", "/")
            )
            lines.append(
                (
                    speed.row.name if entry.library == OURS else "",
                    "x".join(map(str, speed.dims)) if entry.library == OURS else "",
                    f"{speed.traffic_bytes / 1e6:.3g}" if entry.library == OURS else "",
                    f"**{entry.library}**" if entry.library == OURS else entry.library,
                    duration(entry.time.median) if entry.time else "",
                    _spread(entry.ratio),
                    f"{entry.share.median:.2f}" if entry.share else "",
                    "" if entry.error is None else f"{entry.error:.1e}",
                    status,
                )
            )
    return table(("row", "shape", "least traffic, MB", "library", "time", "x ours", "roof", "error", ""), lines)


def _brief(spread: Spread) -> str:
    return f"{spread.median:.2f}x" + ("~" if spread.noisy else "")


def _glance(speeds: list[Speed]) -> str:
    """A line for every row that has no curve: README shows them."""
    lines = []
    for speed in speeds:
        ours = speed.ours
        if speed.row.name.startswith("sweep/") or ours is None or ours.time is None:
            continue
        found = {entry.library: _brief(entry.ratio) for entry in speed.entries if entry.ratio is not None and entry is not ours}
        numpy, onednn = found.pop("numpy", ""), found.pop("onednn", "")
        torch = found.pop("torch-out", "") or found.pop("torch", "")
        share = f"{ours.share.median:.2f}" if ours.share else ""
        others = ", ".join(f"{library} {ratio}" for library, ratio in found.items())
        shape = " x ".join(map(str, speed.dims))
        lines.append((f"`{speed.row.name}`", shape, duration(ours.time.median), share, numpy, torch, onednn, others))
    return table(("row", "shape", "fastnorm", "roof", "NumPy", "PyTorch", "oneDNN", "others"), lines, 2)


def _accuracy(report: Report) -> str:
    if not report.accuracy:
        return ""
    head = ("operation", "library", *(f"{offset:.0e}".replace("e+0", "e") for offset in report.accuracy[0].offsets))
    lines = []
    for found in report.accuracy:
        for library, errors in found.errors.items():
            if any(error is not None for error in errors):
                label = found.row.name.removeprefix("accuracy/") if library == OURS else ""
                lines.append((label, library, *("" if error is None else f"{error:.0e}" for error in errors)))
    return table(head, lines)


def _ratios(report: Report, folder: Path) -> str:
    """A picture for every family of operations, of the rows that have no curve."""
    named = [speed for speed in report.speed if not speed.row.name.startswith(("sweep/", "odd/"))]
    shown = ""
    for family in dict.fromkeys(summary.family(speed.row.key.operation) for speed in named):
        part = replace(report, speed=[speed for speed in named if summary.family(speed.row.key.operation) == family])
        name = f"ratios-{family.replace(',', '').replace(' ', '-').lower()}.png"
        if plot.draw(part, folder / name):
            shown += f"![{family}]({name})\n\n"
    return shown


def write(report: Report, folder: Path) -> Path:
    """Tables, pictures and bench.json; returns the path of report.md."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {title: name for title, name, draw in _PICTURES if draw(report, folder / name)}
    write_json(report, folder / "bench.json")
    shown = {title: f"![{title}]({name})\n\n" for title, name in drawn.items()}
    text = (
        f"# fastnorm beside other libraries\n\n{_machine(report)}\n"
        "Ratios are time of the peer / time of fastnorm, paired by turn: median [quartiles]; above 1 fastnorm is faster."
        " Even: 1 lies between the quartiles."
        f" Noisy: the quartiles are further apart than {NOISY:.0%} of the median, so the row does not tell.\n\n"
        f"## Summary\n\n{_summary(report)}\n"
        f"## At a glance\n\n~: noisy. PyTorch: into `out=` where it can, else into warm memory.\n\n{_glance(report.speed)}\n"
        f"## Bandwidth\n\nOf arrays that no cache holds.\n\n{_bandwidth(report)}\n{shown.get('Bandwidth by threads', '')}"
        f"## Roofline\n\n{shown.get('Roofline', '')}"
        f"## Size sweep\n\n{shown.get('Size sweep', '')}"
        "## To look at\n\n"
        f"Not monotone: a larger array takes less than {FALLS:.0%} of a smaller one's time. Step: the share of the roof falls by a factor"
        f" of {STEP:g}. Slower: the best peer is faster. Far from the roof: less than {FAR:.0%} of it, from {LARGE >> 20} MB.\n\n"
        f"{_findings(findings(report, of_sweep(report.speed)))}\n"
        f"## Accuracy\n\nLargest error/(1+|y|) by |mean|/std.\n\n{shown.get('Accuracy', '')}{_accuracy(report)}\n"
        f"## Rows\n\n{_ratios(report, folder)}{_rows(report.speed)}"
    )
    path = folder / "report.md"
    path.write_text(text)
    return path
