"""fastnorm without PyTorch, and PyTorch without being asked for."""

from __future__ import annotations

import ast
from pathlib import Path

from conftest import RunPython

import fastnorm as fn

WITHOUT = """
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent)
"""


def test_without_pytorch_the_error_says_what_to_install(run_python: RunPython) -> None:
    attempt = "try:\n    import fastnorm.torch\nexcept ImportError as error:\n    print(error)"
    assert "pip install 'fastnorm[torch]'" in run_python("-c", WITHOUT + attempt).stdout
    assert (
        "pip install 'fastnorm[torch]'"
        in run_python("-c", WITHOUT + attempt.replace("import fastnorm.torch", "import fastnorm; fastnorm.torch")).stdout
    )


def test_fastnorm_does_not_import_pytorch_nor_hide_its_name(run_python: RunPython) -> None:
    run_python("-c", WITHOUT + "from fastnorm import *; import fastnorm.layers, fastnorm.preprocessing; assert 'torch' not in globals()")


def test_pytorch_is_imported_in_its_own_room_only() -> None:
    package = Path(fn.__file__).parent
    found = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if any(name.split(".")[0] == "torch" for name in names):
                found.add(str(file.parent.relative_to(package)))
    assert found == {str(Path("interop") / "torch")}
