"""Junk at the door of every public function: it is taken or refused by name of error, and what refuses has written nothing."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CALLS, Call, drawn, spoiled

import fastnorm as fn

# AxisError is a ValueError; memory is refused for sizes that no machine has.
REFUSALS = (ValueError, TypeError, MemoryError)
# What the oldest NumPy warns of, and later ones refuse: of an axis, of a flag, of a dtype.
_OF_NUMPY_2_0 = (
    "In future, it will be an error for 'np.bool'",
    "The truth value of an empty array",
    "in the future the `.dtype` attribute",
)
# Sixty examples of every function would take a minute: some calls of one kind share them.
FAMILIES = {
    "forward": [name for name in CALLS if name.endswith("_norm")],
    "training": ["batch_norm_train", "batch_renorm_train"],
    "backward": [name for name in CALLS if "_backward" in name],
    "averages": ["mean", "var", "std", "nanmean", "nanvar", "nanstd", "mean_var", "zscore"],
    "scaling": ["scale", "minmax_scale", "maxabs_scale", "normalize", "normalize_images"],
    "layers": ["BatchNorm", "BatchRenorm", "LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm", "RunningMoments", "set_num_threads"],
    "methods of layers": [name for name in CALLS if "orm, " in name] + ["recompute_statistics", "load_state_dict"],
    "methods": [
        *[name for name in CALLS if "Scaler, " in name or "Normalizer" in name],
        *["update", "merge", "var of moments", "merge of scalers"],
    ],
}  # fmt: skip


def arrays_of(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list) and len(value) == 2:
        for part in value:
            yield from arrays_of(part)


def bits(array: np.ndarray) -> bytes:
    """Of an array that may be a broadcast one of any size, or one of objects."""
    if array.dtype.hasobject:
        return repr(array).encode()
    small = array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]
    return np.asarray(small).tobytes()


def try_call(call: Call) -> BaseException | None:
    """Call, and compare all memory with what it was; what was raised."""
    watched = [(name, array) for name, value in call.arguments.items() for array in arrays_of(value)]
    before, owner = [bits(array) for _, array in watched], pickle.dumps(call.owner)
    refusal: BaseException | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in _OF_NUMPY_2_0:
            warnings.filterwarnings("ignore", text, DeprecationWarning)
        if call.warns:
            warnings.simplefilter("ignore", RuntimeWarning)
        try:
            call.function(**call.arguments)
        except (*REFUSALS, *call.refuses_by) as error:
            refusal = error
    assert refusal is None or pickle.dumps(call.owner) == owner, f"the object is another after {refusal!r}"
    shared = [array for name, array in watched if name in call.written]
    for (name, array), was in zip(watched, before, strict=True):
        may_change = refusal is None and any(np.may_share_memory(array, other) for other in shared)
        assert may_change or bits(array) == was, f"{name} was written to, and {refusal!r} raised"
    return refusal


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("name", CALLS)
def test_the_calls_that_are_spoiled_are_good(name: str) -> None:
    assert try_call(CALLS[name]()) is None


def test_every_call_is_of_a_family_and_every_function_is_called() -> None:
    assert set(CALLS) == {name for family in FAMILIES.values() for name in family}
    of_no_array = {"get_num_threads", "num_threads", "recycle_outputs", "show_config", "warmup", "layers", "preprocessing"}
    functions = set(fn.__all__) - of_no_array
    assert functions <= {call().function.__name__ for call in CALLS.values()}


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_junk(family: str, data: st.DataObject) -> None:
    c = drawn(data)
    for _ in range(4):
        name = c.one(FAMILIES[family])
        error = try_call(spoiled(c, name))
        assert error is None or str(error), f"{name} refuses without a word"
