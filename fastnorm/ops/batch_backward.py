"""Batch normalization: backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops import gradient_passes
from fastnorm.ops.batch import channel_layout, channels_of
from fastnorm.ops.calls import memorable, recall, remember, result_of, settled, signature
from fastnorm.ops.door import Output, activation_tag, apart, check_activation, gradient_dtype, gradient_of, output, rounded
from fastnorm.ops.few import again, find, offer_walk
from fastnorm.ops.repeat import backpropagator
from fastnorm.plan.intake import as_array, operand, overlaps, vector
from fastnorm.plan.problem import Problem, arrange
from fastnorm.runtime.threads import get_num_threads

Array = NDArray[Any]


class BatchNormGradients(NamedTuple):
    """Result of `batch_norm_backward`."""

    dx: Array
    dgamma: Array
    dbeta: Array


class BatchNormResidualGradients(NamedTuple):
    """Result of `batch_norm_backward` with a residual."""

    dx: Array
    dgamma: Array
    dbeta: Array
    dresidual: Array


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    rstd: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int = 1,
    training: bool = True,
    activation: str | None = None,
    beta: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    out: Any = None,
) -> BatchNormGradients | BatchNormResidualGradients:
    """Gradients of batch normalization.

    Parameters
    ----------
    dy : array_like, same shape as x
        Gradient of the loss with respect to `y`.
    x : array_like
        Input of the forward pass.
    mean, rstd : array_like (C,)
        As `batch_norm_train` returned them; in inference the running mean and ``1 / sqrt(running_var + eps)``.
    gamma, beta, residual
        As in the forward pass. `beta` and `residual` matter only to an activation, whose argument is
        computed again.
    axis : int
        The channel axis.
    training : bool
        Whether the statistics depend on x. If not they are constants.
    activation : {None, "relu", "leaky_relu", "silu", "gelu", "gelu_tanh"}
    out : array like x, or a pair of them with a residual, optional
        Receives `dx` (and `dresidual`); may be `dy` or `x` itself.

    Returns
    -------
    dx : array like x
    dgamma, dbeta : array (C,)
        float64, or the float dtype of gamma.
    dresidual : array like x
        Only with a residual.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written.

    Notes
    -----
    Source: Ioffe, Szegedy 2015, section 3, summed in closed form:
    ``dx = gamma * rstd * (dy - mean(dy) - xhat * mean(dy * xhat))``.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.array([[1.0], [3.0]])
    >>> y, mean, rstd = fn.batch_norm_train(x, eps=0.0)
    >>> fn.batch_norm_backward(np.array([[1.0], [0.0]]), x, mean, rstd).dbeta
    array([1.])
    """
    options = (batch_norm_backward, axis, type(axis))
    few = find(x, options) if activation is residual is None and training is True else None
    if few is not None:
        dx, gradients = few.output() if out is None else out, np.empty((2, few.shape[axis]), gradient_dtype(gamma))
        if few.run((dy, x, mean, rstd, gamma, dx), gradients):
            return result_of(BatchNormGradients, (dx, gradients[0], gradients[1]))
    arrays = (x, dy, mean, rstd, gamma, beta, residual)
    result = BatchNormGradients if residual is None else BatchNormResidualGradients
    single = residual is None or out is None  # not a pair of outputs
    key = signature((batch_norm_backward, axis, type(axis), training, activation), out, *arrays) if single else None
    known = recall(key, out, *arrays)
    if known is not None:
        again(x, options)
        return result(*known(*arrays, out))
    plain = settled(*arrays)
    if plain is not None:
        x, dy, mean, rstd, gamma, beta, residual = plain
        return batch_norm_backward(
            dy, x, mean, rstd, gamma, axis=axis, training=training, activation=activation, beta=beta, residual=residual, out=out
        )
    call = BackwardCall(dy, x, mean, rstd, gamma, axis, activation, beta, residual, out)
    if call.x.size == 0:
        return call.result(np.zeros(call.channels), np.zeros(call.channels))
    problem = call.problem()
    if call.grad is dy and call.extra is residual and memorable(key, out, *arrays):
        operands, of_parameters = (call.x, call.target.computed, call.grad), ((call.channels,), call.dtype)
        repeated = backpropagator(problem, call.activation, bool(training), operands, mean, rstd, gamma, beta, *of_parameters, residual)
        remember(key, repeated, out, *arrays)
        if residual is None and activation is None and training is True:
            offer_walk(x, options, "backward", problem)
    dgamma, dbeta = gradient_passes.gradient(problem, *call.parameters, call.activation, bool(training))
    problem.finish()
    return call.result(dgamma, dbeta)


class BackwardCall:
    """Arguments of `batch_norm_backward`, checked; nothing is written."""

    def __init__(
        self, dy: Any, x: Any, mean: Any, rstd: Any, gamma: Any, axis: Any, activation: Any, beta: Any, residual: Any, out: Any
    ) -> None:  # fmt: skip
        x = as_array("x", x)
        axis, channels = channels_of(x, axis)
        grad = gradient_of(dy, x)
        centre, spread = vector("mean", mean, channels, axis), vector("rstd", rstd, channels, axis)
        if centre is None or spread is None:
            raise TypeError("mean and rstd must be arrays; pass those that batch_norm_train returned")
        scale, shift = vector("gamma", gamma, channels, axis), vector("beta", beta, channels, axis)
        check_activation(activation)
        extra = None if residual is None else operand("residual", residual, x.shape)
        self.target, self.extra_target = backward_outputs(out, x, grad, extra)
        self.x, self.grad, self.axis, self.channels = x, grad, axis, channels
        self.extra, self.read = extra, extra if activation is not None else None
        self.activation, self.dtype = activation_tag(activation), gradient_dtype(gamma)
        if out is not None:
            targets = [t for t in (self.target, self.extra_target) if t is not None]
            centre, spread, scale, shift = (apart(p, *targets) for p in (centre, spread, scale, shift))
        self.parameters = (centre, spread, scale, shift)

    def problem(self) -> Problem:
        """Not for an empty x."""
        written = None if self.extra_target is None else self.extra_target.computed
        operands = (self.x, self.target.computed, self.read, self.grad, written)
        return arrange(channel_layout(self.x.ndim, self.axis, True), operands, get_num_threads())

    def result(self, dgamma: Array, dbeta: Array) -> BatchNormGradients | BatchNormResidualGradients:
        """dgamma, dbeta : float64"""
        dgamma, dbeta = rounded(self.dtype, dgamma, dbeta)
        gradients = self.target.deliver(), dgamma, dbeta
        if self.extra_target is None:
            return BatchNormGradients(*gradients)
        return BatchNormResidualGradients(*gradients, self.extra_target.deliver())


def backward_outputs(out: Any, x: Array, grad: Array, extra: Array | None) -> tuple[Output, Output | None]:
    inputs = (x, grad, extra)
    if extra is None:
        if isinstance(out, tuple | list):
            raise TypeError("out must be a numpy array, and a pair of arrays (dx, dresidual) only with a residual")
        return output("out", out, x, inputs), None
    if isinstance(out, tuple | list) and len(out) != 2:
        raise ValueError(f"out has {len(out)} arrays but must be a pair (dx, dresidual); pass None for one of them to have it made")
    first, second = out if isinstance(out, tuple | list) else (out, None)
    target = output("out", first, x, inputs)
    extra_target = output("out[1]", second, x, (*inputs, target.wanted))
    if first is not None and overlaps(target.wanted, extra_target.wanted):
        raise ValueError("out has two arrays that share memory; pass one for dx and another for dresidual")
    # dx and dresidual are written in one sweep: what one replaces, the other may still have to read.
    return target, extra_target
