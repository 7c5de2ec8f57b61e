"""Averages of plain arrays: functions that are called alike, `function(a, axis=...)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.problems import Problem
from bench.providers import Prepared, Setup

Average = Callable[..., Any]


def setup(function: Average, convert: Callable[[np.ndarray], Any] = np.asarray) -> Setup:
    """convert: from NumPy's array to the library's."""

    def prepare(p: Problem, fresh: bool) -> Prepared:
        name = p.operation.removeprefix("nan")
        return Prepared(partial(function, convert(p.x), axis=p.reduced), lambda found: {name: np.asarray(found)})

    return prepare
