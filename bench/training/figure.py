"""One picture: loss and accuracy curves, sweeps of the learning rate and of the initial weights, small batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.training.results import Results
from bench.training.settings import CNN_NORMS, HIGH, LOW, MLP_NORMS, Setting

_COLOURS = {
    "none": "black", "before": "tab:blue", "after": "tab:orange",
    "batch": "tab:blue", "renorm": "tab:purple", "group": "tab:green", "layer": "tab:red",
}  # fmt: skip
_TICKS = (10, 50, 80, 90, 95, 98, 99)
_CURVES = ("128", "4", "4, one class")
_LABELS = {"none": "no norm", "before": "batch norm before relu", "after": "batch norm after relu"}
_LOSSES = 2e-3, 8.0  # beyond: on the way to the overflow
_LEAST_ERROR = 0.004  # below, the logarithm would show single test samples


def _line(axes: Axes, x: Sequence[float] | np.ndarray, values: np.ndarray, norm: str, style: str = "-") -> None:
    """values (seeds, x): mean, and a band from the least to the largest."""
    axes.plot(x, values.mean(axis=0), style, color=_COLOURS[norm], linewidth=1.4, label=_LABELS.get(norm, norm))
    axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=_COLOURS[norm], alpha=0.15, linewidth=0)


def _error(accuracy: np.ndarray) -> np.ndarray:
    return np.maximum(1 - accuracy, _LEAST_ERROR)


def _accuracy_axis(axes: Axes) -> None:
    """The error on a logarithmic axis that runs downwards, labelled with the accuracy."""
    axes.set_yscale("log")
    axes.set_ylim(1, _LEAST_ERROR)
    axes.set_yticks([1 - tick / 100 for tick in _TICKS], [str(tick) for tick in _TICKS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _curves(loss: Axes, accuracy: Axes, results: Results, settings: list[Setting], title: str) -> None:
    for setting in settings:
        epochs = np.arange(1, setting.epochs + 1)
        _line(loss, epochs, np.maximum(results.curve(setting, "loss"), 1e-4), setting.norm)
        _line(accuracy, epochs, _error(results.curve(setting, "accuracy")), setting.norm)
    loss.set_yscale("log")
    loss.set_ylim(*_LOSSES)
    loss.grid(alpha=0.3)
    loss.set_title(title, fontsize=10)
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    accuracy.set_xlabel("epoch")
    _accuracy_axis(accuracy)


def _sweep(axes: Axes, results: Results, values: tuple[float, ...], settings: list[list[Setting]], name: str) -> None:
    """settings: one list per norm, with one setting per value."""
    for of_norm in settings:
        _line(axes, values, _error(np.stack([results.final(setting) for setting in of_norm], axis=1)), of_norm[0].norm, "o-")
    axes.set_xscale("log")
    axes.set_xlabel(name)
    _accuracy_axis(axes)


def _sweeps(axes: list[Axes], results: Results) -> None:
    plan = results.plan
    rates = [[plan.mlp(norm, rate) for rate in plan.rates] for norm in MLP_NORMS]
    _sweep(axes[0], results, plan.rates, rates, "learning rate")
    axes[0].set_title("MLP, learning rates", fontsize=10)
    for at, rate in zip(axes[1:], (LOW, HIGH), strict=True):
        scales = [[plan.mlp(norm, rate, scale) for scale in plan.scales] for norm in MLP_NORMS]
        _sweep(at, results, plan.scales, scales, "initial weights / He et al. 2015")
        at.set_title(f"MLP, initial weights, rate {rate:g}", fontsize=10)


def _small_batches(axes: Axes, results: Results) -> None:
    width = 0.8 / len(CNN_NORMS)
    for at, name in enumerate(results.plan.batches):
        for slot, norm in enumerate(CNN_NORMS):
            setting = results.plan.cnn(norm, name)
            place, colour = at + width * (slot - (len(CNN_NORMS) - 1) / 2), _COLOURS[norm]
            found = _error(results.final(setting))
            axes.plot([place, place], [found.min(), found.max()], color=colour, linewidth=1)
            axes.plot(place, found.mean(), "o", color=colour, markersize=6)
            if norm in ("batch", "renorm"):
                axes.plot(place + width / 3, _error(results.exact(setting)).mean(), "D", color=colour, fillstyle="none", markersize=5)
    axes.plot([], [], "D", color="gray", fillstyle="none", label="exact population statistics")
    axes.legend(fontsize=8, loc="lower left")
    axes.set_title("CNN, batches", fontsize=10)
    axes.set_xticks(range(len(results.plan.batches)), [f"batch {name}" for name in results.plan.batches], fontsize=8)
    _accuracy_axis(axes)


def draw(results: Results, path: Path) -> None:
    plan = results.plan
    figure, grid = plt.subplot_mosaic(
        [[f"loss{k}" for k in range(5)], [f"accuracy{k}" for k in range(5)], ["rate", "low", "high", "small", "small"]],
        figsize=(16, 9), layout="constrained",
    )  # fmt: skip
    columns = [(f"MLP, rate {rate:g}", [plan.mlp(norm, rate) for norm in MLP_NORMS]) for rate in (LOW, HIGH)]
    columns += [(f"CNN, batch {name}", [plan.cnn(norm, name) for norm in CNN_NORMS]) for name in _CURVES]
    for at, (title, settings) in enumerate(columns):
        _curves(grid[f"loss{at}"], grid[f"accuracy{at}"], results, settings, title)
    for at in (0, 2):
        grid[f"loss{at}"].legend(fontsize=8)
    grid["loss0"].set_ylabel("training loss")
    grid["accuracy0"].set_ylabel("test accuracy, %")
    grid["rate"].set_ylabel("final test accuracy, %")
    _sweeps([grid["rate"], grid["low"], grid["high"]], results)
    _small_batches(grid["small"], results)
    figure.suptitle(f"handwritten digits; seeds: {results.n_seeds} (line: mean, band: least and largest)", fontsize=10, x=0.01, ha="left")
    figure.savefig(path, dpi=100)
    plt.close(figure)
