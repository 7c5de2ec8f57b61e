"""Real images as float32 N C H W, from scikit-learn: photographs have offsets and constant regions, random numbers have not."""

from __future__ import annotations

import numpy as np

from bench import environment
from bench.problems import UnsupportedError

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Of the channels of ImageNet, scaled to [0, 1]."""


def _crop(pictures: np.ndarray, k: int, size: tuple[int, ...]) -> np.ndarray:
    """A part of one of the pictures in turn, (height, width, 3), another one for every k."""
    height, width = size
    picture = pictures[k % len(pictures)]
    top, left = 37 * k % (picture.shape[0] - height + 1), 53 * k % (picture.shape[1] - width + 1)
    return picture[top : top + height, left : left + width]


def load(source: str, dims: tuple[int, ...]) -> np.ndarray:
    """source: "photos" (china.jpg and flower.jpg in turn), "crops" (parts of them) or "digits"; values 0..255 or 0..16."""
    try:
        environment.all_cores()
        from sklearn import datasets
    except ImportError:
        raise UnsupportedError("scikit-learn is not installed") from None
    if source == "digits":
        digits: np.ndarray = datasets.load_digits().images.astype(np.float32)
        return digits[: dims[0], None]
    pictures = np.stack(datasets.load_sample_images().images).astype(np.float32)
    if source == "crops":
        return np.moveaxis(np.stack([_crop(pictures, k, dims[2:]) for k in range(dims[0])]), -1, 1)
    batch = np.resize(pictures, (dims[0], *pictures.shape[1:]))
    return np.moveaxis(batch, -1, 1)
