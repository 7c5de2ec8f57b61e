"""NumPy's averages: the same calls, accurate and fast."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastnorm.ops.average_calls import NO_VALUE, Arguments, mean_of, var_of
from fastnorm.ops.quick import quick_mean, quick_var


def mean(a: ArrayLike, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, *, where: Any = NO_VALUE) -> Any:
    """Arithmetic mean over axes, as `numpy.mean`.

    Parameters
    ----------
    a : array_like
        Any strides; float, integer or bool.
    axis : None, int or tuple of int
        The axes reduced over; None means all.
    dtype : dtype or None
        Of the result; None means that of `a`, and float64 for integers. With float64 a narrower `a` is summed in float64.
    out : array or None
        Of the shape of the result and any float dtype.
    keepdims : bool
        Whether reduced axes stay with length 1.
    where : bool array, broadcast to `a`
        The elements that exist; all others may hold anything.

    Returns
    -------
    scalar, array of the shape of the kept axes, or `out`

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError

    Warns
    -----
    RuntimeWarning
        As NumPy, of slices without elements: their mean is NaN. NaN and infinities give no warning.

    Notes
    -----
    Tiles of L1 are summed about a mean of their own and merged. Source: Chan, Golub, LeVeque 1983. NumPy itself answers
    where `dtype` or `out` is no float of 16, 32 or 64 bits, and where `where` is not bool.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> a = np.full((400_000, 2), 0.1, np.float32)
    >>> fn.mean(a, axis=0)  # numpy.mean: 0.10005
    array([0.1, 0.1], dtype=float32)
    """
    if dtype is None and where is NO_VALUE:
        result = quick_mean(a, axis, out, keepdims)
        if result is not None:
            return result
    return mean_of(a, Arguments(axis, dtype, out, keepdims, where))


def var(
    a: ArrayLike,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = NO_VALUE,
    *,
    where: Any = NO_VALUE,
    mean: Any = NO_VALUE,
    correction: Any = NO_VALUE,
) -> Any:
    """Variance over axes, as `numpy.var`.

    Parameters
    ----------
    a, axis, dtype, out, keepdims, where
        As of `mean`.
    ddof, correction : number
        The sum of squares is divided by ``n - ddof``. Two names of one number: pass one of them.
    mean : array_like
        What deviations are taken from, in place of the mean of `a`; of the shape that `keepdims` gives.

    Returns
    -------
    scalar, array of the shape of the kept axes, or `out`
        Never negative; exactly 0 of a constant slice.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError

    Warns
    -----
    RuntimeWarning
        As NumPy, of slices with no more elements than `ddof`: their variance is NaN or infinite.

    Notes
    -----
    One pass over `a`: squares about the mean of a tile, merged. Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.var([[1.0, 2.0], [3.0, 6.0]], axis=0, ddof=1)
    array([2., 8.])
    >>> float(fn.var(np.array([0, 400, 0, 400], np.float16)))  # numpy.var: inf
    40000.0
    """
    if dtype is None and where is NO_VALUE and mean is NO_VALUE and correction is NO_VALUE:
        result = quick_var(a, axis, ddof, False, out, keepdims)
        if result is not None:
            return result
    return var_of(a, Arguments(axis, dtype, out, keepdims, where, mean), ddof, correction)


def std(
    a: ArrayLike,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = NO_VALUE,
    *,
    where: Any = NO_VALUE,
    mean: Any = NO_VALUE,
    correction: Any = NO_VALUE,
) -> Any:
    """Standard deviation over axes, as `numpy.std`: the root of `var`, rounded once.

    Parameters
    ----------
    a, axis, dtype, out, ddof, keepdims, where, mean, correction
        As of `var`.

    Returns
    -------
    scalar, array of the shape of the kept axes, or `out`

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError

    Warns
    -----
    RuntimeWarning
        As `var`.

    Notes
    -----
    Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import fastnorm as fn
    >>> fn.std([[1.0, 2.0], [3.0, 6.0]], axis=0)
    array([1., 2.])
    """
    if dtype is None and where is NO_VALUE and mean is NO_VALUE and correction is NO_VALUE:
        result = quick_var(a, axis, ddof, True, out, keepdims)
        if result is not None:
            return result
    return var_of(a, Arguments(axis, dtype, out, keepdims, where, mean), ddof, correction, root=True)


def nanmean(a: ArrayLike, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, *, where: Any = NO_VALUE) -> Any:
    """Arithmetic mean of what is not NaN, as `numpy.nanmean`; without NaN the bits of `mean`.

    Parameters
    ----------
    a, axis, dtype, out, keepdims, where
        As of `mean`.

    Returns
    -------
    scalar, array of the shape of the kept axes, or `out`

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError

    Warns
    -----
    RuntimeWarning
        As NumPy, of slices that hold nothing but NaN.

    Notes
    -----
    No copy with zeros for NaN is made. Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.nanmean([[1.0, np.nan], [3.0, 6.0]], axis=0)
    array([2., 6.])
    """
    if dtype is None and where is NO_VALUE:
        result = quick_mean(a, axis, out, keepdims, omit=True)
        if result is not None:
            return result
    return mean_of(a, Arguments(axis, dtype, out, keepdims, where), omit=True)


def nanvar(
    a: ArrayLike,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = NO_VALUE,
    *,
    where: Any = NO_VALUE,
    mean: Any = NO_VALUE,
    correction: Any = NO_VALUE,
) -> Any:
    """Variance of what is not NaN, as `numpy.nanvar`; without NaN the bits of `var`.

    Parameters
    ----------
    a, axis, dtype, out, ddof, keepdims, where, mean, correction
        As of `var`.

    Returns
    -------
    scalar, array of the shape of the kept axes, or `out`

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError

    Warns
    -----
    RuntimeWarning
        As NumPy, of slices with no more numbers than `ddof`: their variance is NaN.

    Notes
    -----
    Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.nanvar([[1.0, np.nan, 2.0], [3.0, 6.0, np.nan]], axis=1)
    array([0.25, 2.25])
    """
    if dtype is None and where is NO_VALUE and mean is NO_VALUE and correction is NO_VALUE:
        result = quick_var(a, axis, ddof, False, out, keepdims, omit=True)
        if result is not None:
            return result
    return var_of(a, Arguments(axis, dtype, out, keepdims, where, mean), ddof, correction, omit=True)


def nanstd(
    a: ArrayLike,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = NO_VALUE,
    *,
    where: Any = NO_VALUE,
    mean: Any = NO_VALUE,
    correction: Any = NO_VALUE,
) -> Any:
    """Standard deviation of what is not NaN, as `numpy.nanstd`: the root of `nanvar`, rounded once.

    Parameters
    ----------
    a, axis, dtype, out, ddof, keepdims, where, mean, correction
        As of `var`.

    Returns
    -------
    scalar, array of the shape of the kept axes, or `out`

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError

    Warns
    -----
    RuntimeWarning
        As `nanvar`.

    Notes
    -----
    Source: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> fn.nanstd([1.0, np.nan, 3.0])
    np.float64(1.0)
    """
    if dtype is None and where is NO_VALUE and mean is NO_VALUE and correction is NO_VALUE:
        result = quick_var(a, axis, ddof, True, out, keepdims, omit=True)
        if result is not None:
            return result
    return var_of(a, Arguments(axis, dtype, out, keepdims, where, mean), ddof, correction, omit=True, root=True)
