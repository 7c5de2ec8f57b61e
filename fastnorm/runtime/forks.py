"""What a forked child cannot take over from the other threads of its parent: TBB's workers, and a compiler's lock."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

# Seconds that a fork waits for compilations of other threads.
_PATIENCE_S = 10.0

_users: set[int] = set()
_lost = False
_lost_by_next_fork = False
_compilers: dict[int, Any] = {}  # locks, by the thread that holds them while it forks


def note_user() -> None:
    """That the calling thread runs a parallel kernel."""
    _users.add(threading.get_ident())


def workers_lost() -> bool:
    """Whether this is a child that TBB's workers did not survive to be started anew.

    Numba joins them before a fork, which TBB refuses while further threads that have used it live, and in a fork from
    any thread but the main one: one in twenty such children hung in its first parallel kernel.
    """
    return _lost


def _before() -> None:
    global _lost_by_next_fork
    me = threading.get_ident()
    others = _users.intersection(sys._current_frames()) - {me}
    _lost_by_next_fork = bool(others) or (bool(_users) and threading.current_thread() is not threading.main_thread())
    # A lock that another thread holds at the fork is held in the child for ever.
    module = sys.modules.get("numba.core.compiler_lock")
    lock = getattr(getattr(module, "global_compiler_lock", None), "_lock", None)
    if lock is not None and lock.acquire(timeout=_PATIENCE_S):
        _compilers[me] = lock


def _after_in_parent() -> None:
    lock = _compilers.pop(threading.get_ident(), None)
    if lock is not None:
        lock.release()


def _after_in_child() -> None:
    global _lost
    _after_in_parent()
    _compilers.clear()
    _users.clear()
    _lost = _lost or _lost_by_next_fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
