"""The functions for C: from C, from ctypes against the oracle, from SciPy."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import oracle_family as family
import pytest
import tolerance
from conftest import RunPython
from tolerance import assert_within

from fastnorm import capi

Array = np.ndarray
COMPILER = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
OK, NULL_POINTER, BAD_SIZE, BAD_EPS, OUT_OF_MEMORY = range(5)
# Shape, channel axis: planes, short planes, rows of channels, samples x features.
LAYOUTS = pytest.mark.parametrize(
    ("shape", "axis"), [((3, 4, 20, 20), 1), ((20, 4, 3, 2), 1), ((4, 5, 6, 8), -1), ((50, 6), 1)], ids=["NCHW", "short", "NHWC", "NC"]
)


def pointer(array: Array | None) -> Any:
    kinds = {"f": ctypes.c_float, "d": ctypes.c_double}
    return None if array is None else array.ctypes.data_as(ctypes.POINTER(kinds[array.dtype.char]))


def call(name: str, *arguments: Any) -> int:
    """Status. Arrays are passed as pointers, None as NULL."""
    status: int = capi.functions[name].ctypes(*(pointer(a) if a is None or isinstance(a, np.ndarray) else a for a in arguments))
    return status


def sample(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0, offset: float = 3.0) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) + offset).astype(dtype)


def around(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    axis %= len(shape)
    return int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :]))


@LAYOUTS
def test_batch_norm(shape: tuple[int, ...], axis: int) -> None:
    x, dy, sizes = sample(shape, offset=1e4), sample(shape, seed=1), around(shape, axis)
    gamma, beta = sample((sizes[1],), seed=2), sample((sizes[1],), seed=3)
    y, dx = np.empty_like(x), np.empty_like(x)
    mean, rstd, var, dgamma, dbeta = np.empty((5, sizes[1]))
    expected = oracle.forward(x, axis, gamma=gamma, beta=beta)
    assert call("batch_norm_train_f32", x, gamma, beta, *sizes, 1e-5, y, mean, rstd, var) == OK
    assert_within(y, expected.y, tolerance.output(expected, np.float32), "y")
    assert_within(mean, expected.mean, tolerance.mean(expected.mean, expected.var, np.float32), "mean")
    assert_within(rstd, expected.rstd, tolerance.rstd(expected.rstd, np.float32), "rstd")
    assert_within(var, expected.var, tolerance.var(expected.var, np.float32), "var")

    expected = oracle.forward(x, axis, mean=expected.mean, var=expected.var, beta=beta)
    assert call("batch_norm_f32", x, expected.mean, expected.var, None, beta, *sizes, 1e-5, y) == OK
    assert_within(y, expected.y, tolerance.output(expected, np.float32), "inference")

    for training in (1, 0):
        wanted = oracle.backward(dy, x, expected.mean, expected.rstd, axis=axis, gamma=gamma, training=bool(training))
        bound = tolerance.Gradient(wanted, np.float32)
        status = call("batch_norm_backward_f32", dy, x, expected.mean, expected.rstd, gamma, *sizes, training, dx, dgamma, dbeta)
        assert status == OK
        for name, found in (("dx", dx), ("dgamma", dgamma), ("dbeta", dbeta)):
            assert_within(found, getattr(wanted, name), getattr(bound, name), name)


@LAYOUTS
def test_group_norm(shape: tuple[int, ...], axis: int) -> None:
    x, dy, (rows, channels, inner) = sample(shape), sample(shape, seed=1), around(shape, axis)
    gamma, beta = sample((channels,), seed=2), sample((channels,), seed=3)
    sizes, slices = (shape[0], rows // shape[0], channels, inner, 2), family.group_slices(shape, 2, axis % len(shape))
    y, dx, (mean, rstd), (dgamma, dbeta) = np.empty_like(x), dy.copy(), np.empty((2, shape[0], 2)), np.empty((2, channels))
    expected = family.forward(x, slices, gamma=gamma, beta=beta)
    assert call("group_norm_f32", x, gamma, beta, *sizes, 1e-5, y, mean, rstd) == OK
    assert_within(y, expected.y, tolerance.output(expected, np.float32), "y")
    assert_within(rstd, expected.rstd, tolerance.rstd(expected.rstd, np.float32), "rstd")
    wanted = family.backward(dy, x, expected.mean, expected.rstd, slices, gamma=gamma)
    bound = tolerance.Gradient(wanted, np.float32)
    assert call("group_norm_backward_f32", dx, x, expected.mean, expected.rstd, gamma, *sizes, dx, dgamma, dbeta) == OK
    for name, found in (("dx", dx), ("dgamma", dgamma), ("dbeta", dbeta)):
        assert_within(found, getattr(wanted, name), getattr(bound, name), name)


@pytest.mark.parametrize(("kind", "dtype"), [("f32", np.float32), ("f64", np.float64)])
@pytest.mark.parametrize("learned", [True, False])
def test_layer_norm(kind: str, dtype: Any, learned: bool) -> None:
    x = sample((6, 500), dtype, offset=1e6)
    gamma, beta = (sample((500,), dtype, seed=2), sample((500,), dtype, seed=3)) if learned else (None, None)
    y, (mean, rstd) = np.empty_like(x), np.empty((2, 6))
    expected = family.forward(x, family.layer_slices(x.shape, -1), gamma=gamma, beta=beta)
    assert call(f"layer_norm_{kind}", x, gamma, beta, 6, 500, 1e-5, y, mean, rstd) == OK
    assert_within(y, expected.y, tolerance.output(expected, dtype), "y")
    assert_within(rstd, expected.rstd, tolerance.rstd(expected.rstd, dtype), "rstd")
    mean[:] = 0
    assert call(f"layer_norm_{kind}", x, gamma, beta, 6, 500, 1e-5, y, None, None) == OK
    assert not mean.any()


@pytest.mark.parametrize("rms", [False, True])
def test_gradients_of_rows_and_rms_norm(rms: bool) -> None:
    x, dy, gamma = sample((6, 500)), sample((6, 500), seed=1), sample((500,), seed=2)
    slices, dx, y, dgamma, dbeta, rstd = family.layer_slices(x.shape, -1), x.copy(), x.copy(), np.empty(500), np.empty(500), np.empty(6)
    statistics = family.forward(x, slices, gamma=gamma, rms=rms)
    wanted = family.backward(dy, x, None if rms else statistics.mean, statistics.rstd, slices, gamma=gamma)
    bound = tolerance.Gradient(wanted, np.float32)
    if rms:
        assert call("rms_norm_f32", y, gamma, 6, 500, 1e-5, y, rstd) == OK
        assert_within(y, statistics.y, tolerance.output(statistics, np.float32), "y")
        assert call("rms_norm_backward_f32", dy, x, rstd, gamma, 6, 500, dx, dgamma) == OK
    else:
        assert call("layer_norm_backward_f32", dy, x, statistics.mean, statistics.rstd, gamma, 6, 500, dx, dgamma, dbeta) == OK
        assert_within(dbeta, wanted.dbeta, bound.dbeta, "dbeta")
    assert_within(dx, wanted.dx, bound.dx, "dx")
    assert_within(dgamma, wanted.dgamma, bound.dgamma, "dgamma")


@LAYOUTS
def test_moments(shape: tuple[int, ...], axis: int) -> None:
    x, sizes = sample(shape, offset=1e5), around(shape, axis)
    (found_mean, found_var) = np.empty((2, sizes[1]))
    assert call("moments_f32", x, *sizes, found_mean, found_var) == OK
    mean, var = oracle.mean_var(x, tuple(k for k in range(x.ndim) if k != axis % x.ndim))
    assert_within(found_mean, mean, tolerance.mean(mean, var, np.float32))
    assert_within(found_var, var, tolerance.var(var, np.float32))


def test_bad_arguments_have_a_status_and_write_nothing() -> None:
    x, y, name = sample((4, 5)), np.zeros((4, 5), np.float32), "layer_norm_f32"
    assert call(name, None, None, None, 4, 5, 1e-5, y, None, None) == NULL_POINTER
    assert call(name, x, None, None, 4, 5, 1e-5, None, None, None) == NULL_POINTER
    for rows, n in ((-1, 5), (4, -5), (1 << 62, 1 << 62), (1 << 62, 1), (-(1 << 63), -(1 << 63))):
        assert call(name, x, None, None, rows, n, 1e-5, y, None, None) == BAD_SIZE, (rows, n)
    for eps in (-1.0, np.nan, np.inf):
        assert call(name, x, None, None, 4, 5, eps, y, None, None) == BAD_EPS
    assert call(name, x, None, None, 1 << 55, 1, 1e-5, y, None, None) == OUT_OF_MEMORY
    assert not y.any()
    assert call(name, None, None, None, 0, 5, 1e-5, None, None, None) == OK
    statistics = np.zeros(4)
    assert call(name, None, None, None, 4, 0, 1e-5, None, statistics, None) == OK
    assert np.isnan(statistics).all()
    for groups in (0, 3, -2):
        assert call("group_norm_f32", x, None, None, 4, 1, 5, 1, groups, 1e-5, y, None, None) == BAD_SIZE
    assert call("batch_norm_f32", x, None, np.ones(5), None, None, 4, 5, 1, 1e-5, y) == NULL_POINTER
    assert call("moments_f32", x, 4, 5, 1, None, None) == NULL_POINTER
    gradient = np.ones(5)
    assert call("layer_norm_backward_f32", None, None, None, None, None, 0, 5, None, gradient, None) == OK
    assert not gradient.any()


def test_calls_from_several_threads() -> None:
    inputs = [sample((300, 100), seed=k) for k in range(8)]
    outputs = [np.empty_like(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(call, "layer_norm_f32", x, None, None, 300, 100, 1e-5, y, None, None) for x, y in zip(inputs, outputs, strict=True)
        ]
        assert [job.result() for job in jobs] == [OK] * 8
    again = np.empty_like(inputs[0])
    for x, y in zip(inputs, outputs, strict=True):
        call("layer_norm_f32", x, None, None, 300, 100, 1e-5, again, None, None)
        np.testing.assert_array_equal(again, y)


def test_a_filter_of_scipy() -> None:
    from scipy import LowLevelCallable, ndimage

    image = sample((30, 40), np.float64, offset=1e4)
    variance = LowLevelCallable(capi.functions["filter_variance_f64"].ctypes)
    found = ndimage.generic_filter(image, variance, size=5)
    np.testing.assert_allclose(found, ndimage.generic_filter(image - 1e4, np.var, size=5), rtol=1e-9)


def test_an_unknown_name() -> None:
    with pytest.raises(KeyError, match="layer_norm_f32"):
        capi.functions["layer_norm"]
    with pytest.raises(KeyError, match="layer_norm_f32"):
        capi.table(["layer_norm"])
    assert "layer_norm" not in capi.functions
    assert "double eps" in capi.functions["layer_norm_f64"].signature


def test_nothing_is_compiled_before_an_address_is_asked_for(run_python: RunPython) -> None:
    code = "import sys; from fastnorm import capi; capi.header(); list(capi.functions.values()); assert 'numba' not in sys.modules"
    run_python("-c", code)


PROGRAM = """
#include "fastnorm.h"
#include <math.h>
#include <stdlib.h>

