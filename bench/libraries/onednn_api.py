"""As much of oneDNN's C interface (version 3) as a normalization needs: memory over NumPy arrays, and a primitive.

The library: ``pip install onednn-cpu-gomp``, a system package, or the path in ``ONEDNN_LIBRARY``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.problems import UnsupportedError

# dnnl_prop_kind_t, dnnl_normalization_flags_t, DNNL_ARG_*
TRAINING, INFERENCE, BACKWARD = 64, 96, 128
GLOBAL_STATS, SCALE_SHIFT = 1, 2 | 4
SRC, DST, MEAN, VARIANCE, SCALE, SHIFT = 1, 17, 49, 50, 51, 52
DIFF_SRC, DIFF_DST, DIFF_SCALE, DIFF_SHIFT = 129, 145, 255, 256

_DTYPES = {"float16": 1, "bfloat16": 2, "float32": 3}
_Dims = ctypes.c_int64 * 12
_Handle = ctypes.c_void_p


class _Argument(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_int), ("memory", _Handle))


def _candidates() -> Iterator[str]:
    if os.environ.get("ONEDNN_LIBRARY"):
        yield os.environ["ONEDNN_LIBRARY"]
    try:
        files = importlib.metadata.files("onednn-cpu-gomp") or []
        yield from (str(file.locate()) for file in files if file.name == "libdnnl.so.3")
    except importlib.metadata.PackageNotFoundError:
        pass
    found = ctypes.util.find_library("dnnl")
    if found:
        yield found


def _load() -> ctypes.CDLL:
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
            library.dnnl_batch_normalization_forward_primitive_desc_create  # noqa: B018  version 3
            return library
        except (OSError, AttributeError):
            continue
    raise ImportError("no libdnnl of version 3; pip install onednn-cpu-gomp, or name it in ONEDNN_LIBRARY")


_library = _load()


def _made(function: str, *arguments: Any) -> Any:
    """The handle that a dnnl_*_create writes through its first argument."""
    handle = _Handle()
    status = getattr(_library, function)(ctypes.byref(handle), *arguments)
    if status:
        raise UnsupportedError(f"{function} returned status {status}")
    return handle


_engine = _made("dnnl_engine_create", 1, ctypes.c_size_t(0))
_stream = _made("dnnl_stream_create", _engine, ctypes.c_uint(1))


def describe(array: np.ndarray) -> Any:
    """Any strides: N C H W over channels-last memory is a transposed view."""
    if array.dtype.name not in _DTYPES:
        raise UnsupportedError(f"oneDNN has no {array.dtype} on CPUs")
    strides = [step // array.itemsize for step in array.strides]
    return _made(
        "dnnl_memory_desc_create_with_strides", array.ndim, _Dims(*array.shape), ctypes.c_int(_DTYPES[array.dtype.name]), _Dims(*strides)
    )


def memory(array: np.ndarray) -> Any:
    return _made("dnnl_memory_create", describe(array), _engine, ctypes.c_void_p(array.ctypes.data))


def descriptor(kind: str, prop: int, described: tuple[Any, ...], eps: float, flags: int, hint: tuple[Any, ...] = ()) -> Any:
    """kind: "batch_normalization_forward" and so on; hint: the forward's descriptor, for a backward."""
    arguments = (_engine, ctypes.c_int(prop), *described, ctypes.c_float(eps), ctypes.c_uint(flags), *hint, None)
    return _made(f"dnnl_{kind}_primitive_desc_create", *arguments)


def primitive(described: Any, arrays: dict[int, np.ndarray]) -> Callable[[], None]:
    """A call that executes on these arrays (which it keeps alive) and waits."""
    handle = _made("dnnl_primitive_create", described)
    arguments = (_Argument * len(arrays))(*[_Argument(arg, memory(array)) for arg, array in arrays.items()])

    def call(kept: Any = arrays) -> None:
        status = _library.dnnl_primitive_execute(handle, _stream, len(arguments), arguments) or _library.dnnl_stream_wait(_stream)
        if status:
            raise RuntimeError(f"oneDNN returned status {status}")

    return call
