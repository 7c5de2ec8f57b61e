"""PyTorch's functions through `torch.compile`: one C++ kernel for each operation and shape, made when it is set up.

It needs a C++ compiler. What it makes runs on the OpenMP library of that compiler, another one than PyTorch's own.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench import environment
from bench.libraries import torch_fresh
from bench.problems import Problem
from bench.providers import Prepared, Setup

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # read at the first compilation; no pool of processes beside what is timed

if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
    raise ImportError("torch.compile needs a C++ compiler")

environment.all_cores()  # PyTorch's import has pinned this thread, and OpenMP deals its threads to the cores it finds when it is loaded
try:
    ctypes.CDLL("libgomp.so.1")
except OSError:
    environment.all_cores()

_WITHOUT = ("rms_norm_backward",)
"""It goes through autograd's graph, which is not compiled a second time."""


class _Kept:
    """The last compiled function: Dynamo looks through all that it has compiled in every call, so it forgets the others."""

    key: Any = None
    function: Callable[..., Any] | None = None


def _compiled(key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    if _Kept.key != key:
        torch._dynamo.reset()
        _Kept.key, _Kept.function = key, torch.compile(lambda *args, **options: function(*args, **options), dynamic=False)
    assert _Kept.function is not None
    return _Kept.function


def _setup(plain: Setup, p: Problem, fresh: bool) -> Prepared:
    eager = plain(p, fresh)
    if isinstance(eager.call, partial):
        function = _compiled(p.key._replace(offset=0.0), eager.call.func)
        return Prepared(partial(function, *eager.call.args, **eager.call.keywords), eager.results)
    torch._dynamo.reset()
    _Kept.key = None
    return Prepared(torch.compile(eager.call, dynamic=False), eager.results)


SETUPS: dict[str, Setup] = {
    operation: partial(_setup, plain) for operation, plain in torch_fresh.SETUPS.items() if operation not in _WITHOUT
}
