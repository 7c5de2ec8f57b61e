"""Batch normalization: training, inference, backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops import passes
from fastnorm.ops.calls import memorable, recall, remember, result_of, settled, signature
from fastnorm.ops.door import (
    RunningPair,
    activation_tag,
    apart,
    check_activation,
    momentum_of,
    output,
    running_pair,
)
from fastnorm.ops.few import again, find, offer, offer_walk
from fastnorm.ops.repeat import normalizer
from fastnorm.plan.geometry import KEPT, REDUCED
from fastnorm.plan.intake import as_array, eps_of, normalize_axis, operand, vector
from fastnorm.plan.problem import Layout, Problem, arrange
from fastnorm.runtime import recycling
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]
Vector = NDArray[np.float64]


class BatchNormTraining(NamedTuple):
    """Result of `batch_norm_train`."""

    y: Array
    mean: Vector
    rstd: Vector


@lru_cache(maxsize=256)
def channel_layout(ndim: int, axis: int, two_phases: bool) -> Layout:
    """One statistic per index of the channel axis."""
    return Layout(tuple(KEPT if k == axis else REDUCED for k in range(ndim)), two_phases)


def channels_of(x: Array, axis: Any) -> tuple[int, int]:
    """The channel axis, non-negative, and its length."""
    if x.ndim < 2:
        raise np.exceptions.AxisError(
            f"x has {x.ndim} dimensions but batch normalization needs a channel axis and at least one more; "
            "pass for example x[:, np.newaxis] with axis=1"
        )
    index = normalize_axis(axis, x.ndim)
    return index, x.shape[index]


def batch_norm_train(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    momentum: float = 0.1,
    unbiased: bool = True,
    activation: str | None = None,
    residual: ArrayLike | None = None,
    out: Array | None = None,
) -> BatchNormTraining:
    """Batch normalization with the statistics of the batch.

    ``y = activation((x - mean) * rstd * gamma + beta + residual)``, mean and variance over all axes but `axis`.

    Parameters
    ----------
    x : array_like
        At least two dimensions, any layout: ``axis=1`` for (N, C, H, W) and (N, C), ``-1`` for
        (N, H, W, C), ``0`` for feature-major (C, N).
    gamma, beta : array_like (C,), optional
        Learned scale and shift, of any float dtype.
    axis : int
        The channel axis.
    eps : float
        Added to the variance inside the square root.
    running_mean, running_var : array (C,), optional
        Updated in place after `y` is complete: ``running = (1 - momentum) * running + momentum * batch``.
        An empty batch leaves them alone.
    momentum : float
        Weight of the new batch, between 0 and 1. (Keras, Flax and ONNX publish the complement.)
    unbiased : bool
        Whether `running_var` receives the variance with n - 1 in the denominator.
    activation : {None, "relu", "leaky_relu", "silu", "gelu", "gelu_tanh"}
    residual : array_like, same shape as x, optional
        Added before the activation.
    out : array, same shape as x, optional
        Receives `y`; may be `x` itself.

    Returns
    -------
    y : array like x
        Of the dtype of x (float64 for integers).
    mean, rstd : float64 array (C,)
        Of the batch; ``rstd = 1 / sqrt(var + eps)`` with the biased variance.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written. One value per channel with `unbiased` and `running_var` is a ValueError.

    Notes
    -----
    Source: Ioffe, Szegedy 2015, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> y, mean, rstd = fn.batch_norm_train(x, eps=0.0)
    >>> y
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean
    array([ 2., 20.])
    """
    options = (batch_norm_train, axis, type(axis), eps)
    distinct = running_mean is None or running_var is None or _are_distinct(running_mean, running_var)
    few = find(x, options) if activation is None and residual is None and distinct else None
    if few is not None:
        y, stats = few.output() if out is None else out, few.statistics()
        if few.run((x, gamma, beta, running_mean, running_var, y), stats, eps, momentum, unbiased):
            return result_of(BatchNormTraining, (y, stats[0], stats[3]))
    key = signature(
        (batch_norm_train, axis, type(axis), eps, unbiased, activation), out, x, residual, gamma, beta, running_mean, running_var
    )
    known = recall(key, out, x, residual, gamma, beta, running_mean, running_var) if distinct else None
    if known is not None:
        again(x, options)
        result: BatchNormTraining = known(x, residual, gamma, beta, running_mean, running_var, out, momentum)
        return result
    plain = settled(x, gamma, beta, residual)
    if plain is not None:
        x, gamma, beta, residual = plain
        return batch_norm_train(
            x, gamma, beta, axis=axis, eps=eps, running_mean=running_mean, running_var=running_var, momentum=momentum, unbiased=unbiased,
            activation=activation, residual=residual, out=out,
        )  # fmt: skip
    inputs = (x, residual, gamma, beta, running_mean, running_var)
    call = TrainingCall(x, gamma, beta, axis, eps, activation, residual, out)
    count = call.x.size // call.channels if call.channels else 0
    running = None
    if running_mean is not None or running_var is not None or type(momentum) is not float or momentum != 0.1:
        running = running_pair(running_mean, running_var, momentum, unbiased, call.channels, count, call.axis, out)
    if call.x.size == 0:
        return BatchNormTraining(call.target.wanted, np.full(call.channels, np.nan), np.full(call.channels, np.nan))
    if memorable(key, out, *inputs):
        repeated = _trainer(call.x, call.target.computed, call.extra, gamma, beta, call.axis, call.eps, activation, bool(unbiased), options)
        remember(key, repeated, out, *inputs)
    problem = call.problem()
    stats = passes.normalize(problem, call.parameters[0], call.parameters[1], call.eps, call.activation)
    problem.finish()
    y = call.target.deliver()
    if running is not None:
        running.update(stats[0], stats[2], count)
    return BatchNormTraining(y, stats[0], stats[3])


def _are_distinct(running_mean: Any, running_var: Any) -> bool:
    """False where the general way has to look whether they share memory, which it refuses: one of the two is a view then."""
    if running_mean is running_var:
        return False
    if getattr(running_mean, "base", None) is None and getattr(running_var, "base", None) is None:
        return True
    return not np.may_share_memory(running_mean, running_var)


class TrainingCall:
    """Arguments of `batch_norm_train` but the running statistics, checked; nothing is written."""

    def __init__(self, x: Any, gamma: Any, beta: Any, axis: Any, eps: Any, activation: Any, residual: Any, out: Any) -> None:
        self.x = x = as_array("x", x)
        self.axis, self.channels = axis, channels = channels_of(x, axis)
        scale, shift = vector("gamma", gamma, channels, axis), vector("beta", beta, channels, axis)
        self.eps = eps_of(eps)
        check_activation(activation)
        self.activation = activation_tag(activation)
        self.extra = None if residual is None else operand("residual", residual, x.shape)
        self.target = output("out", out, x, (x, self.extra))
        self.parameters = (scale, shift) if out is None else (apart(scale, self.target), apart(shift, self.target))

    def problem(self) -> Problem:
        """Not for an empty x."""
        layout = channel_layout(self.x.ndim, self.axis, True)
        return arrange(layout, (self.x, self.target.computed, self.extra, None, None), get_num_threads())


def _trainer(
    x: Array,
    out: Array,
    residual: Any,
    gamma: Any,
    beta: Any,
    axis: int,
    eps: float,
    activation: Any,
    unbiased: bool,
    options: tuple[Any, ...],
) -> Callable[..., BatchNormTraining]:
    """Training for other arrays like these, all contiguous."""
    problem = arrange(channel_layout(x.ndim, axis, True), (x, out, residual, None, None), get_num_threads())
    walk = passes.normalize_pass(problem, eps, activation_tag(activation))
    if activation is None and residual is None and not problem.schedule.rows:
        offer_walk(x, options, "normalize", problem)
    forward, count = normalizer(problem, walk, x, out, gamma, beta, residual), x.size // x.shape[axis]

    def call(
        x: Any, residual: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, out: Any, momentum: Any
    ) -> BatchNormTraining:
        weight = momentum if type(momentum) is float and momentum == 0.1 else momentum_of(momentum)
        y, stats = forward(x, gamma, beta, out, residual)
        if running_mean is not None or running_var is not None:
            RunningPair(running_mean, running_var, weight, unbiased).update(stats[0], stats[2], count)
        return BatchNormTraining(y, stats[0], stats[3])

    return call


def batch_norm(
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """Batch normalization with given statistics: inference.

    ``y = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)``

    Parameters
    ----------
    x : array_like
        At least two dimensions, any layout, as in `batch_norm_train`.
    mean, var : array_like (C,)
        Running or population statistics.
    gamma, beta, axis, eps, activation, residual, out
        As in `batch_norm_train`.

    Returns
    -------
    array like x

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    Source: Ioffe, Szegedy 2015, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.batch_norm(np.array([[1.0, 10.0], [3.0, 30.0]]), mean=[2.0, 20.0], var=[1.0, 100.0], eps=0.0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    options = (batch_norm, axis, type(axis), eps)
    few = find(x, options) if activation is None and residual is None else None
    if few is not None:
        y = few.output() if out is None else out
        if few.run((x, mean, var, gamma, beta, y), eps):
            return y
    key = signature((batch_norm, axis, type(axis), eps, activation), out, x, residual, mean, var, gamma, beta)
    known = recall(key, out, x, residual, mean, var, gamma, beta)
    if known is not None:
        again(x, options)
        result: Array = known(x, residual, mean, var, gamma, beta, out)
        return result
    plain = settled(x, mean, var, gamma, beta, residual)
    if plain is not None:
        return batch_norm(*plain[:5], axis=axis, eps=eps, activation=activation, residual=plain[5], out=out)
    inputs = (x, residual, mean, var, gamma, beta)
    x = as_array("x", x)
    axis, channels = channels_of(x, axis)
    centre, spread = vector("mean", mean, channels, axis), vector("var", var, channels, axis)
    if centre is None or spread is None:
        raise TypeError("mean and var must be arrays; pass running statistics, or call batch_norm_train")
    scale, shift = vector("gamma", gamma, channels, axis), vector("beta", beta, channels, axis)
    eps = eps_of(eps)
    check_activation(activation)
    extra = None if residual is None else operand("residual", residual, x.shape)
    target = output("out", out, x, (x, extra))
    if x.size == 0:
        return target.wanted
    if memorable(key, out, *inputs):
        remember(key, _applier(*inputs, target.computed, axis, eps, activation, options), out, *inputs)
    if out is not None:
        centre, spread = apart(centre, target), apart(spread, target)
        scale, shift = apart(scale, target), apart(shift, target)
    problem = arrange(channel_layout(x.ndim, axis, False), (x, target.computed, extra, None, None), get_num_threads())
    passes.apply(problem, centre, None, spread, scale, shift, eps, activation_tag(activation))
    problem.finish()
    return target.deliver()


def _applier(
    x: Any,
    residual: Any,
    mean: Any,
    var: Any,
    gamma: Any,
    beta: Any,
    out: Array,
    axis: int,
    eps: float,
    activation: Any,
    options: tuple[Any, ...],
) -> Callable[..., Array]:
    """Inference for other arrays like these, all contiguous."""
    problem = arrange(channel_layout(x.ndim, axis, False), (x, out, residual, None, None), get_num_threads())
    if activation is None and residual is None:
        offer(x, options, "apply_planes" if problem.schedule.planar else "apply_columns", problem)
    walk = passes.apply_pass(problem, eps, activation_tag(activation))
    of_x, of_out, of_residual = (passes.flattener(a) for a in (x, out, residual))
    of_mean, of_var, of_gamma, of_beta = (passes.weigher(problem, x, a) for a in (mean, var, gamma, beta))
    shape, dtype = x.shape, out.dtype

    def call(x: Any, residual: Any, mean: Any, var: Any, gamma: Any, beta: Any, out: Any) -> Array:
        y = recycling.empty(shape, dtype) if out is None else out
        walk((of_x(x), of_out(y), of_residual(residual)), of_mean(mean), None, of_var(var), of_gamma(gamma), of_beta(beta))
        return y

    return call
