"""Functions of contiguous runs for the user's own compiled code: serial, without allocation, callable in ``prange``.

They are the library's loops under the library's compiler options, whatever the options of the caller, and they become
part of the caller's machine code and cache. They check types when they are compiled and nothing when they run: all
arrays of a call must have the length of the run. Called from Python they work, too.
"""

from __future__ import annotations

from typing import NamedTuple

from fastnorm._jit import exported, exported_element, loop
from fastnorm.element import moments as of_sets
from fastnorm.element.affine import offset_of, split_mean
from fastnorm.element.bits import wide_vectors
from fastnorm.element.storage import as_compute, cut, zero_of
from fastnorm.interop.jit_operands import own, shared, takes
from fastnorm.kernels.tile import moments_about, normalize_run
from fastnorm.plan.schedule import ROW_TILES, TILE_BYTES


class Moments(NamedTuple):
    """Of a set of numbers, in float64; ``m2 / count`` is the variance. That of nothing is ``(0.0, 0.0, 0.0)``."""

    count: float  # type: ignore[assignment]
    mean: float
    m2: float


@loop
def moments_of_pieces(centre, run):
    """centre : None for moments about zero. Up to four tiles in one piece, as the library's own rows."""
    total = of_sets.EMPTY
    at, piece = 0, ROW_TILES * TILE_BYTES // run.itemsize
    while at < run.size:
        n = min(piece, run.size - at)
        total = of_sets.merge(total, moments_about(centre, cut(run, at, n), n, False))
        at += n
    return total


@loop
def apply_to_run(run, residual, out, high, low, rstd, gamma, beta, activation):
    zero, n = zero_of(run), run.size
    scale = as_compute(zero, rstd * shared(gamma, 1.0))
    offset = as_compute(zero, offset_of(low, float(scale), shared(beta, 0.0)))
    normalize_run(run, residual, out, n, high, scale, offset, own(gamma, 0, n), own(beta, 0, n), activation)


@exported
def moments(run):
    """Count, mean and second central moment of a run.

    Parameters
    ----------
    run : contiguous float32 or float64 array

    Returns
    -------
    Moments
        ``(count, mean, m2)``, float64; an infinite element makes the mean NaN.

    Notes
    -----
    Blocks are summed about a shift in the dtype of the run and merged in float64. Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.jit.moments(np.array([1.0, 3.0]))
    Moments(count=2.0, mean=2.0, m2=2.0)
    """
    wide_vectors()
    run = takes(run, None, None, None)
    found = moments_of_pieces(0, run)
    return Moments(found.count, of_sets.rounded_mean(found)[0], found.m2)


@exported_element
def merge(a, b):
    """Moments of the union of two disjoint sets.

    Parameters
    ----------
    a, b : Moments
        Or any tuples ``(count, mean, m2)`` of floats; one of an empty set changes nothing.

    Returns
    -------
    Moments

    Notes
    -----
    Source: Chan, Golub, LeVeque 1983, equation 2.1.

    Examples
    --------
    >>> import fastnorm as fn
    >>> fn.jit.merge((1.0, 1.0, 0.0), (1.0, 3.0, 0.0))
    Moments(count=2.0, mean=2.0, m2=2.0)
    """
    first, second = of_sets.Moments(a[0], a[1], 0.0, a[2]), of_sets.Moments(b[0], b[1], 0.0, b[2])
    joined = of_sets.merge(first, second)
    return Moments(joined.count, of_sets.rounded_mean(joined)[0], joined.m2)


@exported
def normalize(run, out, mean, rstd, gamma, beta):
    """Write ``(run - mean) * rstd * gamma + beta``.

    Parameters
    ----------
    run, out : contiguous float32 or float64 arrays of one length
        `out` may be `run`.
    mean, rstd : float
        float64; the mean is applied as a high and a low part of the dtype of the run.
    gamma, beta : None, float, or array like run
        A number is shared by the run (batch norm); an array has one for every element (layer norm).

    Notes
    -----
    Source: Ioffe, Szegedy 2015, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> y = np.array([1.0, 3.0])
    >>> fn.jit.normalize(y, y, 2.0, 1.0, None, 10.0)
    >>> y
    array([ 9., 11.])
    """
    wide_vectors()
    run = takes(run, out, gamma, beta)
    high, low = split_mean(zero_of(run), mean, 0.0)
    apply_to_run(run, None, out, high, low, rstd, gamma, beta, None)


@exported
def batch_norm_run(run, out, mean, var, gamma, beta, eps):
    """Inference of batch norm for a run of one channel.

    Parameters
    ----------
    run, out : contiguous float32 or float64 arrays of one length
        `out` may be `run`.
    mean, var : float
        Of the channel.
    gamma, beta : None or float
        Of the channel.
    eps : float

    Returns
    -------
    rstd : float
        ``1 / sqrt(var + eps)``

    Notes
    -----
    Source: Ioffe, Szegedy 2015, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> y = np.array([1.0, 3.0])
    >>> fn.jit.batch_norm_run(y, y, 1.0, 4.0, None, None, 0.0)
    0.5
    >>> y
    array([0., 1.])
    """
    wide_vectors()
    run = takes(run, out, gamma, beta)
    rstd = of_sets.reciprocal_std(var, eps)
    high, low = split_mean(zero_of(run), mean, 0.0)
    apply_to_run(run, None, out, high, low, rstd, gamma, beta, None)
    return rstd


@exported
def layer_norm_row(row, out, gamma, beta, eps):
    """Layer norm of one row.

    Parameters
    ----------
    row, out : contiguous float32 or float64 arrays of one length
        `out` may be `row`.
    gamma, beta : None or array like row
    eps : float

    Returns
    -------
    mean, rstd : float
        For `layer_norm_row_backward`.

    Notes
    -----
    Source: Ba, Kiros, Hinton 2016, equation 4.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> y = np.array([1.0, 3.0])
    >>> fn.jit.layer_norm_row(y, y, None, None, 0.0)
    (2.0, 1.0)
    >>> y
    array([-1.,  1.])
    """
    wide_vectors()
    row = takes(row, out, gamma, beta)
    found = moments_of_pieces(0, row)
    mean, rest = of_sets.rounded_mean(found)
    rstd = of_sets.reciprocal_std(of_sets.variance(found), eps)
    high, low = split_mean(zero_of(row), mean, rest)
    apply_to_run(row, None, out, high, low, rstd, gamma, beta, None)
    return mean, rstd


@exported
def rms_norm_row(row, out, gamma, eps):
    """RMS norm of one row.

    Parameters
    ----------
    row, out : contiguous float32 or float64 arrays of one length
        `out` may be `row`.
    gamma : None or array like row
    eps : float

    Returns
    -------
    rstd : float
        For `rms_norm_row_backward`.

    Notes
    -----
    Source: Zhang, Sennrich 2019, equation 4.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> y = np.array([3.0, 4.0, 0.0, 0.0])
    >>> fn.jit.rms_norm_row(y, y, None, 0.0)
    0.4
    """
    wide_vectors()
    row = takes(row, out, gamma, None)
    rstd = of_sets.reciprocal_std(of_sets.variance(moments_of_pieces(None, row)), eps)
    apply_to_run(row, None, out, None, None, rstd, gamma, None, None)
    return rstd
