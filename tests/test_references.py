"""Arrays are lent to formulas and loops, which count no references to them: none is kept, none is given up, no memory is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core import errors
from numba.core.runtime import _nrt_python, rtsys

import fastnorm as fn
import fastnorm.jit as jit
from fastnorm._jit import driver, loop

Array = Any
TIMES = 40  # past the calls after which a kind of call is compiled as a whole


@njit
def compiled(x, gamma, out):  # type: ignore[no-untyped-def]
    y = fn.layer_norm(x, gamma, gamma)
    for row in range(x.shape[0]):
        moments = jit.moments(x[row])
        jit.normalize(x[row], out[row], moments[1], 1.0, gamma, gamma)
        jit.rms_norm_row(out[row], out[row], gamma, 1e-6)
    return fn.batch_norm(y, gamma, gamma, None, None, axis=-1)


def training(x: Array, gamma: Array, out: Array) -> None:
    for axis in (1, -1, 0):
        if x.shape[axis] == gamma.size:
            y, mean, rstd = fn.batch_norm_train(x, gamma, gamma, axis=axis, out=out)
            fn.batch_norm_backward(y, x, mean, rstd, gamma, axis=axis)


def family(x: Array, gamma: Array, out: Array) -> None:
    _, mean, rstd = fn.layer_norm(x, gamma, gamma, return_stats=True)
    fn.layer_norm_backward(out, x, mean, rstd, gamma)
    fn.add_layer_norm(x, out, gamma, gamma)
    fn.rms_norm(x, gamma, out=out)
    fn.group_norm(x, 4, gamma, gamma)
    fn.group_norm(x, 4, gamma, gamma, axis=-1)


def statistics(x: Array, gamma: Array, out: Array) -> None:
    fn.mean_var(x, axis=0)
    fn.nanmean(x, axis=1)
    fn.mean_var(x, axis=0, weights=out)
    fn.zscore(x)


CALLS: dict[str, Callable[..., Any]] = {"training": training, "family": family, "statistics": statistics, "compiled": compiled}


@pytest.fixture
def counted() -> Any:
    enabled = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    yield
    if not enabled:
        _nrt_python.memsys_disable_stats()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_keeps_nothing_and_gives_up_nothing(name: str, kind: Any, counted: None) -> None:
    arrays = [np.random.default_rng(0).standard_normal(shape).astype(kind) ** 2 for shape in ((64, 64), (64,), (64, 64))]
    for _ in range(TIMES):
        CALLS[name](*arrays)
    references, memory = [sys.getrefcount(a) for a in arrays], rtsys.get_allocation_stats()
    for _ in range(10):
        CALLS[name](*arrays)
    later = rtsys.get_allocation_stats()
    assert [sys.getrefcount(a) for a in arrays] == references
    assert later.mi_alloc - memory.mi_alloc == later.mi_free - memory.mi_free
    assert later.alloc - memory.alloc == later.free - memory.free


@loop
def handed_on(run):  # type: ignore[no-untyped-def]
    return run


@driver
def receives(run):  # type: ignore[no-untyped-def]
    return handed_on(run)[0]


def test_a_loop_that_returns_an_array_is_refused() -> None:
    """Its caller would give up a reference that was never taken."""
    with pytest.raises(errors.TypingError, match="handed_on counts no references and returns an array; make it a maker"):
        receives(np.ones(2))
