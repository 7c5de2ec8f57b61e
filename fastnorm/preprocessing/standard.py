"""Standardization: mean 0 and variance 1 of every feature."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops import sparse
from fastnorm.ops.reduction import reduce_moments
from fastnorm.ops.scaling import rescale
from fastnorm.preprocessing.door import check_flags, is_sparse, refuse_infinity, untouched_on_error
from fastnorm.preprocessing.scaler import NOTHING, Fill, Scaler, nothing, reciprocal, same, takes_streams

Array = NDArray[Any]
_EPS, _EPS_OF_FLOAT32 = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)
# Of float32: squares below are subnormal or nothing; columns of means beyond vary more, or not at all.
_LEAST_SQUARE, _NEAR_ZERO = 1e-36, 1e-9


@takes_streams
class StandardScaler(Scaler):
    """Standardize features: subtract the mean, divide by the standard deviation.

    As scikit-learn's ``StandardScaler``, with a few more abilities. NaN are left out of the statistics and stay NaN.

    Parameters
    ----------
    copy : bool
        If False, `transform` and `inverse_transform` write to X, where it has a float dtype and is writable.
    with_mean : bool
        Whether to subtract the mean. Must be False for sparse X, which would not stay sparse.
    with_std : bool
        Whether to divide by the standard deviation.

    Attributes
    ----------
    mean_, var_ : float64 array (n_features,) or None
        Population variance. Both None with neither `with_mean` nor `with_std`, `var_` without `with_std`.
    scale_ : float64 array (n_features,) or None
        Square root of `var_`; 1 for a feature whose variance is no more than the rounding errors of a constant.
    n_samples_seen_ : int, float or array (n_features,)
        Samples that are not NaN; an array where features differ, float with `sample_weight`.
    n_features_in_ : int
    feature_names_in_ : array of str, if X had names

    Notes
    -----
    Statistics are computed in tiles and merged in float64, whatever the dtype of X, which results keep. Source of
    the merge and of the rule for constant features: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> from fastnorm.preprocessing import StandardScaler
    >>> scaler = StandardScaler().fit([[0.0, 1.0], [2.0, 5.0]])
    >>> scaler.mean_, scaler.scale_
    (array([1., 3.]), array([1., 2.]))
    >>> scaler.transform([[3.0, 3.0]])
    array([[2., 0.]])
    """

    _formats: ClassVar[tuple[str, ...]] = ("csr", "csc")
    _learned: ClassVar[tuple[str, ...]] = ("n_samples_seen_", "mean_", "var_", "scale_", "_exact_mean")
    n_samples_seen_: Any
    mean_: Array | None
    var_: Array | None
    scale_: Array | None
    _exact_mean: Array  # (2, n_features): mean, and what it lost by rounding

    def __init__(self, *, copy: bool = True, with_mean: bool = True, with_std: bool = True) -> None:
        self.with_mean = with_mean
        self.with_std = with_std
        self.copy = copy

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, progress: bool = False) -> StandardScaler:
        """Learn mean and variance of X and forget what was learned before.

        Parameters
        ----------
        X : array_like, frame or sparse matrix (n_samples, n_features), or an iterable of such batches
            A memory-mapped array is read in place.
        y : ignored
        sample_weight : array_like (n_samples,), optional
            At least 0; not with a stream of batches.
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
        return self._fit(X, sample_weight, progress, anew=True)  # type: ignore[no-any-return]

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, progress: bool = False) -> StandardScaler:
        """Learn from further samples. Arguments, result and errors as of `fit`."""
        return self._fit(X, sample_weight, progress, anew=False)  # type: ignore[no-any-return]

    def transform(self, X: Any, copy: bool | None = None, *, out: Array | None = None, progress: bool = False) -> Any:
        """Subtract the mean and divide by the scale.

        Parameters
        ----------
        X : array_like, frame or sparse matrix (n_samples, n_features), or an iterable of such batches
        copy : bool, optional
            In place of the parameter of the scaler.
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
        return self._transform(X, copy, out, progress)

    def inverse_transform(self, X: Any, copy: bool | None = None, *, out: Array | None = None, progress: bool = False) -> Any:
        """Multiply by the scale and add the mean. Arguments, result and errors as of `transform`, but for iterables."""
        return self._inverse_transform(X, copy, out, progress)

    def merge(self, other: StandardScaler) -> StandardScaler:
        """Take in everything that `other` has seen, as if it had been passed here, and leave `other` alone.

        Raises
        ------
        TypeError, NotFittedError
            If `other` is no StandardScaler, or has seen nothing.
        ValueError
            If it has other features, or not the statistics that are needed here.
        """
        self._check_other(other)
        if other.var_ is None and self.with_std:
            raise ValueError("other was fitted with with_std=False and knows no variance; fit it with with_std=True")
        if other.mean_ is None and self.with_mean:
            raise ValueError("other was fitted with with_mean=False and with_std=False and knows no mean; fit it with one of them")
        with untouched_on_error(self):
            self._adopt_features(other)
            self._join(other._moments(), _is_whole(other.n_samples_seen_))
        return self

    def _check_parameters(self) -> None:
        check_flags(type(self).__name__, copy=self.copy, with_mean=self.with_mean, with_std=self.with_std)

    def _refuse_sparse(self) -> None:
        if self.with_mean:
            raise ValueError(
                "Cannot center sparse matrices: pass `with_mean=False` instead, or X.toarray() where that fits in memory. "
                "See docstring for motivation and alternatives."
            )

    def _absorb(self, table: Any, weights: Array | None) -> None:
        moments = sparse.column_moments(table, weights) if is_sparse(table) else _dense_moments(table, weights)
        finite = np.isfinite(moments).all(axis=0)
        # Elements of weight 0 are in no sum: nobody has looked at them.
        if not finite.all() or (weights is not None and not weights.all()):
            refuse_infinity(table, type(self).__name__)
        if not is_sparse(table) and table.itemsize < 8:
            for column in np.flatnonzero(~finite | _squares_vanish(moments)):  # or are too large: standard deviations beyond 1e15
                wide = table[:, [column]].astype(np.float64)
                moments[:, [column]] = _dense_moments(wide, None if weights is None else weights.astype(np.float64))
        if weights is not None:  # in float32 their sum may depend on the column
            total = weights.sum(dtype=np.float64)
            moments[0, np.abs(moments[0] - total) <= _EPS_OF_FLOAT32 * total] = total
        self._join(moments, weights is None)

    def _check_known(self) -> None:
        """Raises ValueError if parameters that were changed since `fit` ask for what it did not learn."""
        for flag, known in (("with_mean", self.mean_), ("with_std", self.scale_)):
            if getattr(self, flag) and known is None:
                what = flag.removeprefix("with_")
                raise ValueError(f"{flag} is True, but this StandardScaler was fitted with {flag}=False and knows no {what}; fit it anew")

    def _moments(self) -> Array:
        """Of what has been seen: count, mean, its low part, second central moment (4, n_features)."""
        moments = np.zeros((4, self.n_features_in_))
        moments[0] = self.n_samples_seen_
        known = moments[0] > 0.0
        if self.mean_ is not None:
            moments[1] = np.where(known, self.mean_, 0.0)
            moments[2] = np.where(known, self._low(), 0.0)
        if self.var_ is not None:
            moments[3] = np.where(known, self.var_ * moments[0], 0.0)
        return moments

    def _low(self) -> Array:
        """What the rounding of the mean lost, unless the mean has been changed by hand."""
        exact = getattr(self, "_exact_mean", None)
        mean = np.asarray(self.mean_)
        return exact[1] if exact is not None and same(exact[0], mean) else np.zeros(mean.shape)

    def _join(self, moments: Array, is_whole: bool) -> None:
        if not self._is_new():
            self._check_known()
            is_whole = is_whole and _is_whole(self.n_samples_seen_)
            total = self._moments()
            kernels.moments.merge_into(total, moments)
            moments = total
        count, m2 = moments[0], moments[3]
        known = count > 0.0
        mean = np.where(known, moments[1] + moments[2], np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            var = np.where(known, m2 / count, np.nan)
        self._exact_mean = np.stack([mean, np.where(known, moments[2] - (mean - moments[1]), 0.0)])
        seen = count.astype(np.int64) if is_whole else count.copy()
        self.n_samples_seen_ = seen if (seen != seen[0]).any() else seen[0].item()
        self.mean_ = mean if self.with_mean or self.with_std else None
        self.var_ = var if self.with_std else None
        self.scale_ = _scale_of(var, mean, count) if self.with_std else None

    def _filling(self, inverse: bool) -> Fill:
        self._check_known()
        low = self._low() if self.with_mean else None
        mean = self.mean_ if self.with_mean else None
        scale = self.scale_ if self.with_std else None
        centre = NOTHING if inverse or mean is None else mean
        factor: Any = np.ones(()) if scale is None else scale if inverse else reciprocal(scale)
        if inverse:
            return lambda rows, out: nothing(rescale(rows, (0,), centre, factor, shift=mean, out=out))
        return lambda rows, out: nothing(rescale(rows, (0,), centre, factor, low=low, out=out))

    def _sparse_factor(self, inverse: bool) -> Array | None:
        self._check_known()
        if self.scale_ is None:
            return None
        return np.asarray(self.scale_, np.float64) if inverse else reciprocal(self.scale_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = not self.with_mean
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _squares_vanish(moments: Array) -> Array:
    """Whether squares of distances are no ordinary float32, of columns so near zero that they may vary all the same."""
    count, mean, _, m2 = moments
    return np.asarray((m2 < count * _LEAST_SQUARE) & (mean != 0.0) & (np.abs(mean) < _NEAR_ZERO))


def _is_whole(count: Any) -> bool:
    return np.asarray(count).dtype.kind in "iu"


def _dense_moments(table: Array, weights: Array | None) -> Array:
    """Of the columns, without NaN: count, mean, what the mean lost by rounding, second central moment."""
    spread = None if weights is None else np.broadcast_to(weights[:, None], table.shape)
    return reduce_moments(table, (0,), spread, omit=True).rows()


def _scale_of(var: Array, mean: Array, count: Array) -> Array:
    """Standard deviations, and 1 where the variance is within the rounding errors of a constant feature."""
    with np.errstate(over="ignore"):
        bound = count * _EPS * var + (count * mean * _EPS) ** 2
    return np.where(var <= bound, 1.0, np.sqrt(var))
