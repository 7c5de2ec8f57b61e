"""Normalization of images: cast, scale, channel statistics and memory order in one pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm import kernels
from fastnorm.ops import passes
from fastnorm.ops.calls import recall, remember, signature
from fastnorm.ops.launch import Launch
from fastnorm.ops.scaling import rescale, rescaler
from fastnorm.plan.geometry import BATCH, KEPT, REDUCED
from fastnorm.plan.intake import as_array, check_out, is_float, needs_detour, number, writes_twice
from fastnorm.plan.memory import View, kind_of, lent
from fastnorm.plan.problem import Layout, Problem, arrange
from fastnorm.runtime import recycling
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]
_ORDERS = ("last", "first")
_LAYOUT = Layout((BATCH, REDUCED, REDUCED, KEPT), two_phases=False, batched=True, any_step=True)
_LARGEST = float(np.finfo(np.float64).max)
# Bytes of images that are copied into the order of memory first, in cache, and then go the short way: a crop of 224 x 224 took 193 us
# without that, and 29 with it; mirrored 419 and 157 (two cores of a Zen 4).
_COPIED = 1 << 20
# Of others, whose plan takes longer than all the rest.
_TINY = 1 << 15
_NUMBERS = (float, int, np.float64, np.float32)
_MOST_CHANNELS = 64
_UNKNOWN: list[Any] = []


def normalize_images(
    images: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    scale: float = 1 / 255,
    channels: str = "last",
    to: str = "first",
    dtype: Any = np.float32,
    out: Array | None = None,
) -> Array:
    """Images as networks take them: ``(images * scale - mean) / std``, cast and laid out in the same pass.

    Parameters
    ----------
    images : array_like (N, H, W, C) or (H, W, C); (N, C, H, W) or (C, H, W) with ``channels="first"``
        uint8, uint16 or any other dtype that the library reads; any strides.
    mean, std : array_like (C,) or number
        Of the scaled channels, for example those of ImageNet.
    scale : float
        1/255 takes uint8 to [0, 1]; pass 1/65535 for uint16 and 1.0 for floats that are there already.
    channels, to : {"last", "first"}
        Where the channels are in `images`, and in the result.
    dtype : dtype
        Of the result: float16, bfloat16, float32 or float64.
    out : array of the shape of the result, any strides, optional
        Receives it; its dtype takes the place of `dtype`.

    Returns
    -------
    array (N, C, H, W), or as `to` says; without N where `images` has none

    Raises
    ------
    ValueError, TypeError
        Before anything is written.

    Notes
    -----
    Arithmetic is float32 for integers of 8 and 16 bits and floats of up to 32, else float64. The centre ``mean / scale`` is
    subtracted in two parts, as everywhere in the library. Source of the recipe: Krizhevsky, Sutskever, Hinton 2012.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.normalize_images(np.array([[[0, 255, 51]]], np.uint8), mean=[0.5, 0.5, 0.0], std=[0.5, 0.5, 0.2])[:, 0, 0]
    array([-1.,  1.,  1.], dtype=float32)
    """
    given: Any = images
    backwards = False
    if type(images) is np.ndarray and not images.flags.c_contiguous and isinstance(channels, str):
        given, backwards = _in_order(images, channels, to)
    options = (normalize_images, backwards, channels, to, dtype, _key_of(scale), _key_of(mean), _key_of(std))
    key = signature(options, out, given)
    known = recall(key, out, given)
    if known is not None:
        result: Array = known(given, out)
        return result
    x = as_array("images", given)
    source, target = _order("channels", channels), _order("to", to)
    if x.ndim not in (3, 4):
        raise ValueError(f"images has {x.ndim} dimensions but must have 3 or 4; pass one image (H, W, C) or several (N, H, W, C)")
    factor = number("scale", scale, -_LARGEST, _LARGEST, "finite and not 0; pass for example 1/255")
    if factor == 0.0:
        raise ValueError("scale is 0, which makes all images the same; pass for example 1/255")
    last = _channels_last(x, source)
    n = last.shape[-1]
    centre, spread = _per_channel("mean", mean, n), _per_channel("std", std, n)
    if not (spread != 0.0).all():
        raise ValueError(f"std is {std!r} but must not be 0, by which is divided; pass 1.0 to leave a channel unscaled")
    with np.errstate(over="ignore", under="ignore"):
        distances, gains = centre / factor, factor / spread
    if not (np.isfinite(distances).all() and np.isfinite(gains).all()):
        raise ValueError(
            f"mean / scale or scale / std is beyond float64 with scale {factor!r}, mean {mean!r}, std {std!r}; pass numbers nearer to 1"
        )
    shape = last.shape if target == "last" else (*last.shape[:-3], n, *last.shape[-3:-1])
    wanted = recycling.empty(shape, _result_dtype(dtype)) if out is None else check_out("out", out, shape)
    if x.size == 0:
        return wanted
    if writes_twice(wanted):
        raise ValueError(f"out has strides {wanted.strides}, so that elements share memory; pass an array without broadcasting")
    change = _Change(source, target, backwards, distances, gains)
    if _are_plain(given, wanted):
        repeated = change.repeated(x, wanted)
        remember(key, repeated, out, given)
        return repeated(given, wanted)
    # Asked of the axes in one order: over its own memory an image may be scaled, but not turned.
    y = np.empty(shape, wanted.dtype) if needs_detour(change.turned(wanted), (last,)) else np.asarray(wanted)
    change.apply(x, y)
    if not np.may_share_memory(y, wanted):
        np.copyto(wanted, y, casting="same_kind")
    return wanted


class _Change(NamedTuple):
    """What becomes of checked images."""

    source: str  # of _ORDERS
    target: str
    backwards: bool  # whether channels of the source have the opposite order
    centre: Array
    factor: Array

    def apply(self, x: Array, out: Array) -> None:
        if x.ndim == 4 and not x[0].flags.c_contiguous:
            first = _copy(x[0])
            if first.nbytes <= _COPIED and _are_plain(first, out[0]):
                walk = self.repeated(first, out[0])
                for image, result in zip(x, out, strict=True):
                    walk(_copy(image), result)
                return
        if self.source == self.target:
            rescale(x, self._pixels(x), self.centre, self.factor, out=out)
        else:
            self._turn(_channels_last(x, self.source), self.turned(out))

    def turned(self, out: Array) -> Array:
        """With the channels last, in the order of the source."""
        last = _channels_last(out, self.target)
        return last[..., ::-1] if self.backwards else last

    def repeated(self, x: Array, out: Array) -> Callable[[Array, Array | None], Array]:
        """Of further images like these."""
        walk = rescaler(x, self._pixels(x), self.centre, self.factor, out) if self.source == self.target else self._turner(x, out)
        of_out, of_x = passes.flattener(out), passes.flattener(x)
        shape, dtype, read_only = out.shape, out.dtype, not x.flags.writeable

        def call(images: Array, out: Array | None) -> Array:
            y = recycling.empty(shape, dtype) if out is None else out
            walk(of_x(lent(images) if read_only else images), of_out(y))
            return y

        return call

    def _pixels(self, x: Array) -> tuple[int, ...]:
        """All axes but that of the channels."""
        channels = x.ndim - (1 if self.source == "last" else 3)
        return tuple(k for k in range(x.ndim) if k != channels)

    def _parameters(self, x: Array, out: Array) -> Array:
        single = kind_of(x.dtype) in ("f4", "half", "bfloat16", "u1", "i1", "u2", "i2", "b1")
        ordinary = max(np.abs(self.centre).max(), np.abs(self.factor).max()) < np.finfo(np.float32).max
        kind = np.float32 if single and ordinary and out.dtype != np.float64 else np.float64
        order = slice(None, None, -1 if self.backwards else 1)
        centre, factor = self.centre[order], self.factor[order]
        high, gain = centre.astype(kind), factor.astype(kind)
        return np.stack([high, gain, -((centre - high) * gain).astype(kind)])

    def _turner(self, x: Array, out: Array) -> Callable[[Any, Any], None]:
        """From one memory order of the channels to the other: a function of the storages of contiguous arrays."""
        problem = _arrange(_channels_last(x, self.source), self.turned(out))
        launch, parameters, table = Launch(problem, kernels.images, "turn_images"), self._parameters(x, out), problem.table
        return lambda src, dst: launch(src, dst, parameters, table)

    def _turn(self, x: Array, out: Array) -> None:
        """The same of any arrays. x, out : with the channels last"""
        problem, computed = _arrange(x, out), out
        if not _walkable(problem):  # misaligned, of the other byte order, or pixels without one distance: a copy
            x = np.array(x, x.dtype.newbyteorder("="), order="C")
            problem = _arrange(x, out)
        if not _walkable(problem):
            computed = np.empty(out.shape, out.dtype.newbyteorder("="))
            problem = _arrange(x, computed)
        operands = passes.storages(problem)
        Launch(problem, kernels.images, "turn_images")(operands[0], operands[1], self._parameters(x, out), problem.table)
        problem.finish()
        if computed is not out:
            np.copyto(out, computed)


def _channels_last(images: Array, order: str) -> Array:
    """The axes as (..., H, W, C)."""
    return images if order == "last" else np.moveaxis(images, -3, -1)


def _in_order(images: Array, channels: str, to: str) -> tuple[Array, bool]:
    """Images as they lie in memory, in a copy if it is small, and whether their channels lie backwards (BGR), which a turn sets right."""
    backwards = channels == "last" and to == "first" and images.ndim > 2 and images.strides[-1] < 0
    if backwards:
        images = images[..., ::-1]
    if not images.flags.c_contiguous and images.nbytes <= (_COPIED if _rows_are_apart(images, channels) else _TINY):
        images = _copy(images)
    return images, backwards


def _rows_are_apart(images: Array, channels: str) -> bool:
    """Whether pixels have no one distance, as those of a crop; the others are read where they lie, for 0.75 times the time of the copy."""
    if images.ndim < 3:
        return False
    row, pixel = (-3, -2) if channels == "last" else (-2, -1)
    return bool(images.strides[row] != images.shape[pixel] * images.strides[pixel])


def _copy(images: Array) -> Array:
    """Contiguous; whole pixels at a time, as NumPy's loops over the three numbers of each take three times as long."""
    width = images.shape[-1] * images.itemsize
    if images.dtype.kind not in "biuf" or images.strides[-1] != images.itemsize or not width:
        return np.array(images, order="C")
    return np.array(images.view(f"V{width}"), order="C").view(images.dtype)


