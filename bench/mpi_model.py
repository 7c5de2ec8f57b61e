"""``python -m bench mpi``: what synchronized batch norm costs on many ranks, computed from what is measured here.

The exchange of `fastnorm.mpi` sends one part per rank up a binary tree and broadcasts the union, so that a step waits for
``levels = ceil(log2(ranks))`` messages up, and for two broadcasts, of a size and of the bytes, down:

    levels * (latency + bytes / bandwidth + join) + levels * (2 * latency + bytes / bandwidth) + unpickling

`join` is what a rank does with a message (pickle, unpickle, merge), measured on this machine with the parts of a real call;
latency and bandwidth are those of a network, by default 2 us and 100 Gbit/s.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

RANKS = (2, 8, 64, 512, 4096, 10_000)
CHANNELS = (64, 256, 2048)
REPEATS = 50


class Step(NamedTuple):
    """Of one kind of call with one number of channels."""

    size_bytes: int
    join_s: float
    load_s: float


def levels(ranks: int) -> int:
    """Of the tree."""
    return (ranks - 1).bit_length()


def seconds(step: Step, ranks: int, latency_s: float, bytes_per_s: float) -> float:
    """That a rank waits for the union of all parts."""
    transfer = step.size_bytes / bytes_per_s
    up = levels(ranks) * (latency_s + transfer + step.join_s)
    down = levels(ranks) * (2 * latency_s + transfer) + step.load_s
    return up + down if ranks > 1 else 0.0


def _median_s(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _measured(part: Any) -> Step:
    message = pickle.dumps(part)
    load_s = _median_s(lambda: pickle.loads(message))
    return Step(len(message), _median_s(lambda: part.joined(pickle.loads(pickle.dumps(part)))), load_s)


def forward(channels: int) -> Step:
    """Of `batch_norm_train`."""
    from fastnorm.interop.mpi_batch import PartMoments
    from fastnorm.ops.reduction import Reduced

    values = np.random.default_rng(channels).random((3, channels))
    return _measured(PartMoments(Reduced(values[0], values[1] * 1e-17, values[2], 1000), False))


def backward(channels: int) -> Step:
    """Of `batch_norm_backward`."""
    from fastnorm.interop.mpi_batch import PartSums

    return _measured(PartSums(1000, np.random.default_rng(channels).random((2, channels))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench mpi", description="The latency of batch norm synchronized over ranks of MPI.")
    parser.add_argument("--latency", type=float, default=2.0, metavar="US", help="of one message of the network (default: %(default)s)")
    parser.add_argument("--bandwidth", type=float, default=100.0, metavar="GBIT", help="per link, in Gbit/s (default: %(default)s)")
    return parser


def main(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not (arguments.latency >= 0.0 and arguments.bandwidth > 0.0):
        parser.error("--latency must be at least 0 and --bandwidth more than 0")
    try:
        import fastnorm.mpi  # noqa: F401
    except ImportError as error:
        parser.error(str(error))
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"one exchange, modelled: {arguments.latency:g} us, {arguments.bandwidth:g} Gbit/s; join measured here")
    for name in ("call", "channels", "bytes per message", "join, us"):
        table.add_column(name, justify="left" if name == "call" else "right")
    for ranks in RANKS:
        table.add_column(f"{ranks} ranks, us", justify="right")
    for kind in (forward, backward):
        for channels in CHANNELS:
            step = kind(channels)
            times = (seconds(step, ranks, arguments.latency * 1e-6, arguments.bandwidth * 1e9 / 8) for ranks in RANKS)
            cells = [kind.__name__, str(channels), str(step.size_bytes), f"{step.join_s * 1e6:.0f}", *(f"{t * 1e6:.0f}" for t in times)]
            table.add_row(*cells)
    console = Console()
    (console if console.is_terminal else Console(width=150)).print(table)
    return 0
