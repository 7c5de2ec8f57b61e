"""How elements lie in memory: a tag for every kind, and load and store of one element of it.

A plain array of float32 or float64 (or an integer type, to read) is its own storage. Everything else is
a tag around it, so that kernels compile for each kind and hold no case distinction. 16-bit floats are
storage only: arithmetic is float32.

Accessors are Numba intrinsics, not jitted functions: they are used everywhere, cost no compilation of
their own, and a slice made here is a pointer and a length, without Numba's clamping of its bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import types
from numba.extending import intrinsic

from fastnorm.element import bits
from fastnorm.element.unaligned import load_unaligned, store_unaligned


class Half(NamedTuple):
    """float16, as uint16."""

    bits: Any


class BFloat16(NamedTuple):
    """The upper half of a float32, as uint16."""

    bits: Any


class Strided(NamedTuple):
    """Elements at any distance, alignment and byte order, in an array of bytes."""

    memory: Any  # uint8, every byte that the elements touch
    start: int  # byte of the first element
    step: int  # bytes from an element to the next of its run
    swapped: bool
    sample: Any  # storage of no element: gives the dtype


class Repeated(NamedTuple):
    """Runs that are one element each, which lies in a plain or 16-bit storage; to read."""

    elements: Any


_MEMORY, _START, _STEP, _SWAPPED, _SAMPLE = range(5)


# Lanes of the vectors with a mask that the end of a run is worked on in; of runs of few elements. Left to LLVM, ends of up to 63
# elements are vectors of eight, and elements one by one.
LANES, FEW_LANES = 64, 16


def is_tagged(storage: Any, tag: type) -> bool:
    return isinstance(storage, types.BaseNamedTuple) and storage.instance_class is tag


def is_strided(storage: Any) -> bool:
    """Whether elements are collected one by one."""
    return is_tagged(storage, Strided)


def is_repeated(storage: Any) -> bool:
    return is_tagged(storage, Repeated)


def compute_type(storage: Any) -> Any:
    """Numba type of the arithmetic: float32 for what fits in it, float64 for the rest."""
    if is_repeated(storage):
        return compute_type(storage[0])
    if is_tagged(storage, Strided):
        return compute_type(storage[_SAMPLE])
    if isinstance(storage, types.Array):
        return types.float32 if storage.dtype == types.float32 else types.float64
    return types.float32


def holds_integers(storage: Any) -> bool:
    """Whether elements are integers or bool, of which sums of a tile are exact in float64."""
    if is_tagged(storage, Strided):
        return holds_integers(storage[_SAMPLE])
    return isinstance(storage, types.Array) and not isinstance(storage.dtype, types.Float)


def array_type_of(storage: Any) -> Any:
    """Of the array that holds the elements, or that has their type."""
    if is_tagged(storage, Strided):
        return array_type_of(storage[_SAMPLE])
    return storage if isinstance(storage, types.Array) else storage[0]


def array_of(context: Any, builder: Any, storage_type: Any, storage: Any) -> Any:
    """Of plain or tagged storage, as a Numba array structure."""
    value = storage if isinstance(storage_type, types.Array) else builder.extract_value(storage, 0)
    return context.make_array(array_type_of(storage_type))(context, builder, value)


def bits_of(storage: Any) -> int:
    dtype = array_type_of(storage).dtype
    return 8 if dtype == types.boolean else int(dtype.bitwidth)


def decode(builder: Any, storage: Any, raw: Any) -> Any:
    """Value in the compute type of the bits of an element; of a vector of them, all values."""
    sample = storage[_SAMPLE] if is_tagged(storage, Strided) else storage
    if is_tagged(sample, Half):
        return bits.widen_half(builder, raw)
    if is_tagged(sample, BFloat16):
        return bits.widen_bfloat16(builder, raw)
    dtype = sample.dtype
    if isinstance(dtype, types.Float):
        return bits.as_floats(builder, raw, dtype.bitwidth)
    if dtype == types.boolean:
        return bits.truths_as_floats(builder, raw)
    return bits.integers_as_floats(builder, raw, isinstance(dtype, types.Integer) and dtype.signed)


def _encode(context: Any, builder: Any, storage: Any, value: Any, value_type: Any) -> Any:
    """Bits of an element for a value."""
    sample = storage[_SAMPLE] if is_tagged(storage, Strided) else storage
    if isinstance(sample, types.Array):
        number = context.cast(builder, value, value_type, sample.dtype)
        return builder.bitcast(number, bits.integer_type(sample.dtype.bitwidth))
    single = context.cast(builder, value, value_type, types.float32)
    return (bits.narrow_half if is_tagged(sample, Half) else bits.narrow_bfloat16)(builder, single)


def _byte(builder: Any, run: Any, index: Any) -> Any:
    start, step = builder.extract_value(run, _START), builder.extract_value(run, _STEP)
    return builder.add(start, builder.mul(index, step))


@intrinsic(prefer_literal=False)
def load(typing_context: Any, run: Any, index: Any) -> Any:
    """Element of a run, in the compute dtype; of None None."""
    if run is types.none:
        return types.none(run, types.intp), lambda context, builder, signature, arguments: context.get_dummy_value()
    if is_repeated(run):
        signature, generate_one = load._defn(typing_context, run[0], types.intp)
        return signature.return_type(run, types.intp), lambda context, builder, _, arguments: generate_one(
            context, builder, signature, [builder.extract_value(arguments[0], 0), context.get_constant(types.intp, 0)]
        )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, at = arguments
        if is_tagged(run, Strided):
            memory = context.make_array(run[_MEMORY])(context, builder, builder.extract_value(value, _MEMORY))
            swapped = builder.extract_value(value, _SWAPPED)
            raw = load_unaligned(builder, memory.data, _byte(builder, value, at), bits_of(run), swapped)
            return decode(builder, run, raw)
        element = bits.as_source(builder, builder.load(builder.gep(array_of(context, builder, run, value).data, [at], inbounds=True)))
        if isinstance(run, types.Array) and isinstance(run.dtype, types.Float):
            return element
        return decode(builder, run, element)

    return compute_type(run)(run, types.intp), generate


def _storing(apart: bool) -> Any:
    def store(typing_context: Any, run: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            target, at, number = arguments
            if is_tagged(run, Strided):
                memory = context.make_array(run[_MEMORY])(context, builder, builder.extract_value(target, _MEMORY))
                raw = _encode(context, builder, run, number, value)
                swapped = builder.extract_value(target, _SWAPPED)
                store_unaligned(builder, memory.data, _byte(builder, target, at), raw, swapped)
            else:
                plain = isinstance(run, types.Array)
                convert = context.cast(builder, number, value, run.dtype) if plain else _encode(context, builder, run, number, value)
                stored = builder.store(convert, builder.gep(array_of(context, builder, run, target).data, [at], inbounds=True))
                if apart:
                    bits.as_result(builder, stored)
            return context.get_dummy_value()

        return types.void(run, types.intp, value), generate

    return store


# Write one element of a run.
store = intrinsic(prefer_literal=False)(_storing(apart=False))
# The same, where no later `load` or `at` of the function reads what was written: LLVM needs no checks of overlap,
# of which it makes at most eight. Each element of a source is read before its place is written, in place too.
write = intrinsic(prefer_literal=False)(_storing(apart=True))


def borrowed(context: Any, builder: Any, storage_type: Any, value: Any) -> Any:
    """The same storage without ownership: Numba releases what an intrinsic returns."""
    if isinstance(storage_type, types.Array):
        array = context.make_array(storage_type)(context, builder, value)
        array.meminfo = array.meminfo.type(None)
        return array._getvalue()
    if isinstance(storage_type, types.BaseTuple):
        for k, part in enumerate(storage_type):
            value = builder.insert_value(value, borrowed(context, builder, part, builder.extract_value(value, k)), k)
    return value


def shortened(context: Any, builder: Any, array_type: Any, array: Any, start: Any, count: Any) -> Any:
    """Array of `count` elements from `start` on. It borrows: its owner outlives every run."""
    old = context.make_array(array_type)(context, builder, array)
    new = context.make_array(array_type)(context, builder)
    item = old.itemsize
    new.data = builder.gep(old.data, [start], inbounds=True)
    new.itemsize = item
    new.nitems = count
    new.parent = old.parent
    new.meminfo = old.meminfo.type(None)
    set_shape(builder, new, count, item)
    return new._getvalue()


def set_shape(builder: Any, array: Any, count: Any, item: Any) -> None:
    from numba.core import cgutils

    array.shape = cgutils.pack_array(builder, [count])
    array.strides = cgutils.pack_array(builder, [item])


@intrinsic(prefer_literal=False)
def cut(typing_context: Any, storage: Any, start: Any, count: Any) -> Any:
    """The run of `count` elements from `start` on: an index, or a byte of strided storage; None of None."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, begin, length = arguments
        if storage is types.none:
            return context.get_dummy_value()
        if is_tagged(storage, Strided):
            return builder.insert_value(borrowed(context, builder, storage, value), begin, _START)
        if is_repeated(storage):
            signature, generate_run = cut._defn(typing_context, storage[0], types.intp, types.intp)
            run = generate_run(context, builder, signature, [builder.extract_value(value, 0), begin, length])
            return builder.insert_value(value, run, 0)
        if isinstance(storage, types.Array):
            return shortened(context, builder, storage, value, begin, length)
        run = shortened(context, builder, storage[0], builder.extract_value(value, 0), begin, length)
        return builder.insert_value(value, run, 0)

    return storage(storage, types.intp, types.intp), generate


