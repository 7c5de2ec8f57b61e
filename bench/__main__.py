"""``python -m bench``: the command line. Heavy libraries are imported only after the environment is settled."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bench import environment

if TYPE_CHECKING:
    from rich.console import Console

    from bench.results import Report
    from bench.rows import Row

SUBCOMMANDS = {
    "training": "bench.training",
    "images": "bench.picture",
    "mpi": "bench.mpi_model",
    "resnet": "bench.resnet",
    "schedule": "bench.schedule",
}
"""First argument -> module whose `main(arguments) -> exit status` takes over."""

WHOLE_S, QUICK_S = 100.0, 15.0
"""Seconds of timing of all rows together; arrays, references, checks and compilation come on top."""
REPORT_S = 600.0
"""Seconds of a whole report, but for imports and pictures."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Speed, accuracy and memory of fastnorm beside NumPy, SciPy, scikit-learn, bottleneck, numbagg, PyTorch, oneDNN and,"
        " on demand, torch.compile, JAX, ONNX Runtime and OpenVINO, on real shapes.",
        epilog=f"other commands: {', '.join(SUBCOMMANDS)}",
    )
    names = "only rows with this name, glob or beginning, e.g. train/NCHW or '*/resnet50/stage2'"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=names)
    parser.add_argument("--quick", action="store_true", help="representative rows, less than a minute")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    parser.add_argument("--threads", type=int, default=environment.default_threads(), help="for every library (default: %(default)s)")
    peers = "who takes part: names joined by commas, `default` for what is timed today, `all` for everybody"
    parser.add_argument("--peers", default="default", help=peers)
    parser.add_argument(
        "--report", action="store_true", help="write report.md with tables and pictures; adds the size sweep and odd shapes"
    )
    limit = f"end after about so many seconds; rows for which no time is left are left out (a report: {REPORT_S:.0f})"
    parser.add_argument("--seconds", type=float, help=limit)
    parser.add_argument("--check", action="store_true", help="compare ratios with the stored table; status 1 if one fell back")
    parser.add_argument("--update", action="store_true", help="with --check: store the ratios instead")
    parser.add_argument("--ratios", type=Path, help="the stored table (default: bench/ratios.json)")
    results = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results, help="folder of the picture and the JSON (default: bench/results)")
    return parser


def _measure(rows: list[Row], arguments: argparse.Namespace, console: Console) -> Report:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bench import run
    from bench.rows import ALL_OFFSETS, OFFSETS

    quick = arguments.quick or arguments.check
    limit_s = arguments.seconds if arguments.seconds or not arguments.report else REPORT_S
    offsets = ALL_OFFSETS if arguments.report else OFFSETS
    wanted = run.Wanted(arguments.threads, QUICK_S if quick else WHOLE_S, limit_s, arguments.peers, offsets, arguments.report)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling, measuring memory", total=len(rows))

        def progress(known: list[Row]) -> Iterable[Row]:
            bar.update(task, total=len(known))
            for row in known:
                bar.update(task, description=row.name)
                yield row
                bar.advance(task)

        return run.run(rows, wanted, bar.console.print, progress)


def _check(found: Report, arguments: argparse.Namespace, console: Console) -> int:
    """Compare with the stored ratios, or store them."""
    from bench import guard

    path = arguments.ratios or guard.STORED
    stored = guard.load(path)
    if arguments.update:
        guard.store(guard.merged(found, stored), path)
        console.print(f"the ratios are in {path}; noisy ones were not taken", highlight=False)
        return 0
    if stored is None:
        console.print(f"there is no {path} yet; write it with python -m bench --check --update", highlight=False)
        return 2
    changes = guard.compare(found, stored)
    for change in changes:
        if change.kind != "same":
            console.print(str(change), style="bold red" if change.kind == "fell back" else "dim", highlight=False, markup=False)
    strange = guard.strangeness(found, stored)
    if strange:
        console.print(strange, style="yellow", highlight=False)
    if not changes:
        console.print("no ratio was measured, or none is stored: nothing was compared")
        return 2
    fallen = sum(change.kind == "fell back" for change in changes)
    console.print(f"{len(changes)} ratios, {fallen} fell back", highlight=False)
    return 1 if fallen else 0


def _run(rows: list[Row], arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from bench import document, plot, report

    console = Console()
    if not console.is_terminal:
        console = Console(width=130)
    found = _measure(rows, arguments, console)
    report.show(found, console)
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        report.show_findings(found, console)
        path = document.write(found, arguments.output)
        console.print(f"{found.seconds:.0f} s; the report is {path}", highlight=False)
    else:
        report.write_json(found, arguments.output / "bench.json")
        plot.draw(found, arguments.output / "bench.png")
        console.print(f"{found.seconds:.0f} s; bench.json and bench.png are in {arguments.output}", highlight=False)
    status = _check(found, arguments, console) if arguments.check else 0
    return 1 if found.bad else status


def main(argv: list[str]) -> int:
    if argv and argv[0] in SUBCOMMANDS:
        name = SUBCOMMANDS[argv[0]]
        if importlib.util.find_spec(name) is None:
            print(f"python -m bench {argv[0]}: not part of this version", file=sys.stderr)
            return 2
        environment.prepare(environment.default_threads())
        return int(importlib.import_module(name).main(argv[1:]))
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.threads < 1:
        parser.error(f"--threads is {arguments.threads}; it must be at least 1")
    if arguments.update and not arguments.check:
        parser.error("--update stores ratios with --check only")
    environment.prepare(arguments.threads)
    from bench import selection

    try:
        selection.check_peers(arguments.peers)
        if arguments.report and not arguments.rows and not arguments.quick:
            rows = selection.reported()
        else:
            rows = selection.select(arguments.rows, arguments.quick or arguments.check)
    except ValueError as unknown:
        parser.error(str(unknown))
    if arguments.list:
        print("\n".join(row.name for row in rows))
        return 0
    return _run(rows, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
