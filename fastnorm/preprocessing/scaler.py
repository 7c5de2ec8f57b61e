"""What scalers have in common: how they learn, how they transform, and what they read besides tables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops import sparse
from fastnorm.plan.intake import is_float, is_stream
from fastnorm.preprocessing.blocks import row_blocks, transformed
from fastnorm.preprocessing.door import (
    in_place,
    is_sparse,
    refuse_infinity,
    table_of,
    transformed_table,
    untouched_on_error,
    weights_of,
)
from fastnorm.preprocessing.scikit import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, check_is_fitted
from fastnorm.runtime.progress import tracked

Array = NDArray[Any]
NOTHING = np.zeros(())  # to subtract
Fill = Callable[[Array, Array], None]  # from rows of a table to the rows of its result


class Scaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Reads tables and streams of tables; a class of its own says what is learned from a table and how it is applied."""

    _formats: ClassVar[tuple[str, ...]] = ()  # of sparse matrices that it takes
    _first_transform: ClassVar[Any] = None  # of the class of this library, not of one derived from it
    _learned: ClassVar[tuple[str, ...]] = ()  # attributes, all of which or none are there
    fit: Any
    transform: Any
    merge: Any
    n_features_in_: int
    feature_names_in_: Array
    copy: bool

    def _check_parameters(self) -> None:
        raise NotImplementedError

    def _absorb(self, table: Any, weights: Array | None) -> None:
        """Add what a table tells to what is known."""
        raise NotImplementedError

    def _refuse_sparse(self) -> None:
        """Raises where the parameters exclude a sparse matrix."""

    # Learning.

    def _fit(self, X: Any, sample_weight: Any, progress: bool, anew: bool) -> Any:
        with untouched_on_error(self):
            self._check_parameters()
            if anew:
                for name in self._learned:
                    vars(self).pop(name, None)
            if is_stream(X):
                self._learn_stream(X, sample_weight, progress)
            else:
                self._learn(X, sample_weight, progress)
        return self

    def _learn_stream(self, X: Any, sample_weight: Any, progress: bool) -> None:
        if sample_weight is not None:
            raise ValueError("sample_weight cannot be dealt to the batches of a stream; call partial_fit with each batch and its weights")
        first = True
        for batch in tracked(X, None, "fit", progress):
            self._learn(batch, None, False, first)
            first = False
        if first:
            raise ValueError("X is a stream without a batch; pass one that has not been read yet")

    def _is_new(self) -> bool:
        return not hasattr(self, "n_samples_seen_")

    def _learn(self, X: Any, sample_weight: Any, progress: bool, first: bool = True) -> None:
        if is_sparse(X):
            self._refuse_sparse()
        table = table_of(self, X, self._formats, reset=first and self._is_new())
        weights = weights_of(sample_weight, table)
        if is_sparse(table):
            self._absorb(sparse.summed(table), weights)
            return
        for rows in row_blocks(table, "fit", progress):
            self._absorb(table[rows], None if weights is None else weights[rows])

    def _check_other(self, other: Any) -> None:
        """Raises TypeError, NotFittedError, ValueError unless what `other` has seen can be joined to what this has."""
        if not isinstance(other, type(self)) and not isinstance(self, type(other)):
            found = type(other)
            raise TypeError(f"other must be a {type(self).__name__} of this library, got a {found.__name__} of {found.__module__}")
        check_is_fitted(other)
        if self._is_new():
            return
        if self.n_features_in_ != other.n_features_in_:
            raise ValueError(f"other has {other.n_features_in_} features, but this {type(self).__name__} has {self.n_features_in_}")
        ours, theirs = getattr(self, "feature_names_in_", None), getattr(other, "feature_names_in_", None)
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            raise ValueError(f"other was fitted with the features {list(theirs)}, but this {type(self).__name__} with {list(ours)}")

    def _adopt_features(self, other: Any) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            if not hasattr(self, name) and hasattr(other, name):
                setattr(self, name, getattr(other, name))

    # Transforming.

    def fit_transform(self, X: Any, y: Any = None, *, out: Array | None = None, progress: bool = False, **fit_params: Any) -> Any:
        """Fit to X, then transform it: one pass less than the two calls.

        Parameters
        ----------
        X, y
            As of `fit`; no stream, which `fit` would use up.
        out : array of the shape of X, optional
            Receives the result; may be X.
        progress : bool
            Whether to show a progress bar.
        **fit_params
            For `fit`, such as ``sample_weight``.

        Returns
        -------
        As of `transform`
        """
        if is_stream(X):
            raise TypeError("X is a stream, which may be read only once; call fit with it, then transform with another of the same tables")
        options: dict[str, Any] = {"progress": progress} if progress else {}
        self.fit(X, y, **options, **fit_params)
        if type(self).transform is not type(self)._first_transform:
            return self.transform(X, **options, **({} if out is None else {"out": out}))
        return self._transform(X, None, out, progress, is_finite=True)

    def _transform(self, X: Any, copy: bool | None, out: Any, progress: bool, is_finite: bool = False) -> Any:
        check_is_fitted(self)
        if is_sparse(X):
            self._refuse_sparse()
        table = table_of(self, X, self._formats, reset=False)
        return self._apply(X, table, copy, out, progress, is_finite, inverse=False)

    def _inverse_transform(self, X: Any, copy: bool | None, out: Any, progress: bool) -> Any:
        check_is_fitted(self)
        if is_stream(X):
            raise TypeError("X is a stream, which fit and transform take, but inverse_transform does not; pass one table after the other")
        if is_sparse(X):
            self._refuse_sparse()
        table = transformed_table(self, X, self._formats)
        return self._apply(X, table, copy, out, progress, False, inverse=True)

    def _apply(self, X: Any, table: Any, copy: bool | None, out: Any, progress: bool, is_finite: bool, inverse: bool) -> Any:
        copy = self.copy if copy is None else copy
        if not is_finite:
            self._check_values(table)
        if is_sparse(table):
            return self._apply_sparse(table, copy, out, inverse)
        if out is None and not copy:
            out = in_place(X, table)
        fill = self._filling(inverse)
        return transformed(table, out, progress, lambda rows, target: fill(table[rows], target))

    def _check_values(self, table: Any) -> None:
        refuse_infinity(table, type(self).__name__)

    def _filling(self, inverse: bool) -> Fill:
        raise NotImplementedError

    def _apply_sparse(self, table: Any, copy: bool, out: Any, inverse: bool) -> Any:
        target = sparse_target(table, copy, out)
        factor = self._sparse_factor(inverse)
        if factor is None:
            if target is not table:
                target.data[...] = table.data
        else:
            sparse.scale_columns(table, factor, target)
        return target

    def _sparse_factor(self, inverse: bool) -> Array | None:
        raise NotImplementedError


