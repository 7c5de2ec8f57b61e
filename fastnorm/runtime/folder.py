"""Where compiled code is kept between processes."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def _candidates() -> Iterator[Path]:
    for variable in ("FASTNORM_CACHE_DIR", "NUMBA_CACHE_DIR"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield Path(__file__).parent.parent / "__pycache__"
    if os.environ.get("XDG_CACHE_HOME"):
        yield Path(os.environ["XDG_CACHE_HOME"])
    try:
        home = Path.home()
        yield home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:  # no HOME and no entry for this user
        pass
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    yield Path(tempfile.gettempdir()) / f"fastnorm-{user}"


def _usable(folder: Path) -> bool:
    """Writable, and nobody else's: what is loaded from there is executed."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & stat.S_IWOTH):
            return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def build_digest() -> str:
    """Of every source file and version that compiled code depends on. It takes objects of Python apart: that of the interpreter is one.

    Numba's own key sees edits of one file only and no options at all; this names the cache folder.
    """
    import sysconfig
    from importlib import metadata

    package = Path(__file__).parent.parent
    versions = [str(sysconfig.get_config_var("EXT_SUFFIX")), *(metadata.version(name) for name in ("numba", "llvmlite", "numpy"))]
    digest = hashlib.sha256(" ".join(versions).encode())
    compiled = ("element/*.py", "kernels/*.py", "interop/jit*.py", "interop/capi*.py")
    rooms = [file for pattern in compiled for file in sorted(package.glob(pattern))]
    plan = [package / "plan" / name for name in ("schedule.py", "table.py")]
    for file in (*rooms, *plan, package / "_jit.py", package / "_linking.py"):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path:
    """The first usable place for code of this build; a fresh private folder when there is none.

    Order: ``FASTNORM_CACHE_DIR``, ``NUMBA_CACHE_DIR``, beside the installed package,
    ``XDG_CACHE_HOME``, the user's cache folder, the system's temporary folder.
    """
    for candidate in _candidates():
        folder = candidate / f"fastnorm-{build_digest()}"
        if _usable(folder):
            return folder
    try:
        return Path(tempfile.mkdtemp(prefix="fastnorm-"))
    except OSError:
        return Path(os.devnull) / "nowhere"  # nothing is writable: every save is skipped


def is_shared() -> bool:
    """Whether another process of this user finds what is kept in the folder."""
    return cache_folder().name == f"fastnorm-{build_digest()}"


def state() -> tuple[Path, int, int]:
    """The folder, the number of compiled variants in it, and their bytes."""
    folder = cache_folder()
    try:
        sizes = [file.stat().st_size for file in folder.glob("*.nbc")]
    except OSError:
        sizes = []
    return folder, len(sizes), sum(sizes)
