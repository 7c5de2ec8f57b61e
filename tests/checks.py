"""One call of fastnorm against the oracle: type, shape, dtype, values within derived bounds, inputs untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import tolerance
from tolerance import assert_within

import fastnorm as fn

Array = np.ndarray


def result_dtype(x: Any) -> np.dtype:
    """That of `x` in native byte order; float64 for integers and bool."""
    dtype = np.asarray(x).dtype
    return np.dtype(np.float64) if dtype.kind in "biu" else dtype.newbyteorder("=")


def _snapshot(*arrays: Any) -> list[bytes | None]:
    return [None if a is None else np.ascontiguousarray(np.asarray(a)).tobytes() for a in arrays]


def _check_array(y: Any, x: Any, out: Array | None, what: str) -> None:
    if out is not None:
        assert y is out, f"{what} is not the out array"
    else:
        assert type(y) is np.ndarray
        assert y.dtype == result_dtype(x), f"{what}: {y.dtype}"
    assert y.shape == np.shape(x)


def _check_statistic(values: Any, n_channels: int, what: str) -> None:
    assert type(values) is np.ndarray, what
    assert values.dtype == np.float64, what
    assert values.shape == (n_channels,), what


def check_train(
    x: Any,
    axis: int = 1,
    *,
    gamma: Any = None,
    beta: Any = None,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Any = None,
    out: Array | None = None,
    shared: bool = False,
) -> Any:
    """``fn.batch_norm_train``. `shared`: `out` lies in the memory of an input, which is therefore not compared."""
    expected = oracle.forward(x, axis, gamma=gamma, beta=beta, eps=eps, activation=activation, residual=residual)
    before = _snapshot(x, gamma, beta, residual)
    result = fn.batch_norm_train(x, gamma, beta, axis=axis, eps=eps, activation=activation, residual=residual, out=out)
    assert result._fields == ("y", "mean", "rstd")
    y, mean, rstd = result
    dtype, out_dtype = np.asarray(x).dtype, None if out is None else out.dtype
    _check_array(y, x, out, "y")
    _check_statistic(mean, expected.mean.size, "mean")
    _check_statistic(rstd, expected.mean.size, "rstd")
    assert_within(mean, expected.mean, tolerance.mean(expected.mean, expected.var, dtype, out_dtype), "mean")
    assert_within(rstd, expected.rstd, tolerance.rstd(expected.rstd, dtype, out_dtype), "rstd")
    assert_within(y, expected.y, tolerance.output(expected, dtype, out_dtype), "y")
    assert shared or before == _snapshot(x, gamma, beta, residual), "an input was modified"
    return result


def check_inference(
    x: Any,
    mean: Any,
    var: Any,
    axis: int = 1,
    *,
    gamma: Any = None,
    beta: Any = None,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Any = None,
    out: Array | None = None,
    shared: bool = False,
) -> Array:
    options: dict[str, Any] = {"gamma": gamma, "beta": beta, "eps": eps, "activation": activation, "residual": residual}
    expected = oracle.forward(x, axis, mean=mean, var=var, **options)
    before = _snapshot(x, mean, var, gamma, beta, residual)
    y = fn.batch_norm(x, mean, var, axis=axis, out=out, **options)
    _check_array(y, x, out, "y")
    assert_within(y, expected.y, tolerance.output(expected, np.asarray(x).dtype, None if out is None else out.dtype), "y")
    assert shared or before == _snapshot(x, mean, var, gamma, beta, residual), "an input was modified"
    return y


def check_backward(
    dy: Any,
    x: Any,
    axis: int = 1,
    *,
    mean: Any = None,
    rstd: Any = None,
    gamma: Any = None,
    beta: Any = None,
    activation: str | None = None,
    residual: Any = None,
    training: bool = True,
    out: Array | None = None,
    shared: bool = False,
) -> Any:
    """``fn.batch_norm_backward`` at given statistics, or at those of `x` with eps = 1e-5."""
    if mean is None or rstd is None:
        statistics = oracle.forward(x, axis)
        mean, rstd = statistics.mean, statistics.rstd
    options: dict[str, Any] = {
        "axis": axis, "gamma": gamma, "beta": beta, "activation": activation, "residual": residual, "training": training,
    }  # fmt: skip
    expected = oracle.backward(dy, x, mean, rstd, **options)
    before = _snapshot(dy, x, mean, rstd, gamma, beta, residual)
    result = fn.batch_norm_backward(dy, x, mean, rstd, out=out, **options)
    names = ("dx", "dgamma", "dbeta") + (() if residual is None else ("dresidual",))
    assert result._fields == names
    _check_array(result.dx, x, out, "dx")
    bound = tolerance.Gradient(expected, np.asarray(x).dtype, gamma)
    assert_within(result.dx, expected.dx, bound.dx, "dx")
    parameter_dtype = np.dtype(np.float64) if gamma is None else np.asarray(gamma).dtype
    for name in ("dgamma", "dbeta"):
        assert getattr(result, name).dtype == parameter_dtype, name
        assert_within(getattr(result, name), getattr(expected, name), getattr(bound, name), name)
    if residual is not None:
        assert type(result.dresidual) is np.ndarray
        assert result.dresidual.dtype == result_dtype(residual)
        assert_within(result.dresidual, expected.dresidual, bound.dresidual, "dresidual")
    assert shared or before == _snapshot(dy, x, mean, rstd, gamma, beta, residual), "an input was modified"
    return result
