"""The only file that decides Numba options, fastmath sets and the cache folder.

Decorators:

- ``element``: one element or one statistic in, one out; exact arithmetic, always inlined. ``rounded``: without fused products.
- ``loop``   : a loop over one run, inlined into the chunk body that calls it; may be reassociated.
- ``driver``: what Python calls; cached on disk. Its first argument is the crew that chunks are dealt to, or 0.

And for other callers than Python: ``exported``, ``exported_element`` (users' compiled functions), ``c_function``.
"""

from __future__ import annotations

import contextlib
import dis
import hashlib
import os
import pickle
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastnorm.runtime import folder, forks
from fastnorm.runtime.interrupts import deferred

with deferred():
    import numba
from numba.core import caching, ccallback, compiler, sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.types.misc import unliteral
from numba.extending import overload

from fastnorm import _linking

forks.guard()

# Reductions may be reordered into vector lanes, products fused; NaN and inf keep their meaning
# (never "nnan", "ninf": a NaN has to reach its own channel).
REASSOCIATE: Any = {"reassoc", "contract", "nsz", "arcp"}
# Compensated sums cancel to nothing under "reassoc".
EXACT: Any = {"nsz", "contract"}

_COMMON: Any = {"nogil": True, "error_model": "numpy", "boundscheck": False}


