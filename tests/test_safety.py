"""What other code of the process does: threads, forks, other OpenMP users, interrupts, pools of workers. Each in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from conftest import RunPython, start_python
from test_runtime import CORRECT, PROLOGUE, THREADS, needs_fork, script

LAYERS = pytest.mark.parametrize("layer", ["tbb", "omp", "workqueue"])
# A parallel function of somebody else, on one of Numba's layers.
NEIGHBOUR = """
import numba

@numba.njit(parallel=True)
def neighbour(values):
    total = 0.0
    for i in numba.prange(values.size):
        total += values[i]
    return total

try:
    assert neighbour(np.ones(1000)) == 1000
except ValueError:  # TBB is not installed where Numba looks for it
    print("absent")
    sys.exit()
"""
NO_WARNING = ("-W", "error", "-W", "ignore::DeprecationWarning:multiprocessing", "-W", "ignore:This process:DeprecationWarning")


def runs(run_python: RunPython, *parts: str, layer: str | None = None, **environment: str | None) -> str:
    """The script reaches its end; what it has printed before. layer : of a parallel function of somebody else"""
    code = script(PROLOGUE, CORRECT, *([NEIGHBOUR] if layer else []), *parts, "print('done')")
    out = run_python(*NO_WARNING, "-c", code, **{**THREADS, "NUMBA_THREADING_LAYER": layer, **environment}).stdout
    if layer and out == "absent\n":
        pytest.skip(f"{layer} is not available here")
    assert out.endswith("done\n"), out
    return out


# --- memory ---


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ or sys.platform != "linux", reason="the process of the tests began without it")
def test_memory_that_is_freed_is_overwritten() -> None:
    """Otherwise most tests do not see it when a kernel uses scratch memory that it has freed."""
    assert b"MALLOC_PERTURB_=" in Path("/proc/self/environ").read_bytes()


# --- threads ---


@LAYERS
def test_sixteen_threads_of_five_hundred_calls(layer: str, run_python: RunPython) -> None:
    """Of all sizes: serial, parallel, and of several launches; a number of threads that changes meanwhile."""
    runs(
        run_python,
        """
rng = np.random.default_rng(1)
shapes = [(2, 3, 4, 5), (8, 16, 7, 7), (4, 9, 33, 31), (16, 8, 9, 9), (1, 3, 5, 5), (8, 8, 24, 24)]
data = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
calls = (fn.batch_norm_train, fn.mean_var, lambda a: fn.layer_norm(a.reshape(len(a), -1)))
expected = [[call(a) for call in calls] for a in data]
assert all(correct(a, e[0].y) for a, e in zip(data, expected))
wrong, start = [], threading.Barrier(16)

def same(found, wanted):
    return all(map(np.array_equal, found, wanted)) if isinstance(found, tuple) else np.array_equal(found, wanted)

def work(seed):
    try:
        picks = np.random.default_rng(seed).integers(0, (len(data), len(calls)), (500, 2)).tolist()
        start.wait()
        for which, how in picks:
            if seed == 0 and which == 0:
                fn.set_num_threads(1 + how)
            if not same(calls[how](data[which]), expected[which][how]):
                wrong.append((shapes[which], how))
    except BaseException as error:
        wrong.append(repr(error))

workers = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
[w.start() for w in workers]
[w.join() for w in workers]
assert not wrong, wrong[:5]
""",
        layer=layer,
    )


# --- forks ---


@needs_fork
@LAYERS
def test_forks_while_other_threads_compute(layer: str, run_python: RunPython) -> None:
    """Also from a thread that is not the main one, and of a parent that goes on."""
    runs(
        run_python,
        """
expected, stop, statuses = fn.batch_norm_train(x).y, threading.Event(), []

used = threading.Barrier(4)

def work():
    fn.batch_norm_train(x)
    used.wait()
    while not stop.is_set():
        fn.batch_norm_train(x)

def fork():
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        same = np.array_equal(fn.batch_norm_train(x).y, expected)
        os._exit(0 if same and len(fn.runtime.crew._crew._workers) == 3 else 3)
    statuses.append(os.waitpid(pid, 0)[1])

workers = [threading.Thread(target=work) for _ in range(3)]
[w.start() for w in workers]
used.wait()
for _ in range(7):
    fork()
