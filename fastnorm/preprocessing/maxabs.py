"""Scaling of every feature by its largest magnitude."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops import sparse
from fastnorm.ops.reduction import extremes
from fastnorm.ops.scaling import rescale
from fastnorm.preprocessing.door import check_flags, is_sparse, refuse_infinity, untouched_on_error
from fastnorm.preprocessing.scaler import NOTHING, Fill, Scaler, eps_of, exact_dtype, nothing, reciprocal, takes_streams, without_nothing

Array = NDArray[Any]


@takes_streams
class MaxAbsScaler(Scaler):
    """Divide features by their largest magnitude. Zeros stay zeros, and sparse matrices sparse.

    As scikit-learn's ``MaxAbsScaler``, with a few more abilities. NaN are left out of the maximum and stay NaN.

    Parameters
    ----------
    copy : bool
        If False, `transform` and `inverse_transform` write to X, where it has a float dtype and is writable.
    clip : bool
        Whether to clip what lies outside of [-1, 1].

    Attributes
    ----------
    max_abs_ : array (n_features,)
        Of the dtype of X: exact.
    scale_ : float64 array (n_features,)
        The same, but 1 for a feature of zeros.
    n_samples_seen_ : int
    n_features_in_ : int
    feature_names_in_ : array of str, if X had names

    Notes
    -----
    Source of the transformation: decimal scaling, Han, Kamber, Pei 2011, section 3.5.2, without its powers of ten.

    Examples
    --------
    >>> from fastnorm.preprocessing import MaxAbsScaler
    >>> scaler = MaxAbsScaler().fit([[1.0, -4.0], [2.0, 0.0]])
    >>> scaler.max_abs_
    array([2., 4.])
    >>> scaler.transform([[1.0, 1.0]])
    array([[0.5 , 0.25]])
    """

    _formats: ClassVar[tuple[str, ...]] = ("csr", "csc")
    _learned: ClassVar[tuple[str, ...]] = ("n_samples_seen_", "max_abs_", "scale_")
    n_samples_seen_: int
    max_abs_: Array
    scale_: Array

    def __init__(self, *, copy: bool = True, clip: bool = False) -> None:
        self.copy = copy
        self.clip = clip

    def fit(self, X: Any, y: Any = None, *, progress: bool = False) -> MaxAbsScaler:
        """Learn the largest magnitudes of X and forget what was learned before.

        Parameters
        ----------
        X : array_like, frame or sparse matrix (n_samples, n_features), or an iterable of such batches
            A memory-mapped array is read in place.
        y : ignored
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        The scaler

        Raises
        ------
        ValueError, TypeError
            The scaler is as it was before.
        """
        return self._fit(X, None, progress, anew=True)  # type: ignore[no-any-return]

    def partial_fit(self, X: Any, y: Any = None, *, progress: bool = False) -> MaxAbsScaler:
        """Learn from further samples. Arguments, result and errors as of `fit`."""
        return self._fit(X, None, progress, anew=False)  # type: ignore[no-any-return]

    def transform(self, X: Any, *, out: Array | None = None, progress: bool = False) -> Any:
        """Divide by the scale.

        Parameters
        ----------
        X : array_like, frame or sparse matrix (n_samples, n_features), or an iterable of such batches
        out : array (n_samples, n_features) of a float dtype, any strides, optional
            Receives the result; may be X.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        array or matrix like X, of its float dtype, float64 for integers; a generator of them for an iterable

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before anything is written.
        """
        return self._transform(X, None, out, progress)

    def inverse_transform(self, X: Any, *, out: Array | None = None, progress: bool = False) -> Any:
        """Multiply by the scale. Arguments, result and errors as of `transform`, but for iterables."""
        return self._inverse_transform(X, None, out, progress)

    def merge(self, other: MaxAbsScaler) -> MaxAbsScaler:
        """Take in everything that `other` has seen, as if it had been passed here, and leave `other` alone.

        Raises
        ------
        TypeError, NotFittedError
            If `other` is no MaxAbsScaler, or has seen nothing.
        ValueError
            If it has other features.
        """
        self._check_other(other)
        with untouched_on_error(self):
            self._adopt_features(other)
            self._join(other.max_abs_, other.n_samples_seen_)
        return self

    def _check_parameters(self) -> None:
        check_flags(type(self).__name__, copy=self.copy, clip=self.clip)

    def _absorb(self, table: Any, weights: Array | None) -> None:
        if is_sparse(table):
            largest = sparse.column_largest(table)
        else:
            bounds = extremes(table, (0,))
            largest = np.maximum(np.abs(bounds.low), np.abs(bounds.high))
        if np.isinf(largest).any():
            refuse_infinity(table, type(self).__name__)
        self._join(largest.astype(exact_dtype(table.dtype)), table.shape[0])

    def _join(self, largest: Array, n_samples: int) -> None:
        if not self._is_new():
            largest = np.fmax(self.max_abs_, largest)
            n_samples += self.n_samples_seen_
        self.n_samples_seen_, self.max_abs_ = n_samples, largest
        self.scale_ = without_nothing(largest.astype(np.float64), eps_of(largest.dtype))

    def _filling(self, inverse: bool) -> Fill:
        factor = np.asarray(self.scale_, np.float64) if inverse else reciprocal(self.scale_)
        limits = (-1.0, 1.0) if self.clip and not inverse else None
        return lambda rows, out: nothing(rescale(rows, (0,), NOTHING, factor, limits=limits, out=out))

    def _sparse_factor(self, inverse: bool) -> Array | None:
        return np.asarray(self.scale_, np.float64) if inverse else reciprocal(self.scale_)

    def _apply_sparse(self, table: Any, copy: bool, out: Any, inverse: bool) -> Any:
        clips = self.clip and not inverse
        result = super()._apply_sparse(sparse.summed(table) if clips else table, copy, out, inverse)
        if clips:
            np.clip(result.data, -1.0, 1.0, out=result.data)
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
