"""The walks over memory that operations are made of: moments, averages, reductions, application.

Each is planned once, as a function of storages and parameters that may be kept for further calls of the same kind
(`ops.calls`), or planned and walked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.ops.launch import Driver, Launch, all_finite
from fastnorm.plan.memory import kind_of
from fastnorm.plan.problem import Problem
from fastnorm.plan.table import EXTRA, MEAN_OF, NO_RSTD, STD_OF

Vector = NDArray[np.float64] | None
Statistics = NDArray[np.float64]  # (4, batch * channel): mean, its low part, variance, 1 / sqrt(var + eps)
Storages = Sequence[Any]  # of the operands src, out, extra, grad, grad_extra


_MOST_KEPT = 16  # with a plan


def kept(problem: Problem, make: Callable[..., Any], arguments: tuple[Any, ...], parameters: tuple[Any, ...] = ()) -> Any:
    """The pass that `make` plans, kept with the plan: Numba looks for the types of the arguments of a launch once.

    parameters : what the pass will be given beside storages; those of another kind have a pass of their own
    """
    key = (make, arguments, *map(type, arguments), *map(_kind_of, parameters))  # tags of two activations are equal tuples
    walk = problem.passes.get(key)
    if walk is None:
        if len(problem.passes) >= _MOST_KEPT:
            problem.passes.clear()
        walk = problem.passes[key] = make(problem, *arguments)
    return walk


def _kind_of(parameter: Any) -> Any:
    """What its type depends on to Numba."""
    if parameter is None:
        return None
    array = parameter[0] if type(parameter) is tuple else parameter
    return type(parameter), array.dtype.num, array.ndim, array.flags.num


def storages(problem: Problem) -> Storages:
    """Of the operands; runs go along inner, or along channels where inner is 1."""
    unit = 3 if problem.schedule.planar or problem.geometry.inner > 1 else 2
    return kernels.operands.storages(problem.carriers, unit)  # type: ignore[no-any-return]


def flattener(sample: NDArray[Any] | None) -> Callable[[Any], Any]:
    """To the storage of contiguous arrays like the sample."""
    if sample is None:
        return _nothing
    return _flat if sample.dtype.char in "fd" else _storage


def _nothing(values: Any) -> None:
    return None


def _flat(values: Any) -> Any:
    return values.reshape(-1)


def _storage(values: Any) -> Any:
    return kernels.operands.storage(values, 3)


def _as_it_is(values: Any) -> Any:
    return values


def _in_tuple(values: Any) -> Any:
    return (values,)


def _flat_in_tuple(values: Any) -> Any:
    return (values.reshape(-1),)


def _as_double(values: Any) -> Any:
    return values.astype(np.float64)


def statistician(sample: NDArray[Any] | None) -> Callable[[Any], Any]:
    """To the float64 vector of statistics, from contiguous arrays like the sample."""
    if sample is None:
        return _nothing
    if sample.dtype == np.float64:
        return _as_it_is if sample.ndim == 1 else _flat
    return lambda values: values.astype(np.float64).reshape(-1)


def weigher(problem: Problem, x: NDArray[Any], sample: NDArray[Any] | None) -> Callable[[Any], Any]:
    """To parameters as the kernels of a problem take them, from contiguous arrays like the sample, in the order of memory.

    Numbers that runs share come as vectors, those of elements in any shape.
    """
    if sample is None:
        return _nothing
    if not problem.per_element:
        return _as_it_is if sample.dtype == np.float64 else _as_double
    room = kernels.operands
    kind = kind_of(x.dtype)
    if sample.dtype == room.compute_dtype(kind):
        return _in_tuple if sample.ndim == 1 else _flat_in_tuple
    return lambda values: room.per_element(values, kind)


def weights(problem: Problem, x: NDArray[Any], values: NDArray[Any] | None) -> Any:
    """Parameters, in the order of memory, as the kernels of a problem take them."""
    if values is None:
        return None
    if problem.per_element:
        return kernels.operands.per_element(values, kind_of(x.dtype))
    return np.ascontiguousarray(values, np.float64).reshape(-1)


def of_columns(problem: Problem) -> tuple[Any, ...]:
    """What kernels of columns are compiled for: `grouped` of `kernels.moments`; of planes and rows nothing."""
    schedule = problem.schedule
    return () if schedule.planar or schedule.rows else (None if problem.geometry.inner == 1 else 0,)


def options_of(problem: Problem) -> tuple[Any, ...]:
    """What kernels that write are compiled for: `streams`, and `grouped`."""
    return (0 if problem.schedule.stream else None, *of_columns(problem))


def is_short(problem: Problem, adds: bool = False) -> bool:
    """Whether `kernels.short_rows` takes the rows of a problem, as they are or, if it `adds`, their sums with EXTRA."""
    return problem.schedule.short and (adds or problem.carriers[EXTRA - 1] is None)


def _rows_launch(problem: Problem, eps: float, activation: Any, centre: Any, *, writes: bool, adds: bool = False) -> Callable[..., None]:
    """A function of statistics, src, extra, out, total, gamma, beta; where nothing is written, nothing streams."""
    table, options = problem.table, options_of(problem) if writes else (None,)
    if is_short(problem, adds):
        short = Launch(problem, kernels.short_rows, "short_rows_normalize")

        def walk_short(stats: Statistics, src: Any, extra: Any, out: Any, total: Any, gamma: Any, beta: Any) -> None:
            short(src, extra, out, total, stats, gamma, beta, centre, eps, activation, *options, table)

        return walk_short
    rows = Launch(problem, kernels.normalize, "rows_normalize")

    def walk(stats: Statistics, src: Any, extra: Any, out: Any, total: Any, gamma: Any, beta: Any) -> None:
        rows(src, extra, out, total, stats, gamma, beta, centre, eps, activation, *options, table)

    return walk


def moments_pass(problem: Problem, eps: float, centre: Any) -> Callable[[Any], Statistics]:
    """Statistics of the source: the bits that `normalize_pass` finds."""
    geometry, schedule, table, room = problem.geometry, problem.schedule, problem.table, kernels.moments
    if schedule.rows:
        rows = _rows_launch(problem, eps, None, centre, writes=False)

        def walk_rows(src: Any) -> Statistics:
            stats = np.empty((4, geometry.statistics))
            rows(stats, src, None, None, None, None, None)
            return stats

        return walk_rows
    if not schedule.planar:
        return _columns_pass(problem, eps, centre)
    if schedule.planes:
        planes = Launch(problem, kernels.short_planes, "planes_normalize")

        def walk_planes(src: Any) -> Statistics:
            stats = np.empty((4, geometry.statistics))
            planes(src, None, None, stats, None, None, eps, None, None, table)
            return stats

        return walk_planes
    launch, merge = Launch(problem, room, "planar_moments"), Driver(room, "planar_merge")
    shape = (schedule.cuts, 4, geometry.statistics)

    def walk(src: Any) -> Statistics:
        partial, stats = np.empty(shape), np.empty((4, geometry.statistics))
        launch(src, centre, table, partial)
        merge(table, partial, stats, eps)
        return stats

    return walk


def _columns_pass(problem: Problem, eps: float, centre: Any) -> Callable[[Any], Statistics]:
    geometry, cuts, table = problem.geometry, problem.schedule.cuts, problem.table
    launch, merge = Launch(problem, kernels.moments, "interleaved_moments"), Driver(kernels.moments, "interleaved_merge")
    shape, (grouped,) = (cuts if cuts > 1 else 0, 4, geometry.statistics), of_columns(problem)

    def walk(src: Any) -> Statistics:
        partial, stats = np.empty(shape), np.empty((4, geometry.statistics))
        launch(src, centre, table, partial, stats, eps, grouped, None)
        if cuts > 1:
            merge(table, partial, stats, eps)
        return stats

    return walk


Averages = tuple[NDArray[Any], bool]  # and whether all are finite


def averages_pass(problem: Problem, dtype: Any) -> Callable[[Any, int, float, float], Averages]:
    """A function of the source, MEAN_OF, VARIANCE_OF or STD_OF, and two numbers that a variance is multiplied with and divided by.

    Its result has the dtype, or float64 where statistics have to be merged: what `moments_pass` finds, rounded.
    """
    geometry, schedule, table = problem.geometry, problem.schedule, problem.table
    statistics = geometry.statistics
    if is_short(problem):
        short = Launch(problem, kernels.short_rows, "short_rows_averages")

        def walk_short(src: Any, what: int, times: float, by: float) -> Averages:
            averages = np.empty(statistics, dtype)
            return averages, short(src, averages, what, times, by, table)

        return walk_short
    if schedule.planar or schedule.cuts > 1 or geometry.inner > 1:
        return _averages_of_moments(moments_pass(problem, NO_RSTD, 0))
    launch, partial, (grouped,) = Launch(problem, kernels.moments, "interleaved_moments"), np.empty((0, 4, 0)), of_columns(problem)

    def walk(src: Any, what: int, times: float, by: float) -> Averages:
        averages = np.empty(statistics, dtype)
        return averages, launch(src, 0, table, partial, None, 0.0, grouped, (averages, what, times, by))

    return walk


def _averages_of_moments(moments: Callable[[Any], Statistics]) -> Callable[[Any, int, float, float], Averages]:
    def walk(src: Any, what: int, times: float, by: float) -> Averages:
        stats = moments(src)
        values: NDArray[Any] = stats[0] if what == MEAN_OF else stats[2]
        if what != MEAN_OF and times != by:
            values = values * times / by
        if what == STD_OF:
            values = np.sqrt(values)
        return values, all_finite(values)

    return walk


def reduction_pass(problem: Problem, tag: str) -> Callable[[Any, Any], NDArray[np.float64]]:
    """The four numbers (4, statistics) of every statistic of a source, weighted by the second. tag : of kernels.operands.REDUCTIONS"""
    geometry, schedule, room, table = problem.geometry, problem.schedule, kernels.reduce, problem.table
    reduction = kernels.operands.REDUCTIONS[tag]
    shape = (schedule.cuts, 4, geometry.statistics if schedule.planar else geometry.batch * geometry.columns)
    launch = Launch(problem, room, "planar_reduce" if schedule.planar else "interleaved_reduce")
    union = Driver(room, "union_of_parts") if shape != (1, 4, geometry.statistics) else None

    def walk(src: Any, given: Any) -> NDArray[np.float64]:
        partial = np.empty(shape)
        launch(reduction, src, given, table, partial)
        if union is None:
            return partial.reshape(4, -1)
        numbers = np.empty((4, geometry.statistics))
        union(reduction, partial, numbers)
        return numbers

    return walk


def reduction(problem: Problem, tag: str) -> NDArray[np.float64]:
    """Of the source of the problem, weighted by EXTRA."""
    src, _, given, _, _ = storages(problem)
    numbers: NDArray[np.float64] = kept(problem, reduction_pass, (tag,))(src, given)
    return numbers


def apply_pass(problem: Problem, eps: float | None, activation: Any) -> Callable[..., None]:
    """eps : None if what comes in place of the variance is 1 / sqrt(var + eps) already."""
    launch = Launch(problem, kernels.apply, "planar_apply" if problem.schedule.planar else "interleaved_apply")
    options, table = options_of(problem), problem.table

    def walk(operands: Storages, mean: Any, low: Any, spread: Any, gamma: Any, beta: Any) -> None:
        launch(operands[0], operands[2], operands[1], mean, low, spread, gamma, beta, eps, activation, *options, table)

    return walk


def normalize_pass(
    problem: Problem, eps: float, activation: Any, centre: Any = 0, adds: bool = False, wanted: bool = True
) -> Callable[[Storages, Any, Any], Statistics]:
    """Statistics of the source, applied to it: one launch if the second sweep finds it in cache.

    centre : None for deviations from zero instead of the mean
    adds   : normalize the sum of source and EXTRA, which is written to GRAD_EXTRA; for `rows` only
    wanted : whether anybody looks at the statistics
    """
    schedule, table = problem.schedule, problem.table
    shape = (4, problem.geometry.statistics if wanted or not is_short(problem, adds) else 0)
    if not schedule.fused:
        first, second = moments_pass(problem, eps, centre), apply_pass(problem, None, activation)

        def in_two(operands: Storages, gamma: Any, beta: Any) -> Statistics:
            stats = first(operands[0])
            mean, low = (stats[0], stats[1]) if centre is not None else (None, None)
            second(operands, mean, low, stats[3], gamma, beta)
            return stats

        return in_two
    if schedule.rows:
        rows = _rows_launch(problem, eps, activation, centre, writes=True, adds=adds)

        def in_rows(operands: Storages, gamma: Any, beta: Any) -> Statistics:
            stats = np.empty(shape)
            src, out, extra, _, total = operands
            rows(stats, src, extra, out, total if adds else None, gamma, beta)
            return stats

        return in_rows
    options = options_of(problem)
    if schedule.planes:
        planes = Launch(problem, kernels.short_planes, "planes_normalize")

        def in_planes(operands: Storages, gamma: Any, beta: Any) -> Statistics:
            stats = np.empty(shape)
            src, out, extra, _, _ = operands
            planes(src, extra, out, stats, gamma, beta, eps, activation, *options, table)
            return stats

        return in_planes
    launch = Launch(problem, kernels.normalize, "planar_normalize" if schedule.planar else "interleaved_normalize")

    def in_one(operands: Storages, gamma: Any, beta: Any) -> Statistics:
        stats = np.empty(shape)
        src, out, extra, _, _ = operands
        launch(src, extra, out, stats, gamma, beta, centre, eps, activation, *options, table)
        return stats

    return in_one


def moments(problem: Problem, eps: float = 0.0, centre: Any = 0) -> Statistics:
    """Of the source."""
    stats: Statistics = kept(problem, moments_pass, (eps, centre))(storages(problem)[0])
    return stats


def normalize(problem: Problem, gamma: Any, beta: Any, eps: float, activation: Any, centre: Any = 0, adds: bool = False) -> Statistics:
    """Write the normalized elements to the output of the problem; parameters as of `weights`, the others as of `normalize_pass`."""
    walk = kept(problem, normalize_pass, (eps, activation, centre, adds), (gamma, beta))
    stats: Statistics = walk(storages(problem), gamma, beta)
    return stats


def apply(problem: Problem, mean: Any, low: Any, var: Any, gamma: Any, beta: Any, eps: float | None, activation: Any) -> None:
    """Write the normalized elements of given statistics, vectors or None, to the output of the problem. eps : as of `apply_pass`"""
    given = (mean, low, var, gamma, beta)
    kept(problem, apply_pass, (eps, activation), given)(storages(problem), *given)
