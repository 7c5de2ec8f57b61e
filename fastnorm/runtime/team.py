"""The threads of a guest, for calls on its behalf.

Between the loops of a library that computes with OpenMP its workers are awake, each on a core, for up to 20 ms; ours would have to
wake up and to wait for these cores. So such calls are dealt to the guest's own team.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from fastnorm.runtime.crew import Crew


class _Borrowed(threading.local):
    """By the calls of this thread."""

    threads = 0  # at most; 0 if nothing is said
    crew: Crew | None = None


borrowed = _Borrowed()
_forked = False


class Team:
    """A context in which calls of this thread are dealt to the threads of a guest.

    launch  : address of GOMP_parallel in the OpenMP library of the guest; 0: our own workers, but as few as it wants
    threads : that the guest uses now
    """

    def __init__(self, launch: int) -> None:
        self._crew = Crew(max(2, os.cpu_count() or 1), launch) if launch else None
        self.threads = 1

    def of(self, threads: int) -> Team:
        self.threads = threads
        return self

    def __enter__(self) -> None:
        borrowed.threads = self.threads
        borrowed.crew = None if _forked else self._crew

    def __exit__(self, *_: Any) -> None:
        borrowed.threads, borrowed.crew = 0, None


def _forget() -> None:
    """GNU OpenMP waits forever in a child that is forked after its first team."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
