"""The library inside other people's compiled functions: runs, public functions, caches, and a process without a compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import oracle
import oracle_family as family
import pytest
import tolerance
from conftest import PACKAGE_ROOT, RunPython
from numba import njit, prange
from tolerance import assert_within

import fastnorm as fn
import fastnorm.jit as jit

Array = np.ndarray
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def rows(shape: tuple[int, ...], dtype: Any = np.float32, offset: float = 1.0, seed: int = 0) -> Array:
    """Every row with an offset of its own, of up to `offset` standard deviations."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=shape) + offset * generator.uniform(0.5, 1.0, size=(*shape[:-1], 1))).astype(dtype)


# Without fastmath, with the error model of Python: options of the caller.
@njit
def layer_rows(x, y, gamma, beta, eps, stats):  # type: ignore[no-untyped-def]
    for r in range(x.shape[0]):
        stats[0, r], stats[1, r] = jit.layer_norm_row(x[r], y[r], gamma, beta, eps)


@njit
def rms_rows(x, y, gamma, eps, stats):  # type: ignore[no-untyped-def]
    for r in range(x.shape[0]):
        stats[r] = jit.rms_norm_row(x[r], y[r], gamma, eps)


@DTYPES
@pytest.mark.parametrize("offset", [1.0, 1e6])
def test_layer_norm_of_rows_keeps_the_promise_at_any_offset(dtype: Any, offset: float) -> None:
    x = rows((5, 20001), dtype, offset)  # longer than what is summed in one piece
    gamma, beta = rows((20001,), dtype, seed=1), rows((20001,), dtype, seed=2)
    y, stats = np.empty_like(x), np.empty((2, 5))
    layer_rows(x, y, gamma, beta, 1e-5, stats)
    expected = family.forward(x, family.layer_slices(x.shape, -1), gamma=gamma, beta=beta)
    assert_within(y, expected.y, tolerance.output(expected, dtype), "y")
    assert_within(stats[0], expected.mean, tolerance.mean(expected.mean, expected.var, dtype), "mean")
    assert_within(stats[1], expected.rstd, tolerance.rstd(expected.rstd, dtype), "rstd")


def test_rms_norm_of_rows_in_place() -> None:
    x = rows((5, 301))
    gamma, y, rstd = rows((301,), seed=1), x.copy(), np.empty(5)
    rms_rows(y, y, gamma, 1e-5, rstd)
    expected = family.forward(x, family.layer_slices(x.shape, -1), gamma=gamma, rms=True)
    assert_within(y, expected.y, tolerance.output(expected, np.float32), "y")
    assert_within(rstd, expected.rstd, tolerance.rstd(expected.rstd, np.float32), "rstd")


@njit
def backward_rows(dy, x, dx, mean, rstd, gamma, dgamma, dbeta):  # type: ignore[no-untyped-def]
    for r in range(x.shape[0]):
        jit.layer_norm_row_backward(dy[r], x[r], dx[r], mean[r], rstd[r], gamma, dgamma, dbeta)


@njit
def rms_backward_rows(dy, x, dx, rstd, gamma, dgamma):  # type: ignore[no-untyped-def]
    for r in range(x.shape[0]):
        jit.rms_norm_row_backward(dy[r], x[r], dx[r], rstd[r], gamma, dgamma)


@pytest.mark.parametrize("learned", [True, False])
def test_gradients_of_rows(learned: bool) -> None:
    x, dy = rows((7, 5001)), rows((7, 5001), seed=3)
    slices = family.layer_slices(x.shape, -1)
    gamma, dgamma, dbeta = (rows((5001,), seed=1), np.zeros(5001), np.zeros(5001)) if learned else (None, None, None)
    statistics = family.forward(x, slices)
    expected = family.backward(dy, x, statistics.mean, statistics.rstd, slices, gamma=gamma)
    bound, dx = tolerance.Gradient(expected, np.float32), np.empty_like(x)
    backward_rows(dy, x, dx, statistics.mean, statistics.rstd, gamma, dgamma, dbeta)
    assert_within(dx, expected.dx, bound.dx, "dx")
    if learned:
        assert_within(dgamma, expected.dgamma, bound.dgamma, "dgamma")
        assert_within(dbeta, expected.dbeta, bound.dbeta, "dbeta")


