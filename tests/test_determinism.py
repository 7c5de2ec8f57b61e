"""The same bits for every number of threads, every threading layer, serial or parallel."""

from __future__ import annotations

import json
import threading

import cases
import numpy as np
import pytest
from conftest import RunPython

import fastnorm as fn

# Prints {operation: {threads: digest}} and the threading layer that was really used.
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
    for job, call in jobs.items():
        digests = found[f"{name}, {job}"] = {}
        for threads in (1, 2, 3, 8):
            fn.set_num_threads(threads)
            assert fn.get_num_threads() == min(threads, int(sys.argv[1])), (threads, fn.get_num_threads())
            digests[threads] = digest(call())
import numba
try:
    layer = numba.threading_layer()
except ValueError:
    layer = "none"
print(json.dumps({"layer": layer, "found": found}))
"""


@pytest.fixture(scope="module")
def digests() -> dict[str, dict[str, dict[str, str]]]:
    """Results of every threading layer that was already run, by layer."""
    return {}


@pytest.mark.parametrize("layer", ["default", "omp", "workqueue", "tbb", "one thread"])
def test_same_bits_for_every_number_of_threads_and_layer(layer: str, run_python: RunPython, digests: dict) -> None:
    environment: dict[str, str | None] = {"NUMBA_NUM_THREADS": "8", "FASTNORM_NUM_THREADS": None, "NUMBA_THREADING_LAYER": None}
    if layer == "one thread":
        environment["NUMBA_NUM_THREADS"] = "1"
    elif layer != "default":
        environment["NUMBA_THREADING_LAYER"] = layer
    process = run_python("-c", SCRIPT, environment["NUMBA_NUM_THREADS"] or "", **environment)
    answer = json.loads(process.stdout.splitlines()[-1])
    if layer in ("omp", "workqueue", "tbb") and answer["layer"] != layer:
        pytest.skip(f"{layer} is not available here")
    if layer == "default":
        assert answer["layer"] != "none", "no parallel driver ran: the sizes are too small to test anything"
    for job, by_threads in answer["found"].items():
        assert len(set(by_threads.values())) == 1, f"{job}: {by_threads}"
    digests[layer] = answer["found"]
    first = next(iter(digests.values()))
    for job, by_threads in answer["found"].items():
        assert by_threads["1"] == first[job]["1"], f"{job}: {layer} differs from {next(iter(digests))}"


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
