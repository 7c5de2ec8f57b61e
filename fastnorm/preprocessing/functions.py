"""Scaling of one table by its own statistics, along either axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops import sparse
from fastnorm.ops.door import output
from fastnorm.ops.reduction import reduce_moments
from fastnorm.ops.scaling import rescale
from fastnorm.plan.intake import normalize_axis
from fastnorm.preprocessing.door import check_choice, check_flags, in_place, is_sparse, refuse_infinity, table_for
from fastnorm.preprocessing.maxabs import MaxAbsScaler
from fastnorm.preprocessing.minmax import MinMaxScaler
from fastnorm.preprocessing.normalizer import NORMS, divisors, normalize_along, normalize_lines
from fastnorm.preprocessing.scaler import NOTHING, Scaler, eps_of, reciprocal, sparse_target, without_nothing

Array = NDArray[Any]


def scale(X: Any, *, axis: int = 0, with_mean: bool = True, with_std: bool = True, copy: bool = True) -> Any:
    """Standardize along an axis: mean 0, variance 1.

    Parameters
    ----------
    X : array_like, frame or sparse matrix (n_samples, n_features), or array_like (n_samples,)
        NaN are left out of the statistics and stay NaN.
    axis : {0, 1}
        0 standardizes every feature, 1 every sample. Sparse X: 0 only.
    with_mean, with_std : bool
        Whether to subtract the mean (not of sparse X) and to divide by the standard deviation.
    copy : bool
        If False, the result is written to X, where it has a float dtype and is writable.

    Returns
    -------
    array or matrix like X, of its float dtype, float64 for integers

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Source of the statistics: Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> from fastnorm.preprocessing import scale
    >>> scale([[-2.0, 1.0], [0.0, 3.0]])
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    check_choice("scale", "axis", axis, (0, 1))
    check_flags("scale", with_mean=with_mean, with_std=with_std, copy=copy)
    table = table_for("the scale function", X, ("csc", "csr"), ensure_2d=False)
    if is_sparse(table):
        return _scale_sparse(table, axis, with_mean, with_std, copy)
    axis = normalize_axis(axis, table.ndim, "X")
    moments = reduce_moments(table, (axis,), omit=True)
    if not (np.isfinite(moments.mean).all() and np.isfinite(moments.var).all()):
        refuse_infinity(table, "the scale function")
    std = np.sqrt(moments.var)
    nothing = eps_of(table.dtype if table.dtype.kind == "f" else np.float64)
    spread = np.where(std == 0.0, 1.0, std) if table.ndim == 1 else without_nothing(std, nothing)
    centre, low = (moments.mean, moments.low) if with_mean else (NOTHING, None)
    factor: Any = reciprocal(spread) if with_std else np.float64(1.0)
    return rescale(table, (axis,), centre, factor, low=low, out=None if copy else in_place(X, table))


def _scale_sparse(table: Any, axis: int, with_mean: bool, with_std: bool, copy: bool) -> Any:
    if with_mean:
        raise ValueError("Cannot center sparse matrices: pass `with_mean=False` instead. See docstring for motivation and alternatives.")
    if axis != 0:
        raise ValueError(f"Can only scale sparse matrix on axis=0,  got axis={axis}; pass X.T, and transpose the result")
    refuse_infinity(table, "the scale function")
    count, _, _, m2 = sparse.column_moments(sparse.summed(table))
    # scikit-learn compares the variance here, in the dtype of X, not the standard deviation.
    var = without_nothing(m2 / np.maximum(count, 1.0), eps_of(table.dtype))
    target = sparse_target(table, copy, None)
    sparse.scale_columns(table, reciprocal(np.sqrt(var)) if with_std else np.ones(table.shape[1]), target)
    return target


def minmax_scale(X: Any, feature_range: tuple[float, float] = (0, 1), *, axis: int = 0, copy: bool = True) -> Any:
    """Scale along an axis, so that the least is the lower and the largest the upper end of a range.

    Parameters
    ----------
    X : array_like or frame (n_samples, n_features), or array_like (n_samples,)
        NaN are left out of the extremes and stay NaN.
    feature_range : tuple (min, max)
    axis : {0, 1}
        0 scales every feature, 1 every sample.
    copy : bool
        If False, the result is written to X, where it has a float dtype and is writable.

    Returns
    -------
    array like X, of its float dtype, float64 for integers

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Source of the transformation: Han, Kamber, Pei 2011, section 3.5.2.

    Examples
    --------
    >>> from fastnorm.preprocessing import minmax_scale
    >>> minmax_scale([[-2.0, 1.0], [0.0, 3.0], [2.0, 2.0]])
    array([[0. , 0. ],
           [0.5, 1. ],
           [1. , 0.5]])
    """
    return _fit_transform(MinMaxScaler(feature_range, copy=copy), "minmax_scale", X, axis, ())


