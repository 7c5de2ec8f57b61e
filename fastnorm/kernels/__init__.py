"""Loops over arrays: no formulas, no checks, nothing raised.

A file of this room is imported when its first driver is called: only then is Numba paid for.
"""

from __future__ import annotations

import importlib
from typing import Any

from fastnorm.runtime.forks import importing
from fastnorm.runtime.interrupts import deferred


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        try:
            with importing(), deferred():
                return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as absence:  # torch.compile asks every module for an attribute "torch"
            if absence.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
