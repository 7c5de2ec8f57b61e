"""What the library found on this machine, for people and for bug reports."""

from __future__ import annotations

import importlib
import platform
import sys
from typing import Any

from fastnorm.runtime import crew, folder, threads


def _version(module: str) -> str:
    try:
        return str(getattr(importlib.import_module(module), "__version__", "installed"))
    except ImportError:
        return "not installed"


def config() -> dict[str, Any]:
    """Versions, CPU, threads, threading layer and cache, as plain values."""
    llvm = importlib.import_module("llvmlite.binding")
    features = llvm.get_host_cpu_features()
    path, variants, size = folder.state()
    return {
        "fastnorm": sys.modules["fastnorm"].__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        **{name: _version(name) for name in ("numpy", "scipy", "numba", "llvmlite", "ml_dtypes")},
        "cpu": llvm.get_host_cpu_name(),
        "cpu features": " ".join(name for name in ("avx2", "fma", "f16c", "avx512f", "avx512bf16", "sve", "neon") if features.get(name)),
        "threads": f"{threads.get_num_threads()} of {threads._limit()}",
        "threading layer": crew.DESCRIPTION,
        "cache": f"{path}: {variants} compiled functions, {size / 1e6:.1f} MB",
    }


def show_config() -> None:
    """Print versions, CPU features, cores, threading layer and why it was chosen, and the cache folder.

    Examples
    --------
    >>> import fastnorm as fn
    >>> fn.show_config()  # doctest: +SKIP
    fastnorm         0.1.0
    threading layer  own workers: they begin at once, also in forked children; one parallel call at a time, others run serially
    """
    values = config()
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:<{width}}  {value}")
