"""What the processor is like, where the operating system tells it."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

# A virtual machine is told the cache of the whole socket. Two cores of one with 480 MB copied 51 MB with 57 GB/s and 205 MB
# with 29; streaming stores began to pay at 80 to 110 MB.
_MOST_PER_CORE = 48 << 20
# Sapphire and Emerald Rapids write to theirs slowly. Two cores of an Emerald Rapids with 300 MB copied 4 to 64 MB of traffic with 26 to 19
# GB/s and, streaming, with 45 to 50; training of 20 MB of traffic took 0.86 ms and, streaming, 0.65, of 51 MB 3.9 and 1.8, but of 13 MB
# 0.45 and 0.46. Of 16-bit floats 26 to 58 MB took 1.05 to 1.28 times as long, streaming.
_SLOW_MODELS, _MOST_PER_SLOW_CORE = (143, 207), 15 << 20


def usable_cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# When fastnorm was imported: a library with OpenMP may pin the thread that imports it to one of them later (OMP_PROC_BIND).
CORES = usable_cores()


@cache
def last_level_cache_bytes(widened: bool = False) -> int:
    """What the cores of this process can hope for of the largest cache that the system names; 32 MB where it names none.

    widened : elements are computed in a wider type, and wait less for memory
    """
    slow = _writes_slowly_to_cache() and not widened
    return min(_largest_cache_bytes(), CORES * (_MOST_PER_SLOW_CORE if slow else _MOST_PER_CORE))


def _largest_cache_bytes() -> int:
    sizes = []
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            sizes.append(int((index / "size").read_text().strip().removesuffix("K")) << 10)
        except (OSError, ValueError):
            continue
    return max(sizes, default=0) or 32 << 20


@cache
def _told_of_processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(errors="replace")[:4000]
    except OSError:
        return ""


def _told(name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", _told_of_processor(), re.MULTILINE)
    return found[1] if found else ""


def _writes_slowly_to_cache() -> bool:
    return _told("vendor_id") == "GenuineIntel" and _told("cpu family") == "6" and int(_told("model") or 0) in _SLOW_MODELS


@cache
def is_amd() -> bool:
    return _told("vendor_id") == "AuthenticAMD"


@cache
def is_zen_5() -> bool:
    return is_amd() and _told("cpu family") == "26"


@cache
def is_zen_4() -> bool:
    return is_amd() and not is_zen_5() and " avx512f " in _told_of_processor()


def prefetching_pays() -> bool:
    """Whether kernels ask for rows before they need them: everywhere but on AMD."""
    return not is_amd()


@cache
def streaming_stores_pay() -> bool:
    """Whether stores that bypass the caches are faster where the output does not fit in them.

    On AMD Zen they save the read of every line that is overwritten: 40 % of bandwidth. An Intel core up to
    Cascade Lake has too few buffers for them to keep its share of bandwidth busy: two cores of one copy
    128 MB with 15.4 GB/s streaming and 15.0 plain, but 13.2 when tiles were staged in L1 to be streamed.
    With AMX (Sapphire Rapids and later) it has enough: training of 103 MB took 7.1 instead of 10.8 ms, its
    backward 11.3 instead of 17.9, inference 6.2 instead of 8.6.
    """
    return is_amd() or " amx_tile" in _told_of_processor()
