"""Which arguments functions of runs take, and what a parameter is: None, a number that a run shares, or one for every element."""

from __future__ import annotations

from typing import Any

from numba.core import errors, types

from fastnorm._jit import variant
from fastnorm.element.storage import cut


def is_run(kind: Any) -> bool:
    return (
        isinstance(kind, types.Array)
        and kind.ndim == 1
        and kind.layout == "C"
        and kind.aligned
        and kind.dtype in (types.float32, types.float64)
    )


@variant
def takes(run: Any, out: Any, gamma: Any, beta: Any) -> Any:
    """The run; other types are refused when the caller is compiled, before loops meet them."""
    for kind in (run, out):
        if kind is not types.none and not is_run(kind):
            raise errors.TypingError(f"a run is {kind}; pass a contiguous one-dimensional array of float32 or float64")
    if isinstance(out, types.Array) and not out.mutable:
        raise errors.TypingError("out is a read-only array; pass one that can be written")
    for kind in (gamma, beta):
        if not (kind is types.none or is_run(kind) or isinstance(kind, types.Float | types.Integer)):
            raise errors.TypingError(f"gamma or beta is {kind}; pass None, a number, or a contiguous array of float32 or float64")
    return lambda run, out, gamma, beta: run


@variant
def shared(parameter: Any, absent: Any) -> Any:
    """The number that all elements share: `absent` if each has its own, or there is none."""
    if isinstance(parameter, types.Number):
        return lambda parameter, absent: float(parameter)
    return lambda parameter, absent: absent


@variant
def own(parameter: Any, start: Any, n: Any) -> Any:
    """What each of n elements has for itself, or None."""
    if isinstance(parameter, types.Array):
        return lambda parameter, start, n: cut(parameter, start, n)
    return lambda parameter, start, n: None
