"""The table of what is measured: a row is one problem, one kind of outputs, and who takes part."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from bench.problems import AVERAGES, SCALERS, Key
from bench.providers import OURS


class Row(NamedTuple):
    name: str
    key: Key
    outputs: str  # "out": into a given array; "fresh": into new memory
    peers: tuple[str, ...]
    quick: bool = False

    @property
    def providers(self) -> tuple[str, ...]:
        return (OURS, *self.peers)


RESNET = ("resnet50/bn1", "resnet50/stage2", "resnet50/stage2-wide", "resnet50/stage3-wide", "resnet50/stage4", "resnet50/stage4-wide")
MOBILE = ("mobilenet2/expand", "mobilenet2/last")
TOKENS = ("gpt2-medium/tokens", "gpt2/tokens", "bert-large/tokens", "long-rows", "llama/tokens", "short-rows", "attention/heads")
QUICK = {
    "train/NCHW/resnet50/stage2",
    "train/NCHW/resnet50/stage4",
    "train/NHWC/resnet50/stage2",
    "train/NCHW/tiny/planes",
    "inference/NCHW/resnet50/stage2",
    "inference/NHWC/resnet50/stage2",
    "inference/NC/tiny/rows",
    "backward/NCHW/resnet50/stage2",
    "backward/NHWC/resnet50/stage2",
    "standardize/NC/tabular/wide",
    "train/NHWC/photos",
    "layer_norm/rows/gpt2-medium/tokens",
    "layer_norm_backward/rows/gpt2-medium/tokens",
    "group_norm/NCHW/unet/28",
    "mean/all/tiny/hundred",
    "standard_scaler_fit_transform/NC/tabular/wide",
    "normalize_images/NHWC/imagenet/64/uint8",
}


def _row(
    operation: str,
    layout: str,
    shape: str,
    peers: tuple[str, ...],
    *,
    outputs: str = "out",
    dtype: str = "float32",
    source: str = "random",
) -> Row:
    suffix = (f"/{dtype}" if dtype != "float32" else "") + ("/fresh" if outputs == "fresh" else "")
    name = f"{operation}/{layout}/{shape}{suffix}"
    return Row(name, Key(operation, shape, layout, dtype, source), outputs, peers, name in QUICK)


def _batch() -> list[Row]:
    out, fresh, back = ("numpy", "torch-out", "onednn"), ("numpy", "torch"), ("numpy", "torch-out", "torch", "onednn")
    rows = []
    for layout in ("NCHW", "NHWC"):
        rows += [_row("train", layout, shape, out) for shape in RESNET + MOBILE]
        rows += [_row("train", layout, shape, fresh, outputs="fresh") for shape in ("resnet50/stage2", "resnet50/stage4")]
        rows += [_row("inference", layout, shape, out) for shape in RESNET[:5]]
        rows.append(_row("inference", layout, "resnet50/stage2", fresh, outputs="fresh"))
        rows += [_row("backward", layout, shape, back) for shape in RESNET]
        rows.append(_row("backward", layout, "resnet50/stage2", fresh, outputs="fresh"))
    rows.append(_row("train", "NC", "tabular/wide", out))
    rows += [_row(operation, "NC", "mlp/hidden", peers) for operation, peers in (("train", out), ("inference", out), ("backward", back))]
    rows += [_row(operation, "NC", "mlp/batch", peers) for operation, peers in (("train", out), ("backward", back))]
    rows.append(_row("inference", "NC", "mlp/one", out))
    rows += [_row(operation, "NCHW", "convnet/last", peers) for operation, peers in (("train", out), ("backward", back))]
    rows.append(_row("mean_var", "NCHW", "resnet50/stage2-wide", ("numpy", "torch")))
    return rows


def _half() -> list[Row]:
    """Against PyTorch, oneDNN where it has the type, and our own float32."""
    of_dtype = {
        "float16": ("resnet50/stage2-wide", ("torch-out", "fastnorm-f32")),
        "bfloat16": ("resnet50/stage2", ("torch-out", "onednn", "fastnorm-f32")),
    }
    return [
        _row(operation, layout, shape, peers, dtype=dtype)
        for operation in ("train", "inference")
        for layout in ("NCHW", "NHWC")
        for dtype, (shape, peers) in of_dtype.items()
    ]


def _tables() -> list[Row]:
    peers = ("numpy", "scipy", "sklearn")
    rows = [_row("standardize", "NC", shape, (*peers, "torch-out")) for shape in ("tabular/tall", "tabular/wide")]
    return [*rows, _row("standardize", "NC", "tabular/tall", (*peers, "torch"), outputs="fresh")]


def _overhead() -> list[Row]:
    """Where a call is mostly Python."""
    peers = ("numpy", "torch-out")
    rows = [_row(operation, "NCHW", "tiny/planes", peers) for operation in ("train", "inference", "backward")]
    rows += [_row(operation, "NC", "tiny/rows", peers) for operation in ("train", "inference", "backward")]
    return [*rows, _row("train", "NC", "tiny/rows", ("numpy", "torch"), outputs="fresh")]


def _images() -> list[Row]:
    peers = ("numpy", "torch-out")
    rows = [_row("train", layout, "photos", peers, source="photos") for layout in ("NHWC", "NCHW")]
    return rows + [_row("train", layout, "digits", peers, source="digits") for layout in ("NHWC", "NCHW")]


def _family() -> list[Row]:
    """Appear as soon as fastnorm has the function."""
    peers = ("numpy", "torch")
    rows = []
    for operation in ("layer_norm", "rms_norm"):
        known: tuple[str, ...] = (*peers, "onednn") if operation == "layer_norm" else peers
        rows += [_row(operation, "rows", shape, known) for shape in (*TOKENS, "tiny/rows")]
        rows.append(_row(operation, "rows", "gpt2/tokens", peers, outputs="fresh"))
    for operation in ("layer_norm_backward", "rms_norm_backward"):
        known = (*peers, "onednn") if operation == "layer_norm_backward" else ("torch",)
        rows += [_row(operation, "rows", shape, known) for shape in TOKENS]
    rows += [_row("layer_norm_backward", "rows", shape, (*peers, "onednn")) for shape in ("convnet/maps", "mlp/batch")]
    rows += [_row("add_layer_norm", "rows", shape, (*peers, "fastnorm-alone")) for shape in ("gpt2/tokens", "llama/tokens")]
    for layout in ("NCHW", "NHWC"):
        grouped = ("unet/28", "resnet50/stage2", "resnet50/stage4-wide")
        rows += [_row("group_norm", layout, shape, peers) for shape in grouped]
        rows += [_row("group_norm_backward", layout, shape, ("torch",)) for shape in grouped]
        rows += [_row("instance_norm", layout, shape, peers) for shape in ("unet/28", "style/64")]
        rows.append(_row("instance_norm_backward", layout, "style/64", ("torch",)))
    return rows


def _scalers() -> list[Row]:
    """Those of the same table next to each other: they share it."""
    operations = [f"{scaler}_scaler_{method}" for scaler in SCALERS for method in ("fit", "transform", "fit_transform")]
    rows = [_row(operation, "NC", "tabular/tall", ("sklearn",)) for operation in operations]
    rows += [_row("zscore", "NC", "tabular/tall", ("scipy",), outputs=outputs) for outputs in ("out", "fresh")]
    rows += [_row("zscore", "NC", shape, ("scipy",)) for shape in ("tiny/rows", "odd/few-rows")]
    rows += [_row(operation, "NC", "tabular/genes", ("sklearn",), dtype="float64") for operation in operations]
    rows.append(_row("standard_scaler_fit_transform", "NC", "tabular/wide", ("sklearn",)))
    sparse = [f"{scaler}_scaler_{method}" for scaler in ("standard", "maxabs") for method in ("fit", "transform")]
    return rows + [_row(operation, "CSR", "tabular/sparse", ("sklearn",)) for operation in sparse]


_OF_FEW_ROWS = (("mean", "random"), ("nanmean", "gaps"))


def _averages() -> list[Row]:
    rows = []
    for operation in AVERAGES:
        gaps = operation.startswith("nan")
        peers = ("numpy", "bottleneck", "numbagg") if gaps else ("numpy", "bottleneck", "numbagg", "torch")
        rows += [_row(operation, axis, "square", peers, source="gaps" if gaps else "random") for axis in ("axis0", "axis1", "all")]
    peers = ("numpy", "bottleneck", "numbagg")
    rows += [_row("mean", "all", "tiny/hundred", peers, dtype=dtype) for dtype in ("float32", "float64")]
    rows += [_row(operation, "axis0", "tiny/rows", peers, source="gaps") for operation in ("nanmean", "nanvar")]
    return rows + [_row(operation, "axis0", "odd/few-rows", peers, source=source) for operation, source in _OF_FEW_ROWS]


def _recipes() -> list[Row]:
    """Pixels to what networks read."""
    row = partial(_row, "normalize_images", "NHWC", dtype="uint8", source="crops")
    peers = ("numpy", "torch-out", "torch")
    return [row("imagenet/64", peers), row("imagenet/64", ("numpy", "torch"), outputs="fresh"), row("imagenet/1", peers)]


def _neighbours(rows: list[Row]) -> list[Row]:
    """Rows of one problem next to each other, so that arrays and reference are made once."""
    order = list(dict.fromkeys(row.key for row in rows))
    return sorted(rows, key=lambda row: order.index(row.key))


ROWS: list[Row] = _neighbours(_batch() + _half() + _tables() + _overhead() + _images() + _family() + _scalers() + _averages() + _recipes())

OFFSETS = (1.0, 1e2, 1e3, 1e4, 1e6)
"""abs(mean)/std of the accuracy table."""
ALL_OFFSETS = tuple(10.0**k for k in range(8))
"""Of a report, whose curves go further than what is promised."""
PROMISED = 1e6
ACCURACY: list[Row] = [
    Row(f"accuracy/{operation}/{layout}", Key(operation, shape, layout, "float32"), "out", peers, operation == "train")
    for operation, layout, shape, peers in (
        ("train", "NCHW", "accuracy/planes", ("numpy", "torch", "onednn")),
        ("train", "NHWC", "accuracy/planes", ("numpy", "torch", "onednn")),
        ("train", "NC", "accuracy/rows", ("numpy", "torch")),
        ("inference", "NCHW", "accuracy/planes", ("numpy", "torch")),
        ("inference", "NHWC", "accuracy/planes", ("numpy", "torch")),
        ("standardize", "NC", "accuracy/rows", ("numpy", "scipy", "sklearn", "torch")),
        ("backward", "NCHW", "accuracy/planes", ("numpy", "torch", "onednn")),
        ("layer_norm", "rows", "accuracy/rows", ("numpy", "torch", "onednn")),
        ("group_norm", "NCHW", "accuracy/planes", ("numpy", "torch")),
        ("group_norm", "NHWC", "accuracy/planes", ("numpy", "torch")),
        ("instance_norm", "NCHW", "accuracy/planes", ("numpy", "torch")),
        ("mean", "axis0", "accuracy/square", ("numpy", "bottleneck", "numbagg", "torch")),
        ("var", "axis0", "accuracy/square", ("numpy", "bottleneck", "numbagg", "torch")),
        ("standard_scaler_transform", "NC", "accuracy/square", ("sklearn",)),
    )
]

MEMORY: list[Row] = [
    Row(f"memory/{operation}/{layout}", Key(operation, shape, layout, "float32"), "out", peers, (operation, layout) == ("train", "NCHW"))
    for operation, layout, shape, peers in (
        ("train", "NCHW", "resnet50/stage2-wide", ("numpy", "torch-out")),
        ("train", "NHWC", "resnet50/stage2-wide", ("numpy", "torch-out")),
        ("inference", "NCHW", "resnet50/stage2-wide", ("numpy", "torch-out")),
        ("backward", "NCHW", "resnet50/stage2-wide", ("numpy", "torch-out")),
        ("backward", "NHWC", "resnet50/stage2-wide", ("numpy", "torch-out")),
        ("standardize", "NC", "tabular/tall", ("numpy", "sklearn", "torch-out")),
        ("layer_norm", "rows", "gpt2/tokens", ("numpy", "torch")),
        ("layer_norm_backward", "rows", "gpt2/tokens", ("numpy", "torch")),
        ("group_norm", "NHWC", "resnet50/stage2", ("numpy", "torch")),
        *((f"{scaler}_scaler_fit_transform", "NC", "tabular/tall", ("sklearn",)) for scaler in SCALERS),
        ("standard_scaler_fit", "NC", "tabular/tall", ("sklearn",)),
        ("var", "axis0", "square", ("numpy", "bottleneck", "numbagg", "torch")),
    )
]
MEMORY += [
    row._replace(name=f"memory/{row.name}", quick=False)
    for row in (
        *(_row(f"{scaler}_scaler_fit_transform", "NC", "tabular/genes", ("sklearn",), dtype="float64") for scaler in SCALERS),
        _row("normalize_images", "NHWC", "imagenet/64", ("numpy", "torch-out"), dtype="uint8", source="crops"),
    )
]
