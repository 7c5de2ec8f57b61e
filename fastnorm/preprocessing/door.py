"""What scalers ask of their arguments, without a pass over X that NumPy makes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops.reduction import extremes, is_finite
from fastnorm.plan.intake import is_float, same_memory, writes_twice
from fastnorm.preprocessing.scikit import assumes_finite, check_array, validate_data

Array = NDArray[Any]
FEW_INTEGERS = 65536
SMALL = 8192
FLOATS = (np.float64, np.float32, np.float16)  # what scikit-learn keeps; everything else becomes the first


class InvalidParameterError(ValueError, TypeError):
    """A parameter of a scaler or of a function has a wrong type or value."""


def check_flags(owner: str, **flags: Any) -> None:
    """Raises InvalidParameterError for what is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise InvalidParameterError(f"The {name!r} parameter of {owner} must be an instance of 'bool'. Got {value!r} instead.")


def check_choice(owner: str, name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises InvalidParameterError for what is not one of the choices."""
    unlike = isinstance(value, bool | np.timedelta64)  # integers to NumPy
    if unlike or not isinstance(value, str | int | np.integer) or value not in choices:
        kind, options = "a str" if isinstance(choices[0], str) else "an int", ", ".join(map(repr, choices))
        raise InvalidParameterError(f"The {name!r} parameter of {owner} must be {kind} among {{{options}}}. Got {value!r} instead.")


def is_sparse(X: Any) -> bool:
    """Whether X is a sparse matrix or array of SciPy, which is not imported for this."""
    return "scipy.sparse" in sys.modules and bool(sys.modules["scipy.sparse"].issparse(X))


def _is_plain(X: Any, dimensions: tuple[int, ...] = (2,)) -> bool:
    """A table that kernels read as it is: nothing to convert, nothing to complain of."""
    return type(X) in (np.ndarray, np.memmap) and X.ndim in dimensions and X.size > 0 and (X.dtype.kind in "biu" or is_float(X.dtype))


def _read_in_place(X: Array) -> Array:
    """As it is, but for few integers: to compile kernels for their dtype takes seconds, to convert them microseconds."""
    few = X.dtype.kind in "biu" and X.size <= FEW_INTEGERS
    return X.astype(np.float64) if few else np.asarray(X)


def _is_frame_of_float32(X: Any) -> bool:
    """Of polars, or of pandas' own types, whose columns scikit-learn turns into float64: it looks for a dtype of NumPy's."""
    return hasattr(X, "columns") and {str(kind) for kind in getattr(X, "dtypes", ())} == {"Float32"}


def _checks(X: Any, formats: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError("X is a masked array, whose mask would be ignored; pass X.filled(np.nan): statistics leave NaN out")
    dtypes = [np.float32] if _is_frame_of_float32(X) else list(FLOATS[:2] if is_sparse(X) else FLOATS)
    return {"accept_sparse": formats or False, "dtype": dtypes, "ensure_all_finite": False}


@contextmanager
def _representable(name: str) -> Iterator[None]:
    try:
        yield
    except OverflowError:
        raise ValueError(f"{name} has an integer that is too large for float64; pass smaller numbers") from None


def table_of(estimator: Any, X: Any, formats: tuple[str, ...], reset: bool) -> Any:
    """X as a plain array or a sparse matrix; the features of the estimator are set, if `reset`, or compared.

    raises : TypeError, ValueError; not for infinity and NaN
    """
    if _is_plain(X):
        if hasattr(estimator, "feature_names_in_"):
            validate_data(estimator, X, reset=reset, skip_check_array=True)  # warns, or forgets them
        elif reset:
            estimator.n_features_in_ = X.shape[1]
        else:
            check_n_features(estimator, X)
        return _read_in_place(X)
    with _representable("X"):
        return validate_data(estimator, X, reset=reset, **_checks(X, formats))


def check_n_features(estimator: Any, table: Any) -> None:
    """Raises ValueError if a fitted estimator has seen another number of them."""
    expected = getattr(estimator, "n_features_in_", table.shape[1])
    if table.shape[1] != expected:
        kind = type(estimator).__name__
        raise ValueError(f"X has {table.shape[1]} features, but {kind} is expecting {expected} features as input.")


def transformed_table(estimator: Any, X: Any, formats: tuple[str, ...]) -> Any:
    """The same of what has been transformed, whose names nobody knows."""
    table = table_for(type(estimator).__name__, X, formats)
    check_n_features(estimator, table)
    return table


def table_for(name: str, X: Any, formats: tuple[str, ...] = (), ensure_2d: bool = True) -> Any:
    """The same for a function, or with `ensure_2d` false for one that takes vectors, too."""
    if _is_plain(X, (2,) if ensure_2d else (1, 2)):
        return _read_in_place(X)
    with _representable("X"):
        return check_array(X, estimator=name, input_name="X", ensure_2d=ensure_2d, **_checks(X, formats))


def refuse_infinity(table: Any, name: str, allow_nan: bool = True) -> None:
    """Raises ValueError if there is an infinity, or a NaN where none is allowed."""
    values = table.data if is_sparse(table) else table
    if assumes_finite() or values.size == 0 or values.dtype.kind in "biu":
        return
    if values.size <= SMALL and np.isfinite(values).all():  # 5 us, where the kernel and its plan take 40
        return
    if is_finite(values):
        return
    bounds = extremes(values, tuple(range(values.ndim)))
    if not allow_nan and bounds.count < values.size:
        raise ValueError(f"Input X contains NaN.\n{name} does not accept NaN; fill them, or leave out the rows that have one")
    if bounds.high == np.inf or bounds.low == -np.inf:
        raise ValueError(f"Input X contains infinity or a value too large for {values.dtype!r}; replace it, for example by NaN, or clip X")


def weights_of(sample_weight: Any, table: Any) -> Array | None:
    """A weight of every sample, or None. Raises TypeError, ValueError."""
    if sample_weight is None:
        return None
    n = table.shape[0]
    kind = table.dtype if table.dtype.char in "fd" and not is_sparse(table) else np.dtype(np.float64)
    if np.asarray(sample_weight).dtype.kind == "c":
        raise TypeError("sample_weight is complex; pass real numbers")
    with _representable("sample_weight"), np.errstate(over="ignore"):
        weights = np.asarray(sample_weight, kind.newbyteorder("="))
    weights = np.full(n, weights) if weights.ndim == 0 else np.ascontiguousarray(weights)
    if weights.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {weights.ndim}D array; pass an array of shape ({n},)")
    if weights.shape != (n,):
        raise ValueError(f"sample_weight.shape == {weights.shape}, expected ({n},)!")
    if not np.isfinite(weights).all():
        raise ValueError("Input sample_weight contains NaN or infinity; pass finite weights")
    if (weights < 0).any():
        raise ValueError("sample_weight has negative numbers, and no variance follows from them; pass weights >= 0")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def in_place(X: Any, table: Any) -> Array | None:
    """X itself, if it can take its own result, as ``copy=False`` asks for."""
    able = isinstance(X, np.ndarray) and is_float(X.dtype) and X.flags.writeable and not writes_twice(X)
    return table if able and same_memory(X, table) else None


@contextmanager
def untouched_on_error(estimator: Any) -> Iterator[None]:
    """Leave an estimator exactly as it was, if what is done to it fails."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
