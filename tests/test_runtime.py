"""Threads, forks, processes and the cache: everything that only goes wrong outside of a test's own process."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PACKAGE_ROOT, RunPython, finish, start_python

import fastnorm as fn
from fastnorm.runtime.machine import usable_cores

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="no fork")

# x is large enough for several threads; small is not.
PROLOGUE = """
import os, sys, signal, threading
import numpy as np
import fastnorm as fn
x = np.random.default_rng(0).standard_normal((17, 9, 90, 91)).astype(np.float32)
small = x[:2, :, :5, :5].copy()
"""

# The answer without fastnorm: of a cold process there is no other call to compare with.
CORRECT = """
def correct(x, y):
    d = x.astype(np.float64) - x.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    expected = d / np.sqrt(np.square(d).mean(axis=(0, 2, 3), keepdims=True) + 1e-5)
    return bool((abs(y - expected) <= 1e-6 * (1 + abs(expected))).all())
"""


def script(*parts: str) -> str:
    return "\n".join(parts)


THREADS: dict[str, str | None] = {"NUMBA_NUM_THREADS": "4", "FASTNORM_NUM_THREADS": None}
"""Several on every machine."""


# --- threads ---


@pytest.mark.usefixtures("restore_threads")
def test_number_of_threads_is_set_got_and_clamped() -> None:
    fn.set_num_threads(1)
    assert fn.get_num_threads() == 1
    fn.set_num_threads(10**6)
    most = fn.get_num_threads()
    assert 1 <= most < 10**6
    fn.set_num_threads(np.int64(1))
    assert fn.get_num_threads() == 1


@pytest.mark.parametrize("bad", [0, -1])
@pytest.mark.usefixtures("restore_threads")
def test_fewer_than_one_thread_is_refused(bad: int) -> None:
    before = fn.get_num_threads()
    with pytest.raises(ValueError, match=str(bad)):
        fn.set_num_threads(bad)
    with pytest.raises(ValueError, match=str(bad)), fn.num_threads(bad):
        pass
    assert fn.get_num_threads() == before


@pytest.mark.parametrize("bad", [1.5, "2", None])
@pytest.mark.usefixtures("restore_threads")
def test_a_number_of_threads_is_an_integer(bad: object) -> None:
    with pytest.raises(TypeError):
        fn.set_num_threads(bad)  # type: ignore[arg-type]


@pytest.mark.usefixtures("restore_threads")
def test_context_restores_the_number_of_threads() -> None:
    fn.set_num_threads(10**6)
    before = fn.get_num_threads()
    with fn.num_threads(1):
        assert fn.get_num_threads() == 1
    assert fn.get_num_threads() == before
    with pytest.raises(KeyError), fn.num_threads(1):
        raise KeyError
    assert fn.get_num_threads() == before


@pytest.mark.usefixtures("restore_threads")
def test_number_of_threads_is_that_of_the_process() -> None:
    """Numba's own setting is one per Python thread."""
    seen = []
    fn.set_num_threads(1)
    worker = threading.Thread(target=lambda: seen.append(fn.get_num_threads()))
    worker.start()
    worker.join()
    setter = threading.Thread(target=lambda: fn.set_num_threads(10**6))
    setter.start()
    setter.join()
    assert seen == [1]
    with fn.num_threads(1):
        pass
    before = fn.get_num_threads()
    fn.set_num_threads(10**6)
    assert fn.get_num_threads() == before


def test_environment_sets_the_number_of_threads(run_python: RunPython) -> None:
    code = "import fastnorm as fn; print(fn.get_num_threads())"
    environment = {"NUMBA_NUM_THREADS": "3"}
    assert run_python("-c", code, FASTNORM_NUM_THREADS="2", **environment).stdout.strip() == "2"
    assert run_python("-c", code, FASTNORM_NUM_THREADS="1000", **environment).stdout.strip() == "3"


def test_eight_python_threads_at_once(run_python: RunPython) -> None:
    code = script(
        PROLOGUE,
        """
expected = fn.batch_norm_train(x)
gradient = fn.batch_norm_backward(x, x, expected.mean, expected.rstd, expected.rstd)
wrong, start = [], threading.Barrier(8)

def work():
    try:
        start.wait()
        for _ in range(4):
            found = fn.batch_norm_train(x)
            if not np.array_equal(found.y, expected.y):
                wrong.append("forward")
            if not np.array_equal(fn.batch_norm_backward(x, x, found.mean, found.rstd, found.rstd).dx, gradient.dx):
                wrong.append("backward")
            fn.batch_norm_train(small)
    except BaseException as error:
        wrong.append(repr(error))

workers = [threading.Thread(target=work) for _ in range(8)]
[w.start() for w in workers]
[w.join() for w in workers]
assert not wrong, wrong
print("done")
""",
    )
    assert run_python("-c", code, **THREADS).stdout.strip() == "done"


