"""scikit-learn's scalers. They have no ``out=``; ``copy=False`` would destroy x."""

from __future__ import annotations

from functools import partial

from sklearn.preprocessing import StandardScaler

from bench.libraries import scalers
from bench.problems import Problem
from bench.providers import Prepared, Setup


def standardize(p: Problem, fresh: bool) -> Prepared:
    return Prepared(partial(StandardScaler().fit_transform, p.x), lambda y: {"y": y})


SETUPS: dict[str, Setup] = {"standardize": standardize} | scalers.setups("sklearn.preprocessing", into=False)
