"""The same numbers as PyTorch, an implementation with users. Skipped where PyTorch is not installed."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest
import tolerance
from cases import Problem
from tolerance import assert_within

import fastnorm as fn

torch = pytest.importorskip("torch")

PROBLEM = Problem((6, 5, 9, 7))  # planar kernels, which other tests have compiled


def tensors(*arrays: np.ndarray) -> list:
    return [torch.from_numpy(a.copy()) for a in arrays]


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
