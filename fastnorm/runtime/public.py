"""Which public functions have been asked for: what else has to know of them hears when, and imports nothing before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_loaded: dict[str, Any] = {}
_listeners: list[Callable[[str, Any], None]] = []


def announce(name: str, value: Any) -> None:
    """A public name is asked for, for the first time."""
    _loaded[name] = value
    for listener in _listeners:
        listener(name, value)


def listen(listener: Callable[[str, Any], None]) -> None:
    """Call with every name and value that was announced or will be."""
    if listener not in _listeners:
        _listeners.append(listener)
        for name, value in list(_loaded.items()):
            listener(name, value)
