"""The reference: two-pass NumPy in float64, sharing nothing with the library.

Blocks of statistics are worked on by a few Python threads, only to shorten the wait; each block is complete in itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from bench import oracle_tables
from bench.environment import default_threads
from bench.problems import Problem

Results = dict[str, np.ndarray]
_BLOCK = 2_000_000  # elements: the float64 temporaries of a block stay at some tens of megabytes


class View(NamedTuple):
    """How an operation sees its flat arrays."""

    shape: tuple[int, ...]
    reduced: tuple[int, ...]
    parameter: tuple[int, ...]
    split: int  # axis along which statistics are independent


def _view(problem: Problem) -> View:
    n, c, *space = problem.dims
    area = prod(space)
    if problem.rowwise:
        return View((n, c), (1,), (1, c), 0)
    if problem.operation.startswith(("group", "instance")):
        g = problem.groups
        if problem.key.layout == "NHWC":
            return View((n, area, g, c // g), (1, 3), (1, 1, g, c // g), 0)
        return View((n, g, c // g, area), (2, 3), (1, g, c // g, 1), 0)
    if problem.key.layout == "NHWC":
        return View((n * area, c), (0,), (1, c), 1)
    return View((n, c, area), (0, 2), (1, c, 1), 1)


def _blocks(view: View) -> Iterator[tuple[slice, ...]]:
    length = view.shape[view.split]
    step = max(16 if view.split else 1, _BLOCK * length // max(1, prod(view.shape)))
    for start in range(0, length, step):
        block = [slice(None)] * len(view.shape)
        block[view.split] = slice(start, start + step)
        yield tuple(block)


def _of_block(view: View, array: np.ndarray, block: tuple[slice, ...]) -> np.ndarray:
    """A parameter is cut only where the block's axis is its own."""
    return array[tuple(cut if size > 1 else slice(None) for cut, size in zip(block, array.shape, strict=True))]


def standardized(x: np.ndarray, axes: tuple[int, ...], eps: float, centred: bool = True) -> tuple[np.ndarray, ...]:
    """mean, var, rstd (kept dimensions) and (x - mean) * rstd of a float64 array."""
    mean = x.mean(axes, keepdims=True) if centred else np.zeros(1)
    difference = x - mean
    var = np.square(difference).mean(axes, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        rstd = 1.0 / np.sqrt(var + eps)
        return mean, var, rstd, difference * rstd


def gradient(dy: np.ndarray, xhat: np.ndarray, rstd: np.ndarray, gamma: np.ndarray, axes: tuple[int, ...], centred: bool) -> np.ndarray:
    """dx of y = xhat * gamma + beta. Source: Ioffe, Szegedy 2015, section 3."""
    g = dy * gamma
    dx: np.ndarray = g - xhat * (g * xhat).mean(axes, keepdims=True)
    if centred:
        dx -= g.mean(axes, keepdims=True)
    dx *= rstd
    return dx


class _Reference:
    """Workspace of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.view = _view(problem)
        self.backward = problem.operation.endswith("backward")
        self.added = problem.operation.startswith("add")
        self.centred = "rms" not in problem.operation
        plain = problem.operation in ("standardize", "mean_var")
        gamma = np.ones(problem.channels) if plain else problem.gamma.astype(np.float64)
        beta = np.zeros(problem.channels) if plain or not self.centred else problem.beta.astype(np.float64)
        self.gamma, self.beta = gamma.reshape(self.view.parameter), beta.reshape(self.view.parameter)
        self.main = np.empty(self.view.shape if problem.operation != "mean_var" else (0,))
        self.sums: list[np.ndarray] = []

    def _read(self, array: np.ndarray, block: tuple[slice, ...]) -> np.ndarray:
        values: np.ndarray = array.reshape(self.view.shape)[block].astype(np.float64)
        return values

    def block(self, block: tuple[slice, ...]) -> tuple[np.ndarray, ...]:
        """Write this block of y or dx; return mean, var, rstd, and the sums over it for dgamma and dbeta."""
        problem, view = self.problem, self.view
        x = self._read(problem.x, block)
        if self.added:  # h is rounded to the dtype of x before it is normalized
            x = (x + self._read(problem.residual, block)).astype(problem.dtype).astype(np.float64)
        mean, var, rstd, xhat = standardized(x, view.reduced, problem.eps, self.centred)
        gamma, beta = _of_block(view, self.gamma, block), _of_block(view, self.beta, block)
        if not self.backward:
            if self.main.size:
                self.main[block] = xhat * gamma + beta
            return mean, var, rstd
        dy = self._read(problem.dy, block)
        self.main[block] = gradient(dy, xhat, rstd, gamma, view.reduced, self.centred)
        others = tuple(a for a, size in enumerate(view.parameter) if size == 1)
        return mean, var, rstd, (dy * xhat).sum(others).ravel(), dy.sum(others).ravel()

    def results(self) -> Results:
        with ThreadPoolExecutor(default_threads()) as pool:
            parts = list(zip(*pool.map(self.block, _blocks(self.view)), strict=True))
        found = {name: np.concatenate([p.ravel() for p in part]) for name, part in zip(("mean", "var", "rstd"), parts, strict=False)}
        if self.main.size:
            found["dx" if self.backward else "y"] = self.main.reshape(self.problem.shape)
        if self.backward:
            join = np.concatenate if self.view.split else partial(np.sum, axis=0)
            found["dgamma"], found["dbeta"] = join(parts[3]), join(parts[4])
        return found


def reference(problem: Problem) -> Results:
    """mean, var, rstd (flat, in the order of the statistics) and y, or dx, dgamma, dbeta; all float64."""
    return oracle_tables.reference(problem) or _Reference(problem).results()


_LOOKED_AT = 4


def errors(problem: Problem, results: Results) -> dict[str, float]:
    """Of results that the reference knows. Of repeated blocks a few are looked at, the first and the last among them."""
    return {
        name: _error_of(problem.repeats, found, problem.reference[name]) for name, found in results.items() if name in problem.reference
    }


def _error_of(repeats: int, found: np.ndarray, expected: np.ndarray) -> float:
    found = np.asarray(found)
    if repeats == 1 or found.size != repeats * expected.size:
        return error(found, expected)
    blocks = found.reshape(repeats, -1)
    places = sorted({round(k) for k in np.linspace(0, repeats - 1, _LOOKED_AT)})
    return max(error(blocks[place], expected) for place in places)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest |found - expected| / (1 + |expected|); infinite where NaN is not expected."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.size != expected.size:
        return float("inf")
    rows = max(1, found.size // 1_000_000)
    pieces = zip(np.array_split(found.reshape(expected.shape).ravel(), rows), np.array_split(expected.ravel(), rows), strict=True)
    with ThreadPoolExecutor(default_threads()) as pool:
        return max(pool.map(lambda pair: _error_of_piece(*pair), pieces), default=0.0)


def _error_of_piece(found: np.ndarray, expected: np.ndarray) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(found.astype(np.float64) - expected) / (1.0 + np.abs(expected))
    both_nan = np.isnan(found.astype(np.float64)) & np.isnan(expected)
    difference[both_nan] = 0.0
    worst = float(difference.max(initial=0.0))
    return worst if worst == worst else float("inf")