def test_first_calls_may_come_from_several_python_threads(run_python: RunPython) -> None:
    code = script(
        PROLOGUE,
        CORRECT,
        """
found, start = [], threading.Barrier(4)

def work():
    start.wait()
    found.append(correct(x, fn.batch_norm_train(x).y))

workers = [threading.Thread(target=work) for _ in range(4)]
[w.start() for w in workers]
[w.join() for w in workers]
assert found == [True] * 4, found
print("done")
""",
    )
    assert run_python("-c", code, **THREADS).stdout.strip() == "done"


# --- forks ---


@needs_fork
def test_forked_children_work_after_use(run_python: RunPython) -> None:
    code = script(
        PROLOGUE,
        """
expected = fn.batch_norm_train(x).y

def child():
    signal.alarm(60)  # a deadlock must end
    same = np.array_equal(fn.batch_norm_train(x).y, expected)
    pid = os.fork()  # and a grandchild
    if pid == 0:
        signal.alarm(60)
        os._exit(0 if np.array_equal(fn.batch_norm_train(x).y, expected) else 3)
    inner = os.waitpid(pid, 0)[1]
    os._exit(0 if same and inner == 0 else 4)

children = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        child()
    children.append(pid)
found = [os.waitpid(pid, 0)[1] for pid in children]
assert found == [0, 0], f"wait statuses {found}"
assert np.array_equal(fn.batch_norm_train(x).y, expected)
print("done")
""",
    )
    assert run_python("-W", "ignore::DeprecationWarning", "-c", code, **THREADS).stdout.strip() == "done"


@needs_fork
def test_forked_children_work_before_any_use(run_python: RunPython) -> None:
    code = script(
        PROLOGUE,
        CORRECT,
        """
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    os._exit(0 if correct(x, fn.batch_norm_train(x).y) else 3)
assert os.waitpid(pid, 0)[1] == 0
assert correct(x, fn.batch_norm_train(x).y)
print("done")
""",
    )
    assert run_python("-W", "ignore::DeprecationWarning", "-c", code, **THREADS).stdout.strip() == "done"


@needs_fork
def test_a_pool_of_forked_workers(run_python: RunPython) -> None:
    code = script(
        PROLOGUE,
        """
import multiprocessing
expected = fn.batch_norm_train(x).y

def work(_):
    return np.array_equal(fn.batch_norm_train(x).y, expected)

with multiprocessing.get_context("fork").Pool(3) as pool:
    assert all(pool.map_async(work, range(6)).get(timeout=60))
print("done")
""",
    )
    assert run_python("-W", "ignore::DeprecationWarning", "-c", code, **THREADS).stdout.strip() == "done"


# --- the cache ---

COLD = script(
    PROLOGUE,
    CORRECT,
    """
assert correct(small, fn.batch_norm_train(small).y)
print("done")
""",
)


