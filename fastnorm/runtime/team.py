"""The threads of a guest, for calls on its behalf.

Between the loops of a library that computes with OpenMP its workers are awake, each on a core, for up to 20 ms; ours would have to
wake up and to wait for these cores. So such calls are dealt to the guest's own team.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from fastnorm.runtime.crew import Crew


class _Borrowed(threading.local):
    """By the calls of this thread."""

    threads = 0  # at most; 0 if nothing is said
    crew: Crew | None = None


borrowed = _Borrowed()
_forked = False


class Team:
    """The threads of a guest.

    launch : address of GOMP_parallel in its OpenMP library; 0: our own workers, but as few as it wants
    """

    def __init__(self, launch: int) -> None:
        self._crew = Crew(max(2, os.cpu_count() or 1), launch) if launch else None

    def call(self, threads: int, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call it: what this thread deals meanwhile goes to so many of the team."""
        before = borrowed.threads, borrowed.crew
        borrowed.threads, borrowed.crew = threads, None if _forked else self._crew
        try:
            return call(*arguments)
        finally:
            borrowed.threads, borrowed.crew = before


def _forget() -> None:
    """GNU OpenMP waits forever in a child that is forked after its first team."""
    global _forked
    _forked, borrowed.crew = True, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
