"""One exchange between ranks: everybody's parts become their union, or everybody's errors become everybody's error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as cause:  # mpi4py raises the latter where it finds no MPI library
    raise ImportError(
        f'fastnorm.mpi needs mpi4py and an MPI library ({cause}); pip install "fastnorm[mpi]", and mpich if the machine has no MPI'
    ) from cause


class Contribution(Protocol):
    """What a rank has prepared for an exchange."""

    @property
    def agreed(self) -> dict[str, Any]:
        """Names and values that have to be equal on all ranks."""

    @property
    def part(self) -> Any:
        """What is joined to the parts of others."""


class _Share(NamedTuple):
    rank: int
    agreed: dict[str, Any]
    part: Any


class _Refusal(NamedTuple):
    """An error, as it travels: exceptions themselves need not survive pickling."""

    kind: type[Exception]
    text: str


Prepared = TypeVar("Prepared", bound=Contribution)
Join = Callable[[Any, Any], Any]


def communicator(comm: Any) -> Any:
    """The communicator, or that of all ranks for None. Raises TypeError."""
    if comm is None:
        return MPI.COMM_WORLD
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise TypeError(f"comm is {comm!r} but must be an intracommunicator of mpi4py that this rank belongs to; pass one, or None for all")
    return comm


def union(comm: Any, prepare: Callable[[], Prepared], join: Join) -> tuple[Prepared, Any]:
    """What this rank has prepared, and the union of all ranks' parts: the same bits on every rank.

    Parts are joined along a binary tree in the order of ranks, which depends on their number only, and the union is
    broadcast: 3 ceil(log2(ranks)) messages one after the other, of the size of one part.

    raises : on every rank, if `prepare` or `join` raises on any, or what has to be agreed differs
    """
    comm = communicator(comm)
    error: Exception | None = None
    share: _Share | _Refusal
    try:
        prepared = prepare()
        share = _Share(comm.rank, prepared.agreed, prepared.part)
    except Exception as raised:
        error, share = raised, _refusal(raised, f"rank {comm.rank}")
    total = _exchange(_private(comm), share, join)
    if error is not None:
        raise error
    if isinstance(total, _Refusal):
        raise total.kind(total.text)
    return prepared, total.part


def _exchange(comm: Any, share: Any, join: Join) -> Any:
    rank, size, step = comm.rank, comm.size, 1
    while step < size and not rank & step:
        if rank + step < size:
            share = _joined(share, comm.recv(source=rank + step), join)
        step *= 2
    if rank:
        comm.send(share, dest=rank - step)
    return comm.bcast(share) if size > 1 else copy.copy(share)


def _joined(a: Any, b: Any, join: Join) -> Any:
    """Never raises: a rank that does not send what another waits for would let it wait forever."""
    if isinstance(a, _Refusal) or isinstance(b, _Refusal):
        return a if isinstance(a, _Refusal) else b
    if a.agreed != b.agreed:
        name = next(name for name in (*a.agreed, *b.agreed) if a.agreed.get(name) != b.agreed.get(name))
        return _Refusal(
            ValueError,
            f"{name} is {a.agreed.get(name)!r} on rank {a.rank} but {b.agreed.get(name)!r} on rank {b.rank}; pass the same on every rank",
        )
    try:
        return _Share(a.rank, a.agreed, join(a.part, b.part))
    except Exception as raised:
        return _refusal(raised, f"ranks from {a.rank} and from {b.rank}")


def _refusal(error: Exception, where: str) -> _Refusal:
    kind = next((kind for kind in (ValueError, TypeError) if isinstance(error, kind)), RuntimeError)
    return _Refusal(kind, f"{where}: {error}" if kind is not RuntimeError else f"{where}: {type(error).__name__}: {error}")


_OURS = MPI.Comm.Create_keyval(delete_fn=lambda comm, key, ours: ours.Free())


def _private(comm: Any) -> Any:
    """A duplicate of the communicator, kept with it: our messages never meet those of the program."""
    ours = comm.Get_attr(_OURS)
    if ours is None:
        ours = comm.Dup()
        comm.Set_attr(_OURS, ours)
    return ours
