"""Fixtures and the hypothesis profiles; choose one with HYPOTHESIS_PROFILE."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import fastnorm as fn

# For the processes of the tests, which start later: glibc overwrites memory that is freed, so that who still uses it has wrong numbers
# always, not only when another thread gets that memory.
os.environ.setdefault("MALLOC_PERTURB_", "165")

settings.register_profile(
    "ci", max_examples=63, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2000, derandomize=False)
# Of the fuzz tests, test_fuzz_*.py: 2000 examples in "ci", 100000 in "fuzz".
settings.register_profile("fuzz", settings.get_profile("ci"), max_examples=3200, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

PACKAGE_ROOT = Path(fn.__file__).resolve().parent.parent

# Files go whole to one of two processes: those with few tests of many seconds first, or one process waits for the other.
_FIRST = ("test_properties", "test_family_backward", "test_runtime", "test_determinism", "test_training", "test_batch", "test_layer_norm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _FIRST.index(item.path.stem) if item.path.stem in _FIRST else len(_FIRST))


RunPython = Callable[..., subprocess.CompletedProcess[str]]


def start_python(*arguments: str, **environment: str | None) -> subprocess.Popen[str]:
    """A fresh interpreter that imports the same fastnorm. A variable set to None is removed."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")])}
    for name, value in environment.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Wait; a crash, an error or a hang of the child is a failure that shows its output."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"no end after {timeout} s\n{out}\n{err}")
    assert process.returncode == 0, f"exit code {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def run_python() -> RunPython:
    def run(*arguments: str, timeout: float = 120, **environment: str | None) -> subprocess.CompletedProcess[str]:
        return finish(start_python(*arguments, **environment), timeout)

    return run


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = fn.get_num_threads()
    yield
    fn.set_num_threads(before)
