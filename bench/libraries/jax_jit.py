"""JAX: the formulas of the papers, each compiled by XLA as one function.

Statistics of 16-bit floats are computed in float32. Results are new arrays, in memory that the allocator keeps warm in a row
with ``out=``. Gradients are the closed form with the given statistics, as everybody else's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from bench import environment, images
from bench.libraries import averages
from bench.problems import AVERAGES, Problem
from bench.providers import Prepared, Results, Setup

jax.config.update("jax_enable_x64", True)  # otherwise float64 becomes float32

with environment.some_cores(environment.stated_threads()):  # XLA has as many threads as it finds cores
    jax.devices()

Axes = tuple[int, ...]


def _along(values: jax.Array, axis: int, ndim: int) -> jax.Array:
    return values.reshape([-1 if k == axis else 1 for k in range(ndim)])


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def _moments(x: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array]:
    mean = x.mean(axes, keepdims=True)
    return mean, jnp.square(x - mean).mean(axes, keepdims=True)


@partial(jax.jit, static_argnames=("axes", "axis", "eps"))
def _normalized(x: jax.Array, gamma: jax.Array, beta: jax.Array, *, axes: Axes, axis: int, eps: float) -> tuple[jax.Array, ...]:
    wide = _wide(x)
    mean, var = _moments(wide, axes)
    rstd = jax.lax.rsqrt(var + eps)
    y = (wide - mean) * rstd * _along(gamma, axis, x.ndim) + _along(beta, axis, x.ndim)
    return y.astype(x.dtype), mean, rstd


@partial(jax.jit, static_argnames=("axes",))
def _standardized(x: jax.Array, *, axes: Axes) -> jax.Array:
    mean, var = _moments(x, axes)
    return (x - mean) * jax.lax.rsqrt(var)


@partial(jax.jit, static_argnames=("axis", "eps"))
def _inference(x: jax.Array, mean: jax.Array, var: jax.Array, gamma: jax.Array, beta: jax.Array, *, axis: int, eps: float) -> jax.Array:
    mean, var, gamma, beta = (_along(v, axis, x.ndim) for v in (mean, var, gamma, beta))
    return ((_wide(x) - mean) * (jax.lax.rsqrt(var + eps) * gamma) + beta).astype(x.dtype)


@partial(jax.jit, static_argnames=("eps",))
def _rms(x: jax.Array, gamma: jax.Array, *, eps: float) -> jax.Array:
    wide = _wide(x)
    return (wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + eps) * gamma).astype(x.dtype)


@partial(jax.jit, static_argnames=("eps",))
def _added(x: jax.Array, residual: jax.Array, gamma: jax.Array, beta: jax.Array, *, eps: float) -> tuple[jax.Array, jax.Array]:
    total = x + residual
    return _normalized(total, gamma, beta, axes=(1,), axis=1, eps=eps)[0], total


@partial(jax.jit, static_argnames=("grouped", "axes", "axis", "eps"))
def _grouped(x: jax.Array, gamma: jax.Array, beta: jax.Array, *, grouped: Axes, axes: Axes, axis: int, eps: float) -> jax.Array:
    wide = _wide(x).reshape(grouped)
    mean, var = _moments(wide, axes)
    xhat = ((wide - mean) * jax.lax.rsqrt(var + eps)).reshape(x.shape)
    return (xhat * _along(gamma, axis, x.ndim) + _along(beta, axis, x.ndim)).astype(x.dtype)


@partial(jax.jit, static_argnames=("grouped", "axes", "axis", "others", "centred"))
def _gradients(
    dy: jax.Array,
    x: jax.Array,
    mean: jax.Array,
    rstd: jax.Array,
    gamma: jax.Array,
    *,
    grouped: Axes,
    axes: Axes,
    axis: int,
    others: Axes,
    centred: bool,
) -> tuple[jax.Array, ...]:
    """grouped : shape in which a statistic is reduced over whole axes. Source: Ioffe, Szegedy 2015, section 3."""
    wide, grad = _wide(x), _wide(dy)
    xhat = (wide.reshape(grouped) - mean) * rstd
    g = (grad * _along(gamma, axis, x.ndim)).reshape(grouped)
    dx = g - xhat * (g * xhat).mean(axes, keepdims=True)
    if centred:
        dx -= g.mean(axes, keepdims=True)
    dgamma = (grad * xhat.reshape(x.shape)).sum(others)
    return (dx * rstd).reshape(x.shape).astype(x.dtype), dgamma, grad.sum(others)


@jax.jit
def _image(x: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    return jnp.moveaxis((x.astype(jnp.float32) / 255 - mean) / std, -1, 1)


def _ready(function: Callable[..., Any], *arrays: Any, **options: Any) -> Callable[[], Any]:
    """Arrays come to JAX once; a call ends when its results are there."""
    given = [jnp.asarray(array) for array in arrays]
    return lambda: jax.block_until_ready(function(*given, **options))


def _statistics(p: Problem, *values: np.ndarray) -> list[np.ndarray]:
    return [v.astype(np.float64 if p.dtype == np.float64 else np.float32) for v in values]


def _reduced(p: Problem) -> Axes:
    return (p.axis,) if p.rowwise else tuple(axis for axis in range(p.x.ndim) if axis != p.axis)


def _groups(p: Problem) -> tuple[Axes, Axes]:
    """Shape with a group's channels apart, and the axes of a statistic."""
    n, c, *space = p.dims
    each = c // p.groups
    if p.key.layout == "NHWC":
        return (n, *space, p.groups, each), (*range(1, 1 + len(space)), len(space) + 2)
    return (n, p.groups, each, *space), tuple(range(2, 3 + len(space)))


