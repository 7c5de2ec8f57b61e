"""RMS normalization, alone and with an addition in front: laws first, then values against the oracle."""

from __future__ import annotations

import warnings
from typing import Any

import cases
import numpy as np
import oracle_family as oracle
import pytest
import tolerance
from cases import VIEWS
from checks_family import ACCURACY, AXES, COLUMNS, LARGE_AXES, LIMIT, ROWS, Layer, check_add_rms, check_rms, parameter, sample
from test_memory import peak
from tolerance import assert_within

import fastnorm as fn

TRAVERSALS = pytest.mark.parametrize("problem", [ROWS, COLUMNS], ids=["rows", "columns"])
ALL_AXES = pytest.mark.parametrize("problem", AXES.values(), ids=AXES.keys())

# --- laws ---


def ones(problem: Layer) -> np.ndarray:
    """A gamma that changes nothing: for laws that hold without one, by the kernel that all other tests use."""
    return np.ones(problem.slices.parameter_shape, np.float32)


@ALL_AXES
def test_output_has_mean_square_ms_over_ms_plus_eps(problem: Layer) -> None:
    x = sample(problem)
    y = fn.rms_norm(x, ones(problem), axis=problem.axis, eps=0.125)
    found, given = (oracle.moments(oracle.as_rows(values, problem.slices), rms=True).var for values in (y, x))
    assert_within(found, given / (given + 0.125), 4 * tolerance.unit(np.float32))  # 2 E|y e| with |e| <= u (1 + |y|)


@TRAVERSALS
def test_norm_is_homogeneous(problem: Layer) -> None:
    x = sample(problem)

    def norm(x: np.ndarray) -> np.ndarray:
        return fn.rms_norm(x, ones(problem), axis=problem.axis, eps=0.0)

    y = norm(x)
    for factor in (2.0, 0.125, -1.0):  # every rounding is scaled
        np.testing.assert_array_equal(norm(np.float32(factor) * x), np.sign(factor) * y)
    assert_within(norm(np.float32(3.0) * x), y, tolerance.agreement(y, np.float32))


@TRAVERSALS
def test_a_constant_slice_becomes_its_sign(problem: Layer) -> None:
    for value in (7.0, -0.1):
        y = fn.rms_norm(np.full(problem.shape, value, np.float32), ones(problem), axis=problem.axis, eps=0.0)
        assert_within(y, np.full(problem.shape, np.sign(value)), tolerance.agreement(1.0, np.float32))


@TRAVERSALS
def test_rms_norm_of_slices_of_mean_0_is_layer_norm(problem: Layer) -> None:
    half = sample(problem)
    x = np.concatenate([half, -half], axis=problem.axis)
    y = fn.layer_norm(x, axis=problem.axis)
    assert_within(fn.rms_norm(x, np.ones(132), axis=problem.axis), y, tolerance.agreement(y, np.float32))


@TRAVERSALS
def test_norm_does_not_depend_on_the_order_of_slices_or_of_their_elements(problem: Layer) -> None:
    x, gamma = sample(problem), parameter(problem)
    y = fn.rms_norm(x, gamma, axis=problem.axis)
    bound = 2 * tolerance.output(oracle.forward(x, problem.slices, gamma=gamma, rms=True), np.float32)
    kept, normalized = 1 - problem.axis % 2, problem.axis % 2
    for axis, scale in ((kept, gamma), (normalized, gamma[::-1])):
        turned = np.ascontiguousarray(np.flip(x, axis))
        assert_within(fn.rms_norm(turned, scale, axis=problem.axis), np.flip(y, axis), np.flip(bound, axis))


