"""Batch normalization with the statistics of the batches of all ranks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.interop.mpi_exchange import union
from fastnorm.ops import gradient_passes, passes
from fastnorm.ops.batch import BatchNormTraining, TrainingCall
from fastnorm.ops.batch_backward import BackwardCall, BatchNormGradients, BatchNormResidualGradients
from fastnorm.ops.door import running_pair
from fastnorm.ops.pooling import Pool
from fastnorm.ops.reduction import Reduced

Array = NDArray[Any]


class PartMoments(NamedTuple):
    """What is known of the batches of some ranks."""

    moments: Reduced
    unbiased: bool  # somebody's running variance wants more than one value per channel

    def joined(self, other: PartMoments) -> PartMoments:
        """Where one of them is empty, the bits of the other."""
        unbiased = self.unbiased or other.unbiased
        if self.moments.count == 0 or other.moments.count == 0:
            return PartMoments(other.moments if self.moments.count == 0 else self.moments, unbiased)
        shape = self.moments.mean.shape
        both = Pool(shape, self.moments.rows()).joined(Pool(shape, other.moments.rows()))
        return PartMoments(both.reduced()._replace(count=self.moments.count + other.moments.count), unbiased)


class _Forward:
    """One rank's side of `batch_norm_train`: everything is checked and nothing is written."""

    def __init__(
        self, x: Any, gamma: Any, beta: Any, axis: Any, eps: Any, running_mean: Any, running_var: Any, momentum: Any, unbiased: Any,
        activation: Any, residual: Any, out: Any,
    ) -> None:  # fmt: skip
        self.call = call = TrainingCall(x, gamma, beta, axis, eps, activation, residual, out)
        self.running = running_pair(running_mean, running_var, momentum, unbiased, call.channels, 0, call.axis, out)
        nothing = np.full(call.channels, np.nan)
        self.problem, moments = None, Reduced(nothing, np.zeros(call.channels), nothing, 0)
        if call.x.size:
            self.problem = call.problem()
            stats = passes.moments(self.problem, call.eps)
            moments = Reduced(stats[0], stats[1], stats[2], call.x.size // call.channels)
        self.part = PartMoments(moments, self.running.var is not None and self.running.unbiased)
        self.agreed = {"call": "batch_norm_train", "number of channels of x": call.channels, "eps": call.eps}

    def finish(self, total: PartMoments) -> BatchNormTraining:
        mean, low, var, count = total.moments
        if count == 1 and total.unbiased:
            raise ValueError(
                "x has one value per channel on all ranks together, from which no unbiased variance follows for running_var; "
                "pass a larger batch or unbiased=False"
            )
        with np.errstate(divide="ignore"):  # a constant slice with eps = 0 gives inf, as element.moments.reciprocal_std
            rstd = 1.0 / np.sqrt(var + self.call.eps)
        if self.problem is not None:
            walk = passes.apply_pass(self.problem, None, self.call.activation)
            walk(passes.storages(self.problem), mean, low, rstd, *self.call.parameters)
            self.problem.finish()
        y = self.call.target.deliver()
        if count:
            self.running.update(mean, var, count)
        return BatchNormTraining(y, mean, rstd)


def batch_norm_train(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    momentum: float = 0.1,
    unbiased: bool = True,
    activation: str | None = None,
    residual: ArrayLike | None = None,
    out: Array | None = None,
    comm: Any = None,
) -> BatchNormTraining:
    """Batch normalization with the statistics of the batches of all ranks: synchronized batch norm.

    Collective: every rank of `comm` has to call it. Each gets the result for its own samples, those that
    `fastnorm.batch_norm_train` would give it if one process had all samples.

    Parameters
    ----------
    x : array_like
        The samples of this rank, as in `fastnorm.batch_norm_train`. Ranks may have different numbers of them, or none.
    gamma, beta, axis, eps, momentum, unbiased, activation, residual, out
        As in `fastnorm.batch_norm_train`. `eps` and the number of channels have to be the same on all ranks.
    running_mean, running_var : array (C,), optional
        Updated in place on every rank that passes them, with the moments and the number of values of all ranks.
    comm : mpi4py.MPI.Intracomm, optional
        None means all ranks: ``MPI.COMM_WORLD``.

    Returns
    -------
    y : array like x
    mean, rstd : float64 array (C,)
        Of all ranks together, with the same bits on every rank; NaN if none has a sample.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written, and on every rank if on any: no rank waits for one that has given up.

    Notes
    -----
    One exchange, whatever the size of x: messages of 24 bytes per channel (mean, its low part, variance) and less than a kilobyte
    for the rest, up a binary tree in the order of ranks, which does not depend on the MPI library, and a broadcast of the
    union. With 2 us of latency, 100 Gbit/s and 60 us (of 64 channels) or 90 us (of 2048) of Python per join a rank waits
    (``python -m bench mpi`` computes it with what it measures)::

        ranks       64 channels    2048 channels
        8               0.22 ms          0.34 ms
        128             0.48 ms          0.75 ms
        10000           0.95 ms          1.48 ms

    One thread per core and process: give ranks that share a machine ``FASTNORM_NUM_THREADS``, or bind them to cores.
    Source: Ioffe, Szegedy 2015, algorithm 1; of the merge Chan, Golub, LeVeque 1983.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> y, mean, rstd = fn.mpi.batch_norm_train(x, eps=0.0)  # one rank, two samples
    >>> y
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    rules = (axis, eps, running_mean, running_var, momentum, unbiased, activation, residual, out)
    forward, total = union(comm, lambda: _Forward(x, gamma, beta, *rules), PartMoments.joined)
    return forward.finish(total)


class PartSums(NamedTuple):
    """Of the elements of some ranks."""

    elements: int  # of every channel
    sums: gradient_passes.Sums

    def joined(self, other: PartSums) -> PartSums:
        return PartSums(self.elements + other.elements, self.sums + other.sums)


class _Backward:
    """One rank's side of `batch_norm_backward`: everything is checked and nothing is written."""

    def __init__(
        self, dy: Any, x: Any, mean: Any, rstd: Any, gamma: Any, axis: Any, training: Any, activation: Any, beta: Any, residual: Any,
        out: Any,
    ) -> None:  # fmt: skip
        self.call = call = BackwardCall(dy, x, mean, rstd, gamma, axis, activation, beta, residual, out)
        self.training = bool(training)
        self.problem, self.elements, sums = None, call.x.size // call.channels if call.channels else 0, np.zeros((2, call.channels))
        if call.x.size:
            self.problem = call.problem()
            sums = gradient_passes.gradient_sums_pass(self.problem, call.activation)(passes.storages(self.problem), *call.parameters)
        self.part = PartSums(self.elements, sums)
        self.agreed = {"call": "batch_norm_backward", "number of channels of x": call.channels, "training": self.training}

    def finish(self, total: PartSums) -> BatchNormGradients | BatchNormResidualGradients:
        if self.problem is not None:
            share = total.sums * (self.elements / total.elements)  # the kernel divides by the elements of this rank
            walk = gradient_passes.input_gradient_pass(self.problem, self.call.activation, self.training)
            walk(passes.storages(self.problem), *self.call.parameters, share)
            self.problem.finish()
        # kernels.gradient.parameter_gradients, for a rank without elements, too
        return self.call.result(total.sums[1] * self.call.parameters[1], total.sums[0])


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    rstd: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int = 1,
    training: bool = True,
    activation: str | None = None,
    beta: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    out: Any = None,
    comm: Any = None,
) -> BatchNormGradients | BatchNormResidualGradients:
    """Gradients of batch normalization with the statistics of all ranks.

    Collective: every rank of `comm` has to call it, with its own samples.

    Parameters
    ----------
    dy, x : array_like
        Of this rank; perhaps without samples.
    mean, rstd : array_like (C,)
        As `batch_norm_train` returned them on this rank.
    gamma, axis, training, activation, beta, residual, out
        As in `fastnorm.batch_norm_backward`. `training` has to be the same on all ranks.
    comm : mpi4py.MPI.Intracomm, optional
        As in `batch_norm_train`.

    Returns
    -------
    dx : array like x
    dgamma, dbeta : array (C,)
        Summed over all ranks, with the same bits on every rank: an optimizer must not sum them again.
    dresidual : array like x
        Only with a residual.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        Before anything is written, and on every rank if on any.

    Notes
    -----
    One exchange of 16 bytes per channel, as in `batch_norm_train`: the sums which dx needs are those of dgamma and dbeta.
    Source: Ioffe, Szegedy 2015, section 3, summed in closed form.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> x = np.array([[1.0], [3.0]])
    >>> y, mean, rstd = fn.mpi.batch_norm_train(x, eps=0.0)
    >>> fn.mpi.batch_norm_backward(np.array([[1.0], [0.0]]), x, mean, rstd).dbeta
    array([1.])
    """
    rules = (gamma, axis, training, activation, beta, residual, out)
    backward, total = union(comm, lambda: _Backward(dy, x, mean, rstd, *rules), PartSums.joined)
    return backward.finish(total)
