"""What the public functions ask of their arguments, once, before anything is written."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.plan.intake import (
    check_out,
    computes_single,
    is_float,
    needs_detour,
    number,
    operand,
    overlaps,
    result_dtype,
    writes_twice,
    wrong_length,
)
from fastnorm.runtime import recycling

Array = NDArray[Any]
_FLOAT64 = np.dtype(np.float64)
ACTIVATIONS = ("relu", "leaky_relu", "silu", "gelu", "gelu_tanh")


def check_activation(activation: Any) -> None:
    if activation is not None and not (isinstance(activation, str) and activation in ACTIVATIONS):
        raise ValueError(f"activation is {activation!r} but must be None or one of {', '.join(ACTIVATIONS)}")


def activation_tag(activation: str | None) -> Any:
    return None if activation is None else kernels.operands.ACTIVATIONS[activation]


class Output(NamedTuple):
    """Where a result is computed, and the user's array that it has to reach."""

    computed: Array  # plain
    wanted: Array  # as the user passed it
    detour: bool = False

    def deliver(self) -> Array:
        if self.detour:
            with np.errstate(all="ignore"):
                np.copyto(self.wanted, self.computed, casting="same_kind")
        return self.wanted


def output(name: str, out: Any, x: Array, inputs: tuple[Array | None, ...]) -> Output:
    """A fresh array like x, or the user's; a temporary if the user's partly overlaps an input."""
    if out is None:
        fresh = recycling.empty_like(x, result_dtype(x.dtype))
        return Output(fresh, fresh)
    wanted = check_out(name, out, x.shape)
    if writes_twice(wanted):
        raise ValueError(f"{name} has strides {out.strides}, so that elements share memory; pass an array without broadcasting")
    if needs_detour(wanted, inputs):
        return Output(np.empty_like(wanted, subok=False), wanted, detour=True)
    return Output(wanted if type(wanted) is np.ndarray else np.asarray(wanted), wanted)


def apart(parameter: Any, *outputs: Output) -> Any:
    """A parameter that no output overwrites while it is still needed."""
    if parameter is not None and any(np.may_share_memory(parameter, o.computed) for o in outputs):
        return np.array(parameter)
    return parameter


def in_dtype(target: Output, dtype: np.dtype[Any]) -> Output:
    """Computed in this dtype, whatever that of the user's array."""
    if target.computed.dtype == dtype:
        return target
    return Output(np.empty_like(target.computed, dtype, subok=False), target.wanted, detour=True)


def rounded(dtype: Any, *gradients: Array) -> tuple[Array, ...]:
    """Gradients of parameters in the dtype of these: beyond its range infinite, without a warning."""
    if all(values.dtype == dtype for values in gradients):
        return gradients
    with np.errstate(all="ignore"):
        return tuple([values.astype(dtype, copy=False) for values in gradients])


def gradient_of(dy: Any, x: Array) -> Array:
    """dy as an operand beside x. Sums are float32 or float64 as x has it: a wider dy is rounded once, in a copy."""
    grad = operand("dy", dy, x.shape)
    if computes_single(x.dtype) and not computes_single(grad.dtype):
        with np.errstate(all="ignore"):
            return grad.astype(np.float32)
    return grad


def gradient_dtype(gamma: Any) -> Any:
    """float64 unless gamma has another float dtype, then that."""
    if gamma is None:
        return _FLOAT64
    dtype = getattr(gamma, "dtype", _FLOAT64)
    if not isinstance(dtype, np.dtype):  # of another library
        dtype = np.asarray(gamma).dtype
    if dtype.char in "fd" and dtype.isnative:  # nearly every call
        return dtype
    return dtype.newbyteorder("=") if is_float(dtype) else _FLOAT64


class RunningPair(NamedTuple):
    """The user's running statistics, checked, and how they move."""

    mean: Array | None
    var: Array | None
    momentum: float
    unbiased: bool

    def update(self, mean: Array, var: Array, count: float) -> None:
        """In place, in float64, rounded once to the dtype of the running arrays."""
        # element.moments.moving_average, for vectors of any dtype and any strides
        weight = self.momentum
        with np.errstate(all="ignore"):  # y is there, and one of the two may be
            if self.mean is not None:
                self.mean[...] = (1.0 - weight) * self.mean.astype(np.float64) + weight * mean
            if self.var is not None:
                bessel = count / (count - 1.0) if self.unbiased else 1.0
                self.var[...] = (1.0 - weight) * self.var.astype(np.float64) + (weight * bessel) * var


def _running_vector(name: str, value: Any, channels: int, axis: int) -> Array | None:
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a numpy array, because it is updated in place; got {type(value).__name__}")
    if not is_float(value.dtype):
        raise TypeError(f"{name} has dtype {value.dtype}; pass an array of float32 or float64")
    if value.shape != (channels,):
        raise ValueError(wrong_length(name, value.shape, channels, axis) + " or None")
    if not value.flags.writeable:
        raise ValueError(f"{name} is read-only but is updated in place; pass a writable array, for example {name}.copy()")
    return value


def momentum_of(value: Any) -> float:
    return number("momentum", value, 0.0, 1.0, "between 0 and 1, the weight of the new batch; pass for example 0.1")


def running_pair(
    running_mean: Any, running_var: Any, momentum: Any, unbiased: bool, channels: int, count: int, axis: int, out: Array | None
) -> RunningPair:
    """Checked running statistics. out : what the call writes elsewhere. Raises TypeError, ValueError."""
    pair = RunningPair(
        _running_vector("running_mean", running_mean, channels, axis),
        _running_vector("running_var", running_var, channels, axis),
        momentum_of(momentum),
        bool(unbiased),
    )
    named = (("running_mean", pair.mean), ("running_var", pair.var), ("out", out))
    written = [(name, array) for name, array in named if array is not None]
    for (name, array), (other, its) in itertools.combinations(written, 2):
        if overlaps(array, its):
            raise ValueError(f"{name} and {other} share memory but are written one after the other; pass an array for each")
    if pair.var is not None and pair.unbiased and count == 1:
        raise ValueError(
            "x has one value per channel, from which no unbiased variance follows for running_var; pass a larger batch or unbiased=False"
        )
    return pair
