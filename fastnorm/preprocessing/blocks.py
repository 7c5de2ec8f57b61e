"""Tables walked as a whole, or under a progress bar in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from fastnorm.ops.door import output
from fastnorm.runtime.progress import tracked

Array = NDArray[Any]
BLOCK_BYTES = 64_000_000


def row_blocks(table: Array, description: str, progress: bool) -> Iterator[slice]:
    """All rows at once, or in blocks with a progress bar."""
    if not progress:
        return iter((slice(None),))
    n = max(1, BLOCK_BYTES // max(1, table.shape[1] * table.itemsize))
    starts = range(0, table.shape[0], n)
    return tracked((slice(start, start + n) for start in starts), len(starts), description, progress)


def transformed(table: Array, out: Any, progress: bool, transform: Callable[[slice, Array], Any]) -> Array:
    """A fresh table or the user's, filled by `transform`, which is given rows and where their results belong.

    raises : TypeError, ValueError before anything is written
    """
    target = output("out", out, table, (table,))
    for rows in row_blocks(table, "transform", progress):
        transform(rows, target.computed[rows])
    return target.deliver()
