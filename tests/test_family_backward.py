"""Gradients of layer, RMS, group and instance norm: the oracle first, then laws, central differences, values."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import oracle
import oracle_family
import pytest
import tolerance
from cases import VIEWS
from checks import check_backward
from checks_family import (
    ACCURACY,
    AXES,
    COLUMNS,
    GROUPS,
    LARGE_AXES,
    LARGE_GROUPS,
    NCHW,
    NHWC,
    ROWS,
    Group,
    Layer,
    check_group_backward,
    check_layer_backward,
    check_rms_backward,
    parameter,
    sample,
)
from tolerance import assert_within

import fastnorm as fn

ALL_AXES = pytest.mark.parametrize("problem", AXES.values(), ids=AXES.keys())
ALL_GROUPS = pytest.mark.parametrize("problem", GROUPS.values(), ids=GROUPS.keys())
IMAGES = pytest.mark.parametrize("problem", [NCHW, NHWC], ids=["NCHW", "NHWC"])
# For central differences, which cost two calls of the oracle per element.
SMALL_AXES = [Layer((3, 4)), Layer((4, 3), 0), Layer((2, 3, 2), 1), Layer((2, 3, 2), (0, 2)), Layer((2, 2, 3, 2), (1, 3))]
SMALL_GROUPS = [Group((2, 4, 2, 2), 2), Group((2, 2, 2, 4), 2, -1), Group((2, 6), 2), Group((2, 3, 2, 2), 3), Group((2, 2, 2, 3), 3, -1)]


def pair(problem: Layer | Group, dtype: Any = cases.F4, offset: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """dy and x."""
    return sample(problem, dtype, seed=7, offset=0.5), sample(problem, dtype, offset=offset)


def ones(problem: Layer | Group, dtype: Any = cases.F4) -> np.ndarray:
    """A gamma that changes nothing: for laws that hold without one, by the kernel that all other tests use."""
    return np.ones(problem.slices.parameter_shape, dtype)


def check(problem: Layer | Group, dy: Any, x: Any, **options: Any) -> Any:
    if isinstance(problem, Group):
        return check_group_backward(dy, x, problem.num_groups, problem.axis, **options)
    return check_layer_backward(dy, x, problem.axis, **options)


def forward(problem: Layer | Group, x: Any, **options: Any) -> Any:
    """y, mean, rstd"""
    options = {"axis": problem.axis, "return_stats": True, **options}
    return fn.group_norm(x, problem.num_groups, **options) if isinstance(problem, Group) else fn.layer_norm(x, **options)


def backward(problem: Layer | Group, dy: Any, x: Any, mean: Any, rstd: Any, gamma: Any = None) -> Any:
    if isinstance(problem, Group):
        return fn.group_norm_backward(dy, x, problem.num_groups, mean, rstd, gamma, axis=problem.axis)
    return fn.layer_norm_backward(dy, x, mean, rstd, gamma, axis=problem.axis)


# --- the oracle, so that it can be trusted ---


def differences(problem: Layer | Group, x: np.ndarray, parameters: np.ndarray, weight: np.ndarray, **options: Any) -> Any:
    """Of sum(weight * y): by x and by the stacked parameters. No formula of a gradient is involved."""

    def loss(x: np.ndarray, parameters: np.ndarray) -> float:
        y = oracle_family.forward(x, problem.slices, gamma=parameters[0], beta=parameters[1], **options).y
        return float((weight * y).sum())

    return (
        oracle.central_difference(lambda v: loss(v, parameters), x),
        oracle.central_difference(lambda v: loss(x, v), parameters),
        4 * float(np.abs(weight).sum()),
    )


def small(problem: Layer | Group) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy, x, and gamma above beta, in float64."""
    parameters = np.stack([parameter(problem, cases.F8), parameter(problem, cases.F8, 2)])
    return (*pair(problem, cases.F8), parameters)