def test_gradients_of_rms_norm() -> None:
    x, dy = rows((7, 300)), rows((7, 300), seed=3)
    slices = family.layer_slices(x.shape, -1)
    gamma, dgamma, dx = rows((300,), seed=1), np.zeros(300), dy.copy()
    rstd = family.forward(x, slices, rms=True).rstd
    expected = family.backward(dy, x, None, rstd, slices, gamma=gamma)
    bound = tolerance.Gradient(expected, np.float32)
    rms_backward_rows(dx, x, dx, rstd, gamma, dgamma)
    assert_within(dx, expected.dx, bound.dx, "dx")
    assert_within(dgamma, expected.dgamma, bound.dgamma, "dgamma")


@njit
def pooled(x, cut):  # type: ignore[no-untyped-def]
    return jit.moments(x), jit.merge(jit.moments(x[:cut]), jit.moments(x[cut:]))


def test_moments_of_parts_are_those_of_the_whole() -> None:
    x = rows((40000,), offset=1e4)
    mean, var = oracle.mean_var(x)
    for cut in (0, 1, 20000, 40000):
        for found in pooled(x, cut):
            assert found._fields == ("count", "mean", "m2")
            assert found.count == x.size
            assert_within(found.mean, mean, tolerance.mean(mean, var, np.float32))
            assert_within(found.m2 / found.count, var, tolerance.var(var, np.float32))
    assert jit.moments(np.full(5000, 0.1)).m2 == 0.0


@njit
def batch_norm_in_runs(x, y, mean, var, gamma, beta, eps):  # type: ignore[no-untyped-def]
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            jit.batch_norm_run(x[n, c], y[n, c], mean[c], var[c], gamma[c], beta[c], eps)
            # The second of two ways to the same.
            other = np.empty_like(x[n, c])
            jit.normalize(x[n, c], other, mean[c], 1.0 / np.sqrt(var[c] + eps), gamma[c], beta[c])
            if not np.all(other == y[n, c]):
                raise AssertionError("normalize and batch_norm_run differ")


def test_batch_norm_in_runs() -> None:
    x = rows((3, 4, 100), offset=1e5)
    mean, var, gamma, beta = x.mean((0, 2), np.float64), np.array([1.0, 2.0, 3.0, 4.0]), np.arange(4.0), np.arange(4.0) - 2
    y = np.empty_like(x)
    batch_norm_in_runs(x, y, mean, var, gamma, beta, 1e-5)
    expected = oracle.forward(x, 1, mean=mean, var=var, gamma=gamma, beta=beta)
    assert_within(y, expected.y, tolerance.output(expected, np.float32))


@njit
def activated(z, out):  # type: ignore[no-untyped-def]
    for i in range(z.size):
        out[0, i] = jit.relu(z[i])
        out[1, i] = jit.leaky_relu(z[i])
        out[2, i] = jit.silu(z[i])
        out[3, i] = jit.gelu(z[i])
        out[4, i] = jit.gelu_tanh(z[i])
    jit.activate(z, out[5], "gelu")


def test_activations() -> None:
    z = np.linspace(-9.0, 9.0, 1001, dtype=np.float32)
    out = np.empty((6, z.size), np.float32)
    activated(z, out)
    names = ("relu", "leaky_relu", "silu", "gelu", "gelu_tanh", "gelu")
    for found, name in zip(out, names, strict=True):
        assert_within(found, oracle.activate(z.astype(np.float64), name), tolerance.unit(np.float32) * (1 + np.abs(z)), name)
    with pytest.raises(ValueError, match=r"'tanh'.*'gelu'"):
        jit.activate(z, z, "tanh")
    y = z.copy()
    jit.activate(y, y, "gelu")
    np.testing.assert_array_equal(y, out[5])


@njit(parallel=True)
def block(x, residual, gamma, beta, out):  # type: ignore[no-untyped-def]
    """Residual add, layer norm, and something of the user's own, a row at a time."""
    for r in prange(x.shape[0]):
        row = out[r]
        for i in range(row.size):
            row[i] = x[r, i] + residual[r, i]
        jit.layer_norm_row(row, row, gamma, beta, 1e-5)
        for i in range(row.size):
            row[i] = jit.gelu(row[i]) * 2.0


