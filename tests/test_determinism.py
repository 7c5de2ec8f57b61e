"""The same bits for every number of threads."""

from __future__ import annotations

import json
import threading
from typing import Any

import cases
import numpy as np
import pytest
from checks_family import LARGE_AXES, LARGE_GROUPS, parameter, sample
from conftest import RunPython

import fastnorm as fn
from fastnorm.runtime import threads as settings

# Prints {operation: {threads: digest}} and the number of workers that were there.
SCRIPT = """
import hashlib, json, sys
import numpy as np
import fastnorm as fn

rng = np.random.default_rng(0)

def digest(result):
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in result)).hexdigest()[:16]

PROBLEMS = {
    "planar": ((17, 9, 45, 47), 1),
    "interleaved": ((8009, 61), 1),
    "feature-major": ((5, 150011), 0),
    "three columns": ((150001, 3), 1),
    "one channel": ((300007, 1), 1),
    "small planes": ((29, 300, 7, 7), 1),
}
found = {}

def compare(name, jobs):
    for job, call in jobs.items():
        digests = found[f"{name}, {job}"] = {}
        for threads in (1, 2, 3, 8):
            fn.set_num_threads(threads)
            assert fn.get_num_threads() == min(threads, int(sys.argv[1])), (threads, fn.get_num_threads())
            digests[threads] = digest(call())

for name, (shape, axis) in PROBLEMS.items():
    x = (3 + rng.standard_normal(shape)).astype(np.float32)
    dy = rng.standard_normal(shape).astype(np.float32)
    axes = tuple(a for a in range(len(shape)) if a != axis)
    gamma = rng.standard_normal(shape[axis]).astype(np.float32)
    jobs = {
        "train": lambda: fn.batch_norm_train(x, axis=axis),
        "inference": lambda: (fn.batch_norm(x, gamma, np.abs(gamma), axis=axis),),
        "mean_var": lambda: fn.mean_var(x, axes),
    }
    trained = fn.batch_norm_train(x, axis=axis)
    jobs["backward"] = lambda: fn.batch_norm_backward(dy, x, trained.mean, trained.rstd, gamma, axis=axis)
    if name == "planar":
        jobs["all at once"] = lambda: fn.mean_var(x)
    compare(name, jobs)

for name, (shape, axis) in {
    "rows": ((3001, 517), 1),
    "few long rows": ((5, 150011), 1),
    "columns": ((517, 3001), 0),
    "NCHW, axis 1": ((9, 61, 31, 33), 1),
}.items():
    x, residual, dy = ((3 + rng.standard_normal(shape)).astype(np.float32) for _ in range(3))
    gamma, beta = (rng.standard_normal(shape[axis]).astype(np.float32) for _ in range(2))
    _, mean, rstd = fn.layer_norm(x, axis=axis, return_stats=True)
    jobs = {
        "layer_norm": lambda: fn.layer_norm(x, gamma, beta, axis=axis, return_stats=True),
        "add_layer_norm": lambda: fn.add_layer_norm(x, residual, gamma, beta, axis=axis, return_stats=True),
        "layer_norm_backward": lambda: fn.layer_norm_backward(dy, x, mean, rstd, gamma, axis=axis),
    }
    if name in ("rows", "columns"):
        jobs["rms_norm"] = lambda: fn.rms_norm(x, gamma, axis=axis, return_stats=True)
        jobs["rms_norm_backward"] = lambda: fn.rms_norm_backward(dy, x, rstd, gamma, axis=axis)
    compare(name, jobs)

for name, (shape, axis, num_groups) in {
    "groups, NCHW": ((40, 96, 15, 17), 1, 8),
    "groups, NHWC": ((40, 15, 17, 96), -1, 8),
    "few large groups, NCHW": ((1, 6, 300, 301), 1, 3),
    "few large groups, NHWC": ((1, 300, 301, 6), -1, 3),
    "instances": ((9, 61, 31, 33), 1, 61),
    "groups of features": ((1501, 512), 1, 32),
}.items():
    x, dy = ((3 + rng.standard_normal(shape)).astype(np.float32) for _ in range(2))
    gamma, beta = (rng.standard_normal(shape[axis]).astype(np.float32) for _ in range(2))
    options = {"axis": axis, "return_stats": True}
    _, mean, rstd = fn.group_norm(x, num_groups, gamma, beta, **options)
    compare(name, {
        "group_norm": lambda: fn.group_norm(x, num_groups, gamma, beta, **options),
        "group_norm_backward": lambda: fn.group_norm_backward(dy, x, num_groups, mean, rstd, gamma, axis=axis),
    })
print(json.dumps({"workers": len(fn.runtime.crew._crew._workers) if fn.runtime.crew._crew else 0, "found": found}))
"""


