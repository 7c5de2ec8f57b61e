"""From shape, strides and axes to five integers.

Element (b, o, c, i) of the flat array lies at ((b * outer + o) * channel + c) * inner + i; there is one
statistic per (b, c) and one parameter per (c, i // run), or, where every element of a statistic has
parameters of its own, per (o, i).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Of an axis: statistics are kept per index of it; kept, and parameters are shared along it;
# reduced over; reduced over, and parameters vary along it.
KEPT, BATCH, REDUCED, VARYING = "K", "B", "R", "V"


class Geometry(NamedTuple):
    batch: int
    outer: int
    channel: int
    inner: int
    run: int

    @property
    def size(self) -> int:
        return self.batch * self.outer * self.channel * self.inner

    @property
    def statistics(self) -> int:
        return self.batch * self.channel

    @property
    def columns(self) -> int:
        return self.channel * self.inner

    @property
    def parameters(self) -> int:
        return self.channel * (self.inner // self.run)

    @property
    def elements(self) -> int:
        """Of one statistic."""
        return self.outer * self.inner


class Dimension(NamedTuple):
    """Neighbouring axes of one label that every operand walks with one stride."""

    label: str
    size: int
    strides: tuple[int, ...]  # bytes, one per operand


class Collapsed(NamedTuple):
    """Four sizes, and for every operand the byte strides along b, o, c, i."""

    sizes: tuple[int, int, int, int]
    run: int
    strides: tuple[tuple[int, int, int, int], ...]
    order: tuple[int, ...]  # axes from the outermost in memory to the innermost


def memory_order(strides: Sequence[int]) -> tuple[int, ...]:
    """Axes by falling distance in memory; broadcast axes, which have none, outermost."""
    return tuple(sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]) if strides[axis] else -(2**63)))


def join(labels: Sequence[str], shape: Sequence[int], strides: Sequence[Sequence[int]], order: Sequence[int]) -> list[Dimension]:
    """Axes in the given order, those of size 1 left out, neighbours joined where all operands allow it."""
    joined: list[Dimension] = []
    for axis in order:
        if shape[axis] == 1:
            continue
        new = Dimension(labels[axis], shape[axis], tuple(s[axis] for s in strides))
        if joined:
            last = joined[-1]
            if last.label == new.label and all(a == b * new.size for a, b in zip(last.strides, new.strides, strict=True)):
                joined[-1] = Dimension(new.label, last.size * new.size, new.strides)
                continue
        joined.append(new)
    return joined


def collapse(labels: Sequence[str], shape: Sequence[int], strides: Sequence[Sequence[int]], *, batched: bool = True) -> Collapsed | None:
    """Fit the axes into (batch kept, outer reduced, channel kept, inner reduced).

    strides : bytes per axis, for every operand; the first decides the order
    batched : whether a kept axis may become the batch, whose members share their parameters
    returns : None where more dimensions remain
    """
    natural = tuple(range(len(shape)))
    n = len(strides)
    for order in dict.fromkeys((memory_order(strides[0]), natural)):
        rest = join(labels, shape, strides, order)
        inner, run = _take_inner(rest, n)
        channel, outer = _take(rest, KEPT, n), _take(rest, REDUCED, n)
        batch = _take(rest, BATCH, n)
        if batched and batch.size == 1:
            batch = _take(rest, KEPT, n)
        if not rest:
            per_operand = tuple((batch.strides[k], outer.strides[k], channel.strides[k], inner.strides[k]) for k in range(n))
            return Collapsed((batch.size, outer.size, channel.size, inner.size), run, per_operand, order)
    return None


def _take(rest: list[Dimension], label: str, n: int) -> Dimension:
    """The innermost dimension left, if it has this label, else one of a single index."""
    return rest.pop() if rest and rest[-1].label == label else Dimension(label, 1, (0,) * n)


def _take_inner(rest: list[Dimension], n: int) -> tuple[Dimension, int]:
    """Reduced dimensions at the end, and how many of their elements share parameters."""
    last = _take(rest, REDUCED, n)
    if not rest or rest[-1].label != VARYING:
        return last, last.size
    varying = rest[-1]
    if last.size == 1:
        return rest.pop(), 1
    if any(a != b * last.size for a, b in zip(varying.strides, last.strides, strict=True)):
        return last, last.size  # `varying` stays: it does not collapse
    rest.pop()
    return Dimension(REDUCED, varying.size * last.size, last.strides), last.size