def _y(call: Callable[[], Any], of: Callable[[Any], Any] = np.asarray) -> Prepared:
    return Prepared(call, lambda returned: {"y": of(returned)})


def train(p: Problem, fresh: bool) -> Prepared:
    call = _ready(_normalized, p.x, p.gamma, p.beta, axes=_reduced(p), axis=p.axis, eps=p.eps)
    names = ("y", "mean", "rstd")
    return Prepared(call, lambda returned: dict(zip(names, map(np.asarray, returned), strict=True)))


def standardize(p: Problem, fresh: bool) -> Prepared:
    return _y(_ready(_standardized, p.x, axes=_reduced(p)))


def inference(p: Problem, fresh: bool) -> Prepared:
    return _y(_ready(_inference, p.x, *_statistics(p, p.mean, p.var), p.gamma, p.beta, axis=p.axis, eps=p.eps))


def rms_norm(p: Problem, fresh: bool) -> Prepared:
    return _y(_ready(_rms, p.x, p.gamma, eps=p.eps))


def add_layer_norm(p: Problem, fresh: bool) -> Prepared:
    return _y(_ready(_added, p.x, p.residual, p.gamma, p.beta, eps=p.eps), lambda returned: np.asarray(returned[0]))


def group_norm(p: Problem, fresh: bool) -> Prepared:
    """Instance norm too, as groups of one channel."""
    grouped, axes = _groups(p)
    return _y(_ready(_grouped, p.x, p.gamma, p.beta, grouped=grouped, axes=axes, axis=p.axis, eps=p.eps))


def backward(p: Problem, fresh: bool) -> Prepared:
    """Of batch, layer, RMS, group and instance norm."""
    grouped, axes = _groups(p) if p.operation.startswith(("group", "instance")) else (p.shape, _reduced(p))
    kept = tuple(1 if k in axes else size for k, size in enumerate(grouped))
    centred = not p.operation.startswith("rms")
    rstd = p.rstd.reshape(kept)
    mean = p.mean.reshape(kept) if centred else np.zeros_like(rstd)
    options = {"grouped": tuple(grouped), "axes": axes, "axis": p.axis, "centred": centred}
    others = tuple(axis for axis in range(p.x.ndim) if axis != p.axis)
    call = _ready(_gradients, p.dy, p.x, *_statistics(p, mean, rstd), p.gamma, others=others, **options)

    def results(returned: Any) -> Results:
        names = ("dx", "dgamma", "dbeta") if centred else ("dx", "dgamma")
        return dict(zip(names, map(np.asarray, returned), strict=False))

    return Prepared(call, results)


def mean_var(p: Problem, fresh: bool) -> Prepared:
    moments = jax.jit(_moments, static_argnames="axes")
    call = _ready(moments, p.x, axes=_reduced(p))
    return Prepared(call, lambda returned: {"mean": np.asarray(returned[0]).ravel(), "var": np.asarray(returned[1]).ravel()})


def normalize_images(p: Problem, fresh: bool) -> Prepared:
    return _y(_ready(_image, p.x, images.MEAN.astype(np.float32), images.STD.astype(np.float32)))


def _average(name: str) -> Setup:
    function = jax.jit(getattr(jnp, name), static_argnames="axis")
    return averages.setup(lambda x, axis: jax.block_until_ready(function(x, axis=axis)), jnp.asarray)


_FUNCTIONS = (train, standardize, inference, rms_norm, add_layer_norm, group_norm, backward, mean_var, normalize_images)
_ALIASES = {
    "layer_norm": train,
    "instance_norm": group_norm,
    **{f"{family}_norm_backward": backward for family in ("layer", "rms", "group", "instance")},
}
SETUPS: dict[str, Setup] = {f.__name__: f for f in _FUNCTIONS} | _ALIASES | {name: _average(name) for name in AVERAGES}
