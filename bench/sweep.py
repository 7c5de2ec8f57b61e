"""Rows beside the table: sizes from 1 KB to 1 GB, and shapes that nothing divides.

They are run in a report, or if they are named. The arrays of large sizes repeat a block (`problems.REPEATED`), so that the reference
is that of the block.
"""

from __future__ import annotations

from bench.problems import REPEATED, Key
from bench.rows import Row
from bench.shapes import SHAPES, SWEEP

PANELS: dict[tuple[str, str], tuple[str, ...]] = {
    ("train", "NCHW"): ("numpy", "torch-out", "onednn"),
    ("train", "NHWC"): ("numpy", "torch-out", "onednn"),
    ("inference", "NCHW"): ("numpy", "torch-out", "onednn"),
    ("backward", "NCHW"): ("numpy", "torch", "onednn"),
    ("layer_norm", "rows"): ("numpy", "torch", "onednn"),
    ("rms_norm", "rows"): ("numpy", "torch"),
    ("group_norm", "NCHW"): ("numpy", "torch"),
    ("var", "axis0"): ("numpy", "bottleneck", "numbagg", "torch"),
}
"""Operation and layout of a curve -> peers."""


def _shape(layout: str, size: str) -> str:
    return f"sweep/{'planes' if layout in ('NCHW', 'NHWC') else 'rows'}/{size}"


def size_of(row: Row) -> str:
    """Such as "64KB"."""
    return row.key.shape.rpartition("/")[2]


ROWS: list[Row] = [
    Row(f"sweep/{operation}/{layout}/{size}", Key(operation, _shape(layout, size), layout, "float32", REPEATED), "out", peers)
    for size in SWEEP["rows"]
    for (operation, layout), peers in PANELS.items()
]
"""The smallest first: a report that runs out of time leaves out the largest."""


def _odd() -> list[Row]:
    planes = [shape for shape, dims in SHAPES.items() if shape.startswith("odd/") and len(dims) == 4]
    rows = [shape for shape, dims in SHAPES.items() if shape.startswith("odd/") and len(dims) == 2]
    table = [(operation, layout, planes) for operation in ("train", "backward") for layout in ("NCHW", "NHWC")]
    table += [(operation, "NC", ["odd/few-rows"]) for operation in ("inference", "backward")]
    table += [("inference", "NCHW", planes), ("train", "NC", rows), ("layer_norm", "rows", rows)]
    table += [("var", axis, rows) for axis in ("axis0", "axis1")]
    # Of one element the gradient is 0, the difference of two numbers of which both are rounded: there is no error to be compared.
    table += [("rms_norm", "rows", ["odd/rows-of-50"]), ("layer_norm_backward", "rows", [s for s in rows if s != "odd/rows-of-1"])]
    table += [("group_norm_backward", "NCHW", ["resnet50/stage4"]), ("instance_norm_backward", "NCHW", ["resnet50/stage4"])]
    return [
        Row(f"odd/{operation}/{layout}/{_name(shape)}", Key(operation, shape, layout, "float32"), "out", _peers(operation))
        for operation, layout, shapes in table
        for shape in shapes
    ]


def _name(shape: str) -> str:
    return shape.removeprefix("odd/").replace("/", "-")


def _peers(operation: str) -> tuple[str, ...]:
    if operation in ("group_norm_backward", "instance_norm_backward"):
        return ("torch",)
    forward = operation.removesuffix("_norm_backward") + "_norm" if operation.endswith("_norm_backward") else operation
    return next(peers for (known, _), peers in PANELS.items() if known == forward)


ODD: list[Row] = _odd()
