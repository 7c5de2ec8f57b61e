"""Rows of few elements: widths around those of vectors and masks, blocks that do not fill, what lies beside them in memory."""

from __future__ import annotations

import platform
from typing import Any

import cases
import checks_family as family
import numpy as np
import pytest
from checks_family import Layer
from conftest import RunPython

import fastnorm as fn

# Around one vector and four of them, the rows from which stores stream, and the longest that are short.
WIDTHS = (1, 2, 15, 16, 17, 48, 63, 64, 65, 100, 127, 128, 191, 192, 193)
ROWS = 301  # of 1 to 8 elements a block and a part of one


def rows_of(width: int) -> Layer:
    """More than a block, and a part of one."""
    return Layer((ROWS if width < 17 else 67, width))


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_every_width(dtype: np.dtype) -> None:
    for width in WIDTHS if dtype.itemsize > 2 else WIDTHS[1::3]:  # 16-bit floats have no masks
        problem = rows_of(width)
        x, dy = family.sample(problem, dtype, offset=3.0), family.sample(problem, dtype, seed=3)
        gamma, beta = cases.parameter(width, cases.F4), cases.parameter(width, cases.F4, seed=2)
        family.check_layer(x, gamma=gamma, beta=beta)
        family.check_rms(x, gamma=gamma)
        family.check_layer_backward(dy, x, gamma=gamma)
        family.check_rms_backward(dy, x, gamma=gamma)


