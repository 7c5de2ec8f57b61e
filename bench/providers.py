"""Library -> operation -> setup -> zero-argument call.

A provider is a setup that returns a bare call. Setup is never timed; everybody gets the same arrays, dtype, layout and
number of threads. A library that is not installed is left out of its rows with a line that says so; fastnorm never is.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bench import environment
from bench.problems import Key, Problem, UnsupportedError

Results = dict[str, np.ndarray]
OURS = "fastnorm"

MODULES = {
    "fastnorm": "bench.libraries.ours",
    "fastnorm-f32": "bench.libraries.ours_related",
    "fastnorm-alone": "bench.libraries.ours_related",
    "numpy": "bench.libraries.textbook",
    "scipy": "bench.libraries.scipy_stats",
    "sklearn": "bench.libraries.sklearn_scaler",
    "bottleneck": "bench.libraries.bottleneck_averages",
    "numbagg": "bench.libraries.numbagg_averages",
    "torch": "bench.libraries.torch_fresh",
    "torch-out": "bench.libraries.torch_out",
    "onednn": "bench.libraries.onednn",
    "torch-compile": "bench.libraries.torch_compiled",
    "jax": "bench.libraries.jax_jit",
    "onnxruntime": "bench.libraries.onnxruntime_session",
    "openvino": "bench.libraries.openvino_request",
}
ON_DEMAND = ("torch-compile", "jax", "onnxruntime", "openvino")
"""Take part in every row that they have the operation for, if they are asked for by name or with `all`: they are slow to import,
or to compile, and start threads of their own."""


class Prepared(NamedTuple):
    """What a setup returns."""

    call: Callable[[], Any]
    results: Callable[[Any], Results]
    """From what the call returned to arrays in the layout of the row: "y" or "dx", and what else there is; averages by their names."""


Setup = Callable[[Problem, bool], Prepared]
"""The flag: fresh outputs; otherwise into `problem.out` where the library can."""


@cache
def module(library: str) -> ModuleType | str:
    """The library's file, or why it cannot be used."""
    environment.all_cores()
    try:
        return importlib.import_module(MODULES[library])
    except Exception as absence:  # a peer that cannot start, for want of an instruction or a device, must not end the run
        if library == OURS and (not isinstance(absence, ImportError) or importlib.util.find_spec("fastnorm.ops.batch")):
            raise  # present but broken: never left out
        return str(absence) or type(absence).__name__


def absent(library: str) -> str | None:
    """Why the library is left out, or None."""
    found = module(library)
    return found if isinstance(found, str) else None


def lacks(operation: str) -> bool:
    """Whether fastnorm is here but has not learned this operation yet."""
    found = module(OURS)
    return not isinstance(found, str) and operation not in found.SETUPS


def offers(library: str, key: Key, fresh: bool) -> bool:
    """Whether the library takes part in such rows, as far as it knows before it is asked: `refuses(key, fresh)` of its file says it."""
    found = module(library)
    if isinstance(found, str) or key.operation not in found.SETUPS:
        return False
    return not hasattr(found, "refuses") or not found.refuses(key, fresh)


def prepare(library: str, problem: Problem, fresh: bool) -> Prepared:
    """Raises UnsupportedError with the reason when the library has no such operation, layout or dtype."""
    found = module(library)
    if isinstance(found, str):
        raise UnsupportedError(found)
    if problem.operation not in found.SETUPS:
        raise UnsupportedError(f"{library} has no {problem.operation}")
    prepared: Prepared = found.SETUPS[problem.operation](problem, fresh)
    return prepared
