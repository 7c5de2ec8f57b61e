"""``python -m bench images``: what `normalize_images` does to two photographs, as numbers and as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import environment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES, _COLOURS = ("red", "green", "blue"), ("tab:red", "tab:green", "tab:blue")
_SHOWN = (0, 1)  # one crop of either photograph
_LIMITS = -2.2, 2.2  # of the grey values and of the histogram, in standard deviations


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench images",
        description="Normalize 64 crops of scikit-learn's two sample photographs by the statistics of their channels; draw two of them.",
    )
    results = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results, help="folder of images.png (default: bench/results)")
    return parser


def normalize(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """crops: uint8 (N, H, W, C). Returns mean and std of the channels, scaled to [0, 1], and the images, float32 (N, C, H, W)."""
    import fastnorm

    fn: Any = fastnorm
    mean, var = fn.mean_var(crops, axis=(0, 1, 2))
    mean, std = mean / 255, np.sqrt(var) / 255
    return mean, std, fn.normalize_images(crops, mean, std)


def _histograms(axes: Axes, channels: list[np.ndarray], edges: np.ndarray, label: str) -> None:
    for values, name, colour in zip(channels, _NAMES, _COLOURS, strict=True):
        axes.hist(values.ravel(), edges, histtype="step", color=colour, label=name, density=True)
    axes.set_xlabel(label, fontsize=7)
    axes.set_yticks([])
    axes.tick_params(labelsize=6)


def draw(crops: np.ndarray, y: np.ndarray, path: Path) -> None:
    """One line per crop: input, the channels of the output, and the histograms of the whole set beside them."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 5, figsize=(9, 3.6), layout="constrained", width_ratios=(1, 1, 1, 1, 1.35))
    for row, k in enumerate(_SHOWN):
        grid[row, 0].imshow(crops[k])
        for c, name in enumerate(_NAMES):
            grid[row, 1 + c].imshow(y[k, c], cmap="gray", vmin=_LIMITS[0], vmax=_LIMITS[1])
            grid[0, 1 + c].set_title(f"output, {name}, grey: {_LIMITS[0]} to {_LIMITS[1]}" if c == 0 else f"output, {name}", fontsize=8)
        for axes in grid[row, :4]:
            axes.set_axis_off()
    grid[0, 0].set_title("input, uint8", fontsize=8)
    grid[0, 4].set_title("all 64 crops", fontsize=8)
    _histograms(grid[0, 4], [crops[..., c] for c in range(3)], np.linspace(0, 256, 65), "input")
    _histograms(grid[1, 4], [y[:, c] for c in range(3)], np.linspace(*_LIMITS, 64), "output: mean 0, standard deviation 1")
    grid[0, 4].legend(fontsize=6, frameon=False)
    figure.savefig(path, dpi=90, pil_kwargs={"optimize": True})
    plt.close(figure)


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    import fastnorm
    from bench.problems import Key, Problem, UnsupportedError

    try:
        crops = Problem(Key("normalize_images", "imagenet/64", "NHWC", "uint8", "crops")).x
    except UnsupportedError as reason:
        print(f"python -m bench images: {reason}; pip install scikit-learn")
        return 2
    environment.all_cores()
    mean, std, y = normalize(crops)
    fn: Any = fastnorm
    after = fn.mean_var(y, axis=(0, 2, 3))
    print(f"{crops.shape} {crops.dtype} -> {y.shape} {y.dtype}")
    print("channel  mean/255  std/255   mean and variance of the output")
    for name, *numbers in zip(_NAMES, mean, std, *after, strict=True):
        print("{:7}  {:8.6f}  {:8.6f}  {:+.1e}  {:.6f}".format(name, *numbers))
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(crops, y, arguments.output / "images.png")
    print(f"images.png is in {arguments.output}")
    return 0
