"""Real images as float32 N C H W, from scikit-learn: photographs have offsets and constant regions, random numbers have not."""

from __future__ import annotations

import numpy as np

from bench import environment
from bench.problems import UnsupportedError


def load(source: str, dims: tuple[int, ...]) -> np.ndarray:
    """source: "photos" (china.jpg and flower.jpg in turn) or "digits"; values 0..255 or 0..16."""
    try:
        environment.all_cores()
        from sklearn import datasets
    except ImportError:
        raise UnsupportedError("scikit-learn is not installed") from None
    if source == "digits":
        digits: np.ndarray = datasets.load_digits().images.astype(np.float32)
        return digits[: dims[0], None]
    pictures = np.stack(datasets.load_sample_images().images).astype(np.float32)
    batch = np.resize(pictures, (dims[0], *pictures.shape[1:]))
    return np.moveaxis(batch, -1, 1)
