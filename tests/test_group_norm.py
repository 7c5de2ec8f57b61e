"""Group and instance normalization: laws first, then values against the oracle."""

from __future__ import annotations

import warnings
from typing import Any

import cases
import numpy as np
import oracle
import oracle_family
import pytest
import tolerance
from cases import VIEWS
from checks_family import GROUPS, LARGE_GROUPS, LIMIT, NCHW, NHWC, Group, check_group, check_instance, parameter, sample
from test_memory import peak
from tolerance import assert_within

import fastnorm as fn

EPS = 1e-5
TRAVERSALS = pytest.mark.parametrize("problem", [NCHW, NHWC], ids=["NCHW", "NHWC"])
ALL_GROUPS = pytest.mark.parametrize("problem", GROUPS.values(), ids=GROUPS.keys())


def both(problem: Group, dtype: Any = cases.F4) -> dict[str, Any]:
    return {"gamma": parameter(problem, dtype), "beta": parameter(problem, dtype, 2)}


def check(x: Any, problem: Group, **options: Any) -> Any:
    return check_group(x, problem.num_groups, problem.axis, **options)


def group_norm(x: Any, problem: Group, **options: Any) -> Any:
    return fn.group_norm(x, problem.num_groups, axis=problem.axis, **options)


# --- laws ---


@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
@ALL_GROUPS
def test_output_has_mean_0_and_variance_var_over_var_plus_eps(problem: Group, dtype: np.dtype) -> None:
    x = sample(problem, dtype, offset=30.0)
    found = oracle_family.moments(oracle_family.as_rows(group_norm(x, problem, eps=0.125), problem.slices))
    var = oracle_family.moments(oracle_family.as_rows(x, problem.slices)).var
    # Errors e of y with |e| <= u (1 + |y|): the mean moves by u (1 + E|y|) <= 2 u, the variance by 2 E|y e| <= 4 u.
    assert_within(found.high, np.zeros_like(var), 2 * tolerance.unit(dtype))
    assert_within(found.var, var / (var + 0.125), 4 * tolerance.unit(dtype))


@TRAVERSALS
def test_norm_is_invariant_to_scale_and_shift_of_each_group(problem: Group) -> None:
    x = np.round(sample(problem) * 256) / 256  # a * x + b is exact: powers of two and short integers
    statistic = problem.slices.statistic
    a = np.array([4.0, 0.25, 64.0, 1.0], np.float32)[statistic % 4]
    b = np.array([8.0, -3.0, 0.0, 100.0, 7.0], np.float32)[statistic % 5]
    y = group_norm(x, problem, eps=0.0)
    bound = tolerance.agreement(y, np.float32)
    assert_within(group_norm(a * x + b, problem, eps=0.0), y, bound)
    assert_within(group_norm(-x, problem, eps=0.0), -y, bound)


@TRAVERSALS
def test_norm_does_not_depend_on_the_order_of_samples_groups_or_channels_of_a_group(problem: Group) -> None:
    x, parameters = sample(problem), both(problem)
    y = group_norm(x, problem, **parameters)
    bound = 2 * tolerance.output(oracle_family.forward(x, problem.slices, **parameters), np.float32)
    assert_within(group_norm(x[::-1], problem, **parameters), y[::-1], bound[::-1])
    each = problem.channels // problem.num_groups
    channels = np.arange(problem.channels).reshape(problem.num_groups, each)
    for order in (channels[::-1].ravel(), channels[:, ::-1].ravel()):
        shuffled = {name: values[order] for name, values in parameters.items()}
        found = group_norm(x.take(order, problem.axis), problem, **shuffled)
        assert_within(found, y.take(order, problem.axis), bound.take(order, problem.axis))


def test_layouts_of_one_problem_agree() -> None:
    x, parameters = sample(NCHW), both(NCHW)
    y = group_norm(x, NCHW, **parameters)
    bound = 2 * tolerance.output(oracle_family.forward(x, NCHW.slices, **parameters), np.float32)
    for order, axis in (((0, 2, 3, 1), -1), ((0, 2, 1, 3), 2)):
        moved = fn.group_norm(np.ascontiguousarray(x.transpose(order)), NCHW.num_groups, **parameters, axis=axis)
        assert_within(moved, y.transpose(order), bound.transpose(order))


@TRAVERSALS
def test_one_group_is_layer_norm_with_parameters_constant_per_channel(problem: Group) -> None:
    x, parameters = sample(problem), both(problem)
    y, mean, rstd = fn.group_norm(x, 1, **parameters, axis=problem.axis, return_stats=True)
    per_element = {name: values[problem.slices.parameter[0]] for name, values in parameters.items()}
    layer = fn.layer_norm(x, **per_element, axis=(1, 2, 3), return_stats=True)
    exact = oracle_family.forward(x, oracle_family.group_slices(x.shape, 1, problem.axis), **parameters)
    assert_within(y, layer.y, 2 * tolerance.output(exact, np.float32))
    assert_within(mean[:, 0], layer.mean, 2 * tolerance.mean(exact.mean, exact.var, np.float32)[:, 0])
    assert_within(rstd[:, 0], layer.rstd, 2 * tolerance.rstd(exact.rstd, np.float32)[:, 0])


