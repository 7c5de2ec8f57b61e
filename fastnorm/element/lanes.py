"""Numbers of a cache line side by side, as one value: what a loop says of one element, for a whole vector register.

LLVM makes vectors of loops by itself, but of none that fetch memory ahead, and it compares all arrays of a loop with each other
before. A formula without a branch serves both: numbers and `Lanes` are added, subtracted, multiplied, compared and chosen alike.
"""

from __future__ import annotations

import operator
from typing import Any

from numba.core import types
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from fastnorm.element import bits
from fastnorm.element.storage import BFloat16, Half, array_of, bits_of, compute_type, decode, is_strided, is_tagged, load, store


class Lanes(types.Type):
    """As many numbers of one float type as a cache line holds."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(name=f"Lanes({dtype})")
        self.dtype = dtype

    @property
    def count(self) -> int:
        return bits.LINE_BYTES * 8 // int(self.dtype.bitwidth)


@register_default(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, bits.vector_type(bits.float_type(kind.dtype.bitwidth), kind.count))


class Truths(types.Type):
    """What comparing lanes gives."""

    def __init__(self, count: int) -> None:
        super().__init__(name=f"Truths({count})")
        self.count = count


@register_default(Truths)
class _TruthsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, bits.vector_type(bits.integer_type(1), kind.count))


@lower_cast(types.Number, Lanes)
def _in_all_lanes(context: Any, builder: Any, number: Any, kind: Any, value: Any) -> Any:
    return bits.in_all_lanes(builder, context.cast(builder, value, number, kind.dtype), kind.count)


def _binary(function: Any, instruction: str, comparison: str | None = None) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            if len(arguments) == 2 and isinstance(arguments[0], Lanes) and arguments[0] == arguments[1]:
                return signature(Truths(arguments[0].count) if comparison else arguments[0], *arguments)
            return None

    @lower_builtin(function, Lanes, Lanes)
    def _lowering(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*((comparison,) if comparison else ()), *arguments)


_binary(operator.add, "fadd")
_binary(operator.sub, "fsub")
_binary(operator.mul, "fmul")
_binary(operator.lt, "fcmp_ordered", "<")
_binary(operator.gt, "fcmp_ordered", ">")
_binary(operator.eq, "fcmp_ordered", "==")


def _kind(storage: Any) -> Any:
    """Lanes of the compute dtype where elements lie side by side; else its numbers, one at a time."""
    number = compute_type(storage)
    return number if is_strided(storage) else Lanes(number)


def are_registers() -> bool:
    """Whether lanes are one register, of 32."""
    features: str = cpu_target.target_context.codegen().magic_tuple()[2]
    return "+avx512f" in features.split(",")


def rounds_lanes(storage: Any) -> bool:
    """Whether lanes are written to elements of a 16-bit storage in one instruction of which LLVM makes no good use in a loop.

    It rounds four numbers to bfloat16 with each, or all of them in 12 instructions. What that costs: `kernels.tile.normalize_in_lanes`.
    """
    return is_tagged(storage, BFloat16) and not is_strided(storage) and bits.has_bfloat16(cpu_target.target_context.codegen().magic_tuple())


def have_lanes(*storages: Any) -> bool:
    """Whether elements of all are loaded as lanes of one kind."""
    kinds = {_kind(storage) for storage in storages}
    return len(kinds) == 1 and isinstance(kinds.pop(), Lanes)


@intrinsic(prefer_literal=False)
def lanes_of(typing_context: Any, storage: Any) -> Any:
    """How many elements of a storage are loaded as one value."""
    kind = _kind(storage)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, kind.count if isinstance(kind, Lanes) else 1)

    return types.intp(storage), generate


@intrinsic(prefer_literal=False)
def fused(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of lanes or numbers of one kind, rounded once where the processor has an instruction for it.

    Said, not left to LLVM, which may fuse one product of two here and the other there. Additions are what a Zen 4 has too few units for:
    one of 16 numbers a cycle, in which it multiplies and adds as many elsewhere.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return bits.multiply_add(builder, *arguments, rounded_once=bits.has_fused(context.codegen().magic_tuple()))

    return c(c, c, c), generate


@intrinsic(prefer_literal=False)
def zero_lanes(typing_context: Any, storage: Any) -> Any:
    """0 in every lane of a storage."""
    kind = _kind(storage)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, context.get_constant(types.float64, 0.0), types.float64, kind)

    return kind(storage), generate


@intrinsic(prefer_literal=False)
def load_lanes(typing_context: Any, run: Any, index: Any, count: Any, like: Any) -> Any:
    """Elements of a run from `index` on, as many as `lanes_of(like)`; or only the first `count` of them, and zeros."""
    kind = _kind(like)
    if not isinstance(kind, Lanes):
        loading, load_one = load._defn(typing_context, run, index)
        one = loading.return_type(run, types.intp, count, like)
        return one, lambda context, builder, signature, arguments: load_one(context, builder, loading, arguments[:2])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(array_of(context, builder, run, arguments[0]).data, [arguments[1]], inbounds=True)
        mask = None if count is types.none else bits.first_lanes(builder, arguments[2], kind.count)
        raw = bits.load_vector(builder, place, kind.count, mask, bits_of(run) // 8)
        return raw if isinstance(run, types.Array) and isinstance(run.dtype, types.Float) else decode(builder, run, raw)

    return kind(run, types.intp, types.none if count is types.none else types.intp, like), generate


def _encoded(context: Any, builder: Any, vector: Any, value: Any) -> Any:
    if isinstance(vector, types.Array):
        return value
    if is_tagged(vector, BFloat16) and bits.has_bfloat16(context.codegen().magic_tuple()):
        return bits.narrow_line_to_bfloat16(builder, value)
    return (bits.narrow_half if is_tagged(vector, Half) else bits.narrow_bfloat16)(builder, value)


@intrinsic(prefer_literal=False)
def write_lanes(typing_context: Any, vector: Any, index: Any, value: Any, count: Any) -> Any:
    """Write lanes, or the first `count` of them, to elements of a vector of their dtype, or of a 16-bit storage, from `index` on."""
    if not isinstance(value, Lanes):  # not `write`: loops over rows read again what they have written
        storing, store_one = store._defn(typing_context, vector, index, value)
        one = types.void(vector, types.intp, value, count)
        return one, lambda context, builder, signature, arguments: store_one(context, builder, storing, arguments[:3])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(array_of(context, builder, vector, arguments[0]).data, [arguments[1]], inbounds=True)
        mask = None if count is types.none else bits.first_lanes(builder, arguments[3], value.count)
        bits.store_vector(builder, _encoded(context, builder, vector, arguments[2]), place, mask, bits_of(vector) // 8)
        return context.get_dummy_value()

    return types.void(vector, types.intp, value, types.none if count is types.none else types.intp), generate


@intrinsic(prefer_literal=False)
def stream_lanes(typing_context: Any, vector: Any, index: Any, value: Any) -> Any:
    """Write lanes to a line of a vector of their dtype, or half a line of a 16-bit storage, with a store that bypasses the caches. Call
    `fence` once at the end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(array_of(context, builder, vector, arguments[0]).data, [arguments[1]], inbounds=True)
        bits.stream_line(builder, _encoded(context, builder, vector, arguments[2]), place, value.count * bits_of(vector) // 8)
        return context.get_dummy_value()

    return types.void(vector, types.intp, value), generate


@intrinsic(prefer_literal=False)
def stream_two_lanes(typing_context: Any, vector: Any, index: Any, first: Any, second: Any) -> Any:
    """The same to a whole line of a storage of which `rounds_lanes` is true: half a line at a time, inference of (100352, 256) took 1.9
    times as long on a Zen 4."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(array_of(context, builder, vector, arguments[0]).data, [arguments[1]], inbounds=True)
        bits.stream_line(builder, bits.narrow_two_lines_to_bfloat16(builder, *arguments[2:]), place)
        return context.get_dummy_value()

    return types.void(vector, types.intp, first, second), generate


@intrinsic(prefer_literal=False)
def choose_lanes(typing_context: Any, count: Any, first: Any, second: Any) -> Any:
    """The first `count` lanes of one value, and the others of another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(bits.first_lanes(builder, arguments[0], first.count), arguments[1], arguments[2])

    return first(types.intp, first, second), generate


@intrinsic(prefer_literal=False)
def sum_of_lanes(typing_context: Any, value: Any) -> Any:
    """Of all lanes, a number."""
    if not isinstance(value, Lanes):
        return value(value), lambda context, builder, signature, arguments: arguments[0]
    return value.dtype(value), lambda context, builder, signature, arguments: bits.add_lanes(builder, arguments[0])
