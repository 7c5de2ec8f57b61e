"""Which of Numba's threading layers runs the parallel kernels, and loading it safely.

``tbb`` survives a fork and calls from several Python threads at once, so it is taken where it can be
loaded. Numba does not find pip's wheel in a virtual environment unless the library is in the process
already. Without it ``workqueue`` is taken, which aborts the process on concurrent calls and is
therefore guarded by a lock in `threads`; GNU ``omp`` hangs or kills a forked child, so it is used only
when the user asks for it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from fastnorm.runtime.interrupts import deferred

_PREFERRED = "tbb"
_FALLBACK = "workqueue"
_reason = "Numba is not imported yet"


def _tbb_libraries() -> list[Path]:
    name = "libtbb.so.12"
    places = [Path(sys.prefix) / "lib" / name]
    if not places[0].exists():
        from importlib import metadata

        try:
            files = metadata.files("tbb") or []
        except metadata.PackageNotFoundError:
            files = []
        places = [Path(str(file.locate())) for file in files if file.name.startswith(name)]
    return places


def _preload_tbb() -> bool:
    for library in _tbb_libraries():
        try:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return True
        except OSError:
            continue
    return False


@cache
def prepare() -> None:
    """Load TBB if it is installed and name the layer to Numba, unless the user has named one."""
    global _reason
    with deferred():
        preloaded = _preload_tbb()
        import numba
        from numba.np.ufunc import parallel

    if os.environ.get("NUMBA_THREADING_LAYER"):
        _reason = "chosen by NUMBA_THREADING_LAYER"
        return
    if getattr(parallel, "_is_initialized", False):
        _reason = "started earlier by other code of this process"
        return
    if numba.config.THREADING_LAYER != "default":
        _reason = "chosen by numba.config.THREADING_LAYER"
        return
    if preloaded and _importable("numba.np.ufunc.tbbpool"):
        numba.config.THREADING_LAYER = _PREFERRED
        _reason = "its wheel is installed; safe after fork and with several Python threads"
    else:
        numba.config.THREADING_LAYER = _FALLBACK
        _reason = "TBB is not installed (pip install tbb); one parallel call at a time, others run serially"


def _importable(module: str) -> bool:
    try:
        __import__(module)
        return True
    except ImportError:
        return False


def current() -> str:
    """Name of the running layer, or of the one that the first parallel call will start."""
    numba = sys.modules.get("numba")
    if numba is None:
        return "not loaded"
    try:
        return str(numba.threading_layer())
    except ValueError:  # nothing has run in parallel yet
        return str(numba.config.THREADING_LAYER)


def reason() -> str:
    return _reason
