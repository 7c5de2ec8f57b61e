"""Any shape, axis, memory, dtype and option, drawn by hypothesis, against the oracle."""

from __future__ import annotations

from typing import Any, NamedTuple

import cases
import numpy as np
import oracle
import tolerance
from cases import VIEWS, WRITABLE_VIEWS, Problem
from checks import check_backward, check_inference, check_train
from checks_family import (
    Group,
    Layer,
    check_add_rms,
    check_group,
    check_group_backward,
    check_layer,
    check_layer_backward,
    check_rms,
    parameter,
    sample,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerance import assert_within

import fastnorm as fn


class Draw(NamedTuple):
    problem: Problem
    dtype: np.dtype
    view: str
    seed: int

    def sample(self, seed: int = 0) -> np.ndarray:
        return VIEWS[self.view](cases.sample(self.problem, self.dtype, self.seed + seed))


@st.composite
def problems(draw: st.DrawFn, min_side: int = 1) -> Problem:
    rank = draw(st.integers(2, 5))
    shape = draw(st.lists(st.integers(min_side, 6), min_size=rank, max_size=rank))
    if draw(st.booleans()):  # one long side
        shape[draw(st.integers(0, rank - 1))] = draw(st.integers(1, 80))
    return Problem(tuple(shape), draw(st.integers(-rank, rank - 1)))


@st.composite
def inputs(draw: st.DrawFn, dtypes: list[np.dtype]) -> Draw:
    """Few dtypes: each compiles kernels of its own, and all are met in test_batch."""
    return Draw(draw(problems()), draw(st.sampled_from(dtypes)), draw(st.sampled_from(list(VIEWS))), draw(st.integers(0, 1000)))


def parameters(draw: st.DataObject, case: Draw) -> dict[str, Any]:
    """Both or none, and for float32 only: every combination compiles a kernel of its own."""
    if case.dtype != cases.F4 or not draw.draw(st.booleans(), "parameters"):
        return {}
    return {"gamma": cases.parameter(case.problem.channels), "beta": cases.parameter(case.problem.channels, seed=2)}


@given(inputs([cases.F4, cases.F8]), st.data(), st.sampled_from([1e-5, 1e-3, 1.0]))
def test_training(case: Draw, data: st.DataObject, eps: float) -> None:
    check_train(case.sample(), case.problem.axis, eps=eps, **parameters(data, case))


@given(inputs([cases.F4]), st.data(), st.sampled_from(list(VIEWS)), st.sampled_from(WRITABLE_VIEWS))
def test_training_with_activation_residual_and_out(case: Draw, data: st.DataObject, other: str, out_view: str) -> None:
    residual = VIEWS[other](cases.sample(case.problem, seed=case.seed + 1)) if data.draw(st.booleans(), "residual") else None
    out = VIEWS[out_view](np.zeros(case.problem.shape, np.float32)) if data.draw(st.booleans(), "out") else None
    scale = {"gamma": cases.parameter(case.problem.channels), "beta": cases.parameter(case.problem.channels, seed=2)}
    check_train(case.sample(), case.problem.axis, activation="relu", residual=residual, out=out, **scale)


@given(inputs([cases.F4]), st.data())
def test_inference(case: Draw, data: st.DataObject) -> None:
    channels = case.problem.channels
    mean, var = cases.parameter(channels, cases.F8, 3), cases.parameter(channels, cases.F8, 4) ** 2
    check_inference(case.sample(), mean, var, case.problem.axis, **parameters(data, case))


@given(inputs([cases.F4]), st.sampled_from(list(VIEWS)), st.booleans())
def test_backward(case: Draw, other: str, training: bool) -> None:
    dy = VIEWS[other](cases.sample(case.problem, seed=case.seed + 1, offset=0.5))
    check_backward(dy, case.sample(), case.problem.axis, gamma=cases.parameter(case.problem.channels), training=training)


@given(inputs([cases.F4, cases.F8]), st.data(), st.booleans(), st.integers(0, 2))
def test_mean_var(case: Draw, data: st.DataObject, keepdims: bool, ddof: int) -> None:
    a = case.sample()
    axes = tuple(data.draw(st.sets(st.integers(0, a.ndim - 1)), "axes"))
    mean, var = fn.mean_var(a, axes, keepdims=keepdims)
    expected_mean, expected_var = oracle.mean_var(a, axes, keepdims=keepdims)
    assert_within(mean, expected_mean, tolerance.mean(expected_mean, expected_var, case.dtype), "mean")
    assert_within(var, expected_var, tolerance.var(expected_var, case.dtype), "var")
    count = a.size // max(expected_mean.size, 1)
    if count > ddof:
        scale = count / (count - ddof)
        assert_within(fn.mean_var(a, axes, ddof=ddof).var.ravel(), np.ravel(var) * scale, 2.0**-50 * np.ravel(var) * scale, "ddof")


class Drawn(NamedTuple):
    """A problem of the family, its data in one kind of memory, and another kind for what goes with it."""

    problem: Layer | Group
    x: np.ndarray
    other: str

    def also(self, seed: int) -> np.ndarray:
        return VIEWS[self.other](sample(self.problem, seed=seed, offset=0.5))


@st.composite
def layers(draw: st.DrawFn) -> Drawn:
    shape, _ = draw(problems())
    axes = draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=len(shape), unique_by=lambda a: a % len(shape)))
    problem = Layer(shape, axes[0] if len(axes) == 1 else tuple(axes))
    return Drawn(problem, VIEWS[draw(st.sampled_from(list(VIEWS)))](sample(problem)), draw(st.sampled_from(list(VIEWS))))


