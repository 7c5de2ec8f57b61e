"""The walks over memory that operations are made of: moments, application, gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.plan.memory import kind_of
from fastnorm.plan.problem import Problem
from fastnorm.runtime.threads import run

Vector = NDArray[np.float64] | None


def _storages(problem: Problem, n: int = 5) -> list[Any]:
    """Of the first n operands; runs go along inner, or along channels where inner is 1."""
    unit = 3 if problem.schedule.planar or problem.geometry.inner > 1 else 2
    return kernels.operands.storages(problem.carriers[:n], unit)  # type: ignore[no-any-return]


def weights(problem: Problem, x: NDArray[Any], values: NDArray[Any] | None) -> Any:
    """Parameters, in the order of memory, as the kernels of a problem take them."""
    if values is None:
        return None
    if problem.per_element:
        return kernels.operands.per_element(values, kind_of(x.dtype))
    return np.ascontiguousarray(values, np.float64).reshape(-1)


def moments(problem: Problem, eps: float = 0.0, centre: Any = 0) -> NDArray[np.float64]:
    """Statistics (4, batch * channel): mean, its low part, variance, 1 / sqrt(var + eps)."""
    src = _storages(problem, 1)[0]
    geometry, schedule, table = problem.geometry, problem.schedule, problem.table
    stats = np.empty((4, geometry.statistics))
    room = kernels.moments
    if schedule.planar:
        partial = np.empty((schedule.cuts, 4, geometry.statistics))
        run(room.planar_moments_serial, room.planar_moments_parallel, schedule.parallel, src, centre, table, partial)
        room.planar_merge(table, partial, stats, eps)
    else:
        partial = np.empty((schedule.cuts, 4, geometry.batch * geometry.columns))
        run(room.interleaved_moments_serial, room.interleaved_moments_parallel, schedule.parallel, src, centre, table, partial)
        room.interleaved_merge(table, partial, stats, eps)
    return stats


def apply(problem: Problem, mean: Any, low: Any, var: Any, gamma: Vector, beta: Vector, eps: float, activation: Any) -> None:
    """Write the normalized elements of given statistics to the output of the problem."""
    src, out, residual = _storages(problem, 3)
    room = kernels.apply
    serial, parallel = (
        (room.planar_apply_serial, room.planar_apply_parallel)
        if problem.schedule.planar
        else (room.interleaved_apply_serial, room.interleaved_apply_parallel)
    )
    run(
        serial, parallel, problem.schedule.parallel,
        src, residual, out, mean, low, var, gamma, beta, eps, activation, problem.table,
    )  # fmt: skip


def normalize(
    problem: Problem, gamma: Any, beta: Any, eps: float, activation: Any, centre: Any = 0, *, adds: bool = False
) -> NDArray[np.float64]:
    """Statistics of the source, applied to it: one launch if the second sweep finds it in cache.

    centre : None for deviations from zero instead of the mean
    adds   : normalize the sum of source and EXTRA, which is written to GRAD_EXTRA; for `rows` only
    """
    schedule = problem.schedule
    if not schedule.fused:
        stats = moments(problem, eps, centre)
        mean, low = (stats[0], stats[1]) if centre is not None else (None, None)
        apply(problem, mean, low, stats[2], gamma, beta, eps, activation)
        return stats
    src, out, residual, _, total = _storages(problem)
    stats = np.empty((4, problem.geometry.statistics))
    room, whole = kernels.normalize, (stats, gamma, beta, centre, eps, activation, problem.table)
    if schedule.rows:
        total = total if adds else None
        run(room.rows_normalize_serial, room.rows_normalize_parallel, schedule.parallel, src, residual, out, total, *whole)
    elif schedule.planar:
        run(room.planar_normalize_serial, room.planar_normalize_parallel, schedule.parallel, src, residual, out, *whole)
    else:
        run(room.interleaved_normalize_serial, room.interleaved_normalize_parallel, schedule.parallel, src, residual, out, *whole)
    return stats


def gradient(
    problem: Problem, mean: Any, rstd: Any, gamma: Vector, beta: Vector, activation: Any, training: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Write the input gradient; returns dgamma and dbeta."""
    src, out, residual, grad, grad_residual = _storages(problem)
    geometry, schedule, table = problem.geometry, problem.schedule, problem.table
    sums = np.empty((2, geometry.batch * geometry.parameters))
    room = kernels.gradient if schedule.planar else kernels.gradient_columns
    prefix = "planar" if schedule.planar else "interleaved"

    def launch(name: str, *arguments: Any) -> None:
        serial, parallel = getattr(room, f"{prefix}_{name}_serial"), getattr(room, f"{prefix}_{name}_parallel")
        run(serial, parallel, schedule.parallel, grad, src, residual, *arguments)

    whole = (out, grad_residual, mean, rstd, gamma, beta, activation, sums, training, table)
    if schedule.fused:
        launch("backward", *whole)
    else:
        per_row = geometry.parameters if schedule.planar else geometry.columns
        partial = np.empty((schedule.cuts, 2, geometry.batch * per_row))
        launch("sums", mean, rstd, gamma, beta, activation, partial, table)
        kernels.gradient.merge_gradient_sums(table, partial, sums)
        launch("gradient", *whole)
    dgamma, dbeta = np.empty(geometry.parameters), np.empty(geometry.parameters)
    kernels.gradient.parameter_gradients(table, sums, rstd, dgamma, dbeta)
    return dgamma, dbeta


def element_gradient(
    problem: Problem, mean: Any, rstd: Any, gamma: Any, beta: Any, activation: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `gradient`, where parameters are vectors along the elements. mean : None for RMS norm."""
    src, out, _, grad, _ = _storages(problem)
    geometry, schedule, table = problem.geometry, problem.schedule, problem.table
    parameters = (mean, rstd, gamma, beta, activation)
    if not schedule.planar:
        totals = np.empty((geometry.batch * -(-geometry.columns // schedule.columns), 2, problem.per_element))
        lines = kernels.gradient_lines
        run(lines.lines_backward_serial, lines.lines_backward_parallel, schedule.parallel, grad, src, out, *parameters, totals, table)
        return _totals(totals)
    room = kernels.gradient_elements
    if schedule.fused:
        totals = np.empty((schedule.chunks, 2, problem.per_element))
        run(room.elements_backward_serial, room.elements_backward_parallel, schedule.parallel, grad, src, out, *parameters, totals, table)
        return _totals(totals)
    partial = np.empty((schedule.cuts, 2, geometry.statistics))
    totals = np.empty((1, 2, problem.per_element))
    run(room.elements_sums_serial, room.elements_sums_parallel, schedule.parallel, grad, src, *parameters, partial, totals, table)
    sums = np.add.reduce(partial, 0)
    run(room.elements_gradient_serial, room.elements_gradient_parallel, schedule.parallel, grad, src, out, *parameters, sums, table)
    return _totals(totals)


def _totals(totals: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parts in order: dgamma, dbeta."""
    total = np.add.reduce(totals, 0)
    return total[0], total[1]