def sparse_target(table: Any, copy: bool, out: Any) -> Any:
    """The matrix that receives the result. Raises TypeError if there is an array for it."""
    if out is not None:
        raise TypeError("out is for dense X; pass copy=False to scale a sparse X in place")
    return table if not copy and table.data.flags.writeable else sparse.like(table)


def nothing(result: Any) -> None:
    """What was written is all that is wanted."""


def same(a: Array, b: Array) -> bool:
    """Whether arrays are equal, NaN to NaN; without NaN, which are rare, a fifth of the time."""
    return a.shape == b.shape and (bool((a == b).all()) or np.array_equal(a, b, equal_nan=True))


def reciprocal(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.asarray(values, np.float64))


def eps_of(dtype: Any) -> float:
    """Of a float dtype, in which scikit-learn compares spreads to nothing."""
    return float(np.finfo(dtype if np.dtype(dtype).kind == "f" else np.float32).eps)


def exact_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Of extremes of a table: its own, which scikit-learn's attributes have, too."""
    if dtype.kind == "f":
        return dtype.newbyteorder("=")
    return np.dtype(np.float32 if is_float(dtype) else np.float64)


def nothing_below(eps: float) -> float:
    """What scikit-learn takes for next to nothing."""
    return 10.0 * eps


def without_nothing(spread: Any, eps: float) -> Array:
    """Spreads to divide by: 1 in place of those that are next to nothing."""
    return np.where(np.asarray(spread) < nothing_below(eps), 1.0, spread)


Class = TypeVar("Class", bound=type[Scaler])


def takes_streams(cls: Class) -> Class:
    """Let `transform` turn a stream of tables into a generator of results.

    Around the method as scikit-learn has wrapped it, which would take the generator for a table and make a frame of it.
    """
    of_table = cls.transform

    @functools.wraps(of_table)
    def transform(self: Any, X: Any, *arguments: Any, **options: Any) -> Any:
        if not is_stream(X):
            return of_table(self, X, *arguments, **options)
        check_is_fitted(self)
        if options.get("out") is not None:
            raise TypeError("out is for one array, but X is a stream; copy each batch of the result to where it belongs")
        batches = tracked(X, None, "transform", bool(options.pop("progress", False)))
        return _each(of_table, self, batches, arguments, options)

    cls.transform = transform
    cls._first_transform = transform
    return cls


def _each(method: Any, scaler: Any, batches: Iterator[Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Iterator[Any]:
    for batch in batches:
        yield method(scaler, batch, *arguments, **options)
