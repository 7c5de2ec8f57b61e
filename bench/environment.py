"""What must be settled before the first library is imported, and what a reader must know about the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("fastnorm", "numpy", "numba", "scipy", "scikit-learn", "bottleneck", "numbagg", "torch", "onednn-cpu-gomp"),
    *("jax", "jaxlib", "onnxruntime", "onnx", "openvino", "ml-dtypes"),
)

_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
# Idle workers would spin on their core in the middle of the next provider's call: OpenMP's for up to 20 ms, ours for 1. So many turns
# are 0.1 ms, over before that call starts (`timing.settle`).
_SHORT_SPINS = {"GOMP_SPINCOUNT": "2000", "FASTNORM_SPIN_COUNT": "6400", "KMP_BLOCKTIME": "0"}


def all_cores() -> None:
    """To be called before a library with OpenMP is imported.

    With OMP_PROC_BIND it deals its threads to the cores that the importing thread may use, and pins that thread to the
    first. The next library found one core for all its threads: after scikit-learn PyTorch took twice its time.
    """
    if _CORES:
        os.sched_setaffinity(0, _CORES)


@contextmanager
def some_cores(number: int | None = None) -> Iterator[None]:
    """The first cores, or all: threads that are started here inherit them, and libraries count them."""
    if not _CORES:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(_CORES)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


unpinned = some_cores


def stated_threads() -> int:
    """The number that `prepare` has settled."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return int(stated) if stated.isdigit() and int(stated) > 0 else default_threads()


def default_threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare(threads: int) -> None:
    """Same number of threads for everybody; libraries read these variables once, when they load.

    OMP_PROC_BIND: two unpinned OpenMP threads may share a core.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "FASTNORM_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("OMP_PROC_BIND", "true")
    os.environ.setdefault("MPLBACKEND", "Agg")
    for name, value in _SHORT_SPINS.items():
        os.environ.setdefault(name, value)


def let_spin() -> None:
    """Workers wait as long as in users' programs: for a comparison in which one library does nearly everything."""
    for name, value in _SHORT_SPINS.items():
        if os.environ.get(name) == value:
            del os.environ[name]


def cache_bytes(level: int, otherwise: int) -> int:
    """Size of one core's data cache of `level`; `otherwise` where the system does not tell."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if int((index / "level").read_text()) == level and (index / "type").read_text().strip() != "Instruction":
                return int((index / "size").read_text().strip().removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return otherwise


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(threads: int) -> dict[str, Any]:
    """Everything that a number depends on and that is not in a row."""
    return {
        "cpu": _cpu_name(),
        "cores": default_threads(),
        "threads": threads,
        "l2_bytes": cache_bytes(2, 1 << 20),
        "l3_bytes": cache_bytes(3, 0),
        "system": platform.platform(),
        "versions": _versions(),
        "command": ["python", "-m", "bench", *sys.argv[1:]],
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(("OMP_", "GOMP_", "KMP_", "FASTNORM_", "NUMBA_"))},
    }
