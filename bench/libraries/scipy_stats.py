"""SciPy where it applies: `scipy.stats.zscore` for a table. It has no ``out=``."""

from __future__ import annotations

from functools import partial

from scipy import stats

from bench.problems import Problem
from bench.providers import Prepared, Setup


def standardize(p: Problem, fresh: bool) -> Prepared:
    return Prepared(partial(stats.zscore, p.x, axis=0), lambda y: {"y": y})


SETUPS: dict[str, Setup] = {"standardize": standardize, "zscore": standardize}