@pytest.mark.parametrize(("activation", "rms"), [(None, False), (None, True), ("gelu", False), ("leaky_relu", False)])
@pytest.mark.parametrize("problem", [*SMALL_AXES, *SMALL_GROUPS], ids=str)
def test_oracle_is_the_derivative_of_its_forward_function(problem: Layer | Group, activation: str | None, rms: bool) -> None:
    dy, x, parameters = small(problem)
    by_x, by_parameters, size = differences(problem, x, parameters, dy, activation=activation, rms=rms)
    at = oracle_family.forward(x, problem.slices, rms=rms)
    options = {"gamma": parameters[0], "beta": parameters[1], "activation": activation}
    found = oracle_family.backward(dy, x, None if rms else at.mean, at.rstd, problem.slices, **options)
    assert_within(found.dx, by_x, tolerance.difference(by_x, size), "dx")
    assert_within(np.stack([found.dgamma, found.dbeta]), by_parameters, tolerance.difference(by_parameters, size), "parameters")


@pytest.mark.parametrize("problem", [AXES["fourth and second"], AXES["first of three"], AXES["first and last"]], ids=str)
def test_oracle_follows_numpy_in_any_axes(problem: Layer) -> None:
    x, gamma = sample(problem, cases.F8), parameter(problem, cases.F8)
    axes = tuple(sorted(np.atleast_1d(problem.axis) % x.ndim))
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    expected = (x - mean) / np.sqrt(var + 1e-5) * np.expand_dims(gamma, [k for k in range(x.ndim) if k not in axes])
    found = oracle_family.forward(x, problem.slices, gamma=gamma)
    np.testing.assert_allclose(found.y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.mean, mean.squeeze(axes), rtol=1e-13)
    rms = oracle_family.forward(x, problem.slices, gamma=gamma, rms=True)
    np.testing.assert_allclose(rms.rstd, 1 / np.sqrt((x**2).mean(axis=axes) + 1e-5), rtol=1e-13)


def test_oracle_of_groups_follows_numpy() -> None:
    x, gamma, beta = sample(NHWC, cases.F8), parameter(NHWC, cases.F8), parameter(NHWC, cases.F8, 2)
    groups = x.reshape(4, 35, 2, 3)
    expected = (groups - groups.mean(axis=(1, 3), keepdims=True)) / np.sqrt(groups.var(axis=(1, 3), keepdims=True) + 1e-5)
    found = oracle_family.forward(x, NHWC.slices, gamma=gamma, beta=beta)
    np.testing.assert_allclose(found.y, expected.reshape(x.shape) * gamma + beta, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.mean, groups.mean(axis=(1, 3)), rtol=1e-13)


# --- laws ---


@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
@pytest.mark.parametrize("problem", [*AXES.values(), *GROUPS.values()], ids=[*AXES, *GROUPS])
def test_gradient_sums_to_0_and_is_orthogonal_to_the_output(problem: Layer | Group, dtype: np.dtype) -> None:
    dy, x = pair(problem, dtype)
    slices = problem.slices
    exact = oracle_family.forward(x, slices, eps=0.0 if x.size > np.prod(slices.statistic_shape) else 1e-5)
    dx = backward(problem, dy, x, exact.mean, exact.rstd, ones(problem, dtype)).dx
    expected = oracle_family.backward(dy, x, exact.mean, exact.rstd, slices)
    bound = oracle_family.as_rows(tolerance.Gradient(expected, dtype).dx, slices)
    hat = oracle_family.as_rows(exact.y, slices)
    zeros = np.zeros(len(hat))
    # The float64 statistics are rounded: 2**-53 of |mean| / std, far below the bound's unit.
    assert_within(oracle.row_sums(oracle_family.as_rows(dx, slices)), zeros, bound.sum(axis=1) * 1.1)
    assert_within(oracle.row_sums(oracle_family.as_rows(dx, slices) * hat), zeros, (bound * (1 + np.abs(hat))).sum(axis=1) * 1.1)


