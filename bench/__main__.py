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
    from bench.rows import Row

SUBCOMMANDS = {"training": "bench.training", "images": "bench.picture", "mpi": "bench.mpi_model", "resnet": "bench.resnet"}
"""First argument -> module whose `main(arguments) -> exit status` takes over."""

WHOLE_S, QUICK_S = 100.0, 15.0
"""Seconds of timing of all rows together; arrays, references, checks and compilation come on top."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Speed, accuracy and memory of fastnorm beside NumPy, SciPy, scikit-learn, bottleneck, numbagg, PyTorch and oneDNN,"
        " on real shapes.",
        epilog=f"other commands: {', '.join(SUBCOMMANDS)}",
    )
    names = "only rows with this name, glob or beginning, e.g. train/NCHW or '*/resnet50/stage2'"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=names)
    parser.add_argument("--quick", action="store_true", help="representative rows, less than a minute")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    parser.add_argument("--threads", type=int, default=environment.default_threads(), help="for every library (default: %(default)s)")
    results = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results, help="folder of the picture and the JSON (default: bench/results)")
    return parser


def _run(rows: list[Row], arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bench import plot, report, run

    console = Console()
    if not console.is_terminal:
        console = Console(width=130)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling, measuring memory", total=len(rows))

        def progress(known: list[Row]) -> Iterable[Row]:
            bar.update(task, total=len(known))
            for row in known:
                bar.update(task, description=row.name)
                yield row
                bar.advance(task)

        found = run.run(rows, arguments.threads, QUICK_S if arguments.quick else WHOLE_S, bar.console.print, progress)
    report.show(found, console)
    arguments.output.mkdir(parents=True, exist_ok=True)
    report.write_json(found, arguments.output / "bench.json")
    plot.draw(found, arguments.output / "bench.png")
    console.print(f"{found.seconds:.0f} s; bench.json and bench.png are in {arguments.output}", highlight=False)
    return 1 if found.bad else 0


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
    environment.prepare(arguments.threads)
    from bench import rows as table

    try:
        rows = table.select(arguments.rows, arguments.quick)
    except ValueError as unknown:
        parser.error(str(unknown))
    if arguments.list:
        print("\n".join(row.name for row in rows))
        return 0
    return _run(rows, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
