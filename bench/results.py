"""What a run found, and the bounds it is judged by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.problems import Problem
from bench.providers import OURS
from bench.rows import OFFSETS, PROMISED, Row
from bench.timing import Spread

_ROUNDING = {"float64": 0.0, "float32": 0.0, "uint8": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Of the output's storage; that of float32 is part of the bound."""


def contract(problem: Problem) -> float:
    """Largest error, as error/(1+|y|), that fastnorm promises. Gradients: relative to the largest term of a slice,
    which is about ten for normally distributed numbers."""
    bound = 1e-13 if problem.key.dtype == "float64" else 1e-6
    if problem.operation.endswith("backward"):
        bound *= 10
    return bound + _ROUNDING[problem.key.dtype]


def mistaken(problem: Problem) -> float:
    """Error beyond which a result is of little use."""
    return 1e-2 + 4 * _ROUNDING[problem.key.dtype]


def credible(problem: Problem) -> float:
    """Error beyond which a time means nothing: the provider computes something else. Who adds 1e8 float32 numbers one
    by one loses all digits but the first, and is timed all the same: that is what users get."""
    return mistaken(problem) if problem.writes else 0.5


@dataclass
class Entry:
    """One provider in one row. Times in seconds; ratio: how many times longer it takes than fastnorm."""

    library: str
    status: str = "ok"  # ok, inaccurate (a peer beyond `mistaken`, fastnorm beyond `contract`), wrong, absent, unsupported, failed
    note: str = ""
    error: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    time: Spread | None = None
    ratio: Spread | None = None
    share: Spread | None = None

    @property
    def bad(self) -> bool:
        return self.library == OURS and self.status in ("inaccurate", "wrong", "failed")


@dataclass
class Speed:
    row: Row
    dims: tuple[int, ...]
    traffic_bytes: int
    roof: str
    entries: list[Entry]
    x_bytes: int = 0

    @property
    def share(self) -> float | None:
        """Of the roof, that fastnorm reaches."""
        ours = self.ours
        return None if ours is None or ours.share is None else ours.share.median

    @property
    def noisy(self) -> bool:
        return any(entry.ratio is not None and entry.ratio.noisy for entry in self.entries)

    @property
    def ours(self) -> Entry | None:
        return next((entry for entry in self.entries if entry.library == OURS), None)


@dataclass
class Accuracy:
    """errors[library][i]: at offsets[i]; None where the library cannot."""

    row: Row
    limit: float
    errors: dict[str, list[float | None]]
    failures: dict[str, str] = field(default_factory=dict)
    offsets: tuple[float, ...] = OFFSETS

    def beyond(self, place: int) -> bool:
        """Whether fastnorm breaks its promise there: it promises nothing for larger offsets."""
        error = self.errors.get(OURS, [None] * len(self.offsets))[place]
        return error is not None and not error <= self.limit and self.offsets[place] <= PROMISED

    @property
    def bad(self) -> bool:
        return OURS in self.failures or any(map(self.beyond, range(len(self.offsets))))


@dataclass
class Footprint:
    """Peak extra bytes of one call, by library; None where the system cannot tell or the library cannot."""

    row: Row
    x_bytes: int
    extra_bytes: dict[str, int | None]


@dataclass
class Report:
    machine: dict[str, Any]
    bandwidth: dict[str, float] = field(default_factory=dict)  # GB/s
    absent: dict[str, str] = field(default_factory=dict)
    speed: list[Speed] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    memory: list[Footprint] = field(default_factory=list)
    scaling: dict[int, dict[str, float]] = field(default_factory=dict)  # GB/s by number of threads
    skipped: list[str] = field(default_factory=list)  # rows for which there was no time or memory
    seconds: float = 0.0

    @property
    def bad(self) -> list[str]:
        """Names of the rows in which fastnorm failed or broke its accuracy contract."""
        wrong = [s.row.name for s in self.speed if any(entry.bad for entry in s.entries)]
        return wrong + [a.row.name for a in self.accuracy if a.bad]

    def as_json(self) -> dict[str, Any]:
        return _plain(asdict(self))  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Named tuples as objects; NaN and infinity, which JSON has not, as null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
