"""What all layers share: mode, parameters with their gradients, what backward needs, and saved state."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnorm.ops.door import rounded
from fastnorm.plan.intake import as_array, integer, is_float, normalize_axis, overlaps

Array = NDArray[Any]
Self = TypeVar("Self", bound="Layer")

_NO_FORWARD = "backward needs a forward pass before it; call the layer on x first"
_OVERWRITTEN = "backward needs the input of the last forward pass, which out= overwrote; pass another array as out"


def count_of(name: str, value: Any) -> int:
    """A positive integer. Raises TypeError, ValueError."""
    number = integer(name, value, "a positive integer")
    if number < 1:
        raise ValueError(f"{name} is {value!r} but must be at least 1; pass a positive integer")
    return number


def axis_of(value: Any) -> int:
    """An axis of inputs whose rank is not known yet. Raises TypeError."""
    return integer("axis", value, "the channel axis of x, for example 1")


def check_channels(name: str, x: Array, axis: int, channels: int) -> int:
    """That x is an input of a layer with that many channels; returns the channel axis, non-negative. Raises AxisError, ValueError."""
    if x.ndim < 2:
        raise np.exceptions.AxisError(
            f"{name} has {x.ndim} dimensions but the layer needs a channel axis and at least one more; pass for example {name}[np.newaxis]"
        )
    index = normalize_axis(axis, x.ndim)
    if x.shape[index] != channels:
        raise ValueError(
            f"{name} has shape {x.shape} with {x.shape[index]} channels along axis {axis} but the layer has {channels}; "
            f"pass {name} with {channels} channels there, or choose another axis of the layer"
        )
    return index


class Layer:
    """A layer with parameters of one shape.

    Attributes
    ----------
    gamma, beta, dgamma, dbeta : array, or None
        Learned scale and shift; their gradients, which every `backward` overwrites.
    training : bool
    dtype : dtype
        Of parameters and running statistics.
    """

    _state: tuple[str, ...] = ("gamma", "beta")  # attributes that state_dict holds, where they are not None

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, affine: bool, *, shifts: bool = True) -> None:
        kind = np.dtype(dtype)
        if not is_float(kind):
            raise TypeError(f"dtype is {kind} but parameters are floats; pass np.float32 or np.float64")
        shifts = affine and shifts
        self.dtype = kind
        self.training = True
        self.affine = bool(affine)
        self.gamma: Array | None = np.ones(shape, kind) if affine else None
        self.beta: Array | None = np.zeros(shape, kind) if shifts else None
        self.dgamma: Array | None = np.zeros(shape, kind) if affine else None
        self.dbeta: Array | None = np.zeros(shape, kind) if shifts else None
        self._saved: Any = None
        self._unable = _NO_FORWARD

    def __call__(self, x: ArrayLike, **options: Any) -> Array:
        return self.forward(x, **options)

    def forward(self, x: ArrayLike, *, out: Array | None = None) -> Array:
        raise NotImplementedError

    def backward(self, dy: ArrayLike, *, out: Array | None = None) -> Any:
        raise NotImplementedError

    def train(self: Self, mode: bool = True) -> Self:
        """Training, where running statistics are updated. Returns the layer."""
        self.training = bool(mode)
        return self

    def eval(self: Self) -> Self:
        """Evaluation, where running statistics are used. Returns the layer."""
        return self.train(False)

    def parameters(self) -> list[tuple[Array, Array]]:
        """Pairs of a parameter and its gradient, both live: an optimizer changes the first in place.

        Examples
        --------
        >>> import fastnorm as fn
        >>> layer = fn.layers.BatchNorm(3)
        >>> for value, gradient in layer.parameters():
        ...     value -= 0.1 * gradient
        """
        pairs = ((self.gamma, self.dgamma), (self.beta, self.dbeta))
        return [(value, gradient) for value, gradient in pairs if value is not None and gradient is not None]

    def _remember(self, out: Array | None, saved: Any, *inputs: Array | None) -> None:
        """Keep what backward needs; nothing if the output was written over one of the inputs."""
        lost = out is not None and any(a is not None and np.may_share_memory(a, out) and overlaps(a, out) for a in inputs)
        self._saved, self._unable = (None, _OVERWRITTEN) if lost else (saved, _NO_FORWARD)

    def _remembered(self) -> Any:
        if self._saved is None:
            raise RuntimeError(self._unable)
        return self._saved

    def _keep_gradients(self, dgamma: Array, dbeta: Array | None = None) -> None:
        for kept, new in ((self.dgamma, dgamma), (self.dbeta, dbeta)):
            if kept is not None and new is not None:
                (kept[...],) = rounded(kept.dtype, new)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are without the activations of the last forward pass."""
        return {**vars(self), "_saved": None, "_unable": _NO_FORWARD}

    def _names(self) -> list[str]:
        return [name for name in self._state if getattr(self, name) is not None]

    def state_dict(self) -> dict[str, Any]:
        """Copies of parameters and running statistics, by name."""
        return {name: np.array(getattr(self, name)) for name in self._names()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state, all of it or nothing.

        Raises
        ------
        KeyError
            If a name is missing or unknown.
        ValueError, TypeError
            If a shape differs, or a value is no number.
        """
        names = self._names()
        for name in (*(n for n in names if n not in state), *(n for n in state if n not in names)):
            problem = "missing from" if name in names else "unknown to"
            raise KeyError(f"{name!r} is {problem} the state of this {type(self).__name__}, which has {', '.join(names) or 'none'}")
        loaded = {name: self._loadable(name, state[name]) for name in names}
        for name, value in loaded.items():
            held = getattr(self, name)
            if isinstance(held, np.ndarray):
                held[...] = value
            else:
                setattr(self, name, value)

    def _loadable(self, name: str, value: Any) -> Any:
        held = getattr(self, name)
        if np.shape(value) != np.shape(held):
            raise ValueError(
                f"{name} has shape {np.shape(value)} but the layer has {np.shape(held)}; pass the state of a layer of the same sizes"
            )
        if isinstance(held, np.ndarray):
            return np.array(as_array(name, value))  # perhaps one of the arrays that are written
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"{name} is {value!r} but must be an integer; pass the state that state_dict returned") from None
        if number < 0:
            raise ValueError(f"{name} is {number} but must be at least 0; pass the state that state_dict returned")
        return number
