"""Tables walked as a whole, or under a progress bar in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from fastnorm.ops.door import output
from fastnorm.plan.memory import pieces
from fastnorm.runtime.progress import tracked

Array = NDArray[Any]
BLOCK_BYTES = 64_000_000


def row_blocks(table: Array, description: str, progress: bool) -> Iterator[slice]:
    """All rows at once, or in blocks with a progress bar."""
    if not progress:
        return iter((slice(None),))
    blocks = pieces(table.shape[0], table.nbytes, BLOCK_BYTES)
    return tracked(blocks, len(blocks), description, progress)


def transformed(table: Array, out: Any, progress: bool, transform: Callable[[slice, Array], Any]) -> Array:
    """A fresh table or the user's, filled by `transform`, which is given rows and where their results belong.

    raises : TypeError, ValueError before anything is written
    """
    target = output("out", out, table, (table,))
    for rows in row_blocks(table, "transform", progress):
        transform(rows, target.computed[rows])
    return target.deliver()
