"""Arrays that calls do not take as they lie: lent, copied, or copied in blocks from one order of memory to another."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import pytest

import fastnorm as fn
from fastnorm.ops.calls import settled
from fastnorm.plan.memory import _BLOCK_BYTES, contiguous, copy_to, lent

Make = Callable[[np.ndarray], np.ndarray]


def _wide(x: np.ndarray) -> np.ndarray:
    """A slice of something wider."""
    return np.concatenate([x, x], -1)[..., : x.shape[-1]]


FORMS: dict[str, Make] = {
    "read-only": cases.read_only,
    "memory-mapped": cases.memory_mapped,
    "slice": _wide,
    "every second": lambda x: np.repeat(x, 2, -1)[..., ::2],
    "reversed": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "upside down": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "big-endian": cases.big_endian,
    "misaligned": cases.misaligned,
    "Fortran": np.asfortranarray,
    "turned": lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, x.ndim - 1, *range(1, x.ndim - 1)),
}


def _batch(a: Make) -> list[Any]:
    x, dy, v, w = _images()
    gamma, beta = a(v[None])[0], a(w[None])[0]
    first = fn.batch_norm_train(a(x), gamma, beta)
    residual = fn.batch_norm_train(a(x), gamma, beta, residual=a(dy), activation="relu")
    applied = fn.batch_norm(a(x), a(v[None])[0], gamma, gamma, beta)
    return [*first, *residual, applied, *fn.batch_norm_backward(a(dy), a(x), first.mean, first.rstd, gamma)]


def _groups(a: Make) -> list[Any]:
    x, dy, v, w = _images()
    y, mean, rstd = fn.group_norm(a(x), 4, a(v[None])[0], w, return_stats=True)
    return [y, mean, rstd, *fn.group_norm_backward(a(dy), a(x), 4, mean, rstd, v)]


def _rows(a: Make) -> list[Any]:
    x, dy, _, _ = _images()
    gamma, beta = x[0, 0], dy[0, 0]
    axes = {"axis": (2, 3)}
    y, mean, rstd = fn.layer_norm(a(x), a(gamma), a(beta), return_stats=True, **axes)
    added = fn.add_layer_norm(a(x), a(dy), a(gamma), a(beta), return_stats=True, **axes)
    return [y, mean, rstd, *added, fn.rms_norm(a(x), a(gamma), **axes), *fn.layer_norm_backward(a(dy), a(x), mean, rstd, a(gamma), **axes)]


def _images() -> tuple[np.ndarray, ...]:
    rng = cases.rng_of(3, 1)
    return (
        *(rng.standard_normal((3, 8, 5, 7)).astype(np.float32) for _ in range(2)),
        *(rng.random(8).astype(np.float32) for _ in range(2)),
    )


@pytest.mark.parametrize("run", [_batch, _groups, _rows])
@pytest.mark.parametrize("form", FORMS)
def test_small_arrays_of_any_form(run: Callable[[Make], list[Any]], form: str) -> None:
    """What the plain arrays give, call after call, and arrays that lie in memory as their source does."""
    make = FORMS[form]
    expected = run(lambda x: x)
    for _ in range(3):
        for found, wanted in zip(run(make), expected, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)
            if found.shape == (3, 8, 5, 7):
                assert found.strides == np.empty_like(make(_images()[0]), found.dtype).strides


@pytest.mark.parametrize("form", ["slice", "reversed", "big-endian", "misaligned"])
def test_small_arrays_in_place(form: str) -> None:
    x, _, gamma, beta = _images()
    wanted = fn.batch_norm_train(x, gamma, beta).y
    for _ in range(3):
        given = FORMS[form](x)
        assert fn.batch_norm_train(given, gamma, beta, out=given).y is given
        np.testing.assert_allclose(given, wanted, rtol=2e-6, atol=2e-6)


def test_what_is_settled() -> None:
    x = np.zeros((4, 6), np.float32)
    assert settled(x, None, x) is None
    assert settled([[1.0]], None) is None
    assert settled(x.T, x) is None  # results would lie as x does
    assert settled(np.zeros((400, 600), np.float32)[:, ::2], None) is None  # too large for a copy nobody asked for
    assert settled(np.broadcast_to(x[:1], (4, 6))) is None
    large = cases.read_only(np.zeros((400, 600), np.float32))
    (alias,) = settled(large) or (None,)
    assert np.shares_memory(alias, large)
    assert not large.flags.writeable
    first, second, none = settled(x[:, ::2], x[::-1], None) or (None,) * 3
    assert first.flags.carray
    assert second.flags.carray
    assert none is None


def test_lent_memory_outlives_its_owner() -> None:
    alias = lent(cases.read_only(np.arange(100000.0)))
    other = np.ones(100000)
    np.testing.assert_array_equal(alias, np.arange(100000.0))
    assert other.all()


@pytest.mark.parametrize("shape", [(300, 500), (7, 40, 30, 50), (2, 1, 600, 300), (5, 90001), (0, 4), (3, 2, 60, 5, 200)], ids=str)
def test_copies_between_orders(shape: tuple[int, ...]) -> None:
    x = cases.rng_of(1, *shape).standard_normal(shape).astype(np.float32)
    for order in itertools.permutations(range(len(shape))):
        source = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        for form in (source, source[::-1], np.broadcast_to(source[:1], shape)):
            target = np.full(shape, np.nan)
            copy_to(target, form)
            np.testing.assert_array_equal(target, form)
        back = np.full_like(source, np.nan)
        copy_to(back, x)
        np.testing.assert_array_equal(back, x)
        assert contiguous(source).flags.c_contiguous
    assert x.nbytes > _BLOCK_BYTES or x.size == 0
