"""fastnorm's public functions, called as a user calls them."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import numpy as np

import fastnorm
from bench import images
from bench.libraries import averages, scalers
from bench.problems import AVERAGES, Problem
from bench.providers import Prepared, Results, Setup

fn: Any = fastnorm  # the bench grows ahead of the library

if not hasattr(fn, "batch_norm_train"):
    raise ImportError("fastnorm has no batch_norm_train yet")


def _out(problem: Problem, fresh: bool) -> np.ndarray | None:
    return None if fresh else problem.out


def _train_results(returned: Any) -> Results:
    return {"y": returned[0], "mean": returned[1], "rstd": returned[2]}


def _backward_results(returned: Any) -> Results:
    return {"dx": returned[0], "dgamma": returned[1], "dbeta": returned[2]}


def train(p: Problem, fresh: bool) -> Prepared:
    return Prepared(partial(fn.batch_norm_train, p.x, p.gamma, p.beta, axis=p.axis, eps=p.eps, out=_out(p, fresh)), _train_results)


def standardize(p: Problem, fresh: bool) -> Prepared:
    return Prepared(partial(fn.batch_norm_train, p.x, axis=p.axis, eps=p.eps, out=_out(p, fresh)), _train_results)


def inference(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.batch_norm, p.x, p.mean, p.var, p.gamma, p.beta, axis=p.axis, eps=p.eps, out=_out(p, fresh))
    return Prepared(call, lambda y: {"y": y})


def backward(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.batch_norm_backward, p.dy, p.x, p.mean, p.rstd, p.gamma, axis=p.axis, out=_out(p, fresh))
    return Prepared(call, _backward_results)


def mean_var(p: Problem, fresh: bool) -> Prepared:
    axes = tuple(a for a in range(p.x.ndim) if a != p.axis)
    return Prepared(partial(fn.mean_var, p.x, axis=axes), lambda r: {"mean": r[0], "var": r[1]})


def layer_norm(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.layer_norm, p.x, p.gamma, p.beta, axis=p.axis, eps=p.eps, out=_out(p, fresh))
    return Prepared(call, lambda y: {"y": y})


def layer_norm_backward(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.layer_norm_backward, p.dy, p.x, p.mean, p.rstd, p.gamma, axis=p.axis, out=_out(p, fresh))
    return Prepared(call, _backward_results)


def rms_norm(p: Problem, fresh: bool) -> Prepared:
    return Prepared(partial(fn.rms_norm, p.x, p.gamma, axis=p.axis, eps=p.eps, out=_out(p, fresh)), lambda y: {"y": y})


def rms_norm_backward(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.rms_norm_backward, p.dy, p.x, p.rstd, p.gamma, axis=p.axis, out=_out(p, fresh))
    return Prepared(call, lambda r: {"dx": r[0], "dgamma": r[1]})


def add_layer_norm(p: Problem, fresh: bool) -> Prepared:
    out = None if fresh else (p.out, p.out_sum)
    call = partial(fn.add_layer_norm, p.x, p.residual, p.gamma, p.beta, axis=p.axis, eps=p.eps, out=out)
    return Prepared(call, lambda r: {"y": r[0]})


def group_norm(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.group_norm, p.x, p.groups, p.gamma, p.beta, axis=p.axis, eps=p.eps, out=_out(p, fresh))
    return Prepared(call, lambda y: {"y": y})


def group_norm_backward(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.group_norm_backward, p.dy, p.x, p.groups, p.mean, p.rstd, p.gamma, axis=p.axis, out=_out(p, fresh))
    return Prepared(call, _backward_results)


def instance_norm(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.instance_norm, p.x, p.gamma, p.beta, axis=p.axis, eps=p.eps, out=_out(p, fresh))
    return Prepared(call, lambda y: {"y": y})


def instance_norm_backward(p: Problem, fresh: bool) -> Prepared:
    call = partial(fn.instance_norm_backward, p.dy, p.x, p.mean, p.rstd, p.gamma, axis=p.axis, out=_out(p, fresh))
    return Prepared(call, _backward_results)


def zscore(p: Problem, fresh: bool) -> Prepared:
    """As SciPy's, it has no ``out=``."""
    return Prepared(partial(fn.zscore, p.x), lambda y: {"y": y})


def normalize_images(p: Problem, fresh: bool) -> Prepared:
    return Prepared(partial(fn.normalize_images, p.x, images.MEAN, images.STD, out=_out(p, fresh)), lambda y: {"y": y})


_SETUPS: dict[str, tuple[str, Setup]] = {
    "train": ("batch_norm_train", train),
    "standardize": ("batch_norm_train", standardize),
    "inference": ("batch_norm", inference),
    "backward": ("batch_norm_backward", backward),
    "mean_var": ("mean_var", mean_var),
    "layer_norm": ("layer_norm", layer_norm),
    "layer_norm_backward": ("layer_norm_backward", layer_norm_backward),
    "rms_norm": ("rms_norm", rms_norm),
    "rms_norm_backward": ("rms_norm_backward", rms_norm_backward),
    "add_layer_norm": ("add_layer_norm", add_layer_norm),
    "group_norm": ("group_norm", group_norm),
    "group_norm_backward": ("group_norm_backward", group_norm_backward),
    "instance_norm": ("instance_norm", instance_norm),
    "instance_norm_backward": ("instance_norm_backward", instance_norm_backward),
    "zscore": ("zscore", zscore),
    "normalize_images": ("normalize_images", normalize_images),
}
SETUPS: dict[str, Setup] = {operation: setup for operation, (function, setup) in _SETUPS.items() if hasattr(fn, function)}
"""Without what fastnorm has not learned yet; `providers.lacks` says so."""
SETUPS |= {name: averages.setup(getattr(fn, name)) for name in AVERAGES if hasattr(fn, name)}
if importlib.util.find_spec("fastnorm.preprocessing"):
    SETUPS |= scalers.setups("fastnorm.preprocessing", into=True)