def test_zeros_stay_zeros() -> None:
    for problem in (ROWS, COLUMNS):
        y, rstd = fn.rms_norm(np.zeros(problem.shape, np.float32), ones(problem), axis=problem.axis, return_stats=True)
        assert (y == 0).all()
        assert (rstd == 1 / np.sqrt(1e-5)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("problem", [ROWS, COLUMNS, AXES["channels of NCHW"]], ids=["rows", "columns", "channels of NCHW"])
def test_nan_and_inf_stay_in_their_slice(problem: Layer, bad: float) -> None:
    x = sample(problem)
    here = problem.slices.statistic == 17
    clean = fn.rms_norm(x, ones(problem), axis=problem.axis, return_stats=True)
    x.reshape(-1)[np.flatnonzero(here)[5]] = bad
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        y, rstd = fn.rms_norm(x, ones(problem), axis=problem.axis, return_stats=True)
    # x / inf is 0 for the finite elements of a slice with an infinite one; NaN may stand there too.
    assert np.isnan(y[here]).all() if np.isnan(bad) else np.isnan(y[here][5])
    np.testing.assert_array_equal(y[~here], clean.y[~here])
    np.testing.assert_array_equal(np.delete(rstd, 17), np.delete(clean.rstd, 17))


# --- values ---


@ALL_AXES
def test_every_choice_of_axes(problem: Layer) -> None:
    check_rms(sample(problem), problem.axis, gamma=parameter(problem))
    check_rms(sample(problem, offset=100.0), problem.axis, gamma=parameter(problem))


def test_without_gamma() -> None:
    check_rms(sample(ROWS))


@pytest.mark.parametrize("dtype", [cases.F8, *cases.FLOATS[3:]], ids=str)
def test_other_float_dtypes(dtype: np.dtype) -> None:
    """float16: in test_layer_norm.py, by the same kernels."""
    check_rms(sample(ROWS, dtype), gamma=parameter(ROWS, dtype))


@pytest.mark.parametrize("gamma", [cases.F8, cases.F2], ids=str)
def test_gamma_of_another_float_dtype(gamma: np.dtype) -> None:
    for problem in (ROWS, COLUMNS):
        check_rms(sample(problem), problem.axis, gamma=parameter(problem, gamma))


def test_gamma_may_be_a_list_or_strided() -> None:
    x, gamma = sample(ROWS), parameter(ROWS)
    check_rms(x, gamma=gamma.tolist())
    check_rms(x, gamma=cases.every_second(gamma, 0))
    check_rms(x, gamma=gamma[::-1])


@pytest.mark.parametrize("run", cases.RUNS)
def test_slices_around_tile_borders(run: int) -> None:
    for problem in (Layer((3, run)), Layer((run, 3), 0), Layer((2, run, 3), 1)):
        check_rms(sample(problem), problem.axis, gamma=parameter(problem))


@pytest.mark.parametrize("columns", cases.COLUMNS)
def test_numbers_of_slices_around_tile_borders(columns: int) -> None:
    for rows in cases.ROWS:
        if rows * columns <= 70_000:
            for problem in (Layer((columns, rows)), Layer((rows, columns), 0)):
                check_rms(sample(problem), problem.axis, gamma=parameter(problem))


@pytest.mark.parametrize("problem", LARGE_AXES.values(), ids=LARGE_AXES.keys())
def test_large_arrays(problem: Layer) -> None:
    check_rms(sample(problem), problem.axis, gamma=parameter(problem))


@pytest.mark.parametrize("eps", [0.0, 1e-12, 1.0, np.float32(0.5), 1])
def test_eps_is_inside_the_root(eps: float) -> None:
    check_rms(sample(ROWS, std=1e-3), gamma=parameter(ROWS), eps=eps)


@pytest.mark.parametrize("std", [1e-15, 1e-8, 1e8, 1e15])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_bound_holds_for_tiny_and_huge_values(offset: float, std: float) -> None:
    for problem in ACCURACY.values():
        x = sample(problem, offset=offset, std=std / max(offset, 1.0))
        check_rms(x, problem.axis, gamma=parameter(problem), eps=0.0)


def test_an_outlier_does_not_cost_the_others_their_digits() -> None:
    for problem in ACCURACY.values():
        x = sample(problem)
        x[problem.slices.parameter == 0] += 1e5
        check_rms(x, problem.axis, gamma=parameter(problem))


# --- out ---


@pytest.mark.parametrize("view", cases.WRITABLE_VIEWS)
def test_in_place_in_every_kind_of_memory(view: str) -> None:
    for problem in (ROWS, COLUMNS, AXES["second and fourth"]):
        x, gamma = VIEWS[view](sample(problem)), parameter(problem)
        check_rms(x, problem.axis, gamma=gamma, out=x, shared=True)


@TRAVERSALS
def test_in_place(problem: Layer) -> None:
    x, gamma = sample(problem), parameter(problem)
    fresh = fn.rms_norm(x, gamma, axis=problem.axis)
    check_rms(x, problem.axis, gamma=gamma, out=x, shared=True)
    np.testing.assert_array_equal(x, fresh)


@TRAVERSALS
@pytest.mark.parametrize("shift", [-64, 1, 100])
def test_out_that_overlaps_partially_acts_as_a_copy(shift: int, problem: Layer) -> None:
    buffer = np.zeros(30 * 66 + 200, np.float32)
    x = buffer[100:-100].reshape(problem.shape)
    x[...] = sample(problem)
    out = buffer[100 + shift : 100 + shift + x.size].reshape(problem.shape)
    check_rms(x, problem.axis, gamma=parameter(problem), out=out, shared=True)


# --- addition in front ---


@ALL_AXES
def test_add_for_every_choice_of_axes(problem: Layer) -> None:
    check_add_rms(sample(problem), sample(problem, seed=1, offset=50.0), problem.axis, gamma=parameter(problem))


@pytest.mark.parametrize("dtype", cases.FLOATS[3:], ids=str)
def test_add_in_bfloat16_rounds_the_sum_first(dtype: np.dtype) -> None:
    check_add_rms(sample(ROWS, dtype, offset=20.0), sample(ROWS, dtype, 1), gamma=parameter(ROWS, dtype))


@TRAVERSALS
def test_add_is_rms_norm_of_the_sum(problem: Layer) -> None:
    x, residual, gamma = sample(problem), sample(problem, seed=1), ones(problem)
    y, h = fn.add_rms_norm(x, residual, gamma, axis=problem.axis)
    np.testing.assert_array_equal(h, x + residual)
    assert_within(y, fn.rms_norm(h, gamma, axis=problem.axis), tolerance.agreement(y, np.float32))


@pytest.mark.parametrize("name", ["rows", "long rows", "columns"])
def test_add_of_large_arrays(name: str) -> None:
    problem = LARGE_AXES[name]
    check_add_rms(sample(problem), sample(problem, seed=1), problem.axis, gamma=parameter(problem))


@TRAVERSALS
@pytest.mark.parametrize("targets", ["fresh and x", "fresh and residual", "residual and x"])
def test_add_into_out(targets: str, problem: Layer) -> None:
    """The residual stream of a transformer is updated in place."""
    x, residual, gamma = sample(problem), sample(problem, seed=1), parameter(problem)
    fresh = np.full(problem.shape, 3, np.float32)
    out = {"fresh and x": (fresh, x), "fresh and residual": (fresh, residual), "residual and x": (residual, x)}[targets]
    expected = fn.add_rms_norm(x.copy(), residual.copy(), gamma, axis=problem.axis)
    check_add_rms(x, residual, problem.axis, gamma=gamma, out=out, shared=True)
    np.testing.assert_array_equal(out[0], expected.y)
    np.testing.assert_array_equal(out[1], expected.h)


# --- empty arrays, memory ---


@pytest.mark.parametrize(("shape", "axis"), [((0, 3), -1), ((3, 0), -1), ((0, 3), 0), ((2, 0, 4), (0, 2))])
def test_empty_arrays_give_empty_results(shape: tuple[int, ...], axis: Any) -> None:
    problem = Layer(shape, axis)
    x, gamma = np.zeros(shape, np.float32), np.ones(problem.slices.parameter_shape, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, rstd = fn.rms_norm(x, gamma, axis=axis, return_stats=True)
        added = fn.add_rms_norm(x, x, gamma, axis=axis, return_stats=True)
        dx, dgamma = fn.rms_norm_backward(x, x, rstd, gamma, axis=axis)
    for result in (y, added.y, added.h, dx):
        assert result.shape == shape
        assert result.dtype == np.float32
    assert rstd.shape == added.rstd.shape == problem.slices.statistic_shape
    np.testing.assert_array_equal(dgamma, np.zeros_like(gamma))


def test_no_temporary_as_large_as_the_input() -> None:
    x = np.random.default_rng(0).standard_normal((4096, 1024), np.float32)
    out, h, row = np.empty_like(x), np.empty_like(x), np.ones(1024, np.float32)
    assert peak(lambda: fn.rms_norm(x, row, out=out)) < LIMIT * x.nbytes
    assert peak(lambda: fn.add_rms_norm(x, x, row, out=(out, h))) < LIMIT * x.nbytes
    assert peak(lambda: fn.rms_norm_backward(x, x, np.ones(4096), row, out=out)) < LIMIT * x.nbytes
