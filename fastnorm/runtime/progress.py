"""A progress bar for work of many parts, on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def tracked(items: Iterable[Item], total: int | None, description: str, progress: bool) -> Iterator[Item]:
    """The items one after the other, under a progress bar on stderr if `progress`.

    total  : number of items; None where nobody knows
    raises : ImportError if there is to be a bar, and rich is not installed
    """
    if not progress:
        return iter(items)
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        raise ImportError('progress=True shows a bar with rich, which is not installed; pip install "fastnorm[progress]"') from None
    return iter(track(items, description, total=total, console=Console(stderr=True)))
