"""bottleneck has no mean and var: its nanmean and nanvar, on one thread."""

from __future__ import annotations

import bottleneck

from bench.libraries.averages import setup
from bench.providers import Setup

_mean, _var = setup(bottleneck.nanmean), setup(bottleneck.nanvar)
SETUPS: dict[str, Setup] = {"mean": _mean, "nanmean": _mean, "var": _var, "nanvar": _var}
