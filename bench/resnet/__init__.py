"""``python -m bench resnet``: a residual network trained with PyTorch's norms and, step for step, with fastnorm's."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from bench import environment, timing

if TYPE_CHECKING:
    from rich.table import Table

N_LOSSES = 10
TOLERANCE = 1e-3
"""Of the losses of the first steps, relative. Rounding errors of 1e-6 grow from step to step, as they do between
PyTorch's own two memory formats, whose difference is printed beside ours. In float64 the losses agree to 1e-9 (tests)."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench resnet",
        description="Train a ResNet-18 with the norms of PyTorch and with those of fastnorm.torch, in both memory formats: "
        "the same losses, and how long a step takes, whole and of the norm layers alone.",
    )
    parser.add_argument("--quick", action="store_true", help="small images, few turns: does it run?")
    parser.add_argument("--batch", type=int, default=16, help="images (default: %(default)s)")
    parser.add_argument("--side", type=int, default=112, help="pixels (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40.0, help="of timing, for every memory format (default: %(default)s)")
    return parser


def _row(table: Table, name: str, what: str, samples: timing.Samples) -> None:
    ratio = samples.ratio("torch", "fastnorm")
    spread = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" + (" noisy" if ratio.noisy else "")
    table.add_row(name, what, *(f"{1e3 * samples.time(k).median:.1f}" for k in ("torch", "fastnorm")), spread)


def _measure(table: Table, name: str, batch: int, side: int, seconds: float) -> list[list[float]]:
    """Losses of both, and a row each for whole steps and for the norms alone."""
    from bench.resnet import steps
    from bench.resnet.network import ResNet

    data = steps.batches(N_LOSSES, batch, side, 10, steps.FORMATS[name])
    found = [steps.losses(model, data) for model in steps.pair(ResNet, steps.FORMATS[name]).values()]
    models = steps.pair(ResNet, steps.FORMATS[name])
    trainers = {key: steps.Trainer(model) for key, model in models.items()}
    _row(table, name, "whole step", timing.measure({k: _bound(t.step, data[0]) for k, t in trainers.items()}, 0.7 * seconds))
    calls = {key: steps.norm_calls(model, data[0].images) for key, model in models.items()}
    gradients = steps.gradients_like(calls[steps.OURS])
    alone = {key: _bound(steps.norms_alone, of_model, gradients) for key, of_model in calls.items()}
    for call in alone.values():
        call()
    _row(table, "", f"{len(gradients)} norm layers alone", timing.measure(alone, 0.3 * seconds))
    return found


def _bound(function: Any, *arguments: Any) -> timing.Call:
    return lambda: function(*arguments)


def main(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    batch, side, seconds = (4, 32, 1.0) if arguments.quick else (arguments.batch, arguments.side, arguments.seconds)
    if batch < 2 or side < 32 or seconds <= 0:
        parser.error("--batch must be at least 2, --side at least 32, and --seconds more than 0")
    if importlib.util.find_spec("torch") is None:
        print("python -m bench resnet: torch is not installed; pip install torch", file=sys.stderr)
        return 2
    environment.all_cores()
    import torch
    from rich.console import Console
    from rich.table import Table

    from bench.resnet import steps

    torch.set_num_threads(environment.default_threads())
    title = f"ResNet-18, {batch} images of {side} x {side}, forward, backward and SGD; milliseconds, medians"
    table = Table(title=title, title_justify="left")
    for column in ("memory format", "what", "torch", "fastnorm", "torch / fastnorm, paired (quartiles)"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("memory format", "what") else "right")
    found = {name: _measure(table, name, batch, side, seconds) for name in steps.FORMATS}
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    print(f"largest relative difference of the losses of {N_LOSSES} steps (rule: at most {TOLERANCE:g})")
    bad = 0
    for name, (theirs, ours) in found.items():
        difference = steps.largest_difference(theirs, ours)
        bad += not difference <= TOLERANCE
        print(f"  fastnorm and torch, {name}: {difference:.1e}; last losses {ours[-1]:.6f}, {theirs[-1]:.6f}")
    print(f"  torch and torch, contiguous and channels_last: {steps.largest_difference(*(f[0] for f in found.values())):.1e}")
    if bad:
        print("the losses differ", file=sys.stderr)
    return 1 if bad else 0
