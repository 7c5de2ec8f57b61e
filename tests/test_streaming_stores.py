"""Results that bypass the caches are those that do not, to the bit: heads, tails, threads. Nobody has to be large for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cases
import numpy as np
import pytest
from cases import Problem

import fastnorm as fn
from fastnorm.ops import calls
from fastnorm.ops.scaling import rescale
from fastnorm.plan import problem, schedule


@pytest.fixture
def choose_stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Whether stores stream from now on, whatever the processor and the size."""

    def forget() -> None:
        problem._kept.clear()
        calls._known.clear()

    def choose(streaming: bool) -> None:
        monkeypatch.setattr(schedule, "streaming_stores_pay", lambda: streaming)
        monkeypatch.setattr(schedule, "last_level_cache_bytes", lambda _: 0)
        forget()

    yield choose
    monkeypatch.undo()
    forget()


def batch(shape: tuple[int, ...], axis: int, dtype: Any = cases.F4) -> Callable[[], list[np.ndarray]]:
    x, dy = cases.sample(Problem(shape, axis), dtype), cases.sample(Problem(shape, axis), dtype, seed=3)
    gamma, beta = cases.parameter(shape[axis]), cases.parameter(shape[axis], seed=2)

    def call() -> list[np.ndarray]:
        y, mean, rstd = fn.batch_norm_train(x, gamma, beta, axis=axis)
        given = fn.batch_norm(x, mean, rstd, gamma, beta, axis=axis)
        return [y, given, fn.batch_norm_backward(dy, x, mean, rstd, gamma, axis=axis).dx]

    return call


def images(to: str) -> Callable[[], list[np.ndarray]]:
    """Planes that lie alike in cache lines, anywhere in one, and planes that do not."""

    def call() -> list[np.ndarray]:
        found = []
        for height, offset in ((61, 0), (64, 0), (64, 5)):
            shape = (3, height, 67, 3) if to == "first" else (3, 3, height, 67)
            x = cases.rng_of(4).integers(0, 256, shape).astype(np.uint8)
            out = at_offset((3, 3, height, 67) if to == "first" else (3, height, 67, 3), offset)
            found.append(fn.normalize_images(x, 0.4, (0.3, 0.2, 0.1), channels="last" if to == "first" else "first", to=to, out=out))
        return found

    return call


def at_offset(shape: tuple[int, ...], offset: int, dtype: Any = cases.F4) -> np.ndarray:
    """Memory that begins so many elements behind a cache line."""
    n, item = int(np.prod(shape)), np.dtype(dtype).itemsize
    memory = np.full((n + 64) * item + 64, 0xFF, np.uint8)
    begin = -memory.ctypes.data % 64 + offset * item
    return memory[begin : begin + n * item].view(dtype).reshape(shape)


WIDTHS = (1, 15, 16, 17, 63, 64, 65, 79, 128, 130, 192, 255, 256, 300, 511, 577, 1024)


def edges_of_rows() -> list[np.ndarray]:
    """What lies before the first block of a run and behind its last, for every place that a run can have in a line, in place too."""
    found = []
    for offset, width in enumerate(WIDTHS):
        x, dy = cases.sample(Problem((5, width)), cases.F4), cases.sample(Problem((5, width)), cases.F4, seed=3)
        gamma, out, dx, same = cases.parameter(width), *(at_offset(x.shape, offset) for _ in range(3))
        y, mean, rstd = fn.layer_norm(x, gamma, gamma, out=out, return_stats=True)
        same[:] = x
        fn.layer_norm(same, gamma, gamma, out=same)
        found += [y, same, fn.layer_norm_backward(dy, x, mean, rstd, gamma, out=dx).dx]
    return found


def edges_of_planes(dtype: Any) -> Callable[[], list[np.ndarray]]:
    def call() -> list[np.ndarray]:
        found = []
        for offset, width in enumerate(WIDTHS):
            x, given = cases.sample(Problem((5, width)), dtype), cases.parameter(5)
            found.append(fn.batch_norm(x, given, given, given, given, axis=0, out=at_offset(x.shape, offset, dtype)))
        return found

    return call


