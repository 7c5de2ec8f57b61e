"""Small memory of one chunk: it lives in L1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fastnorm._jit import variant
from fastnorm.element.bits import LINE_BYTES
from fastnorm.element.storage import BFloat16, Half, Strided, array_of, is_strided

# Between a vector and the next one, beyond its elements. Vectors of 4096 bytes without it have all their elements
# of one index in the same set of L1, which holds eight lines: the gradient of columns uses ten.
APART_BYTES = 320

# Of running sums from rows of whole pages, by addresses within a page. A load whose address ends in the 12 bits of a store that is still
# under way waits for it, and eight rows of one set of L1 leave no place for sums there: moments of 3 MB in L2 were read at 79 (64 bytes
# away, rows of 2048 bytes) and 44 GB/s (8192 bytes) by two cores of a Zen 4, with 1024 bytes at 115 and 108.
AWAY_BYTES, PAGE_BYTES = 1024, 4096


@intrinsic(prefer_literal=False)
def vectors(typing_context: Any, zero: Any, rows: Any, n: Any) -> Any:
    """`rows` uninitialized vectors of at least n elements in the dtype of `zero`, one after the other.

    Not by `np.empty`, which is four functions to compile: 0.1 s for every dtype.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_abi_sizeof(context.get_data_type(zero))
        length = builder.add(arguments[2], context.get_constant(types.intp, APART_BYTES // size))
        step = builder.mul(length, context.get_constant(types.intp, size))
        owner = context.nrt.meminfo_alloc_aligned(builder, builder.mul(arguments[1], step), LINE_BYTES)
        return _matrix(context, builder, zero, owner, context.nrt.meminfo_data(builder, owner), arguments[1], length)

    return types.Array(zero, 2, "C")(zero, types.intp, types.intp), generate


@intrinsic(prefer_literal=False)
def vectors_beside(typing_context: Any, zero: Any, rows: Any, n: Any, storage: Any, index: Any) -> Any:
    """The same, AWAY_BYTES from element `index` of what is read with them, in whole lines, by the last 12 bits of addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_abi_sizeof(context.get_data_type(zero))
        low = context.get_constant(types.intp, PAGE_BYTES - 1)
        n_bytes = builder.mul(arguments[2], context.get_constant(types.intp, size))
        step = builder.and_(builder.add(n_bytes, low), builder.not_(low))
        owner = context.nrt.meminfo_alloc_aligned(builder, builder.add(builder.mul(arguments[1], step), low), LINE_BYTES)
        data = context.nrt.meminfo_data(builder, owner)
        strided = is_strided(storage)
        read = data if strided else builder.gep(array_of(context, builder, storage, arguments[3]).data, [arguments[4]])
        place = builder.add(builder.ptrtoint(read, low.type), context.get_constant(types.intp, AWAY_BYTES))
        lines = context.get_constant(types.intp, PAGE_BYTES - LINE_BYTES)
        skipped = builder.and_(builder.sub(place, builder.ptrtoint(data, low.type)), lines)
        length = builder.udiv(step, context.get_constant(types.intp, size))
        return _matrix(context, builder, zero, owner, builder.gep(data, [skipped]), arguments[1], length)

    return types.Array(zero, 2, "C")(zero, types.intp, types.intp, storage, types.intp), generate


def _matrix(context: Any, builder: Any, zero: Any, owner: Any, data: Any, rows: Any, length: Any) -> Any:
    """The array (rows, length) at `data`, in memory of `owner`."""
    item_type = context.get_data_type(zero)
    item = context.get_constant(types.intp, context.get_abi_sizeof(item_type))
    array = context.make_array(types.Array(zero, 2, "C"))(context, builder)
    populate_array(
        array,
        data=builder.bitcast(data, item_type.as_pointer()),
        shape=cgutils.pack_array(builder, [rows, length]),
        strides=cgutils.pack_array(builder, [builder.mul(length, item), item]),
        itemsize=item,
        meminfo=owner,
    )
    return array._getvalue()


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


@variant
def holding(total: Any, streams: Any, n: Any) -> Any:
    """Scratch memory for n sums that are stored without the caches, and read from here; else None."""
    if total is types.none or streams is types.none or is_strided(total):
        return lambda total, streams, n: None
    return lambda total, streams, n: staging(total, n)
