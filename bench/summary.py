"""All ratios in a few numbers: their geometric mean by family of operations and peer, and where fastnorm is slower."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from bench.colours import ORDER
from bench.problems import AVERAGES
from bench.results import Entry, Speed

RELATED = ("fastnorm-f32", "fastnorm-alone")
"""fastnorm beside itself: no peers."""
BEST = "best peer"
ALL = "all"


class Line(NamedTuple):
    family: str
    peer: str
    ratio: float  # geometric mean of time of the peer / time of fastnorm
    rows: int
    slower: int  # rows with a ratio below 1
    even: int  # rows whose spread does not tell who is faster
    noisy: int


def family(operation: str) -> str:
    if operation in ("train", "inference", "backward", "mean_var"):
        return "batch norm"
    if operation in AVERAGES:
        return "averages"
    if "layer_norm" in operation or "rms_norm" in operation:
        return "layer, RMS norm"
    if operation.startswith(("group", "instance")):
        return "group, instance norm"
    return "images" if operation == "normalize_images" else "tables"


def peers(speed: Speed) -> list[Entry]:
    """Those that were timed beside fastnorm."""
    return [entry for entry in speed.entries if entry.ratio is not None and entry.library not in RELATED and entry.ratio.median > 0]


def best(speed: Speed) -> Entry | None:
    return min(peers(speed), key=lambda entry: entry.ratio.median, default=None)  # type: ignore[union-attr]


def _line(name: str, peer: str, entries: list[Entry]) -> Line:
    ratios = [entry.ratio.median for entry in entries if entry.ratio is not None]
    mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
    spreads = [entry.ratio for entry in entries if entry.ratio is not None]
    even, noisy = sum(spread.even for spread in spreads), sum(spread.noisy for spread in spreads)
    return Line(name, peer, mean, len(ratios), sum(ratio < 1 for ratio in ratios), even, noisy)


def _lines(name: str, speeds: list[Speed]) -> Iterable[Line]:
    by_peer: dict[str, list[Entry]] = {}
    for speed in speeds:
        for entry in peers(speed):
            by_peer.setdefault(entry.library, []).append(entry)
    for peer in sorted(by_peer, key=ORDER.__getitem__):
        yield _line(name, peer, by_peer[peer])
    fastest = [entry for speed in speeds if (entry := best(speed)) is not None]
    if fastest:
        yield _line(name, BEST, fastest)


def lines(speeds: list[Speed]) -> list[Line]:
    """Of every family, and of all rows."""
    families: dict[str, list[Speed]] = {}
    for speed in speeds:
        families.setdefault(family(speed.row.key.operation), []).append(speed)
    found = [line for name, members in families.items() for line in _lines(name, members)]
    return found + list(_lines(ALL, speeds))
