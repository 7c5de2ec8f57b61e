"""Scalers given what they cannot use: the message, and an estimator that is what it was."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastnorm.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, StandardScaler
from fastnorm.preprocessing.scikit import NotFittedError

LEARNING = (StandardScaler, MinMaxScaler, MaxAbsScaler)
ALL = (*LEARNING, Normalizer)
X = np.array([[1.0, 2.0], [3.0, -5.0], [4.0, 0.5]])


def holding(value: float, dtype: Any = np.float64) -> np.ndarray:
    table = X.astype(dtype)
    table[1, 1] = value
    return table


BAD_TABLES = [
    (holding(np.inf), ValueError, "infinity"),
    (holding(-np.inf, np.float32), ValueError, "infinity"),
    (X[0], ValueError, "Expected 2D array, got 1D array"),
    (X[None], ValueError, "dim 3"),
    (X[:0], ValueError, "0 sample"),
    (X[:, :0], ValueError, "0 feature"),
    (X + 1j, ValueError, "Complex data not supported"),
    (np.array([["a", "b"]]), ValueError, "could not convert string"),
    (np.ma.masked_array(X, X > 2), TypeError, "masked array"),
]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(("bad", "error", "text"), BAD_TABLES, ids=lambda value: str(value)[:12] if isinstance(value, str) else "")
def test_tables_that_are_refused(kind: Any, bad: Any, error: type[Exception], text: str) -> None:
    for fresh in (kind(), kind().fit(X)):
        before = pickle.dumps(fresh)
        for learn in {"fit", "partial_fit"} & set(dir(fresh)):
            with pytest.raises(error, match=text):
                getattr(fresh, learn)(bad)
            assert pickle.dumps(fresh) == before
    for apply in {"transform", "inverse_transform"} & set(dir(kind)):
        with pytest.raises(error, match=text):
            getattr(fresh, apply)(bad)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_is_written_before_the_error(kind: Any) -> None:
    bad, out = holding(np.inf), np.zeros((3, 2))
    for copies in (True, False):
        with pytest.raises(ValueError, match="infinity"):
            kind(copy=copies).fit(X).transform(bad, out=out)
        np.testing.assert_array_equal(bad, holding(np.inf))
        assert not out.any()


@pytest.mark.parametrize("kind", ALL)
def test_one_infinity_among_many_numbers_is_found(kind: Any) -> None:
    many = np.tile(X, (5000, 1))
    scaler = kind().fit(many)
    for value in (np.inf, -np.inf):
        many[12_345, 1] = value
        for method in {"fit", "partial_fit", "transform", "inverse_transform"} & set(dir(scaler)):
            with pytest.raises(ValueError, match="infinity"):
                getattr(scaler, method)(many)
    many[12_345, 1] = np.nan
    if kind is Normalizer:
        with pytest.raises(ValueError, match="contains NaN"):
            scaler.transform(many)
    else:
        np.testing.assert_array_equal(np.argwhere(np.isnan(scaler.transform(many))), [[12_345, 1]])


def test_nan_have_no_norm() -> None:
    for method in ("fit", "transform"):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            getattr(Normalizer(), method)(holding(np.nan))


@pytest.mark.parametrize("kind", LEARNING)
def test_what_has_not_been_fitted_transforms_nothing(kind: Any) -> None:
    for method in ("transform", "inverse_transform"):
        with pytest.raises(NotFittedError, match=f"This {kind.__name__} instance is not fitted yet"):
            getattr(kind(), method)(X)
    with pytest.raises(NotFittedError):
        kind().merge(kind())
    with pytest.raises(NotFittedError):
        kind().transform(iter([X]))


@pytest.mark.parametrize("kind", LEARNING)
def test_numbers_of_features_are_compared(kind: Any) -> None:
    scaler = kind().fit(X)
    for method in ("partial_fit", "transform", "inverse_transform"):
        with pytest.raises(ValueError, match=f"X has 3 features, but {kind.__name__} is expecting 2 features as input"):
            getattr(scaler, method)(np.ones((4, 3)))
    other = kind().fit(np.ones((4, 3)))
    before = pickle.dumps(scaler)
    with pytest.raises(ValueError, match="other has 3 features"):
        scaler.merge(other)
    with pytest.raises(TypeError, match=f"other must be a {kind.__name__}"):
        scaler.merge(Normalizer())
    assert pickle.dumps(scaler) == before
    scaler.fit(np.ones((4, 3)))
    assert scaler.n_features_in_ == 3


def test_merge_needs_the_statistics_that_are_kept() -> None:
    with pytest.raises(ValueError, match="knows no variance"):
        StandardScaler().fit(X).merge(StandardScaler(with_std=False).fit(X))
    with pytest.raises(ValueError, match="knows no mean"):
        StandardScaler(with_std=False).fit(X).merge(StandardScaler(with_mean=False, with_std=False).fit(X))


@pytest.mark.parametrize(
    ("scaler", "text"),
    [
        (StandardScaler(copy=1), "'copy' parameter of StandardScaler must be an instance of 'bool'"),
        (StandardScaler(with_mean="yes"), "'with_mean' parameter"),
        (StandardScaler(with_std=None), "'with_std' parameter"),
        (MinMaxScaler([0, 1]), "'feature_range' parameter of MinMaxScaler must be an instance of 'tuple'"),
        (MinMaxScaler((0, 1, 2)), "'feature_range' parameter"),
        (MinMaxScaler((1, 1)), re.escape("Minimum of desired feature range must be smaller than maximum. Got (1, 1)")),
        (MinMaxScaler((0, np.nan)), "Minimum of desired feature range"),
        (MinMaxScaler(clip=0), "'clip' parameter"),
        (MaxAbsScaler(clip="no"), "'clip' parameter of MaxAbsScaler"),
        (Normalizer("l3"), "'norm' parameter of Normalizer must be a str among {'l1', 'l2', 'max'}. Got 'l3' instead"),
        (Normalizer(2), "'norm' parameter"),
    ],
    ids=str,
)
def test_parameters_are_checked_when_fitting(scaler: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        scaler.fit(X)
    assert not hasattr(scaler, "n_features_in_")


@pytest.mark.parametrize(
    ("weights", "error", "text"),
    [
        (np.ones(2), ValueError, re.escape("sample_weight.shape == (2,), expected (3,)!")),
        (np.ones((3, 1)), ValueError, "Sample weights must be 1D array or scalar, got 2D array"),
        (np.zeros(3), ValueError, "at least one non-zero number"),
        ([1.0, np.nan, 1.0], ValueError, "Input sample_weight contains NaN"),
        ([1.0, np.inf, 1.0], ValueError, "infinity"),
        ([1.0, -1.0, 1.0], ValueError, "negative"),
        (["a", "b", "c"], ValueError, "could not convert"),
    ],
)
def test_weights_that_are_refused(weights: Any, error: type[Exception], text: str) -> None:
    scaler = StandardScaler().fit(X)
    before = pickle.dumps(scaler)
    with pytest.raises(error, match=text):
        scaler.fit(X, sample_weight=weights)
    assert pickle.dumps(scaler) == before


def test_an_infinity_of_weight_0_is_refused_as_well() -> None:
    with pytest.raises(ValueError, match="infinity"):
        StandardScaler().fit(holding(np.inf), sample_weight=[1.0, 0.0, 1.0])


def test_numbers_whose_squares_overflow_are_no_infinities() -> None:
    scaler = StandardScaler().fit(np.array([[1e30], [3e30]], np.float32))
    np.testing.assert_allclose(scaler.mean_, 2e30, rtol=1e-6)
    np.testing.assert_allclose(scaler.scale_, 1e30, rtol=1e-6)


def test_a_stream_that_fails_in_the_middle_teaches_nothing() -> None:
    def batches() -> Iterator[np.ndarray]:
        yield 2.0 * X
        yield holding(np.inf)

    for kind in LEARNING:
        for learn in ("fit", "partial_fit"):
            scaler = kind().fit(X)
            before = pickle.dumps(scaler)
            with pytest.raises(ValueError, match="infinity"):
                getattr(scaler, learn)(batches())
            assert pickle.dumps(scaler) == before


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        (np.empty((2, 2)), ValueError, r"out has shape \(2, 2\) but the result has \(3, 2\)"),
        (np.empty((3, 2), np.int64), TypeError, "out has dtype int64"),
        ([[0.0, 0.0]] * 3, TypeError, "out must be a numpy array, got list"),
        (np.broadcast_to(np.zeros((3, 1)), (3, 2)), ValueError, "read-only"),
    ],
)
def test_outputs_that_are_refused(out: Any, error: type[Exception], text: str) -> None:
    for kind in ALL:
        with pytest.raises(error, match=text):
            kind().fit(X).transform(X, out=out)


def test_copies_are_independent() -> None:
    for kind in LEARNING:
        scaler = kind().fit(X)
        twin, before = copy.deepcopy(scaler), scaler.transform(X)
        twin.partial_fit(10.0 * X)
        np.testing.assert_array_equal(scaler.transform(X), before)
        merged = kind().merge(scaler)
        merged.partial_fit(10.0 * X)
        np.testing.assert_array_equal(scaler.transform(X), before)
