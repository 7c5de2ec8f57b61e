"""Statistics and scaling of compressed sparse matrices: CSR and CSC of SciPy, matrices and arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm import kernels
from fastnorm.plan.memory import form_of
from fastnorm.runtime import recycling
from fastnorm.runtime.crew import HEAVY
from fastnorm.runtime.threads import crew_for

Array = NDArray[Any]

# Every chunk of a sum over the major axis has a line per statistic to clear and to add up: worth it for this many
# stored elements per number of the lines. Results depend on the number of these chunks: it follows from the matrix alone.
ENTRIES_PER_CHUNK, MOST_CHUNKS = 65536, 16
# Lines are not dealt to threads in parts: fewer than so many that are so long are left to reductions that are.
LONG_LINE, FEW_LINES = 65536, 16


NORMS = ("l1", "l2", "max")  # as `kernels.sparse` numbers them


class Compressed(NamedTuple):
    """The arrays of a matrix as kernels take them. Indices along the minor axis are `places`."""

    values: Array
    places: Array
    starts: Any  # array, or the length of all
    majors: int
    minors: int

    def chunks(self, numbers: int = 0) -> int:
        """What the stored elements are dealt to, if each chunk has as many numbers of its own."""
        entries = self.values.size
        return max(1, min(MOST_CHUNKS, entries // max(ENTRIES_PER_CHUNK, numbers)))


def compressed(matrix: Any) -> Compressed:
    """A matrix in CSR or CSC form, its elements float32 or float64. Nothing is copied unless it is misaligned or strided."""
    majors, minors = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    n = int(matrix.indptr[-1])  # SciPy allows more room than elements
    return Compressed(_vector(matrix.data[:n]), _vector(matrix.indices[:n]), _vector(matrix.indptr), majors, minors)


def _vector(array: Array) -> Array:
    if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
        return np.array(array, array.dtype.newbyteorder("="))
    if type(array) is np.ndarray and array.flags.writeable:
        return array
    return form_of(array, (0, 0, 0, array.itemsize), (1, 1, 1, array.size), True).view(array).carrier


def lines_of(table: Array) -> Compressed | None:
    """A table of contiguous rows as a matrix that stores all of them, `starts` their length; None of few long rows and of other tables."""
    n, width = table.shape
    if table.dtype.char not in "fd" or not table.flags.c_contiguous or not table.flags.aligned or (width > LONG_LINE and n < FEW_LINES):
        return None
    return Compressed(_vector(table.reshape(-1)), np.empty(0, np.int32), width, n, width)


def summed(matrix: Any) -> Any:
    """The matrix, or a copy in which elements that are stored twice are one."""
    if matrix.has_canonical_format:
        return matrix
    matrix = matrix.copy()
    matrix.sum_duplicates()
    return matrix


def _launch(name: str, chunks: int, *arguments: Any) -> None:
    getattr(kernels.sparse, name)(crew_for(HEAVY) if chunks > 1 else 0, *arguments)


def column_moments(matrix: Any, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Moments of the columns without NaN: count, mean, what the mean lost by rounding, second central moment.

    matrix  : canonical CSR or CSC (n_samples, n_features)
    weights : (n_samples,)
    returns : (4, n_features)
    """
    parts, n_features = compressed(matrix), matrix.shape[1]
    centre, moments = np.zeros(n_features), np.empty((4, n_features))
    sums = _sums(matrix, parts, weights, centre)
    zeros = _weight_of_zeros(matrix, parts, weights, sums)
    # Most elements of most matrices are 0, and the mean is near: one pass, or a second about the mean.
    off = kernels.sparse.moments_with_zeros(sums, zeros, centre, moments)
    if off and np.isfinite(moments[1]).all():
        centre = moments[1].copy()
        kernels.sparse.moments_with_zeros(_sums(matrix, parts, weights, centre), zeros, centre, moments)
    return moments


