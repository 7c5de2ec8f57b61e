"""Dask: statistics and scalers of arrays and data frames that are larger than memory, on one machine or many."""

from __future__ import annotations

from typing import Any

from fastnorm import preprocessing
from fastnorm.interop.dask_collections import is_lazy
from fastnorm.interop.dask_scalers import learn, refuse, takes_collections
from fastnorm.interop.dask_statistics import mean_var

__all__ = ["MinMaxScaler", "StandardScaler", "mean_var"]


@takes_collections
class StandardScaler(preprocessing.StandardScaler):
    """Standardize the features of Dask arrays and data frames: subtract the mean, divide by the standard deviation.

    A `fastnorm.preprocessing.StandardScaler`, with its parameters, attributes and rules, that takes Dask's collections, too:
    `fit` and `partial_fit` compute, in one pass, what their chunks tell; `transform`, `inverse_transform` and
    `fit_transform` return lazy collections, arrays of the same chunks or data frames of the same columns and index.
    Chunks may be of any size, also none or an unknown one, and along both axes.

    Notes
    -----
    Chunks are seen by the scaler of `fastnorm.preprocessing` and joined by its `merge`, neighbours first, in an order that depends on
    the chunks only: the same bits for every scheduler and number of threads.
    Source of the merge: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import dask.array as da, fastnorm as fn
    >>> X = da.arange(6, chunks=2).reshape(3, 2)
    >>> scaler = fn.dask.StandardScaler().fit(X)
    >>> scaler.mean_
    array([2., 3.])
    >>> scaler.transform(X)[1].compute()
    array([0., 0.])
    """

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, progress: bool = False, split_every: int | None = None
    ) -> StandardScaler:
        """Learn mean and variance of X and forget what was learned before.

        Parameters
        ----------
        X : dask array or data frame (n_samples, n_features), or what `fastnorm.preprocessing.StandardScaler` takes
        y : ignored
        sample_weight : array or series (n_samples,) of Dask, or array_like, optional
            At least 0. For chunks of unknown size it has to be chunked as the samples are.
        progress : bool
            Not for Dask's collections, which have progress bars of their own.
        split_every : int, optional
            How many partial results are joined at once, at least 2; 8 if not given.

        Returns
        -------
        The scaler

        Raises
        ------
        ValueError, TypeError
            The scaler is as it was before.
        """
        return self._see(X, y, sample_weight, progress, split_every, anew=True)

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, progress: bool = False, split_every: int | None = None
    ) -> StandardScaler:
        """Learn from further samples. Arguments, result and errors as of `fit`."""
        return self._see(X, y, sample_weight, progress, split_every, anew=False)

    def _see(self, X: Any, y: Any, sample_weight: Any, progress: bool, split_every: int | None, anew: bool) -> StandardScaler:
        if not is_lazy(X):
            of_table = super().fit if anew else super().partial_fit
            of_table(X, y, sample_weight, progress=progress)
            return self
        refuse("progress", progress)
        learn(self, preprocessing.StandardScaler, X, sample_weight, split_every, anew)
        return self


@takes_collections
class MinMaxScaler(preprocessing.MinMaxScaler):
    """Scale the features of Dask arrays and data frames to a range.

    A `fastnorm.preprocessing.MinMaxScaler`, with its parameters, attributes and rules, that takes Dask's collections, too:
    `fit` and `partial_fit` compute, in one pass, what their chunks tell; `transform`, `inverse_transform` and
    `fit_transform` return lazy collections, arrays of the same chunks or data frames of the same columns and index.
    Chunks may be of any size, also none or an unknown one, and along both axes.

    Examples
    --------
    >>> import dask.array as da, fastnorm as fn
    >>> X = da.arange(6, chunks=2).reshape(3, 2)
    >>> scaler = fn.dask.MinMaxScaler().fit(X)
    >>> scaler.data_min_, scaler.data_max_
    (array([0., 1.]), array([4., 5.]))
    >>> scaler.transform(X)[1].compute()
    array([0.5, 0.5])
    """

    def fit(self, X: Any, y: Any = None, *, progress: bool = False, split_every: int | None = None) -> MinMaxScaler:
        """Learn the extremes of X and forget what was learned before.

        Parameters
        ----------
        X : dask array or data frame (n_samples, n_features), or what `fastnorm.preprocessing.MinMaxScaler` takes
        y : ignored
        progress : bool
            Not for Dask's collections, which have progress bars of their own.
        split_every : int, optional
            How many partial results are joined at once, at least 2; 8 if not given.

        Returns
        -------
        The scaler

        Raises
        ------
        ValueError, TypeError
            The scaler is as it was before.
        """
        return self._see(X, y, progress, split_every, anew=True)

    def partial_fit(self, X: Any, y: Any = None, *, progress: bool = False, split_every: int | None = None) -> MinMaxScaler:
        """Learn from further samples. Arguments, result and errors as of `fit`."""
        return self._see(X, y, progress, split_every, anew=False)

    def _see(self, X: Any, y: Any, progress: bool, split_every: int | None, anew: bool) -> MinMaxScaler:
        if not is_lazy(X):
            of_table = super().fit if anew else super().partial_fit
            of_table(X, y, progress=progress)
            return self
        refuse("progress", progress)
        learn(self, preprocessing.MinMaxScaler, X, None, split_every, anew)
        return self
