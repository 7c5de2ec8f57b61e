"""Arguments that are no arrays of NumPy's: lists, and arrays of other libraries, whose `dtype` says nothing to NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnorm as fn


class Foreign:
    """As tensors of PyTorch and series of polars are to NumPy."""

    dtype = "a dtype of another library"

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.shape = values.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._values.astype(dtype or self._values.dtype)


RNG = np.random.default_rng(0)
X, DY = (RNG.normal(1, 2, (6, 4)).astype(np.float32) for _ in range(2))
GAMMA = RNG.normal(1, 0.1, 4).astype(np.float32)
MEAN, RSTD = X.mean(0, np.float64), 1 / X.std(0, dtype=np.float64)
OF_ROWS = X.mean(1, np.float64), 1 / X.std(1, dtype=np.float64)
OF_GROUPS = X.reshape(6, 2, 2).mean(2, np.float64), 1 / X.reshape(6, 2, 2).std(2, dtype=np.float64)
ONES = np.ones(4)

CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "batch_norm_train": (fn.batch_norm_train, (X, GAMMA, GAMMA)),
    "batch_norm": (fn.batch_norm, (X, MEAN, RSTD, GAMMA, GAMMA)),
    "batch_norm_backward": (fn.batch_norm_backward, (DY, X, MEAN, RSTD, GAMMA)),
    "batch_renorm_backward": (fn.batch_renorm_backward, (DY, X, MEAN, RSTD, ONES, ONES - 1, GAMMA)),
    "layer_norm": (fn.layer_norm, (X, GAMMA, GAMMA)),
    "layer_norm_backward": (fn.layer_norm_backward, (DY, X, *OF_ROWS, GAMMA)),
    "rms_norm": (fn.rms_norm, (X, GAMMA)),
    "rms_norm_backward": (fn.rms_norm_backward, (DY, X, OF_ROWS[1], GAMMA)),
    "add_layer_norm": (fn.add_layer_norm, (X, DY, GAMMA, GAMMA)),
    "group_norm": (fn.group_norm, (X, 2, GAMMA, GAMMA)),
    "group_norm_backward": (fn.group_norm_backward, (DY, X, 2, *OF_GROUPS, GAMMA)),
    "fold_batch_norm": (fn.fold_batch_norm, (X.T, GAMMA, MEAN, RSTD, GAMMA, GAMMA)),
    "mean": (fn.mean, (X, 0)),
    "nanvar": (fn.nanvar, (X, 0)),
    "mean_var": (fn.mean_var, (X, 0)),
    "zscore": (fn.zscore, (X,)),
}


@pytest.mark.parametrize("convert", [Foreign, np.ndarray.tolist], ids=["foreign", "list"])
@pytest.mark.parametrize("name", CALLS)
def test_every_argument_may_be_one(name: str, convert: Callable[[np.ndarray], Any]) -> None:
    function, given = CALLS[name]
    expected = function(*given)
    results = expected if isinstance(expected, tuple) else (expected,)
    for k, argument in enumerate(given):
        if isinstance(argument, np.ndarray):
            found = function(*given[:k], convert(argument), *given[k + 1 :])
            for a, b in zip(found if isinstance(found, tuple) else (found,), results, strict=True):
                np.testing.assert_allclose(a, b, 1e-5, 1e-5)  # gradients of groups of two vanish
                assert convert is not Foreign or np.asarray(a).dtype == np.asarray(b).dtype