def test_processes_on_an_empty_cache_and_on_a_damaged_one(tmp_path: Path) -> None:
    """Three start at once and compile; then every file is damaged, each in its own way, and two start again."""
    cache = tmp_path / "cache"
    processes = [start_python("-c", COLD, FASTNORM_CACHE_DIR=str(cache)) for _ in range(3)]
    assert [finish(p).stdout.strip() for p in processes] == ["done"] * 3
    files = sorted(file for file in cache.rglob("*") if file.is_file())
    assert files, "FASTNORM_CACHE_DIR was not used"
    for i, file in enumerate(files):
        content = file.read_bytes()
        damaged = (b"", content[: len(content) // 2], b"garbage" * 1000, content[:-1] + bytes([content[-1] ^ 1]))[i % 4]
        file.write_bytes(damaged)
    processes = [start_python("-c", COLD, FASTNORM_CACHE_DIR=str(cache)) for _ in range(2)]
    assert [finish(p).stdout.strip() for p in processes] == ["done"] * 2


def test_a_cache_folder_that_cannot_be_made_is_no_obstacle(tmp_path: Path, run_python: RunPython) -> None:
    file = tmp_path / "file"
    file.write_text("a file, where a folder is asked for")
    assert run_python("-c", COLD, FASTNORM_CACHE_DIR=str(file / "below"), HOME=None).stdout.strip() == "done"


def test_an_install_that_cannot_be_written_to_without_a_home(tmp_path: Path, run_python: RunPython) -> None:
    """A file stands where the folder beside the package would be; HOME is a file too: only the system's place is left."""
    site, temporary = tmp_path / "site", tmp_path / "temporary"
    shutil.copytree(PACKAGE_ROOT / "fastnorm", site / "fastnorm", ignore=shutil.ignore_patterns("__pycache__"))
    for place in (site / "__pycache__", site / "fastnorm" / "__pycache__", tmp_path / "home"):
        place.write_text("")
    temporary.mkdir()
    process = run_python(
        "-B", "-c", script(f"import sys; sys.path.insert(0, {str(site)!r})", COLD, "print(fn.__file__)"),
        HOME=str(tmp_path / "home"), XDG_CACHE_HOME=None, NUMBA_CACHE_DIR=None, FASTNORM_CACHE_DIR=None, TMPDIR=str(temporary),
    )  # fmt: skip
    done, path = process.stdout.split()
    assert done == "done"
    assert Path(path).is_relative_to(site)


# --- import and reports ---


def test_import_does_not_import_numba(run_python: RunPython) -> None:
    code = "import sys, fastnorm; print(sorted({'numba', 'llvmlite', 'scipy', 'torch'} & set(sys.modules)))"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_import_has_no_output_and_no_warning(run_python: RunPython) -> None:
    process = run_python("-W", "error", "-c", "import fastnorm")
    assert process.stdout + process.stderr == ""


def test_first_use_has_no_output(run_python: RunPython) -> None:
    process = run_python("-c", PROLOGUE + "fn.batch_norm_train(x); fn.batch_norm_train(small)", **THREADS)
    assert process.stdout + process.stderr == ""


def test_info_names_versions_layer_threads_and_cache(run_python: RunPython, tmp_path: Path) -> None:
    import numba

    text = run_python("-m", "fastnorm", "info", FASTNORM_CACHE_DIR=str(tmp_path)).stdout
    for fact in (numba.__version__, np.__version__, str(tmp_path.name)):
        assert fact in text
    assert "own workers" in text


def test_show_config_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    import numba

    returned = fn.show_config()
    text = capsys.readouterr().out + ("" if returned is None else str(returned))
    assert numba.__version__ in text
    assert np.__version__ in text
    assert "own workers" in text


def test_what_is_compiled_ahead_is_not_compiled_again(run_python: RunPython) -> None:
    code = (
        PROLOGUE
        + """
from fastnorm import _jit

saved = []
_jit._OneFilePerSignature.save = lambda self, key, data: saved.append(self._name)
a, b = fn.batch_norm_train(x), fn.batch_norm_train(small)
fn.batch_norm_backward(x, x, a.mean, a.rstd, a.rstd)
fn.batch_norm(small, b.mean, b.rstd)
fn.mean_var(x, (0, 2, 3))
for rows in (np.ones((90, 50), np.float32), np.ones((9, 2000), np.float32)):
    fn.var(rows, 1)
print(saved)
"""
    )
    run_python("-m", "fastnorm", "warmup", timeout=300, **THREADS)
    assert run_python("-c", code, **THREADS).stdout.strip() == "[]"


def test_names_of_compiled_functions_are_the_same_in_every_process(run_python: RunPython, tmp_path: Path) -> None:
    """Otherwise processes that fill a cache together compile each other's functions again."""
    code = """
import sys
import numpy as np
import fastnorm as fn
from fastnorm import _linking

x = np.ones((4, 3), np.float32)
calls = [lambda: fn.batch_norm_train(x), lambda: fn.layer_norm(x)]
for call in calls[:: int(sys.argv[1])]:
    call()
print(sorted(_linking._bodies))
"""
    named = [
        run_python("-c", code, order, PYTHONHASHSEED=seed, FASTNORM_CACHE_DIR=str(tmp_path / seed), **THREADS).stdout
        for order, seed in (("1", "1"), ("-1", "2"))
    ]
    assert "fastnorm" in named[0]
    assert named[0] == named[1]


HELPED = """
import fastnorm as fn
from fastnorm.state import warmup

done = []
warmup._calls = lambda dtype: [(str(k), lambda k=k: done.append(k)) for k in range(3)]
assert fn.warmup(progress=False) == 3
assert done == [0, 1, 2]
"""


@pytest.mark.parametrize("executable", ["", "/nowhere/python", "/bin/false", None])
def test_warm_up_needs_no_helper(run_python: RunPython, executable: str) -> None:
    run_python("-c", f"import sys; sys.executable = {executable!r}{HELPED}", **THREADS)


@pytest.mark.skipif(not Path("/proc/self/stat").exists() or usable_cores() < 2, reason="no helper, or no list of processes")
def test_the_helper_of_a_warm_up_ends_with_its_caller(run_python: RunPython) -> None:
    """Killed, too: nobody tells the helper then."""
    code = """
import os, signal, subprocess, sys, time

started = []
usual = subprocess.Popen
subprocess.Popen = lambda *arguments, **options: started.append(usual(*arguments, **options)) or started[-1]
import fastnorm as fn
from fastnorm.state import warmup

def end():
    print(started[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

warmup._calls = lambda dtype: [("ends", end)]
fn.warmup(progress=False)
"""
    process = start_python("-c", code, **THREADS)
    out, _ = process.communicate(timeout=60)
    helper = Path("/proc") / out.strip()
    for _ in range(600):
        if not helper.exists() or "Z" in (helper / "stat").read_text().rpartition(")")[2][:3]:
            return
        time.sleep(0.1)
    raise AssertionError("the helper goes on")


@pytest.mark.parametrize("dtype", ["int8", "nonsense", np.complex64, object()])
def test_warm_up_names_a_dtype_that_it_cannot_take(dtype: object) -> None:
    with pytest.raises(TypeError, match=r"dtypes holds .*; pass float16"):
        fn.warmup([dtype], progress=False)


@pytest.mark.parametrize("dtypes", ["float32", np.float32, None])
def test_warm_up_takes_several_dtypes(dtypes: object) -> None:
    with pytest.raises(TypeError, match=r"must be several dtypes; pass for example \['float32'\]"):
        fn.warmup(dtypes, progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["FASTNORM_NUM_THREADS", "FASTNORM_SPIN_COUNT"])
@pytest.mark.parametrize("value", ["abc", "-3", "1.5", "²"])
def test_environment_variables_that_are_no_numbers(name: str, value: str, run_python: RunPython) -> None:
    result = run_python("-c", "import fastnorm as fn; fn.runtime.crew._patience(); print(fn.get_num_threads())", **{name: value})
    assert int(result.stdout) >= 1
    assert f"RuntimeWarning: {name} is {value!r} but must be an integer" in result.stderr


def test_command_line_refuses_what_it_does_not_know() -> None:
    process = start_python("-m", "fastnorm", "nonsense")
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "nonsense" in out + err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core, or no affinity")
def test_workers_do_not_inherit_the_pin_of_the_calling_thread(run_python: RunPython) -> None:
    """OMP_PROC_BIND makes an OpenMP library pin the thread that imports it; Numba, imported later, then counts one core."""
    run_python(
        "-c",
        """
import os, threading
import numpy as np
import fastnorm as fn

cores = os.sched_getaffinity(0)
pinned = {min(cores)}
os.sched_setaffinity(0, pinned)
fn.set_num_threads(2)
assert fn.get_num_threads() == 2
fn.batch_norm_train(np.ones((8, 16, 64, 64), np.float32))
assert os.sched_getaffinity(0) == pinned
workers = [t for t in threading.enumerate() if t.name.startswith("fastnorm-")]
assert workers, "the call had no worker"
assert all(os.sched_getaffinity(t.native_id) == cores for t in workers), "a worker shares the core of the main thread"
import numba
assert numba.config.NUMBA_NUM_THREADS == 1
fn.set_num_threads(2)
assert fn.get_num_threads() == 2
""",
        NUMBA_NUM_THREADS=None,
        FASTNORM_NUM_THREADS=None,
    )


def test_the_number_of_threads_that_numba_was_told_is_the_most(run_python: RunPython) -> None:
    for told in ("import os; os.environ['NUMBA_NUM_THREADS'] = '1'", "import numba; numba.config.NUMBA_NUM_THREADS = 1"):
        code = f"{told}; import fastnorm as fn; fn.set_num_threads(2); print(fn.get_num_threads())"
        assert run_python("-c", code, NUMBA_NUM_THREADS=None, FASTNORM_NUM_THREADS=None).stdout == "1\n"


def test_a_package_has_no_attribute_that_it_has_not() -> None:
    """`torch.compile` asks every module of the process for an attribute "torch": an ImportError ended it."""
    from fastnorm import kernels

    assert not hasattr(kernels, "torch")
    assert not hasattr(kernels, "_torch")
    assert kernels.walk.__name__ == "fastnorm.kernels.walk"