@intrinsic(prefer_literal=False)
def subrun(typing_context: Any, run: Any, index: Any, count: Any) -> Any:
    """The run of `count` elements of a run, from its element `index` on; of a number the number, of None None."""
    if not isinstance(run, types.Array | types.BaseTuple | types.NoneType):
        return run(run, types.intp, types.intp), lambda context, builder, signature, arguments: arguments[0]
    signature, generate_cut = cut._defn(typing_context, run, index, count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, at, length = arguments
        begin = _byte(builder, value, at) if is_tagged(run, Strided) else at
        return generate_cut(context, builder, signature, [value, begin, length])

    return signature, generate


@intrinsic(prefer_literal=False)
def before_lanes(typing_context: Any, run: Any, n: Any, lanes: Any) -> Any:
    """Of the first n elements of a run those in groups of so many lanes, a power of two; all, for None. What is left is for a loop over all
    lanes, with a condition, which becomes vectors with a mask; where a processor has no masks, or elements no vectors, nothing is left."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        masks = "+avx512vl" in context.codegen().magic_tuple()[2]
        plain = isinstance(run, types.Array) and isinstance(run.dtype, types.Float)
        if lanes is types.none or not (masks and plain):
            return arguments[1]
        return builder.and_(arguments[1], builder.neg(arguments[2]))

    return types.intp(run, types.intp, types.none if lanes is types.none else types.intp), generate


@intrinsic(prefer_literal=False)
def bytes_of(typing_context: Any, storage: Any, n: Any) -> Any:
    """Of n elements that lie side by side."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.mul(arguments[1], context.get_constant(types.intp, bits_of(storage) // 8))

    return types.intp(storage, types.intp), generate


def _fetcher(storage: Any, to_write: bool, level: int = 1) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if storage is not types.none and not is_tagged(storage, Strided):
            line = builder.gep(array_of(context, builder, storage, arguments[0]).data, [arguments[1]])
            bits.prefetch(builder, line, to_write, level)
        return context.get_dummy_value()

    return generate


@intrinsic(prefer_literal=False)
def fetch(typing_context: Any, storage: Any, index: Any) -> Any:
    """Ask for the cache line of element `index`, which need not exist; of strided storage, and of None, nothing."""
    return types.void(storage, types.intp), _fetcher(storage, to_write=False)


@intrinsic(prefer_literal=False)
def fetch_for_later(typing_context: Any, storage: Any, index: Any) -> Any:
    """As `fetch`, no nearer than L2."""
    return types.void(storage, types.intp), _fetcher(storage, to_write=False, level=2)


@intrinsic(prefer_literal=False)
def fetch_to_write(typing_context: Any, storage: Any, index: Any) -> Any:
    """As `fetch`, as the only owner: a store then finds it in L1."""
    return types.void(storage, types.intp), _fetcher(storage, to_write=True)


@intrinsic(prefer_literal=False)
def row(typing_context: Any, matrix: Any, index: Any) -> Any:
    """Row of a C-contiguous array of two or more dimensions, flat; it borrows."""
    flat = types.Array(matrix.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, at = arguments
        old = context.make_array(matrix)(context, builder, value)
        shape = [builder.extract_value(old.shape, k) for k in range(1, matrix.ndim)]
        count = shape[0]
        for size in shape[1:]:
            count = builder.mul(count, size)
        new = context.make_array(flat)(context, builder)
        new.data = builder.gep(old.data, [builder.mul(at, count)], inbounds=True)
        new.itemsize = old.itemsize
        new.nitems = count
        new.parent = old.parent
        new.meminfo = old.meminfo.type(None)
        set_shape(builder, new, count, old.itemsize)
        return new._getvalue()

    return flat(matrix, types.intp), generate


@intrinsic(prefer_literal=False)
def at(typing_context: Any, parameter: Any, index: Any) -> Any:
    """Of a vector its element, of a number the number, of None None: one loop serves all."""
    vector = isinstance(parameter, types.Array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if parameter is types.none:
            return context.get_dummy_value()
        if not vector:
            return arguments[0]
        data = context.make_array(parameter)(context, builder, arguments[0]).data
        return bits.as_source(builder, builder.load(builder.gep(data, [arguments[1]], inbounds=True)))

    return (parameter.dtype if vector else parameter)(parameter, types.intp), generate


@intrinsic(prefer_literal=False)
def put(typing_context: Any, vector: Any, index: Any, value: Any) -> Any:
    """Write one element of a plain vector, cast to its dtype."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(vector)(context, builder, arguments[0]).data
        number = context.cast(builder, arguments[2], value, vector.dtype)
        builder.store(number, builder.gep(data, [arguments[1]], inbounds=True))
        return context.get_dummy_value()

    return types.void(vector, types.intp, value), generate


@intrinsic(prefer_literal=False)
def zero_of(typing_context: Any, storage: Any) -> Any:
    """0 in the compute dtype of a storage."""
    kind = compute_type(storage)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(kind, 0.0)

    return kind(storage), generate


@intrinsic(prefer_literal=False)
def empty_sum(typing_context: Any, storage: Any) -> Any:
    """0 that elements of a run are added to: in the compute dtype; in float64 where there are no vector lanes to share the roundings, which
    all go one way after an outlier: 64 float32 numbers lost 3.4e-6 of their variance, 192 7e-6."""
    kind = types.float64 if is_tagged(storage, Strided) else compute_type(storage)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(kind, 0.0)

    return kind(storage), generate


@intrinsic(prefer_literal=False)
def as_compute(typing_context: Any, zero: Any, value: Any) -> Any:
    """`value` in the dtype of `zero`: float32 must not meet a float64, which would win."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[1], value, zero)

    return zero(zero, value), generate