NARROW = (3, 5), (401, 3), (803, 7), (70, 50), (403, 50), (261, 32), (131, 64)
WIDE = (130, 104), (77, 128), (65, 640), (37, 1024), (40, 1203), (37, 1600)


def columns_at(offset: int, dtype: Any, **block: Any) -> list[np.ndarray]:
    """Rows of columns whose results begin somewhere in a line: of fewer and more columns than one has, and in groups."""
    found = []
    for shape in (*NARROW, *WIDE):
        x, dy, g = cases.sample(Problem(shape), dtype), cases.sample(Problem(shape), dtype, seed=3), cases.parameter(shape[1])
        y, given, dx = (at_offset(shape, offset, dtype) for _ in range(3))
        residual = {"residual": dy} if block else {}
        _, mean, rstd = fn.batch_norm_train(x, g, g, axis=1, out=y, **block, **residual)
        fn.batch_norm(x, mean, rstd, g, g, axis=1, out=given)
        back = fn.batch_norm_backward(dy, x, mean, rstd, g, axis=1, beta=g, out=dx, **block, **residual)
        found += [y, given, *back]
    x, grouped = cases.sample(Problem((2, 33, 12)), dtype), at_offset((2, 33, 12), offset, dtype)
    fn.group_norm(x, 3, cases.parameter(12), cases.parameter(12), axis=-1, out=grouped)
    return [*found, grouped]


def runs_at(offset: int, dtype: Any) -> list[np.ndarray]:
    """The same of planes and rows of several pieces."""
    shape = (3, 2, 701)
    x, dy = cases.sample(Problem(shape), dtype), cases.sample(Problem(shape), dtype, seed=3)
    y, given, dx, rows = (at_offset(shape, offset, dtype) for _ in range(4))
    _, mean, rstd = fn.batch_norm_train(x, cases.parameter(2), cases.parameter(2), out=y)
    fn.batch_norm(x, mean, rstd, out=given)
    back = fn.batch_norm_backward(dy, x, mean, rstd, cases.parameter(2), out=dx)
    return [y, given, *back[:3], fn.layer_norm(x, cases.parameter(701), cases.parameter(701), out=rows)]


def blocks() -> list[np.ndarray]:
    """Activation and residual; and rows in segments that share parameters."""
    shape = (3, 6, 11, 37)
    x, residual, dy = (cases.sample(Problem(shape), cases.F4, seed=k) for k in (1, 2, 3))
    gamma, out = cases.parameter(6), at_offset(shape, 5)
    y, mean, rstd = fn.batch_norm_train(x, gamma, gamma, activation="gelu", residual=residual, out=out)
    back = fn.batch_norm_backward(dy, x, mean, rstd, gamma, activation="gelu", beta=gamma, residual=residual)
    group = fn.group_norm(x, 3, gamma, gamma, activation="silu", return_stats=True)
    of_group = fn.group_norm_backward(dy, x, 3, group.mean, group.rstd, gamma, activation="silu", beta=gamma)
    return [y, back.dx, back.dresidual, group.y, of_group.dx]


def short_planes(dtype: Any, *activations: str | None) -> Callable[[], list[np.ndarray]]:
    """Written line by line, with numbers of two planes in one line: from every place in a line, with gaps, and in parts of planes."""

    def call() -> list[np.ndarray]:
        found = []
        gamma, beta, var = cases.parameter(6), cases.parameter(6, seed=2), np.abs(cases.parameter(6, seed=3))
        for offset, (height, width) in enumerate(((4, 4), (3, 7), (5, 5), (7, 7), (8, 8), (9, 11), (13, 13), (14, 14), (16, 16))):
            shape = (9, 6, height, width)
            x, residual = cases.sample(Problem(shape), dtype), cases.sample(Problem(shape), dtype, seed=4)
            gaps = np.zeros((9, 7, height, width), x.dtype)[:, 1:]
            for name in activations:
                added = {"residual": residual} if name == "relu" else {}
                found.append(fn.batch_norm(x, beta, var, gamma, beta, activation=name, out=at_offset(shape, offset, dtype), **added))
                y, mean, rstd = fn.group_norm(x, 2, gamma, beta, activation=name, out=at_offset(shape, offset, dtype), return_stats=True)
                back = {"activation": name, "beta": beta, "out": at_offset(shape, offset + 5, dtype)}
                found += [y, mean, rstd, *fn.group_norm_backward(residual, x, 2, mean, rstd, gamma, **back)]
            found += [fn.batch_norm(x, beta, var, gamma, beta, out=gaps).copy(), fn.group_norm(x, 2, gamma, beta, out=gaps).copy()]
            found.append(fn.instance_norm(x, gamma, beta, out=at_offset(shape, offset, dtype)))
        return found

    return call


