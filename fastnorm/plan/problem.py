"""One call, planned: the table for the kernels, the schedule, and every operand as a flat carrier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm.plan.geometry import Collapsed, Geometry, collapse
from fastnorm.plan.memory import Form, contiguous, copy_to, form_of, is_aligned, is_plain, kind_of
from fastnorm.plan.schedule import Schedule, make_schedule
from fastnorm.plan.table import EXTRA, GRAD, N_ROWS, PARAM, PROBLEM, WIDTH

Array = NDArray[Any]
Operands = tuple[Array | None, ...]  # by row of the table: entry k is row k + 1
_WRITTEN = (1, 4)  # entries OUT and GRAD_EXTRA are results


@dataclass(frozen=True, eq=False)
class Layout:
    """Which axes of x belong together. Plans are kept by identity: make each layout once."""

    labels: tuple[str, ...]  # of geometry, one per axis
    two_phases: bool  # elements are read again after the statistics are known
    batched: bool = False  # whether a kept axis may be one whose members share their parameters
    streams: bool = True
    per_element: bool = False  # every element of a statistic has parameters of its own, shared by all statistics
    accumulates: bool = False  # gradients of parameters are summed
    any_step: bool = False  # runs need not be contiguous: the kernel goes by the steps of the table


class Problem(NamedTuple):
    geometry: Geometry
    schedule: Schedule
    table: NDArray[np.int64]
    carriers: tuple[Any, ...]  # View, or a contiguous array as it is, or None
    order: tuple[int, ...]  # axes of x as they lie in memory
    detours: tuple[tuple[Array, Array], ...]  # (the user's output, where it is computed instead)
    per_element: int  # length of parameters that are vectors along the elements of a run, 0 where they are numbers
    passes: dict[Any, Any]  # what `ops.passes` keeps with the plan

    def bare(self) -> Problem:
        """For what outlives the call: without its arrays."""
        return self._replace(carriers=(None,) * len(self.carriers), detours=())

    def finish(self) -> None:
        """Bring results that were computed elsewhere home."""
        for out, temporary in self.detours:
            copy_to(out, temporary)


class _Kept(NamedTuple):
    geometry: Geometry
    schedule: Schedule
    table: NDArray[np.int64]
    order: tuple[int, ...]
    per_element: int
    passes: dict[Any, Any]

    def problem(self, carriers: tuple[Any, ...], detours: tuple[tuple[Array, Array], ...] = ()) -> Problem:
        return Problem(self.geometry, self.schedule, self.table, carriers, self.order, detours, self.per_element, self.passes)


class _Seen(NamedTuple):
    """How operands of any strides are presented, all of which are walked where they lie."""

    kept: _Kept
    forms: tuple[Form | None, ...]  # of every operand that there is

    def views(self, operands: Operands) -> tuple[Any, ...]:
        return tuple(None if form is None or a is None else form.view(a) for form, a in zip(self.forms, operands, strict=True))


_kept: dict[Any, _Kept | _Seen] = {}
_MOST_KEPT = 4096


def arrange(layout: Layout, operands: Operands, n_threads: int) -> Problem:
    """Plan a call. Plans are remembered by shape and dtype of contiguous operands, and by strides and alignment of others."""
    x = operands[0]
    assert x is not None
    key: list[Any] = [layout, x.shape, n_threads]
    for array in operands:
        if array is None:
            key.append(None)
            continue
        dtype = array.dtype
        if not (array.flags.carray and dtype.isnative):
            return _arrange_seen(layout, operands, n_threads)
        key.append(dtype.num)  # hashing a dtype takes longer than the rest of the key
    known = tuple(key)
    kept = _kept.get(known)
    if not isinstance(kept, _Kept):
        kept = _plan_contiguous(layout, operands, n_threads)
        _keep(known, kept)
    return kept.problem(operands)


def _keep(key: Any, plan: _Kept | _Seen) -> None:
    if len(_kept) >= _MOST_KEPT:
        _kept.clear()
    _kept[key] = plan


def _arrange_seen(layout: Layout, operands: Operands, n_threads: int) -> Problem:
    """Of any strides. Planned anew, a call on a slice of 4 KB took 140 us."""
    key: list[Any] = [layout, n_threads]
    for array in operands:
        if array is None:
            key.append(None)
        else:
            dtype, misaligned = array.dtype, array.__array_interface__["data"][0] % array.itemsize
            key.append((array.shape, array.strides, dtype.num, dtype.isnative, misaligned))
    known = tuple(key)
    seen = _kept.get(known)
    if isinstance(seen, _Seen):
        return seen.kept.problem(seen.views(operands))
    problem, seen = _arrange_any(layout, operands, n_threads)
    if seen is not None:
        _keep(known, seen)
    return problem


def _present(operands: Operands) -> list[Array]:
    return [array for array in operands if array is not None]


def _plan_contiguous(layout: Layout, operands: Operands, n_threads: int) -> _Kept:
    arrays = _present(operands)
    x = arrays[0]
    strides = tuple(step // x.itemsize for step in x.strides)  # in elements: the same for all operands
    collapsed = collapse(layout.labels, x.shape, [strides], batched=layout.batched)
    if collapsed is None:
        raise NotImplementedError(f"axes of shape {x.shape} alternate more than twice")
    geometry = _geometry(layout, collapsed)
    schedule = _schedule(layout, geometry, collapsed, arrays, n_threads, operands[GRAD - 1] is not None)
    row = (0, *collapsed.strides[0])
    table = _table(layout, geometry, schedule, {k + 1: row for k, array in enumerate(operands) if array is not None})
    return _Kept(geometry, schedule, table, collapsed.order, per_element(layout, geometry, schedule), {})


def _geometry(layout: Layout, collapsed: Collapsed) -> Geometry:
    return Geometry(*collapsed.sizes, run=1 if layout.per_element else collapsed.run)


def per_element(layout: Layout, geometry: Geometry, schedule: Schedule) -> int:
    """Length of parameter vectors, or 0."""
    if layout.per_element:
        return geometry.elements
    return geometry.parameters if schedule.planar and geometry.run < geometry.inner and geometry.run == 1 else 0


def _schedule(layout: Layout, geometry: Geometry, collapsed: Collapsed, arrays: list[Array], n_threads: int, gradient: bool) -> Schedule:
    x = arrays[0]
    batch = collapsed.sizes[0]
    compute_bytes = 4 if kind_of(x.dtype) in ("f4", "half", "bfloat16") else 8
    _, outer, channel, inner = collapsed.sizes
    columns_contiguous = all(channel == 1 or inner == 1 or s[2] == inner * s[3] for s in collapsed.strides)
    unit = [s[3] if inner > 1 else s[2] for s in collapsed.strides]
    rows_contiguous = columns_contiguous and all(
        outer == 1 or s[1] == channel * inner * step for s, step in zip(collapsed.strides, unit, strict=True)
    )
    rows_apart = all(batch == 1 or channel == 1 or s[0] == channel * s[2] for s in collapsed.strides)
    no_gaps = columns_contiguous and all(batch == 1 or s[0] == channel * inner * s[3] for s in collapsed.strides)
    return make_schedule(
        geometry,
        compute_bytes,
        sum(array.size * array.itemsize for array in arrays),
        n_threads,
        columns_contiguous=columns_contiguous,
        rows_contiguous=rows_contiguous,
        rows_apart=rows_apart,
        no_gaps=no_gaps,
        may_stream=layout.streams,
        two_phases=layout.two_phases,
        per_element=layout.per_element,
        accumulates=layout.accumulates,
        gradient=gradient,
        read_only=not layout.streams,
        widened=compute_bytes > x.itemsize,
    )


def _are_repeated(arrays: list[Array], collapsed: Collapsed) -> bool:
    """Whether weights are one number for every row of a plain array."""
    x, weights = arrays
    of_x, of_weights = collapsed.strides
    _, _, channel, inner = sizes = collapsed.sizes
    constant = channel * inner > 1 and of_weights[2] == of_weights[3] == 0
    return constant and is_aligned(weights, of_weights) and is_plain(x, of_x, sizes, 3 if inner > 1 else 2)


def _table(layout: Layout, geometry: Geometry, schedule: Schedule, rows: dict[int, tuple[int, ...]]) -> NDArray[np.int64]:
    table = np.zeros((N_ROWS, WIDTH), np.int64)
    s = schedule
    table[PROBLEM] = (*geometry, s.cuts, s.chunks, s.columns, s.fold, s.stream, s.tile, s.at_once, s.unbroken, s.ahead)
    along_outer, along_channel = (geometry.inner, 0) if layout.per_element else (0, geometry.inner // geometry.run)
    table[PARAM, :5] = (0, 0, along_outer, along_channel, 1)
    for row, numbers in rows.items():
        table[row, : len(numbers)] = numbers
    return table


def _copy(array: Array, model: Array) -> Array:
    copy = np.empty_like(model, array.dtype, subok=False)
    copy_to(copy, array)
    return copy


def _arrange_any(layout: Layout, operands: Operands, n_threads: int) -> tuple[Problem, _Seen | None]:
    """Any strides. What does not collapse together with x is copied once; where nothing is, the plan is of use again."""
    x = operands[0]
    assert x is not None
    labels, shape = layout.labels, x.shape
    if collapse(labels, shape, [x.strides], batched=layout.batched) is None:
        x = contiguous(x)
    arranged: list[Array | None] = [x]
    detours = []
    for k, array in enumerate(operands[1:], 1):
        if array is not None and collapse(labels, shape, [x.strides, array.strides], batched=layout.batched) is None:
            if k in _WRITTEN:
                temporary = np.empty_like(x, array.dtype, subok=False)
                detours.append((array, temporary))
                array = temporary
            else:
                array = _copy(array, x)
        arranged.append(array)
    arrays = _present(tuple(arranged))
    collapsed = collapse(labels, shape, [array.strides for array in arrays], batched=layout.batched)
    if collapsed is None:  # pairs of operands fit, all together do not: one memory order for everybody
        return _arrange_copied(layout, x, operands, n_threads), None
    geometry = _geometry(layout, collapsed)
    repeated = not layout.streams and arranged[EXTRA - 1] is not None and _are_repeated(arrays, collapsed)
    schedule = _schedule(layout, geometry, collapsed, arrays, n_threads, operands[GRAD - 1] is not None)
    unit = 3 if schedule.planar or geometry.inner > 1 else 2
    # One strided operand makes all of them strided: every mixture would be a kernel of its own to compile.
    plain = repeated or all(
        is_aligned(a, steps) if layout.any_step else is_plain(a, steps, collapsed.sizes, unit)
        for a, steps in zip(arrays, collapsed.strides, strict=True)
    )
    steps_of = iter(collapsed.strides)
    forms = tuple(
        None if a is None else form_of(a, next(steps_of), collapsed.sizes, plain, repeated and k == EXTRA - 1)
        for k, a in enumerate(arranged)
    )
    if not plain:
        schedule = schedule._replace(stream=False)
    table = _table(layout, geometry, schedule, {k + 1: form.row for k, form in enumerate(forms) if form is not None})
    kept = _Kept(geometry, schedule, table, collapsed.order, per_element(layout, geometry, schedule), {})
    where_they_lie = all(a is b for a, b in zip(arranged, operands, strict=True))
    seen = _Seen(kept, forms)
    return kept.problem(seen.views(tuple(arranged)), tuple(detours)), seen if where_they_lie else None


def _arrange_copied(layout: Layout, x: Array, operands: Operands, n_threads: int) -> Problem:
    arranged: list[Array | None] = [contiguous(x)]
    detours = []
    for k, array in enumerate(operands[1:], 1):
        if array is not None and k in _WRITTEN:
            temporary = np.empty(array.shape, array.dtype)
            detours.append((array, temporary))
            array = temporary
        elif array is not None:
            array = contiguous(array)
        arranged.append(array)
    problem, _ = _arrange_any(layout, tuple(arranged), n_threads)
    return problem._replace(detours=tuple(detours))
