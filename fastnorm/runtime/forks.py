"""What a forked child cannot take over from the other threads of its parent: locks that they hold, of a compiler and of imports."""

from __future__ import annotations

import contextlib
import logging  # takes a lock of its own before a fork. Who has registered last comes first: otherwise an import would wait for that lock
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

# Seconds that a fork waits for imports and compilations of other threads, and between two looks. Six processes that compiled on two cores,
# without a cache, took 15 s each.
_PATIENCE_S, _PAUSE_S = 30.0, 0.002

_imports = threading.RLock()

_held: dict[int, list[Any]] = {}  # locks, by the thread that holds them while it forks


def _compiler() -> Any:
    module = sys.modules.get("numba.core.compiler_lock")
    return getattr(getattr(module, "global_compiler_lock", None), "_lock", None)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While a part of the library, and with it perhaps Numba or a part of that, is imported at its first use.

    The lock of a module that another thread imports at a fork is held in the child for ever, and nobody can ask for it before. The
    compiler's lock first: who compiles may want to import.
    """
    with _compiler() or contextlib.nullcontext(), _imports:
        yield


def _before() -> None:
    """Both at once: who holds one may want the other."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        if _imports.acquire(timeout=_PATIENCE_S):
            compiler = _compiler()
            if compiler is None or compiler.acquire(blocking=False):
                _held[threading.get_ident()] = [_imports] if compiler is None else [_imports, compiler]
                return
            _imports.release()
        time.sleep(_PAUSE_S)


def _after_in_parent() -> None:
    for lock in _held.pop(threading.get_ident(), ()):
        lock.release()


def _after_in_child() -> None:
    if threading.get_ident() not in _held:
        _renew()
    _after_in_parent()
    _held.clear()


def _renew() -> None:
    """Locks that a fork did not get, although it waited: in the child nobody is left to release them."""
    global _imports
    if not _is_mine(_imports):
        _imports = threading.RLock()
    compiler = _compiler()
    if compiler is not None and not _is_mine(compiler):
        sys.modules["numba.core.compiler_lock"].global_compiler_lock._lock = threading.RLock()


def _is_mine(lock: Any) -> bool:
    return bool(lock._is_owned())


assert logging
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
