"""The reference of averages, scalers, z-scores and images, which have no parameters: two-pass NumPy in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from bench import images
from bench.environment import default_threads
from bench.problems import AVERAGES, Problem

Results = dict[str, np.ndarray]
_BLOCK = 2_000_000  # elements


class Moments(NamedTuple):
    """Of every line."""

    number: np.ndarray  # of elements
    mean: np.ndarray
    var: np.ndarray


def moments(lines: np.ndarray) -> Moments:
    """Of the lines of a float64 array, without its NaN."""
    unknown = np.isnan(lines)
    values = np.where(unknown, 0.0, lines)
    number = lines.shape[1] - unknown.sum(1)
    mean = values.sum(1) / number
    difference = np.where(unknown, 0.0, values - mean[:, None])
    mean += difference.sum(1) / number  # what the first sum lost to rounding
    difference = np.where(unknown, 0.0, values - mean[:, None])
    return Moments(number, mean, np.square(difference).sum(1) / number)


def _pieces(length: int, width: int) -> Iterator[slice]:
    """Of `length` lines of `width` elements."""
    step = max(1, _BLOCK // width)
    return (slice(start, start + step) for start in range(0, length, step))


def _lines(x: np.ndarray) -> Moments:
    """Of the lines of any array: by blocks, on a few threads."""

    def part(piece: slice) -> Moments:
        return moments(np.ascontiguousarray(x[piece], np.float64))

    with ThreadPoolExecutor(default_threads()) as pool:
        return Moments(*map(np.concatenate, zip(*pool.map(part, _pieces(*x.shape)), strict=True)))


def average(problem: Problem) -> Results:
    x = np.atleast_2d(problem.x)
    found = _lines(x.T if problem.reduced == 0 else x)
    if problem.reduced is None:  # lines of one array: exact sums of what they have in common
        total = math.fsum(found.number)
        mean = math.fsum(found.number * found.mean) / total
        var = math.fsum(found.number * (found.var + np.square(found.mean - mean))) / total
        found = Moments(np.array(total), np.array(mean), np.array(var))
    name = problem.operation.removeprefix("nan")
    return {name: getattr(found, name)}


def _centre_and_scale(problem: Problem) -> tuple[np.ndarray, np.ndarray, Results]:
    """Of every column: y = (x - centre) / scale; and what fit finds."""
    kind = problem.operation.partition("_")[0]
    if kind in ("standard", "zscore"):
        _, mean, var = _lines(problem.x.T)
        return mean, np.sqrt(var), {"mean": mean, "var": var}
    low, high = problem.x.min(0).astype(np.float64), problem.x.max(0).astype(np.float64)
    if kind == "minmax":
        return low, high - low, {"low": low, "high": high}
    largest = np.maximum(-low, high)
    return np.zeros_like(largest), largest, {"largest": largest}


def scaled(problem: Problem) -> Results:
    """A scaler of a table, or z-scores."""
    centre, scale, found = _centre_and_scale(problem)
    if problem.operation.endswith("_fit"):
        return found
    y = np.empty(problem.shape)

    def part(piece: slice) -> None:
        np.divide(problem.x[piece] - centre, scale, out=y[piece])

    with ThreadPoolExecutor(default_threads()) as pool:
        list(pool.map(part, _pieces(*y.shape)))
    return {"y": y}


def scaled_sparse(problem: Problem) -> Results:
    """y: the stored elements. Nothing is subtracted; those that are not stored count as zeros."""
    rows, columns = problem.dims
    values, places = problem.csr.data.astype(np.float64), problem.csr.indices
    if problem.operation.startswith("maxabs"):
        scale = np.zeros(columns)
        np.maximum.at(scale, places, np.abs(values))
        found = {"largest": scale}
    else:
        mean = np.bincount(places, values, columns) / rows
        squares = np.bincount(places, np.square(values - mean[places]), columns)
        var = (squares + (rows - np.bincount(places, minlength=columns)) * np.square(mean)) / rows
        scale, found = np.sqrt(var), {"var": var}
    return found if problem.operation.endswith("_fit") else {"y": values / scale[places]}


def normalized_images(problem: Problem) -> Results:
    y = (problem.x / 255.0 - images.MEAN) / images.STD
    return {"y": np.ascontiguousarray(np.moveaxis(y, -1, 1))}


def reference(problem: Problem) -> Results | None:
    """None for an operation of the normalization family."""
    operation = problem.operation
    if operation in AVERAGES:
        return average(problem)
    if operation == "normalize_images":
        return normalized_images(problem)
    if operation == "zscore" or "_scaler_" in operation:
        return scaled_sparse(problem) if problem.sparse else scaled(problem)
    return None
