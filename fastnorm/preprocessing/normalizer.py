"""Scaling of every sample to norm 1."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastnorm.ops import sparse
from fastnorm.ops.reduction import sizes
from fastnorm.ops.scaling import rescale
from fastnorm.preprocessing.door import check_choice, check_flags, refuse_infinity
from fastnorm.preprocessing.scaler import (
    NOTHING,
    Fill,
    Scaler,
    eps_of,
    nothing,
    nothing_below,
    reciprocal,
    sparse_target,
    takes_streams,
    without_nothing,
)

Array = NDArray[Any]
NORMS = sparse.NORMS
LEAST = 5e-324  # that is no zero


@takes_streams
class Normalizer(Scaler):
    """Scale samples, each on its own, to norm 1. A sample of zeros stays as it is.

    As scikit-learn's ``Normalizer``, with a few more abilities.

    Parameters
    ----------
    norm : {"l1", "l2", "max"}
        Sum of magnitudes, root of the sum of squares, or largest magnitude.
    copy : bool
        If False, `transform` writes to X, where it has a float dtype and is writable.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : array of str, if X had names

    Notes
    -----
    It learns nothing: `fit` only checks X. Norms are summed in float64. Source: the vector space model, Salton, Wong,
    Yang 1975.

    Examples
    --------
    >>> from fastnorm.preprocessing import Normalizer
    >>> Normalizer().transform([[3.0, 4.0], [0.0, -2.0]])
    array([[ 0.6,  0.8],
           [ 0. , -1. ]])
    """

    _formats: ClassVar[tuple[str, ...]] = ("csr",)

    def __init__(self, norm: str = "l2", *, copy: bool = True) -> None:
        self.norm = norm
        self.copy = copy

    def fit(self, X: Any, y: Any = None, *, progress: bool = False) -> Normalizer:
        """Check parameters and X, and note its features.

        Parameters
        ----------
        X : array_like, frame or sparse matrix (n_samples, n_features), or an iterable of such batches
        y : ignored
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        The normalizer

        Raises
        ------
        ValueError, TypeError
        """
        return self._fit(X, None, progress, anew=True)  # type: ignore[no-any-return]

    def transform(self, X: Any, copy: bool | None = None, *, out: Array | None = None, progress: bool = False) -> Any:
        """Divide every sample by its norm.

        Parameters
        ----------
        X : array_like, frame or sparse matrix (n_samples, n_features), or an iterable of such batches
        copy : bool, optional
            In place of the parameter of the normalizer.
        out : array (n_samples, n_features) of a float dtype, any strides, optional
            Receives the result; may be X.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        array or CSR matrix like X, of its float dtype, float64 for integers; a generator of them for an iterable

        Raises
        ------
        ValueError, TypeError
            Before anything is written.
        """
        self._check_parameters()
        return self._transform(X, copy, out, progress)

    def _check_parameters(self) -> None:
        check_flags(type(self).__name__, copy=self.copy)
        check_choice(type(self).__name__, "norm", self.norm, NORMS)

    def _is_new(self) -> bool:
        return True

    def _absorb(self, table: Any, weights: Array | None) -> None:
        self._check_values(table)

    def _check_values(self, table: Any) -> None:
        refuse_infinity(table, type(self).__name__, allow_nan=False)

    def _filling(self, inverse: bool) -> Fill:
        return lambda rows, out: nothing(normalize_along(rows, 1, self.norm, out))

    def _apply_sparse(self, table: Any, copy: bool, out: Any, inverse: bool) -> Any:
        return normalize_lines(table, self.norm, copy, out)[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def normalize_along(table: Array, axis: int, norm: str, out: Array) -> Array:
    """Write a table, divided by its norms over an axis, to `out`; by 1 where these are next to nothing. Returns the norms."""
    lines = sparse.lines_of(table) if axis == 1 and out.dtype == table.dtype and out.flags.c_contiguous else None
    if lines is not None:
        return sparse.normalize_lines(lines, norm, nothing_below(eps_of_table(table)), out.reshape(-1))
    found = sizes(table, (axis,))
    norms = np.asarray(found.total if norm == "l1" else found.largest if norm == "max" else np.sqrt(found.squares))
    rescale(table, (axis,), NOTHING, reciprocal(divisors(norms, table)), out=out)
    return norms


def divisors(norms: Array, table: Array) -> Array:
    return without_nothing(norms, eps_of_table(table))


def eps_of_table(table: Array) -> float:
    return eps_of(table.dtype if table.dtype.kind == "f" else np.float64)


def normalize_lines(table: Any, norm: str, copy: bool, out: Any) -> tuple[Any, Array]:
    """CSR with its rows, CSC with its columns divided by their norms, and the norms; lines of zeros stay."""
    table = sparse.summed(table)
    target = sparse_target(table, copy, out)
    return target, sparse.normalize_lines(sparse.compressed(table), norm, LEAST, target.data)