def test_a_fused_kernel_of_the_user_in_prange(restore_threads: None) -> None:
    x, residual, gamma, beta = rows((64, 100)), rows((64, 100), seed=1), rows((100,), seed=2), rows((100,), seed=3)
    expected = family.forward(x + residual, family.layer_slices(x.shape, -1), gamma=gamma, beta=beta, activation="gelu")
    outs = []
    for threads in (1, 2):
        fn.set_num_threads(threads)
        outs.append(np.empty_like(x))
        block(x, residual, gamma, beta, outs[-1])
    np.testing.assert_array_equal(*outs)
    assert_within(outs[0], 2 * expected.y, 2 * tolerance.output(expected, np.float32))


# --- public functions in compiled code ---


@njit
def public_rows(x, gamma, beta, out):  # type: ignore[no-untyped-def]
    return fn.layer_norm(x, gamma, beta, axis=-1, eps=1e-3, return_stats=True), fn.rms_norm(x, gamma, out=out)


def test_layer_and_rms_norm() -> None:
    x, gamma, beta = rows((3, 5, 64), offset=1e4), rows((64,), seed=1), rows((64,), seed=2)
    out, slices = np.empty_like(x), family.layer_slices((3, 5, 64), -1)
    layer, rms = public_rows(x, gamma, beta, out)
    assert layer._fields == ("y", "mean", "rstd")
    expected = family.forward(x, slices, gamma=gamma, beta=beta, eps=1e-3)
    assert_within(layer.y, expected.y, tolerance.output(expected, np.float32), "y")
    assert_within(layer.mean, expected.mean, tolerance.mean(expected.mean, expected.var, np.float32), "mean")
    assert_within(layer.rstd, expected.rstd, tolerance.rstd(expected.rstd, np.float32), "rstd")
    expected = family.forward(x, slices, gamma=gamma, rms=True)
    assert_within(rms, expected.y, tolerance.output(expected, np.float32), "RMS norm")
    np.testing.assert_array_equal(rms, out)
    assert public_rows(x[:0].copy(), gamma, beta, out[:0].copy())[0].mean.shape == (0, 5)
    np.testing.assert_array_equal(njit(lambda x, gamma: fn.rms_norm(x, gamma))(x[0, 0], gamma), rms[0, 0])
    for wrong in (gamma[1:].copy(), np.ones(65, np.float32)):
        with pytest.raises(ValueError, match="length of the last axis"):
            public_rows(x, wrong, beta, out)
    with pytest.raises(ValueError, match="another shape"):
        public_rows(x, gamma, beta, out[1:].copy())


@njit
def public_batch_norm(x, mean, var, gamma, residual):  # type: ignore[no-untyped-def]
    first = fn.batch_norm(x, mean, var, gamma, axis=1, activation="relu", residual=residual)
    return first, fn.batch_norm(x.reshape(-1, mean.size), mean, var, None, gamma, axis=-1)


def test_batch_norm_of_planes_and_of_columns() -> None:
    x, residual = rows((6, 8, 8, 4)), rows((6, 8, 8, 4), seed=1)
    mean, var, gamma = np.linspace(0.5, 1.5, 8), np.linspace(0.5, 2.0, 8), np.linspace(-1.0, 1.0, 8)
    planes, columns = public_batch_norm(x, mean, var, gamma, residual)
    expected = oracle.forward(x, 1, mean=mean, var=var, gamma=gamma, activation="relu", residual=residual)
    assert_within(planes, expected.y, tolerance.output(expected, np.float32), "planes")
    expected = oracle.forward(x.reshape(-1, 8), 1, mean=mean, var=var, beta=gamma)
    assert_within(columns, expected.y, tolerance.output(expected, np.float32), "columns")
    with pytest.raises(ValueError, match="length of the channel axis"):
        public_batch_norm(x, mean[1:].copy(), var, gamma, residual)


