"""Small memory of one chunk: it lives in L1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fastnorm._jit import variant
from fastnorm.element.bits import LINE_BYTES
from fastnorm.element.storage import BFloat16, Half, Strided

# Bytes of one staged run, a multiple of a cache line. Small enough to stay in L1 with its sources.
STAGE_BYTES = 16384
# Between a vector and the next one, beyond its elements. Vectors of 4096 bytes without it have all their elements
# of one index in the same set of L1, which holds eight lines: the gradient of columns uses ten.
APART_BYTES = 320


@intrinsic(prefer_literal=False)
def vectors(typing_context: Any, zero: Any, rows: Any, n: Any) -> Any:
    """`rows` uninitialized vectors of at least n elements in the dtype of `zero`, one after the other.

    Not by `np.empty`, which is four functions to compile: 0.1 s for every dtype.
    """
    matrix = types.Array(zero, 2, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        item_type = context.get_data_type(zero)
        size = context.get_abi_sizeof(item_type)
        item = context.get_constant(types.intp, size)
        length = builder.add(arguments[2], context.get_constant(types.intp, APART_BYTES // size))
        count = builder.mul(arguments[1], length)
        step = builder.mul(length, item)
        owner = context.nrt.meminfo_alloc_aligned(builder, builder.mul(count, item), LINE_BYTES)
        array = context.make_array(matrix)(context, builder)
        populate_array(
            array,
            data=builder.bitcast(context.nrt.meminfo_data(builder, owner), item_type.as_pointer()),
            shape=cgutils.pack_array(builder, [arguments[1], length]),
            strides=cgutils.pack_array(builder, [step, item]),
            itemsize=item,
            meminfo=owner,
        )
        return array._getvalue()

    return matrix(zero, types.intp, types.intp), generate


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
