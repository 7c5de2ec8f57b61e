"""The soak of tests/soak.py for some seconds: nothing goes wrong, and the memory does not run away."""

from __future__ import annotations

from pathlib import Path

from conftest import RunPython


def test_five_seconds_of_drawn_calls(run_python: RunPython) -> None:
    # Few functions, so that their kernels are soon there; where all had to be compiled, code alone was 42 MB. Plans are still
    # being made: ten minutes are held to 20 MB.
    few = ("--only", "train", "inference", "layer", "mean_var")
    command = (str(Path(__file__).parent / "soak.py"), "--minutes", "0.08", "--tolerate-mb", "60", *few)
    last = run_python(*command, timeout=100).stdout.splitlines()[-1]
    assert int(last.split()[0]) > 0, last  # two hundred, where nothing has to be compiled and nobody else computes
