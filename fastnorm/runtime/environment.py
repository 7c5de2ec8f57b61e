"""Numbers that environment variables state."""

from __future__ import annotations

import os
import warnings


def stated_number(name: str, least: int, otherwise: int) -> int:
    """What a variable says; `otherwise` where it says nothing, or with a warning something else than an integer of at least `least`."""
    stated = os.environ.get(name, "").strip()
    if not stated:
        return otherwise
    if stated.isascii() and stated.isdecimal() and int(stated) >= least:
        return int(stated)
    warnings.warn(f"{name} is {stated!r} but must be an integer of at least {least}; it is ignored", RuntimeWarning, stacklevel=2)
    return otherwise
