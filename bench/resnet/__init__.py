"""``python -m bench resnet``: a residual network trained with PyTorch's norms and, step for step, with fastnorm's."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import fastnorm
from bench import environment, timing

if TYPE_CHECKING:
    from rich.table import Table

N_LOSSES, N_FIRST, N_DOUBLE = 10, 2, 4
RECYCLED = 1 << 30
FIRST, DOUBLE = 1e-4, 1e-9
"""Largest relative difference of losses that passes: of the first N_FIRST steps in float32, and of N_DOUBLE steps in
float64, on images of at most 64 x 64. Later in float32 every rounding error that moves a value across the kink of a ReLU
grows from step to step, between PyTorch's own two memory formats too: that difference is printed beside ours."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench resnet",
        description="Train a ResNet-18 with the norms of PyTorch, with those of fastnorm.torch, and with those that also add and "
        "activate, in both memory formats: that the losses are the same, and how long a step takes, whole and of the norm layers "
        "alone, inside fastnorm.recycle_outputs.",
    )
    parser.add_argument("--quick", action="store_true", help="small images, few turns: does it run?")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 48], help="images of a step (default: 16 and 48)")
    parser.add_argument("--side", type=int, default=112, help="pixels (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40.0, help="of timing, for every batch and memory format (default: %(default)s)")
    return parser


def _row(table: Table, batch: str, name: str, what: str, samples: timing.Samples, key: str) -> None:
    ratio = samples.ratio("torch", key)
    spread = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" + (" noisy" if ratio.noisy else "")
    table.add_row(batch, name, what, *(f"{1e3 * samples.time(k).median:.1f}" for k in ("torch", key)), spread)


def _measure(table: Table, name: str, batch: int, side: int, seconds: float) -> list[list[float]]:
    """Losses of all, and rows for whole steps and for the norms alone."""
    from bench.resnet import steps
    from bench.resnet.network import ResNet

    data = steps.batches(N_LOSSES, batch, side, 10, steps.FORMATS[name])
    found = [steps.losses(model, data) for model in steps.variants(ResNet, steps.FORMATS[name]).values()]
    models = steps.variants(ResNet, steps.FORMATS[name])
    trainers = {key: steps.Trainer(model) for key, model in models.items()}
    whole = timing.measure({k: _bound(t.step, data[0]) for k, t in trainers.items()}, 0.7 * seconds)
    _row(table, str(batch), name, "whole step, converted", whole, steps.OURS)
    _row(table, "", "", "whole step, fused", whole, steps.FUSED)
    calls = {key: steps.norm_calls(models[key], data[0].images) for key in (steps.ORIGINAL, steps.OURS)}
    gradients = steps.gradients_like(calls[steps.OURS])
    alone = {key: _bound(steps.norms_alone, of_model, gradients) for key, of_model in calls.items()}
    for call in alone.values():
        call()
    _row(table, "", "", f"{len(gradients)} norm layers alone", timing.measure(alone, 0.3 * seconds), steps.OURS)
    return found


def _bound(function: Any, *arguments: Any) -> timing.Call:
    return lambda: function(*arguments)


def main(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    sizes, side, seconds = ([8], 64, 1.0) if arguments.quick else (arguments.batch, arguments.side, arguments.seconds)
    if min(sizes) < 2 or side < 32 or seconds <= 0:
        parser.error("--batch must be at least 2, --side at least 32, and --seconds more than 0")
    if importlib.util.find_spec("torch") is None:
        print("python -m bench resnet: torch is not installed; pip install torch", file=sys.stderr)
        return 2
    environment.let_spin()
    environment.all_cores()
    import torch
    from rich.console import Console
    from rich.table import Table

    from bench.resnet import steps

    torch.set_num_threads(environment.stated_threads())  # PyTorch's import has pinned this thread: one core would be counted
    title = f"ResNet-18, images of {side} x {side}, forward, backward and SGD; milliseconds, medians"
    table = Table(title=title, title_justify="left")
    for column in ("images", "memory format", "what", "torch", "fastnorm", "torch / fastnorm, paired (quartiles)"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("memory format", "what") else "right")
    with fastnorm.recycle_outputs(RECYCLED):
        found = {batch: {name: _measure(table, name, batch, side, seconds) for name in steps.FORMATS} for batch in sizes}
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    print(f"largest relative difference of losses, torch's norms and fastnorm's; of {N_LOSSES} steps in float32, the first {N_FIRST},")
    print(f"and {N_DOUBLE} steps in float64. Rules: the first at most {FIRST:g}, float64 at most {DOUBLE:g}")
    bad = sum(_compare(losses, batch, side) for batch, losses in found.items())
    if bad:
        print("the losses differ", file=sys.stderr)
    return 1 if bad else 0


def _compare(found: dict[str, list[list[float]]], batch: int, side: int) -> int:
    """Print how far losses differ; how many differ too much."""
    import torch

    from bench.resnet import steps
    from bench.resnet.network import ResNet

    bad = 0
    for name, (theirs, *others) in found.items():
        data = steps.batches(N_DOUBLE, max(batch, 8), min(side, 64), 10, steps.FORMATS[name], torch.float64)
        models = steps.variants(lambda: ResNet().double(), steps.FORMATS[name])
        exact, *doubles = [steps.losses(model, data) for model in models.values()]
        for key, ours, precise in zip((steps.OURS, steps.FUSED), others, doubles, strict=True):
            first, double = steps.largest_difference(theirs[:N_FIRST], ours[:N_FIRST]), steps.largest_difference(exact, precise)
            bad += not (first <= FIRST and double <= DOUBLE)
            print(f"  {batch:3} {name:14} {key:9} {steps.largest_difference(theirs, ours):.1e}  first {first:.1e}  float64 {double:.1e}")
    print(f"  {batch:3} torch's own formats {steps.largest_difference(*(of_format[0] for of_format in found.values())):.1e}")
    return bad
