"""Layer normalization, alone and with an addition in front: laws first, then values against the oracle."""

from __future__ import annotations

import warnings
from typing import Any

import cases
import numpy as np
import oracle_family as oracle
import pytest
import tolerance
from cases import VIEWS
from checks_family import ACCURACY, AXES, COLUMNS, LARGE_AXES, LIMIT, ROWS, Layer, check_add_layer, check_layer, parameter, sample
from test_memory import peak
from tolerance import assert_within

import fastnorm as fn

EPS = 1e-5
TRAVERSALS = pytest.mark.parametrize("problem", [ROWS, COLUMNS], ids=["rows", "columns"])
ALL_AXES = pytest.mark.parametrize("problem", AXES.values(), ids=AXES.keys())


def both(problem: Layer, dtype: Any = cases.F4) -> dict[str, Any]:
    return {"gamma": parameter(problem, dtype), "beta": parameter(problem, dtype, 2)}


def by_slice(values: np.ndarray, problem: Layer) -> np.ndarray:
    """One number per slice, at all of its elements."""
    return values.reshape(-1)[problem.slices.statistic]


# --- laws ---


@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
@ALL_AXES
def test_output_has_mean_0_and_variance_var_over_var_plus_eps(problem: Layer, dtype: np.dtype) -> None:
    x = sample(problem, dtype, offset=30.0)
    found = oracle.moments(oracle.as_rows(fn.layer_norm(x, axis=problem.axis, eps=0.125), problem.slices))
    var = oracle.moments(oracle.as_rows(x, problem.slices)).var
    # Errors e of y with |e| <= u (1 + |y|): the mean moves by u (1 + E|y|) <= 2 u, the variance by 2 E|y e| <= 4 u.
    assert_within(found.high, np.zeros_like(var), 2 * tolerance.unit(dtype))
    assert_within(found.var, var / (var + 0.125), 4 * tolerance.unit(dtype))


@TRAVERSALS
def test_norm_is_invariant_to_scale_and_shift_of_each_slice(problem: Layer) -> None:
    x = np.round(sample(problem) * 256) / 256  # a * x + b is exact: powers of two and short integers
    a = by_slice(np.resize(np.array([4.0, 0.25, 64.0, 1.0], np.float32), 30), problem)
    b = by_slice(np.resize(np.array([8.0, -3.0, 0.0, 100.0, 7.0], np.float32), 30), problem)
    y = fn.layer_norm(x, axis=problem.axis, eps=0.0)
    bound = tolerance.agreement(y, np.float32)
    assert_within(fn.layer_norm(a * x + b, axis=problem.axis, eps=0.0), y, bound)
    assert_within(fn.layer_norm(-x, axis=problem.axis, eps=0.0), -y, bound)


@TRAVERSALS
def test_norm_does_not_depend_on_the_order_of_slices_or_of_their_elements(problem: Layer) -> None:
    x, parameters = sample(problem), both(problem)
    y = fn.layer_norm(x, **parameters, axis=problem.axis)
    bound = 2 * tolerance.output(oracle.forward(x, problem.slices, **parameters), np.float32)
    kept, normalized = 1 - problem.axis % 2, problem.axis % 2
    turned = np.ascontiguousarray(np.flip(x, kept))
    assert_within(fn.layer_norm(turned, **parameters, axis=problem.axis), np.flip(y, kept), np.flip(bound, kept))
    order = np.random.default_rng(0).permutation(66)
    shuffled = {name: values[order] for name, values in parameters.items()}
    found = fn.layer_norm(x.take(order, normalized), **shuffled, axis=problem.axis)
    assert_within(found, y.take(order, normalized), bound.take(order, normalized))


def test_memory_of_one_problem_in_any_order_agrees() -> None:
    problem = AXES["second and fourth"]
    x, parameters = sample(problem), both(problem)
    y = fn.layer_norm(x, **parameters, axis=(1, 3))
    bound = 2 * tolerance.output(oracle.forward(x, problem.slices, **parameters), np.float32)
    for order, axis in (((0, 2, 1, 3), (2, 3)), ((1, 3, 0, 2), (0, 1)), ((0, 1, 3, 2), (1, 2))):
        moved = fn.layer_norm(np.ascontiguousarray(x.transpose(order)), **parameters, axis=axis)
        assert_within(moved, y.transpose(order), bound.transpose(order))


