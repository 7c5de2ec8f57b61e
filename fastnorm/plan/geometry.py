"""From shape, strides and axes to five integers.

Element (b, o, c, i) of the flat array lies at ((b * outer + o) * channel + c) * inner + i; there is one
statistic per (b, c) and one parameter per (c, i // run).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

KEPT, REDUCED = "K", "R"


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


class Dimension(NamedTuple):
    """Neighbouring axes of one label that every operand walks with one stride."""

    label: str
    size: int
    strides: tuple[int, ...]  # bytes, one per operand


class Collapsed(NamedTuple):
    """Four sizes, and for every operand the byte strides along b, o, c, i."""

    sizes: tuple[int, int, int, int]
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
    for order in dict.fromkeys((memory_order(strides[0]), natural)):
        rest = join(labels, shape, strides, order)
        sizes, steps = [], []
        for wanted in (REDUCED, KEPT, REDUCED, KEPT):
            fits = bool(rest) and rest[-1].label == wanted
            dimension = rest.pop() if fits else Dimension(wanted, 1, (0,) * len(strides))
            sizes.append(dimension.size)
            steps.append(dimension.strides)
        if not rest and (batched or sizes[3] == 1):
            i, c, o, b = sizes
            per_operand = tuple((steps[3][k], steps[2][k], steps[1][k], steps[0][k]) for k in range(len(strides)))
            return Collapsed((b, o, c, i), per_operand, order)
    return None
