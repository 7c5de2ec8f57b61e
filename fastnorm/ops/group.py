"""Group and instance normalization: forward, backward."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops import gradient_passes, passes
from fastnorm.ops.calls import memorable, recall, remember, result_of, settled, signature
from fastnorm.ops.door import activation_tag, apart, check_activation, gradient_dtype, gradient_of, output, rounded
from fastnorm.ops.few import again, find, offer
from fastnorm.ops.repeat import backpropagator, normalizer
from fastnorm.ops.rows import statistic
from fastnorm.plan.geometry import BATCH, KEPT, REDUCED, VARYING
from fastnorm.plan.intake import as_array, eps_of, integer, normalize_axis, vector
from fastnorm.plan.problem import Layout, Problem, arrange
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]
Vector = NDArray[np.float64]


class GroupNorm(NamedTuple):
    """Result of `group_norm` and `instance_norm` with ``return_stats=True``."""

    y: Array
    mean: Vector
    rstd: Vector


class GroupNormGradients(NamedTuple):
    """Result of `group_norm_backward` and `instance_norm_backward`."""

    dx: Array
    dgamma: Array
    dbeta: Array


class _Groups(NamedTuple):
    """The channel axis, how many channels it has, and into how many groups they fall."""

    axis: int
    channels: int
    n: int

    def split(self, array: Array | None) -> Array | None:
        """The channel axis as groups and channels of a group: a view, whatever the strides."""
        if array is None:
            return None
        shape, axis = array.shape, self.axis
        step = array.strides[axis]
        each = self.channels // self.n
        strides = (*array.strides[:axis], step * each, step, *array.strides[axis + 1 :])
        if array.flags.c_contiguous:
            return array.reshape(*shape[:axis], self.n, each, *shape[axis + 1 :])
        return np.lib.stride_tricks.as_strided(array, (*shape[:axis], self.n, each, *shape[axis + 1 :]), strides)

    def plan(self, accumulates: bool, *operands: Array | None) -> Problem:
        x = operands[0]
        assert x is not None
        layout = _layout(x.ndim + 1, self.axis, accumulates)
        return arrange(layout, tuple(self.split(a) for a in operands), get_num_threads())


@lru_cache(maxsize=256)
def _layout(ndim: int, axis: int, accumulates: bool) -> Layout:
    """Of arrays whose channel axis is split into groups, `axis`, and channels of a group."""
    labels = [REDUCED] * ndim
    labels[0], labels[axis], labels[axis + 1] = BATCH, KEPT, VARYING
    return Layout(tuple(labels), two_phases=True, batched=False, accumulates=accumulates)


EVERY_CHANNEL = "every channel"


def _groups_of(x: Array, axis: Any, num_groups: Any) -> _Groups:
    """Raises AxisError, TypeError, ValueError. num_groups : or `EVERY_CHANNEL`, which users cannot pass."""
    if x.ndim < 2:
        raise np.exceptions.AxisError(f"x has {x.ndim} dimensions but axis 0 is its samples and another its channels; pass at least two")
    index = normalize_axis(axis, x.ndim)
    if index == 0:
        raise ValueError(f"axis is {axis!r}, the samples of x, but must name its channels; pass 1 for (N, C, ...) or -1 for (N, ..., C)")
    channels = x.shape[index]
    if num_groups is EVERY_CHANNEL:
        return _Groups(index, channels, max(channels, 1))
    n = integer("num_groups", num_groups, f"the number of groups, a divisor of {channels}")
    if n < 1 or channels % n:
        raise ValueError(f"num_groups is {n} but axis {index} of x has {channels} channels; pass a divisor of {channels}")
    return _Groups(index, channels, n)


def _forward(
    x: ArrayLike, num_groups: Any, gamma: Any, beta: Any, axis: Any, eps: Any, activation: str | None, out: Any, wanted: bool
) -> Any:  # `wanted`: statistics, which may be missing otherwise
    options = (_forward, num_groups, type(num_groups), axis, type(axis), eps)
    few = find(x, options) if activation is None else None
    if few is not None:
        y, stats = few.output() if out is None else out, few.statistics(wanted)
        if few.run((x, gamma, beta, y), stats, eps):
            return result_of(GroupNorm, _with_statistics(y, stats, (few.shape[0], -1)))
    key = signature((*options, activation, wanted), out, x, gamma, beta)
    known = recall(key, out, x, gamma, beta)
    if known is not None:
        again(x, options)
        return GroupNorm(*known(x, gamma, beta, out))
    plain = settled(x, gamma, beta)
    if plain is not None:
        return _forward(plain[0], num_groups, plain[1], plain[2], axis, eps, activation, out, wanted)
    arrays = (x, gamma, beta)
    x = as_array("x", x)
    groups = _groups_of(x, axis, num_groups)
    scale, shift = vector("gamma", gamma, groups.channels, groups.axis), vector("beta", beta, groups.channels, groups.axis)
    eps = eps_of(eps)
    check_activation(activation)
    target = output("out", out, x, (x,))
    shape = (x.shape[0], groups.n if groups.channels else 0)
    if x.size == 0:
        return GroupNorm(target.wanted, np.full(shape, np.nan), np.full(shape, np.nan))
    if out is not None:
        scale, shift = apart(scale, target), apart(shift, target)
    problem = groups.plan(False, x, target.computed, None, None, None)
    weights = passes.weights(problem, x, scale), passes.weights(problem, x, shift)
    tag = activation_tag(activation)
    if memorable(key, out, *arrays):
        s = problem.schedule
        if activation is None and not problem.per_element and (s.rows or (s.fused and not s.planar)):
            name = "normalize_short_group_rows" if passes.is_short(problem) else "normalize_group_rows"
            offer(x, options, name if s.rows else "normalize_group_columns", problem)
        forward = normalizer(problem, passes.normalize_pass(problem, eps, tag, wanted=wanted), x, target.computed, gamma, beta)
        remember(key, lambda *like: _with_statistics(*forward(*like), shape), out, *arrays)
    stats = passes.normalize(problem, *weights, eps, tag)
    problem.finish()
    return GroupNorm(target.deliver(), stats[0].reshape(shape), stats[3].reshape(shape))


def _with_statistics(y: Array, stats: Array, shape: tuple[int, int]) -> tuple[Array, Vector | None, Vector | None]:
    mean, rstd = (stats[0].reshape(shape), stats[3].reshape(shape)) if stats.size else (None, None)
    return y, mean, rstd


def _backward(
    dy: ArrayLike, x: ArrayLike, num_groups: Any, mean: Any, rstd: Any, gamma: Any, axis: Any,
    activation: str | None, beta: Any, out: Any, source: str,
) -> GroupNormGradients:  # fmt: skip
    options = (_backward, num_groups, type(num_groups), axis, type(axis))
    few = find(x, options) if activation is beta is None else None
    if few is not None:
        dx, gradients = few.output() if out is None else out, np.empty((2, few.shape[axis]), gradient_dtype(gamma))
        if few.run((dy, x, mean, rstd, gamma, dx), gradients):
            return result_of(GroupNormGradients, (dx, gradients[0], gradients[1]))
    arrays = (x, dy, mean, rstd, gamma, beta)
    key = signature((*options, activation), out, *arrays)
    known = recall(key, out, *arrays)
    if known is not None:
        again(x, options)
        return GroupNormGradients(*known(*arrays, None, out))
    plain = settled(*arrays)
    if plain is not None:
        x, dy, mean, rstd, gamma, beta = plain
        return _backward(dy, x, num_groups, mean, rstd, gamma, axis, activation, beta, out, source)
    x = as_array("x", x)
    groups = _groups_of(x, axis, num_groups)
    shape = (x.shape[0], groups.n if groups.channels else 0)
    grad = gradient_of(dy, x)
    centre, spread = statistic("mean", mean, shape, source), statistic("rstd", rstd, shape, source)
    scale, shift = vector("gamma", gamma, groups.channels, groups.axis), vector("beta", beta, groups.channels, groups.axis)
    check_activation(activation)
    target = output("out", out, x, (x, grad))
    param_dtype = gradient_dtype(gamma)
    if x.size == 0:
        return GroupNormGradients(target.wanted, np.zeros(groups.channels, param_dtype), np.zeros(groups.channels, param_dtype))
    if out is not None:
        centre, spread, scale, shift = (apart(p, target) for p in (centre, spread, scale, shift))
    problem = groups.plan(True, x, target.computed, None, grad, None)
    if grad is dy and memorable(key, out, *arrays):
        tag, of_parameters = activation_tag(activation), ((groups.channels,), param_dtype)
        backward = backpropagator(problem, tag, True, (x, target.computed, grad), mean, rstd, gamma, beta, *of_parameters)
        remember(key, backward, out, *arrays)
        s = problem.schedule
        if activation is beta is None and not problem.per_element and (s.planes or (s.fused and not s.planar)):
            offer(x, options, "backward_group_planes" if s.planes else "backward_group_columns", problem)
    weights = passes.weights(problem, x, scale), passes.weights(problem, x, shift)
    dgamma, dbeta = gradient_passes.gradient(problem, centre.reshape(-1), spread.reshape(-1), *weights, activation_tag(activation))
    problem.finish()
    return GroupNormGradients(target.deliver(), *rounded(param_dtype, dgamma, dbeta))


def group_norm(
    x: ArrayLike,
    num_groups: int,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    activation: str | None = None,
    return_stats: bool = False,
    out: Array | None = None,
) -> Any:
    """Group normalization.

    ``y = activation((x - mean) * rstd * gamma + beta)``, mean and variance of every sample over groups of
    neighbouring channels and all further axes.

    Parameters
    ----------
    x : array_like
        At least two dimensions, axis 0 the samples: (N, C, H, W) with ``axis=1``, (N, H, W, C) with ``-1``, of any rank.
    num_groups : int
        A divisor of the number of channels.
    gamma, beta : array_like (C,), optional
        Learned scale and shift, of any float dtype.
    axis : int
        The channel axis, not 0.
    eps : float
        Added to the variance inside the square root.
    activation : {None, "relu", "leaky_relu", "silu", "gelu", "gelu_tanh"}
    return_stats : bool
        Whether to return mean and rstd too, which backward needs.
    out : array, same shape as x, optional
        Receives `y`; may be `x` itself.

    Returns
    -------
    y : array like x
        Of the dtype of x (float64 for integers).
    mean, rstd : float64 array (N, num_groups)
        With `return_stats`.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    Source: Wu, He 2018, equations 1, 2 and 7.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0)
    array([[-1.,  1., -1.,  1.]])
    """
    all_of_it = bool(return_stats)  # what is neither true nor false says so before anything is written
    result = _forward(x, num_groups, gamma, beta, axis, eps, activation, out, all_of_it)
    return result if all_of_it else result.y


def group_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    num_groups: int,
    mean: ArrayLike,
    rstd: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int = 1,
    activation: str | None = None,
    beta: ArrayLike | None = None,
    out: Array | None = None,
) -> GroupNormGradients:
    """Gradients of group normalization.

    Parameters
    ----------
    dy : array_like, same shape as x
        Gradient of the loss with respect to `y`.
    x : array_like
        Input of the forward pass.
    mean, rstd : array_like (N, num_groups)
        As `group_norm` returned them.
    num_groups, gamma, axis, activation, beta
        As in the forward pass; `beta` matters only to an activation, whose argument is computed again.
    out : array like x, optional
        Receives `dx`; may be `dy` or `x` itself.

    Returns
    -------
    dx : array like x
    dgamma, dbeta : array (C,)
        float64, or the float dtype of gamma.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    ``dx = rstd * (g - mean(g) - xhat * mean(g * xhat))`` with ``g = dy * gamma``, means over a group.
    Source: Wu, He 2018, differentiated as in Ioffe, Szegedy 2015, section 3.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> y, mean, rstd = fn.group_norm(x, 2, eps=0.0, return_stats=True)
    >>> fn.group_norm_backward(np.ones((1, 4)), x, 2, mean, rstd).dgamma
    array([-1.,  1., -1.,  1.])
    """
    return _backward(dy, x, num_groups, mean, rstd, gamma, axis, activation, beta, out, "group_norm")


def instance_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    activation: str | None = None,
    return_stats: bool = False,
    out: Array | None = None,
) -> Any:
    """Instance normalization: group normalization with a group for every channel.

    Parameters
    ----------
    x, gamma, beta, axis, eps, activation, return_stats, out
        As in `group_norm`.

    Returns
    -------
    y : array like x
        Of one value per instance: activation(beta).
    mean, rstd : float64 array (N, C)
        With `return_stats`.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    Source: Ulyanov, Vedaldi, Lempitsky 2016, equation 4.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]]), eps=0.0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    all_of_it = bool(return_stats)
    result = _forward(x, EVERY_CHANNEL, gamma, beta, axis, eps, activation, out, all_of_it)
    return result if all_of_it else result.y


def instance_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    rstd: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int = 1,
    activation: str | None = None,
    beta: ArrayLike | None = None,
    out: Array | None = None,
) -> GroupNormGradients:
    """Gradients of instance normalization.

    Parameters
    ----------
    dy, x, gamma, axis, activation, beta, out
        As in `group_norm_backward`.
    mean, rstd : array_like (N, C)
        As `instance_norm` returned them.

    Returns
    -------
    dx : array like x
    dgamma, dbeta : array (C,)
        float64, or the float dtype of gamma.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    Source: Ulyanov, Vedaldi, Lempitsky 2016, differentiated as in Ioffe, Szegedy 2015, section 3.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])
    >>> y, mean, rstd = fn.instance_norm(x, eps=0.0, return_stats=True)
    >>> fn.instance_norm_backward(np.ones((1, 2, 2)), x, mean, rstd).dbeta
    array([2., 2.])
    """
    return _backward(dy, x, EVERY_CHANNEL, mean, rstd, gamma, axis, activation, beta, out, "instance_norm")
