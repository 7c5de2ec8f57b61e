"""fastnorm without PyTorch, and PyTorch without being asked for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import RunPython

import fastnorm as fn

BLOCK = """
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "%s":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent)
"""
WITHOUT = BLOCK % "torch"


def test_without_pytorch_the_error_says_what_to_install(run_python: RunPython) -> None:
    attempt = "try:\n    import fastnorm.torch\nexcept ImportError as error:\n    print(error)"
    assert "pip install 'fastnorm[torch]'" in run_python("-c", WITHOUT + attempt).stdout
    assert (
        "pip install 'fastnorm[torch]'"
        in run_python("-c", WITHOUT + attempt.replace("import fastnorm.torch", "import fastnorm; fastnorm.torch")).stdout
    )


def test_fastnorm_does_not_import_pytorch_nor_hide_its_name(run_python: RunPython) -> None:
    run_python("-c", WITHOUT + "from fastnorm import *; import fastnorm.layers, fastnorm.preprocessing; assert 'torch' not in globals()")


def test_without_ml_dtypes_pytorch_computes_bfloat16(run_python: RunPython) -> None:
    pytest.importorskip("torch")
    run_python(
        "-c",
        BLOCK % "ml_dtypes"
        + """
import torch, fastnorm.torch as ft, torch.nn.functional as F
for dtype in (torch.float64, torch.bfloat16):
    x = torch.arange(12.0).reshape(2, 6).to(dtype).requires_grad_()
    weight = torch.ones(6, dtype=dtype, requires_grad=True)
    y, expected = ft.layer_norm(x, (6,), weight), F.layer_norm(x, (6,), weight)
    assert ("Normalize" in type(y.grad_fn).__name__) == (dtype is torch.float64), y.grad_fn
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert weight.grad.dtype == dtype
""",
    )


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