@TRAVERSALS
def test_as_many_groups_as_channels_are_instance_norm(problem: Group) -> None:
    x, parameters = sample(problem), both(problem)
    groups = fn.group_norm(x, problem.channels, **parameters, axis=problem.axis, return_stats=True)
    instances = fn.instance_norm(x, **parameters, axis=problem.axis, return_stats=True)
    exact = oracle_family.forward(x, oracle_family.instance_slices(x.shape, problem.axis), **parameters)
    assert_within(groups.y, instances.y, 2 * tolerance.output(exact, np.float32))
    assert_within(groups.mean, instances.mean, 2 * tolerance.mean(exact.mean, exact.var, np.float32))
    assert_within(groups.rstd, instances.rstd, 2 * tolerance.rstd(exact.rstd, np.float32))


@TRAVERSALS
def test_instance_norm_of_one_sample_is_batch_norm(problem: Group) -> None:
    x, parameters = sample(problem)[:1], both(problem)
    batch = fn.batch_norm_train(x, **parameters, axis=problem.axis)
    exact = oracle.forward(x, problem.axis, **parameters)
    found = fn.instance_norm(x, **parameters, axis=problem.axis, return_stats=True)
    assert_within(found.y, batch.y, 2 * tolerance.output(exact, np.float32))
    assert_within(found.mean[0], batch.mean, 2 * tolerance.mean(exact.mean, exact.var, np.float32))


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 1), (5, 3, 1, 1), (1, 3)])
def test_instance_norm_of_one_value_gives_beta(shape: tuple[int, ...]) -> None:
    x, beta = np.random.default_rng(0).standard_normal(shape).astype(np.float32), cases.parameter(3)
    y, mean, rstd = fn.instance_norm(x, cases.parameter(3, seed=3), beta, return_stats=True)
    np.testing.assert_array_equal(y, np.broadcast_to(beta.reshape(1, 3, *[1] * (x.ndim - 2)), shape))
    np.testing.assert_array_equal(mean, x.reshape(mean.shape))
    assert (rstd == 1 / np.sqrt(EPS)).all()
    assert (fn.instance_norm(np.moveaxis(x, 1, -1), axis=-1) == 0).all()


