"""Stores that bypass the caches: straight from registers, in blocks, or copied from a staged run.

A line that is stored whole without its cache is not read before, which is up to 40 % of what a kernel moves.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from fastnorm.element import bits
from fastnorm.element.storage import Strided, array_of, array_type_of, bits_of, borrowed, is_tagged, set_shape, shortened

# Elements of a block, that stays in registers: so many that LLVM makes vectors of the loop over them instead of unrolling it
# before, and so few that all of them are unrolled.
BLOCK = 64


@intrinsic(prefer_literal=False)
def before_line(typing_context: Any, storage: Any, start: Any) -> Any:
    """Elements from index `start` to the next cache line: vectors that cross lines cost two accesses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if is_tagged(storage, Strided):
            return context.get_constant(types.intp, 0)
        data = builder.gep(array_of(context, builder, storage, arguments[0]).data, [arguments[1]])
        address = builder.ptrtoint(data, arguments[1].type)
        offset = builder.and_(builder.neg(address), address.type(63))
        return builder.udiv(offset, address.type(bits_of(storage) // 8))

    return types.intp(storage, types.intp), generate


@intrinsic(prefer_literal=False)
def block_of(typing_context: Any, out: Any) -> Any:
    """A run of BLOCK elements like those of `out`, on the stack of the calling function; strided outputs need none.

    Written by a loop and read by `stream_block` only, it never comes to be: LLVM keeps it in registers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if is_tagged(out, Strided):
            return borrowed(context, builder, out, arguments[0])
        array_type = array_type_of(out)
        item = context.get_data_type(array_type.dtype)
        block = context.make_array(array_type)(context, builder)
        block.data = bits.on_stack(builder, item, BLOCK)
        count, block.itemsize = context.get_constant(types.intp, BLOCK), context.get_constant(types.intp, context.get_abi_sizeof(item))
        block.nitems = count
        set_shape(builder, block, count, block.itemsize)
        if isinstance(out, types.Array):
            return block._getvalue()
        return builder.insert_value(arguments[0], block._getvalue(), 0)

    return out(out), generate


@intrinsic(prefer_literal=False)
def stream_block(typing_context: Any, block: Any, out: Any, index: Any) -> Any:
    """Write a whole block to elements of a run from `index` on, at a cache line, with stores that bypass the caches."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not is_tagged(out, Strided):
            source = array_of(context, builder, out, arguments[0]).data
            target = builder.gep(array_of(context, builder, out, arguments[1]).data, [arguments[2]], inbounds=True)
            bits.stream_lines(builder, source, target, BLOCK, bits_of(out))
        return context.get_dummy_value()

    return types.void(block, out, types.intp), generate


@intrinsic(prefer_literal=False)
def flush(typing_context: Any, staged: Any, out: Any, start: Any, count: Any) -> Any:
    """Copy a staged run over elements of `out` with stores that bypass the caches."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if is_tagged(out, Strided):
            return context.get_dummy_value()
        array_type = array_type_of(out)
        source = array_of(context, builder, staged, arguments[0])._getvalue()
        target = array_of(context, builder, out, arguments[1])._getvalue()
        zero = context.get_constant(types.intp, 0)
        source = shortened(context, builder, array_type, source, zero, arguments[3])
        target = shortened(context, builder, array_type, target, arguments[2], arguments[3])
        signature, generate_stream = bits.stream._defn(None, array_type, array_type)
        return generate_stream(context, builder, signature, [source, target])

    return types.void(staged, out, types.intp, types.intp), generate
