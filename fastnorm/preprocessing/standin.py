"""What scalers need of scikit-learn, for where it is not installed. Names and arguments are scikit-learn's."""

from __future__ import annotations

import inspect
import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class NotFittedError(ValueError, AttributeError):
    """A scaler was used before it has seen data."""


class BaseEstimator:
    """Parameters are what ``__init__`` takes, kept under the same names."""

    @classmethod
    def _parameters(cls) -> dict[str, inspect.Parameter]:
        return {name: p for name, p in inspect.signature(cls.__init__).parameters.items() if name != "self"}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters and their values, in alphabetical order."""
        return {name: getattr(self, name) for name in sorted(self._parameters())}

    def set_params(self, **params: Any) -> Any:
        """Change parameters. Raises ValueError if one is unknown."""
        known = self._parameters()
        for name in params:
            if name not in known:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: {sorted(known)}.")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = (f"{name}={getattr(self, name)!r}" for name, p in self._parameters().items() if getattr(self, name) != p.default)
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        raise AttributeError("scikit-learn, which asks for tags, was not installed when fastnorm.preprocessing was imported")


class TransformerMixin:
    """Nothing: scalers have a ``fit_transform`` of their own."""


class OneToOneFeatureMixin:
    """Features keep their names."""

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Names of the transformed features: those of `fit`, `input_features`, or x0, x1, ..."""
        if not hasattr(self, "n_features_in_"):
            raise NotFittedError(_not_fitted(self))
        seen = getattr(self, "feature_names_in_", None)
        if input_features is None:
            return seen if seen is not None else np.array([f"x{k}" for k in range(self.n_features_in_)], object)
        names = np.asarray(input_features, object)
        if seen is not None and not np.array_equal(seen, names):
            raise ValueError("input_features is not equal to feature_names_in_")
        if len(names) != self.n_features_in_:
            raise ValueError(f"input_features should have length equal to number of features ({self.n_features_in_}), got {len(names)}")
        return names


def _not_fitted(estimator: Any) -> str:
    return f"This {type(estimator).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before using this estimator."


def check_is_fitted(estimator: Any) -> None:
    """Raises NotFittedError unless there is an attribute whose name ends in an underscore."""
    if not any(name.endswith("_") and not name.startswith("__") for name in vars(estimator)):
        raise NotFittedError(_not_fitted(estimator))


def _names_of(X: Any) -> Array | None:
    columns = getattr(X, "columns", None)
    if columns is None or not all(isinstance(name, str) for name in columns):
        return None
    return np.array(list(columns), object)


def _check_names(estimator: Any, names: Array | None) -> None:
    seen, kind = getattr(estimator, "feature_names_in_", None), type(estimator).__name__
    if names is None and seen is None:
        return
    if seen is None:
        warnings.warn(f"X has feature names, but {kind} was fitted without feature names", stacklevel=5)
    elif names is None:
        warnings.warn(f"X does not have valid feature names, but {kind} was fitted with feature names", stacklevel=5)
    elif not np.array_equal(seen, names):
        raise ValueError(
            "The feature names should match those that were passed during fit.\n"
            f"Feature names unseen at fit time: {sorted(set(names) - set(seen))}; now missing: {sorted(set(seen) - set(names))}"
        )


def validate_data(estimator: Any, X: Any, *, reset: bool = True, skip_check_array: bool = False, **checks: Any) -> Any:
    """Check X, and set or compare the number and the names of the estimator's features."""
    names = _names_of(X)
    if not reset:
        _check_names(estimator, names)
    if not skip_check_array:
        X = check_array(X, estimator=estimator, **checks)
    n_features = X.shape[1]
    if reset:
        estimator.n_features_in_ = n_features
        vars(estimator).pop("feature_names_in_", None)
        if names is not None:
            estimator.feature_names_in_ = names
    elif hasattr(estimator, "n_features_in_") and n_features != estimator.n_features_in_:
        raise ValueError(
            f"X has {n_features} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} features as input."
        )
    return X


def check_array(
    X: Any,
    *,
    accept_sparse: Any = False,
    dtype: Any = (np.float64, np.float32),
    ensure_2d: bool = True,
    ensure_all_finite: bool = False,
    estimator: Any = None,
    input_name: str = "X",
) -> Any:
    """A table of numbers, of the first dtype unless it has one of them. What is infinite or NaN is asked elsewhere."""
    name = estimator if isinstance(estimator, str) else type(estimator).__name__
    if "scipy.sparse" in sys.modules and sys.modules["scipy.sparse"].issparse(X):
        if not accept_sparse:
            raise TypeError(f"Sparse data was passed for {input_name}, but dense data is required. Use '.toarray()' to convert it.")
        matrix = X if X.format in accept_sparse else X.asformat(accept_sparse[0])
        _check_complex(matrix.dtype)
        table: Any = matrix if matrix.dtype in dtype else matrix.astype(dtype[0])
    else:
        table = np.asarray(X)
        _check_complex(table.dtype)
        if table.dtype not in dtype:
            table = table.astype(dtype[0])
        _check_dimensions(table, ensure_2d, name)
    for count, word in zip(table.shape, ("sample", "feature"), strict=False):
        if count == 0:
            raise ValueError(f"Found array with 0 {word}(s) (shape={table.shape}) while a minimum of 1 is required by {name}.")
    return table


def _check_complex(dtype: np.dtype[Any]) -> None:
    if dtype.kind == "c":
        raise ValueError(f"Complex data not supported: X has dtype {dtype}; pass X.real, X.imag or abs(X)")


def _check_dimensions(table: Array, ensure_2d: bool, name: str) -> None:
    if table.ndim > 2:
        raise ValueError(f"Found array with dim {table.ndim}, while dim <= 2 is required by {name}.")
    if table.ndim < (2 if ensure_2d else 1):
        raise ValueError(
            f"Expected 2D array, got {table.ndim}D array instead.\nReshape your data using array.reshape(-1, 1) if it has a single "
            "feature or array.reshape(1, -1) if it contains a single sample."
        )