forker = threading.Thread(target=fork)
forker.start()
forker.join()
stop.set()
[w.join() for w in workers]
assert statuses == [0] * 8, statuses
assert np.array_equal(fn.batch_norm_train(x).y, expected)
""",
        layer=layer,
    )


@needs_fork
def test_forks_while_another_thread_is_in_its_first_call() -> None:
    """Which imports Numba and parts of the library for half a second: a lock of such a module would be held in the child for ever."""
    code = """
import os, signal, sys, threading, time
import numpy as np
import fastnorm as fn
x = np.ones((32, 64), np.float32)
threading.Thread(target=fn.layer_norm, args=(x,)).start()
time.sleep(float(sys.argv[1]))
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    fn.layer_norm(x)
    os._exit(0)
sys.exit(os.waitpid(pid, 0)[1] != 0)
"""
    processes = [start_python("-W", "ignore", "-c", code, str(delay)) for delay in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)]
    assert [(process.communicate(timeout=120), process.returncode)[1] for process in processes] == [0] * 6


@needs_fork
def test_a_fork_that_waited_in_vain(run_python: RunPython) -> None:
    """For a thread that goes on importing or compiling: the child would wait for it for ever."""
    runs(
        run_python,
        """
from fastnorm.runtime import forks

forks._PATIENCE_S = 0.2
holds, release = threading.Event(), threading.Event()

def import_slowly():
    with forks.importing():
        holds.set()
        release.wait()

fn.mean(small)
worker = threading.Thread(target=import_slowly)
worker.start()
holds.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    fn.mean_var(np.ones(7))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
release.set()
worker.join()
assert fn.mean_var(np.ones(7)).mean == 1
""",
    )


@needs_fork
def test_a_fork_waits_for_a_compilation_of_another_thread(run_python: RunPython) -> None:
    """Its lock would be held in the child for ever."""
    runs(
        run_python,
        """
from fastnorm import _jit
holds, release = threading.Event(), threading.Event()

def compile_slowly():
    with _jit.global_compiler_lock:
        holds.set()
        release.wait(0.3)

fn.mean(small)
worker = threading.Thread(target=compile_slowly)
worker.start()
holds.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    os._exit(0 if abs(fn.mean(small.astype(np.float64)) - small.mean(dtype=np.float64)) < 1e-13 else 3)
assert os.waitpid(pid, 0)[1] == 0
worker.join()
""",
    )


POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def work(seed):
    import test_pools as here
    return here.correct(here.x + seed, here.fn.batch_norm_train(here.x + here.np.float32(seed)).y)

if __name__ == "__main__":
    assert correct(x, fn.batch_norm_train(x).y)
    for method in METHODS:
        with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
            assert list(pool.map(work, range(4), timeout=100)) == [True] * 4, method
"""


@needs_fork
def test_pools_of_every_start_method(run_python: RunPython, tmp_path: Path) -> None:
    file = tmp_path / "test_pools.py"
    file.write_text(script(PROLOGUE, CORRECT, "METHODS = ('fork', 'forkserver', 'spawn')", POOLS, "print('done')"))
    assert run_python(*NO_WARNING, str(file), **THREADS).stdout.count("done") >= 1


def test_workers_of_a_torch_data_loader(run_python: RunPython) -> None:
    pytest.importorskip("torch")
    runs(
        run_python,
        """
import torch

class Normalized(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        y = fn.batch_norm_train(x + np.float32(index)).y
        return torch.tensor(correct(x + np.float32(index), y))

fn.batch_norm_train(x)
torch.ones(1000, 1000) @ torch.ones(1000, 1000)
for _ in range(2):
    found = [bool(b.all()) for b in torch.utils.data.DataLoader(Normalized(), batch_size=2, num_workers=2, timeout=60)]
    assert found == [True] * 3, found
assert correct(x, fn.batch_norm_train(x).y)
""",
    )


# --- guests that call from threads and processes of their own ---


