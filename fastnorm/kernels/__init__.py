"""Loops over arrays: no formulas, no checks, nothing raised.

A file of this room is imported when its first driver is called: only then is Numba paid for.
"""

from __future__ import annotations

import importlib
from typing import Any

from fastnorm.runtime.interrupts import deferred


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    with deferred():
        return importlib.import_module(f"{__name__}.{name}")
