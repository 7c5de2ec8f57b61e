"""Batch renormalization: training, backward. Inference is `batch_norm` with the running statistics."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops import gradient_passes, passes
from fastnorm.ops.batch import channel_layout, channels_of
from fastnorm.ops.door import RunningPair, apart, gradient_dtype, gradient_of, output, rounded, running_pair
from fastnorm.plan.intake import as_array, eps_of, number, vector
from fastnorm.plan.problem import arrange
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]
Vector = NDArray[np.float64]


class BatchRenormTraining(NamedTuple):
    """Result of `batch_renorm_train`."""

    y: Array
    mean: Vector
    rstd: Vector
    r: Vector
    d: Vector


class BatchRenormGradients(NamedTuple):
    """Result of `batch_renorm_backward`."""

    dx: Array
    dgamma: Array
    dbeta: Array


class Limits(NamedTuple):
    """How far the batch may be moved to the running statistics."""

    r: float
    d: float

    def correction(self, stats: Vector, running: RunningPair, eps: float) -> tuple[Vector, Vector]:
        """r and d of every channel. Source: Ioffe 2017, algorithm 1."""
        mean, low, var = stats[:3]
        assert running.mean is not None
        assert running.var is not None
        r, d = np.ones(var.size), np.zeros(var.size)
        with np.errstate(all="ignore"):  # a running variance of 0 gives inf, which is clipped
            sigma = np.sqrt(running.var.astype(np.float64) + eps)
            distance = mean - running.mean.astype(np.float64)
            # What rounding the mean to float64 lost counts as well, but a running mean that is the rounded mean is no distance.
            distance += np.where(distance == 0.0, 0.0, low)
            if self.r > 1.0:  # else running statistics of any value, NaN too, are without effect
                r = np.clip(np.sqrt(var + eps) / sigma, 1.0 / self.r, self.r)
            if self.d > 0.0:
                d = np.clip(distance / sigma, -self.d, self.d)
        return r, d


def check_limits(r_max: Any, d_max: Any) -> Limits:
    """Raises TypeError, ValueError."""
    return Limits(
        number("r_max", r_max, 1.0, inf, "at least 1, the bound of r and 1/r; pass for example 3.0, or 1 for plain batch norm"),
        number("d_max", d_max, 0.0, inf, "at least 0, the bound of abs(d); pass for example 5.0, or 0 for plain batch norm"),
    )


def batch_renorm_train(
    x: ArrayLike,
    running_mean: Array,
    running_var: Array,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    momentum: float = 0.01,
    r_max: float = 3.0,
    d_max: float = 5.0,
    unbiased: bool = True,
    out: Array | None = None,
) -> BatchRenormTraining:
    """Batch renormalization: batch norm in training that agrees with batch norm in inference.

    ``y = ((x - mean) * rstd * r + d) * gamma + beta``, mean and variance of the batch, over all axes but `axis`; with
    ``sigma = sqrt(var + eps)``, ``r = clip(sigma / running_sigma, 1/r_max, r_max)`` and
    ``d = clip((mean - running_mean) / running_sigma, -d_max, d_max)``. Where nothing is clipped, that is
    ``batch_norm(x, running_mean, running_var)``.

    Parameters
    ----------
    x : array_like
        At least two dimensions, any layout, as in `batch_norm_train`.
    running_mean, running_var : array (C,)
        r and d come from their values before the update. Updated in place after `y` is complete:
        ``running = (1 - momentum) * running + momentum * batch``. An empty batch leaves them alone.
    gamma, beta : array_like (C,), optional
        Learned scale and shift, of any float dtype.
    axis : int
        The channel axis.
    eps : float
        Added to the variances inside the square roots.
    momentum : float
        Weight of the new batch, between 0 and 1.
    r_max, d_max : float
        At least 1, at least 0; inf for no bound. With 1 and 0 this is `batch_norm_train`, to the bit: training
        begins there, and the bounds are raised from step to step.
    unbiased : bool
        Whether `running_var` receives the variance with n - 1 in the denominator.
    out : array, same shape as x, optional
        Receives `y`; may be `x` itself.

    Returns
    -------
    y : array like x
        Of the dtype of x (float64 for integers).
    mean, rstd : float64 array (C,)
        Of the batch; ``rstd = 1 / sqrt(var + eps)`` with the biased variance.
    r, d : float64 array (C,)
        Constants to `batch_renorm_backward`. Of an empty batch NaN, as mean and rstd.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written. One value per channel with `unbiased` is a ValueError.

    Notes
    -----
    Source: Ioffe 2017, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x, mean, var = np.array([[1.0], [3.0]]), np.array([1.0]), np.array([4.0])
    >>> y, *_, r, d = fn.batch_renorm_train(x, mean, var, eps=0.0)
    >>> y
    array([[0.],
           [1.]])
    >>> r, d
    (array([0.5]), array([0.5]))
    """
    x = as_array("x", x)
    axis, channels = channels_of(x, axis)
    scale, shift = vector("gamma", gamma, channels, axis), vector("beta", beta, channels, axis)
    eps, limits = eps_of(eps), check_limits(r_max, d_max)
    if running_mean is None or running_var is None:
        absent = "running_mean" if running_mean is None else "running_var"
        raise TypeError(f"{absent} is None but must be an array of shape ({channels},); pass one, or call batch_norm_train")
    count = x.size // channels if channels else 0
    target = output("out", out, x, (x,))
    running = running_pair(running_mean, running_var, momentum, unbiased, channels, count, axis, out)
    if x.size == 0:
        return BatchRenormTraining(target.wanted, *(np.full(channels, np.nan) for _ in range(4)))
    problem = arrange(channel_layout(x.ndim, axis, True), (x, target.computed, None, None, None), get_num_threads())
    if out is not None:
        scale, shift = apart(scale, target), apart(shift, target)
    stats = passes.moments(problem, eps)
    r, d = limits.correction(stats, running, eps)
    with np.errstate(all="ignore"):
        gain, offset = (r, d) if scale is None else (scale * r, scale * d)
        offset = offset if shift is None else shift + offset
    passes.apply(problem, stats[0], stats[1], stats[3], gain, offset, None, None)
    problem.finish()
    y = target.deliver()
    running.update(stats[0], stats[2], count)
    return BatchRenormTraining(y, stats[0], stats[3], r, d)


def batch_renorm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    rstd: ArrayLike,
    r: ArrayLike,
    d: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int = 1,
    out: Array | None = None,
) -> BatchRenormGradients:
    """Gradients of batch renormalization: r and d are constants, the statistics of the batch are not.

    Parameters
    ----------
    dy : array_like, same shape as x
        Gradient of the loss with respect to `y`.
    x : array_like
        Input of the forward pass.
    mean, rstd, r, d : array_like (C,)
        As `batch_renorm_train` returned them.
    gamma, axis
        As in the forward pass.
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
    ``dx`` is that of batch norm with ``gamma * r``; ``dgamma = r * sum(dy * xhat) + d * sum(dy)``, ``dbeta = sum(dy)``.
    Source: Ioffe 2017, section 3.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x, mean, var = np.array([[1.0], [3.0]]), np.array([1.0]), np.array([4.0])
    >>> y, *saved = fn.batch_renorm_train(x, mean, var, eps=0.0)
    >>> fn.batch_renorm_backward(np.array([[1.0], [2.0]]), x, *saved).dgamma
    array([2.])
    """
    x = as_array("x", x)
    axis, channels = channels_of(x, axis)
    grad = gradient_of(dy, x)
    saved = [_saved(name, value, channels, axis) for name, value in (("mean", mean), ("rstd", rstd), ("r", r), ("d", d))]
    scale = vector("gamma", gamma, channels, axis)
    target = output("out", out, x, (x, grad))
    dtype = gradient_dtype(gamma)
    if x.size == 0:
        return BatchRenormGradients(target.wanted, np.zeros(channels, dtype), np.zeros(channels, dtype))
    if out is not None:
        saved = [apart(value, target) for value in saved]
    centre, spread, factor, offset = saved
    problem = arrange(channel_layout(x.ndim, axis, True), (x, target.computed, None, grad, None), get_num_threads())
    dgamma, dbeta = gradient_passes.gradient(problem, centre, spread, factor if scale is None else scale * factor, None, None)
    problem.finish()
    with np.errstate(all="ignore"):
        dgamma = factor * dgamma + offset * dbeta
    return BatchRenormGradients(target.deliver(), *rounded(dtype, dgamma, dbeta))


def _saved(name: str, value: Any, channels: int, axis: int) -> Vector:
    found = vector(name, value, channels, axis)
    if found is None:
        raise TypeError(f"{name} is None but must be an array of shape ({channels},); pass what batch_renorm_train returned")
    return found
