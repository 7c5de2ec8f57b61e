"""Averages with NumPy's arguments: checked, computed, complained about and delivered as NumPy does."""

from __future__ import annotations

import operator
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops.reduction import Reduced, count_of, extremes, reduce_moments
from fastnorm.ops.widening import widened_moments
from fastnorm.plan.intake import as_array, check_out, is_float, normalize_axes, number, result_dtype

Array = NDArray[Any]
NO_VALUE: Any = np._NoValue
# What `numpy.mean` says; `numpy.nanmean` never had a full stop.
_NO_MEAN = "Mean of empty slice" if np.lib.NumpyVersion(np.__version__) >= "2.4.0" else "Mean of empty slice."
_EXACT = 1 << 53  # integers beyond are not all float64


class Arguments(NamedTuple):
    """As the user passed them. The last is the mean that deviations are taken from."""

    axis: Any
    dtype: Any
    out: Any
    keepdims: Any
    where: Any
    mean: Any = NO_VALUE


class _Call(NamedTuple):
    a: Array
    axes: tuple[int, ...]
    kept: tuple[int, ...]  # shape of the statistics
    shape: tuple[int, ...]  # of the result
    dtype: np.dtype[Any]  # of the result
    out: Array | None
    mask: Array | None
    about: Array | None  # the mean that was given, float64, of the shape of the statistics
    omit: bool

    def moments(self) -> Reduced:
        a = self.a
        if a.size == 0:
            n = count_of(a, self.axes)
            nothing = np.full(self.kept, np.nan)
            return Reduced(nothing, nothing, nothing, n if self.mask is None and not self.omit else np.full(self.kept, n))
        narrower = a.dtype.kind not in "biu" and a.itemsize < 8
        reduce = widened_moments if self.dtype.itemsize == 8 and narrower else reduce_moments
        return reduce(a, self.axes, self.mask, self.omit)

    def deliver(self, values: Array) -> Any:
        values = values.reshape(self.shape)
        if self.out is not None:
            np.copyto(self.out, values, casting="unsafe")
            return self.out
        result = values.astype(self.dtype)
        return result if result.ndim else result[()]

    def sample(self, values: Array) -> Any:
        """Values in the form of NumPy's result."""
        shaped = values.astype(self.dtype).reshape(self.shape)
        return shaped[()] if self.out is None else shaped


def _check(a: Array, given: Arguments, omit: bool) -> _Call | None:
    """None where NumPy itself has to answer: results that are no floats of ours, and most of what it refuses."""
    axes = normalize_axes(None if omit and a.ndim == 0 and given.axis in (0, -1) else given.axis, a.ndim, "a")
    keepdims = given.keepdims is not NO_VALUE and bool(operator.index(given.keepdims))
    full = tuple(1 if k in axes else n for k, n in enumerate(a.shape))
    kept = tuple(n for k, n in enumerate(a.shape) if k not in axes)
    shape = full if keepdims else kept
    about, mask, out = None, None, given.out
    if out is not None and not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    dtype = result_dtype(a.dtype)
    try:
        if given.mean is not NO_VALUE and given.mean is not None:
            mean = as_array("mean", given.mean)
            about = np.broadcast_to(mean, full).astype(np.float64).reshape(kept)
            if a.dtype.kind not in "biu" and not omit:  # NumPy's nanvar subtracts in the dtype of a
                dtype = np.result_type(dtype, given.mean if isinstance(given.mean, int | float) else mean.dtype)
        if given.where is not NO_VALUE and given.where is not True:
            mask = np.broadcast_to(given.where, a.shape)
    except (TypeError, ValueError):
        return None
    if mask is not None and mask.dtype != np.bool_:
        return None
    if given.dtype is not None:
        dtype = np.dtype(given.dtype)
    if not (is_float(dtype) and dtype.isnative) or (out is not None and not is_float(out.dtype)):
        return None
    if out is not None:
        dtype = check_out("out", out, shape).dtype
    return _Call(a, axes, kept, shape, dtype, out, mask, about, omit and a.dtype.kind not in "biu")


def _by_numpy(function: Any, a: Array, options: dict[str, Any]) -> Any:
    """NumPy's answer. Where it refuses, `out` is as it was, and the error one of ours."""
    out = options["out"]
    before: Any = None if out is None else out.copy()
    try:
        return function(a, **options)
    except Exception as error:
        if out is not None and out.flags.writeable:
            np.copyto(out, before)
        if isinstance(error, OverflowError | AttributeError):
            raise ValueError(f"NumPy refuses these arguments of {function.__name__}: {error}") from None
        raise