@TRAVERSALS
def test_layer_norm_is_batch_norm_of_the_transposed(problem: Layer) -> None:
    x = sample(problem)
    y, mean, rstd = fn.layer_norm(x, axis=problem.axis, return_stats=True)
    batch = fn.batch_norm_train(x, axis=1 - problem.axis % 2)
    assert_within(y, batch.y, tolerance.agreement(y, np.float32))
    var = 1 / batch.rstd**2
    assert_within(mean, batch.mean, 2 * tolerance.mean(batch.mean, var, np.float32))
    assert_within(rstd, batch.rstd, 2 * tolerance.rstd(batch.rstd, np.float32))


@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
@TRAVERSALS
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e4, 1e6 + 1 / 3])
def test_constant_slice_has_variance_0_and_gives_beta_alone(value: float, problem: Layer, dtype: np.dtype) -> None:
    x = sample(problem, dtype)
    here = problem.slices.statistic == 17
    x[here] = value
    y, mean, rstd = fn.layer_norm(x, axis=problem.axis, return_stats=True)
    assert mean[17] == float(dtype.type(value))
    assert rstd[17] == 1 / np.sqrt(EPS)
    assert (y[here] == 0).all()
    if dtype == cases.F4:
        parameters = both(problem)
        y = fn.layer_norm(x, **parameters, axis=problem.axis)
        np.testing.assert_array_equal(y[here], parameters["beta"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("problem", [ROWS, COLUMNS, AXES["channels of NCHW"]], ids=["rows", "columns", "channels of NCHW"])
def test_nan_and_inf_stay_in_their_slice(problem: Layer, bad: float) -> None:
    x = sample(problem)
    here = problem.slices.statistic == 17
    clean = fn.layer_norm(x, axis=problem.axis, return_stats=True)
    x.reshape(-1)[np.flatnonzero(here)[5]] = bad
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        y, mean, rstd = fn.layer_norm(x, axis=problem.axis, return_stats=True)
    assert np.isnan(y[here]).all()
    assert np.isnan(rstd.flat[17])
    assert not np.isfinite(mean.flat[17])
    np.testing.assert_array_equal(y[~here], clean.y[~here])
    for found, expected in ((mean, clean.mean), (rstd, clean.rstd)):
        np.testing.assert_array_equal(np.delete(found, 17), np.delete(expected, 17))


# --- values ---


@ALL_AXES
def test_every_choice_of_axes(problem: Layer) -> None:
    check_layer(sample(problem), problem.axis)
    check_layer(sample(problem, offset=100.0), problem.axis, **both(problem))


def test_float16() -> None:
    """bfloat16: in test_rms_norm.py, by the same kernels."""
    check_layer(sample(ROWS, cases.F2), **both(ROWS, cases.F2))


def test_integers_are_computed_and_returned_in_float64() -> None:
    check_layer(sample(ROWS, np.int16))


@pytest.mark.parametrize("gamma", [None, cases.F4, cases.F8, cases.F2], ids=str)
@pytest.mark.parametrize("beta", [None, cases.F4, cases.F8, cases.F2], ids=str)
def test_gamma_and_beta_of_any_float_dtype_or_absent(gamma: Any, beta: Any) -> None:
    scale = None if gamma is None else parameter(ROWS, gamma)
    shift = None if beta is None else parameter(ROWS, beta, 2)
    check_layer(sample(ROWS), gamma=scale, beta=shift)


def test_parameters_may_be_lists_and_strided() -> None:
    x, values = sample(ROWS), parameter(ROWS)
    check_layer(x, gamma=values.tolist(), beta=cases.every_second(values, 0))
    problem = AXES["second and fourth"]
    gamma, beta = parameter(problem), parameter(problem, seed=2)
    for name in ("Fortran", "negative strides", "inner part", "misaligned", "big-endian", "read-only"):
        check_layer(sample(problem), problem.axis, gamma=VIEWS[name](gamma), beta=VIEWS[name](beta))


def test_large_parameters_are_relative_to_the_largest_term() -> None:
    for problem in (ROWS, COLUMNS):
        gamma, beta = parameter(problem, low=100, high=1e5), parameter(problem, low=1e3, high=1e6)
        check_layer(sample(problem), problem.axis, gamma=gamma, beta=beta)


@pytest.mark.parametrize("view", VIEWS)
def test_every_kind_of_memory(view: str) -> None:
    """Into an output of the same kind, or a fresh one where that is not writable."""
    for name in ("rows", "tokens, two axes", "features first", "middle axis", "second and fourth", "first and last", "first and third"):
        problem = AXES[name]
        out = VIEWS[view](np.full(problem.shape, 3, np.float32)) if view in cases.WRITABLE_VIEWS else None
        check_layer(VIEWS[view](sample(problem)), problem.axis, out=out, **both(problem))


def test_nested_lists_are_arrays() -> None:
    x = sample(ROWS, cases.F8)
    np.testing.assert_array_equal(fn.layer_norm(x.tolist()), fn.layer_norm(x))


@pytest.mark.parametrize("run", cases.RUNS)
def test_slices_around_tile_borders(run: int) -> None:
    for problem in (Layer((3, run)), Layer((run, 3), 0), Layer((2, run, 3), 1), Layer((run, 2, 3), (0, 2))):
        check_layer(sample(problem, offset=10.0), problem.axis, **both(problem))
    check_layer(sample(Layer((3, run)), offset=10.0))


@pytest.mark.parametrize("columns", cases.COLUMNS)
def test_numbers_of_slices_around_tile_borders(columns: int) -> None:
    for rows in cases.ROWS:
        if rows * columns <= 70_000:
            for problem in (Layer((columns, rows)), Layer((rows, columns), 0)):
                check_layer(sample(problem, offset=10.0), problem.axis, **both(problem))


@pytest.mark.parametrize("problem", LARGE_AXES.values(), ids=LARGE_AXES.keys())
def test_large_arrays(problem: Layer) -> None:
    check_layer(sample(problem, offset=100.0), problem.axis, **both(problem))


@pytest.mark.parametrize("eps", [0.0, 1e-12, 1.0, np.float32(0.5), 1])
def test_eps_is_inside_the_root(eps: float) -> None:
    for problem in (ROWS, COLUMNS):
        check_layer(sample(problem, std=1e-3), problem.axis, eps=eps)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
@pytest.mark.parametrize("problem", ACCURACY.values(), ids=ACCURACY.keys())
def test_bound_holds_far_from_0(problem: Layer, dtype: np.dtype, offset: float) -> None:
    check_layer(sample(problem, dtype, offset=offset), problem.axis, eps=0.0)


@pytest.mark.parametrize("std", [1e-15, 1e-5, 1e8, 1e15])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_bound_holds_for_tiny_and_huge_values(offset: float, std: float) -> None:
    for problem in ACCURACY.values():
        check_layer(sample(problem, offset=offset, std=std), problem.axis, eps=0.0)


def test_an_outlier_does_not_cost_the_others_their_digits() -> None:
    for problem in ACCURACY.values():
        x = sample(problem)
        x[problem.slices.parameter == 0] += 1e5
        check_layer(x, problem.axis)


# --- out ---


@pytest.mark.parametrize("view", cases.WRITABLE_VIEWS)
def test_in_place_in_every_kind_of_memory(view: str) -> None:
    for problem in (ROWS, COLUMNS, AXES["second and fourth"], AXES["first and last"]):
        x = VIEWS[view](sample(problem))
        check_layer(x, problem.axis, out=x, shared=True, **both(problem))


@pytest.mark.parametrize("view", ["every second, axis 1", "inner part", "negative strides"])
def test_nothing_is_written_beside_a_strided_out(view: str) -> None:
    for problem in (ROWS, COLUMNS):
        out = VIEWS[view](np.full(problem.shape, 3, np.float32))
        owner = out
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        owner[...] = 77
        fn.layer_norm(VIEWS[view](sample(problem)), **both(problem), axis=problem.axis, out=out)
        assert (out != 77).all()
        out[...] = 77
        assert (owner == 77).all()


def test_out_of_another_float_dtype() -> None:
    check_layer(sample(ROWS), out=np.full(ROWS.shape, 3, np.float16), **both(ROWS))


@TRAVERSALS
def test_in_place(problem: Layer) -> None:
    x, parameters = sample(problem), both(problem)
    fresh = fn.layer_norm(x, **parameters, axis=problem.axis)
    check_layer(x, problem.axis, out=x, shared=True, **parameters)
    np.testing.assert_array_equal(x, fresh)


@TRAVERSALS
@pytest.mark.parametrize("shift", [-64, -1, 1, 3, 100])
def test_out_that_overlaps_partially_acts_as_a_copy(shift: int, problem: Layer) -> None:
    buffer = np.zeros(30 * 66 + 200, np.float32)
    x = buffer[100:-100].reshape(problem.shape)
    x[...] = sample(problem)
    check_layer(x, problem.axis, out=buffer[100 + shift : 100 + shift + x.size].reshape(problem.shape), shared=True)


def test_out_that_is_a_reversed_or_transposed_input_acts_as_a_copy() -> None:
    for axis in (0, -1):
        for turn in (lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a.T):
            x = sample(Layer((20, 20), axis))
            check_layer(x, axis, out=turn(x), shared=True)


@TRAVERSALS
def test_out_that_covers_a_parameter_acts_as_a_copy(problem: Layer) -> None:
    """Parameters of the dtype that is computed in need no conversion that would be a copy by chance."""
    out = np.full(problem.shape, 3, np.float32)
    gamma, beta = out.reshape(-1)[:66], out.reshape(-1)[-66:]
    gamma[...], beta[...] = parameter(problem), parameter(problem, seed=2)
    check_layer(sample(problem), problem.axis, gamma=gamma, beta=beta, out=out, shared=True)


# --- addition in front ---


@ALL_AXES
def test_add_for_every_choice_of_axes(problem: Layer) -> None:
    check_add_layer(sample(problem), sample(problem, seed=1, offset=50.0), problem.axis, **both(problem))


def test_add_in_float16_rounds_the_sum_first() -> None:
    check_add_layer(sample(ROWS, cases.F2, offset=20.0), sample(ROWS, cases.F2, 1), **both(ROWS, cases.F2))


@TRAVERSALS
def test_add_is_layer_norm_of_the_sum(problem: Layer) -> None:
    x, residual, parameters = sample(problem), sample(problem, seed=1), both(problem)
    y, h = fn.add_layer_norm(x, residual, **parameters, axis=problem.axis)
    np.testing.assert_array_equal(h, x + residual)
    bound = 2 * tolerance.output(oracle.forward(h, problem.slices, **parameters), np.float32)
    assert_within(y, fn.layer_norm(h, **parameters, axis=problem.axis), bound)


@pytest.mark.parametrize("view", ["reversed axis 1", "negative strides", "misaligned", "big-endian", "broadcast last axis", "one value"])
def test_add_in_other_memory(view: str) -> None:
    """One kernel for all four operands strided; the outputs of a view that is not writable are strided otherwise."""
    x, residual = VIEWS[view](sample(ROWS)), VIEWS[view](sample(ROWS, seed=1))
    make = VIEWS[view if view in cases.WRITABLE_VIEWS else "every second, last axis"]
    check_add_layer(x, residual, out=(make(np.full(ROWS.shape, 3, np.float32)), make(np.full(ROWS.shape, 4, np.float32))), **both(ROWS))


@pytest.mark.parametrize("run", cases.RUNS)
def test_add_around_tile_borders(run: int) -> None:
    for problem in (Layer((3, run)), Layer((run, 3), 0)):
        check_add_layer(sample(problem), sample(problem, seed=1), problem.axis, **both(problem))


@pytest.mark.parametrize("name", ["rows", "long rows", "columns"])
def test_add_of_large_arrays(name: str) -> None:
    problem = LARGE_AXES[name]
    check_add_layer(sample(problem), sample(problem, seed=1), problem.axis, **both(problem))


@TRAVERSALS
@pytest.mark.parametrize("targets", ["fresh", "x and fresh", "fresh and x", "fresh and residual", "residual and x"])
def test_add_into_out(targets: str, problem: Layer) -> None:
    x, residual = sample(problem), sample(problem, seed=1)
    fresh, other = np.full(problem.shape, 3, np.float32), np.full(problem.shape, 4, np.float32)
    out = {
        "fresh": (fresh, other),
        "x and fresh": (x, fresh),
        "fresh and x": (fresh, x),
        "fresh and residual": (fresh, residual),
        "residual and x": (residual, x),
    }[targets]
    expected = fn.add_layer_norm(x.copy(), residual.copy(), **both(problem), axis=problem.axis)
    check_add_layer(x, residual, problem.axis, out=out, shared="x" in targets or "residual" in targets, **both(problem))
    np.testing.assert_array_equal(out[0], expected.y)
    np.testing.assert_array_equal(out[1], expected.h)


@pytest.mark.parametrize("shift", [-7, 1, 64])
@pytest.mark.parametrize("which", ["y", "h"])
def test_add_into_out_that_overlaps_partially_acts_as_a_copy(which: str, shift: int) -> None:
    for shared_input in ("x", "residual"):
        buffer = np.zeros(30 * 66 + 200, np.float32)
        moved = buffer[100:-100].reshape(ROWS.shape)
        overlapping = buffer[100 + shift : 100 + shift + moved.size].reshape(ROWS.shape)
        moved[...], other = sample(ROWS), sample(ROWS, seed=1)
        x, residual = (moved, other) if shared_input == "x" else (other, moved)
        fresh = np.full(ROWS.shape, 3, np.float32)
        out = (overlapping, fresh) if which == "y" else (fresh, overlapping)
        check_add_layer(x, residual, out=out, shared=True, **both(ROWS))


# --- empty arrays, memory ---


@pytest.mark.parametrize(("shape", "axis"), [((0, 3), -1), ((3, 0), -1), ((0, 3), 0), ((2, 0, 4), 1), ((2, 0, 4), (0, 2)), ((0, 0), 1)])
@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_empty_arrays_give_empty_results(dtype: np.dtype, shape: tuple[int, ...], axis: Any) -> None:
    problem = Layer(shape, axis)
    x, gamma = np.zeros(shape, dtype), np.ones(problem.slices.parameter_shape, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normalized = fn.layer_norm(x, gamma, gamma, axis=axis, return_stats=True)
        added = fn.add_layer_norm(x, x, gamma, gamma, axis=axis, return_stats=True)
        gradients = fn.layer_norm_backward(x, x, normalized.mean, normalized.rstd, gamma, axis=axis)
    for result in (normalized.y, added.y, added.h, gradients.dx):
        assert result.shape == shape
        assert result.dtype == dtype
    for statistics in (normalized.mean, normalized.rstd, added.mean, added.rstd):
        assert statistics.shape == problem.slices.statistic_shape
        assert statistics.dtype == np.float64
    for gradient in (gradients.dgamma, gradients.dbeta):
        np.testing.assert_array_equal(gradient, np.zeros_like(gamma))


def test_no_temporary_as_large_as_the_input() -> None:
    x = np.random.default_rng(0).standard_normal((4096, 1024), np.float32)
    out, h, row = np.empty_like(x), np.empty_like(x), np.ones(1024, np.float32)
    assert peak(lambda: fn.layer_norm(x, row, row, out=out)) < LIMIT * x.nbytes
    assert peak(lambda: fn.layer_norm(x[::2], row, row, out=out[::2])) < LIMIT * x.nbytes
    assert peak(lambda: fn.add_layer_norm(x, x, row, row, out=(out, h))) < LIMIT * x.nbytes
    mean, rstd = np.zeros(4096), np.ones(4096)
    assert peak(lambda: fn.layer_norm_backward(x, x, mean, rstd, row, out=out)) < LIMIT * x.nbytes
    tall, tall_out, column = x.reshape(-1, 512), out.reshape(-1, 512), np.ones(x.size // 512, np.float32)
    mean, rstd = np.zeros(512), np.ones(512)
    assert peak(lambda: fn.layer_norm(tall, column, column, axis=0, out=tall_out)) < LIMIT * x.nbytes
    assert peak(lambda: fn.layer_norm_backward(tall, tall, mean, rstd, column, axis=0, out=tall_out)) < LIMIT * x.nbytes
