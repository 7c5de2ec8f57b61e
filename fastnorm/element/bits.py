"""What LLVM can do and Numba cannot say: the only file that imports llvmlite."""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32 = ir.FloatType()
_HALF = ir.HalfType()


class _BFloatType(ir.types.Type):  # type: ignore[misc]
    """Which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"


@intrinsic
def wide_vectors(typing_context: Any) -> Any:
    """Let the calling function use 512-bit registers where the CPU has them.

    LLVM prefers 256 bits on Intel's AVX-512 CPUs. The two-sweep moments of a 16 KB tile run at
    8.9 G elements/s with 512 bits and at 3.8 with 256 (Cascade Lake, 2.5 GHz). No effect elsewhere.
    The function is not inlined either: its caller would lack the setting.

    And its stack begins at a cache line: LLVM has no register left to align it by when it finds that vectors need a place there, and one
    that crosses two pages takes 80 ns. Where depended on the frames of all callers: RMS norm's gradient of rows of 128 took 1.4 times as
    long on one of two threads after its caller had lost a loop (Zen 3).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite knows only attributes without a value; the set itself takes any text.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        set.add(builder.function.attributes, f"alignstack({LINE_BYTES})")
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def compact(typing_context: Any) -> Any:
    """Compile the calling function for size: it only deals work to functions that are hot.

    Not inlined, as its caller would lack the setting. Unrolled copies of loops that run once per chunk
    were a third of the time of compilation.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        builder.function.attributes.add("optsize")
        return context.get_dummy_value()

    return types.void(), generate


def _scopes(builder: Any) -> Any:
    """The scope of what kernels read, in a list. Named, so that linked modules share it."""
    module = builder.module
    domain = module.add_metadata([ir.MetaDataString(module, "fastnorm")])
    return module.add_metadata([module.add_metadata([ir.MetaDataString(module, "sources"), domain])])


def as_source(builder: Any, load: Any) -> Any:
    """Mark a load as one that `as_result` stores are apart from."""
    load.set_metadata("alias.scope", _scopes(builder))
    return load


def as_result(builder: Any, store: Any) -> None:
    """Mark a store as apart from all `as_source` loads after it."""
    store.set_metadata("noalias", _scopes(builder))


def _named(builder: Any, name: str, result: Any, *values: Any, fastmath: tuple[str, ...] = ()) -> Any:
    """Call one of LLVM's own functions."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values, fastmath=fastmath)


def prefetch(builder: Any, pointer: Any, to_write: bool, level: int = 1) -> None:
    """Ask for a cache line, into L1 or L2; an address that is not ours does no harm."""
    address = builder.bitcast(pointer, _I8.as_pointer())
    _named(builder, "llvm.prefetch.p0", ir.VoidType(), address, _I32(int(to_write)), _I32(4 - level), _I32(1))


@intrinsic(prefer_literal=False)
def choose(typing_context: Any, condition: Any, first: Any, second: Any) -> Any:
    """The first where the condition holds, else the second, of one type: never a branch. Of lanes each by itself.

    A conditional expression becomes one in time for the vectorizer only where it is alone: three of them in the loop of
    extrema left it scalar, six times as slow.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return first(condition, first, first), generate


@intrinsic
def bits_to_single(typing_context: Any, bits: Any) -> Any:
    """float32 with the given 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _F32)

    return types.float32(types.uint32), generate


def vector_type(item: Any, n: int) -> Any:
    return ir.VectorType(item, n)


def _as(like: Any, item: Any) -> Any:
    """A type of numbers; of as many, if `like` is one of vectors."""
    return ir.VectorType(item, like.count) if isinstance(like, ir.VectorType) else item


def _all(like: Any, item: Any, number: int) -> Any:
    return ir.Constant(_as(like, item), [number] * like.count if isinstance(like, ir.VectorType) else number)


def first_lanes(builder: Any, count: Any, n: int) -> Any:
    """Mask of the first `count` of n lanes."""
    numbers = ir.Constant(ir.VectorType(count.type, n), list(range(n)))
    return builder.icmp_signed("<", numbers, in_all_lanes(builder, count, n))


def in_all_lanes(builder: Any, number: Any, n: int) -> Any:
    """A vector of n times the same number."""
    empty = ir.Constant(ir.VectorType(number.type, n), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(empty, number, _I32(0)), empty, ir.Constant(ir.VectorType(_I32, n), [0] * n))


def load_vector(builder: Any, place: Any, n: int, mask: Any, align: int) -> Any:
    """n items from a place on; where the mask is not set, zeros, and nothing is read."""
    vector = ir.VectorType(place.type.pointee, n)
    address = builder.bitcast(place, vector.as_pointer())
    if mask is None:
        return builder.load(address, align=align)
    return _named(builder, f"llvm.masked.load.{_suffix(vector)}.p0", vector, address, _I32(align), mask, ir.Constant(vector, None))