/* Largest error of layer norm with gamma and beta against double arithmetic, in units of 1 + |y|. */
static double layer(const fastnorm_functions *fn, int64_t rows, int64_t n)
{
    float *x = malloc(rows * n * sizeof *x), *y = malloc(rows * n * sizeof *y), *gamma = malloc(n * sizeof *gamma);
    double *mean = malloc(rows * sizeof *mean), *rstd = malloc(rows * sizeof *rstd), worst = 0;
    for (int64_t k = 0; k < rows * n; k++) x[k] = 10000.0f + (float)(k * 7919 % 1009) / 500.0f;
    for (int64_t i = 0; i < n; i++) gamma[i] = 0.5f + (float)i / (float)n;
    if (fn->layer_norm_f32(x, gamma, NULL, rows, n, 1e-5, y, mean, rstd) != FASTNORM_OK) return -1;
    for (int64_t r = 0; r < rows; r++) {
        double m = 0, v = 0;
        for (int64_t i = 0; i < n; i++) m += x[r * n + i];
        m /= (double)n;
        for (int64_t i = 0; i < n; i++) v += (x[r * n + i] - m) * (x[r * n + i] - m);
        v /= (double)n;
        for (int64_t i = 0; i < n; i++) {
            double exact = (x[r * n + i] - m) / sqrt(v + 1e-5) * gamma[i];
            double error = fabs(y[r * n + i] - exact) / (1 + fabs(exact));
            if (!(error <= worst)) worst = error;
        }
        if (fabs(mean[r] - m) > 1e-6 * sqrt(v) || fabs(rstd[r] * sqrt(v + 1e-5) - 1) > 1e-6) return -2;
    }
    free(x); free(y); free(gamma); free(mean); free(rstd);
    return worst;
}

