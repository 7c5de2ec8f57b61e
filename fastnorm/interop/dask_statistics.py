"""Mean and variance of a Dask array, lazily, in one pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from fastnorm.interop.dask_collections import array_of, check_split_every, in_order, is_unknown
from fastnorm.ops.pooling import Pool, pooled
from fastnorm.ops.statistics import MeanVar, weights_like
from fastnorm.plan.intake import as_array, check_nan_policy, normalize_axes, number

Array = NDArray[Any]
_BOTH = np.dtype([("mean", np.float64), ("var", np.float64)])


def mean_var(
    a: Any,
    axis: Any = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    nan_policy: str = "propagate",
    weights: Any = None,
    split_every: int | None = None,
) -> MeanVar:
    """Mean and variance over axes of a Dask collection, lazily and in one pass.

    Parameters
    ----------
    a : dask array, data frame or series
        Of any number of dimensions and any chunks, also empty ones and those of unknown size.
    axis : None, int or tuple of int
        The axes reduced over; None means all.
    ddof : number
        The variance has ``n - ddof`` in the denominator, with weights ``sum(weights) - ddof``.
    keepdims : bool
        Whether reduced axes stay with length 1.
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN does: make its statistic NaN, count as absent, or raise ValueError when computed.
    weights : dask array or array_like, optional
        Not negative; of the shape of `a`, or what broadcasts to it, or one per index of `axis`, if that is one axis. For chunks of
        unknown size it has to be chunked as they are.
    split_every : int, optional
        How many partial results are joined at once, at least 2; 8 if not given.

    Returns
    -------
    mean, var : float64 dask array
        Of the shape of the kept axes, chunked as they are. ``dask.compute(mean, var)`` reads `a` once for both.
        NaN, without a warning, where there are no elements, or no more than `ddof`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        Of weights that are negative or not finite when computed.

    Notes
    -----
    The moments of chunks are those of `fastnorm.mean_var`, joined by its merge, neighbours first, in an order that depends
    on the chunks only: the same bits for every scheduler and number of threads.
    Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import dask, dask.array as da, fastnorm as fn
    >>> a = da.arange(8, chunks=3).reshape(4, 2).astype("f4")
    >>> mean, var = fn.dask.mean_var(a, axis=0)
    >>> dask.compute(mean, var)
    (array([3., 4.]), array([5., 5.]))
    """
    check_nan_policy(nan_policy)
    ddof = number("ddof", ddof, -np.inf, np.inf, "a number; pass for example 1")
    split_every = check_split_every(split_every)
    a = array_of("a", a, "fastnorm.mean_var")
    as_array("a", a._meta)  # raises for dtypes without real float arithmetic
    axes = normalize_axes(axis, a.ndim)
    indices = tuple(range(a.ndim))
    given, along, aligned = _weights(a, axes, weights)
    pools = da.blockwise(
        _pool_of, indices, a, indices, *given, axes=axes, nan_policy=nan_policy, along=along, align_arrays=aligned,
        adjust_chunks=dict.fromkeys(axes, _one), dtype=object, meta=np.empty((0,) * a.ndim, object),
    )  # fmt: skip
    kept = a.ndim if keepdims else a.ndim - len(axes)
    both = da.reduction(
        pools, _as_it_is, functools.partial(_finished, ddof=ddof), axis=axes, keepdims=bool(keepdims), combine=_joined, concatenate=False,
        dtype=_BOTH, meta=np.empty((0,) * kept, _BOTH), split_every=split_every,
    )  # fmt: skip
    fields = (both.map_blocks(_field, name, dtype=np.float64, meta=np.empty((0,) * kept)) for name in MeanVar._fields)
    return MeanVar(*fields)


def _weights(a: Any, axes: tuple[int, ...], weights: Any) -> tuple[tuple[Any, ...], int | None, bool]:
    """Weights and their indices for `blockwise`; the axis that they belong to, if it is one; whether chunks can be aligned."""
    if weights is None:
        return (), None, True
    given = weights if isinstance(weights, da.Array) else da.asarray(as_array("weights", weights))
    as_array("weights", given._meta)
    unknown = is_unknown(a.shape) or is_unknown(given.shape)
    single = given.ndim == 1 and len(axes) == 1 and (unknown or given.shape[0] == a.shape[axes[0]])
    indices = axes if single else tuple(range(a.ndim - given.ndim, a.ndim))
    sizes = tuple(a.shape[k] for k in indices if k >= 0)
    fits = len(sizes) == given.ndim and (unknown or all(n in (1, size) for n, size in zip(given.shape, sizes, strict=True)))
    if fits and unknown:
        fits = all(n == 1 or m == a.numblocks[k] for k, n, m in zip(indices, given.shape, given.numblocks, strict=True))
    if not fits:
        raise ValueError(
            f"weights has shape {given.shape} in {given.numblocks} chunks but a has {a.shape} in {a.numblocks}; pass weights that "
            "broadcast to it, or one for each index of axis, and chunked alike where sizes are unknown"
        )
    return (given, indices), axes[0] if single else None, not unknown


def _one(size: float) -> int:
    return 1


def _pool_of(block: Any, weights: Any = None, *, axes: tuple[int, ...], nan_policy: str, along: int | None) -> Pool:
    array = in_order(as_array("a chunk of a", block))
    if along is not None:
        weights = np.asarray(weights).reshape([-1 if k == along else 1 for k in range(array.ndim)])
    return pooled(array, axes, weights_like(array, axes, weights), nan_policy)


def _as_it_is(pool: Any, axis: Any, keepdims: bool) -> Any:
    return pool


def _pools(parts: Any) -> Iterator[Pool]:
    if isinstance(parts, list):
        for part in parts:
            yield from _pools(part)
    else:
        yield parts


def _joined(parts: Any, axis: Any, keepdims: bool) -> Pool:
    return functools.reduce(Pool.joined, _pools(parts))


def _finished(parts: Any, axis: tuple[int, ...], keepdims: bool, ddof: float) -> Array:
    pool = _joined(parts, axis, keepdims)
    both = np.empty(pool.shape, _BOTH)
    both["mean"], both["var"] = pool.mean, pool.variance(ddof)
    return np.expand_dims(both, axis) if keepdims else both


def _field(both: Array, name: str) -> Any:
    return both[name].copy()[()]
