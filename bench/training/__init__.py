"""``python -m bench training``: small networks on real data, with NumPy, fastnorm and nothing else.

settings -> trial (layers, networks) -> results -> claims, report, figure.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from bench import environment
from bench.training import settings

if TYPE_CHECKING:
    from bench.training.results import Results, Trial
    from bench.training.settings import Plan, Setting

_EPILOG = """examples:
  python -m bench training                           # everything; training.png in bench/results
  python -m bench training --quick                   # does it run? Its verdicts mean nothing
  python -m bench training --seeds 3 --jobs 1 --output /tmp
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench training",
        description="Train a multilayer perceptron and a convolutional network on handwritten digits with the layers of fastnorm, "
        "and test what the papers on batch, group and layer norm and batch renormalization claim.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few settings, one or two epochs, one seed unless --seeds is given")
    parser.add_argument("--seeds", type=int, default=None, help="trainings of every setting (default: 5)")
    parser.add_argument("--jobs", type=int, default=None, help="processes, of one thread each (default: one per core; with --quick 1)")
    results = Path(__file__).parent.parent / "results"
    parser.add_argument("--output", type=Path, default=results, help="folder of training.png (default: bench/results)")
    return parser


def _trials(plan: Plan, n_seeds: int, jobs: int) -> Iterator[tuple[Setting, int, Trial]]:
    """In the order in which they end."""
    from bench.training.trial import run

    todo = [(setting, seed) for setting in plan.settings() for seed in range(n_seeds)]
    if jobs == 1:
        for setting, seed in todo:
            yield setting, seed, run(setting, seed)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {pool.submit(run, *item): item for item in todo}
        for future in as_completed(futures):
            yield *futures[future], future.result()


def _train(plan: Plan, n_seeds: int, jobs: int) -> Results:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bench.training.results import Results

    found: dict[tuple[Setting, int], Trial] = {}
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns) as bar:
        task = bar.add_task("compiling", total=len(plan.settings()) * n_seeds)
        for setting, seed, trial in _trials(plan, n_seeds, jobs):
            found[setting, seed] = trial
            bar.update(task, advance=1, description=f"{setting.network}, {setting.norm}, batch {setting.batch}")
    return Results(plan, {setting: [found[setting, seed] for seed in range(n_seeds)] for setting in plan.settings()})


def main(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    n_seeds = arguments.seeds if arguments.seeds is not None else 1 if arguments.quick else 5
    jobs = arguments.jobs if arguments.jobs is not None else 1 if arguments.quick else environment.default_threads()
    for name, value in (("--seeds", n_seeds), ("--jobs", jobs)):
        if value < 1:
            parser.error(f"{name} is {value}; it must be at least 1")
    # A network this small keeps one thread busy; more processes use more cores. They must not all be pinned to the first one.
    environment.prepare(1)
    os.environ["OMP_PROC_BIND"] = "false"
    from rich.console import Console

    from bench.training import figure, report

    start = perf_counter()
    results = _train(settings.QUICK if arguments.quick else settings.FULL, n_seeds, jobs)
    console = Console()
    report.show(results, console if console.is_terminal else Console(width=150))
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure.draw(results, arguments.output / "training.png")
    console.print(f"{perf_counter() - start:.0f} s; training.png is in {arguments.output}", highlight=False)
    return 0