@TRAVERSALS
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 1 / 3])
def test_constant_group_has_variance_0_and_gives_beta_alone(value: float, problem: Group) -> None:
    x, parameters = sample(problem), both(problem)
    here = problem.slices.statistic == 5
    x[here] = value
    y, mean, rstd = group_norm(x, problem, **parameters, return_stats=True)
    assert mean.flat[5] == float(np.float32(value))
    assert rstd.flat[5] == 1 / np.sqrt(EPS)
    np.testing.assert_array_equal(y[here], parameters["beta"][problem.slices.parameter[here]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@TRAVERSALS
def test_nan_and_inf_stay_in_their_group(problem: Group, bad: float) -> None:
    x, parameters = sample(problem), both(problem)
    here = problem.slices.statistic == 5
    clean = group_norm(x, problem, **parameters, return_stats=True)
    x.reshape(-1)[np.flatnonzero(here)[7]] = bad
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        y, mean, rstd = group_norm(x, problem, **parameters, return_stats=True)
    assert np.isnan(y[here]).all()
    assert np.isnan(rstd.flat[5])
    assert not np.isfinite(mean.flat[5])
    np.testing.assert_array_equal(y[~here], clean.y[~here])
    for found, expected in ((mean, clean.mean), (rstd, clean.rstd)):
        np.testing.assert_array_equal(np.delete(found, 5), np.delete(expected, 5))


# --- values ---


@ALL_GROUPS
def test_every_layout_of_groups(problem: Group) -> None:
    check(sample(problem), problem)
    check(sample(problem, offset=100.0), problem, **both(problem))


@ALL_GROUPS
def test_every_layout_of_instances(problem: Group) -> None:
    instances = Group(problem.shape, problem.channels, problem.axis)
    check_instance(sample(instances), problem.axis)
    check_instance(sample(instances, offset=100.0), problem.axis, **both(problem))


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
@TRAVERSALS
def test_every_float_dtype(problem: Group, dtype: np.dtype) -> None:
    check(sample(problem, dtype), problem)


def test_integers_are_computed_and_returned_in_float64() -> None:
    check(sample(NCHW, np.int16), NCHW)


@pytest.mark.parametrize(("gamma", "beta"), [(cases.F4, None), (cases.F8, cases.F2)], ids=str)
def test_gamma_and_beta_of_any_float_dtype_or_absent(gamma: Any, beta: Any) -> None:
    scale = None if gamma is None else parameter(NCHW, gamma)
    shift = None if beta is None else parameter(NCHW, beta, 2)
    check(sample(NCHW), NCHW, gamma=scale, beta=shift)


def test_parameters_may_be_lists_and_strided() -> None:
    gamma = parameter(NCHW)
    check(sample(NCHW), NCHW, gamma=gamma.tolist(), beta=cases.every_second(gamma, 0))
    check_instance(sample(NCHW), gamma=gamma[::-1], beta=gamma.tolist())


# One element's formula serves all kernels: some in each of them, also in (N, C), where every element of a group has
# parameters of its own. The rest in test_batch.py.
FEATURES = GROUPS["samples x features"]
NAMES = {NCHW: "NCHW", NHWC: "NHWC", FEATURES: "features"}


@pytest.mark.parametrize(
    ("problem", "activation"),
    [(NCHW, "relu"), (NCHW, "gelu"), (NHWC, "silu"), (FEATURES, "gelu_tanh")],
    ids=lambda value: NAMES.get(value, value),
)
def test_every_activation(problem: Group, activation: str) -> None:
    parameters = {"gamma": parameter(problem), "beta": parameter(problem, seed=2, low=0.5, high=8.0)}  # into both tails
    check(sample(problem), problem, activation=activation, **parameters)
    if problem in (NCHW, NHWC):
        check_instance(sample(problem), problem.axis, activation=activation, **parameters)


@pytest.mark.parametrize("view", VIEWS)
def test_every_kind_of_memory(view: str) -> None:
    for name in ("NCHW", "NHWC", "samples x features", "NCL", "channel between", "NCDHW"):
        problem = GROUPS[name]
        check(VIEWS[view](sample(problem)), problem)
        check_instance(VIEWS[view](sample(problem)), problem.axis)


@pytest.mark.parametrize("view", ["every second, axis 1", "negative strides", "big-endian"])
def test_parameters_of_channels_in_other_memory(view: str) -> None:
    check(VIEWS[view](sample(NCHW)), NCHW, **both(NCHW))


@pytest.mark.parametrize("plane", cases.SMALL_PLANES)
def test_small_planes(plane: int) -> None:
    for channels, num_groups in ((1, 1), (6, 2), (32, 8), (34, 17)):
        for problem in (Group((5, channels, plane), num_groups), Group((5, plane, channels), num_groups, -1)):
            check(sample(problem, offset=10.0), problem, **both(problem))


@pytest.mark.parametrize("run", cases.RUNS)
def test_runs_around_tile_borders(run: int) -> None:
    for problem in (Group((2, 3, run), 1), Group((2, 2, run), 2), Group((2, run, 4), 2, -1)):
        check(sample(problem, offset=10.0), problem, **both(problem))


@pytest.mark.parametrize("channels", [64, 512, 514, 2050])
def test_channels_around_tile_borders(channels: int) -> None:
    for num_groups in (1, 2, channels // 2, channels):
        for problem in (Group((3, channels), num_groups), Group((2, 9, channels), num_groups, -1), Group((2, channels, 9), num_groups)):
            check(sample(problem, offset=10.0), problem, **both(problem))


@pytest.mark.parametrize("problem", LARGE_GROUPS.values(), ids=LARGE_GROUPS.keys())
def test_large_arrays(problem: Group) -> None:
    check(sample(problem, offset=100.0), problem, **both(problem))


@TRAVERSALS
@pytest.mark.parametrize("eps", [0.0, 1e-12, 1.0, np.float32(0.5), 1])
def test_eps_is_inside_the_root(eps: float, problem: Group) -> None:
    check(sample(problem, std=1e-3), problem, eps=eps)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [cases.F4, cases.F8], ids=str)
@pytest.mark.parametrize("name", ["NCHW", "NHWC", "NCHW, groups of one", "samples x features", "NCDHW"])
def test_bound_holds_far_from_0(name: str, dtype: np.dtype, offset: float) -> None:
    check(sample(GROUPS[name], dtype, offset=offset), GROUPS[name], eps=0.0)


@pytest.mark.parametrize("std", [1e-15, 1e-5, 1e8, 1e15])
@TRAVERSALS
def test_bound_holds_for_tiny_and_huge_values(problem: Group, std: float) -> None:
    check(sample(problem, offset=1e3, std=std), problem, eps=0.0)


@TRAVERSALS
def test_channels_of_a_group_may_lie_far_apart(problem: Group) -> None:
    x = sample(problem)
    x += np.array([0.0, 1e4, -1e4], np.float32)[problem.slices.parameter % 3]
    check(x, problem)


# --- out ---


@pytest.mark.parametrize("view", cases.WRITABLE_VIEWS)
def test_out_in_every_kind_of_memory_and_in_place(view: str) -> None:
    for problem in (NCHW, NHWC):
        check(sample(problem), problem, out=VIEWS[view](np.full(problem.shape, 3, np.float32)))
        x = VIEWS[view](sample(problem))
        check(x, problem, out=x, shared=True)


@TRAVERSALS
def test_in_place(problem: Group) -> None:
    x, parameters = sample(problem), both(problem)
    fresh = group_norm(x, problem, **parameters)
    check(x, problem, **parameters, out=x, shared=True)
    np.testing.assert_array_equal(x, fresh)


@pytest.mark.parametrize("view", ["every second, axis 1", "inner part", "negative strides"])
def test_nothing_is_written_beside_a_strided_out(view: str) -> None:
    for problem in (NCHW, NHWC):
        out = VIEWS[view](np.full(problem.shape, 3, np.float32))
        owner = out
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        owner[...] = 77
        group_norm(sample(problem), problem, out=out)
        assert (out != 77).all()
        out[...] = 77
        assert (owner == 77).all()


def test_out_of_another_float_dtype() -> None:
    check(sample(NCHW), NCHW, out=np.full(NCHW.shape, 3, cases.F2))


@TRAVERSALS
@pytest.mark.parametrize("shift", [-64, 1, 100])
def test_out_that_overlaps_partially_acts_as_a_copy(shift: int, problem: Group) -> None:
    size = int(np.prod(problem.shape))
    buffer = np.zeros(size + 200, np.float32)
    x = buffer[100:-100].reshape(problem.shape)
    x[...] = sample(problem)
    check(x, problem, **both(problem), out=buffer[100 + shift : 100 + shift + size].reshape(problem.shape), shared=True)


def test_out_that_covers_a_parameter_acts_as_a_copy() -> None:
    """float64 parameters, which need no conversion that would be a copy by chance, in the memory of a float32 output."""
    out = np.full(NCHW.shape, 3, np.float32)
    doubles = out.reshape(-1).view(np.float64)
    gamma, beta = doubles[: NCHW.channels], doubles[-NCHW.channels :]
    gamma[...], beta[...] = parameter(NCHW), parameter(NCHW, seed=2)
    check(sample(NCHW), NCHW, gamma=gamma, beta=beta, out=out, shared=True)


# --- empty arrays, memory ---


@pytest.mark.parametrize(("shape", "axis"), [((0, 4), 1), ((0, 4, 5, 6), 1), ((2, 4, 0, 5), 1), ((2, 0, 5, 4), -1)])
def test_empty_arrays_give_empty_results(shape: tuple[int, ...], axis: int) -> None:
    x, gamma = np.zeros(shape, np.float32), np.ones(4, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = fn.group_norm(x, 2, gamma, gamma, axis=axis, return_stats=True)
        instances = fn.instance_norm(x, gamma, gamma, axis=axis, return_stats=True)
        backward = fn.group_norm_backward(x, x, 2, groups.mean, groups.rstd, gamma, axis=axis)
        instances_backward = fn.instance_norm_backward(x, x, instances.mean, instances.rstd, gamma, axis=axis)
    assert groups.mean.shape == groups.rstd.shape == (shape[0], 2)
    assert instances.mean.shape == instances.rstd.shape == (shape[0], 4)
    for result in (groups.y, instances.y, backward.dx, instances_backward.dx):
        assert result.shape == shape
        assert result.dtype == np.float32
    for gradients in (backward, instances_backward):
        np.testing.assert_array_equal(gradients.dgamma, np.zeros(4))
        np.testing.assert_array_equal(gradients.dbeta, np.zeros(4))


def test_no_channels_are_no_instances() -> None:
    y, mean, rstd = fn.instance_norm(np.zeros((2, 0, 5), np.float32), return_stats=True)
    assert y.shape == (2, 0, 5)
    assert mean.shape == rstd.shape == (2, 0)


@pytest.mark.parametrize("axis", [1, -1], ids=["NCHW", "NHWC"])
def test_no_temporary_as_large_as_the_input(axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((8, 64, 96, 128), np.float32)
    x = x if axis == 1 else x.reshape(8, 96, 128, 64)
    out, gamma = np.empty_like(x), np.ones(64, np.float32)
    assert peak(lambda: fn.group_norm(x, 8, gamma, gamma, axis=axis, out=out)) < LIMIT * x.nbytes
    mean, rstd = np.zeros((8, 8)), np.ones((8, 8))
    assert peak(lambda: fn.group_norm_backward(x, x, 8, mean, rstd, gamma, axis=axis, out=out)) < LIMIT * x.nbytes
    if axis == 1:
        assert peak(lambda: fn.group_norm(x[::2], 8, out=out[::2])) < LIMIT * x.nbytes
