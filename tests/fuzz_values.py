"""One drawn call of every public function against the oracle: shapes, strides, dtypes, axes, options, memory that is shared.

Dtypes and combinations of parameters are those that other tests compile. `CHECKS` is used by the fuzz tests and the soak.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection
from typing import Any

import cases
import numpy as np
import oracle
import test_averages
import test_images
import test_renorm
import tolerance
from cases import F4, F8, VIEWS, WRITABLE_VIEWS, Problem
from checks import check_backward, check_inference, check_train
from checks_family import (
    Group,
    Layer,
    check_add_layer,
    check_add_rms,
    check_group,
    check_group_backward,
    check_instance,
    check_layer,
    check_layer_backward,
    check_rms,
    check_rms_backward,
    parameter,
)
from checks_family import sample as sample_of
from strategies import Choices
from tolerance import assert_within

import fastnorm as fn

Array = np.ndarray
# No slices of few values: strided ones of more than some hundred elements are summed by one chain of float32 additions,
# whose roundings then all go one way, to 1e-5 of a promise of 1e-6.
VARIED = [name for name in VIEWS if not name.startswith(("broadcast", "one value"))]


def views_of(array: Array, names: Collection[str]) -> list[str]:
    """Kinds of memory that there are for its rank."""
    return [name for name in names if array.ndim > 1 or name in ("contiguous", "Fortran", "negative strides", "misaligned", "read-only")]


def shape_of(c: Choices, least: int = 2, most: int = 4) -> tuple[int, ...]:
    """Few elements; now and then one long side."""
    shape = [c.between(1, 6) for _ in range(c.between(least, most))]
    if c.below(4) == 0:
        shape[c.below(len(shape))] = c.between(1, 80)
    return tuple(shape)


def problem_of(c: Choices) -> Problem:
    shape = shape_of(c)
    return Problem(shape, c.between(-len(shape), len(shape) - 1))


def layer_of(c: Choices) -> Layer:
    shape = shape_of(c, 1)
    axes = [k for k in range(len(shape)) if c.flag()] or [len(shape) - 1]
    axes = [k - len(shape) if c.flag() else k for k in axes]
    return Layer(shape, axes[0] if len(axes) == 1 else tuple(axes))


def group_of(c: Choices) -> Group:
    shape = shape_of(c)
    axis, groups = c.between(1, len(shape) - 1), c.between(1, 4)
    shape = (*shape[:axis], groups * c.between(1, 4), *shape[axis + 1 :])
    return Group(shape, groups, axis - c.one([0, len(shape)]))


def scale_of(c: Choices) -> dict[str, float]:
    """Of data: far from zero, tiny, huge."""
    return c.one([{}, {}, {"offset": 0.0}, {"offset": 1e4}, {"std": 1e-10}, {"std": 1e10}])


def memory_of(c: Choices, *arrays: Array, nan: bool = True) -> list[Array]:
    """The arrays in memory of many kinds, perhaps with NaN."""
    views = []
    for array in arrays:
        if nan and c.below(12) == 0:
            array.flat[c.below(array.size)] = np.nan
        views.append(VIEWS[c.one(views_of(array, VARIED))](array))
    return views


def overlapping(c: Choices, *arrays: Array) -> tuple[list[Array], Array]:
    """The arrays, and one to write to. It and the last of them lie anywhere in one buffer, by drawn starts, steps and directions."""
    shape, size, dtype = arrays[-1].shape, arrays[-1].size, arrays[-1].dtype
    buffer = np.zeros(3 * size + 40, dtype)

    def view() -> Array:
        step, start = c.one([1, 2, -1, -2]), c.below(size + 31)
        flat = buffer[start : start + abs(step) * (size - 1) + 1]
        flat = flat[::step] if step > 0 else flat[::-1][:: abs(step)]
        return flat.reshape(shape)

    last, out = view(), view()
    last[...] = arrays[-1]
    return [*arrays[:-1], last], out


def output_of(c: Choices, *inputs: Array) -> tuple[list[Array], dict[str, Any]]:
    """Inputs, and the options that say where the result goes: to fresh memory, an array, an input, or over a part of one."""
    how = c.below(5)
    if how == 0:
        last = inputs[-1]
        place = last if last.flags.writeable and 0 not in last.strides and last.dtype.isnative else np.array(last)
        return [*inputs[:-1], place], {"out": place, "shared": True}
    if how == 1:
        arranged, out = overlapping(c, *inputs)
        return arranged, {"out": out, "shared": True}
    if how == 2:
        empty = np.zeros(inputs[-1].shape, inputs[-1].dtype.newbyteorder("="))
        return list(inputs), {"out": VIEWS[c.one(views_of(empty, WRITABLE_VIEWS))](empty)}
    return list(inputs), {}


def both(c: Choices, n: int) -> dict[str, Array]:
    return {"gamma": cases.parameter(n), "beta": cases.parameter(n, seed=2)} if c.flag() else {}


def again(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """A second and a third call are remembered ones, and of other values: compared with a call that cannot be."""
    if options.get("shared") or "out" in options:
        function(*arguments, **options)
        return
    for _ in range(3):
        function(*arguments, **options)


# --- batch norm ---


def train(c: Choices) -> None:
    problem = problem_of(c)
    dtype = F4 if c.below(4) else F8
    x = memory_of(c, cases.sample(problem, dtype, **scale_of(c)))
    arranged, options = output_of(c, *x) if dtype == F4 else (x, {})
    parameters = both(c, problem.channels) if dtype == F4 and "out" not in options else {}
    again(check_train, *arranged, problem.axis, eps=c.one([1e-5, 1e-3, 1.0]), **parameters, **options)


def train_residual(c: Choices) -> None:
    problem = problem_of(c)
    x, residual = memory_of(c, cases.sample(problem), cases.sample(problem, seed=1))
    (residual, x), options = output_of(c, residual, x)
    scale = {"gamma": cases.parameter(problem.channels), "beta": cases.parameter(problem.channels, seed=2)}
    again(check_train, x, problem.axis, activation="relu", residual=residual if c.flag() else None, **scale, **options)


def inference(c: Choices) -> None:
    problem = problem_of(c)
    n = problem.channels
    mean, var = cases.parameter(n, F8, 3), cases.parameter(n, F8, 4) ** 2
    (x,), options = output_of(c, *memory_of(c, cases.sample(problem)))
    again(check_inference, x, mean, var, problem.axis, **both(c, n), **options)


def backward(c: Choices) -> None:
    problem = problem_of(c)
    dy, x = memory_of(c, cases.sample(problem, seed=1, offset=0.5), cases.sample(problem), nan=False)
    (dy, x), options = output_of(c, dy, x)
    again(check_backward, dy, x, problem.axis, gamma=cases.parameter(problem.channels), training=c.flag(), **options)


def renorm(c: Choices) -> None:
    problem = problem_of(c)
    if problem.per_channel < 2:
        return
    limits = c.one([{}, {"r_max": 1.0, "d_max": 0.0}, {"r_max": math.inf, "d_max": math.inf}])
    (x,) = memory_of(c, cases.sample(problem), nan=False)
    test_renorm.check_train(x, problem.axis, **test_renorm.parameters(problem.channels), **limits, momentum=c.one([0.0, 0.3, 1.0]))


def renorm_backward(c: Choices) -> None:
    """That of batch norm with gamma * r; and what d adds to dgamma."""
    problem = problem_of(c)
    n = problem.channels
    dy, x = memory_of(c, *(cases.sample(problem, seed=k) for k in range(2)), nan=False)
    at = oracle.forward(x, problem.axis)
    r, d, gamma = cases.parameter(n, F8, 5) ** 2, cases.parameter(n, F8, 6), cases.parameter(n)
    expected = oracle.backward(dy, x, at.mean, at.rstd, problem.axis, gamma=gamma * r)
    found = fn.batch_renorm_backward(dy, x, at.mean, at.rstd, r, d, gamma, axis=problem.axis)
    bound = tolerance.Gradient(expected, F4, gamma)
    assert_within(found.dx, expected.dx, bound.dx, "dx")
    assert_within(found.dbeta, expected.dbeta, bound.dbeta, "dbeta")
    wanted = r * expected.dgamma + d * expected.dbeta
    sums = tolerance.unit(F4) * (r * expected.dgamma_terms + abs(d) * expected.dbeta_terms)
    assert_within(found.dgamma, wanted, sums + tolerance.storage(wanted, F4, F8) + 2.0**-24 * abs(wanted), "dgamma")


# --- layer, RMS, group and instance norm ---


def layer(c: Choices) -> None:
    problem = layer_of(c)
    (x,), options = output_of(c, *memory_of(c, sample_of(problem, **scale_of(c))))
    affine = {"gamma": parameter(problem), "beta": parameter(problem, seed=2)} if "out" not in options and c.flag() else {}
    check_layer(x, problem.axis, **affine, **options)


def rms(c: Choices) -> None:
    problem = layer_of(c)
    (x,), options = output_of(c, *memory_of(c, sample_of(problem)))
    check_rms(x, problem.axis, gamma=parameter(problem), **options)


def add_rms(c: Choices) -> None:
    problem = layer_of(c)
    x, residual = memory_of(c, sample_of(problem), sample_of(problem, seed=1))
    check_add_rms(x, residual, problem.axis, gamma=parameter(problem))


def add_layer(c: Choices) -> None:
    problem = layer_of(c)
    x, residual = (np.array(a) for a in memory_of(c, sample_of(problem), sample_of(problem, seed=1)))
    out = c.one([None, (x, residual), (residual, x), (np.empty_like(x), residual)])
    check_add_layer(x, residual, problem.axis, gamma=parameter(problem), beta=parameter(problem, seed=2), out=out, shared=out is not None)


def layer_backward(c: Choices) -> None:
    problem = layer_of(c)
    (dy, x), options = output_of(c, *memory_of(c, sample_of(problem, seed=7, offset=0.5), sample_of(problem), nan=False))
    check_layer_backward(dy, x, problem.axis, gamma=parameter(problem), **options)


def rms_backward(c: Choices) -> None:
    problem = layer_of(c)
    dy, x = sample_of(problem, seed=7, offset=0.5), sample_of(problem)
    check_rms_backward(dy, x, problem.axis, gamma=parameter(problem))


def group(c: Choices) -> None:
    problem = group_of(c)
    (x,), options = output_of(c, *memory_of(c, sample_of(problem)))
    affine = {"gamma": parameter(problem), "beta": parameter(problem, seed=2)}
    check_group(x, problem.num_groups, problem.axis, **affine, **options)


def instance(c: Choices) -> None:
    problem = group_of(c)
    x = sample_of(problem._replace(num_groups=problem.channels))
    check_instance(x, problem.axis, gamma=parameter(problem), beta=parameter(problem, seed=2))


def group_backward(c: Choices) -> None:
    problem = group_of(c)
    (dy, x), options = output_of(c, *memory_of(c, sample_of(problem, seed=7, offset=0.5), sample_of(problem), nan=False))
    groups = problem.num_groups if c.flag() else None
    check_group_backward(dy, x, groups, problem.axis, gamma=parameter(problem), **options)


# --- folding, statistics, images ---


def fold(c: Choices) -> None:
    """Folded weights times x are the normalized product."""
    outputs, inputs = c.between(1, 6), c.between(1, 6)
    weight, x = cases.sample(Problem((outputs, inputs)), F8), cases.sample(Problem((5, inputs)), F8, 1)
    bias, mean, gamma, beta = (cases.parameter(outputs, F8, k) for k in range(4))
    var = cases.parameter(outputs, F8, 4) ** 2
    options = {"gamma": gamma if c.flag() else None, "beta": beta if c.flag() else None}
    given, last = bias if c.flag() else None, c.flag()
    stored = VIEWS[c.one(VARIED[:4])](weight.T if last else weight)
    w, b = fn.fold_batch_norm(stored, given, mean, var, **options, axis=-1 if last else 0)
    w = w.T if last else w
    product = x @ weight.T + (0.0 if given is None else given)
    wanted = oracle.forward(product, 1, mean=mean, var=var, **options)
    assert_within(x @ w.T + b, wanted.y, 1e-12 * (wanted.terms + np.abs(product) / np.sqrt(var).min() * 4), "folded")


def mean_var(c: Choices) -> None:
    shape = shape_of(c, 1)
    dtype = c.one([F4, F8])
    (a,) = memory_of(c, cases.sample(Problem(shape, 0), dtype, **scale_of(c)), nan=False)
    axes = tuple(k for k in range(len(shape)) if c.flag())
    keepdims = c.flag()
    expected_mean, expected_var = oracle.mean_var(a, axes, keepdims=keepdims)
    mean, var = fn.mean_var(a, axes, keepdims=keepdims)
    assert_within(mean, expected_mean, tolerance.mean(expected_mean, expected_var, dtype), "mean")
    assert_within(var, expected_var, tolerance.var(expected_var, dtype), "var")


def averages(c: Choices) -> None:
    """Quick and general ways; without NaN both families agree with exact sums, with NaN the second does."""
    name, shape = c.one(test_averages.AVERAGES), shape_of(c, 1, 3)
    a = cases.sample(Problem(shape, 0), c.one([F4, F8]))
    axis = c.one([None, *range(-len(shape), len(shape))])
    ddof = c.below(2) if name in test_averages.SQUARES else 0
    n = a.size if axis is None else shape[axis]
    if n <= ddof:
        return
    options: dict[str, Any] = {"ddof": ddof} if name in test_averages.SQUARES else {}
    expected, allowed = test_averages.exact(name, a, axis, ddof)
    assert_within(getattr(fn, name)(a, axis, **options), expected, allowed, name)
    out = np.zeros(np.shape(expected), a.dtype)
    assert getattr(fn, name)(a, axis, out=out, **options) is out
    assert_within(out, expected, allowed, name)


def zscore(c: Choices) -> None:
    shape, dtype = shape_of(c, 1, 3), c.one([F4, F8])
    a, axis, ddof = cases.sample(Problem(shape, 0), dtype), c.one([None, *range(len(shape))]), c.below(2)
    n = a.size if axis is None else shape[axis]
    if n < 3:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # slices that happen to be constant
        z = fn.zscore(a, axis, ddof)
    mean, var = oracle.mean_var(a, axis, ddof=ddof, keepdims=axis is not None)
    wanted = (a - mean) / np.sqrt(var)
    assert_within(z, wanted, 4 * tolerance.unit(dtype) * (1 + np.abs(wanted) + np.abs(mean) * 2.0**-52 / np.sqrt(var)), "z")


def images(c: Choices) -> None:
    shape = (*([c.between(1, 3)] if c.flag() else []), c.between(1, 9), c.between(1, 9), c.between(1, 4))
    order, to = c.one(["last", "first"]), c.one(["last", "first"])
    x, n = test_images.images(shape, "uint8"), shape[-1]
    given = test_images.moved(x, order)
    given = np.ascontiguousarray(given) if c.flag() else given[..., ::-1, :]
    source = given if order == "last" else np.moveaxis(given, -3, -1)
    mean, std = np.resize(test_images.MEAN, n), np.resize(test_images.STD, n)
    y = fn.normalize_images(given, mean, std, channels=order, to=to)
    test_images.check(y, test_images.moved(test_images.expected(source, 1 / 255), to))


CHECKS: dict[str, Callable[[Choices], None]] = {
    f.__name__: f
    for f in (
        train, train_residual, inference, backward, renorm, renorm_backward, layer, rms, add_rms, add_layer, layer_backward,
        rms_backward, group, instance, group_backward, fold, mean_var, averages, zscore, images,
    )
}  # fmt: skip
