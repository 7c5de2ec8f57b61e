"""numbagg has no mean and var: its nanmean, and nanvar with NumPy's divisor."""

from __future__ import annotations

from functools import partial

import numbagg

from bench.libraries.averages import setup
from bench.providers import Setup

_mean, _var = setup(numbagg.nanmean), setup(partial(numbagg.nanvar, ddof=0))
SETUPS: dict[str, Setup] = {"mean": _mean, "nanmean": _mean, "var": _var, "nanvar": _var}
