"""`fn.layer_norm` and its kin get a compiled form: Numba's entry point.

Numba calls `init` before its first compilation in a process, whether or not that has to do with fastnorm. What takes
time is left for when one of these functions is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnorm.runtime.public import listen

NAMES = ("batch_norm", "layer_norm", "mean_var", "rms_norm")


def init() -> None:
    """Make `fn.layer_norm`, `fn.rms_norm`, `fn.batch_norm` and `fn.mean_var` known to compiled code."""
    listen(_register)


def _register(name: str, function: Callable[..., Any]) -> None:
    if name not in NAMES:
        return
    from numba.core.registry import cpu_target
    from numba.extending import overload

    from fastnorm.interop import jit_overloads

    overload(function, strict=False, prefer_literal=True)(getattr(jit_overloads, name))
    cpu_target.typing_context.refresh()  # the function may be asked for in the middle of a compilation
