"""fastnorm beside itself: the same values stored as float32, and layer norm without the addition before it."""

from __future__ import annotations

import numpy as np

from bench.libraries import ours
from bench.problems import Problem
from bench.providers import Prepared, Setup


def _single(problem: Problem) -> Problem:
    single = Problem(problem.key._replace(dtype="float32"))
    single.x = problem.x.astype(np.float32)
    single.reference = problem.reference
    return single


def train(p: Problem, fresh: bool) -> Prepared:
    return ours.train(_single(p), fresh)


def inference(p: Problem, fresh: bool) -> Prepared:
    return ours.inference(_single(p), fresh)


def add_layer_norm(p: Problem, fresh: bool) -> Prepared:
    """Of the sum, made beforehand."""
    alone = Problem(p.key._replace(operation="layer_norm"))
    alone.x, alone.out = p.x + p.residual, p.out
    return ours.layer_norm(alone, fresh)


SETUPS: dict[str, Setup] = {"train": train, "inference": inference, "add_layer_norm": add_layer_norm}
