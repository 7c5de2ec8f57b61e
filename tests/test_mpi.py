"""`fastnorm.mpi`: the checks of `mpi_ranks.py` on one rank and on three, and the exchange alone on more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import PACKAGE_ROOT

SCRIPT = Path(__file__).with_name("mpi_ranks.py")
LIMIT_S = 300


def checks() -> list[str]:
    """The names of the checks, which cannot be imported without MPI."""
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    return [lines[k + 1].split("(")[0].removeprefix("def ") for k, line in enumerate(lines) if line == "@check"]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")])
    # The last four: Open MPI runs as root, and more ranks than cores, only if told so; MPICH does not ask.
    return {
        **os.environ,
        "PYTHONPATH": path,
        "FASTNORM_NUM_THREADS": "2",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
    }


@cache
def launcher() -> str | None:
    """``mpiexec``, beside the interpreter first: there it belongs to the library that mpi4py finds."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec") or shutil.which("mpirun")


@cache
def absent() -> str | None:
    """Why MPI cannot be tested here."""
    found = subprocess.run([sys.executable, "-c", "from mpi4py import MPI"], capture_output=True, text=True, check=False)
    if found.returncode:
        return f"mpi4py is not installed, or finds no MPI library: {found.stderr.strip().splitlines()[-1]}"
    return None


@cache
def ran(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    if absent():
        pytest.skip(absent())
    if ranks > 1 and launcher() is None:
        pytest.skip("mpiexec is not installed")
    command = [sys.executable, *arguments]
    if ranks > 1:
        command = [str(launcher()), "-n", str(ranks), *command]
    try:
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as late:
        out, err = (text.decode() if isinstance(text, bytes) else text or "" for text in (late.stdout, late.stderr))
        pytest.fail(f"{ranks} ranks do not end: one waits for another\n{out}\n{err}")


@pytest.mark.parametrize("name", checks())
@pytest.mark.parametrize("ranks", [1, 3])
def test_on_ranks(ranks: int, name: str) -> None:
    found = ran(ranks, str(SCRIPT))
    assert f"{name} with {ranks}" in found.stdout.splitlines(), f"{found.stdout}\n{found.stderr}"
    assert found.returncode == 0
    assert "Warning" not in found.stderr


def test_there_are_checks() -> None:
    assert len(checks()) > 10


EXCHANGE = """
    from typing import NamedTuple
    from fastnorm.interop.mpi_exchange import MPI, union

    class Word(NamedTuple):
        part: str
        agreed: dict

    def join(a, b):
        if fails == (a, b):
            raise KeyError("joined")
        return f"({a}{b})"

    world = MPI.COMM_WORLD
    for size in range(1, world.size + 1):
        comm = world.Split(int(world.rank < size))
        fails = None
        words = comm.allgather(union(comm, lambda: Word(str(comm.rank), {}), join)[1])
        assert len(set(words)) == 1, words
        if world.rank == 0:
            print(size, words[0])
        fails = "0", "1"
        try:
            union(comm, lambda: Word(str(comm.rank), {}), join)
        except RuntimeError as error:
            assert "KeyError: 'joined'" in str(error)
        else:
            assert comm.size == 1
        comm.Free()
"""
TREES = ["0", "(01)", "((01)2)", "((01)(23))", "(((01)(23))4)", "(((01)(23))(45))", "(((01)(23))((45)6))"]


def test_the_order_of_joins_depends_on_the_number_of_ranks_only() -> None:
    found = ran(7, "-c", textwrap.dedent(EXCHANGE))
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [f"{k + 1} {tree}" for k, tree in enumerate(TREES)]


def test_the_table_of_the_docstring_is_that_of_the_model() -> None:
    if absent():
        pytest.skip(absent())
    code = """
        import re
        import fastnorm
        from bench.mpi_model import Step, levels, seconds
        assert [levels(n) for n in (1, 2, 3, 8, 9, 10_000)] == [0, 1, 2, 3, 4, 14]
        rows = re.findall(r"^ +([0-9]+) +([0-9.]+) ms +([0-9.]+) ms$", fastnorm.mpi.batch_norm_train.__doc__, re.M)
        assert len(rows) == 3
        for ranks, *stated in rows:
            for (channels, join_us), ms in zip(((64, 60), (2048, 90)), stated):
                step = Step(24 * channels + 300, join_us * 1e-6, 0.3 * join_us * 1e-6)
                assert f"{1e3 * seconds(step, int(ranks), 2e-6, 12.5e9):.2f}" == ms, (ranks, channels)
    """
    found = ran(1, "-c", textwrap.dedent(code))
    assert found.returncode == 0, found.stderr


def test_the_bench_prints_the_model() -> None:
    pytest.importorskip("rich")
    found = ran(1, "-m", "bench", "mpi", "--latency", "1")
    assert found.returncode == 0, found.stderr
    assert "forward" in found.stdout
    assert "1 us, 100 Gbit/s" in found.stdout


def test_without_mpi_the_error_names_what_to_install(run_python: Any) -> None:
    code = """
import sys
sys.modules["mpi4py"] = None
import fastnorm
try:
    fastnorm.mpi
except ImportError as error:
    print(error)
assert "mpi" not in fastnorm.__all__
"""
    assert 'pip install "fastnorm[mpi]"' in run_python("-c", code).stdout