def few_samples(dtype: Any, shapes: list[tuple[int, ...]]) -> Callable[[], list[np.ndarray]]:
    """Blocks of channels: line by line where nothing but x and dy is read, else plane by plane."""

    def call() -> list[np.ndarray]:
        found = []
        for offset, shape in enumerate(shapes):
            gamma, beta = cases.parameter(shape[1]), cases.parameter(shape[1], seed=2)
            x, dy, residual = (cases.sample(Problem(shape), dtype, seed=k) for k in (3, 4, 5))
            for block in ({}, {"activation": "leaky_relu"}, {"activation": "relu", "residual": residual}, {"residual": residual}):
                y, dx = at_offset(shape, offset, dtype), at_offset(shape, offset + 5, dtype)
                trained = fn.batch_norm_train(x, gamma, beta, out=y, **block)
                found += trained
                if shape[0] <= 4:  # gradients of more samples are summed in columns, or in planes, as the cache decides
                    found += fn.batch_norm_backward(dy, x, trained.mean, trained.rstd, gamma, beta=beta, out=dx, **block)
        return found

    return call


FEW_SAMPLES = [(1, 41, 7, 7), (2, 41, 3, 3), (3, 23, 4, 4), (4, 41, 7, 7), (8, 19, 9, 9), (4, 23, 12, 13), (16, 9, 11, 12)]


def short_rows() -> list[np.ndarray]:
    """More than a block of them, with statistics and without."""
    found = []
    for offset, width in enumerate((16, 17, 24, 33, 50, 64, 96, 127, 128, 161, 192)):
        x, gamma, beta = cases.sample(Problem((701, width)), cases.F4), cases.parameter(width), cases.parameter(width, seed=2)
        for parameters in ((gamma, beta), (None, None)):
            out = at_offset(x.shape, offset)
            y, mean, rstd = fn.layer_norm(x, *parameters, out=out, return_stats=True)
            assert y is out
            found += [y, mean, rstd]
            found += list(fn.layer_norm_backward(x[::-1].copy(), x, mean, rstd, parameters[0], out=at_offset(x.shape, offset + 3)))
            for _ in range(2):  # the second call is a remembered one
                np.testing.assert_array_equal(fn.layer_norm(x, *parameters, out=at_offset(x.shape, offset)), y)
        residual, apart = x[::-1].copy(), np.zeros((701, width + 5), np.float32)[:, 3:-2]
        for out in ((at_offset(x.shape, offset), at_offset(x.shape, offset + 5)), (at_offset(x.shape, offset), apart)):
            found += list(fn.add_layer_norm(x, residual, gamma, beta, out=out))
        y, rstd = fn.rms_norm(x, gamma, out=at_offset(x.shape, offset), return_stats=True)
        found += [
            y,
            fn.rms_norm_backward(x[::-1].copy(), x, rstd, gamma, out=at_offset(x.shape, offset + 3)).dx,
            fn.layer_norm(x.astype(np.float64), gamma, beta),
        ]
    return found


def rows() -> list[np.ndarray]:
    """Longer than the rows that are kept in L1, and those that are."""
    found = [fn.layer_norm(cases.sample(Problem((3, 20_011)), cases.F4))]
    for width in (300, 3073):
        x, residual = cases.sample(Problem((7, width)), cases.F4), cases.sample(Problem((7, width)), cases.F4, seed=5)
        gaps = np.zeros((7, width + 5), np.float32)[:, 3:-2]
        found += [fn.layer_norm(x, cases.parameter(width)), fn.rms_norm(x, out=gaps), *fn.add_layer_norm(x, residual)[:2]]
        found.append(fn.layer_norm(x.astype(np.float16)))
    return found


