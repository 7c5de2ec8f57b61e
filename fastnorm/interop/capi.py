"""Pointers to the library's functions for C, C++ and everything that calls C."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from fastnorm.interop.capi_declarations import NAMES, declaration_of, prototype_of
from fastnorm.interop.capi_declarations import header as _header


class Function:
    """A C function: compiled when its address is first asked for.

    Attributes
    ----------
    name : str
        For example "layer_norm_f32".
    signature : str
        Its prototype in C.
    address : int
        Valid as long as the process.
    ctypes : ctypes function
        For `scipy.LowLevelCallable`, or to call it from Python; NULL is None.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.signature = prototype_of(name)
        self.__doc__ = declaration_of(name)[2].text

    @cached_property
    def _compiled(self) -> Any:
        from fastnorm.interop.capi_functions import compiled

        return compiled(self.name)

    @property
    def address(self) -> int:
        return int(self._compiled.address)

    @property
    def ctypes(self) -> Any:
        return self._compiled.ctypes

    def __repr__(self) -> str:
        return f"<{self.signature}>"


class _Functions(Mapping[str, Function]):
    def __init__(self) -> None:
        self._known: dict[str, Function] = {}

    def __getitem__(self, name: str) -> Function:
        declaration_of(name)
        return self._known.setdefault(name, Function(name))

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def __repr__(self) -> str:
        return f"<functions for C: {', '.join(NAMES)}>"


functions: Mapping[str, Function] = _Functions()


def header() -> str:
    """Text of the C header: status codes, layout, a documented type for every function, and a structure of all.

    Examples
    --------
    >>> import fastnorm as fn
    >>> "layer_norm_f32_fn" in fn.capi.header()
    True
    """
    return _header()


def table(names: Iterable[str] | None = None) -> Any:
    """The structure `fastnorm_functions` of the header: an array of pointers, to be passed to C.

    Parameters
    ----------
    names : iterable of str, optional
        Functions to compile; the others stay NULL. All by default, which takes a minute when nothing is compiled yet.

    Returns
    -------
    ctypes array of void pointers
        To be kept alive as long as C reads it.

    Raises
    ------
    KeyError
        For a name that `functions` has not.

    Examples
    --------
    >>> import fastnorm as fn
    >>> len(fn.capi.table([])) == len(fn.capi.functions)
    True
    """
    wanted = set(NAMES if names is None else names)
    for name in wanted:
        declaration_of(name)
    return (ctypes.c_void_p * len(NAMES))(*(functions[name].address if name in wanted else None for name in NAMES))
