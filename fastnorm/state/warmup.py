"""Compile ahead of the first call."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops import averages, few
from fastnorm.ops.batch import batch_norm, batch_norm_train
from fastnorm.ops.batch_backward import batch_norm_backward
from fastnorm.ops.group import group_norm, group_norm_backward
from fastnorm.ops.images import normalize_images
from fastnorm.ops.layer import add_layer_norm, layer_norm, layer_norm_backward
from fastnorm.ops.reduction import extremes
from fastnorm.ops.rms import add_rms_norm, rms_norm, rms_norm_backward
from fastnorm.ops.scaling import rescale
from fastnorm.ops.statistics import mean_var
from fastnorm.ops.zscores import zscore
from fastnorm.plan.intake import is_float
from fastnorm.runtime import folder
from fastnorm.runtime.machine import last_level_cache_bytes, streaming_stores_pay, usable_cores
from fastnorm.runtime.threads import get_num_threads, set_num_threads
from fastnorm.state.moments import RunningMoments

# One shape per traversal and size: planar and interleaved, serial and parallel, fused and in two launches.
_SHAPES = {
    "planar, small": (4, 3, 16, 20),
    "planar, large": (4, 3, 64, 64),
    "planar, few channels": (8, 3, 64, 64),
    "interleaved, small": (64, 32),
    "interleaved, large": (4096, 32),
    "interleaved, many columns": (64, 32, 8, 8),
}

# Bytes of a last-level cache beyond which nothing is compiled for stores that bypass it: the arrays would be as large.
_LARGEST_CACHE = 1 << 28


def _calls(dtype: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    for name, shape in _SHAPES.items():
        x = np.linspace(0.0, 1.0, int(np.prod(shape))).reshape(shape).astype(dtype)
        channels = shape[1]
        one, zero = np.ones(channels), np.zeros(channels)
        for gamma, beta in ((one, zero), (None, None)):
            yield f"{name}: training", partial(batch_norm_train, x, gamma, beta)
            yield f"{name}: inference", partial(batch_norm, x, zero, one, gamma, beta)
        yield f"{name}: backward", partial(batch_norm_backward, x, x, zero, one, one)
        axes = tuple(k for k in range(x.ndim) if k != 1)
        yield f"{name}: statistics", partial(mean_var, x, axes)
        yield f"{name}: extrema", partial(extremes, x, axes)
        yield f"{name}: statistics without NaN", partial(mean_var, np.where(x > 0.5, x, np.nan).astype(dtype), axes, nan_policy="omit")
        yield f"{name}: scaling", partial(rescale, x, axes, zero, one)
    for shape in ((64, 32), (4096, 32)):
        x = np.linspace(0.0, 1.0, int(np.prod(shape))).reshape(shape).astype(dtype)
        gamma, mean = np.ones(shape[1], np.float32), np.zeros(shape[0])
        yield f"layer norm {shape}", partial(layer_norm, x, gamma, gamma)
        yield f"RMS norm {shape}", partial(rms_norm, x, gamma)
        yield f"layer norm {shape}: backward", partial(layer_norm_backward, x, x, mean, mean + 1.0, gamma)
        yield f"RMS norm {shape}: backward", partial(rms_norm_backward, x, x, mean + 1.0, gamma)
    yield from _row_calls(dtype)
    yield from _group_calls(dtype)
    yield from _streaming_calls(dtype)
    yield from _block_calls(dtype)
    if np.dtype(dtype).char in "fd":
        yield from _few_calls(dtype)


def _row_calls(dtype: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Of short and of longer rows what is not compiled with their layer norm; and averages, which are written by other loops."""
    for length in (32, 1000):
        x = (np.arange(64 * length) % 7).reshape(64, length).astype(dtype)  # nowhere nearly constant
        gamma = np.ones(length, np.float32)
        yield f"statistics of rows of {length}", partial(mean_var, x, 1)
        yield f"rows of {length}, without parameters", partial(layer_norm, x)
        yield f"rows of {length} added, layer norm", partial(add_layer_norm, x, x, gamma, gamma)
        yield f"rows of {length} added, RMS norm", partial(add_rms_norm, x, x, gamma)
        holed = x.copy()
        holed[::7, ::5] = np.nan
        for axis in (0, 1):
            yield f"averages of rows of {length}, axis {axis}", partial(averages.mean, x, axis)
            yield f"averages of rows of {length} with NaN, axis {axis}", partial(averages.nanmean, holed, axis)
            yield f"standard scores of rows of {length}, axis {axis}", partial(zscore, x, axis)
        yield f"running moments of rows of {length}", partial(_update, x)


