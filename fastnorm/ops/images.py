"""Normalization of images: cast, scale, channel statistics and memory order in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm import kernels
from fastnorm.ops import passes
from fastnorm.ops.launch import Launch
from fastnorm.ops.scaling import rescale
from fastnorm.plan.geometry import BATCH, KEPT, REDUCED
from fastnorm.plan.intake import as_array, check_out, is_float, needs_detour, number, writes_twice
from fastnorm.plan.memory import View, kind_of
from fastnorm.plan.problem import Layout, Problem, arrange
from fastnorm.runtime import recycling
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]
_ORDERS = ("last", "first")
_LAYOUT = Layout((BATCH, REDUCED, REDUCED, KEPT), two_phases=False, batched=True, any_step=True)
_LARGEST = float(np.finfo(np.float64).max)


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
    x = as_array("images", images)
    source, target_order = _order("channels", channels), _order("to", to)
    if x.ndim not in (3, 4):
        raise ValueError(f"images has {x.ndim} dimensions but must have 3 or 4; pass one image (H, W, C) or several (N, H, W, C)")
    factor = number("scale", scale, -_LARGEST, _LARGEST, "finite and not 0; pass for example 1/255")
    if factor == 0.0:
        raise ValueError("scale is 0, which makes all images the same; pass for example 1/255")
    last = x if source == "last" else np.moveaxis(x, -3, -1)  # the axes as (..., H, W, C)
    n = last.shape[-1]
    centre, spread = _per_channel("mean", mean, n), _per_channel("std", std, n)
    if not (spread != 0.0).all():
        raise ValueError(f"std is {std!r} but must not be 0, by which is divided; pass 1.0 to leave a channel unscaled")
    shape = last.shape if target_order == "last" else (*last.shape[:-3], n, *last.shape[-3:-1])
    wanted = recycling.empty(shape, _result_dtype(dtype)) if out is None else check_out("out", out, shape)
    if x.size == 0:
        return wanted
    if writes_twice(wanted):
        raise ValueError(f"out has strides {wanted.strides}, so that elements share memory; pass an array without broadcasting")
    y = np.empty(shape, wanted.dtype) if needs_detour(wanted, (x,)) else wanted
    y_last = np.asarray(y) if target_order == "last" else np.moveaxis(y, -3, -1)
    if source == target_order:
        rescale(last, tuple(range(x.ndim - 1)), centre / factor, factor / spread, out=y_last)
    else:
        _turn(last, y_last, centre / factor, factor / spread)
    if y is not wanted:
        np.copyto(wanted, y, casting="same_kind")
    return wanted


def _turn(x: Array, out: Array, centre: Array, factor: Array) -> None:
    """From one memory order of the channels, which are the last axis of both arrays, to the other."""
    if x.ndim == 3:
        x, out = x[np.newaxis], out[np.newaxis]
    single = kind_of(x.dtype) in ("f4", "half", "bfloat16", "u1", "i1", "u2", "i2", "b1")
    kind = np.float32 if single and out.dtype != np.float64 else np.float64
    high = centre.astype(kind)
    parameters = np.stack([high, (centre - high).astype(kind), factor.astype(kind)])
    problem, computed = arrange(_LAYOUT, (x, out, None, None, None), get_num_threads()), out
    if not _walkable(problem):  # misaligned, of the other byte order, or pixels without one distance: a copy
        x = np.array(x, x.dtype.newbyteorder("="), order="C")
        problem = arrange(_LAYOUT, (x, out, None, None, None), get_num_threads())
    if not _walkable(problem):
        computed = np.empty(out.shape, out.dtype.newbyteorder("="))
        problem = arrange(_LAYOUT, (x, computed, None, None, None), get_num_threads())
    operands = passes.storages(problem)
    Launch(problem, kernels.images, "turn_images")(operands[0], operands[1], parameters, problem.table)
    problem.finish()
    if computed is not out:
        np.copyto(out, computed)


def _walkable(problem: Problem) -> bool:
    """Whether the kernel can go through the pixels of source and result with one step each."""
    strided = any(isinstance(carrier, View) and carrier.strided for carrier in problem.carriers)
    return not strided and min(problem.geometry.outer, problem.geometry.inner) == 1


def _order(name: str, value: Any) -> str:
    if value not in _ORDERS:
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
    kind: np.dtype[Any] = np.dtype(dtype)
    if not is_float(kind):
        raise TypeError(f"dtype is {kind}; pass float16, bfloat16, float32 or float64")
    return kind.newbyteorder("=")