@ALL_AXES
def test_rms_gradient_is_orthogonal_to_the_input(problem: Layer) -> None:
    dy, x = pair(problem)
    exact = oracle_family.forward(x, problem.slices, eps=0.0, rms=True)
    dx = fn.rms_norm_backward(dy, x, exact.rstd, ones(problem), axis=problem.axis).dx
    expected = oracle_family.backward(dy, x, None, exact.rstd, problem.slices)
    bound = oracle_family.as_rows(tolerance.Gradient(expected, np.float32).dx, problem.slices)
    hat = oracle_family.as_rows(exact.y, problem.slices)
    total = oracle.row_sums(oracle_family.as_rows(dx, problem.slices) * hat)
    assert_within(total, np.zeros(len(hat)), (bound * np.abs(hat)).sum(axis=1))


@pytest.mark.parametrize("problem", [ROWS, COLUMNS, NCHW, NHWC], ids=["rows", "columns", "NCHW", "NHWC"])
def test_backward_is_linear_in_the_gradient(problem: Layer | Group) -> None:
    dy, x = pair(problem)
    _, *statistics = forward(problem, x)
    gamma = parameter(problem)
    once, doubled = (backward(problem, factor * dy, x, *statistics, gamma) for factor in (1, 2))
    for a, b in zip(once, doubled, strict=True):  # powers of two scale every rounding
        np.testing.assert_array_equal(2 * a, b)
    for gradient in backward(problem, 0 * dy, x, *statistics, gamma):
        assert (gradient == 0).all()


@pytest.mark.parametrize("problem", [ROWS, COLUMNS, NCHW, NHWC], ids=["rows", "columns", "NCHW", "NHWC"])
def test_a_gradient_equal_to_the_output_vanishes(problem: Layer | Group) -> None:
    x = sample(problem, cases.F8)
    y, mean, rstd = forward(problem, x, eps=0.0)
    dx, dgamma, dbeta = backward(problem, y, x, mean, rstd, ones(problem, cases.F8))
    slices, bound = problem.slices, 8 * tolerance.unit(np.float64)  # |y| below 8, and a few roundings
    n = x.size / dgamma.size
    hat = oracle_family.as_rows(y, slices)
    assert_within(dgamma, oracle_family.sums_by_parameter(hat * hat, slices), 8 * n * bound)
    assert_within(dbeta, oracle_family.sums_by_parameter(hat, slices), n * bound)
    assert_within(dx, np.zeros(x.shape), 8 * bound * np.abs(rstd).max())


def test_layer_gradient_is_that_of_batch_norm_of_the_transposed() -> None:
    for problem, axis in ((ROWS, 0), (COLUMNS, 1)):
        dy, x = pair(problem)
        _, mean, rstd = fn.batch_norm_train(x, axis=axis)
        bound = tolerance.Gradient(oracle_family.backward(dy, x, mean, rstd, problem.slices), np.float32)
        expected = fn.batch_norm_backward(dy, x, mean, rstd, axis=axis).dx
        assert_within(backward(problem, dy, x, mean, rstd, ones(problem)).dx, expected, 2 * bound.dx)


