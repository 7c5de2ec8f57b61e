"""Calls dealt to the threads of a guest: GNU OpenMP's, which scikit-learn and PyTorch bring with them."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import RunPython
from test_runtime import PROLOGUE, THREADS, script

PACKAGES = Path(np.__file__).parent.parent


def openmp() -> str | None:
    bundled = [*PACKAGES.glob("*.libs/libgomp*.so*"), *PACKAGES.glob("torch/lib/libgomp*.so*")]
    return str(bundled[0]) if bundled else ctypes.util.find_library("gomp")


needs_openmp = pytest.mark.skipif(openmp() is None, reason="no libgomp")

TEAM = f"""
import ctypes
from fastnorm.runtime.crew import MEMBERS
from fastnorm.runtime.team import Team, borrowed
team = Team(ctypes.cast(ctypes.CDLL({openmp()!r}).GOMP_parallel, ctypes.c_void_p).value)
members = lambda: team._crew._words[MEMBERS // 8]
expected = fn.batch_norm_train(x).y
same = lambda: np.array_equal(fn.batch_norm_train(x).y, expected)
"""


def run(run_python: RunPython, code: str) -> None:
    process = run_python("-W", "ignore::DeprecationWarning", "-c", script(PROLOGUE, TEAM, code, 'print("done")'), **THREADS)
    assert process.stdout == "done\n", process.stderr
    assert process.stderr == ""


@needs_openmp
def test_all_threads_of_a_team_take_part_and_the_bits_are_the_same(run_python: RunPython) -> None:
    run(
        run_python,
        """
for threads in (1, 2, 2, 1, 3):
    team._crew._words[MEMBERS // 8] = 0
    assert team.call(threads, same)
    assert members() == (min(threads, team._crew.size) if threads > 1 else 0), (threads, members())
    assert borrowed.crew is None and borrowed.threads == 0
def nested():
    team.call(1, same)
    return borrowed.crew is team._crew and borrowed.threads == 2

assert team.call(2, nested)
with fn.num_threads(1):
    team._crew._words[MEMBERS // 8] = 0
    assert team.call(2, same) and members() == 0
""",
    )


@needs_openmp
def test_several_threads_have_one_team_at_a_time(run_python: RunPython) -> None:
    run(
        run_python,
        """
found = []

def work():
    for _ in range(30):
        found.append(team.call(2, same))

workers = [threading.Thread(target=work) for _ in range(4)]
[w.start() for w in workers]
found += [same() for _ in range(30)]  # borrowed by others, not by this thread
[w.join() for w in workers]
assert all(found) and len(found) == 150
""",
    )


@needs_openmp
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_its_own_workers_instead(run_python: RunPython) -> None:
    """GNU OpenMP would wait forever."""
    run(
        run_python,
        """
def fork():
    assert same()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        right = same() and team.call(2, same)  # first inside of the parent's call
        os._exit(0 if right and fn.runtime.crew._crew is not None else 3)
    return os.waitpid(pid, 0)[1]

assert team.call(2, fork) == 0
""",
    )


def test_without_openmp_the_own_workers_are_as_many_as_the_guest_wants(run_python: RunPython) -> None:
    code = """
from fastnorm.runtime.team import Team
from fastnorm.runtime.threads import crew_for
fn.batch_norm_train(small)
assert Team(0).call(1, crew_for, 1 << 30) == 0
assert Team(0).call(3, crew_for, 1 << 30) == fn.runtime.crew._crew.address
assert len(fn.runtime.crew._crew._workers) == 2
print("done")
"""
    assert run_python("-c", script(PROLOGUE, code), **THREADS).stdout == "done\n"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_lends_its_threads(run_python: RunPython) -> None:
    code = """
import torch
import fastnorm.torch
from fastnorm.interop.torch.team import dealt
from fastnorm.runtime.crew import MEMBERS
from fastnorm.runtime.team import borrowed
crew = dealt(lambda: borrowed.crew)
tensor = torch.from_numpy(x)
expected = fn.batch_norm_train(x).y
for threads in (1, 2):
    torch.set_num_threads(threads)
    y = fastnorm.torch.batch_norm(tensor, None, None, training=True).numpy()
    assert np.array_equal(y, expected)
    assert crew is None or crew._words[MEMBERS // 8] == (threads if threads > 1 else 0)
print("done")
"""
    assert run_python("-c", script(PROLOGUE, code), **THREADS).stdout == "done\n"
