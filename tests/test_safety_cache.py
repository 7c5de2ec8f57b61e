"""The folder of compiled code under attack: several processes at once, deleted, read-only, full, replaced, filled with garbage."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import RunPython, finish, start_python
from test_runtime import script

from fastnorm.runtime import folder

# One small driver, compiled in a quarter of a second: all of them take the same way to the folder and back.
PROLOGUE = """
import os, shutil, sys, warnings
warnings.simplefilter("error")
import numpy as np
import fastnorm as fn
from fastnorm import kernels
from fastnorm.runtime import folder

def check():
    rows = np.array([[2.0], [1.0], [0.0], [4.0]])  # two elements, mean 1, no rest, sum of squares 4
    kernels.moments.merge_into(rows, np.array([[2.0], [3.0], [0.0], [4.0]]))
    assert rows.ravel().tolist() == [4.0, 2.0, 0.0, 12.0], rows

def anew():
    "As in a process that starts now."
    driver = kernels.moments.merge_into
    driver._reset_overloads()
    driver._clear()
    check()

def files():
    return sorted(os.listdir(folder.cache_folder()))
"""


def run_middle(run_python: RunPython, cache: Path, *parts: str, prefix: tuple[str, ...] = ()) -> None:
    code = script(PROLOGUE, "check()\nassert len(files()) == 1", *parts, "anew()\nprint('done')")
    environment = {"FASTNORM_CACHE_DIR": str(cache)}
    assert run_python("-c", code, **environment).stdout == "done\n"


def test_eight_processes_on_an_empty_folder(tmp_path: Path) -> None:
    code = script(PROLOGUE, "check()\nprint('done')")
    processes = [start_python("-c", code, FASTNORM_CACHE_DIR=str(tmp_path / "cache")) for _ in range(8)]
    assert [finish(p).stdout for p in processes] == ["done\n"] * 8
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert len(files) == 1, files
    last = start_python("-c", script(PROLOGUE, "check()\nassert not kernels.moments.merge_into.stats.cache_misses\nprint('done')"),
                        FASTNORM_CACHE_DIR=str(tmp_path / "cache"))  # fmt: skip
    assert finish(last).stdout == "done\n"


def test_a_folder_that_changes_in_the_middle(run_python: RunPython, tmp_path: Path) -> None:
    """Deleted, then a file in its place, then full of garbage, then files that cannot grow: four in one process."""
    run_middle(
        run_python,
        tmp_path,
        """
path = folder.cache_folder()
shutil.rmtree(path)
anew()
assert len(files()) == 1, "deleted, and made again"
shutil.rmtree(path)
path.write_text("no folder")
anew()
path.unlink()
anew()
for garbage in (b"", b"garbage" * 5000, os.urandom(40000)):
    for name in files():
        (path / name).write_bytes(garbage)
        (path / f"{name}.tmp").write_bytes(garbage)
    anew()
assert len(files()[0]) and not kernels.moments.merge_into.stats.cache_hits
if sys.platform != "win32":
    import resource
    for name in files():
        (path / name).unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    anew()
    assert not files(), "half a file was left"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
""",
    )


def may_mount() -> bool:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("options", ["ro", "size=8k,mode=700", "nr_inodes=1,mode=700"])
def test_a_disk_that_is_full_or_read_only(options: str, run_python: RunPython, tmp_path: Path) -> None:
    """In the middle of a process, and from its start; in a mount namespace of its own."""
    if not may_mount():
        pytest.skip("needs the right to mount")
    run_middle(
        run_python,
        tmp_path / "middle",
        f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
os.system("mount --make-rprivate /")
path = folder.cache_folder()
assert os.system(f"mount -t tmpfs -o {options} tmpfs {{path}}") == 0
anew()
assert not files(), files()
""",
    )
    start = tmp_path / "start"
    start.mkdir()
    code = script(PROLOGUE, "check()\nanew()\nprint('done')")
    command = f'mount --make-rprivate / && mount -t tmpfs -o {options} tmpfs "{start}" && exec "{sys.executable}" -c "$0"'
    process = start_python("-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])", "unshare", "-m", "sh", "-c", command, code,
                           FASTNORM_CACHE_DIR=str(start), TMPDIR=str(tmp_path))  # fmt: skip
    assert finish(process).stdout == "done\n"


def test_interpreters_share_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled functions take Python's objects apart, which lie otherwise in another version of it."""
    own = folder.build_digest()
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: {"EXT_SUFFIX": ".cpython-399-x86_64-linux-gnu.so"}[name])
    assert folder.build_digest.__wrapped__() != own
