"""The walks over memory that operations are made of: moments, application, gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.plan.problem import Problem
from fastnorm.runtime.threads import run

Vector = NDArray[np.float64] | None


def _storages(problem: Problem, n: int = 5) -> list[Any]:
    """Of the first n operands; runs go along inner, or along channels where inner is 1."""
    unit = 3 if problem.schedule.planar or problem.geometry.inner > 1 else 2
    return kernels.operands.storages(problem.carriers[:n], unit)  # type: ignore[no-any-return]


def moments(problem: Problem, eps: float = 0.0) -> NDArray[np.float64]:
    """Statistics (4, batch * channel): mean, its low part, variance, 1 / sqrt(var + eps)."""
    src = _storages(problem, 1)[0]
    geometry, schedule, table = problem.geometry, problem.schedule, problem.table
    stats = np.empty((4, geometry.statistics))
    room = kernels.moments
    if schedule.planar:
        partial = np.empty((schedule.cuts, 4, geometry.statistics))
        run(room.planar_moments_serial, room.planar_moments_parallel, schedule.parallel, src, table, partial)
        room.planar_merge(table, partial, stats, eps)
    else:
        partial = np.empty((schedule.cuts, 4, geometry.batch * geometry.columns))
        run(room.interleaved_moments_serial, room.interleaved_moments_parallel, schedule.parallel, src, table, partial)
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


def normalize(problem: Problem, gamma: Vector, beta: Vector, eps: float, activation: Any) -> NDArray[np.float64]:
    """Statistics of the source, applied to it: one launch if the second sweep finds it in cache."""
    if not problem.schedule.fused:
        stats = moments(problem, eps)
        apply(problem, stats[0], stats[1], stats[2], gamma, beta, eps, activation)
        return stats
    src, out, residual = _storages(problem, 3)
    stats = np.empty((4, problem.geometry.statistics))
    room = kernels.normalize
    serial, parallel = (
        (room.planar_normalize_serial, room.planar_normalize_parallel)
        if problem.schedule.planar
        else (room.interleaved_normalize_serial, room.interleaved_normalize_parallel)
    )
    run(serial, parallel, problem.schedule.parallel, src, residual, out, stats, gamma, beta, eps, activation, problem.table)
    return stats


def gradient(
    problem: Problem, mean: Any, rstd: Any, gamma: Vector, beta: Vector, activation: Any, training: bool
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