@njit
def public_into(x, mean, gamma, residual, out):  # type: ignore[no-untyped-def]
    fn.batch_norm(x, mean, mean, gamma, mean, axis=-1, residual=residual, out=out)


@njit
def public_rows_into(x, gamma, out):  # type: ignore[no-untyped-def]
    fn.layer_norm(x, gamma, gamma, out=out)


@njit
def public_rms_into(x, gamma, out):  # type: ignore[no-untyped-def]
    fn.rms_norm(x, gamma, out=out)


@pytest.mark.parametrize("shift", [0, 16, 5, -5])
def test_an_output_that_shares_memory_with_inputs_gives_what_copies_give(shift: int) -> None:
    """Of x and out, `shift` elements apart, and of a parameter within out."""
    memory = np.abs(rows((4 * 16 + 32,))) + 1.0
    for kernel, residual in ((public_rows_into, ()), (public_rms_into, ()), (public_into, (0,))):
        mine = memory.copy()
        x, out, gamma = mine[8 : 8 + 64].reshape(4, 16), mine[8 + shift : 72 + shift].reshape(4, 16), mine[40:56]
        inputs = (x, *[gamma] * (2 if residual else 1), *[x for _ in residual])
        expected = np.empty((4, 16), np.float32)
        kernel(*(a.copy() for a in inputs), expected)
        kernel(*inputs, out)
        np.testing.assert_array_equal(out, expected, err_msg=str(kernel))


@njit
def public_mean_var(x, ddof):  # type: ignore[no-untyped-def]
    return fn.mean_var(x), fn.mean_var(x, axis=0, ddof=ddof), fn.mean_var(x, axis=-1)


def test_mean_var() -> None:
    x = rows((40, 3, 30), offset=1e4)
    for found, axis, ddof in zip(public_mean_var(x, 1), (None, 0, -1), (0, 1, 0), strict=True):
        mean, var = oracle.mean_var(x, axis, ddof=ddof)
        assert found._fields == ("mean", "var")
        assert_within(found.mean, mean, tolerance.mean(mean, var, np.float32), f"mean over {axis}")
        assert_within(found.var, var, tolerance.var(var, np.float32), f"variance over {axis}")
    x[0, 0, 0] = np.inf
    for found, axis in zip(public_mean_var(x, 0), (None, 0, -1), strict=True):
        hit = np.isinf(x).any(axis)
        np.testing.assert_array_equal(found.mean == np.inf, hit)
        np.testing.assert_array_equal(np.isnan(found.var), hit)
    assert np.isnan(public_mean_var(x[:1], 1)[1].var).all(), "no degrees of freedom"


def test_an_axis_that_is_no_constant() -> None:
    @njit
    def along(x, axis):  # type: ignore[no-untyped-def]
        return fn.mean_var(x, axis).mean

    x = rows((4, 5, 6), np.float32)
    for axis in (0, 1, 2, -1, -2, -3):
        np.testing.assert_allclose(along(x, axis), x.astype(np.float64).mean(axis), rtol=1e-6)
    with pytest.raises(ValueError, match="axis does not name"):
        along(x, 3)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (lambda x: fn.layer_norm(x), (np.ones((2, 3), np.int64),), "pass a C-contiguous array of float32 or float64"),
        (lambda x: fn.rms_norm(x), (np.ones((2, 3)).T,), "pass a C-contiguous array of float32 or float64"),
        (lambda x, m: fn.batch_norm(x, m, m, m, m, 1, 1e-5, "tanh"), (np.ones((2, 3)), np.ones(3)), "pass one of the constants"),
        (lambda x: fn.batch_norm(x, x, x), (np.ones(3),), "x has 1 dimension"),
        (lambda x: fn.mean_var(x, 0, 0, True), (np.ones((2, 3)),), "knows no keepdims"),
        (lambda x: fn.mean_var(x, weights=x), (np.ones((2, 3)),), "knows no weights"),
        (lambda x: jit.moments(x), (np.ones((2, 3)),), "pass a contiguous one-dimensional array"),
        (lambda x: jit.moments(x), (np.ones(6)[::2],), "pass a contiguous one-dimensional array"),
        (lambda x: jit.layer_norm_row(x, x, "a", None, 1e-5), (np.ones(3),), "gamma or beta is"),
        (lambda x: jit.rms_norm_row_backward(x, x, x, 1.0, x, None), (np.ones(3),), "dgamma is None"),
    ],
)
def test_types_that_compiled_code_does_not_know(call: Any, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(numba.TypingError, match=message):
        njit(call)(*arguments)


# --- processes ---

GUEST = """
import sys, numba, numpy as np, fastnorm as fn, fastnorm.jit
@numba.njit(cache=True)
def f(x, out):
    fastnorm.jit.rms_norm_row(x[0], out[0], None, 1e-5)
    return fn.mean_var(x, 0).mean
"""
CALL = "import guest, numpy as np; x = np.arange(24, dtype=np.float32).reshape(8, 3); o = np.zeros_like(x); print(guest.f(x, o), o[0], {})"
HITS = "sum(guest.f.stats.cache_hits.values())"


def test_a_function_of_the_user_is_cached_with_ours_in_it(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "guest.py").write_text(GUEST.lstrip())
    environment = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "users")}
    first = run_python("-c", CALL.format(HITS), **environment).stdout.split()
    # In the second process nothing of ours is in any cache.
    again = run_python("-c", CALL.format(HITS), **environment, FASTNORM_CACHE_DIR=str(tmp_path / "empty")).stdout.split()
    assert again[-1] == "1", "not loaded from the cache"
    assert again[:-1] == first[:-1]
    assert not list((tmp_path / "empty").rglob("*.nbc"))


