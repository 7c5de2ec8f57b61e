"""Which rows a command runs, and who takes part in them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from bench import providers, sweep
from bench.problems import Key
from bench.rows import ACCURACY, MEMORY, ROWS, Row

DEFAULT, ALL = "default", "all"
_REPORTED = (
    "train/*/resnet50/stage4-wide",
    "*/NCHW/resnet50/stage3-wide",
    "*/NC/mlp/*",
    "*/NCHW/convnet/last",
    "train/NC/tabular/wide",
    "train/*/resnet50/stage2/bfloat16",
    "inference/*/resnet50/stage4",
    "backward/*/resnet50/stage4",
    "layer_norm/rows/short-rows",
    "layer_norm/rows/bert-large/tokens",
    "rms_norm*/gpt2-medium/tokens",
    "add_layer_norm/rows/gpt2/tokens",
    "layer_norm*/attention/heads",
    "layer_norm_backward/rows/convnet/maps",
    "layer_norm_backward/rows/mlp/batch",
    "group_norm*/unet/28",
    "group_norm*/NCHW/resnet50/stage4-wide",
    "instance_norm*/style/64",
    "mean_var/*",
    "minmax_scaler_fit_transform/NC/tabular/tall",
    "nanmean/axis0/*",
    "*/tiny/*",
)
"""Beside the quick rows: every operation and layout at least once."""
_LATE = ("64MB", "256MB", "1GB")
"""Sizes of the sweep that are run last: a report that runs out of time has everything else."""


def select(patterns: list[str], quick: bool = False) -> list[Row]:
    """Rows whose name matches one of the globs; without globs the table, or its quick rows.

    raises: ValueError for a glob that matches nothing
    """
    table = ROWS + ACCURACY + MEMORY
    if not patterns:
        return [row for row in table if row.quick or not quick]
    table = table + sweep.ODD + sweep.ROWS
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in table):
            raise ValueError(
                f"no row is called {pattern!r}; `python -m bench --list '*'` shows all names, and * stands for any part of one"
            )
    return [row for row in table if any(_matches(row, pattern) for pattern in patterns)]


def reported() -> list[Row]:
    """Of a report without globs."""
    chosen = [row for row in ROWS if row.quick or any(_matches(row, pattern) for pattern in _REPORTED)]
    late = [row for row in sweep.ROWS if sweep.size_of(row) in _LATE]
    return [row for row in sweep.ROWS if row not in late] + ACCURACY + chosen + sweep.ODD + late


def _matches(row: Row, pattern: str) -> bool:
    return fnmatchcase(row.name, pattern) or row.name.startswith(pattern.rstrip("/") + "/")


def check_peers(wanted: str) -> None:
    """raises: ValueError for a name that is none"""
    unknown = set(wanted.split(",")) - {DEFAULT, ALL, *providers.MODULES}
    if unknown:
        names = ", ".join((DEFAULT, ALL, *(name for name in providers.MODULES if name != providers.OURS)))
        raise ValueError(f"no peer is called {', '.join(sorted(unknown))}; there are {names}")


def with_peers(rows: list[Row], wanted: str) -> list[Row]:
    """The rows with those of their peers that are wanted, and with those that take part on demand.

    wanted : names, "default" for the row's own, "all" for these and everybody else; joined by commas
    """
    names = set(wanted.split(","))
    demanded = [name for name in providers.ON_DEMAND if name in names or ALL in names]
    own = bool(names & {DEFAULT, ALL})

    def peers(row: Row) -> tuple[str, ...]:
        kept = [peer for peer in row.peers if own or peer in names]
        return (*kept, *(name for name in demanded if name not in kept and _takes_part(name, row.key, row.outputs)))

    return [row._replace(peers=peers(row)) for row in rows]


def _takes_part(library: str, key: Key, outputs: str) -> bool:
    """Imports the library. One that is absent does, so that it is said once."""
    return providers.absent(library) is not None or providers.offers(library, key, outputs == "fresh")
