"""Numbers near the ends of their dtype: squares, sums and differences that overflow or vanish where results do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastnorm as fn
from fastnorm.preprocessing import MinMaxScaler, StandardScaler, minmax_scale, scale


@pytest.mark.parametrize(("dtype", "value"), [("f4", 3e20), ("f4", 1e-30), ("f8", 1e200), ("f8", 1e-200)])
@pytest.mark.filterwarnings("error")
def test_no_warning_of_what_is_computed_on_the_way(dtype: str, value: float) -> None:
    a = np.full((4, 3), value, dtype)
    moments = fn.RunningMoments()
    with np.errstate(all="raise"):
        for _ in range(3):
            np.testing.assert_array_equal(fn.mean(a, axis=0), a[0])
            np.testing.assert_array_equal(fn.nanmean(a, axis=0), a[0])
            np.testing.assert_array_equal(fn.mean_var(a, axis=0).mean, a[0].astype(np.float64))
            moments.update(a)
    np.testing.assert_array_equal(moments.mean, a[0].astype(np.float64))


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2), (70000,), (300, 300)], ids=str)
def test_constants_have_no_variance(shape: tuple[int, ...]) -> None:
    for value in (1e160, -1e300, 1.7e308, 5e-324):
        a = np.full(shape, value)
        for axis in (None, 0):
            assert not np.any(fn.var(a, axis=axis))
            assert not np.any(fn.mean_var(a, axis).var)


def test_variances_up_to_the_largest_number() -> None:
    assert fn.var(np.array([1e154, 2e154])) == pytest.approx(2.5e307)
    assert fn.std(np.array([3e154, 3e154, 3e154, 3.0001e154])) == pytest.approx(4.3301e149, rel=1e-3)
    assert fn.var(np.array([1e200, 2e200, 3e200])) == np.inf
    x = np.array([[1.0], [2.0], [3.0]]) * 1e160
    np.testing.assert_array_equal(scale(x), 0.0)
    np.testing.assert_array_equal(fn.zscore(x), 0.0)
    scaler = StandardScaler().fit(x)
    assert (scaler.var_, scaler.scale_) == (np.inf, 1.0)


@pytest.mark.parametrize(("dtype", "largest"), [("f4", 3e38), ("f8", 1.7e308)])
def test_means_of_numbers_farther_apart_than_the_largest(dtype: str, largest: float) -> None:
    a = np.array([largest, -largest, 1.0, 2.0], dtype)
    table = np.stack([np.arange(4.0), a, np.arange(4.0)[::-1]], 1).astype(dtype)
    for _ in range(3):
        assert fn.mean(a[:2]) == 0.0
        assert abs(fn.mean(a)) <= 1.0
        means = fn.mean(table, axis=0)
        assert abs(means[1]) <= 1.0
        np.testing.assert_allclose(means[[0, 2]], 1.5)
        with np.errstate(over="ignore"):
            assert fn.var(a) == np.inf
        assert np.isnan(fn.mean(np.append(a, np.nan)))
        assert fn.mean(np.append(a, np.inf)) == np.inf


def test_ranges_beyond_the_largest_number() -> None:
    x = np.array([3e38, -3e38, 0.0], np.float32)
    np.testing.assert_allclose(minmax_scale(x), [1.0, 0.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(MinMaxScaler((-1, 1)).fit_transform(x[:, None])[:, 0], [1.0, -1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("spread", [1e-20, 1e-22, 1e-24])
def test_features_near_zero(spread: float) -> None:
    """Their squares are no float32; scikit-learn sums in float64."""
    x = (np.random.default_rng(0).standard_normal((1000, 2)) * [spread, 1.0]).astype(np.float32)
    np.testing.assert_allclose(StandardScaler().fit(x).scale_, x.astype(np.float64).std(0), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-50, 1.0, 1e40])
def test_weights_that_are_no_float32(size: float) -> None:
    found = fn.mean_var(np.array([1, 2, 3], np.float32), weights=[size, 2 * size, size])
    assert found == (2.0, 0.5)


def test_images_whose_centre_is_no_float32() -> None:
    x = np.ones((1, 1, 3), np.uint8)
    np.testing.assert_allclose(fn.normalize_images(x, 0.5, 1.0, scale=1e-40), -0.5)
    np.testing.assert_allclose(fn.normalize_images(x, 2e36, 1e36), -2.0)


class Unsized:
    """As a loader of a stream."""

    def __iter__(self) -> Iterator[np.ndarray]:
        yield np.ones((2, 3))

    def __len__(self) -> int:
        raise TypeError("this has no len()")


def test_streams_that_do_not_know_their_length() -> None:
    np.testing.assert_array_equal(fn.mean_var(Unsized(), axis=0).mean, 1.0)  # type: ignore[arg-type]


def test_empty_dimensions_of_nan_averages() -> None:
    for average in (fn.nanmean, fn.nanvar, fn.nanstd):
        for axis in (0, -1):
            assert average(np.float64(3), axis=axis) == getattr(np, average.__name__)(np.float64(3), axis=axis)


@pytest.mark.parametrize(
    "use",
    [
        lambda s, x: s.partial_fit(x),
        lambda s, x: s.transform(x),
        lambda s, x: s.inverse_transform(x),
        lambda s, x: s.merge(StandardScaler().fit(x)),
    ],
)
@pytest.mark.parametrize("flag", ["with_mean", "with_std"])
def test_scalers_whose_parameters_ask_for_what_was_not_learned(use: Callable[[Any, Any], Any], flag: str) -> None:
    x = np.random.default_rng(0).standard_normal((100, 2)) + 5
    scaler = StandardScaler(with_mean=False, with_std=False).fit(x).set_params(**{flag: True})
    before = dict(vars(scaler))
    with pytest.raises(ValueError, match=f"{flag} is True, but this StandardScaler was fitted with {flag}=False"):
        use(scaler, x)
    assert vars(scaler) == before
    assert getattr(scaler.fit(x), "mean_" if flag == "with_mean" else "scale_") is not None


def test_assume_finite() -> None:
    sklearn = pytest.importorskip("sklearn")
    scaler = MinMaxScaler().fit([[1.0, 2.0], [3.0, 4.0]])
    with sklearn.config_context(assume_finite=True):
        np.testing.assert_array_equal(scaler.transform([[np.inf, 2.0]]), [[np.inf, 0.0]])
    with pytest.raises(ValueError, match="infinity"):
        scaler.transform([[np.inf, 2.0]])


@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_integers_near_the_largest(dtype: str) -> None:
    """Distances are from a whole number, which is a float: 2**63 is no int64."""
    largest = np.iinfo(dtype).max
    for shape in ((16,), (2, 8), (40, 70), (3, 40000)):
        x = (largest - np.arange(int(np.prod(shape)), dtype=dtype) * dtype_step(dtype)).reshape(shape)
        exact = x.astype(np.float64) - float(largest)
        for axis in (None, 0, -1):
            np.testing.assert_allclose(fn.var(x, axis=axis), exact.var(axis), rtol=1e-9)
    x = (np.arange(4, dtype="u8") * 4096 + 2**63)[None]
    np.testing.assert_allclose(fn.layer_norm(x, eps=0.0), fn.layer_norm(np.arange(4.0)[None], eps=0.0), atol=1e-9)
    np.testing.assert_allclose(fn.batch_norm_train(x.T, eps=0.0).rstd, 1 / (4096 * np.arange(4.0).std()), rtol=1e-12)


def dtype_step(dtype: str) -> Any:
    return np.dtype(dtype).type(2**40)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_activations(activation: str, dtype: type) -> None:
    """Far from zero they are 0 or z, and their slopes 0 or 1; `exp` never quite is."""
    far = np.array([[15.0, 30.0, 90.0, 1e3, 1e12, 1e15, 1e19, 1e33, 3e38]], dtype)
    zeros, ones = np.zeros(far.size), np.ones(far.size)
    for z, value, slope in ((far, far, 1.0), (-far, 0 * far, 0.0)):
        y = fn.batch_norm(z, zeros, ones, eps=0.0, activation=activation)
        np.testing.assert_allclose(y, value, rtol=1e-6, atol=1e-4)
        dx = fn.batch_norm_backward(np.ones_like(z), z, zeros, ones, training=False, activation=activation).dx
        np.testing.assert_allclose(dx, slope, atol=1e-4)
        assert np.all(np.abs(dx[:, 2:] - slope) < 1e-30)
    nan = np.full((1, 1), np.nan, dtype)
    assert np.isnan(fn.batch_norm(nan, [0.0], [1.0], activation=activation)).all()
    assert np.isnan(fn.batch_norm_backward(nan, nan, [0.0], [1.0], training=False, activation=activation).dx).all()
