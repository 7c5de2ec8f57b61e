"""The soak of tests/soak.py for some seconds: nothing goes wrong, and the memory does not run away."""

from __future__ import annotations

from pathlib import Path

from conftest import RunPython


def test_five_seconds_of_drawn_calls(run_python: RunPython) -> None:
    # Few functions, so that their kernels are soon there. Some are still being compiled, at 1 to 2 MB each: ten minutes are held to 20 MB.
    few = ("--only", "train", "layer")
    command = (str(Path(__file__).parent / "soak.py"), "--minutes", "0.08", *few, "--tolerate-mb")
    run_python(*command, "1000", timeout=100)  # with an empty cache the compiler's own memory is 42 MB
    last = run_python(*command, "60", timeout=100).stdout.splitlines()[-1]
    assert int(last.split()[0]) > 0, last  # two hundred, where nothing has to be compiled and nobody else computes
