"""Elements at any byte of memory, in either byte order."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils

from fastnorm.element.bits import integer_type


def load_unaligned(builder: Any, memory: Any, byte: Any, bits: int, swapped: Any) -> Any:
    """Integer of `bits` bits at a byte of memory."""
    place = builder.gep(memory, [byte], inbounds=True)
    raw = builder.load(builder.bitcast(place, integer_type(bits).as_pointer()), align=1)
    return _swapped(builder, raw, swapped)


def store_unaligned(builder: Any, memory: Any, byte: Any, raw: Any, swapped: Any) -> None:
    place = builder.gep(memory, [byte], inbounds=True)
    builder.store(_swapped(builder, raw, swapped), builder.bitcast(place, raw.type.as_pointer()), align=1)


def _swapped(builder: Any, raw: Any, swapped: Any) -> Any:
    if raw.type.width == 8:
        return raw
    return builder.select(cgutils.is_true(builder, swapped), builder.bswap(raw), raw)
