"""The examples of README's chapter on embedding, each in a process and a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import PACKAGE_ROOT, finish, start_python

_CHAPTER = (PACKAGE_ROOT / "README.md").read_text(encoding="utf-8").split("\n## Embedding", 1)[1].split("\n## ", 1)[0]
EXAMPLES = re.findall(r"\n### ([^\n]+)\n.*?", _CHAPTER)
_BLOCKS = [
    (f"{title.split(':')[0]} {k}", code)
    for title, text in re.findall(r"\n### ([^\n]+)\n(.*?)(?=\n### |\Z)", _CHAPTER, re.S)
    for k, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.S))
]
_GUESTS = ("torch", "dask", "mpi4py")


def test_every_section_has_an_example() -> None:
    assert len(EXAMPLES) >= 5
    assert {name.rsplit(" ", 1)[0] for name, _ in _BLOCKS} == {title.split(":")[0] for title in EXAMPLES}


def _works(guest: str) -> bool:
    """Installed, and for mpi4py with an MPI library."""
    if importlib.util.find_spec(guest) is None:
        return False
    if guest == "mpi4py":
        process = start_python("-c", "from mpi4py import MPI")
        process.communicate(timeout=60)
        return process.returncode == 0
    return True


@pytest.mark.parametrize("code", [code for _, code in _BLOCKS], ids=[name for name, _ in _BLOCKS])
def test_example(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for guest in _GUESTS:
        if re.search(rf"\b{guest}\b", code) and not _works(guest):
            pytest.skip(f"{guest} is not installed")
    if '"cc"' in code and shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    finish(start_python("example.py", **({"OMP_NUM_THREADS": "1"} if "torch" in code else {})), timeout=200)
    assert os.listdir(tmp_path)
