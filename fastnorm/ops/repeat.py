"""A planned call as a function of further arrays like those that it was planned for, all contiguous."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops import gradient_passes, passes
from fastnorm.ops.door import rounded
from fastnorm.plan.problem import Problem
from fastnorm.runtime import recycling

Array = NDArray[Any]
Forward = Callable[..., tuple[Array, passes.Statistics]]
Backward = Callable[..., tuple[Array, ...]]


def normalizer(
    problem: Problem, walk: Callable[..., passes.Statistics], x: Array, out: Array, gamma: Any, beta: Any, residual: Any = None
) -> Forward:
    """(x, gamma, beta, out, residual) -> y and statistics. gamma and beta may have the shape of axes."""
    of_x, of_out, of_residual = (passes.flattener(a) for a in (x, out, residual))
    of_gamma, of_beta = passes.weigher(problem, x, gamma), passes.weigher(problem, x, beta)
    shape, dtype = x.shape, out.dtype

    def call(x: Any, gamma: Any, beta: Any, out: Any, residual: Any = None) -> tuple[Array, passes.Statistics]:
        y = recycling.empty(shape, dtype) if out is None else out
        return y, walk((of_x(x), of_out(y), of_residual(residual), None, None), of_gamma(gamma), of_beta(beta))

    return call


def backpropagator(
    problem: Problem, activation: Any, training: bool, operands: tuple[Array, Array, Array], mean: Any, rstd: Any, gamma: Any, beta: Any,
    parameter_shape: tuple[int, ...], parameter_dtype: Any, residual: Any = None,
) -> Backward:  # fmt: skip
    """(x, dy, mean, rstd, gamma, beta, residual, out) -> dx, dgamma, dbeta, and dresidual if there is a residual.

    operands : x, out, dy; mean : None for RMS norm
    """
    walk = gradient_passes.gradient_walk(problem, activation, training)
    x, out = operands[:2]
    of_x, of_out, of_dy = (passes.flattener(a) for a in operands)
    of_mean, of_rstd = passes.statistician(mean), passes.statistician(rstd)
    of_gamma, of_beta = passes.weigher(problem, x, gamma), passes.weigher(problem, x, beta)
    shape, dtype = x.shape, out.dtype
    of_residual = passes.flattener(None if activation is None else residual)
    adds, of_dresidual = residual is not None, passes.flattener(None if residual is None else out)

    def call(x: Any, dy: Any, mean: Any, rstd: Any, gamma: Any, beta: Any, residual: Any, out: Any) -> tuple[Array, ...]:
        dx = recycling.empty(shape, dtype) if out is None else out
        dresidual = recycling.empty(shape, dtype) if adds else None
        storages = (of_x(x), of_out(dx), of_residual(residual), of_dy(dy), of_dresidual(dresidual))
        dgamma, dbeta = walk(storages, of_mean(mean), of_rstd(rstd), of_gamma(gamma), of_beta(beta))
        if parameter_dtype != np.float64:
            dgamma, dbeta = rounded(parameter_dtype, dgamma, dbeta)
        gradients = dx, dgamma.reshape(parameter_shape), dbeta.reshape(parameter_shape)
        return gradients if dresidual is None else (*gradients, dresidual)

    return call
