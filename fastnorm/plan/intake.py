"""From what users pass to views that kernels can walk: arrays, parameters, outputs, overlap."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT_ITEMS = {2, 4, 8}
_LARGEST = float(np.finfo(np.float64).max)
NAN_POLICIES = ("propagate", "omit", "raise")


_named: dict[type, bool] = {}  # "bfloat16": a name takes 2 to 5 us to make


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    if dtype.kind != "V":
        return False
    known = _named.get(dtype.type)
    if known is None:
        known = _named[dtype.type] = dtype.name == "bfloat16"
    return known


def is_float(dtype: np.dtype[Any]) -> bool:
    """A float dtype that the library stores: 16, 32 or 64 bits."""
    return (dtype.kind == "f" and dtype.itemsize in _FLOAT_ITEMS) or is_bfloat16(dtype)


def computes_single(dtype: np.dtype[Any]) -> bool:
    """Whether values of this dtype are computed with in float32."""
    return is_float(dtype) and dtype.itemsize < 8


def _plain(name: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{name} is no array ({error}); pass an array, or nested lists of one length") from None


def as_array(name: str, value: Any) -> NDArray[Any]:
    """A plain array of a dtype that the library computes with.

    raises : TypeError for masked arrays and for complex, long double, object, str and datetime
    """
    if type(value) is np.ndarray and value.dtype.char in "fd":  # nearly every call
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored; pass {name}.filled(np.nan) or the valid elements")
    array = _plain(name, value)
    dtype = array.dtype
    if dtype.kind == "O" and hasattr(value, "toarray"):
        raise TypeError(f"{name} is a sparse matrix; pass {name}.toarray()")
    if not (is_float(dtype) or dtype.kind in "biu"):
        raise TypeError(
            f"{name} has dtype {dtype}, which has no real float arithmetic here; pass float16, bfloat16, float32, float64, bool or integers"
        )
    return array


def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of an output for input of this dtype: its own, in native order; float64 for integers."""
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def integer(name: str, value: Any, remedy: str) -> int:
    """Raises TypeError, also of a truth, and of an array, which has a method for it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}; pass {remedy}") from None


def normalize_axis(axis: Any, ndim: int, of: str = "x") -> int:
    """A non-negative axis of what users call by this name. Raises AxisError when out of range, TypeError when not an integer."""
    if type(axis) is int and 0 <= axis < ndim:
        return axis
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer, got {axis!r}; pass for example 1 or -1") from None
    if not -ndim <= index < ndim:
        raise np.exceptions.AxisError(index, ndim, msg_prefix=f"axis must name a dimension of {of}")
    return index % ndim


def normalize_axes(axis: Any, ndim: int, of: str = "x") -> tuple[int, ...]:
    """None: all; an integer; a tuple. Non-negative and different."""
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, tuple | list):
        axes = tuple(normalize_axis(a, ndim, of) for a in axis)
        if len(set(axes)) != len(axes):
            raise ValueError(f"axis {axis} names a dimension twice; name each once")
        return axes
    return (normalize_axis(axis, ndim, of),)


def vector(name: str, value: Any, length: int, axis: int) -> NDArray[np.float64] | None:
    """A parameter as contiguous float64 numbers, or None.

    raises : TypeError if it is not of a float dtype, ValueError if it has not one number per `length`
    """
    if value is None:
        return None
    if type(value) is np.ndarray and value.shape == (length,):
        char = value.dtype.char
        if char == "d" and value.flags.carray and value.dtype.isnative:
            return value
        if char == "f":
            return value.astype(np.float64)
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored; pass {name}.filled() or the valid elements")
    array = _plain(name, value)
    if not is_float(array.dtype) and not (array.dtype.kind in "biu" and not isinstance(value, np.ndarray)):
        raise TypeError(f"{name} has dtype {array.dtype}; pass an array of a float dtype")
    if array.shape != (length,):
        raise ValueError(wrong_length(name, array.shape, length, axis) + (" or None" if name in ("gamma", "beta") else ""))
    return np.array(array, np.float64)


def wrong_length(name: str, shape: tuple[int, ...], length: int, axis: int) -> str:
    return f"{name} has shape {shape} but axis {axis} of x has {length} channels; pass an array of shape ({length},)"


def number(name: str, value: Any, low: float, high: float, rule: str) -> float:
    """A finite number of a range. Raises TypeError, ValueError."""
    try:
        if isinstance(value, str | bytes | np.ma.MaskedArray) or np.ndim(value) or np.iscomplexobj(value):
            raise TypeError
        result = float(value)
    except OverflowError:  # an integer beyond all floats
        result = np.inf if value > 0 else -np.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not low <= result <= high:  # false for NaN
        raise ValueError(f"{name} is {value!r} but must be {rule}")
    return result


def eps_of(value: Any) -> float:
    if type(value) is float and 0.0 <= value <= _LARGEST:
        return value
    return number("eps", value, 0.0, _LARGEST, "finite and >= 0; pass for example 1e-5")


def operand(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """A further large input: of the shape of x and a dtype that the library reads."""
    array = as_array(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape} but x has {shape}; pass an array of the same shape")
    return array


def check_out(name: str, out: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array that results can be written to. Raises TypeError, ValueError."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):  # a mask would hide results
        raise TypeError(f"{name} must be a numpy array, got {type(out).__name__}")
    if not is_float(out.dtype):
        raise TypeError(f"{name} has dtype {out.dtype}; pass an array of float16, bfloat16, float32 or float64")
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape} but the result has {shape}; pass an array of that shape")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only; pass a writable array, for example {name}.copy()")
    return out


def same_memory(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Element for element the same places: writing one while reading the other is safe."""
    return (
        a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        and a.shape == b.shape
        and a.strides == b.strides
        and a.itemsize == b.itemsize
    )


def overlaps(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays share an element; arrays whose strides are too hard to tell apart do."""
    try:
        effort: Any = 10_000
        return bool(np.shares_memory(a, b, max_work=effort))
    except np.exceptions.TooHardError:
        return True


def needs_detour(out: NDArray[Any], inputs: Sequence[NDArray[Any] | None]) -> bool:
    """Whether results must be computed elsewhere first, because `out` partly overlaps an input."""
    return any(
        x is not None and x is not out and np.may_share_memory(out, x) and not same_memory(out, x) and overlaps(out, x) for x in inputs
    )


def writes_twice(array: NDArray[Any]) -> bool:
    """Whether two indices name the same memory."""
    shared = 0 in array.strides and any(stride == 0 and size > 1 for stride, size in zip(array.strides, array.shape, strict=True))
    return shared and array.size > 0  # NumPy gives empty arrays strides of 0


def check_nan_policy(value: Any) -> None:
    """Raises ValueError unless it says what a NaN does."""
    if not isinstance(value, str) or value not in NAN_POLICIES:
        raise ValueError(f"nan_policy is {value!r} but must be one of {', '.join(NAN_POLICIES)}")


def is_stream(value: Any) -> bool:
    """Whether a value gives batches one after the other: an iterator, or an iterable that is no sequence and no array."""
    arrays = ("__array__", "__array_interface__", "__dataframe__", "shape")
    if isinstance(value, np.ndarray) or any(hasattr(value, name) for name in arrays):
        return False
    return hasattr(value, "__iter__") and not (hasattr(value, "__getitem__") and hasattr(value, "__len__"))
