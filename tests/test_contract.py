"""Names, argument order and defaults are fixed: users write them."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastnorm as fn

SIGNATURES = {
    "batch_norm": "(x, mean, var, gamma=None, beta=None, *, axis=1, eps=1e-05, activation=None, residual=None, out=None)",
    "batch_norm_train": (
        "(x, gamma=None, beta=None, *, axis=1, eps=1e-05, running_mean=None, running_var=None, "
        "momentum=0.1, unbiased=True, activation=None, residual=None, out=None)"
    ),
    "batch_norm_backward": (
        "(dy, x, mean, rstd, gamma=None, *, axis=1, training=True, activation=None, beta=None, residual=None, out=None)"
    ),
    "layer_norm": "(x, gamma=None, beta=None, *, axis=-1, eps=1e-05, return_stats=False, out=None)",
    "layer_norm_backward": "(dy, x, mean, rstd, gamma=None, *, axis=-1, out=None)",
    "rms_norm": "(x, gamma=None, *, axis=-1, eps=1e-05, return_stats=False, out=None)",
    "rms_norm_backward": "(dy, x, rstd, gamma=None, *, axis=-1, out=None)",
    "add_layer_norm": "(x, residual, gamma=None, beta=None, *, axis=-1, eps=1e-05, return_stats=False, out=None)",
    "add_rms_norm": "(x, residual, gamma=None, *, axis=-1, eps=1e-05, return_stats=False, out=None)",
    "group_norm": "(x, num_groups, gamma=None, beta=None, *, axis=1, eps=1e-05, activation=None, return_stats=False, out=None)",
    "group_norm_backward": "(dy, x, num_groups, mean, rstd, gamma=None, *, axis=1, activation=None, beta=None, out=None)",
    "instance_norm": "(x, gamma=None, beta=None, *, axis=1, eps=1e-05, activation=None, return_stats=False, out=None)",
    "instance_norm_backward": "(dy, x, mean, rstd, gamma=None, *, axis=1, activation=None, beta=None, out=None)",
}


def bare(function: Callable[..., object]) -> str:
    """The signature without annotations."""
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(parameters))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_the_contract(name: str) -> None:
    assert bare(getattr(fn, name)) == SIGNATURES[name]


def test_mean_var_begins_with_the_signature_of_the_contract() -> None:
    assert bare(fn.mean_var).startswith("(a, axis=None, *, ddof=0, keepdims=False")


def test_batch_norm_layer_has_the_signature_of_the_contract() -> None:
    found = inspect.signature(fn.layers.BatchNorm).parameters
    expected = {
        "num_features": inspect.Parameter.empty, "axis": 1, "eps": 1e-5, "momentum": 0.1,
        "unbiased": True, "activation": None, "affine": True, "dtype": np.float32,
    }  # fmt: skip
    assert {name: found[name].default for name in expected} == expected
    assert all(found[name].kind is inspect.Parameter.KEYWORD_ONLY for name in expected if name != "num_features")


def test_public_functions_are_documented_and_listed() -> None:
    for name in (*SIGNATURES, "mean_var", "RunningMoments", "set_num_threads", "get_num_threads", "num_threads", "show_config", "warmup"):
        assert name in dir(fn)
        assert inspect.getdoc(getattr(fn, name)), f"{name} has no docstring"


@pytest.mark.parametrize(
    "name",
    [
        "ops.averages",
        "ops.batch",
        "ops.group",
        "ops.layer",
        "ops.rms",
        "ops.statistics",
        "ops.zscores",
        "preprocessing.functions",
        "preprocessing.maxabs",
        "preprocessing.minmax",
        "preprocessing.normalizer",
        "preprocessing.standard",
        "state.moments",
        "state.batch_layers",
        "runtime.threads",
    ],
)
def test_examples_of_docstrings_are_true(name: str, restore_threads: None) -> None:
    found = doctest.testmod(importlib.import_module(f"fastnorm.{name}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_tour_of_the_readme_runs() -> None:
    text = (Path(fn.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (tour, *_) = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    assert len([line for line in tour.splitlines() if line]) == 10
    exec(compile(tour, "README.md", "exec"), {})