def _weight_of_zeros(matrix: Any, parts: Compressed, weights: Array | None, sums: Array) -> Array:
    """Of the elements of every column that are not stored."""
    stored = sums[:, 0] + sums[:, 3]
    if weights is None:
        return np.asarray(matrix.shape[0] - stored)
    # What is left of the sum of all weights by rounding is no element.
    entries = np.diff(parts.starts) if matrix.format == "csc" else np.bincount(parts.places, minlength=matrix.shape[1])
    left = np.maximum(np.add.reduce(weights) - stored, 0.0)
    return np.where(entries < matrix.shape[0], left, 0.0)


def _sums(matrix: Any, parts: Compressed, weights: Array | None, centre: Array) -> Array:
    operands, fields = (*parts[:3], weights, centre), kernels.sparse.FIELDS
    if matrix.format == "csc":
        sums = np.empty((parts.majors, fields))
        _launch("major_sums", parts.chunks(), *operands, sums, parts.chunks())
        return sums
    chunks = parts.chunks(fields * parts.minors)
    shares = np.empty((chunks, parts.minors, fields))
    _launch("minor_sums", chunks, *operands, shares)
    return np.asarray(np.add.reduce(shares, 0)) if chunks > 1 else shares[0]  # chunks in order


def column_largest(matrix: Any) -> NDArray[np.float64]:
    """Largest magnitudes of the columns of canonical CSR or CSC without NaN; NaN where there is nothing else."""
    parts = compressed(matrix)
    if matrix.format == "csc":
        found = np.empty((parts.majors, kernels.sparse.FEW_FIELDS))
        _launch("major_largest", parts.chunks(), parts.values, parts.starts, found, parts.chunks())
        unknown, largest = found.T
    else:
        fields = kernels.sparse.FEW_FIELDS
        chunks = parts.chunks(fields * parts.minors)
        shares = np.empty((chunks, parts.minors, fields))
        _launch("minor_largest", chunks, parts.values, parts.places, shares)
        unknown, largest = shares[:, :, 0].sum(0), shares[:, :, 1].max(0)
    return np.where(unknown < matrix.shape[0], largest, np.nan)


def normalize_lines(parts: Compressed, norm: str, least: float, target: Array) -> NDArray[np.float64]:
    """Write the rows of canonical CSR, the columns of CSC, divided by their norms; those of a norm below `least` as they are.

    norm   : of NORMS
    target : where the elements of the result are
    returns: the norms
    """
    norms = np.empty(parts.majors)
    with _vector_in(target, parts) as out:
        _launch(
            "normalize_major", parts.chunks(), parts.values, parts.starts, NORMS.index(norm), least, norms, out, parts.chunks()
        )  # fmt: skip
    return norms


def scale_columns(matrix: Any, factor: NDArray[np.float64], target: Any) -> None:
    """Write the elements of `matrix`, each times the factor of its column, to those of `target`: the same, or one like it."""
    parts = compressed(matrix)
    if matrix.format == "csc":
        name, places = "scale_major", parts.starts
    else:
        name, places = "scale_minor", parts.places
    with _vector_in(target.data, parts) as out:
        _launch(name, parts.chunks(), parts.values, places, factor, out, parts.chunks())


@contextmanager
def _vector_in(target: Array, parts: Compressed) -> Iterator[Array]:
    """The memory of the result's elements, or a temporary where that is no plain vector."""
    wanted = target[: parts.values.size]
    out = wanted if _vector(wanted) is wanted else np.empty_like(parts.values)
    yield out
    if out is not wanted:
        wanted[...] = out


def like(matrix: Any) -> Any:
    """A matrix with the same places and elements of its own, not yet written."""
    arrays = (recycling.empty(matrix.data.shape, matrix.data.dtype.newbyteorder("=")), matrix.indices.copy(), matrix.indptr.copy())
    return type(matrix)(arrays, shape=matrix.shape)
