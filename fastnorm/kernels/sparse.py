"""Sums and factors along the axes of compressed sparse matrices.

values, places : stored elements, and their indices along the minor axis: columns of CSR, rows of CSC
starts  : of the stored elements of every major index, and the end of the last
weights : float64, one per index of the axis that is summed over, or None
sums    : float64 (chunks, n, 4) or (n, 4). Per statistic: weight of elements that are numbers, sums of d and d*d, where
          d = x - centre, and weight of NaN. Side by side, because an element adds to all of them.
sizes   : float64 (chunks, n, 2) or (n, 2), number of NaN, largest magnitude
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from fastnorm._jit import chunk_body, driver, loop, variant
from fastnorm.element.bits import wide_vectors
from fastnorm.element.moments import rounded_mean
from fastnorm.element.reductions import greater
from fastnorm.element.sparse import factor_of, is_off_centre, root, with_zeros
from fastnorm.element.storage import as_compute, at, cut, load, put, row, write
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.scratch import vectors
from fastnorm.kernels.walk import span

FIELDS, FEW_FIELDS = 4, 2
# Norms of lines: the sum of magnitudes, the root of the sum of squares, the largest magnitude.
SUM, ROOT, LARGEST = range(3)
# Elements of a line that calls of functions would take longer than; lines, and elements, that are measured before they are scaled.
FEW, MOST_LINES, AT_ONCE = 8, 256, 2048


@loop
def index_at(places, i):
    return np.intp(at(places, i))


@loop
def add(line, place, amount):
    put(line, place, at(line, place) + amount)


@loop
def major_of(starts, entry):
    """The major index that a stored element belongs to."""
    low, high = 0, starts.size - 1
    while high - low > 1:
        middle = (low + high) // 2
        if index_at(starts, middle) <= entry:
            low = middle
        else:
            high = middle
    return low


@chunk_body
def minor_sums_chunk(values, places, starts, weights, centre, sums, chunk):
    """An even share of the stored elements, each added to the statistic of its minor index."""
    first, last = span(values.size, sums.shape[0], chunk)
    lines = row(sums, chunk)
    for i in range(lines.size):
        lines[i] = 0.0
    major = 0
    if weights is not None:
        major = major_of(starts, first)
    weight = 1.0
    for k in range(first, last):
        place = index_at(places, k)
        if weights is not None:
            while index_at(starts, major + 1) <= k:
                major += 1
            weight = at(weights, major)
        value = float(load(values, k))
        line = FIELDS * place
        if value == value:
            d = value - at(centre, place)
            add(lines, line, weight)
            add(lines, line + 1, weight * d)
            add(lines, line + 2, weight * d * d)
        else:
            add(lines, line + 3, weight)


@driver
def minor_sums(crew, values, places, starts, weights, centre, sums):
    deal(crew, minor_sums_chunk, sums.shape[0], (values, places, starts, weights, centre, sums))


@chunk_body
def sums_of_run(run, places, weights, centre):
    """Of one major index."""
    wide_vectors()
    present, total, squares, unknown = 0.0, 0.0, 0.0, 0.0
    weight = 1.0
    for i in range(run.size):
        if weights is not None:
            weight = at(weights, index_at(places, i))
        value = float(load(run, i))
        known = value == value
        d = value - centre if known else 0.0
        present += weight if known else 0.0
        unknown += 0.0 if known else weight
        total += weight * d
        squares += weight * d * d
    return present, total, squares, unknown


@chunk_body
def major_sums_chunk(values, places, starts, weights, centre, sums, chunks, chunk):
    """An even share of the major indices."""
    first, last = span(starts.size - 1, chunks, chunk)
    for major in range(first, last):
        begin = index_at(starts, major)
        n = index_at(starts, major + 1) - begin
        line = sums_of_run(cut(values, begin, n), cut(places, begin, n), weights, at(centre, major))
        for field in range(FIELDS):
            sums[major, field] = line[field]


@driver
def major_sums(crew, values, places, starts, weights, centre, sums, chunks):
    deal(crew, major_sums_chunk, chunks, (values, places, starts, weights, centre, sums, chunks))


@driver
def moments_with_zeros(sums, zeros, centre, moments):
    """Moments (4, n) of whole columns from the sums (n, 4) of what is stored and the weight of zeros that are not.

    Returns whether zero was a poor centre for one of them.
    """
    off = False
    for i in range(sums.shape[0]):
        found = with_zeros(zeros[i], sums[i, 0], centre[i], sums[i, 1], sums[i, 2])
        off = off or is_off_centre(found)
        mean, low = rounded_mean(found)
        moments[0, i], moments[1, i], moments[2, i], moments[3, i] = found.count, mean, low, found.m2
    return off


@chunk_body
def minor_largest_chunk(values, places, sizes, chunk):
    first, last = span(values.size, sizes.shape[0], chunk)
    lines = row(sizes, chunk)
    for i in range(lines.size):
        lines[i] = 0.0
    for k in range(first, last):
        line = FEW_FIELDS * index_at(places, k)
        value = float(load(values, k))
        if value == value:
            put(lines, line + 1, greater(abs(value), at(lines, line + 1)))
        else:
            add(lines, line, 1.0)


@driver
def minor_largest(crew, values, places, sizes):
    deal(crew, minor_largest_chunk, sizes.shape[0], (values, places, sizes))


@chunk_body
def largest_of_run(run):
    """Number of NaN, largest magnitude of the others."""
    wide_vectors()
    unknown, largest = 0.0, 0.0
    for i in range(run.size):
        value = abs(as_compute(0.0, load(run, i)))
        unknown += 0.0 if value == value else 1.0
        largest = greater(value, largest)
    return unknown, largest


@chunk_body
def major_largest_chunk(values, starts, sizes, chunks, chunk):
    first, last = span(starts.size - 1, chunks, chunk)
    for major in range(first, last):
        begin = index_at(starts, major)
        line = largest_of_run(cut(values, begin, index_at(starts, major + 1) - begin))
        for field in range(FEW_FIELDS):
            sizes[major, field] = line[field]


@driver
def major_largest(crew, values, starts, sizes, chunks):
    deal(crew, major_largest_chunk, chunks, (values, starts, sizes, chunks))


@chunk_body
def size_of_run(run, norm):
    wide_vectors()
    return size_of(run, norm)


@loop
def size_of(run, norm):
    """What the norm is made of, in float64: squares of float32 may be no float32."""
    size = 0.0
    if norm == SUM:
        for i in range(run.size):
            size += abs(as_compute(0.0, load(run, i)))
    elif norm == ROOT:
        for i in range(run.size):
            value = as_compute(0.0, load(run, i))
            size += value * value
    else:
        for i in range(run.size):
            size = greater(abs(as_compute(0.0, load(run, i))), size)
    return size


@chunk_body
def settle_norms(norms, factors, first, n, norm, least):
    """Row by row, roots and divisions were half the time of rows of two."""
    wide_vectors()
    some = cut(norms, first, n)
    if norm == ROOT:
        for k in range(n):
            write(some, k, root(at(some, k)))
    factors_of(some, factors, n, least)


@chunk_body
def factors_of(norms, factors, n, least):
    wide_vectors()
    for k in range(n):
        write(factors, k, factor_of(at(norms, k), least))


@variant
def start_of(starts: Any, major: Any) -> Any:
    """Of a major index; all are equally long where `starts` is a number."""
    if isinstance(starts, types.Integer):
        return lambda starts, major: starts * major
    return lambda starts, major: index_at(starts, major)


@chunk_body
def normalize_major_chunk(values, starts, norm, least, norms, out, chunks, chunk):
    first, last = span(norms.size, chunks, chunk)
    scratch = vectors(0.0, 1, MOST_LINES)
    begin = first
    while begin < last:
        factors = row(scratch, 0)
        end, start = begin, start_of(starts, begin)
        while end < last and end - begin < MOST_LINES and start_of(starts, end) - start < AT_ONCE:
            place = start_of(starts, end)
            run = cut(values, place, start_of(starts, end + 1) - place)
            norms[end] = size_of(run, norm) if run.size <= FEW else size_of_run(run, norm)
            end += 1
        settle_norms(norms, factors, begin, end - begin, norm, least)
        for major in range(begin, end):
            place, factor = start_of(starts, major), at(factors, major - begin)
            n = start_of(starts, major + 1) - place
            run, target = cut(values, place, n), cut(out, place, n)
            if n > FEW:
                scale_run(run, factor, target)
            else:
                for i in range(n):
                    write(target, i, load(run, i) * factor)
        begin = end


@driver
def normalize_major(crew, values, starts, norm, least, norms, out, chunks):
    """Stored elements of every major index, divided by their norm: SUM, ROOT or LARGEST; those of a norm below `least` are copied.

    starts : or their distance, where all lines are equally long
    norms  : float64, one per major index
    """
    deal(crew, normalize_major_chunk, chunks, (values, starts, norm, least, norms, out, chunks))


@chunk_body
def scale_minor_chunk(values, places, factor, out, chunks, chunk):
    """Stored elements times the factor of their minor index; in place if `out` is `values`."""
    wide_vectors()
    first, last = span(values.size, chunks, chunk)
    n = last - first
    run, spots, target = cut(values, first, n), cut(places, first, n), cut(out, first, n)
    for i in range(n):
        write(target, i, load(run, i) * at(factor, index_at(spots, i)))


@driver
def scale_minor(crew, values, places, factor, out, chunks):
    deal(crew, scale_minor_chunk, chunks, (values, places, factor, out, chunks))


@chunk_body
def scale_run(run, factor, target):
    wide_vectors()
    for i in range(run.size):
        write(target, i, load(run, i) * factor)


@chunk_body
def scale_major_chunk(values, starts, factor, out, chunks, chunk):
    first, last = span(starts.size - 1, chunks, chunk)
    for major in range(first, last):
        begin = index_at(starts, major)
        n = index_at(starts, major + 1) - begin
        scale_run(cut(values, begin, n), at(factor, major), cut(out, begin, n))


@driver
def scale_major(crew, values, starts, factor, out, chunks):
    deal(crew, scale_major_chunk, chunks, (values, starts, factor, out, chunks))