@IMAGES
def test_gradients_of_one_group_and_of_groups_of_one_channel(problem: Group) -> None:
    dy, x = pair(problem)
    gamma, slices = parameter(problem), Group(problem.shape, 1, problem.axis).slices
    _, mean, rstd = fn.group_norm(x, 1, axis=problem.axis, return_stats=True)
    bound = tolerance.Gradient(oracle_family.backward(dy, x, mean, rstd, slices, gamma=gamma), np.float32, gamma)
    group = fn.group_norm_backward(dy, x, 1, mean, rstd, gamma, axis=problem.axis)
    layer = fn.layer_norm_backward(dy, x, mean[:, 0], rstd[:, 0], gamma[slices.parameter[0]], axis=(1, 2, 3))
    assert_within(group.dx, layer.dx, 2 * bound.dx)
    others = tuple(k for k in range(3) if k != (problem.axis - 1) % 4)
    assert_within(group.dgamma, layer.dgamma.astype(np.float64).sum(axis=others), 2 * bound.dgamma)
    assert_within(group.dbeta, layer.dbeta.astype(np.float64).sum(axis=others), 2 * bound.dbeta)

    _, mean, rstd = fn.instance_norm(x, axis=problem.axis, return_stats=True)
    slices = oracle_family.instance_slices(x.shape, problem.axis)
    bound = tolerance.Gradient(oracle_family.backward(dy, x, mean, rstd, slices, gamma=gamma), np.float32, gamma)
    instance = fn.instance_norm_backward(dy, x, mean, rstd, gamma, axis=problem.axis)
    group = fn.group_norm_backward(dy, x, problem.channels, mean, rstd, gamma, axis=problem.axis)
    for name in ("dx", "dgamma", "dbeta"):
        assert_within(getattr(instance, name), getattr(group, name), 2 * getattr(bound, name), name)


@pytest.mark.parametrize("problem", [ROWS, COLUMNS, NCHW, NHWC], ids=["rows", "columns", "NCHW", "NHWC"])
@pytest.mark.parametrize("place", ["dy", "x"])
def test_nan_stays_in_its_slice_and_in_the_parameters_it_meets(place: str, problem: Layer | Group) -> None:
    dy, x = pair(problem)
    _, mean, rstd = forward(problem, x)
    gamma, slices = parameter(problem), problem.slices
    clean = backward(problem, dy, x, mean, rstd, gamma)
    element = np.flatnonzero(slices.statistic == 5)[3]
    (dy if place == "dy" else x).reshape(-1)[element] = np.nan
    with np.errstate(all="raise"):
        result = backward(problem, dy, x, mean, rstd, gamma)
    here = slices.statistic == 5
    assert np.isnan(result.dx[here]).all()
    np.testing.assert_array_equal(result.dx[~here], clean.dx[~here])
    met = slices.parameter.reshape(-1)[element]
    assert np.isnan(result.dgamma[met])
    assert np.isnan(result.dbeta[met]) == (place == "dy")
    np.testing.assert_array_equal(np.delete(result.dgamma, met), np.delete(clean.dgamma, met))
    np.testing.assert_array_equal(np.delete(result.dbeta, met), np.delete(clean.dbeta, met))


# --- central differences: the whole chain in float64 ---


@pytest.mark.parametrize("problem", [*SMALL_AXES, *SMALL_GROUPS], ids=str)
def test_gradients_are_those_of_the_forward_function(problem: Layer | Group) -> None:
    dy, x, parameters = small(problem)
    by_x, by_parameters, size = differences(problem, x, parameters, dy)
    _, mean, rstd = forward(problem, x)
    dx, dgamma, dbeta = backward(problem, dy, x, mean, rstd, parameters[0])
    assert_within(dx, by_x, tolerance.difference(by_x, size), "dx")
    assert_within(np.stack([dgamma, dbeta]), by_parameters, tolerance.difference(by_parameters, size), "parameters")


@pytest.mark.parametrize("problem", SMALL_AXES[:2], ids=str)
def test_rms_gradients_are_those_of_the_forward_function(problem: Layer) -> None:
    dy, x, parameters = small(problem)
    by_x, by_parameters, size = differences(problem, x, parameters, dy, rms=True)
    rstd = oracle_family.forward(x, problem.slices, rms=True).rstd
    dx, dgamma = fn.rms_norm_backward(dy, x, rstd, parameters[0], axis=problem.axis)
    assert_within(dx, by_x, tolerance.difference(by_x, size), "dx")
    assert_within(dgamma, by_parameters[0], tolerance.difference(by_parameters, size), "dgamma")


# --- values: layer and RMS norm ---


