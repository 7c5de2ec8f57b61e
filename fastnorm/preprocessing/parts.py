"""Scalers of parts of a table, which somebody else joins: partitions, ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnorm.plan.intake import is_stream
from fastnorm.preprocessing.door import untouched_on_error
from fastnorm.preprocessing.scaler import Scaler


def fitted(kind: type[Scaler], parameters: dict[str, Any], table: Any, weights: Any = None) -> Any:
    """A scaler that has seen the table; None if there is no row, or none that has a weight.

    raises : ValueError, TypeError
    """
    shape: Any = () if is_stream(table) else getattr(table, "shape", None) or np.shape(table)
    if len(shape) == 2 and shape[0] == 0:
        return None
    scaler = kind(**parameters)
    if weights is None:
        return scaler.fit(table)
    if np.size(weights) and not np.any(weights):
        scaler.fit(table)  # for its checks
        return None
    return scaler.fit(table, sample_weight=weights)


def adopt(scaler: Scaler, total: Scaler, anew: bool) -> None:
    """Make a scaler know what another of its kind has seen, in place of what it knows, if `anew`, or in addition to it."""
    with untouched_on_error(scaler):
        scaler._check_parameters()
        if anew:
            for name in (*scaler._learned, "n_features_in_", "feature_names_in_"):
                vars(scaler).pop(name, None)
        scaler.merge(total)


def beside(parts: Sequence[Scaler]) -> Scaler:
    """One scaler of several, each of which has seen other features of the same samples."""
    total = type(parts[0])(**parts[0].get_params(deep=False))
    for name in total._learned:
        values = [getattr(part, name) for part in parts]
        alike = values[0] is None or all(np.ndim(value) == 0 and value == values[0] for value in values)
        full = [np.broadcast_to(v, (p.n_features_in_,)) if np.ndim(v) == 0 else v for v, p in zip(values, parts, strict=True)]
        setattr(total, name, values[0] if alike else np.concatenate(full, axis=-1))
    total.n_features_in_ = sum(part.n_features_in_ for part in parts)
    if len(parts) == 1 and hasattr(parts[0], "feature_names_in_"):
        total.feature_names_in_ = parts[0].feature_names_in_
    return total


def columns_of(scaler: Scaler, kind: type[Scaler], features: slice) -> Scaler:
    """A scaler of some of the features, which never writes to what it transforms."""
    part = kind(**{**scaler.get_params(deep=False), "copy": True})
    for name in scaler._learned:
        value: Any = getattr(scaler, name, None)
        setattr(part, name, value if np.ndim(value) == 0 else value[..., features])
    part.n_features_in_ = len(range(scaler.n_features_in_)[features])
    return part
