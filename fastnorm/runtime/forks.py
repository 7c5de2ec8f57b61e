"""What a forked child cannot take over from the other threads of its parent: a compiler's lock."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

# Seconds that a fork waits for compilations of other threads.
_PATIENCE_S = 10.0

_compilers: dict[int, Any] = {}  # locks, by the thread that holds them while it forks


def _before() -> None:
    # A lock that another thread holds at the fork is held in the child for ever.
    module = sys.modules.get("numba.core.compiler_lock")
    lock = getattr(getattr(module, "global_compiler_lock", None), "_lock", None)
    if lock is not None and lock.acquire(timeout=_PATIENCE_S):
        _compilers[threading.get_ident()] = lock


def _after_in_parent() -> None:
    lock = _compilers.pop(threading.get_ident(), None)
    if lock is not None:
        lock.release()


def _after_in_child() -> None:
    _after_in_parent()
    _compilers.clear()


def guard() -> None:
    """For the rest of the process."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