@ALL_AXES
def test_every_choice_of_axes(problem: Layer) -> None:
    for offset in (1.0, 100.0):
        check(problem, *pair(problem, offset=offset), gamma=parameter(problem))


@ALL_AXES
def test_rms_for_every_choice_of_axes(problem: Layer) -> None:
    for offset in (1.0, 100.0):
        check_rms_backward(*pair(problem, offset=offset), problem.axis, gamma=parameter(problem))


def test_without_gamma() -> None:
    check(ROWS, *pair(ROWS))


@pytest.mark.parametrize("dtype", cases.FLOATS[-1:], ids=str)
def test_dx_has_the_dtype_of_x_when_dy_has_another(dtype: np.dtype) -> None:
    """bfloat16, or float16 where there is none."""
    check(ROWS, sample(ROWS, cases.F4, seed=7), sample(ROWS, dtype), gamma=parameter(ROWS))


def test_float16() -> None:
    check(ROWS, *pair(ROWS, cases.F2), gamma=parameter(ROWS, cases.F2))


@pytest.mark.parametrize("gamma", [cases.F8, cases.F2], ids=str)
def test_parameter_gradients_have_the_dtype_of_gamma(gamma: np.dtype) -> None:
    for problem in (ROWS, COLUMNS, NCHW, NHWC):
        check(problem, *pair(problem), gamma=parameter(problem, gamma))
    check_rms_backward(*pair(ROWS), gamma=parameter(ROWS, gamma))


def test_gamma_may_be_a_list_and_statistics_of_any_float_dtype() -> None:
    dy, x = pair(ROWS)
    _, mean, rstd = forward(ROWS, x)
    check(ROWS, dy, x, gamma=parameter(ROWS).tolist(), mean=mean.tolist(), rstd=rstd)
    check(ROWS, dy, x, mean=cases.every_second(mean.astype(np.float32), 0), rstd=rstd.astype(np.float32), gamma=parameter(ROWS))


@pytest.mark.parametrize("view", VIEWS)
def test_layer_in_every_kind_of_memory(view: str) -> None:
    """All operands in the same, or the output fresh where that is not writable."""
    for name in ("rows", "features first", "middle axis", "second and fourth", "first and last"):
        problem = AXES[name]
        dy, x = (VIEWS[view](array) for array in pair(problem))
        out = VIEWS[view](np.full(problem.shape, 3, np.float32)) if view in cases.WRITABLE_VIEWS else None
        check(problem, dy, x, gamma=parameter(problem), out=out)


@pytest.mark.parametrize("run", cases.RUNS)
def test_slices_around_tile_borders(run: int) -> None:
    for problem in (Layer((3, run)), Layer((run, 3), 0), Layer((2, run, 3), 1)):
        check(problem, *pair(problem, offset=10.0), gamma=parameter(problem))
    check_rms_backward(*pair(Layer((3, run))), gamma=parameter(Layer((3, run))))


@pytest.mark.parametrize("shape", [(4, 2048), (11, 2051), (5, 4100), (262, 2049)], ids=str)
def test_long_rows_are_summed_four_side_by_side(shape: tuple[int, int]) -> None:
    """And those that are left one by one."""
    dy, x = pair(Layer(shape), offset=1e3)
    x[1] *= 100  # no two rows alike
    x[2] += 7
    gamma = cases.parameter(shape[1])
    for weights in (gamma, None):
        check_layer_backward(dy, x, gamma=weights)
        check_rms_backward(dy, x, gamma=weights)
    check_layer_backward(dy.astype(cases.F8), x.astype(cases.F8), gamma=gamma)


@pytest.mark.parametrize("shape", [(8, 1024), (8, 2048), (300, 4096)], ids=str)
def test_roundings_of_equal_gradients_do_not_add_up(shape: tuple[int, int]) -> None:
    _, x = pair(Layer(shape))
    for value in (0.1, 0.7, 1.9):
        dy = np.full(shape, value, np.float32)
        check_layer_backward(dy, x)
        check_rms_backward(dy, x)