def few_long_rows() -> list[np.ndarray]:
    """Gradients in ranges of elements of all rows."""
    x, dy, gamma = (
        cases.sample(Problem((5, 15_013)), cases.F4),
        cases.sample(Problem((5, 15_013)), cases.F4, seed=3),
        cases.parameter(15_013),
    )
    _, mean, rstd = fn.layer_norm(x, gamma, gamma, return_stats=True)
    return [*fn.layer_norm_backward(dy, x, mean, rstd, gamma), *fn.rms_norm_backward(dy, x, rstd, gamma)]


def moments_of_rows() -> list[np.ndarray]:
    """That are found first, to be corrected before anything is written."""
    found = []
    for width in (7, 150, 300):
        x, mean, var = cases.sample(Problem((5, width)), cases.F4), np.zeros(5), np.ones(5)
        found += list(fn.batch_renorm_train(x, mean, var, axis=0)[:3])
    return found


def scaled() -> list[np.ndarray]:
    table = cases.sample(Problem((5003, 17)), cases.F8)
    return [rescale(table, (0,), np.arange(17.0), np.full(17, 0.3), shift=np.arange(17.0))]


CALLS = {
    "planes": batch((3, 5, 61, 67), 1),
    "planes, float16": batch((3, 5, 61, 67), 1, cases.F2),
    "rows of columns": batch((5003, 17), 1),
    "wide rows": batch((129, 1203), 1),
    "long rows": rows,
    "edges of rows": edges_of_rows,
    "edges, float64": edges_of_planes(cases.F8),
    "edges, float16": edges_of_planes(cases.F2),
    "edges of columns": lambda: columns_at(5, cases.F4),
    "blocks": blocks,
    "few samples": few_samples(cases.F4, FEW_SAMPLES),
    "few samples, float16": few_samples(cases.F2, FEW_SAMPLES[-3:]),
    "short planes": short_planes(cases.F4, None, "relu", "silu"),
    "short planes, float64": short_planes(cases.F8, None),
    "short planes, float16": short_planes(cases.F2, None),
    "short rows": short_rows,
    "few long rows": few_long_rows,
    "moments of rows": moments_of_rows,
    "scaled": scaled,
    "images to planes": images("first"),
    "images to pixels": images("last"),
}
if cases.BFLOAT16 is not None:
    CALLS |= {
        "planes, bfloat16": batch((3, 5, 61, 67), 1, cases.BFLOAT16),
        "rows of columns, bfloat16": batch((5003, 17), 1, cases.BFLOAT16),
        "four rows, bfloat16": batch((131, 2405), 1, cases.BFLOAT16),
        "edges, bfloat16": edges_of_planes(cases.BFLOAT16),
        "edges of columns, bfloat16": lambda: columns_at(5, cases.BFLOAT16, activation="relu"),
        "few samples, bfloat16": few_samples(cases.BFLOAT16, FEW_SAMPLES[-3:]),
    }


@pytest.mark.parametrize("name", CALLS)
def test_streaming_changes_no_bit(name: str, choose_stores: Callable[[bool], None]) -> None:
    choose_stores(False)
    plain = CALLS[name]()
    choose_stores(True)
    for streamed, stored in zip(CALLS[name](), plain, strict=True):
        np.testing.assert_array_equal(streamed, stored)


@pytest.mark.parametrize(
    ("dtype", "block"), [(cases.F4, {}), (cases.F4, {"activation": "relu"}), (cases.F8, {}), (cases.F2, {}), (cases.BFLOAT16, {})], ids=str
)
def test_place_in_memory_changes_no_bit(dtype: Any, block: dict[str, str]) -> None:
    if dtype is None:
        pytest.skip("ml_dtypes is not installed")
    expected = columns_at(0, dtype, **block) + runs_at(0, dtype)
    for offset in (1, 4, 7, 8, 13, 15, 31):
        for placed, usual in zip(columns_at(offset, dtype, **block) + runs_at(offset, dtype), expected, strict=True):
            np.testing.assert_array_equal(placed, usual)
