"""What the functions on Dask's collections share: the guest itself, its arrays and frames, trees of merges."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import isnan
from typing import Any

import numpy as np

try:
    import dask.array as da
    from dask.base import is_dask_collection
except ImportError as cause:
    raise ImportError(f'fastnorm.dask needs dask with its arrays ({cause}); pip install "fastnorm[dask]"') from cause

SPLIT_EVERY = 8


def is_frame(X: Any) -> bool:
    """Whether it is a data frame or a series of Dask, which is not imported for this."""
    return is_dask_collection(X) and hasattr(X, "map_partitions") and hasattr(X, "to_dask_array")


def is_lazy(X: Any) -> bool:
    """Whether it is an array or a frame of Dask."""
    return isinstance(X, da.Array) or is_frame(X)


def in_order(block: Any) -> Any:
    """A chunk as it would lie in memory of its own; anything else than an array as it is.

    A view in one process is contiguous in another, and can be misaligned there, and strided elements are summed in another
    order than contiguous ones.
    """
    return np.require(block, requirements=("C", "A")) if isinstance(block, np.ndarray) else block


def array_of(name: str, value: Any, function: str) -> Any:
    """A Dask array, also of a frame. Raises TypeError."""
    if isinstance(value, da.Array):
        return value
    if is_frame(value):
        return value.to_dask_array()
    raise TypeError(
        f"{name} is a {type(value).__name__} but must be a Dask array, data frame or series; pass dask.array.from_array({name}), "
        f"or call {function}"
    )


def is_unknown(sizes: tuple[float, ...]) -> bool:
    """Whether chunks have sizes that only their computation will tell."""
    return any(isnan(n) for n in sizes)


def check_split_every(value: Any) -> int:
    """How many parts are joined at once. Raises TypeError, ValueError."""
    if value is None:
        return SPLIT_EVERY
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"split_every must be an integer or None, got {value!r}") from None
    if number < 2:
        raise ValueError(f"split_every is {number} but must be at least 2, the parts that are joined at once; pass for example 8")
    return number


def tree(parts: list[Any], join: Callable[[list[Any]], Any], split_every: int) -> Any:
    """One of many lazy parts, neighbours first: the order depends on the number of parts only."""
    while len(parts) > 1:
        parts = [join(parts[k : k + split_every]) for k in range(0, len(parts), split_every)]
    return parts[0]
