"""Compile ahead of the first call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fastnorm.ops.batch import batch_norm, batch_norm_train
from fastnorm.ops.batch_backward import batch_norm_backward
from fastnorm.ops.layer import layer_norm, layer_norm_backward
from fastnorm.ops.reduction import extremes
from fastnorm.ops.rms import rms_norm, rms_norm_backward
from fastnorm.ops.scaling import rescale
from fastnorm.ops.statistics import mean_var
from fastnorm.plan.intake import is_float

# One shape per traversal and size: planar and interleaved, serial and parallel, fused and in two launches.
_SHAPES = {
    "planar, small": (4, 3, 16, 20),
    "planar, large": (4, 3, 64, 64),
    "planar, few channels": (8, 3, 64, 64),
    "interleaved, small": (64, 32),
    "interleaved, large": (4096, 32),
    "interleaved, many columns": (64, 32, 8, 8),
}


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


def warmup(dtypes: Iterable[Any] = (np.float32,), *, progress: bool = True) -> int:
    """Compile what the library's functions need, so that no later call waits for it.

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
    kinds = [np.dtype(dtype) for dtype in dtypes]
    for kind in kinds:
        if not is_float(kind):
            raise TypeError(f"dtypes holds {kind}; pass float16, bfloat16, float32 or float64")
    calls = [(f"{kind} {name}", call) for kind in kinds for name, call in _calls(kind)]
    for _, call in _tracked(calls, progress):
        call()
    return len(calls)


def _tracked(calls: list[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        return calls
    try:
        from rich.progress import track
    except ImportError:
        return calls
    tracked: Iterable[Any] = track(calls, description="compiling")
    return tracked