def test_without_a_compiler_functions_are_python(run_python: RunPython) -> None:
    code = """
import numba, numpy as np, fastnorm.jit as jit
@numba.njit
def f(x, out):
    jit.rms_norm_row(x, out, x, 0.0)
    jit.activate(out, out, "relu")
    return jit.gelu(x[0])
x = np.array([-1.0, 3.0, 1.0, 5.0], np.float32)
out = np.zeros_like(x)
print(type(f).__name__, round(f(x, out), 6), *out)
"""
    name, *numbers = run_python("-c", code, NUMBA_DISABLE_JIT="1").stdout.split()
    assert name == "function"
    np.testing.assert_allclose([float(n) for n in numbers], [-0.158655, 1 / 3, 3, 1 / 3, 25 / 3], rtol=1e-6)


def test_numba_finds_the_entry_point_and_pays_only_when_asked(tmp_path: Path, run_python: RunPython) -> None:
    information = tmp_path / "guest_of_numba-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: guest-of-numba\nVersion: 1.0\n")
    project = (PACKAGE_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = [line for line in project.splitlines() if "interop.jit_init" in line]
    (information / "entry_points.txt").write_text("[numba_extensions]\n" + line.replace('"', "") + "\n")
    code = """
import sys, numba, numpy as np
assert numba.njit(lambda x: x + 1)(1) == 2
early = {m for m in sys.modules if m.startswith("fastnorm.")}
assert "fastnorm.interop.jit_init" in early, early
assert not early & {"fastnorm._jit", "fastnorm.ops", "fastnorm.interop.jit_overloads", "fastnorm.element"}, early
import fastnorm as fn
@numba.njit
def f(x):
    return fn.mean_var(x)
print(f(np.arange(5, dtype=np.float32)))
"""
    assert "mean=2.0, var=2.0" in run_python("-c", code, PYTHONPATH=str(tmp_path)).stdout


def test_every_public_function_says_what_it_does() -> None:
    for name in jit.__all__:
        text = getattr(jit, name).__doc__
        assert name == "Moments" or ">>>" in text, name
        assert name in ("Moments", "activate", "relu", "leaky_relu") or "Source" in text or "GELU" in text, name


def test_activations_of_integers_are_those_of_floats() -> None:
    for activation in (jit.relu, jit.leaky_relu, jit.silu, jit.gelu, jit.gelu_tanh):
        both = numba.njit(lambda z, activation=activation: (activation(z), activation(3), activation(-200)))
        for z in (3, -200, True):
            assert activation(z) == activation(float(z))
            assert both(z) == (activation(float(z)), activation(3.0), activation(-200.0))
        with pytest.raises(numba.TypingError):
            activation("3")
