"""Scalers of Dask arrays and data frames: `fit` computes, `transform` is lazy."""

from __future__ import annotations

import functools
import itertools
from typing import Any, TypeVar

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from fastnorm.interop.dask_collections import array_of, check_split_every, in_order, is_frame, is_lazy, is_unknown, tree
from fastnorm.plan.intake import result_dtype
from fastnorm.preprocessing.door import check_n_features
from fastnorm.preprocessing.parts import adopt, beside, columns_of, fitted
from fastnorm.preprocessing.scaler import Scaler
from fastnorm.preprocessing.scikit import check_is_fitted, validate_data

Array = NDArray[Any]
Class = TypeVar("Class", bound=type[Scaler])


def learn(scaler: Scaler, kind: type[Scaler], X: Any, sample_weight: Any, split_every: int | None, anew: bool) -> None:
    """Compute what a collection tells, in one pass, and put it in place of what the scaler knows, if `anew`, or add it."""
    scaler._check_parameters()
    joined_at_once = check_split_every(split_every)
    _check_table(X)
    seen = _seen(kind, scaler.get_params(deep=False), X, sample_weight)
    join = dask.delayed(_merged, pure=True)
    parts = [tree(column, join, joined_at_once) for column in seen]
    found = dask.compute(*parts)
    if any(part is None for part in found):
        raise ValueError(
            f"Found array with 0 sample(s), or without a weight that is not 0, while a minimum of 1 is required by {kind.__name__}; "
            "pass an X with samples"
        )
    adopt(scaler, beside(found), anew)


def _check_table(X: Any) -> None:
    if X.ndim != 2:
        raise ValueError(f"X has {X.ndim} dimensions but samples and features are two; pass for example X.reshape(-1, 1)")


def _seen(kind: type[Scaler], parameters: dict[str, Any], X: Any, sample_weight: Any) -> list[list[Any]]:
    """Lazy scalers of all chunks, each of which may come out None: by features, and of those by samples.

    Chunks and their weights are arguments of one call, so that what they have in common is read once.
    """
    see = functools.partial(_see, kind=kind, parameters=parameters)
    if is_frame(X):
        if not isinstance(sample_weight, da.Array) and (is_frame(sample_weight) or np.ndim(sample_weight) == 0):
            return [X.map_partitions(see, sample_weight, meta=(None, object), enforce_metadata=False).to_delayed()]
        spread = _row_weights(X, sample_weight).to_delayed()
        return [[dask.delayed(see)(block, weight) for block, weight in zip(X.to_delayed(), spread, strict=True)]]
    weights = _row_weights(X, sample_weight)
    operands = (weights, (0,) if isinstance(weights, da.Array) else None)
    seen = da.blockwise(
        see, (0, 1), X, (0, 1), *operands, align_arrays=False, adjust_chunks={0: lambda n: 1, 1: lambda n: 1}, dtype=object,
        meta=np.empty((0, 0), object),
    )  # fmt: skip
    blocks = seen.to_delayed()
    return [list(blocks[:, k]) for k, n in enumerate(X.chunks[1]) if n != 0] or [list(blocks[:, 0])]


def _see(block: Any, weights: Any, *, kind: type[Scaler], parameters: dict[str, Any]) -> Any:
    return fitted(kind, parameters, in_order(block), in_order(weights))


def _row_weights(X: Any, sample_weight: Any) -> Any:
    """Weights chunked as the samples are, or one for all, or None. Raises ValueError."""
    if sample_weight is None or np.ndim(sample_weight) == 0:
        return sample_weight
    weights = array_of("sample_weight", sample_weight, "") if is_lazy(sample_weight) else da.asarray(sample_weight)
    n = X.npartitions if is_frame(X) else X.numblocks[0]
    sizes = (np.nan,) * n if is_frame(X) else X.chunks[0]
    if weights.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {weights.ndim}D array; pass one for each sample")
    if is_unknown(sizes) or is_unknown(weights.shape):
        if weights.numblocks[0] != n:
            raise ValueError(
                f"sample_weight has {weights.numblocks[0]} chunks but X has {n}, of sizes that are not known; pass a Dask collection with "
                "the chunks of X, for example a column of the same data frame"
            )
        return weights
    if weights.shape[0] != sum(sizes):
        raise ValueError(f"sample_weight.shape == {weights.shape}, expected ({sum(sizes)},)!")
    return weights.rechunk((sizes,))