def mean_of(a: Any, given: Arguments, omit: bool = False) -> Any:
    a = as_array("a", a)
    call = _check(a, given, omit)
    if call is None:
        options = given._asdict()
        del options["mean"]
        return _by_numpy(np.nanmean if omit else np.mean, a, options)
    found = call.moments()
    if np.any(found.count == 0):
        texts = ["Mean of empty slice" if call.omit else _NO_MEAN]
        if not call.omit:
            texts += _divided(call.sample(np.zeros(call.kept)), _counts(call, found)[()])
        for text in texts:
            warnings.warn(text, RuntimeWarning, stacklevel=3)
    return call.deliver(found.mean)


def var_of(a: Any, given: Arguments, ddof: Any, correction: Any = NO_VALUE, omit: bool = False, root: bool = False) -> Any:
    """root : the standard deviation"""
    ddof = degrees(ddof, correction)
    a = as_array("a", a)
    call = _check(a, given, omit)
    if call is None:
        function = (np.nanstd if root else np.nanvar) if omit else (np.std if root else np.var)
        return _by_numpy(function, a, {"ddof": ddof, **given._asdict()})
    found = call.moments()
    var = found.var if call.about is None else _about(call, found, call.about)
    for text in _too_few(call, found, var, ddof):
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    if ddof:
        free = np.maximum(np.subtract(found.count, ddof), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            var = var * found.count / free
            if call.omit:
                var = np.where(free > 0, var, np.nan)
    return call.deliver(np.sqrt(var) if root else var)


def degrees(ddof: Any, correction: Any = NO_VALUE) -> Any:
    """The one of two names that was used. Raises TypeError, ValueError."""
    if correction is not NO_VALUE:
        if ddof != 0:
            raise ValueError(f"ddof and correction can't be provided simultaneously: got {ddof!r} and {correction!r}; pass one of them")
        ddof = correction
    if type(ddof) is int and -_EXACT < ddof < _EXACT:
        return ddof
    checked = number("ddof", ddof, -np.inf, np.inf, "a number, such as 1")
    return checked if type(ddof) is int else ddof


def _about(call: _Call, found: Reduced, centre: Array) -> Array:
    """Mean square of the deviations from a centre that need not be the mean."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = (found.mean - centre) + found.low
        var = found.var + distance * distance
    if call.a.size and np.isnan(var).any():  # infinitely far from any number, on one side or on both
        bounds = extremes(call.a, call.axes, call.mask)
        complete = True if call.omit else bounds.count == found.count
        infinite = (bounds.high == np.inf) | (bounds.low == -np.inf)
        var = np.where(infinite & complete & np.isfinite(centre), np.inf, var)
    return var


def _counts(call: _Call, found: Reduced) -> Array:
    """Elements of every statistic as NumPy counts them, in the shape of the result."""
    count = np.asarray(found.count).astype(np.intp)
    return count.reshape(call.shape) if count.ndim else count


def _too_few(call: _Call, found: Reduced, var: Array, ddof: Any) -> list[str]:
    """What NumPy says where no more elements than `ddof` are left."""
    counts = _counts(call, found)
    lacking = counts - ddof <= 0
    if call.omit:
        return ["Degrees of freedom <= 0 for slice."] if np.any(np.broadcast_to(lacking, call.shape)) else []
    if not np.any(lacking):
        return []
    texts = ["Degrees of freedom <= 0 for slice"]
    if call.about is None:  # its sums for the mean keep all dimensions
        sums = np.zeros(call.shape, call.dtype)
        texts += _divided(sums if call.a.ndim else sums[()], counts[()])
    squares = np.where(np.broadcast_to(counts == 0, call.shape), 0.0, np.sign(var.reshape(call.shape)))
    return texts + _divided(call.sample(squares), np.maximum(counts - ddof, 0)[()])


class _Log(list[str]):
    """What `np.errstate` writes to."""

    def write(self, text: str) -> None:
        self.append(text.removeprefix("Warning: ").strip())


def _divided(numerator: Any, denominator: Any) -> list[str]:
    """What NumPy says of a division, for the line of the user; what he wants otherwise than warned of, happens here."""
    log = _Log()
    with np.errstate(divide="log", invalid="log", call=log):
        numerator / denominator
    wanted = np.geterr()
    modes = {text: wanted["divide" if text.startswith("divide") else "invalid"] for text in log}
    if not set(modes.values()) <= {"warn", "ignore"}:
        numerator / denominator
        return []
    return [text for text in log if modes[text] == "warn"]
