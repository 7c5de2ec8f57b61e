"""Ctrl-C that waits: Numba interrupted while it is imported or compiles fails in every later call of the process."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class deferred:
    """A block that SIGINT does not interrupt: its handler is called when the block ends."""

    def __init__(self) -> None:
        self._handler: Any = None
        self._noted: tuple[int, FrameType | None] | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number, frame

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # others receive no signals
            return
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # ignored, or the end of the process
            return
        try:
            signal.signal(signal.SIGINT, self._note)
        except ValueError:  # in a subinterpreter
            return
        self._handler = handler

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._handler is None:
            return
        signal.signal(signal.SIGINT, self._handler)
        if self._noted is not None:
            self._handler(*self._noted)
