"""Peak extra memory of a call, as the operating system sees it: tracemalloc sees neither Numba's nor PyTorch's."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import allocator

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _resident(field: str) -> int:
    """VmRSS now, or VmHWM since the last reset; bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")


def peak_extra_bytes(call: Callable[[], Any], repeats: int = 3) -> int | None:
    """The least of a few calls: the system counts pages in batches. None outside Linux.

    The first call, which compiles and fills caches that stay, is not counted.
    """
    extra = []
    call()
    for _ in range(repeats):
        gc.collect()
        allocator.return_freed_memory()
        try:
            before = _resident("VmRSS")
            _RESET.write_text("5")  # sets the high-water mark to what is resident now
            call()
            extra.append(max(0, _resident("VmHWM") - before))
        except OSError:
            return None
    return min(extra)
