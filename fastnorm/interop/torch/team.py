"""The threads that PyTorch computes with."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fastnorm.runtime.team import Team


def _launch() -> int:
    """Address of GOMP_parallel in the OpenMP library that PyTorch has loaded; 0 where it has none."""
    if sys.platform != "linux" or "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return 0
    folder = Path(torch.__file__).parent
    bundled = [str(p) for place in (folder / "lib", folder.parent / "torch.libs") for p in place.glob("libgomp*.so*")]
    for name in (*bundled, "libgomp.so.1"):
        try:
            library = ctypes.CDLL(name, os.RTLD_NOLOAD)
            return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return 0


_team = Team(_launch())


def dealt(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call it: work is dealt to PyTorch's threads, `torch.set_num_threads` of them, or `fastnorm.set_num_threads` if fewer."""
    return _team.call(torch.get_num_threads(), call, *arguments)
