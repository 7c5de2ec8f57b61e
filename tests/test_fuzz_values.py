"""Drawn calls of every public function against the oracle. ``HYPOTHESIS_PROFILE=fuzz`` draws fifty times as many."""

from __future__ import annotations

import pytest
from fuzz_values import CHECKS
from hypothesis import given
from hypothesis import strategies as st
from strategies import drawn


@pytest.mark.parametrize("name", CHECKS)
@given(data=st.data())
def test_against_the_oracle(name: str, data: st.DataObject) -> None:
    CHECKS[name](drawn(data))
