"""fastnorm: normalization of tensors on CPUs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastnorm.runtime.forks import importing
from fastnorm.runtime.public import announce
from fastnorm.runtime.recycling import recycle_outputs
from fastnorm.runtime.threads import get_num_threads, num_threads, set_num_threads

if TYPE_CHECKING:
    from fastnorm import capi as capi
    from fastnorm import dask as dask
    from fastnorm import jit as jit
    from fastnorm import layers as layers
    from fastnorm import mpi as mpi
    from fastnorm import preprocessing as preprocessing
    from fastnorm import torch as torch
    from fastnorm.ops.averages import mean as mean
    from fastnorm.ops.averages import nanmean as nanmean
    from fastnorm.ops.averages import nanstd as nanstd
    from fastnorm.ops.averages import nanvar as nanvar
    from fastnorm.ops.averages import std as std
    from fastnorm.ops.averages import var as var
    from fastnorm.ops.batch import batch_norm as batch_norm
    from fastnorm.ops.batch import batch_norm_train as batch_norm_train
    from fastnorm.ops.batch_backward import batch_norm_backward as batch_norm_backward
    from fastnorm.ops.folding import fold_batch_norm as fold_batch_norm
    from fastnorm.ops.group import group_norm as group_norm
    from fastnorm.ops.group import group_norm_backward as group_norm_backward
    from fastnorm.ops.group import instance_norm as instance_norm
    from fastnorm.ops.group import instance_norm_backward as instance_norm_backward
    from fastnorm.ops.images import normalize_images as normalize_images
    from fastnorm.ops.layer import add_layer_norm as add_layer_norm
    from fastnorm.ops.layer import layer_norm as layer_norm
    from fastnorm.ops.layer import layer_norm_backward as layer_norm_backward
    from fastnorm.ops.renorm import batch_renorm_backward as batch_renorm_backward
    from fastnorm.ops.renorm import batch_renorm_train as batch_renorm_train
    from fastnorm.ops.rms import add_rms_norm as add_rms_norm
    from fastnorm.ops.rms import rms_norm as rms_norm
    from fastnorm.ops.rms import rms_norm_backward as rms_norm_backward
    from fastnorm.ops.statistics import mean_var as mean_var
    from fastnorm.ops.zscores import zscore as zscore
    from fastnorm.runtime.config import show_config as show_config
    from fastnorm.state.moments import RunningMoments as RunningMoments
    from fastnorm.state.warmup import warmup as warmup

__version__ = "0.1.0"

# Where public names live: imported when first asked for, so that `import fastnorm` is cheap.
_HOME = {
    "batch_norm": "fastnorm.ops.batch",
    "batch_norm_backward": "fastnorm.ops.batch_backward",
    "batch_norm_train": "fastnorm.ops.batch",
    "batch_renorm_backward": "fastnorm.ops.renorm",
    "batch_renorm_train": "fastnorm.ops.renorm",
    "fold_batch_norm": "fastnorm.ops.folding",
    "group_norm": "fastnorm.ops.group",
    "group_norm_backward": "fastnorm.ops.group",
    "instance_norm": "fastnorm.ops.group",
    "instance_norm_backward": "fastnorm.ops.group",
    "add_layer_norm": "fastnorm.ops.layer",
    "add_rms_norm": "fastnorm.ops.rms",
    "layer_norm": "fastnorm.ops.layer",
    "layer_norm_backward": "fastnorm.ops.layer",
    "rms_norm": "fastnorm.ops.rms",
    "rms_norm_backward": "fastnorm.ops.rms",
    "mean": "fastnorm.ops.averages",
    "var": "fastnorm.ops.averages",
    "std": "fastnorm.ops.averages",
    "nanmean": "fastnorm.ops.averages",
    "nanvar": "fastnorm.ops.averages",
    "nanstd": "fastnorm.ops.averages",
    "mean_var": "fastnorm.ops.statistics",
    "normalize_images": "fastnorm.ops.images",
    "zscore": "fastnorm.ops.zscores",
    "RunningMoments": "fastnorm.state.moments",
    "show_config": "fastnorm.runtime.config",
    "warmup": "fastnorm.state.warmup",
}
_MODULES = ("layers", "preprocessing")
# For embedding: not in __all__, where `from fastnorm import *` would need other libraries and hide their names.
_GUESTS = ("capi", "dask", "jit", "mpi", "torch")

__all__ = ["get_num_threads", "num_threads", "recycle_outputs", "set_num_threads", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        with importing():
            value = getattr(importlib.import_module(_HOME[name]), name)
            globals()[name] = value
            announce(name, value)
        return value
    if name in _MODULES or name in _GUESTS:
        with importing():
            return importlib.import_module(f"fastnorm.{name}")
    raise AttributeError(f"module 'fastnorm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_GUESTS})