def test_same_bits_for_every_number_of_threads(run_python: RunPython) -> None:
    """Also in a process that has one thread only."""
    many, one = (
        json.loads(run_python("-c", SCRIPT, limit, NUMBA_NUM_THREADS=limit, FASTNORM_NUM_THREADS=None).stdout.splitlines()[-1])
        for limit in ("8", "1")
    )
    assert (many["workers"], one["workers"]) == (7, 0)
    for job, by_threads in many["found"].items():
        assert len({*by_threads.values(), one["found"][job]["1"]}) == 1, f"{job}: {by_threads}, alone {one['found'][job]['1']}"


@pytest.mark.parametrize("name", ["large planes", "large channels last"])
def test_same_bits_on_every_call_and_in_every_python_thread(name: str, restore_threads: None) -> None:
    problem = cases.LARGE[name]
    x, dy = cases.sample(problem), cases.sample(problem, seed=7)
    first = fn.batch_norm_train(x, axis=problem.axis)
    gamma = cases.parameter(problem.channels)
    gradient = fn.batch_norm_backward(dy, x, first.mean, first.rstd, gamma, axis=problem.axis)
    collected: list[tuple[np.ndarray, ...]] = []

    def work() -> None:
        forward = fn.batch_norm_train(x, axis=problem.axis)
        collected.append((*forward, *fn.batch_norm_backward(dy, x, forward.mean, forward.rstd, gamma, axis=problem.axis)))

    for threads in (1, 2):
        fn.set_num_threads(threads)
        work()
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert len(collected) == 3
    for results in collected:
        for expected, found in zip((*first, *gradient), results, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["large planes", "large channels last"])
def test_out_does_not_change_the_bits(name: str) -> None:
    """Streaming stores, ordinary stores and in-place work give the same values."""
    problem = cases.LARGE[name]
    x = cases.sample(problem)
    fresh = fn.batch_norm_train(x, axis=problem.axis).y
    out = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)  # not aligned to a vector
    np.testing.assert_array_equal(fn.batch_norm_train(x, axis=problem.axis, out=out).y, fresh)
    np.testing.assert_array_equal(fn.batch_norm_train(x, axis=problem.axis, out=x).y, fresh)


@pytest.mark.parametrize("name", ["rows", "columns"])
def test_layer_norm_has_the_same_bits_in_every_python_thread_and_out(name: str, restore_threads: None) -> None:
    problem = LARGE_AXES[name]
    x, dy, gamma, beta = sample(problem), sample(problem, seed=7), parameter(problem), parameter(problem, seed=2)
    collected: list[tuple[np.ndarray, ...]] = []

    def work() -> None:
        forward = fn.layer_norm(x, gamma, beta, axis=problem.axis, return_stats=True)
        collected.append((*forward, *fn.layer_norm_backward(dy, x, forward.mean, forward.rstd, gamma, axis=problem.axis)))

    for threads in (1, 2):
        fn.set_num_threads(threads)
        work()
    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(collected) == 4
    for results in collected[1:]:
        for expected, found in zip(collected[0], results, strict=True):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(fn.layer_norm(x, gamma, beta, axis=problem.axis, out=x), collected[0][0])


@pytest.mark.parametrize("name", ["NCHW", "NHWC"])
def test_out_does_not_change_the_bits_of_group_norm(name: str) -> None:
    problem = LARGE_GROUPS[name]
    x, gamma, beta = sample(problem), parameter(problem), parameter(problem, seed=2)
    fresh = fn.group_norm(x, problem.num_groups, gamma, beta, axis=problem.axis)
    out = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)  # not aligned to a vector
    np.testing.assert_array_equal(fn.group_norm(x, problem.num_groups, gamma, beta, axis=problem.axis, out=out), fresh)
    np.testing.assert_array_equal(fn.group_norm(x, problem.num_groups, gamma, beta, axis=problem.axis, out=x), fresh)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("beta", [None, np.full(3, 0.25, np.float32)], ids=["no beta", "beta"])
def test_a_residual_without_a_shift(activation: Any, beta: Any, monkeypatch: pytest.MonkeyPatch, restore_threads: None) -> None:
    """Three channels of two threads are walked twice, those of one thread once; where there is no shift to add, one of the walks would fuse
    the scaled distance with the residual."""
    monkeypatch.setattr(settings, "_limit", lambda: 8)
    rng = np.random.default_rng(0)
    x, residual, dy = (rng.standard_normal((16, 3, 31, 33)).astype(np.float32) for _ in range(3))
    gamma, found = np.full(3, 1.5, np.float32), []
    for number in (1, 2, 8):
        fn.set_num_threads(number)
        y, mean, rstd = fn.batch_norm_train(x, gamma, beta, residual=residual, activation=activation)
        options = {"beta": beta, "residual": residual, "activation": activation}
        found.append((y, mean, rstd, *fn.batch_norm_backward(dy, x, mean, rstd, gamma, **options)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
