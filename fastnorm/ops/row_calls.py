"""Calls that layer and RMS norm share: of one array, of a sum, backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.ops import gradient_passes, passes
from fastnorm.ops.calls import memorable, recall, remember, settled, signature
from fastnorm.ops.door import Output, apart, gradient_dtype, gradient_of, in_dtype, output, rounded
from fastnorm.ops.few import again, find, offer
from fastnorm.ops.repeat import backpropagator, normalizer
from fastnorm.ops.rows import Rows, parameter, rows_of, statistic
from fastnorm.plan.intake import as_array, eps_of, operand, overlaps, result_dtype
from fastnorm.plan.problem import Problem
from fastnorm.runtime import recycling

Array = NDArray[Any]
Vector = NDArray[np.float64]
Result = Callable[[Array, Vector, Vector], Any] | None


class Sum(NamedTuple):
    """Result of `add_layer_norm` and `add_rms_norm`."""

    y: Array
    h: Array


class _Call(NamedTuple):
    """A checked call: what is normalized, into what, with which parameters; centre is None for RMS norm."""

    rows: Rows
    gamma: Array | None
    beta: Array | None
    eps: float
    centre: int | None

    def statistics_of_nothing(self) -> tuple[Vector, Vector]:
        return np.full(self.rows.kept_shape, np.nan), np.full(self.rows.kept_shape, np.nan)

    def normalize(self, x: Array, target: Output, addend: Array | None = None, total: Output | None = None) -> tuple[Vector, Vector]:
        """Write y, and the sum of x and addend, if there is one; returns mean and rstd."""
        if x.size == 0:
            return self.statistics_of_nothing()
        rows = self.rows
        problem = rows.plan(rows.forward, x, target.computed, addend, None, None if total is None else total.computed)
        if total is not None and not problem.schedule.rows:
            # Two walks: statistics of several runs are not kept in L1 between the sum and its moments.
            first = rows.plan(rows.forward, x, total.computed, addend, None, None)
            passes.apply(first, None, None, np.ones(first.geometry.statistics), None, None, 0.0, None)
            first.finish()
            x, total = total.computed, None
            problem = rows.plan(rows.forward, x, target.computed, None, None, None)
        gamma, beta = self.weights(problem, x, self.gamma), self.weights(problem, x, self.beta)
        stats = passes.normalize(problem, gamma, beta, self.eps, None, self.centre, total is not None)
        problem.finish()
        return rows.statistic(problem, stats[0]), rows.statistic(problem, stats[3])

    def weights(self, problem: Problem, x: Array, values: Array | None) -> Any:
        return passes.weights(problem, x, self.rows.flat_parameter(problem, values))

    def repeated(self, x: Array, out: Array, result: Result, options: tuple[Any, ...]) -> Callable[..., Any] | None:
        """The same call for other arrays like these, all contiguous; None where axes must be moved."""
        rows = self.rows
        problem = rows.plan(rows.forward, x, out, None, None, None)
        if not rows.in_order(problem):
            return None
        if problem.schedule.rows and rows.last_axis(x):
            offer(x, options, "normalize_short_rows" if passes.is_short(problem) else "normalize_rows", problem)
        walk, kept = passes.normalize_pass(problem, self.eps, None, self.centre, wanted=result is not None), rows.kept_shape
        forward = normalizer(problem, walk, x, out, self.gamma, self.beta)
        if result is None:
            return lambda x, gamma, beta, out: forward(x, gamma, beta, out)[0]
        finish: Callable[..., Any] = result

        def call(x: Array, gamma: Array | None, beta: Array | None, out: Array | None) -> Any:
            y, stats = forward(x, gamma, beta, out)
            return finish(y, stats[0].reshape(kept), stats[3].reshape(kept))

        return call

    def repeated_sum(self, x: Array, out: Array, addend: Array) -> Callable[..., tuple[Array, Array, Vector, Vector]] | None:
        """y, sum, mean and rstd of other arrays like these, all contiguous; None where that is not one walk over x as it lies."""
        rows, shape, dtype = self.rows, x.shape, out.dtype
        problem = rows.plan(rows.forward, x, out, addend, None, out)
        if not (problem.schedule.rows and rows.in_order(problem)):
            return None
        walk = passes.normalize_pass(problem, self.eps, None, self.centre, adds=True)
        of_x, of_out, of_addend = (passes.flattener(a) for a in (x, out, addend))
        of_gamma, of_beta = passes.weigher(problem, x, self.gamma), passes.weigher(problem, x, self.beta)

        def call(
            x: Array, addend: Array, gamma: Array | None, beta: Array | None, out: tuple[Array, Array] | None
        ) -> tuple[Array, Array, Vector, Vector]:
            y, total = (recycling.empty(shape, dtype), recycling.empty(shape, dtype)) if out is None else out
            stats = walk((of_x(x), of_out(y), of_addend(addend), None, of_out(total)), of_gamma(gamma), of_beta(beta))
            return y, total, stats[0].reshape(rows.kept_shape), stats[3].reshape(rows.kept_shape)

        return call


def _call(x: Array, gamma: Any, beta: Any, axis: Any, eps: Any, centre: int | None) -> _Call:
    rows = rows_of(x, axis)
    return _Call(rows, parameter("gamma", gamma, rows.shape), parameter("beta", beta, rows.shape), eps_of(eps), centre)


def single(x: ArrayLike, gamma: Any, beta: Any, axis: Any, eps: Any, out: Any, centre: int | None, result: Result) -> Any:
    """y, or what `result` makes of y, mean and rstd."""
    options = (single, axis, type(axis), eps, centre)
    few = find(x, options)
    if few is not None:
        y, stats = few.output() if out is None else out, few.statistics(result is not None)
        if few.run((x, gamma, beta, y), stats, centre, eps):
            return y if result is None else result(y, stats[0].reshape(few.shape[:-1]), stats[3].reshape(few.shape[:-1]))
    key = signature((*options, result), out, x, gamma, beta)
    known = recall(key, out, x, gamma, beta)
    if known is not None:
        again(x, options)
        return known(x, gamma, beta, out)
    plain = settled(x, gamma, beta)
    if plain is not None:
        return single(plain[0], plain[1], plain[2], axis, eps, out, centre, result)
    x = as_array("x", x)
    call = _call(x, gamma, beta, axis, eps, centre)
    target = output("out", out, x, (x,))
    if x.size and memorable(key, out, x, gamma, beta):
        repeated = call.repeated(x, target.computed, result, options)
        if repeated is not None:
            remember(key, repeated, out, x, gamma, beta)
            return repeated(x, gamma, beta, target.wanted)
    if out is not None:
        call = call._replace(gamma=apart(call.gamma, target), beta=apart(call.beta, target))
    mean, rstd = call.normalize(x, target)
    y = target.deliver()
    return y if result is None else result(y, mean, rstd)


def _separate(outputs: tuple[Any, ...], inputs: tuple[Any, ...]) -> bool:
    """Whether every output is an array in memory of its own."""
    for k, out in enumerate(outputs):
        if out is None or any(a is not None and np.may_share_memory(a, out) for a in (*inputs, *outputs[:k])):
            return False
    return True


def of_sum(
    x: ArrayLike, residual: ArrayLike, gamma: Any, beta: Any, axis: Any, eps: Any, out: Any, centre: int | None
) -> tuple[Array, Array, Vector, Vector]:
    """y, the sum, and its mean and rstd."""
    arrays = (x, residual, gamma, beta)
    outputs = out if type(out) is tuple and len(out) == 2 else ()
    key = signature((of_sum, axis, type(axis), eps, centre), None, *arrays, *outputs) if out is None or outputs else None
    known = recall(key, None, *arrays)
    if known is not None and _separate(outputs, arrays):
        kept: tuple[Array, Array, Vector, Vector] = known(*arrays, out)
        return kept
    plain = settled(*arrays)
    if plain is not None:
        x, residual, gamma, beta = plain
        return of_sum(x, residual, gamma, beta, axis, eps, out, centre)
    x = as_array("x", x)
    addend = operand("residual", residual, x.shape)
    call = _call(x, gamma, beta, axis, eps, centre)
    if out is not None and not (isinstance(out, tuple | list) and len(out) == 2):
        raise TypeError(f"out must be a pair of arrays (y, h), got {type(out).__name__}; pass None for one of them to have it made")
    first, second = (None, None) if out is None else out
    total = in_dtype(output("out[1]", second, x, (x, addend)), result_dtype(x.dtype))
    target = output("out[0]", first, x, (x, addend))
    if overlaps(target.wanted, total.wanted):
        raise ValueError("out has two arrays that share memory; pass one for y and another for h")
    if x.size and addend is residual and memorable(key, None, *arrays, *outputs) and _separate(outputs, arrays):
        repeated = call.repeated_sum(x, target.computed, addend)
        if repeated is not None:
            remember(key, repeated, None, *arrays, *outputs)
    if out is not None:
        call = call._replace(gamma=apart(call.gamma, target, total), beta=apart(call.beta, target, total))
    mean, rstd = call.normalize(x, target, addend, total)
    return target.deliver(), total.deliver(), mean, rstd


def backward(dy: ArrayLike, x: ArrayLike, mean: Any, rstd: Any, gamma: Any, axis: Any, out: Any, source: str) -> tuple[Array, Array, Array]:
    """dx, dgamma, dbeta. source : the function whose statistics these are."""
    options = (backward, source, axis, type(axis))
    few = find(x, options) if (mean is None) == (source == "rms_norm") else None
    if few is not None:
        dx, gradients = few.output() if out is None else out, np.empty((2, few.shape[-1]), gradient_dtype(gamma))
        if few.run((dy, x, mean, rstd, gamma, dx), gradients):
            return dx, gradients[0], gradients[1]
    arrays = (x, dy, mean, rstd, gamma)
    key = signature(options, out, *arrays)
    known = recall(key, out, *arrays)
    if known is not None:
        again(x, options)
        found: tuple[Array, Array, Array] = known(x, dy, mean, rstd, gamma, None, None, out)
        return found
    plain = settled(*arrays)
    if plain is not None:
        x, dy, mean, rstd, gamma = plain
        return backward(dy, x, mean, rstd, gamma, axis, out, source)
    x = as_array("x", x)
    rows = rows_of(x, axis)
    grad = gradient_of(dy, x)
    scale = parameter("gamma", gamma, rows.shape)
    spread = statistic("rstd", rstd, rows.kept_shape, source)
    centre = None if source == "rms_norm" else statistic("mean", mean, rows.kept_shape, source)
    target = output("out", out, x, (x, grad))
    param_dtype = gradient_dtype(gamma)
    if x.size == 0:
        return target.wanted, np.zeros(rows.shape, param_dtype), np.zeros(rows.shape, param_dtype)
    if out is not None:
        centre, spread, scale = apart(centre, target), apart(spread, target), apart(scale, target)
    problem = rows.plan(rows.backward, x, target.computed, None, grad, None)
    if grad is dy and memorable(key, out, *arrays) and rows.in_order(problem):
        operands = (x, target.computed, grad)
        repeated = backpropagator(
            problem, None, True, operands, centre if centre is None else mean, rstd, scale, None, rows.shape, param_dtype
        )
        remember(key, repeated, out, *arrays)
        if problem.schedule.planar and rows.last_axis(x):
            kind = "short_rows" if passes.is_short(problem) else "rows" if problem.schedule.fused else "few_rows"
            offer(x, options, f"backward_{kind}", problem)
    flat_mean = None if centre is None else rows.flat_statistic(problem, centre)
    weight = passes.weights(problem, x, rows.flat_parameter(problem, scale))
    dgamma, dbeta = gradient_passes.gradient(problem, flat_mean, rows.flat_statistic(problem, spread), weight, None, None)
    problem.finish()
    dgamma, dbeta = rounded(param_dtype, *(rows.parameter(problem, g) for g in (dgamma, dbeta)))
    return target.deliver(), dgamma, dbeta
