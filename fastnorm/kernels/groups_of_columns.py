"""Columns that belong to one statistic: as rows side by side, they are summed about one shift, and their sums are added.

grouped : None where every column is a statistic of its own: nothing of this is compiled then
each    : how many columns belong to a statistic
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastnorm._jit import chunk_body, loop, variant
from fastnorm.element.affine import distance, origin_near
from fastnorm.element.bits import wide_vectors
from fastnorm.element.storage import as_compute, at, cut, row, write, zero_of


@variant
def of_statistics(grouped: Any, sums: Any, moments: Any, block_moments: Any) -> Any:
    """Vectors for shift, sums of d and of d * d of every statistic: those of the columns, or others, sums in float64."""
    if grouped is types.none:
        return lambda grouped, sums, moments, block_moments: (row(sums, 0), row(sums, 1), row(sums, 2))
    return lambda grouped, sums, moments, block_moments: (row(sums, 3), row(moments, 0), row(block_moments, 0))


@variant
def gather_shifts(grouped: Any, src: Any, shift: Any, origins: Any, n: Any, each: Any) -> Any:
    """From means of columns to those of statistics, which become the shifts of their columns."""
    if grouped is types.none:
        return lambda grouped, src, shift, origins, n, each: None
    return lambda grouped, src, shift, origins, n, each: means_of_groups(src, shift, origins, n, each)


@chunk_body
def means_of_groups(src, shift, origins, n, each):
    wide_vectors()
    zero = zero_of(shift)
    share = as_compute(zero, 1.0 / each)
    for k in range(n):
        of_group = cut(shift, k * each, each)
        first, total = at(of_group, 0), zero
        for i in range(each):
            total += distance(at(of_group, i), first)
        mean = origin_near(src, first + total * share)
        write(origins, k, mean)
        fill_run(of_group, mean, each)


@variant
def spread_shifts(grouped: Any, shift: Any, origins: Any, n: Any, each: Any) -> Any:
    """From shifts of statistics to those of columns."""
    if grouped is types.none:
        return lambda grouped, shift, origins, n, each: None
    return lambda grouped, shift, origins, n, each: fill_groups(shift, origins, n, each)


@loop
def fill_run(run, value, n):
    """By `write`: an index that might be negative, for all LLVM knows, makes no vectors."""
    for i in range(n):
        write(run, i, value)


@chunk_body
def fill_groups(shift, origins, n, each):
    wide_vectors()
    for k in range(n):
        fill_run(cut(shift, k * each, each), at(origins, k), each)


@variant
def gather_sums(grouped: Any, sums: Any, totals: Any, n: Any, each: Any) -> Any:
    """From sums of columns to those of statistics; both may be one vector."""
    if grouped is types.none:
        return lambda grouped, sums, totals, n, each: None
    return lambda grouped, sums, totals, n, each: sums_of_groups(sums, totals, n, each)


@chunk_body
def sums_of_groups(sums, totals, n, each):
    wide_vectors()
    for k in range(n):
        of_group, total = cut(sums, k * each, each), 0.0
        for i in range(each):
            total += as_compute(0.0, at(of_group, i))
        write(totals, k, total)