@pytest.mark.parametrize("shape", [(4, 4, 64, 64), (3, 4, 45, 45), (40, 8, 5, 5)], ids=str)
def test_roundings_of_equal_gradients_of_planes_do_not_add_up(shape: tuple[int, ...]) -> None:
    x = cases.sample(cases.Problem(shape), cases.F4)
    for value in (0.1, 0.7, 1.9):
        dy = np.full(shape, value, np.float32)
        check_backward(dy, x)
        for groups in (2, None):
            check_group_backward(dy, x, groups)


@pytest.mark.parametrize("columns", cases.COLUMNS)
def test_numbers_of_slices_around_tile_borders(columns: int) -> None:
    for rows in (2, 7, 9, 128, 129, 1000):
        if rows * columns <= 70_000:
            for problem in (Layer((columns, rows)), Layer((rows, columns), 0)):
                check(problem, *pair(problem, offset=10.0), gamma=parameter(problem))


@pytest.mark.parametrize("problem", LARGE_AXES.values(), ids=LARGE_AXES.keys())
def test_large_arrays(problem: Layer) -> None:
    check(problem, *pair(problem), gamma=parameter(problem))


@pytest.mark.parametrize("name", ["rows", "long rows", "columns"])
def test_rms_of_large_arrays(name: str) -> None:
    problem = LARGE_AXES[name]
    check_rms_backward(*pair(problem), problem.axis, gamma=parameter(problem))


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
def test_bound_holds_far_from_0(dtype: np.dtype, offset: float) -> None:
    for problem in (*ACCURACY.values(), NCHW, NHWC):
        check(problem, *pair(problem, dtype, offset=offset), gamma=parameter(problem))


@pytest.mark.parametrize("std", [1e-15, 1e-8, 1e8, 1e15])
def test_bound_holds_for_tiny_and_huge_values(std: float) -> None:
    for problem in (*ACCURACY.values(), NCHW, NHWC):
        dy, x = sample(problem, seed=7), sample(problem, std=std)
        at = oracle_family.forward(x, problem.slices, eps=0.0)
        check(problem, dy, x, mean=at.mean, rstd=at.rstd, gamma=parameter(problem))


# --- values: group and instance norm ---


@ALL_GROUPS
def test_every_layout_of_groups_and_instances(problem: Group) -> None:
    dy, x = pair(problem, offset=100.0)
    check(problem, dy, x)
    check(problem, dy, x, gamma=parameter(problem))
    check_group_backward(dy, x, None, problem.axis, gamma=parameter(problem))


@pytest.mark.parametrize(("problem", "dtype"), [(NCHW, cases.F8), (NHWC, cases.F8), (NCHW, cases.F2)], ids=["NCHW", "NHWC", "float16"])
def test_groups_in_other_dtypes(problem: Group, dtype: np.dtype) -> None:
    check(problem, *pair(problem, dtype))


@pytest.mark.parametrize(
    ("problem", "activation"),
    [*((NCHW, a) for a in oracle.ACTIVATIONS[1:]), (GROUPS["samples x features"], "silu")],
    ids=lambda value: "NCHW" if value is NCHW else "features" if isinstance(value, Group) else str(value),
)
def test_every_activation(problem: Group, activation: str) -> None:
    parameters = {"gamma": parameter(problem), "beta": parameter(problem, seed=2, low=0.5, high=8.0)}
    check(problem, *pair(problem), activation=activation, **parameters)
    check_group_backward(*pair(problem), None, problem.axis, activation=activation, **parameters)


@pytest.mark.parametrize("view", VIEWS)
def test_groups_in_every_kind_of_memory(view: str) -> None:
    for problem in (NCHW, NHWC, GROUPS["channel between"]):
        dy, x = pair(problem)
        check(problem, VIEWS[view](dy), x)
        check(problem, dy, VIEWS[view](x))