def _block_calls(dtype: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Of residual networks, with relu, and what is weighted."""
    for name in ("planar, large", "interleaved, large"):
        shape = _SHAPES[name]
        x = np.linspace(0.0, 1.0, int(np.prod(shape))).reshape(shape).astype(dtype)
        one = np.ones(shape[1], np.float32)
        given, of_batch = (one, one, one, one), (one.astype(np.float64), one.astype(np.float64))
        for residual in (None, x):
            block: dict[str, Any] = {"activation": "relu", "residual": residual}
            yield f"{name}: training, relu", partial(batch_norm_train, x, one, one, **block)
            yield f"{name}: inference, relu", partial(batch_norm, x, *given, **block)
            yield f"{name}: backward, relu", partial(batch_norm_backward, x, x, *of_batch, one, beta=one, **block)
    yield "weighted moments", partial(_update, x, np.ones(len(x), np.float32))


def _update(batch: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
    RunningMoments().update(batch, weights)


def _streaming_calls(dtype: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Arrays so large that results bypass the caches, where they ever do: other loops."""
    itemsize = np.dtype(dtype).itemsize
    cache_bytes = last_level_cache_bytes(itemsize < (4 if is_float(np.dtype(dtype)) else 8))
    if not streaming_stores_pay() or cache_bytes > _LARGEST_CACHE:
        return
    channels = 16
    x = np.ones((channels, int(0.6 * cache_bytes) // itemsize // channels), dtype)
    one, zero = np.ones(channels, np.float32), np.zeros(channels)
    for name, axis, table in (("planar", 0, x), ("planar, one channel", 0, x.reshape(1, -1)), ("interleaved", 1, x.reshape(-1, channels))):
        given, gamma = zero[: table.shape[axis]], one[: table.shape[axis]]
        yield f"{name}, streaming: training", partial(batch_norm_train, table, gamma, gamma, axis=axis)
        yield f"{name}, streaming: inference", partial(batch_norm, table, given, gamma, gamma, gamma, axis=axis)
        yield f"{name}, streaming: backward", partial(batch_norm_backward, table, table, given, given + 1.0, gamma, axis=axis)
    rows = x.reshape(-1)[: x.size // 1024 * 1024].reshape(-1, 1024)
    gamma, mean = np.ones(1024, np.float32), np.zeros(len(rows))
    yield "layer norm, streaming", partial(layer_norm, rows, gamma, gamma)
    yield "RMS norm, streaming", partial(rms_norm, rows, gamma)
    yield "layer norm, streaming: backward", partial(layer_norm_backward, rows, rows, mean, mean + 1.0, gamma)
    yield "RMS norm, streaming: backward", partial(rms_norm_backward, rows, rows, mean + 1.0, gamma)


def _group_calls(dtype: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Large ones: small ones are the same but for a serial driver."""
    for axis, shape in ((1, (4, 8, 64, 64)), (-1, (4, 64, 64, 8))):
        x = np.linspace(0.0, 1.0, int(np.prod(shape))).reshape(shape).astype(dtype)
        gamma = np.ones(8, np.float32)
        for name, groups in (("group", 4), ("instance", 8)):
            stats = np.zeros((4, groups)), np.ones((4, groups))
            yield f"{name} norm, axis {axis}", partial(group_norm, x, groups, gamma, gamma, axis=axis)
            yield f"{name} norm, axis {axis}: backward", partial(group_norm_backward, x, x, groups, *stats, gamma, axis=axis)
    pixels = np.zeros((4, 64, 64, 3), np.uint8)
    yield "images", partial(normalize_images, pixels, [0.5] * 3, [0.5] * 3, dtype=dtype)


def _few_calls(dtype: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls that are compiled as a whole when they come again and again (`ops.few`)."""
    x, gamma = np.linspace(0.0, 1.0, 4 * 32, dtype=dtype).reshape(4, 32), np.ones(32, np.float32)
    ones, of_rows = np.ones(32), np.ones(4)
    calls: dict[str, Callable[[], object]] = {
        "layer norm": partial(layer_norm, x, gamma, gamma),
        "RMS norm": partial(rms_norm, x, gamma),
        "layer norm: backward": partial(layer_norm_backward, x, x, of_rows, of_rows, gamma),
        "RMS norm: backward": partial(rms_norm_backward, x, x, of_rows, gamma),
        "training": partial(batch_norm_train, x, gamma, gamma),
        "inference": partial(batch_norm, x, gamma, gamma, gamma, gamma),
        "backward": partial(batch_norm_backward, x, x, ones, ones, gamma),
    }
    for axis in (1, -1):
        planes, of_groups = x.reshape(2, 4, 4, 4), np.ones((2, 2))
        calls[f"group norm, axis {axis}"] = partial(group_norm, planes, 2, gamma[:4], gamma[:4], axis=axis)
        calls[f"group norm, axis {axis}: backward"] = partial(
            group_norm_backward, planes, planes, 2, of_groups, of_groups, gamma[:4], axis=axis
        )
    for name, call in calls.items():
        yield f"few elements: {name}", partial(_repeat, call)


def _repeat(call: Callable[[], object]) -> None:
    for _ in range(few.PATIENCE + 2):
        call()


def warmup(dtypes: Iterable[Any] = (np.float32,), *, progress: bool = True) -> int:
    """Compile what the usual calls of the library's functions need, so that no later one waits for it.

    Not what rarer options need: activations but relu, 16-bit or no parameters of group norm, sparse tables, `where`.

    Parameters
    ----------
    dtypes : iterable of dtype
        Of the inputs to come.
    progress : bool
        Whether to show a progress bar (with rich, where it is installed).

    Returns
    -------
    int
        Number of calls that are ready.

    Raises
    ------
    TypeError
        If a dtype is not a float dtype.

    Examples
    --------
    >>> import fastnorm as fn
    >>> fn.warmup(["float32", "float16"])  # doctest: +SKIP
    """
    if isinstance(dtypes, str) or not isinstance(dtypes, Iterable):
        raise TypeError(f"dtypes is {dtypes!r} but must be several dtypes; pass for example ['float32'], or [np.float32, np.float64]")
    kinds = [_float_dtype(dtype) for dtype in dtypes]
    calls = _all_calls(kinds)
    with _helped(kinds):
        for call in _tracked(calls, progress):
            call()
    return len(calls)


def _all_calls(kinds: list[np.dtype[Any]]) -> list[Callable[[], object]]:
    return [call for kind in kinds for _, call in _calls(kind)]


@contextlib.contextmanager
def _helped(kinds: list[np.dtype[Any]]) -> Iterator[None]:
    """With another process that begins at the end: what it has compiled is found in the cache, whether or not it comes so far.

    Numba compiles one function at a time in a process. Two took 27 instead of 50 s (float32, a Zen 4).
    """
    if usable_cores() < 2 or not _is_python(sys.executable) or not folder.is_shared():
        yield
        return
    code = f"import sys; sys.path[:] = {sys.path!r}; from fastnorm.state import warmup; warmup.help_from_the_end()"
    environment = {**os.environ, "FASTNORM_CACHE_DIR": str(folder.cache_folder().parent)}
    arguments = [sys.executable, "-c", code, str(get_num_threads()), *(kind.name for kind in kinds)]
    try:
        helper = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            helper.stdin.close()  # type: ignore[union-attr]
        helper.wait()


def _is_python(executable: str | None) -> bool:
    """Where Python is embedded, it may be another program."""
    return "python" in os.path.basename(executable or "").lower() and not getattr(sys, "frozen", False)


def help_from_the_end() -> None:
    """What the helper of `warmup` does, until the standard input ends: with its caller, in whichever way he does."""
    ended = threading.Event()
    threading.Thread(target=_set_at_the_end_of_input, args=(ended,), daemon=True).start()
    set_num_threads(int(sys.argv[1]))
    for call in reversed(_all_calls([_float_dtype(name) for name in sys.argv[2:]])):
        if ended.is_set():
            return
        call()


def _set_at_the_end_of_input(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def _float_dtype(value: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] | None
    try:
        if value == "bfloat16":  # NumPy knows it by its name once ml_dtypes is imported
            import ml_dtypes

            value = ml_dtypes.bfloat16
        dtype = np.dtype(value)
    except ImportError:
        raise TypeError("dtypes holds bfloat16, which is a dtype of ml_dtypes; pip install ml_dtypes") from None
    except TypeError:
        dtype = None
    if dtype is None or not is_float(dtype):
        raise TypeError(f"dtypes holds {value!r}; pass float16, bfloat16, float32 or float64")
    return dtype


def _tracked(calls: list[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        return calls
    try:
        from rich.progress import track
    except ImportError:
        return calls
    tracked: Iterable[Any] = track(calls, description="compiling")
    return tracked