def store_vector(builder: Any, value: Any, place: Any, mask: Any, align: int) -> None:
    address = builder.bitcast(place, value.type.as_pointer())
    if mask is None:
        builder.store(value, address, align=align)
        return
    _named(builder, f"llvm.masked.store.{_suffix(value.type)}.p0", ir.VoidType(), value, address, _I32(align), mask)


def _suffix(kind: Any) -> str:
    """What LLVM calls a number or a vector."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return f"i{kind.width}" if isinstance(kind, ir.IntType) else {_F32: "f32", ir.DoubleType(): "f64"}[kind]


# Conversions, as code, of numbers and of vectors: they are part of the loads and stores of `storage`.


def as_floats(builder: Any, word: Any, bits: int) -> Any:
    return builder.bitcast(word, _as(word.type, float_type(bits)))


def truths_as_floats(builder: Any, word: Any) -> Any:
    """1.0 for every byte that is not 0."""
    return builder.uitofp(builder.icmp_unsigned("!=", word, _all(word.type, _I8, 0)), _as(word.type, float_type(64)))


def integers_as_floats(builder: Any, word: Any, signed: bool) -> Any:
    return (builder.sitofp if signed else builder.uitofp)(word, _as(word.type, float_type(64)))


def floor(builder: Any, value: Any) -> Any:
    return _named(builder, f"llvm.floor.{_suffix(value.type)}", value.type, value)


@intrinsic(prefer_literal=False)
def whole_below(typing_context: Any, value: Any) -> Any:
    """The largest integer that is no larger, of the type of the value: `math.floor` makes an int64 of it, in which 2**63 has no place."""
    return value(value), lambda context, builder, signature, arguments: floor(builder, arguments[0])


def has_fused(target: Any) -> bool:
    """Whether a processor (triple, name, features) multiplies and adds in one instruction: without, it is a call for every number."""
    triple, _, features = target
    return "+fma" in features.split(",") or not triple.startswith(("x86", "i386", "i686"))


def multiply_add(builder: Any, a: Any, b: Any, c: Any, rounded_once: bool) -> Any:
    if not rounded_once:
        return builder.fadd(builder.fmul(a, b), c)
    return _named(builder, f"llvm.fma.{_suffix(a.type)}", a.type, a, b, c)


def add_lanes(builder: Any, value: Any) -> Any:
    """The sum of the items of a vector, in pairs."""
    number, name = value.type.element, f"llvm.vector.reduce.fadd.{_suffix(value.type)}"
    return _named(builder, name, number, ir.Constant(number, -0.0), value, fastmath=("reassoc",))


def widen_half(builder: Any, word: Any) -> Any:
    return builder.fpext(builder.bitcast(word, _as(word.type, _HALF)), _as(word.type, _F32))


def narrow_half(builder: Any, value: Any) -> Any:
    """Nearest, ties to even."""
    return builder.bitcast(builder.fptrunc(value, _as(value.type, _HALF)), _as(value.type, _I16))


def widen_bfloat16(builder: Any, word: Any) -> Any:
    kind = _as(word.type, _I32)
    return builder.bitcast(builder.shl(builder.zext(word, kind), _all(word.type, _I32, 16)), _as(word.type, _F32))


def has_bfloat16(target: Any) -> bool:
    """Whether a processor rounds 16 numbers to bfloat16 in one instruction."""
    return "+avx512bf16" in target[2].split(",")


def narrow_line_to_bfloat16(builder: Any, value: Any) -> Any:
    """As `narrow_bfloat16`, but denormal numbers become 0: 6 instructions for 16 elements of inference instead of 12."""
    rounded = _named(builder, "llvm.x86.avx512bf16.cvtneps2bf16.512", ir.VectorType(_BFloatType(), 16), value)
    return builder.bitcast(rounded, ir.VectorType(_I16, 16))


def narrow_two_lines_to_bfloat16(builder: Any, first: Any, second: Any) -> Any:
    """The same of two lines, which become one. By name in assembly: LLVM 22 stores what its own function returns through the caches,
    whatever it is told."""
    binding.initialize_native_asmparser()
    kind = ir.FunctionType(ir.VectorType(_I16, 32), [first.type, first.type])
    return builder.asm(kind, "vcvtne2ps2bf16 $1, $2, $0", "=v,v,v", [first, second], False)


def narrow_bfloat16(builder: Any, value: Any) -> Any:
    """Nearest, ties to even; NaN stays a quiet NaN."""
    kind = _as(value.type, _I32)
    word, sixteen = builder.bitcast(value, kind), _all(kind, _I32, 16)
    odd = builder.and_(builder.lshr(word, sixteen), _all(kind, _I32, 1))
    rounded = builder.add(word, builder.add(odd, _all(kind, _I32, 0x7FFF)))
    quiet = builder.or_(word, _all(kind, _I32, 0x400000))
    number = builder.fcmp_ordered("==", value, value)
    return builder.trunc(builder.lshr(builder.select(number, rounded, quiet), sixteen), _as(kind, _I16))


def integer_type(bits: int) -> Any:
    return ir.IntType(bits)


def float_type(bits: int) -> Any:
    return _F32 if bits == 32 else ir.DoubleType()


# Of a cache line, and of one streaming store.
LINE_BYTES = 64


def on_stack(builder: Any, item: Any, n: int) -> Any:
    """Pointer to n items in the frame of the calling function, at a multiple of a line."""
    with builder.goto_entry_block():
        place = builder.alloca(ir.ArrayType(item, n))
    place.align = LINE_BYTES
    return builder.bitcast(place, item.as_pointer())


def stream_line(builder: Any, value: Any, target: Any, n_bytes: int = LINE_BYTES) -> None:
    """Store a vector of so many bytes, a line or half of one, at a multiple of these, bypassing the caches."""
    store = builder.store(value, builder.bitcast(target, value.type.as_pointer()), align=n_bytes)
    store.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))


def stream_lines(builder: Any, source: Any, target: Any, n: int, item_bits: int) -> None:
    """Copy n items, whole lines of them at a multiple of a line, with stores that bypass the caches."""
    vector = ir.VectorType(float_type(item_bits) if item_bits > 16 else _I16, LINE_BYTES * 8 // item_bits)
    read, write = builder.bitcast(source, vector.as_pointer()), builder.bitcast(target, vector.as_pointer())
    for line in range(n * item_bits // 8 // LINE_BYTES):
        value = builder.load(builder.gep(read, [_I64(line)], inbounds=True), align=LINE_BYTES)
        stream_line(builder, value, builder.gep(write, [_I64(line)], inbounds=True))


@intrinsic
def stream(typing_context: Any, source: Any, target: Any) -> Any:
    """Copy the contiguous run `source` over `target` with stores that bypass the caches.

    Same length and item size; any alignment: head and tail go through the cache. Call `fence` once
    before another thread may read the result. LLVM's vectorizer never forms such stores from a loop.
    """
    item = source.dtype.bitwidth // 8
    vector = ir.VectorType(_I32, LINE_BYTES // 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_type, target_type = signature.args
        source_array = context.make_array(source_type)(context, builder, arguments[0])
        target_array = context.make_array(target_type)(context, builder, arguments[1])
        read = builder.bitcast(source_array.data, _I8.as_pointer())
        write = builder.bitcast(target_array.data, _I8.as_pointer())
        n_bytes = builder.mul(source_array.nitems, _I64(item))
        head = builder.and_(builder.neg(builder.ptrtoint(write, _I64)), _I64(LINE_BYTES - 1))
        head = builder.select(builder.icmp_unsigned("<", head, n_bytes), head, n_bytes)
        cgutils.raw_memcpy(builder, write, read, head, 1, align=1)
        n_lines = builder.lshr(builder.sub(n_bytes, head), _I64(6))
        flag = builder.module.add_metadata([_I32(1)])
        with cgutils.for_range(builder, n_lines) as each:
            at = builder.add(head, builder.shl(each.index, _I64(6)))
            value = builder.load(builder.bitcast(builder.gep(read, [at]), vector.as_pointer()), align=1)
            place = builder.bitcast(builder.gep(write, [at]), vector.as_pointer())
            builder.store(value, place, align=LINE_BYTES).set_metadata("nontemporal", flag)
        done = builder.add(head, builder.shl(n_lines, _I64(6)))
        rest = builder.sub(n_bytes, done)
        cgutils.raw_memcpy(builder, builder.gep(write, [done]), builder.gep(read, [done]), rest, 1, align=1)
        return context.get_dummy_value()

    return types.void(source, target), generate


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def atomic_load(typing_context: Any, address: Any) -> Any:
    """The 8 bytes at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_word(builder, arguments[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(typing_context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _word(builder, arguments[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def atomic_add(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the 8 bytes at an address; what was there before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, arguments[0]), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_swap(typing_context: Any, address: Any, value: Any) -> Any:
    """Replace the 8 bytes at an address; what was there before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("xchg", _word(builder, arguments[0]), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def relax(typing_context: Any) -> Any:
    """Wait for some ten cycles, in a loop that waits: leaves them to the other thread of the core."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        hint = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}.get(platform.machine())
        if hint:
            _named(builder, hint, ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def no_memory_if(typing_context: Any, condition: Any) -> Any:
    """Raise MemoryError, the only error that a chunk body can meet."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        with builder.if_then(arguments[0], likely=False):
            context.call_conv.return_user_exc(builder, MemoryError, ("no memory for the scratch arrays of a chunk",))
        return context.get_dummy_value()

    return types.void(types.boolean), generate


@intrinsic
def fence(typing_context: Any) -> Any:
    """Make streamed stores visible to other threads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
