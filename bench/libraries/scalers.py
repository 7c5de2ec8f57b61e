"""scikit-learn's scalers, its own and ours: the same names and calls, but for ``out=``, which only ours have.

scikit-learn copies x and returns the copy: its default. ``copy=False`` would destroy x, which the next call needs. Ours write into
the array of the row and copy nothing. Sparse matrices are copied by both.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.problems import SCALERS, Problem
from bench.providers import Prepared, Setup

_CLASSES = dict(zip(SCALERS, ("StandardScaler", "MinMaxScaler", "MaxAbsScaler"), strict=True))
_FOUND = {
    "standard": {"mean": "mean_", "var": "var_"},
    "minmax": {"low": "data_min_", "high": "data_max_"},
    "maxabs": {"largest": "max_abs_"},
}
"""What fit finds: the oracle's name of it, the estimator's."""


def _scaler(home: str, kind: str, p: Problem) -> Any:
    options = {"with_mean": False} if p.sparse and kind == "standard" else {}
    return getattr(importlib.import_module(home), _CLASSES[kind])(**options)


def _fit(home: str, kind: str, into: bool, p: Problem, fresh: bool) -> Prepared:
    call = partial(_scaler(home, kind, p).fit, p.csr if p.sparse else p.x)
    return Prepared(call, lambda scaler: {name: getattr(scaler, attribute) for name, attribute in _FOUND[kind].items()})


def _apply(method: str, home: str, kind: str, into: bool, p: Problem, fresh: bool) -> Prepared:
    """method: "transform" or "fit_transform"."""
    x = p.csr if p.sparse else p.x
    scaler = _scaler(home, kind, p).fit(x)
    options = {"out": p.out} if into and not fresh and not p.sparse else {}
    return Prepared(partial(getattr(scaler, method), x, **options), lambda y: {"y": y.data if p.sparse else y})


def setups(home: str, into: bool) -> dict[str, Setup]:
    """home : module of the classes; into : whether they have ``out=``"""
    methods: dict[str, Callable[..., Prepared]] = {
        "fit": _fit,
        "transform": partial(_apply, "transform"),
        "fit_transform": partial(_apply, "fit_transform"),
    }
    return {f"{kind}_scaler_{method}": partial(setup, home, kind, into) for kind in SCALERS for method, setup in methods.items()}
