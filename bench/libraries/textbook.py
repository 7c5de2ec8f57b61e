"""The formulas of the papers in NumPy, as one would write them down.

With ``out=`` the large temporaries are avoided where NumPy lets one; fresh is the plain expression.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import images
from bench.libraries import averages
from bench.problems import AVERAGES, Problem, UnsupportedError
from bench.providers import Prepared, Results, Setup


def _wide(p: Problem) -> None:
    if p.dtype.itemsize < 4:
        raise UnsupportedError("NumPy sums 16-bit floats in 16 bits")


def _along(p: Problem, parameter: np.ndarray) -> np.ndarray:
    return parameter.reshape([-1 if axis == p.axis else 1 for axis in range(p.x.ndim)])


def _reduced(p: Problem) -> tuple[int, ...]:
    if p.rowwise:
        return (p.axis,)
    return tuple(axis for axis in range(p.x.ndim) if axis != p.axis)


def _affine(
    x: np.ndarray, mean: np.ndarray, scales: tuple[np.ndarray, ...], beta: np.ndarray | float, out: np.ndarray | None
) -> np.ndarray:
    """(x - mean) * scales + beta: into `out` throughout, or with the temporaries of the plain expression."""
    y: np.ndarray = np.subtract(x, mean, out=out)
    for term in scales:
        y = np.multiply(y, term, out=out)
    y += beta
    return y


def _scales(p: Problem, rstd: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of a row and of its columns: their product would be as large as x."""
    return (rstd, gamma) if p.rowwise else (rstd * gamma,)


def _one(y: np.ndarray) -> Results:
    return {"y": y}


def normalized(p: Problem, fresh: bool) -> Prepared:
    """Batch norm in training; layer norm is the same with another axis."""
    _wide(p)
    axes, gamma, beta, out = _reduced(p), _along(p, p.gamma), _along(p, p.beta), None if fresh else p.out

    def call() -> np.ndarray:
        mean = p.x.mean(axes, keepdims=True)
        var = p.x.var(axes, keepdims=True, mean=mean)
        return _affine(p.x, mean, _scales(p, 1 / np.sqrt(var + p.eps), gamma), beta, out)

    return Prepared(call, _one)


def standardize(p: Problem, fresh: bool) -> Prepared:
    axes, out = _reduced(p), None if fresh else p.out

    def call() -> np.ndarray:
        mean = p.x.mean(axes)
        return _affine(p.x, mean, (1 / p.x.std(axes, mean=mean[None]),), 0.0, out)

    return Prepared(call, _one)


def inference(p: Problem, fresh: bool) -> Prepared:
    _wide(p)
    mean, var = (_along(p, s).astype(p.dtype) for s in (p.mean, p.var))
    gamma, beta, out = _along(p, p.gamma), _along(p, p.beta), None if fresh else p.out
    return Prepared(lambda: _affine(p.x, mean, (gamma / np.sqrt(var + p.eps),), beta, out), _one)


def mean_var(p: Problem, fresh: bool) -> Prepared:
    axes = _reduced(p)
    return Prepared(lambda: (p.x.mean(axes), p.x.var(axes)), lambda r: {"mean": r[0], "var": r[1]})


def backward(p: Problem, fresh: bool) -> Prepared:
    _wide(p)
    axes, gamma = _reduced(p), _along(p, p.gamma)
    others = tuple(axis for axis in range(p.x.ndim) if axis != p.axis)
    kept = [1 if axis in axes else size for axis, size in enumerate(p.shape)]
    mean, rstd = (s.reshape(kept).astype(p.dtype) for s in (p.mean, p.rstd))

    def call() -> tuple[np.ndarray, ...]:
        xhat = (p.x - mean) * rstd
        g = p.dy * gamma
        dx = (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True)) * rstd
        return dx, (p.dy * xhat).sum(others), p.dy.sum(others)

    return Prepared(call, lambda r: {"dx": r[0], "dgamma": r[1], "dbeta": r[2]})


def rms_norm(p: Problem, fresh: bool) -> Prepared:
    _wide(p)
    out = None if fresh else p.out

    def call() -> Any:
        rstd = 1 / np.sqrt(np.square(p.x).mean(-1, keepdims=True) + p.eps)
        return np.multiply(np.multiply(p.x, rstd, out=out), p.gamma, out=out)

    return Prepared(call, _one)


def add_layer_norm(p: Problem, fresh: bool) -> Prepared:
    _wide(p)

    def call() -> np.ndarray:
        h = np.add(p.x, p.residual, out=None if fresh else p.out_sum)
        mean = h.mean(-1, keepdims=True)
        scale = 1 / np.sqrt(h.var(-1, keepdims=True, mean=mean) + p.eps)
        return _affine(h, mean, (scale, p.gamma), p.beta, None if fresh else p.out)

    return Prepared(call, _one)


def group_norm(p: Problem, fresh: bool) -> Prepared:
    """Group norm, and instance norm as groups of one channel."""
    _wide(p)
    n, c, *space = p.dims
    last = p.key.layout == "NHWC"
    grouped = (n, *space, p.groups, c // p.groups) if last else (n, p.groups, c // p.groups, *space)
    axes = (*range(1, 1 + len(space)), len(grouped) - 1) if last else tuple(range(2, len(grouped)))
    gamma, beta = _along(p, p.gamma), _along(p, p.beta)

    def call() -> Any:
        x = p.x.reshape(grouped)
        mean = x.mean(axes, keepdims=True)
        xhat = (x - mean) / np.sqrt(x.var(axes, keepdims=True, mean=mean) + p.eps)
        return np.add(np.multiply(xhat.reshape(p.shape), gamma), beta, out=None if fresh else p.out)

    return Prepared(call, _one)


def normalize_images(p: Problem, fresh: bool) -> Prepared:
    """In the order of the pixels, then turned: `out` is written once."""
    mean, std = images.MEAN.astype(np.float32), images.STD.astype(np.float32)

    def recipe() -> np.ndarray:
        x = p.x.astype(np.float32)
        x /= np.float32(255)
        x -= mean
        x /= std
        return x.transpose(0, 3, 1, 2)

    return Prepared((lambda: np.ascontiguousarray(recipe())) if fresh else lambda: _copied(recipe(), p.out), _one)


def _copied(source: np.ndarray, out: np.ndarray) -> np.ndarray:
    np.copyto(out, source)
    return out


SETUPS: dict[str, Setup] = {
    "train": normalized,
    "layer_norm": normalized,
    "standardize": standardize,
    "inference": inference,
    "mean_var": mean_var,
    "backward": backward,
    "layer_norm_backward": backward,
    "rms_norm": rms_norm,
    "add_layer_norm": add_layer_norm,
    "group_norm": group_norm,
    "instance_norm": group_norm,
    "normalize_images": normalize_images,
} | {name: averages.setup(getattr(np, name)) for name in AVERAGES}