double check(const fastnorm_functions *fn)
{
    double worst = layer(fn, 7, 1000);
    float one = 1;
    if (fn->layer_norm_f32(NULL, NULL, NULL, 1, 1, 0, &one, NULL, NULL) != FASTNORM_NULL_POINTER) return -3;
    if (fn->layer_norm_f64 != NULL) return -4; /* not asked for */
    return worst;
}
"""


@needs_compiler
def test_from_c(tmp_path: Path) -> None:
    """A shared library that receives the table of pointers, and checks numbers and statuses itself."""
    (tmp_path / "fastnorm.h").write_text(capi.header())
    (tmp_path / "program.c").write_text(PROGRAM)
    library = tmp_path / "program.so"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-shared", "-fPIC"]
    subprocess.run([str(COMPILER), *flags, "program.c", "-o", str(library), "-lm"], cwd=tmp_path, check=True)
    check = ctypes.CDLL(str(library)).check
    check.restype = ctypes.c_double
    table = capi.table(["layer_norm_f32"])
    assert 0 < check(table) <= tolerance.unit(np.float32)


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_the_header_is_cxx(tmp_path: Path) -> None:
    (tmp_path / "h.cpp").write_text('#include "fastnorm.h"\nint main() { fastnorm_functions f{}; return f.layer_norm_f32 != nullptr; }\n')
    (tmp_path / "fastnorm.h").write_text(capi.header())
    subprocess.run(["c++", "-std=c++11", "-Wall", "-Werror", "-fsyntax-only", "h.cpp"], cwd=tmp_path, check=True)