def test_calls_that_come_again_have_the_same_bits() -> None:
    """After 16 of them one compiled function takes the whole call."""
    for width in (7, 50, 129):
        problem = Layer((ROWS, width))
        x, gamma = family.sample(problem), cases.parameter(width)
        y, mean, rstd = first = fn.layer_norm(x, gamma, gamma, return_stats=True)
        back = fn.layer_norm_backward(y, x, mean, rstd, gamma)
        for _ in range(40):
            again = fn.layer_norm(x, gamma, gamma, return_stats=True)
            back_again = fn.layer_norm_backward(y, x, mean, rstd, gamma)
        for one, other in zip((*first, *back), (*again, *back_again), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
def test_far_from_zero(offset: float) -> None:
    for width in WIDTHS[2:]:
        family.check_layer(family.sample(rows_of(width), offset=offset))


@pytest.mark.parametrize("height", [1e4 / 3, 7e3, 1e5 / 7])
def test_first_elements_far_from_the_mean(height: float) -> None:
    """The shift is their mean, which is a third of a row and therefore at most 1.5 standard deviations off."""
    x = family.sample(Layer((ROWS, 190)))
    x[::3, :64] = 0.0
    x[::3, 64:] = np.where(np.arange(126) == 125, -height, height)
    family.check_layer(x, eps=0.0)


def test_constant_rows_have_variance_zero() -> None:
    for width in (3, 50, 190):
        x = np.repeat(np.float32([[0.1], [-7e7], [3e-30]]), width, axis=1)
        y, mean, rstd = fn.layer_norm(x, eps=0.25, return_stats=True)
        assert not y.any()
        np.testing.assert_array_equal(rstd, 2.0)
        np.testing.assert_array_equal(mean, x[:, 0].astype(np.float64))


def test_a_row_with_nan_spoils_no_other() -> None:
    for width in (1, 5, 50, 130):
        x = family.sample(Layer((ROWS, width)))
        x[7, -1], x[200, 0] = np.nan, np.inf
        y = fn.layer_norm(x)
        spoilt = np.isnan(y).any(axis=1)
        assert spoilt.nonzero()[0].tolist() == [7, 200]
        rest = np.delete(x, [7, 200], axis=0)
        np.testing.assert_allclose(np.delete(y, [7, 200], axis=0), fn.layer_norm(rest), rtol=0, atol=1e-6)


def guarded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy with 100 elements before and behind it that are NaN, and all of that memory."""
    memory = np.full(values.size + 200, np.nan, values.dtype)
    copy = memory[100:-100].reshape(values.shape)
    copy[...] = values
    return copy, memory


@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
def test_nothing_beside_the_rows_is_read_or_written(dtype: np.dtype) -> None:
    for width in WIDTHS:
        problem = Layer((21, width))
        (x, _), (dy, _) = guarded(family.sample(problem, dtype)), guarded(family.sample(problem, dtype, seed=3))
        (gamma, _), (out, memory) = guarded(cases.parameter(width, dtype)), guarded(np.zeros(x.shape, dtype))
        family.check_layer(x, gamma=gamma, beta=gamma, out=out)
        family.check_layer_backward(dy, x, gamma=gamma, out=out)
        assert np.isnan(memory[:100]).all()
        assert np.isnan(memory[-100:]).all()
        family.check_layer(x, gamma=gamma, out=x, shared=True)


def test_rows_apart() -> None:
    """Gaps between rows, between batches too, backwards, every second element; and the same array as result."""
    for width in (3, 50, 120):
        wide = family.sample(Layer((6, 50, width + 5)))
        for x in (wide[..., 2:-3], wide[:, 3:-4, :-5], wide[::-2, ::-1, 5:], wide[..., : width + 4 : 2]):
            gamma = cases.parameter(x.shape[-1])
            family.check_layer(x, gamma=gamma, beta=gamma)
            family.check_layer_backward(np.ascontiguousarray(x[::-1]), x, gamma=gamma)
            family.check_rms(x, gamma=gamma)
            family.check_layer(x.copy(), gamma=gamma, out=np.zeros_like(wide)[tuple(slice(0, n) for n in x.shape)])


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_sums(dtype: np.dtype) -> None:
    """What lies beside them in memory is NaN; statistics are those of the sum alone, bit for bit."""
    for width in WIDTHS if dtype == cases.F4 else WIDTHS[1::3]:
        problem = rows_of(width)
        (x, _), (residual, _) = guarded(family.sample(problem, dtype, offset=3.0)), guarded(family.sample(problem, dtype, seed=3))
        (y, around_y), (h, around_h) = guarded(np.zeros(x.shape, dtype)), guarded(np.zeros(x.shape, dtype))
        gamma = cases.parameter(width, cases.F4)
        family.check_add_layer(x, residual, gamma=gamma, beta=gamma, out=(y, h))
        assert all(np.isnan(memory[k]).all() for memory in (around_y, around_h) for k in (slice(0, 100), slice(-100, None)))
        family.check_add_rms(x, residual, gamma=gamma)
        added = fn.add_layer_norm(x, residual, gamma, gamma, return_stats=True)
        for one, other in zip((added.y, added.mean, added.rstd), fn.layer_norm(h, gamma, gamma, return_stats=True), strict=True):
            np.testing.assert_array_equal(one, other)
        family.check_add_layer(x, residual, gamma=gamma, out=(residual, x), shared=True)


def test_sums_of_rows_apart() -> None:
    """Each operand with other gaps between its rows."""
    for width in (3, 50, 120):
        wide = family.sample(Layer((6, 50, width + 5)))
        views = (wide[..., 2:-3], wide[..., 1:-4], np.ascontiguousarray(wide[..., :-5]), wide[:, ::-1, 5:], wide[::-1, ::-1, 5:])
        for x, residual in ((views[k], views[k - 1]) for k in range(len(views))):
            y, h = np.zeros_like(wide)[..., : x.shape[-1]], np.zeros_like(wide)[..., 3 : 3 + x.shape[-1]]
            family.check_add_layer(x, residual, gamma=cases.parameter(width), out=(y, h))
            family.check_add_rms(x, residual)


@pytest.mark.parametrize("shape", [(101, 3, 5, 5), (7, 301, 2, 2), (2, 97, 1, 9), (300, 1, 8, 8), (5, 53, 13, 13)], ids=str)
@pytest.mark.parametrize("activation", [None, "silu"])
def test_planes_of_instances(shape: tuple[int, ...], activation: str | None) -> None:
    """Parameters belong to channels: they begin again with every sample, inside a block."""
    x = family.sample(family.Group(shape, shape[1]), offset=10.0)
    gamma, beta = cases.parameter(shape[1]), cases.parameter(shape[1], seed=2)
    for threads in (1, 3):
        with fn.num_threads(threads):
            family.check_instance(x, gamma=gamma, beta=beta, activation=activation)


# Channels, groups: planes of one vector, of masks, of both; blocks that end inside a sample; statistics longer than a block.
PLANES = [((101, 6, 2, 3), 3), ((7, 300, 2, 2), 60), ((5, 64, 7, 7), 8), ((3, 24, 13, 13), 24), ((2, 6, 31, 31), 2), ((3, 40, 1, 17), 40)]


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize(("shape", "groups"), PLANES, ids=str)
def test_gradients_of_planes(shape: tuple[int, ...], groups: int, activation: str | None) -> None:
    problem = family.Group(shape, groups)
    x, dy = family.sample(problem, offset=5.0), family.sample(problem, seed=3)
    gamma, beta = cases.parameter(shape[1]), cases.parameter(shape[1], seed=2) if activation else None
    for threads in (1, 3):
        with fn.num_threads(threads):
            family.check_group_backward(dy, x, groups, gamma=gamma, beta=beta, activation=activation)
    family.check_group_backward(dy.astype(cases.F2), x.astype(cases.F2), groups, gamma=gamma, beta=beta, activation=activation)
    family.check_group_backward(dy, x, groups, activation=activation, beta=beta, out=np.zeros_like(x))
    family.check_group_backward(dy, x.copy(), None, gamma=gamma, out=guarded(x)[0])
    gaps = np.zeros((*shape[:-1], shape[-1] + 3), np.float32)[..., 1:-2]  # between rows of a plane
    family.check_group_backward(dy, x, groups, gamma=gamma, out=gaps)
    wide = np.concatenate([x, x], axis=1)[:, : shape[1]]  # between samples
    family.check_group_backward(dy, wide, groups, gamma=gamma)
    family.check_group_backward(dy[::-1], wide[::-1], groups, gamma=gamma)
    for one in (wide[:, :1], x[:, 1:2], x[::-1, :1]):  # a single plane of every sample, and gaps between them
        for out in (None, np.zeros_like(x)[:, -1:]):
            family.check_group_backward(
                dy[:, :1], one, 1, gamma=gamma[:1], beta=beta if beta is None else beta[:1], activation=activation, out=out
            )
            family.check_group_backward(np.ascontiguousarray(dy[:, :1]), one, None, gamma=gamma[:1], out=out)
    twice = np.repeat(x, 2).reshape(-1)[::2].reshape(shape)  # between elements
    assert twice.strides[-1] == 8
    family.check_group_backward(np.repeat(dy, 2).reshape(-1)[::2].reshape(shape), twice, groups, gamma=gamma)


WITHOUT_MASKS = """
import sys
import numpy as np, fastnorm as fn
with np.load(sys.argv[1]) as given:
    arrays = dict(given)
for width in (3, 50, 130):
    x, gamma = arrays[f"x{width}"], arrays[f"gamma{width}"]
    y, mean, rstd = fn.layer_norm(x, gamma, gamma, return_stats=True)
    back = fn.layer_norm_backward(x, x, mean, rstd, gamma)
    for name, value in zip(("y", "dx", "dgamma"), (y, back.dx, back.dgamma), strict=True):
        np.testing.assert_allclose(value, arrays[f"{name}{width}"], rtol=2e-6, atol=2e-6)
print("done")
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names a processor of another architecture")
def test_a_processor_without_masks(run_python: RunPython, tmp_path: Any) -> None:
    arrays = {}
    for width in (3, 50, 130):
        x, gamma = family.sample(Layer((ROWS, width))), cases.parameter(width)
        y, mean, rstd = fn.layer_norm(x, gamma, gamma, return_stats=True)
        back = fn.layer_norm_backward(x, x, mean, rstd, gamma)
        arrays |= {f"x{width}": x, f"gamma{width}": gamma, f"y{width}": y, f"dx{width}": back.dx, f"dgamma{width}": back.dgamma}
    np.savez(tmp_path / "given.npz", **arrays)
    processor = {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": ""}
    assert run_python("-c", WITHOUT_MASKS, str(tmp_path / "given.npz"), **processor).stdout.strip() == "done"
