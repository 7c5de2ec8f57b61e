"""The only file that decides Numba options, fastmath sets and the cache folder.

Decorators:

- ``element``: one element or one statistic in, one out; exact arithmetic, always inlined. ``rounded``: without fused products.
- ``variant``: formulas by the types of their arguments.
- ``loop``   : a loop over one run, inlined into the chunk body that calls it; may be reassociated.
- ``loop_variant``: loops by the types of their arguments.
- ``maker``  : a loop that makes arrays. The others count no references: arrays are lent to them.
- ``driver``: what Python calls; cached on disk. Its first argument is the crew that chunks are dealt to, or 0.

And for other callers than Python: ``exported``, ``exported_element`` (users' compiled functions), ``c_function``.
"""

from __future__ import annotations

import contextlib
import dis
import gc
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
    import numpy.ma  # noqa: F401 - Numba asks for it when it first sees an array, where nobody could hold a fork back (`runtime.forks`)
from numba.core import caching, ccallback, compiler, sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.types.misc import unliteral

from fastnorm import _linking


class _Flags(set[str]):
    """Numba makes them a part of the symbols of chunk bodies: in one order, not in that of a process. Of two processes that compiled the
    same body at the same time, one had its drivers call it by a name that the cache no longer knew, and be compiled again."""

    def __repr__(self) -> str:
        return f"{{{', '.join(sorted(self))}}}"


# Reductions may be reordered into vector lanes, products fused; NaN and inf keep their meaning
# (never "nnan", "ninf": a NaN has to reach its own channel).
REASSOCIATE: Any = _Flags({"reassoc", "contract", "nsz", "arcp"})
# Compensated sums cancel to nothing under "reassoc".
EXACT: Any = _Flags({"nsz", "contract"})

_COMMON: Any = {"nogil": True, "error_model": "numpy", "boundscheck": False, "_nrt": True}


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
        collecting = gc.isenabled()
        gc.disable()  # for the garbage of a compilation it searched all that lives, 8 % of the time
        try:
            yield
        finally:
            numba.config.DISABLE_JIT = stated
            if collecting:
                gc.enable()


class _Dispatcher(CPUDispatcher):
    def _compile_for_args(self, *arguments: Any, **keywords: Any) -> Any:
        """Of types that are new to it, for which Numba may import parts of itself and of NumPy."""
        with forks.importing():
            return super()._compile_for_args(*arguments, **keywords)

    def compile(self, sig: Any) -> Any:
        """What Numba's dispatcher does, without its timers: each listens to all events of the functions that are compiled for this one."""
        with _compilation():
            arguments, return_type = sigutils.normalize_signature(sig)
            known = self.overloads.get(tuple(arguments))
            if known is not None:
                return known.entry_point
            with self._compiling_counter:
                result = self._cache.load_overload(sig, self.targetctx)
                if result is None:
                    self._cache_misses[sig] += 1
                    result = self._compiler.compile(arguments, return_type)
                    self.add_overload(result)
                    self._cache.save_overload(sig, result)
                else:
                    self._cache_hits[sig] += 1
                    self.targetctx.insert_user_function(result.entry_point, result.fndesc, [result.library])
                    self.add_overload(result)
                return result.entry_point

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """A constant in a call is no type of its own: bodies and loops were compiled once more for every such number."""
        return super().get_call_template(tuple(unliteral(a) for a in args), {k: unliteral(a) for k, a in kws.items()})


def _njit(pipeline_class: Any = compiler.Compiler, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    options = {"nopython": True, **_COMMON, **options}
    return lambda function: _Dispatcher(py_func=function, targetoptions=options, pipeline_class=pipeline_class)


def _inlined(function: Callable[..., Any], fastmath: Any, **options: Any) -> Any:
    return _njit(_linking.Inlined, forceinline=True, fastmath=fastmath, **options)(function)


# Arrays are lent to formulas and loops, which count no references to them. Counted, 5 % more was to be compiled; and what LLVM
# could not see to be balanced, in a loop that calls others, was in the way of vector lanes.
_LENT: Any = {"_nrt": False}


def element(function: Callable[..., Any]) -> Any:
    """A formula: inlined into its caller, no reassociation."""
    return _inlined(function, EXACT, **_LENT)


def rounded(function: Callable[..., Any]) -> Any:
    """A formula whose every operation is rounded by itself, no product fused with a sum: the bits of NumPy."""
    return _inlined(function, False, **_LENT)


def loop(function: Callable[..., Any]) -> Any:
    """A loop over runs: inlined into the chunk body, free to use vector lanes. It makes no arrays."""
    return _inlined(function, REASSOCIATE, **_LENT)


def maker(function: Callable[..., Any]) -> Any:
    """A loop that makes arrays, or returns one."""
    return _inlined(function, REASSOCIATE)


def chunk_body(function: Callable[..., Any]) -> Any:
    """The work of one chunk, called by a serial and by a parallel driver: machine code of its own."""
    # A callee inherits its caller's "forceinline" unless it says otherwise.
    return _cached(_njit(forceinline=False, fastmath=REASSOCIATE, pipeline_class=_linking.Separate)(function))


class _Variant(_Dispatcher):
    """Of a function that is given the types of its arguments and returns the function to compile for them."""

    def __init__(self, choose: Callable[..., Any], decorate: Callable[..., Any]) -> None:
        super().__init__(py_func=choose, targetoptions={"nopython": True, **_COMMON})
        self._choose = choose
        self._decorate = decorate
        self._chosen: dict[Any, _Dispatcher] = {}

    def _for(self, arguments: tuple[Any, ...]) -> _Dispatcher:
        function = self._choose(*arguments)
        if function.__code__ not in self._chosen:
            self._chosen[function.__code__] = self._decorate(function)
        return self._chosen[function.__code__]

    def get_call_template(self, args: Any, kws: Any) -> Any:
        _, folded = self._compiler.fold_argument_types(args, kws)
        folded = tuple(unliteral(a) for a in folded)
        return self._for(folded).get_call_template(folded, {})

    def get_overload(self, sig: Any) -> Any:
        arguments, _ = sigutils.normalize_signature(sig)
        return self._for(arguments).get_overload(sig)


def variant(choose: Callable[..., Any]) -> Any:
    """Implementations by the types of the arguments: `choose` is called with these, and returns a formula of the same arguments."""
    return _Variant(choose, lambda function: _inlined(function, EXACT))


def loop_variant(choose: Callable[..., Any]) -> Any:
    """As `variant`; of `loop` each."""
    return _Variant(choose, loop)


def driver(function: Callable[..., Any]) -> Any:
    """Called from Python."""
    return _cached(_njit(_linking.Lean, fastmath=REASSOCIATE, no_cfunc_wrapper=True)(function))


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
