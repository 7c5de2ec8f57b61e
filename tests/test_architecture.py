"""The laws of the rooms, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fastnorm"
FILES = sorted(PACKAGE.rglob("*.py"))
MAKES_ARRAYS = {"empty", "zeros", "ones", "full", "arange", "array", "empty_like", "zeros_like", "ones_like", "full_like"}
MAKES_SCRATCH = {"vectors", "staging", "empty", "zeros"}
LONGEST_FILE, LONGEST_FUNCTION = 400, 50


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0]


def files_of(*rooms: str) -> list[Path]:
    found = [file for file in FILES if room(file) in rooms]
    assert found, f"no file in {rooms}: the test would pass on nothing"
    return found


def nodes(file: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def roots(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in nodes(file) if isinstance(node, ast.FunctionDef))


def decorators(function: ast.FunctionDef) -> set[str]:
    return {
        d.func.id if isinstance(d, ast.Call) and isinstance(d.func, ast.Name) else getattr(d, "id", "") for d in function.decorator_list
    }


def compiled(file: Path, *kinds: str) -> list[ast.FunctionDef]:
    return [f for f in functions(file) if decorators(f) & set(kinds)]


@pytest.mark.parametrize("file", files_of("element"), ids=lambda f: f.name)
def test_formulas_have_no_loops_and_make_no_arrays(file: Path) -> None:
    for function in compiled(file, "element", "variant"):
        for node in ast.walk(function):
            assert not isinstance(node, ast.For | ast.While | ast.ListComp | ast.GeneratorExp), f"loop in {function.name}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in MAKES_ARRAYS, f"{function.name} makes an array"


@pytest.mark.parametrize("file", files_of("kernels"), ids=lambda f: f.name)
def test_kernels_raise_nothing_and_hold_no_formulas(file: Path) -> None:
    for function in compiled(file, "loop", "maker", "variant", "chunk_body", "driver"):
        for node in ast.walk(function):
            assert not isinstance(node, ast.Raise | ast.Assert | ast.Try), f"{function.name} has a second exit"
            # A formula of normalization has a division, a root or a power by a variance; sums of products do not.
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)), f"power in {function.name}"
            assert not (isinstance(node, ast.Attribute) and node.attr in {"sqrt", "exp", "erf", "tanh", "log"}), (
                f"formula in {function.name}"
            )


def test_chunk_bodies_are_dealt_and_never_called() -> None:
    """One code for every number of threads: the machine code of a body inlined into a second driver gave other bits."""
    found = 0
    for file in files_of("kernels"):
        for function in compiled(file, "loop", "maker", "variant", "chunk_body", "driver"):
            calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
            assert not [n for n in calls if n.func.id.endswith("_chunk")], f"{function.name} calls a chunk body"  # type: ignore[attr-defined]
            for call in (n for n in calls if n.func.id == "deal"):  # type: ignore[attr-defined]
                assert "driver" in decorators(function)
                assert function.args.args[0].arg == "crew"
                assert ast.unparse(call.args[1]) == f"{function.name}_chunk"
                found += 1
    assert found >= 20


@pytest.mark.parametrize("file", files_of("plan"), ids=lambda f: f.name)
def test_plan_is_integers_only(file: Path) -> None:
    assert not roots(file) & {"numba", "llvmlite"}
    assert not {
        name for name in imports(file) if name.startswith(("fastnorm.kernels", "fastnorm.element", "fastnorm.ops", "fastnorm._jit"))
    }


def test_one_file_decides_numba_options() -> None:
    for file in FILES:
        text = {ast.unparse(node) for node in nodes(file) if isinstance(node, ast.Call)}
        if file.name != "_jit.py":
            assert not any(t.startswith(("numba.njit(", "njit(", "numba.jit(", "jit(")) for t in text), file


def test_llvm_is_spoken_in_two_files() -> None:
    """Instructions in `element/bits`; how compiled code is linked in `_linking`."""
    assert {file.name for file in FILES if "llvmlite" in roots(file)} == {"bits.py", "_linking.py"}


def test_the_merge_exists_once() -> None:
    defined = [file for file in FILES for f in functions(file) if f.name == "merge" and "element" in decorators(f)]
    assert [file.name for file in defined] == ["moments.py"]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for function in functions(file):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        assert length <= LONGEST_FUNCTION, f"{function.name} has {length} lines"


def test_public_functions_say_what_they_raise_and_where_they_come_from() -> None:
    import fastnorm

    for name in ("batch_norm_train", "batch_norm", "batch_norm_backward", "mean_var", "RunningMoments"):
        text = getattr(fastnorm, name).__doc__
        assert ">>>" in text, f"{name} has no example"
        assert "Source" in text, f"{name} names no source"


def loops_around(function: ast.FunctionDef, node: ast.AST) -> list[ast.For | ast.While]:
    return [loop for loop in ast.walk(function) if isinstance(loop, ast.For | ast.While) and any(inner is node for inner in ast.walk(loop))]


def lifetimes(function: ast.FunctionDef) -> Iterator[tuple[str, float, float]]:
    """Of every view of an array that the function makes: what it is, until which line it is used, until which its array."""
    made = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            maker = node.value.func
            if (maker.id if isinstance(maker, ast.Name) else maker.attr if isinstance(maker, ast.Attribute) else "") in MAKES_SCRATCH:
                made[node.targets[0].id] = node

    def used_until(name: str, array: ast.Assign) -> float:
        """A use in a loop lasts until its end, if the array was made before."""
        ends = [0.0]
        for use in ast.walk(function):
            if isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load):
                around = [loop.end_lineno + 0.5 for loop in loops_around(function, use) if array not in ast.walk(loop)]  # type: ignore[operator]
                ends.append(max([float(use.lineno), *around]))
        return max(ends)

    for statement in ast.walk(function):
        if not isinstance(statement, ast.Assign | ast.Expr | ast.Return | ast.AugAssign):
            continue
        for call in ast.walk(statement):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("row", "cut"):
                owner = call.args[0]
                if isinstance(owner, ast.Name) and owner.id in made:
                    array = made[owner.id]
                    views = [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
                    last_use = max([statement.lineno + 0.25, *(used_until(view, array) for view in views)])
                    yield ast.unparse(call), last_use, used_until(owner.id, array)


@pytest.mark.parametrize("file", files_of("kernels", "interop"), ids=str)
def test_arrays_outlive_their_views(file: Path) -> None:
    """`row` and `cut` borrow. After its last use an array is freed, and another thread may get its memory."""
    for function in functions(file):
        for view, last_use, array in lifetimes(function):
            assert array >= last_use, f"{file}: {function.name}: {view} is used until line {last_use}, its array until {array}"


def test_a_view_that_outlives_its_array_is_found() -> None:
    code = """
def body(n):
    a, b = 0, 0
    scratch = vectors(a, 2, n)
    first = row(scratch, 0)
    fill(scratch)
    while n > 0:
        {}
"""
    found = [list(lifetimes(ast.parse(code.format(line)).body[0])) for line in ("put(first, n)", "put(first, scratch)", "pass")]  # type: ignore[arg-type]
    assert [array >= view for ((_, view, array),) in found] == [False, True, True]
    (inline,) = lifetimes(ast.parse("def body(n):\n    scratch = vectors(n)\n    put(row(scratch, 0))").body[0])  # type: ignore[arg-type]
    assert inline[1] > inline[2]
