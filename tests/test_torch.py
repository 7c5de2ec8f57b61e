"""The same numbers as PyTorch, an implementation with users. Skipped where PyTorch is not installed."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import oracle_family
import pytest
import tolerance
from cases import Problem
from checks_family import AXES, COLUMNS, NCHW, ROWS, Group, Layer, parameter, sample
from tolerance import assert_within

import fastnorm as fn

torch = pytest.importorskip("torch")

PROBLEM = Problem((6, 5, 9, 7))  # planar kernels, which other tests have compiled


def tensors(*arrays: np.ndarray) -> list:
    return [torch.from_numpy(a.copy()) for a in arrays]


def leaves(*arrays: np.ndarray) -> list:
    return [tensor.requires_grad_() for tensor in tensors(*arrays)]


@pytest.mark.parametrize("training", [True, False])
def test_forward_running_statistics_and_gradients(training: bool) -> None:
    dtype = cases.F4
    x, dy = cases.sample(PROBLEM, dtype), cases.sample(PROBLEM, dtype, seed=7)
    gamma, beta = cases.parameter(5, dtype), cases.parameter(5, dtype, 2)
    means, variances = cases.parameter(5, dtype, 3), cases.parameter(5, dtype, 4) ** 2
    tx, tgamma, tbeta, tmeans, tvariances = tensors(x, gamma, beta, means, variances)
    for leaf in (tx, tgamma, tbeta):
        leaf.requires_grad_()
    ty = torch.nn.functional.batch_norm(tx, tmeans, tvariances, tgamma, tbeta, training=training, momentum=0.3, eps=1e-3)
    ty.backward(torch.from_numpy(dy))

    fixed = {} if training else {"mean": means.astype(np.float64), "var": variances.astype(np.float64)}
    exact = oracle.forward(x, gamma=gamma, beta=beta, eps=1e-3, **fixed)
    gradients = oracle.backward(dy, x, exact.mean, exact.rstd, gamma=gamma, training=training)
    if training:
        y, mean, rstd = fn.batch_norm_train(x, gamma, beta, eps=1e-3, momentum=0.3, running_mean=means, running_var=variances)
    else:
        y, mean, rstd = fn.batch_norm(x, means, variances, gamma, beta, eps=1e-3), exact.mean, exact.rstd
    result = fn.batch_norm_backward(dy, x, mean, rstd, gamma, training=training)

    # Twice the bound: PyTorch has an error too, of the same order on data without an offset.
    bound = tolerance.Gradient(gradients, dtype, gamma)
    assert_within(y, ty.detach().numpy(), 2 * tolerance.output(exact, dtype), "y")
    assert_within(result.dx, tx.grad.numpy(), 2 * bound.dx, "dx")
    assert_within(result.dgamma, tgamma.grad.numpy(), 2 * bound.dgamma, "dgamma")
    assert_within(result.dbeta, tbeta.grad.numpy(), 2 * bound.dbeta, "dbeta")
    size = 1 + np.abs(means) + np.abs(variances)
    assert_within(means, tmeans.numpy(), 4 * tolerance.unit(dtype) * size, "running_mean")
    assert_within(variances, tvariances.numpy(), 4 * tolerance.unit(dtype) * size, "running_var")


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu", "gelu", "gelu_tanh"])
def test_activations_mean_what_they_mean_in_pytorch(activation: str) -> None:
    x, dy = cases.sample(PROBLEM), cases.sample(PROBLEM, seed=7)
    gamma, beta = cases.parameter(5), cases.parameter(5, seed=2)
    functions = torch.nn.functional
    tx, tgamma, tbeta = tensors(x, gamma, beta)
    tx.requires_grad_()
    z = functions.batch_norm(tx, None, None, tgamma, tbeta, training=True)
    ty = functions.gelu(z, approximate="tanh") if activation == "gelu_tanh" else getattr(functions, activation)(z)
    ty.backward(torch.from_numpy(dy))

    y, mean, rstd = fn.batch_norm_train(x, gamma, beta, activation=activation)
    dx = fn.batch_norm_backward(dy, x, mean, rstd, gamma, activation=activation, beta=beta).dx
    exact = oracle.forward(x, gamma=gamma, beta=beta, activation=activation)
    gradients = oracle.backward(dy, x, exact.mean, exact.rstd, gamma=gamma, beta=beta, activation=activation)
    assert_within(y, ty.detach().numpy(), 2 * tolerance.output(exact, np.float32), "y")
    assert_within(dx, tx.grad.numpy(), 2 * tolerance.Gradient(gradients, np.float32, gamma).dx, "dx")


def compare(found: tuple, expected: tuple, exact: oracle.Forward, gradients: oracle.Backward, gamma: np.ndarray) -> None:
    """y, dx, dgamma[, dbeta]. Twice the bound: PyTorch has an error too."""
    bound = tolerance.Gradient(gradients, np.float32, gamma)
    bounds = (tolerance.output(exact, np.float32), bound.dx, bound.dgamma, bound.dbeta)
    for name, ours, theirs, allowed in zip(("y", "dx", "dgamma", "dbeta"), found, expected, bounds, strict=False):
        assert_within(ours, theirs.detach().numpy(), 2 * allowed, name)


@pytest.mark.parametrize("problem", [ROWS, AXES["tokens, two axes"]], ids=["rows", "two axes"])
def test_layer_and_rms_norm(problem: Layer) -> None:
    x, dy, gamma, beta = sample(problem), sample(problem, seed=7), parameter(problem), parameter(problem, seed=2)
    slices, functions, options = problem.slices, torch.nn.functional, {"axis": problem.axis, "eps": 1e-3, "return_stats": True}

    tx, tgamma, tbeta = leaves(x, gamma, beta)
    ty = functions.layer_norm(tx, gamma.shape, tgamma, tbeta, 1e-3)
    ty.backward(torch.from_numpy(dy))
    y, mean, rstd = fn.layer_norm(x, gamma, beta, **options)
    result = fn.layer_norm_backward(dy, x, mean, rstd, gamma, axis=problem.axis)
    exact = oracle_family.forward(x, slices, gamma=gamma, beta=beta, eps=1e-3)
    gradients = oracle_family.backward(dy, x, exact.mean, exact.rstd, slices, gamma=gamma)
    compare((y, *result), (ty, tx.grad, tgamma.grad, tbeta.grad), exact, gradients, gamma)

    tx, tgamma = leaves(x, gamma)
    ty = functions.rms_norm(tx, gamma.shape, tgamma, 1e-3)
    ty.backward(torch.from_numpy(dy))
    y, rstd = fn.rms_norm(x, gamma, **options)
    exact = oracle_family.forward(x, slices, gamma=gamma, eps=1e-3, rms=True)
    gradients = oracle_family.backward(dy, x, None, exact.rstd, slices, gamma=gamma)
    compare((y, *fn.rms_norm_backward(dy, x, rstd, gamma, axis=problem.axis)), (ty, tx.grad, tgamma.grad), exact, gradients, gamma)


def test_norm_of_a_sum_over_the_first_axis() -> None:
    """The residual stream, in a layout that PyTorch sees transposed."""
    x, residual, dy = (sample(COLUMNS, seed=seed) for seed in (0, 1, 7))
    gamma, beta = parameter(COLUMNS), parameter(COLUMNS, seed=2)
    tx, tresidual, tgamma, tbeta = leaves(x.T, residual.T, gamma, beta)
    ty = torch.nn.functional.layer_norm(tx + tresidual, gamma.shape, tgamma, tbeta)
    ty.backward(torch.from_numpy(dy.T.copy()))
    y, h, mean, rstd = fn.add_layer_norm(x, residual, gamma, beta, axis=0, return_stats=True)
    result = fn.layer_norm_backward(dy, h, mean, rstd, gamma, axis=0)
    exact = oracle_family.forward(h, COLUMNS.slices, gamma=gamma, beta=beta)
    gradients = oracle_family.backward(dy, h, exact.mean, exact.rstd, COLUMNS.slices, gamma=gamma)
    compare((y, *result), (ty.T, tx.grad.T, tgamma.grad, tbeta.grad), exact, gradients, gamma)


def test_group_and_instance_norm() -> None:
    functions = torch.nn.functional
    for problem in (NCHW, Group(NCHW.shape, NCHW.channels)):
        x, dy, gamma, beta = sample(problem), sample(problem, seed=7), parameter(problem), parameter(problem, seed=2)
        tx, tgamma, tbeta = leaves(x, gamma, beta)
        exact = oracle_family.forward(x, problem.slices, gamma=gamma, beta=beta)
        gradients = oracle_family.backward(dy, x, exact.mean, exact.rstd, problem.slices, gamma=gamma)
        if problem is NCHW:
            ty = functions.group_norm(tx, problem.num_groups, tgamma, tbeta)
            y, mean, rstd = fn.group_norm(x, problem.num_groups, gamma, beta, return_stats=True)
            result = fn.group_norm_backward(dy, x, problem.num_groups, mean, rstd, gamma)
        else:
            ty = functions.instance_norm(tx, weight=tgamma, bias=tbeta)
            y, mean, rstd = fn.instance_norm(x, gamma, beta, return_stats=True)
            result = fn.instance_norm_backward(dy, x, mean, rstd, gamma)
        ty.backward(torch.from_numpy(dy))
        compare((y, *result), (ty, tx.grad, tgamma.grad, tbeta.grad), exact, gradients, gamma)
