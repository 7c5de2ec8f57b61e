"""Whether memory that a call allocates is warm: half of the time of a large fresh output is page faults.

All rows run with an allocator that keeps what is freed. So a peer without ``out=`` writes, in a row with ``out=``, into
memory that it has written before: its best case. Before each timed call of a fresh row all free memory is given
back: every page of a fresh output is paid for, as in a program that keeps its outputs. Left alone, glibc does the one
or the other, depending on sizes and on what ran before. Other systems' allocators have no such switches.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def keep_freed_memory() -> None:
    """For the rest of the process."""
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def return_freed_memory() -> None:
    """Now, to the system; what is allocated next is new."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
