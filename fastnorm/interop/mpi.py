"""MPI: statistics over all ranks."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from fastnorm.interop.mpi_batch import batch_norm_backward, batch_norm_train
from fastnorm.interop.mpi_exchange import union
from fastnorm.preprocessing.parts import adopt, fitted
from fastnorm.preprocessing.scaler import Scaler
from fastnorm.state.moments import RunningMoments

__all__ = ["batch_norm_backward", "batch_norm_train", "fit", "merge_moments"]
Learning = TypeVar("Learning", bound=Scaler)


class _Prepared(NamedTuple):
    agreed: dict[str, Any]
    part: Any


def merge_moments(moments: RunningMoments, comm: Any = None) -> RunningMoments:
    """What all ranks have seen, together.

    Collective: every rank of `comm` has to call it.

    Parameters
    ----------
    moments : RunningMoments
        Of this rank, perhaps without a batch; left alone, so that it may go on and be merged again. `axis` and `nan_policy` have to
        be the same on all ranks.
    comm : mpi4py.MPI.Intracomm, optional
        None means all ranks: ``MPI.COMM_WORLD``.

    Returns
    -------
    RunningMoments
        New, with the same bits on every rank.

    Raises
    ------
    ValueError, TypeError
        On every rank, if on any.

    Notes
    -----
    One exchange of 48 bytes per statistic, joined in the order of ranks. Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> m = fn.RunningMoments(axis=0)
    >>> m.update(np.array([[1.0], [3.0]]))
    >>> fn.mpi.merge_moments(m).mean  # one rank
    array([2.])
    """

    def prepare() -> _Prepared:
        if not isinstance(moments, RunningMoments):
            raise TypeError(f"moments must be a RunningMoments, got {type(moments).__name__}")
        agreed = {"call": "merge_moments", "axis of moments": moments.axis, "nan_policy of moments": moments.nan_policy}
        return _Prepared(agreed, moments + RunningMoments(moments.axis, nan_policy=moments.nan_policy))

    total: RunningMoments = union(comm, prepare, lambda a, b: a + b)[1]
    return total


def fit(scaler: Learning, X: Any, *, sample_weight: Any = None, comm: Any = None) -> Learning:
    """Fit a scaler to the samples of all ranks.

    Collective: every rank of `comm` has to call it, with a scaler of the same parameters.

    Parameters
    ----------
    scaler : StandardScaler, MinMaxScaler or MaxAbsScaler of `fastnorm.preprocessing`
        Forgets what it has learned before.
    X : array_like, frame or sparse matrix (n_samples, n_features), or an iterable of such batches
        The samples of this rank; an array of shape (0, n_features) if it has none.
    sample_weight : array_like (n_samples,), optional
        Of the samples of this rank, for a StandardScaler.
    comm : mpi4py.MPI.Intracomm, optional
        None means all ranks: ``MPI.COMM_WORLD``.

    Returns
    -------
    The scaler, which has learned the same bits on every rank

    Raises
    ------
    ValueError, TypeError
        On every rank, if on any; the scalers are as they were before.

    Notes
    -----
    One exchange, joined by the `merge` of the scaler in the order of ranks. Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> scaler = fn.preprocessing.StandardScaler()
    >>> fn.mpi.fit(scaler, np.array([[1.0], [3.0]])).mean_  # one rank
    array([2.])
    """

    def prepare() -> _Prepared:
        if not isinstance(scaler, Scaler) or not hasattr(scaler, "merge"):
            raise TypeError(f"scaler must be one of fastnorm.preprocessing that learns, got {type(scaler).__name__}")
        parameters = scaler.get_params(deep=False)
        part = fitted(type(scaler), parameters, X, sample_weight)
        return _Prepared({"call": "fit", "scaler": type(scaler).__name__, "parameters of the scaler": parameters}, part)

    def join(a: Any, b: Any) -> Any:
        return b if a is None else a if b is None else a.merge(b)

    total = union(comm, prepare, join)[1]
    if total is None:
        raise ValueError("X has no sample on any rank, or none with a weight; pass at least one sample")
    adopt(scaler, total, anew=True)
    return scaler