@pytest.mark.parametrize("plane", cases.SMALL_PLANES)
def test_small_planes(plane: int) -> None:
    for channels, num_groups in ((1, 1), (6, 2), (34, 17)):
        for problem in (Group((5, channels, plane), num_groups), Group((5, plane, channels), num_groups, -1)):
            check(problem, *pair(problem, offset=10.0), gamma=parameter(problem))


@pytest.mark.parametrize("run", cases.RUNS)
def test_runs_of_groups_around_tile_borders(run: int) -> None:
    for problem in (Group((2, 3, run), 1), Group((2, 2, run), 2), Group((2, run, 4), 2, -1)):
        check(problem, *pair(problem, offset=10.0), gamma=parameter(problem))


@pytest.mark.parametrize("channels", [64, 512, 514, 2050])
def test_channels_around_tile_borders(channels: int) -> None:
    for num_groups in (1, channels // 2, channels):
        for problem in (Group((3, channels), num_groups), Group((2, 9, channels), num_groups, -1), Group((2, channels, 9), num_groups)):
            check(problem, *pair(problem), gamma=parameter(problem))


@pytest.mark.parametrize("problem", LARGE_GROUPS.values(), ids=LARGE_GROUPS.keys())
def test_large_groups(problem: Group) -> None:
    check(problem, *pair(problem), gamma=parameter(problem))


# --- out ---


@pytest.mark.parametrize("view", cases.WRITABLE_VIEWS)
def test_out_of_groups_in_every_kind_of_memory(view: str) -> None:
    for problem in (NCHW, NHWC):
        check(problem, *pair(problem), out=VIEWS[view](np.full(problem.shape, 3.0, np.float32)))


@pytest.mark.parametrize("problem", [ROWS, COLUMNS, NCHW, NHWC], ids=["rows", "columns", "NCHW", "NHWC"])
@pytest.mark.parametrize("target", ["dy", "x"])
def test_in_place(target: str, problem: Layer | Group) -> None:
    dy, x = pair(problem)
    check(problem, dy, x, gamma=parameter(problem), out=dy if target == "dy" else x, shared=True)
    if problem in (ROWS, COLUMNS):
        dy, x = pair(problem)
        check_rms_backward(dy, x, problem.axis, gamma=parameter(problem), out=dy if target == "dy" else x, shared=True)


@pytest.mark.parametrize("problem", [ROWS, COLUMNS, NCHW, NHWC], ids=["rows", "columns", "NCHW", "NHWC"])
@pytest.mark.parametrize("shift", [-5, 1, 64])
def test_out_that_overlaps_partially_acts_as_a_copy(shift: int, problem: Layer | Group) -> None:
    for target in ("dy", "x"):
        dy, x = pair(problem)
        buffer = np.zeros(x.size + 200, np.float32)
        moved = buffer[100 : 100 + x.size].reshape(x.shape)
        moved[...] = dy if target == "dy" else x
        out = buffer[100 + shift : 100 + shift + x.size].reshape(x.shape)
        inputs = (moved, x) if target == "dy" else (dy, moved)
        check(problem, *inputs, gamma=parameter(problem), out=out, shared=True)


def test_out_that_covers_gamma_and_the_statistics_acts_as_a_copy() -> None:
    for problem in (ROWS, NCHW):
        dy, x = pair(problem, cases.F8)
        at = oracle_family.forward(x, problem.slices)
        out = np.full(problem.shape, 3, cases.F8)
        flat, n, m = out.reshape(-1), at.mean.size, parameter(problem).size
        mean, rstd = flat[:n].reshape(at.mean.shape), flat[-n:].reshape(at.mean.shape)
        gamma = flat[200 : 200 + m].reshape(parameter(problem).shape)
        mean[...], rstd[...], gamma[...] = at.mean, at.rstd, parameter(problem, cases.F8)
        check(problem, dy, x, mean=mean, rstd=rstd, gamma=gamma, out=out, shared=True)
