"""scikit-learn's own checks of estimators, and what its users do with scalers."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnorm.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, StandardScaler

sklearn = pytest.importorskip("sklearn", minversion="1.7")  # 1.6 fails one of its checks itself
from sklearn import preprocessing as theirs  # noqa: E402
from sklearn.base import BaseEstimator, clone  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import estimator_checks_generator  # noqa: E402

SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, Normalizer)


def name_of(value: Any) -> str:
    return repr(value) if isinstance(value, BaseEstimator) else getattr(value, "func", value).__name__


# As parametrize_with_checks, which in earlier versions hands pytest a generator that it warns of.
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pair
        for scaler in (StandardScaler(), StandardScaler(with_mean=False), MinMaxScaler(), MaxAbsScaler(), Normalizer())
        for pair in estimator_checks_generator(scaler)
    ],
    ids=name_of,
)
def test_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


X = np.random.default_rng(4).normal(10.0, 3.0, (40, 3))


@pytest.mark.parametrize("kind", SCALERS)
def test_they_are_estimators(kind: Any) -> None:
    assert issubclass(kind, BaseEstimator)
    parameters = {"clip": True} if "clip" in kind().get_params() else {"copy": False}
    scaler = kind().set_params(**parameters).fit(X)
    twin = clone(scaler)
    assert twin.get_params() == scaler.get_params()
    assert not hasattr(twin, "n_features_in_")
    again = pickle.loads(pickle.dumps(scaler))
    np.testing.assert_array_equal(again.transform(X.copy()), scaler.transform(X.copy()))
    assert repr(kind()) == f"{kind.__name__}()"
    assert list(scaler.get_feature_names_out()) == ["x0", "x1", "x2"]


@pytest.mark.parametrize("kind", SCALERS)
def test_signatures_begin_as_those_of_scikit_learn(kind: Any) -> None:
    their = getattr(theirs, kind.__name__)
    assert their().get_params().items() <= kind().get_params().items()
    assert kind().get_params().keys() - their().get_params().keys() <= {"clip"}  # of MaxAbsScaler, since 1.8
    for method in ("fit", "partial_fit", "transform", "inverse_transform", "fit_transform"):
        if hasattr(their, method) and method != "fit_transform":
            expected = list(inspect.signature(getattr(their, method)).parameters.values())
            found = list(inspect.signature(getattr(kind, method)).parameters.values())
            assert [(p.name, p.default) for p in found[: len(expected)]] == [(p.name, p.default) for p in expected]
            assert {p.name for p in found[len(expected) :]} <= {"out", "progress"}


def test_tags() -> None:
    from sklearn.utils import get_tags

    for scaler, nan, sparse in (
        (StandardScaler(), 1, 0),
        (StandardScaler(with_mean=False), 1, 1),
        (MinMaxScaler(), 1, 0),
        (MaxAbsScaler(), 1, 1),
    ):
        tags = get_tags(scaler)
        assert (tags.input_tags.allow_nan, tags.input_tags.sparse) == (nan, sparse)
    assert not get_tags(Normalizer()).requires_fit
    assert get_tags(Normalizer()).input_tags.sparse


@pytest.mark.parametrize(("library", "dtype"), [("pandas", "float32"), ("pandas", "Float32"), ("polars", None)])
@pytest.mark.parametrize("kind", SCALERS)
def test_frames_of_float32_stay_float32(kind: Any, library: str, dtype: str | None) -> None:
    """Also those whose dtypes are not NumPy's, which become float64 in scikit-learn's scalers."""
    frames = pytest.importorskip(library)
    table = X.astype(np.float32)
    frame = frames.DataFrame(dict(zip("abc", table.T, strict=True)))
    result = kind().fit_transform(frame if dtype is None else frame.astype(dtype))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, kind().fit_transform(table), rtol=2e-6, atol=2e-6)
    wider = frames.DataFrame({"a": table[:, 0], "b": X[:, 1]})
    assert kind().fit_transform(wider).dtype == np.float64


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("kind", SCALERS)
def test_frames_in_and_out(kind: Any, library: str) -> None:
    frames = pytest.importorskip(library)
    frame = frames.DataFrame(dict(zip("abc", X.T, strict=True)))
    scaler = kind().fit(frame)
    if not hasattr(getattr(theirs, kind.__name__)().fit(frame), "feature_names_in_"):
        pytest.skip("this scikit-learn finds no names in these frames")
    assert list(scaler.feature_names_in_) == ["a", "b", "c"]
    expected = kind().fit_transform(X)
    np.testing.assert_allclose(scaler.transform(frame), expected, rtol=1e-12, atol=1e-13)
    scaler.set_output(transform=library)
    for result in (scaler.transform(frame), scaler.fit_transform(frame)):
        assert isinstance(result, frames.DataFrame)
        assert list(result.columns) == ["a", "b", "c"]
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(frame, X)
    with pytest.raises(ValueError, match="feature names should match"):
        scaler.transform(frame[["b", "a", "c"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        scaler.transform(X)
    if kind is not Normalizer:
        with pytest.raises(ValueError, match="other was fitted with the features"):
            scaler.merge(kind().fit(frame[["b", "a", "c"]]))
        adopted = kind().merge(scaler)
        assert list(adopted.feature_names_in_) == ["a", "b", "c"]
        before = pickle.dumps(scaler)
        with pytest.raises(ValueError, match="infinity"):
            scaler.fit(frames.DataFrame({"z": [1.0, np.inf]}))
        assert pickle.dumps(scaler) == before


def test_a_pipeline_of_them() -> None:
    pipeline = make_pipeline(StandardScaler(), MinMaxScaler(), MaxAbsScaler(), Normalizer())
    expected = X
    for kind in SCALERS:
        expected = kind().fit(expected).transform(expected)
    np.testing.assert_allclose(pipeline.fit_transform(X), expected, rtol=1e-12)
    np.testing.assert_allclose(pipeline.transform(X), expected, rtol=1e-12)
    assert list(pipeline.get_feature_names_out()) == ["x0", "x1", "x2"]


def test_weights_are_routed_through_a_pipeline() -> None:
    weights = np.random.default_rng(5).random(40)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), MaxAbsScaler())
        pipeline.fit(X, sample_weight=weights)
    np.testing.assert_array_equal(pipeline[0].mean_, StandardScaler().fit(X, sample_weight=weights).mean_)


def test_a_class_derived_from_a_scaler_is_asked() -> None:
    class Shifted(StandardScaler):
        def transform(self, X: Any, copy: bool | None = None) -> Any:
            return super().transform(X, copy) + 1.0

    np.testing.assert_allclose(Shifted().fit_transform(X), StandardScaler().fit_transform(X) + 1.0)
