"""``fold_batch_norm``: fold then convolve equals convolve then normalize."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import cases
import numpy as np
import pytest
import tolerance
from numpy.exceptions import AxisError
from tolerance import assert_within

import fastnorm as fn

Array = np.ndarray


def linear(x: Array, weight: Array) -> Array:
    """(N, in) and (out, in)."""
    return np.einsum("ni,oi->no", x, weight)


def convolution(groups: int = 1, stride: int = 1) -> Callable[[Array, Array], Array]:
    """(N, in, ...) and (out, in / groups, ...), without padding: one tap of the kernel at a time."""

    def convolve(x: Array, weight: Array) -> Array:
        each_in, each_out, kernel = x.shape[1] // groups, weight.shape[0] // groups, weight.shape[2:]
        sizes = [(n - k) // stride + 1 for n, k in zip(x.shape[2:], kernel, strict=True)]
        y = np.zeros((x.shape[0], weight.shape[0], *sizes))
        for group, tap in product(range(groups), product(*map(range, kernel))):
            part = tuple(slice(t, t + (n - 1) * stride + 1, stride) for t, n in zip(tap, sizes, strict=True))
            source = x[:, group * each_in : (group + 1) * each_in][(slice(None), slice(None), *part)]
            into = slice(group * each_out, (group + 1) * each_out)
            y[:, into] += np.einsum("ni...,oi->no...", source, weight[(into, slice(None), *tap)])
        return y

    return convolve


def transposed(stride: int = 2) -> Callable[[Array, Array], Array]:
    """(N, in, ...) and (in, out, ...): every input element adds its multiple of the kernel to the output."""

    def convolve(x: Array, weight: Array) -> Array:
        sizes = [(n - 1) * stride + k for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
        y = np.zeros((x.shape[0], weight.shape[1], *sizes))
        for place in product(*map(range, x.shape[2:])):
            part = tuple(slice(p * stride, p * stride + k) for p, k in zip(place, weight.shape[2:], strict=True))
            y[(slice(None), slice(None), *part)] += np.einsum("ni,io...->no...", x[(slice(None), slice(None), *place)], weight)
        return y

    return convolve


def channels_last(x: Array, weight: Array) -> Array:
    """(N, ..., in) and (..., in, out), as in Keras and JAX."""
    y = convolution()(np.moveaxis(x, -1, 1), np.moveaxis(weight, (-1, -2), (0, 1)))
    return np.moveaxis(y, 1, -1)


class Case(NamedTuple):
    x: tuple[int, ...]
    weight: tuple[int, ...]
    apply: Callable[[Array, Array], Array]
    axis: int = 0  # of the output channels, in weight
    channels: int = 1  # the channel axis of the result


CASES = {
    "linear": Case((7, 5), (4, 5), linear),
    "linear, (in, out)": Case((7, 5), (5, 4), np.matmul, -1),
    "1-D": Case((3, 4, 9), (5, 4, 3), convolution()),
    "2-D": Case((2, 3, 6, 7), (4, 3, 3, 2), convolution(stride=2)),
    "3-D": Case((2, 2, 4, 5, 4), (3, 2, 2, 3, 2), convolution()),
    "grouped": Case((2, 6, 5, 5), (4, 3, 3, 3), convolution(groups=2)),
    "depthwise": Case((2, 4, 5, 5), (8, 1, 3, 3), convolution(groups=4)),
    "transposed, 1-D": Case((3, 4, 5), (4, 5, 3), transposed(), 1),
    "transposed, 2-D": Case((2, 3, 4, 3), (3, 5, 3, 2), transposed(), 1),
    "transposed, 3-D": Case((1, 2, 3, 2, 2), (2, 3, 2, 2, 3), transposed(), 1),
    "channels last": Case((2, 6, 5, 3), (3, 2, 3, 4), channels_last, -1, -1),
    "one weight per channel": Case((7, 4), (4,), np.multiply),
}


def statistics(n: int, dtype: Any = cases.F4) -> dict[str, Array]:
    return {
        "mean": cases.parameter(n, dtype, 5),
        "var": cases.parameter(n, dtype, 6) ** 2,
        "gamma": cases.parameter(n, dtype, 7),
        "beta": cases.parameter(n, dtype, 8),
    }


def normalized(y: Array, case: Case, *, mean: Array, var: Array, gamma: Array | None, beta: Array | None, eps: float) -> Array:
    along = [1] * y.ndim
    along[case.channels] = -1
    columns = [None if p is None else np.asarray(p, np.float64).reshape(along) for p in (mean, var, gamma, beta)]
    y = (y - columns[0]) / np.sqrt(columns[1] + eps)
    y = y if columns[2] is None else y * columns[2]
    return y if columns[3] is None else y + columns[3]


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CASES)
def test_fold_then_convolve_is_convolve_then_normalize(name: str, with_bias: bool) -> None:
    case = CASES[name]
    rng = cases.rng_of(*case.x)
    x, weight = rng.standard_normal(case.x), rng.standard_normal(case.weight)
    n = weight.shape[case.axis]
    bias = rng.standard_normal(n) if with_bias else None
    before = [a.copy() for a in (weight, bias) if a is not None]
    parameters = statistics(n)
    along = [1] * len(case.x)
    along[case.channels] = -1
    plain = case.apply(x, weight) + (0.0 if bias is None else bias.reshape(along))
    expected = normalized(plain, case, **parameters, eps=1e-3)

    folded = fn.fold_batch_norm(weight, bias, **parameters, eps=1e-3, axis=case.axis)
    assert folded._fields == ("weight", "bias")
    assert folded.weight.shape == weight.shape
    assert folded.bias.shape == (n,)
    found = case.apply(x, folded.weight) + folded.bias.reshape(along)
    # At most 60 products of normal numbers and a few more operations, each rounded to 2**-53.
    assert_within(found, expected, 64 * 2.0**-53 * (1 + np.abs(plain).max() + np.abs(expected)))
    for array, old in zip((a for a in (weight, bias) if a is not None), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("absent", [("gamma",), ("beta",), ("gamma", "beta")], ids="-".join)
def test_absent_parameters_are_one_and_zero(absent: tuple[str, ...]) -> None:
    weight, bias = cases.sample(cases.Problem((4, 5)), cases.F8), cases.parameter(4, cases.F8)
    given = {**statistics(4), **dict.fromkeys(absent)}
    neutral = {**statistics(4), **{name: np.full(4, {"gamma": 1.0, "beta": 0.0}[name]) for name in absent}}
    for a, b in zip(fn.fold_batch_norm(weight, bias, **given), fn.fold_batch_norm(weight, bias, **neutral), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_identity_is_folded_to_the_affine_map() -> None:
    weight, bias = fn.fold_batch_norm(np.eye(3), None, [1.0, 2.0, 3.0], [4.0, 9.0, 0.25], [2.0, 3.0, 5.0], [0.0, 1.0, -1.0], eps=0)
    np.testing.assert_array_equal(weight, np.diag([1.0, 1.0, 10.0]))
    np.testing.assert_array_equal(bias, [-1.0, -1.0, -31.0])


def test_folding_agrees_with_batch_norm() -> None:
    """A convolution of one pixel, in float32."""
    x, weight = cases.sample(cases.Problem((2, 6, 9, 11))), cases.sample(cases.Problem((4, 6)))
    parameters = statistics(4)
    y = np.einsum("nihw,oi->nohw", x, weight)
    folded = fn.fold_batch_norm(weight, None, **parameters)
    found = np.einsum("nihw,oi->nohw", x, folded.weight) + folded.bias[:, None, None]
    # Sums of 6 products, twice, and the affine map: at most 16 roundings to 2**-24 of terms of this size.
    size = np.abs(x).max() * 6 * np.abs(weight).max() * np.abs(parameters["gamma"] / np.sqrt(parameters["var"])).max()
    assert_within(found, fn.batch_norm(y, **parameters), 16 * 2.0**-24 * (1 + size))


@pytest.mark.parametrize("bias_dtype", [None, *cases.FLOATS], ids=str)
@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_results_have_the_dtypes_of_weight_and_bias(dtype: np.dtype, bias_dtype: np.dtype | None) -> None:
    """In float64, rounded once."""
    weight, bias = cases.sample(cases.Problem((4, 5)), dtype), None if bias_dtype is None else cases.parameter(4, bias_dtype)
    folded = fn.fold_batch_norm(weight, bias, **statistics(4))
    assert folded.weight.dtype == dtype
    assert folded.bias.dtype == (dtype if bias_dtype is None else bias_dtype)
    exact = fn.fold_batch_norm(weight.astype(np.float64), np.zeros(4) if bias is None else bias.astype(np.float64), **statistics(4))
    for found, wanted in zip(folded, exact, strict=True):
        relative, absolute = tolerance.HALF_ULP[found.dtype.name]
        assert_within(found, wanted, relative * (1 + 2.0**-7) * np.abs(wanted) + absolute)


def test_integers_are_folded_to_float64() -> None:
    folded = fn.fold_batch_norm(np.eye(3, dtype=np.int32), None, np.zeros(3), np.full(3, 4.0), eps=0.0)
    assert folded.weight.dtype == folded.bias.dtype == np.float64
    np.testing.assert_array_equal(folded.weight, np.eye(3) / 2)


@pytest.mark.parametrize("view", ["Fortran", "negative strides", "misaligned", "big-endian", "read-only", "broadcast axis 0", "subclass"])
def test_weights_in_any_memory(view: str) -> None:
    weight = cases.VIEWS[view](cases.sample(cases.Problem((4, 5, 3))))
    expected = fn.fold_batch_norm(np.array(weight, np.float32), None, **statistics(4))
    folded = fn.fold_batch_norm(weight, None, **statistics(4))
    assert type(folded.weight) is np.ndarray
    assert folded.weight.dtype == np.float32
    assert folded.weight.dtype.isnative
    np.testing.assert_array_equal(folded.weight, expected.weight)


def test_results_share_no_memory_with_arguments() -> None:
    weight, bias, parameters = np.ones((4, 4)), np.ones(4), statistics(4, cases.F8)
    for result in fn.fold_batch_norm(weight, bias, **parameters):
        assert not any(np.may_share_memory(result, a) for a in (weight, bias, *parameters.values()))


def test_no_channels() -> None:
    folded = fn.fold_batch_norm(np.ones((0, 5), np.float32), None, np.empty(0), np.empty(0))
    assert folded.weight.shape == (0, 5)
    assert folded.bias.shape == (0,)


def test_a_variance_of_zero_stays_in_its_channel() -> None:
    folded = fn.fold_batch_norm(np.ones((3, 2)), None, np.ones(3), np.array([1.0, 0.0, 1.0]), eps=0.0)
    np.testing.assert_array_equal(np.isfinite(folded.weight).all(axis=1), [True, False, True])
    np.testing.assert_array_equal(np.isfinite(folded.bias), [True, False, True])


GOOD: dict[str, Any] = {"weight": np.ones((4, 5, 3)), "bias": np.ones(4), **statistics(4), "eps": 1e-5, "axis": 0}
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "weight complex": ({"weight": np.ones((4, 5), complex)}, TypeError, "weight.*complex128"),
    "weight masked": ({"weight": np.ma.masked_array(np.ones((4, 5)))}, TypeError, "weight.*mask"),
    "weight a number": ({"weight": 1.0}, AxisError, "axis.*weight.*0 dimensions"),
    "axis too large": ({"axis": 3}, AxisError, "axis is 3.*3 dimensions"),
    "axis too small": ({"axis": -4}, AxisError, "axis is -4.*3 dimensions"),
    "axis a float": ({"axis": 0.0}, TypeError, "axis"),
    "axis of the inputs": ({"axis": 1}, ValueError, r"bias.*\(4,\).*axis 1 of weight.*5.*\(5,\)"),
    "bias too long": ({"bias": np.ones(5)}, ValueError, r"bias.*\(5,\).*4.*\(4,\)"),
    "bias a matrix": ({"bias": np.ones((4, 1))}, ValueError, "bias"),
    "bias complex": ({"bias": np.ones(4, complex)}, TypeError, "bias.*complex128"),
    "mean too short": ({"mean": np.ones(3)}, ValueError, r"mean.*\(3,\).*\(4,\)"),
    "mean absent": ({"mean": None}, TypeError, "mean.*None"),
    "var absent": ({"var": None}, TypeError, "var.*None"),
    "var a number": ({"var": 1.0}, ValueError, "var"),
    "gamma object": ({"gamma": np.ones(4, object)}, TypeError, "gamma.*object"),
    "gamma too long": ({"gamma": np.ones(5)}, ValueError, "gamma.*None"),
    "beta too long": ({"beta": np.ones(5)}, ValueError, "beta.*None"),
    "eps negative": ({"eps": -1e-5}, ValueError, "eps.*-1e-05"),
    "eps NaN": ({"eps": float("nan")}, ValueError, "eps.*nan"),
    "eps a string": ({"eps": "1e-5"}, TypeError, "eps"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_folding_refuses(bad: tuple[dict[str, Any], type[Exception], str]) -> None:
    wrong, exception, message = bad
    fn.fold_batch_norm(**GOOD)
    with pytest.raises(exception) as caught:
        fn.fold_batch_norm(**{**GOOD, **wrong})
    assert re.search(message, str(caught.value), re.DOTALL), f"message: {caught.value}"
