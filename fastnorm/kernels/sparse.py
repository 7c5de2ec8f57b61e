"""Sums and factors along the axes of compressed sparse matrices.

values, places : stored elements, and their indices along the minor axis: columns of CSR, rows of CSC
starts  : of the stored elements of every major index, and the end of the last
weights : float64, one per index of the axis that is summed over, or None
sums    : float64 (chunks, n, 4) or (n, 4). Per statistic: weight of elements that are numbers, sums of d and d*d, where
          d = x - centre, and weight of NaN. Side by side, because an element adds to all of them.
sizes   : float64 (chunks, n, 2), number of NaN, largest magnitude; or (n, 4), then sum of magnitudes and of squares
"""

from __future__ import annotations

import numpy as np

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.bits import wide_vectors
from fastnorm.element.moments import rounded_mean
from fastnorm.element.reductions import greater
from fastnorm.element.sparse import is_off_centre, with_zeros
from fastnorm.element.storage import at, cut, load, put, row, write
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.walk import span

FIELDS, FEW_FIELDS = 4, 2


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
def sizes_of_run(run):
    wide_vectors()
    unknown, largest, total, squares = 0.0, 0.0, 0.0, 0.0
    for i in range(run.size):
        value = abs(float(load(run, i)))
        known = value == value
        value = value if known else 0.0
        unknown += 0.0 if known else 1.0
        largest = greater(value, largest)
        total += value
        squares += value * value
    return unknown, largest, total, squares


@chunk_body
def major_sizes_chunk(values, starts, sizes, chunks, chunk):
    first, last = span(starts.size - 1, chunks, chunk)
    for major in range(first, last):
        begin = index_at(starts, major)
        line = sizes_of_run(cut(values, begin, index_at(starts, major + 1) - begin))
        for field in range(FIELDS):
            sizes[major, field] = line[field]


@driver
def major_sizes(crew, values, starts, sizes, chunks):
    deal(crew, major_sizes_chunk, chunks, (values, starts, sizes, chunks))


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