def _arrange(x: Array, out: Array) -> Problem:
    """Of one image or several, with the channels last."""
    if x.ndim == 3:
        x, out = x[np.newaxis], out[np.newaxis]
    return arrange(_LAYOUT, (x, out, None, None, None), get_num_threads())


def _are_plain(images: Any, out: Array) -> bool:
    """Whether these can be read and written as they lie, and apart."""
    if type(images) is not np.ndarray or not (images.flags.c_contiguous and images.flags.aligned and images.dtype.isnative):
        return False
    lendable = images.flags.writeable or images.dtype.kind != "V"
    return lendable and type(out) is np.ndarray and out.flags.carray and out.dtype.isnative and not np.may_share_memory(images, out)


def _key_of(value: Any) -> Hashable:
    """Numbers as a part of the kind of a call; what may change without notice has no hash."""
    if type(value) is np.ndarray and value.size <= _MOST_CHANNELS:
        return value.shape, value.dtype, value.tobytes()
    if type(value) in (list, tuple) and all(type(v) in _NUMBERS for v in value):
        return tuple(value)
    return value if type(value) in _NUMBERS else _UNKNOWN  # type: ignore[return-value]


def _walkable(problem: Problem) -> bool:
    """Whether the kernel can go through the pixels of source and result with one step each."""
    strided = any(isinstance(carrier, View) and carrier.strided for carrier in problem.carriers)
    return not strided and min(problem.geometry.outer, problem.geometry.inner) == 1


def _order(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in _ORDERS:
        raise ValueError(f"{name} is {value!r} but must be 'last' for (..., H, W, C) or 'first' for (..., C, H, W)")
    return str(value)


def _per_channel(name: str, value: Any, channels: int) -> NDArray[np.float64]:
    values = np.asarray(as_array(name, value), np.float64)
    if values.shape not in ((), (channels,)):
        raise ValueError(f"{name} has shape {values.shape} but images have {channels} channels; pass {channels} numbers or one")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is {value!r} but must be finite; pass statistics without NaN and infinity")
    return np.broadcast_to(values, (channels,))


def _result_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        kind: Any = None if dtype is None else np.dtype(dtype)
    except TypeError:
        kind = dtype
    if not (isinstance(kind, np.dtype) and is_float(kind)):
        raise TypeError(f"dtype is {kind}; pass float16, bfloat16, float32 or float64")
    return kind.newbyteorder("=")
