"""The walks of backward passes, planned as those of `ops.passes`: sums of gradients, and the gradient of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops.launch import Driver, Launch
from fastnorm.ops.passes import Storages, is_short, kept, of_columns, options_of, storages
from fastnorm.plan.problem import Problem

Gradients = tuple[NDArray[np.float64], NDArray[np.float64]]  # of gamma, of beta
Sums = NDArray[np.float64]  # (2, batch * parameters): of the gradient, and of its products with x - mean


def _gradient_launch(problem: Problem, name: str) -> Launch:
    room, prefix = (kernels.gradient, "planar") if problem.schedule.planar else (kernels.gradient_columns, "interleaved")
    return Launch(problem, room, f"{prefix}_{name}")


def gradient_sums_pass(problem: Problem, activation: Any) -> Callable[..., Sums]:
    """Of every parameter the sums, over the elements of the problem, on which the input gradient depends: the bits of `gradient_pass`."""
    geometry, schedule, table = problem.geometry, problem.schedule, problem.table
    if schedule.planes:
        planes = Launch(problem, kernels.gradient_planes, "planes_sums")

        def walk_planes(operands: Storages, mean: Any, rstd: Any, gamma: Any, beta: Any) -> Sums:
            src, _, residual, grad, _ = operands
            sums = np.empty((2, geometry.batch * geometry.parameters))
            planes(grad, src, residual, mean, rstd, gamma, beta, activation, sums, table)
            return sums

        return walk_planes
    launch = _gradient_launch(problem, "sums")
    per_row, options = geometry.parameters if schedule.planar else geometry.columns, of_columns(problem)
    merge = Driver(kernels.gradient, "merge_gradient_sums")

    def walk(operands: Storages, mean: Any, rstd: Any, gamma: Any, beta: Any) -> Sums:
        src, _, residual, grad, _ = operands
        sums = np.empty((2, geometry.batch * geometry.parameters))
        partial = np.empty((schedule.cuts, 2, geometry.batch * per_row))
        launch(grad, src, residual, mean, rstd, gamma, beta, activation, partial, *options, table)
        merge(table, partial, sums)
        return sums

    return walk


def input_gradient_pass(problem: Problem, activation: Any, training: bool, name: str = "gradient") -> Callable[..., None]:
    """Input gradient to the output of the problem, from given sums: those over more elements times this problem's share of them."""
    table, options = problem.table, options_of(problem)
    if problem.schedule.planes and training and name == "backward":
        planes = Launch(problem, kernels.gradient_planes, "planes_backward")

        def walk_planes(operands: Storages, mean: Any, rstd: Any, gamma: Any, beta: Any, sums: Sums) -> None:
            src, out, residual, grad, grad_residual = operands
            planes(grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, *options, table)

        return walk_planes
    launch = _gradient_launch(problem, name)

    def walk(operands: Storages, mean: Any, rstd: Any, gamma: Any, beta: Any, sums: Sums) -> None:
        src, out, residual, grad, grad_residual = operands
        launch(grad, src, residual, out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, *options, table)

    return walk


def gradient_pass(problem: Problem, activation: Any, training: bool) -> Callable[..., Gradients]:
    """Input gradient to the output of the problem; parameters are numbers that runs share."""
    geometry, table, fused = problem.geometry, problem.table, problem.schedule.fused
    sums_of = None if fused else gradient_sums_pass(problem, activation)
    backward = input_gradient_pass(problem, activation, training, "backward" if fused else "gradient")
    deliver = Driver(kernels.gradient, "parameter_gradients")

    def walk(operands: Storages, mean: Any, rstd: Any, gamma: Any, beta: Any) -> Gradients:
        parameters = (mean, rstd, gamma, beta)
        sums = np.empty((2, geometry.batch * geometry.parameters)) if sums_of is None else sums_of(operands, *parameters)
        backward(operands, *parameters, sums)
        dgamma, dbeta = np.empty(geometry.parameters), np.empty(geometry.parameters)
        deliver(table, sums, rstd, dgamma, dbeta)
        return dgamma, dbeta

    return walk


def element_gradient_pass(problem: Problem, activation: Any) -> Callable[..., Gradients]:
    """As `gradient_pass`, where parameters are vectors along the elements. mean : None for RMS norm."""
    geometry, schedule, table, n = problem.geometry, problem.schedule, problem.table, problem.per_element
    if is_short(problem) and activation is None:
        short, options = Launch(problem, kernels.gradient_short_rows, "short_rows_backward"), options_of(problem)

        def in_short_rows(operands: Storages, mean: Any, rstd: Any, gamma: Any, beta: Any) -> Gradients:
            totals = np.empty((schedule.chunks, 2, n))
            short(operands[3], operands[0], operands[1], mean, rstd, gamma, *options, totals, table)
            total = np.add.reduce(totals, 0)  # in order
            return total[0], total[1]

        return in_short_rows
    streams = 0 if schedule.stream else None
    if schedule.fused:
        lines = not schedule.planar
        launch = (
            Launch(problem, kernels.gradient_lines, "lines_backward")
            if lines
            else Launch(problem, kernels.gradient_elements, "elements_backward")
        )
        parts = geometry.batch * -(-geometry.columns // schedule.columns) if lines else schedule.chunks

        def in_one(operands: Storages, mean: Any, rstd: Any, gamma: Any, beta: Any) -> Gradients:
            totals = np.empty((parts, 2, n))
            launch(operands[3], operands[0], operands[1], mean, rstd, gamma, beta, activation, streams, totals, table)
            total = np.add.reduce(totals, 0) if parts > 1 else totals[0]  # parts in order
            return total[0], total[1]

        return in_one
    first = Launch(problem, kernels.gradient_elements, "elements_sums")
    second = Launch(problem, kernels.gradient_elements, "elements_gradient")

    def in_two(operands: Storages, mean: Any, rstd: Any, gamma: Any, beta: Any) -> Gradients:
        src, out, _, grad, _ = operands
        partial, total = np.empty((schedule.cuts, 2, geometry.statistics)), np.empty((1, 2, n))
        first(grad, src, mean, rstd, gamma, beta, activation, streams, partial, total, table)
        second(grad, src, out, mean, rstd, gamma, beta, activation, streams, np.add.reduce(partial, 0), table)
        return total[0, 0], total[0, 1]

    return in_two


def gradient_walk(problem: Problem, activation: Any, training: bool) -> Callable[..., Gradients]:
    """The pass for the parameters that this problem has."""
    return element_gradient_pass(problem, activation) if problem.per_element else gradient_pass(problem, activation, training)


def gradient(problem: Problem, mean: Any, rstd: Any, gamma: Any, beta: Any, activation: Any, training: bool = True) -> Gradients:
    """Write the input gradient; returns dgamma and dbeta."""
    given = (mean, rstd, gamma, beta)
    gradients: Gradients = kept(problem, gradient_walk, (activation, training), given)(storages(problem), *given)
    return gradients
