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
def staging(out: Any, n: Any) -> Any:
    """A run of n elements like those of `out` in scratch memory, to be flushed later; strided outputs need none."""
    if out is types.none:
        return lambda out, n: None
    if isinstance(out, types.Array):
        if out.dtype == types.float32:
            return lambda out, n: np.empty(n, np.float32)
        return lambda out, n: np.empty(n, np.float64)
    if out.instance_class is Strided:
        return lambda out, n: out
    if out.instance_class is Half:
        return lambda out, n: Half(np.empty(n, np.uint16))
    return lambda out, n: BFloat16(np.empty(n, np.uint16))
