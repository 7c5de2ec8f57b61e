"""Scaling of every feature to a given range."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops.reduction import extremes
from fastnorm.ops.scaling import rescale
from fastnorm.preprocessing.door import InvalidParameterError, check_flags, refuse_infinity, untouched_on_error
from fastnorm.preprocessing.scaler import (
    NOTHING,
    Fill,
    Scaler,
    eps_of,
    exact_dtype,
    nothing,
    reciprocal,
    same,
    takes_streams,
    without_nothing,
)

Array = NDArray[Any]


@takes_streams
class MinMaxScaler(Scaler):
    """Scale features so that the least is the lower and the largest the upper end of a range.

    As scikit-learn's ``MinMaxScaler``, with a few more abilities. NaN are left out of the extremes and stay NaN.

    Parameters
    ----------
    feature_range : tuple (min, max)
    copy : bool
        If False, `transform` and `inverse_transform` write to X, where it has a float dtype and is writable.
    clip : bool
        Whether to clip what lies outside of the range.

    Attributes
    ----------
    data_min_, data_max_ : array (n_features,)
        Of the dtype of X: exact.
    data_range_, scale_, min_ : float64 array (n_features,)
        A feature without a range has scale ``max - min``. ``X * scale_ + min_`` is the result but for its rounding errors.
    n_samples_seen_ : int
    n_features_in_ : int
    feature_names_in_ : array of str, if X had names

    Notes
    -----
    X is centred before it is scaled: far from zero, ``X * scale_ + min_`` would cancel. Source of the transformation:
    Han, Kamber, Pei 2011, section 3.5.2.

    Examples
    --------
    >>> from fastnorm.preprocessing import MinMaxScaler
    >>> scaler = MinMaxScaler().fit([[-1.0, 2.0], [0.0, 10.0]])
    >>> scaler.data_min_, scaler.data_max_
    (array([-1.,  2.]), array([ 0., 10.]))
    >>> scaler.transform([[-0.5, 18.0]])
    array([[0.5, 2. ]])
    """

    _learned: ClassVar[tuple[str, ...]] = ("n_samples_seen_", "data_min_", "data_max_", "data_range_", "scale_", "min_")
    n_samples_seen_: int
    data_min_: Array
    data_max_: Array
    data_range_: Array
    scale_: Array
    min_: Array

    def __init__(self, feature_range: tuple[float, float] = (0, 1), *, copy: bool = True, clip: bool = False) -> None:
        self.feature_range = feature_range
        self.copy = copy
        self.clip = clip

    def fit(self, X: Any, y: Any = None, *, progress: bool = False) -> MinMaxScaler:
        """Learn the extremes of X and forget what was learned before.

        Parameters
        ----------
        X : array_like or frame (n_samples, n_features), or an iterable of such batches
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

    def partial_fit(self, X: Any, y: Any = None, *, progress: bool = False) -> MinMaxScaler:
        """Learn from further samples. Arguments, result and errors as of `fit`."""
        return self._fit(X, None, progress, anew=False)  # type: ignore[no-any-return]

    def transform(self, X: Any, *, out: Array | None = None, progress: bool = False) -> Any:
        """Scale to the range.

        Parameters
        ----------
        X : array_like or frame (n_samples, n_features), or an iterable of such batches
        out : array (n_samples, n_features) of a float dtype, any strides, optional
            Receives the result; may be X.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        array like X, of its float dtype, float64 for integers; a generator of them for an iterable

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before anything is written.
        """
        return self._transform(X, None, out, progress)

    def inverse_transform(self, X: Any, *, out: Array | None = None, progress: bool = False) -> Any:
        """Scale back to the range of the data. Arguments, result and errors as of `transform`, but for iterables."""
        return self._inverse_transform(X, None, out, progress)

    def merge(self, other: MinMaxScaler) -> MinMaxScaler:
        """Take in everything that `other` has seen, as if it had been passed here, and leave `other` alone.

        Raises
        ------
        TypeError, NotFittedError
            If `other` is no MinMaxScaler, or has seen nothing.
        ValueError
            If it has other features.
        """
        self._check_other(other)
        with untouched_on_error(self):
            self._check_parameters()
            self._adopt_features(other)
            self._join(other.data_min_, other.data_max_, other.n_samples_seen_)
        return self

    def _check_parameters(self) -> None:
        name = type(self).__name__
        check_flags(name, copy=self.copy, clip=self.clip)
        if not isinstance(self.feature_range, tuple) or len(self.feature_range) != 2:
            raise InvalidParameterError(
                f"The 'feature_range' parameter of {name} must be an instance of 'tuple', (min, max). Got {self.feature_range!r} instead."
            )
        if not self.feature_range[0] < self.feature_range[1]:
            raise ValueError(f"Minimum of desired feature range must be smaller than maximum. Got {self.feature_range}.")

    def _refuse_sparse(self) -> None:
        raise TypeError("MinMaxScaler does not support sparse input, which would not stay sparse. Consider using MaxAbsScaler instead.")

    def _absorb(self, table: Array, weights: Array | None) -> None:
        low, high, _ = extremes(table, (0,))
        if np.isinf(low).any() or np.isinf(high).any():
            refuse_infinity(table, type(self).__name__)
        kind = exact_dtype(table.dtype)
        self._join(low.astype(kind), high.astype(kind), table.shape[0])

    def _join(self, low: Array, high: Array, n_samples: int) -> None:
        if not self._is_new():
            low, high = np.fmin(self.data_min_, low), np.fmax(self.data_max_, high)
            n_samples += self.n_samples_seen_
        least, largest = self.feature_range
        self.n_samples_seen_, self.data_min_, self.data_max_ = n_samples, low, high
        self.data_range_ = high.astype(np.float64) - low.astype(np.float64)
        self.scale_ = (float(largest) - float(least)) / without_nothing(self.data_range_, eps_of(low.dtype))
        self.min_ = self._min_as_fitted()

    def _min_as_fitted(self) -> Array:
        return np.asarray(float(self.feature_range[0]) - np.asarray(self.data_min_, np.float64) * self.scale_)

    def _filling(self, inverse: bool) -> Fill:
        centre: Any = np.asarray(self.data_min_, np.float64)
        shift: Any = np.float64(self.feature_range[0])
        if not same(np.asarray(self.min_), self._min_as_fitted()):  # changed by hand
            centre, shift = NOTHING, np.asarray(self.min_, np.float64)
        elif not inverse and (self.data_range_ > np.finfo(exact_dtype(self.data_min_.dtype)).max).any():
            centre, shift = NOTHING, self._min_as_fitted()  # columns whose ends are farther apart than the largest number
        if inverse:
            gain = reciprocal(self.scale_)
            return lambda rows, out: nothing(rescale(rows, (0,), shift, gain, shift=centre, out=out))
        factor = np.asarray(self.scale_, np.float64)
        limits = (float(self.feature_range[0]), float(self.feature_range[1])) if self.clip else None
        return lambda rows, out: nothing(rescale(rows, (0,), centre, factor, shift=shift, limits=limits, out=out))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