def test_inside_joblib(run_python: RunPython) -> None:
    pytest.importorskip("joblib")
    runs(
        run_python,
        """
import joblib

def work(seed):
    import fastnorm as fn
    y = fn.batch_norm_train(x + seed).y
    return y.mean(axis=(0, 2, 3)), y.std(axis=(0, 2, 3))

x = x[:, :, :40, :40]
for backend in ("threading", "loky"):
    for mean, std in joblib.Parallel(2, backend=backend, timeout=100)(joblib.delayed(work)(np.float32(k)) for k in range(6)):
        assert abs(mean).max() < 1e-5 and abs(std - 1).max() < 1e-3, backend
""",
        LOKY_MAX_CPU_COUNT="2",
    )


def test_inside_dask_threads(run_python: RunPython) -> None:
    pytest.importorskip("dask")
    runs(
        run_python,
        """
import dask
expected = fn.batch_norm_train(x).y
tasks = [dask.delayed(lambda: fn.batch_norm_train(x).y)() for _ in range(16)]
for y in dask.compute(*tasks, scheduler="threads", num_workers=4):
    assert np.array_equal(y, expected)
""",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the library of GNU OpenMP by its name on Linux")
@LAYERS
def test_next_to_another_user_of_openmp(layer: str, run_python: RunPython) -> None:
    """As OpenCV does: one thread, and fewer than are asked for."""
    runs(
        run_python,
        """
import ctypes
try:
    gomp = ctypes.CDLL("libgomp.so.1")
except OSError:
    gomp = None
expected = None
for when in range(2):
    if gomp is not None:
        gomp.omp_set_dynamic(1)
        gomp.omp_set_num_threads(1)
    y = fn.batch_norm_train(x).y
    assert correct(x, y) and (expected is None or np.array_equal(y, expected))
    expected = y
""",
        layer=layer,
    )


# --- Numba's settings ---


def test_one_thread_of_numba(run_python: RunPython) -> None:
    runs(
        run_python,
        """
fn.set_num_threads(8)
assert fn.get_num_threads() == 1
assert correct(x, fn.batch_norm_train(x).y) and correct(small, fn.batch_norm_train(small).y)
""",
        NUMBA_NUM_THREADS="1",
    )


def test_jit_disabled_is_for_functions_of_the_user(run_python: RunPython) -> None:
    """Kernels are made of intrinsics, which Python cannot run: they are compiled, or loaded, as always."""
    runs(
        run_python,
        """
assert correct(x, fn.batch_norm_train(x).y) and correct(small, fn.batch_norm_train(small).y)
assert abs(fn.mean(small) - small.mean()) < 1e-6
assert abs(fn.layer_norm(small).mean()) < 1e-6
import numba
assert type(numba.njit(lambda a: a)) is type(lambda: 0)
""",
        NUMBA_DISABLE_JIT="1",
    )


# --- interrupts ---

INTERRUPTED = """
import time
big = np.random.default_rng(2).standard_normal((64, 16, 90, 91)).astype(np.float32)
expected = fn.batch_norm_train(big).y
assert correct(big[:4], fn.batch_norm_train(big[:4]).y)
caught = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs in the background without it
for k in range(25):
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.0007 * k)
        while True:
            fn.batch_norm_train(big)
            fn.batch_norm_train(small)
    except KeyboardInterrupt:
        caught += 1
assert caught == 25
assert fn.runtime.crew._crew._words[fn.runtime.crew.BUSY // 8] == 0
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert np.array_equal(fn.batch_norm_train(big).y, expected)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no timer that sends signals")
def test_interrupts_in_the_middle_of_calls(run_python: RunPython) -> None:
    runs(run_python, INTERRUPTED)


@pytest.mark.skipif(sys.platform == "win32", reason="no timer that sends signals")
def test_interrupts_while_numba_is_imported_and_compiles(run_python: RunPython, tmp_path: Path) -> None:
    """Numba interrupted in the middle of either fails ever after; so the interrupt waits."""
    runs(
        run_python,
        """
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
interrupted = 0
for delay in (0.02, 0.15, 0.3, 0.4, 0.8):
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        fn.mean(small)
        fn.mean(small.astype(np.float64))
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    except KeyboardInterrupt:
        interrupted += 1
assert interrupted
assert abs(fn.mean(small) - small.mean()) < 1e-6
assert abs(fn.mean(small.astype(np.float64)) - small.mean(dtype=np.float64)) < 1e-13
""",
        FASTNORM_CACHE_DIR=str(tmp_path),
    )