def _merged(parts: list[Any]) -> Any:
    """Of scalers, each of which may be None. What others may still need is left alone."""
    seen = [part for part in parts if part is not None]
    if len(seen) < 2:
        return seen[0] if seen else None
    total = type(seen[0])(**seen[0].get_params(deep=False))
    for part in seen:
        total.merge(part)
    return total


def takes_collections(cls: Class) -> Class:
    """Let the methods that transform be lazy for Dask's collections.

    Around those of scikit-learn's wrapping, which would make frames of what has not been computed yet.
    """
    kind = cls.__mro__[1]
    for name in ("transform", "inverse_transform"):
        setattr(cls, name, _lazily(getattr(cls, name), name, kind))
    of_table = cls.fit_transform

    @functools.wraps(of_table)
    def fit_transform(self: Any, X: Any, y: Any = None, **options: Any) -> Any:
        return self.fit(X, y, **options).transform(X) if is_lazy(X) else of_table(self, X, y, **options)

    cls.fit_transform = fit_transform  # type: ignore[method-assign]
    return cls


def _lazily(of_table: Any, name: str, kind: Any) -> Any:
    @functools.wraps(of_table)
    def method(self: Any, X: Any, *arguments: Any, **options: Any) -> Any:
        if not is_lazy(X):
            return of_table(self, X, *arguments, **options)
        for option in ("out", "progress"):
            refuse(option, options.get(option))
        return _transformed(self, kind, X, name)

    return method


def refuse(option: str, value: Any) -> None:
    """Raises TypeError for what has no meaning to lazy work."""
    if value is not None and value is not False:
        remedy = "assign the result" if option == "out" else "use dask.diagnostics.ProgressBar or the dashboard"
        raise TypeError(f"{option} is for arrays in memory, but X is a Dask collection; {remedy}")


def _transformed(scaler: Scaler, kind: type[Scaler], X: Any, method: str) -> Any:
    check_is_fitted(scaler)
    _check_table(X)
    if not is_frame(X) and is_unknown(X.chunks[1]):
        raise ValueError("X has features in chunks of unknown size; call X.compute_chunk_sizes() first")
    if method == "transform":
        validate_data(scaler, X._meta if is_frame(X) else X, reset=False, skip_check_array=True)
    else:
        check_n_features(scaler, X)
    if is_frame(X):
        whole = columns_of(scaler, kind, slice(None))
        if method == "transform" and hasattr(scaler, "feature_names_in_"):
            whole.feature_names_in_ = scaler.feature_names_in_
        meta = _frame_of(X._meta_nonempty, whole, method).iloc[:0]
        return X.map_partitions(_frame_of, dask.delayed(whole, pure=True), method, meta.dtypes.to_dict(), meta=meta)
    ends = np.cumsum((0, *X.chunks[1])).tolist()
    parts = [columns_of(scaler, kind, slice(begin, end)) for begin, end in itertools.pairwise(ends)]
    dtype = result_dtype(X.dtype) if X.dtype.kind in "biuf" or X.dtype.name == "bfloat16" else np.dtype(np.float64)
    return X.map_blocks(_block_of, dask.delayed(parts, pure=True), method, dtype, dtype=dtype, meta=X._meta.astype(dtype))


def _block_of(block: Any, parts: list[Any], method: str, dtype: Any, block_id: tuple[int, ...] = (0, 0)) -> Any:
    if 0 in block.shape:
        return block.astype(dtype)
    return getattr(parts[block_id[1]], method)(block)


def _frame_of(partition: Any, whole: Any, method: str, dtypes: Any = None) -> Any:
    """A frame with the same columns and index. dtypes : of the result, for partitions without a row"""
    if not len(partition):
        return partition.astype(dtypes)
    values = getattr(whole, method)(partition)
    return type(partition)(values, index=partition.index, columns=partition.columns)