def maxabs_scale(X: Any, *, axis: int = 0, copy: bool = True) -> Any:
    """Divide along an axis by the largest magnitude.

    Parameters
    ----------
    X : array_like, frame or sparse matrix (n_samples, n_features), or array_like (n_samples,)
        NaN are left out of the maximum and stay NaN.
    axis : {0, 1}
        0 scales every feature, 1 every sample.
    copy : bool
        If False, the result is written to X, where it has a float dtype and is writable.

    Returns
    -------
    array or matrix like X, of its float dtype, float64 for integers

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Source of the transformation: decimal scaling, Han, Kamber, Pei 2011, section 3.5.2, without its powers of ten.

    Examples
    --------
    >>> from fastnorm.preprocessing import maxabs_scale
    >>> maxabs_scale([[-2.0, 1.0], [1.0, 4.0]])
    array([[-1.  ,  0.25],
           [ 0.5 ,  1.  ]])
    """
    return _fit_transform(MaxAbsScaler(copy=copy), "maxabs_scale", X, axis, ("csr", "csc"))


def _fit_transform(scaler: Scaler, name: str, X: Any, axis: int, formats: tuple[str, ...]) -> Any:
    check_choice(name, "axis", axis, (0, 1))
    if is_sparse(X) and not formats:
        scaler._refuse_sparse()
    table = table_for(f"the {name} function", X, formats, ensure_2d=False)
    shape = table.shape
    columns = table.reshape(-1, 1) if table.ndim == 1 else table
    columns = columns if axis == 0 else columns.T
    scaler._fit(columns, None, False, anew=True)
    # Not `transform`, which may have been told to make frames of all results.
    result = scaler._transform(columns, None, None, False, is_finite=True)
    result = result if axis == 0 else result.T
    return result.reshape(shape) if len(shape) == 1 else result


def normalize(X: Any, norm: str = "l2", *, axis: int = 1, copy: bool = True, return_norm: bool = False) -> Any:
    """Scale samples or features, each on its own, to norm 1.

    Parameters
    ----------
    X : array_like, frame or sparse matrix (n_samples, n_features)
    norm : {"l1", "l2", "max"}
        Sum of magnitudes, root of the sum of squares, or largest magnitude.
    axis : {0, 1}
        1 scales every sample, 0 every feature. Sparse X becomes CSR for 1, CSC for 0.
    copy : bool
        If False, the result is written to X, where it has a float dtype and is writable.
    return_norm : bool
        Whether to return the norms, too; not "l1" and "l2" of sparse X.

    Returns
    -------
    array or matrix like X, of its float dtype, float64 for integers; with `return_norm` a tuple of it and the norms

    Raises
    ------
    ValueError, TypeError, NotImplementedError

    Notes
    -----
    Source: the vector space model, Salton, Wong, Yang 1975.

    Examples
    --------
    >>> from fastnorm.preprocessing import normalize
    >>> normalize([[-2.0, 1.0, 2.0], [-1.0, 0.0, 1.0]], norm="l1")
    array([[-0.4,  0.2,  0.4],
           [-0.5,  0. ,  0.5]])
    """
    check_choice("normalize", "axis", axis, (0, 1))
    check_choice("normalize", "norm", norm, NORMS)
    check_flags("normalize", copy=copy, return_norm=return_norm)
    table = table_for("the normalize function", X, ("csr",) if axis == 1 else ("csc",))
    refuse_infinity(table, "The normalize function", allow_nan=False)
    if is_sparse(table):
        if return_norm and norm != "max":
            raise NotImplementedError(f"return_norm=True is not implemented for sparse matrices with norm {norm!r}; pass return_norm=False")
        result, norms = normalize_lines(table, norm, copy, None)
    else:
        target = output("out", None if copy else in_place(X, table), table, (table,))
        norms = normalize_along(table, axis, norm, target.computed)
        result = target.deliver()
        norms = divisors(norms, table) if return_norm else norms
    return (result, norms) if return_norm else result