@st.composite
def groups(draw: st.DrawFn) -> Drawn:
    shape, _ = draw(problems())
    axis = draw(st.integers(1, len(shape) - 1))
    num_groups, each = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    shape = (*shape[:axis], num_groups * each, *shape[axis + 1 :])
    problem = Group(shape, num_groups, axis - draw(st.sampled_from([0, len(shape)])))
    return Drawn(problem, VIEWS[draw(st.sampled_from(list(VIEWS)))](sample(problem)), draw(st.sampled_from(list(VIEWS))))


@given(layers(), st.booleans(), st.sampled_from(WRITABLE_VIEWS), st.booleans())
def test_layer_norm(case: Drawn, affine: bool, out_view: str, has_out: bool) -> None:
    options = {"gamma": parameter(case.problem), "beta": parameter(case.problem, seed=2)} if affine else {}
    out = VIEWS[out_view](np.zeros(case.problem.shape, np.float32)) if has_out and not affine else None
    check_layer(case.x, case.problem.axis, out=out, **options)


@given(layers(), st.booleans())
def test_rms_norm_and_that_of_a_sum(case: Drawn, adds: bool) -> None:
    gamma = parameter(case.problem)
    if adds:
        check_add_rms(case.x, case.also(1), case.problem.axis, gamma=gamma)
    else:
        check_rms(case.x, case.problem.axis, gamma=gamma)


@given(groups(), st.sampled_from(WRITABLE_VIEWS), st.booleans())
def test_group_norm(case: Drawn, out_view: str, has_out: bool) -> None:
    gamma, beta = parameter(case.problem), parameter(case.problem, seed=2)
    out = VIEWS[out_view](np.zeros(case.problem.shape, np.float32)) if has_out else None
    check_group(case.x, case.problem.num_groups, case.problem.axis, gamma=gamma, beta=beta, out=out)


@given(layers())
def test_layer_norm_backward(case: Drawn) -> None:
    check_layer_backward(case.also(7), case.x, case.problem.axis, gamma=parameter(case.problem))


@given(groups())
def test_group_norm_backward(case: Drawn) -> None:
    check_group_backward(case.also(7), case.x, case.problem.num_groups, case.problem.axis, gamma=parameter(case.problem))


@given(st.data())
def test_out_anywhere_in_the_memory_of_the_input(data: st.DataObject) -> None:
    """Views of one buffer with drawn starts, steps and directions: as if the input had been copied first."""
    shape = (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9)))
    problem = Problem(shape, data.draw(st.integers(0, 2), "axis"))
    size = int(np.prod(shape))
    buffer = np.zeros(3 * size + 40, np.float32)

    def view(label: str) -> np.ndarray:
        step = data.draw(st.sampled_from([1, 2, -1, -2]), f"step of {label}")
        start = data.draw(st.integers(0, size + 30), f"start of {label}")
        flat = buffer[start : start + abs(step) * (size - 1) + 1]
        flat = flat[::step] if step > 0 else flat[::-1][:: abs(step)]
        return flat.reshape(shape)

    x, out = view("x"), view("out")
    assert np.shares_memory(x, buffer)
    x[...] = cases.sample(problem)
    check_train(x, problem.axis, out=out, shared=True)
