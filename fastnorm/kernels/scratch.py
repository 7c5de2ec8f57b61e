"""Small memory of one chunk: it lives in L1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from fastnorm._jit import variant
from fastnorm.element.storage import BFloat16, Half, Strided

# Bytes of one staged run, a multiple of a cache line. Small enough to stay in L1 with its sources.
STAGE_BYTES = 16384
# Between a vector and the next one, beyond its elements. Vectors of 4096 bytes without it have all their elements
# of one index in the same set of L1, which holds eight lines: the gradient of columns uses ten.
APART_BYTES = 320


@variant
def vectors(zero: Any, rows: Any, n: Any) -> Any:
    """`rows` uninitialized vectors of at least n elements in the dtype of `zero`, one after the other."""
    if zero == types.float32:
        return lambda zero, rows, n: np.empty((rows, n + APART_BYTES // 4), np.float32)
    return lambda zero, rows, n: np.empty((rows, n + APART_BYTES // 8), np.float64)


@variant
def staging(out: Any, streaming: Any) -> Any:
    """A run like those of `out` in scratch memory, to be flushed later, if stores stream; strided outputs need none."""
    if out is types.none:
        return lambda out, streaming: None
    if isinstance(out, types.Array):
        if out.dtype == types.float32:
            return lambda out, streaming: np.empty(streaming * STAGE_BYTES // 4, np.float32)
        return lambda out, streaming: np.empty(streaming * STAGE_BYTES // 8, np.float64)
    if out.instance_class is Strided:
        return lambda out, streaming: out
    if out.instance_class is Half:
        return lambda out, streaming: Half(np.empty(streaming * STAGE_BYTES // 2, np.uint16))
    return lambda out, streaming: BFloat16(np.empty(streaming * STAGE_BYTES // 2, np.uint16))
