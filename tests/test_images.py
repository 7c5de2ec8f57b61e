"""``fn.normalize_images``: every order of channels, dtype and stride; one pass."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cases
import numpy as np
import pytest

import fastnorm as fn

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALES = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 1.0, "float16": 1.0, "float64": 0.5, "bool": 1.0}
ORDERS = [(a, b) for a in ("last", "first") for b in ("last", "first")]


def images(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    """(N, H, W, C) or (H, W, C)."""
    rng = cases.rng_of(7, *shape)
    if np.dtype(dtype).kind in "bu":
        return rng.integers(0, 2 if dtype == "bool" else np.iinfo(dtype).max, shape, endpoint=dtype != "bool").astype(dtype)
    return rng.random(shape).astype(dtype)


def moved(x: np.ndarray, order: str) -> np.ndarray:
    return x if order == "last" else np.moveaxis(x, -1, -3)


def expected(x: np.ndarray, scale: float, mean: np.ndarray = MEAN, std: np.ndarray = STD) -> np.ndarray:
    n = x.shape[-1]
    return (x.astype(np.float64) * scale - np.resize(mean, n)) / np.resize(std, n)


def check(y: np.ndarray, wanted: np.ndarray, dtype: Any = np.float32) -> None:
    assert y.dtype == dtype
    assert y.shape == wanted.shape
    # The contract's bound; float16 rounds the result to 11 bits.
    bound = {"float32": 1e-6, "float64": 1e-13, "float16": 2.0**-11}[np.dtype(dtype).name]
    assert (np.abs(y.astype(np.float64) - wanted) <= bound * (1 + np.abs(wanted))).all()


@pytest.mark.parametrize(("channels", "to"), ORDERS)
@pytest.mark.parametrize("shape", [(3, 17, 19, 3), (40, 60, 3), (2, 5, 6, 4), (2, 5, 6, 1), (2, 160, 120, 3)], ids=str)
def test_every_order(shape: tuple[int, ...], channels: str, to: str) -> None:
    x = images(shape)
    given = np.ascontiguousarray(moved(x, channels))
    before = given.copy()
    n = shape[-1]
    y = fn.normalize_images(given, np.resize(MEAN, n), np.resize(STD, n), channels=channels, to=to)
    check(y, moved(expected(x, 1 / 255), to))
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("dtype", SCALES)
def test_every_source(dtype: str) -> None:
    x = images((2, 9, 11, 3), dtype)
    check(fn.normalize_images(x, MEAN, STD, scale=SCALES[dtype]), moved(expected(x, SCALES[dtype]), "first"))


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_every_result(dtype: str) -> None:
    x = images((2, 9, 11, 3))
    check(fn.normalize_images(x, MEAN, STD, dtype=dtype), moved(expected(x, 1 / 255), "first"), dtype)


TRAPS = {
    "reversed": lambda x: x[:, ::-1, ::-1],
    "every second": lambda x: x[:, ::2, ::2],
    "BGR": lambda x: x[..., ::-1],
    "misaligned": cases.misaligned,
    "big-endian": cases.big_endian,
    "read-only": cases.read_only,
    "memory-mapped": cases.memory_mapped,
    "Fortran": np.asfortranarray,
    "one image broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "crop": lambda x: x[:, 1:-1, 2:-3],
    "crop of BGR": lambda x: x[:, 1:-1, 2:-3, ::-1],
    "turned crop": lambda x: x[:, 1:-1, -3:2:-1],
    "opaque": lambda x: np.concatenate([x, x[..., :1]], -1)[..., :3],
    "every second image": lambda x: x[::2],
}


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("to", ["first", "last"])
def test_any_strides(name: str, to: str) -> None:
    x = TRAPS[name](images((2, 8, 10, 3), "uint16"))
    check(fn.normalize_images(x, MEAN, STD, scale=1 / 65535, to=to), moved(expected(x, 1 / 65535), to))


@pytest.mark.parametrize(("channels", "to"), ORDERS)
@pytest.mark.parametrize("name", ["crop", "crop of BGR", "turned crop", "big-endian"])
def test_strides_of_large_sets(name: str, channels: str, to: str) -> None:
    """More than what is brought into the order of memory at once."""
    x = TRAPS[name](images((4, 300, 400, 3)))
    assert x.nbytes > fn.ops.images._COPIED
    out = np.empty(moved(x, to).shape, np.float32)
    check(fn.normalize_images(moved(x, channels), MEAN, STD, channels=channels, to=to, out=out), moved(expected(x, 1 / 255), to))


def test_set_of_crops_costs_the_memory_of_one() -> None:
    x, out = images((16, 300, 400, 3))[:, 2:-2, 3:-3], np.empty((16, 3, 296, 394), np.float32)
    fn.normalize_images(x, MEAN, STD, out=out)
    tracemalloc.start()
    try:
        fn.normalize_images(x, MEAN, STD, out=out)
        assert tracemalloc.get_traced_memory()[1] < 0.15 * x.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(3, 3, 3), (2, 3, 3, 3), (40, 40, 40)], ids=str)
@pytest.mark.parametrize("backwards", [False, True])
def test_turned_in_place(shape: tuple[int, ...], backwards: bool) -> None:
    """Where height, width and channels are equal, source and result have one shape, and yet no element keeps its place."""
    mean, std = np.resize(MEAN, shape[-1]), np.resize(STD, shape[-1])
    for place in (lambda given: given, lambda given: np.moveaxis(given, -1, -3)):  # in the second every element keeps its own
        x = images(shape, "float32")
        given = x[..., ::-1] if backwards else x
        wanted, out = moved(expected(given.copy(), 1.0, mean, std), "first"), place(given)
        assert fn.normalize_images(given, mean, std, scale=1.0, out=out) is out
        check(out, wanted)


@pytest.mark.parametrize(("channels", "to"), ORDERS)
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize("read_only", [False, True])
def test_further_calls_of_a_kind(channels: str, to: str, dtype: str, read_only: bool) -> None:
    """They skip checks and plans; what they are given is their own, though, and numbers in a list may change."""
    mean, std, out = [0.4, 0.5, 0.6], STD.copy(), None
    scale = SCALES[dtype]
    for turn in range(5):
        mean[turn % 3] += 0.125
        std[turn % 3] *= 2
        x = np.roll(images((2, 17, 19, 3), dtype), turn, 1)
        given = np.ascontiguousarray(moved(x, channels))
        given.flags.writeable = not read_only
        for each_out in (None, out):
            y = fn.normalize_images(given, mean, std, scale=scale, channels=channels, to=to, out=each_out)
            assert each_out is None or y is each_out
            check(y, moved(expected(x, scale, np.array(mean), std), to))
        out = y


def test_what_may_change_unseen_is_looked_at_anew() -> None:
    class Number:
        """Equal to itself whatever it holds, as tensors of other libraries are."""

        value = 0.5

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.array(self.value, dtype)

        def __float__(self) -> float:
            return self.value

    x, number = images((4, 5, 3)), Number()
    for number.value in (0.5, 0.25):
        wanted = moved(expected(x, 1 / 255, np.array([number.value]), np.array([number.value])), "first")
        check(fn.normalize_images(x, number, number), wanted)  # type: ignore[arg-type]
        check(fn.normalize_images(x, [number.value] * 3, number, scale=1 / 255), wanted)  # type: ignore[arg-type]


def test_out() -> None:
    x = images((2, 6, 7, 3))
    wanted = moved(expected(x, 1 / 255), "first")
    whole = np.zeros((4, 3, 6, 14), np.float32)
    for out in (np.empty((2, 3, 6, 7), np.float32), whole[::2, :, :, ::2], np.empty((2, 6, 7, 3), np.float32).transpose(0, 3, 1, 2)):
        assert fn.normalize_images(x, MEAN, STD, out=out) is out
        check(out, wanted)
    assert not whole[1].any()
    own = images((3, 4, 3), "float32")
    wanted = moved(expected(own, 1.0), "first")
    check(fn.normalize_images(own, MEAN, STD, scale=1.0, out=own.reshape(3, 3, 4)), wanted)  # over its own source


def test_single_numbers_and_far_means() -> None:
    x = (images((5, 6, 3), "float32") + 1e5).astype(np.float32)
    check(fn.normalize_images(x, 1e5, 0.25, scale=1.0), moved(expected(x, 1.0, np.array([1e5]), np.array([0.25])), "first"))


def test_statistics_of_the_set_make_it_standard() -> None:
    x = images((8, 32, 32, 3))
    mean, var = fn.mean_var(x, (0, 1, 2))
    y = fn.normalize_images(x, mean / 255, np.sqrt(var) / 255).astype(np.float64)
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0.0, atol=1e-6)
    np.testing.assert_allclose(y.var((0, 2, 3)), 1.0, atol=1e-6)


def test_empty_images() -> None:
    assert fn.normalize_images(np.empty((0, 4, 5, 3), np.uint8), MEAN, STD).shape == (0, 3, 4, 5)
    assert fn.normalize_images(np.empty((0, 5, 3), np.uint8), MEAN, STD).shape == (3, 0, 5)


def test_no_temporary() -> None:
    x, out = images((8, 256, 256, 3)), np.empty((8, 3, 256, 256), np.float32)
    fn.normalize_images(x, MEAN, STD, out=out)
    tracemalloc.start()
    try:
        fn.normalize_images(x, MEAN, STD, out=out)
        assert tracemalloc.get_traced_memory()[1] < 0.05 * x.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"images": np.zeros((4, 5), np.uint8)}, ValueError, "3 or 4"),
        ({"mean": [0.5, 0.5]}, ValueError, r"mean has shape \(2,\) but images have 3 channels"),
        ({"std": [1.0, 0.0, 1.0]}, ValueError, "std"),
        ({"mean": [np.nan, 0.0, 0.0]}, ValueError, "finite"),
        ({"scale": 0}, ValueError, "scale is 0"),
        ({"scale": np.inf}, ValueError, "scale is inf"),
        ({"std": [1.0, 5e-324, 1.0]}, ValueError, "beyond float64"),
        ({"mean": [1e300, 0.0, 0.0], "scale": 1e-300}, ValueError, "beyond float64"),
        ({"channels": "middle"}, ValueError, "channels is 'middle'"),
        ({"to": 1}, ValueError, "to is 1"),
        ({"dtype": np.uint8}, TypeError, "dtype is uint8"),
        ({"out": np.empty((2, 4, 5, 3), np.float32)}, ValueError, r"\(2, 3, 4, 5\)"),
        ({"out": np.broadcast_to(np.float32(0), (2, 3, 4, 5))}, ValueError, "read-only"),
        ({"images": np.zeros((2, 4, 5, 3), complex)}, TypeError, "complex128"),
    ],
)
def test_errors(change: dict[str, Any], error: type, text: str) -> None:
    arguments: dict[str, Any] = {"images": images((2, 4, 5, 3)), "mean": MEAN, "std": STD} | change
    with pytest.raises(error, match=text):
        fn.normalize_images(**arguments)