class _OneFilePerSignature:
    """Storage of compiled code: the name of a file is the digest of its key.

    Numba keeps an index file beside numbered data files; two processes that save at once can leave an
    index that points to the other's code. Without an index there is nothing to disagree about, and a
    damaged file fails its checksum and counts as absent.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name

    def _path(self, key: object) -> Path:
        return self._directory / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.nbc"

    def load(self, key: object) -> Any:
        try:
            blob = self._path(key).read_bytes()
            if hashlib.sha256(blob[32:]).digest() != blob[:32]:
                return None
            return pickle.loads(blob[32:])
        except Exception:  # a cache never fails a call: absent, unreadable and damaged are all a miss
            return None

    def save(self, key: object, data: object) -> None:
        from numba.core.serialize import dumps

        path = self._path(key)
        temporary = path.with_suffix(f".{os.getpid()}-{id(data)}.tmp")
        try:
            payload = dumps(data)
            temporary.write_bytes(hashlib.sha256(payload).digest() + payload)
            os.replace(temporary, path)
        except OSError:  # full disk, folder removed or made read-only: run uncached
            pass
        finally:  # also of an interrupt
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def flush(self) -> None:
        for file in self._directory.glob(f"{self._name}-*.nbc"):
            file.unlink(missing_ok=True)


class _Locator(caching._CacheLocator):
    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._path = str(folder.cache_folder())
        self._name = py_func.__name__

    def get_cache_path(self) -> str:
        return self._path

    def ensure_cache_path(self) -> None:
        # Numba makes a file on trial before every save, and where that fails the user's call would.
        with contextlib.suppress(OSError):
            os.makedirs(self._path, mode=0o700, exist_ok=True)

    def get_source_stamp(self) -> str:
        return folder.build_digest()

    def get_disambiguator(self) -> str:
        return "fastnorm"

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func)


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = (_Locator,)

    def check_cachable(self, cres: Any) -> bool:
        return not cres.library.has_dynamic_globals

    def reduce(self, cres: Any) -> Any:
        return _linking.needs_of(cres.library), cres._reduce()

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        needs, reduced = payload
        _linking.load(needs)
        return super().rebuild(target_context, reduced)


class _Cache(caching.FunctionCache):
    _impl_class = _CacheImpl

    def __init__(self, py_func: Callable[..., Any], is_body: bool) -> None:
        super().__init__(py_func)
        self._is_body = is_body
        self._cache_file = _OneFilePerSignature(Path(self._cache_path), f"{py_func.__module__}.{py_func.__name__}")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            result = super().load_overload(sig, target_context)
        except Exception:  # code of another machine or a damaged file: compile again
            return None
        if result is not None and self._is_body:
            _linking.register(result)
        return result


@contextlib.contextmanager
def _compilation() -> Iterator[None]:
    """NUMBA_DISABLE_JIT is for the functions of users: those of this library are made of intrinsics, and cannot run as Python."""
    with deferred(), global_compiler_lock:
        stated, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, 0
        try:
            yield
        finally:
            numba.config.DISABLE_JIT = stated


class _Dispatcher(CPUDispatcher):
    def compile(self, sig: Any) -> Any:
        with _compilation():
            return super().compile(sig)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """A constant in a call is no type of its own: bodies and loops were compiled once more for every such number."""
        return super().get_call_template(tuple(unliteral(a) for a in args), {k: unliteral(a) for k, a in kws.items()})


def _njit(pipeline_class: Any = compiler.Compiler, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    options = {"nopython": True, **_COMMON, **options}
    return lambda function: _Dispatcher(py_func=function, targetoptions=options, pipeline_class=pipeline_class)


def element(function: Callable[..., Any]) -> Any:
    """A formula: inlined into its caller, no reassociation."""
    return _njit(forceinline=True, fastmath=EXACT, pipeline_class=_linking.Inlined)(function)


def rounded(function: Callable[..., Any]) -> Any:
    """A formula whose every operation is rounded by itself, no product fused with a sum: the bits of NumPy."""
    return _njit(forceinline=True, fastmath=False, pipeline_class=_linking.Inlined)(function)


def loop(function: Callable[..., Any]) -> Any:
    """A loop over runs: inlined into the chunk body, free to use vector lanes."""
    return _njit(forceinline=True, fastmath=REASSOCIATE, pipeline_class=_linking.Inlined)(function)


def chunk_body(function: Callable[..., Any]) -> Any:
    """The work of one chunk, called by a serial and by a parallel driver: machine code of its own."""
    # A callee inherits its caller's "forceinline" unless it says otherwise.
    return _cached(_njit(forceinline=False, fastmath=REASSOCIATE, pipeline_class=_linking.Separate)(function))


def variant(generic: Callable[..., Any]) -> Any:
    """Choose an implementation of `generic` by the types of its arguments, at compile time."""
    return overload(
        generic, jit_options={"forceinline": True, "fastmath": EXACT, "pipeline_class": _linking.Inlined, **_COMMON}, strict=False
    )


def driver(function: Callable[..., Any]) -> Any:
    """Called from Python."""
    return _cached(_njit(fastmath=REASSOCIATE)(function))


def exported(function: Callable[..., Any]) -> Any:
    """A loop that users call from compiled functions of their own: it becomes part of them, and of their cache, with our options."""
    return _cached(_njit(forceinline=False, fastmath=REASSOCIATE)(_self_contained(function, {})))


def exported_element(function: Callable[..., Any]) -> Any:
    """A formula that users call from compiled functions of their own, inlined into their loops."""
    return _cached(_njit(forceinline=True, fastmath=EXACT)(function))


def c_function(function: Callable[..., Any], signature: Any) -> Any:
    """Compile what C calls. Has an ``address`` and a ``ctypes`` function."""
    with _compilation():
        compiled: Any = ccallback.CFunc(function, sigutils.normalize_signature(signature), {}, {"fastmath": REASSOCIATE, **_COMMON})
        compiled._cache = _Cache(function, False)
        compiled.compile()
    return compiled


def _self_contained(function: Any, copies: dict[Any, Any]) -> Any:
    """A copy of a function whose chunk bodies, and theirs, are linked into it like loops; itself, if it calls none.

    A chunk body is called by its symbol. Loaded from the cache of a user's function in another process, that symbol would
    be unknown, and LLVM ends the process.
    """
    names = {step.argval for step in dis.get_instructions(function) if step.opname == "LOAD_GLOBAL"}
    calls = {name: function.__globals__.get(name) for name in names}
    for callee in (c for c in calls.values() if isinstance(c, _Dispatcher) and c not in copies):
        jitted: Any = callee
        inner = _self_contained(jitted.py_func, copies)
        if inner is jitted.py_func and jitted._compiler.pipeline_class is not _linking.Separate:
            copies[callee] = callee
        else:
            options = {"forceinline": False, **{k: v for k, v in jitted.targetoptions.items() if k in ("forceinline", "fastmath")}}
            copies[callee] = _njit(_linking.Inlined, **options)(inner)
    changed = {name: copies[c] for name, c in calls.items() if isinstance(c, _Dispatcher) and copies[c] is not c}
    if not changed:
        return function
    scope = {**function.__globals__, **changed}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__doc__, copy.__qualname__ = function.__doc__, function.__qualname__
    return copy


def _cached(dispatcher: Any) -> Any:
    is_body = dispatcher._compiler.pipeline_class is _linking.Separate
    dispatcher._cache = _Cache(dispatcher.py_func, is_body)
    return dispatcher
