"""What `test_mpi.py` lets every rank run: ``mpiexec -n 3 python mpi_ranks.py``. Rank 0 prints the checks that hold.

A check is a function of the communicator. All ranks run all checks in the same order; the first that fails on a rank ends
all of them, because the others may wait for it.
"""

from __future__ import annotations

import doctest
import functools
import importlib
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import tolerance
from mpi4py import MPI

import fastnorm as fn
from fastnorm import preprocessing

WORLD = MPI.COMM_WORLD
CHECKS: list[Callable[[Any], None]] = []
rng = np.random.default_rng


def check(function: Callable[[Any], None]) -> Callable[[Any], None]:
    CHECKS.append(function)
    return function


def dealt(x: np.ndarray, comm: Any, axis: int = 0) -> np.ndarray:
    """This rank's part: uneven, that of the middle rank of several empty."""
    n, size = x.shape[axis], comm.size
    ends = [0] + [n * (k + 1) // (size + 1) for k in range(size - 1)] + [n]
    if size > 2:
        ends[size // 2 + 1] = ends[size // 2]
    part = [slice(None)] * x.ndim
    part[axis] = slice(ends[comm.rank], ends[comm.rank + 1])
    return x[tuple(part)]


def whole(part: np.ndarray, comm: Any, axis: int = 0) -> np.ndarray:
    return np.concatenate(comm.allgather(np.asarray(part)), axis)


def assert_same_bits(comm: Any, *values: Any) -> None:
    everybody = comm.allgather(pickle.dumps([np.asarray(v).tobytes() for v in values]))
    assert everybody.count(everybody[0]) == comm.size, "ranks differ"


def assert_raises(error: type[Exception], words: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except error as raised:
        found = str(raised)
    else:
        raise AssertionError(f"no {error.__name__}")
    assert words in found, f"{words!r} is not in {found!r}"


def batch(shape: tuple[int, ...], dtype: Any, axis: int, offset: float = 3.0) -> np.ndarray:
    x = rng(1).standard_normal(shape)
    return (x + offset * np.moveaxis(np.arange(1.0, shape[axis] + 1).reshape(-1, *[1] * (x.ndim - 1)), 0, axis)).astype(dtype)


LAYOUTS = (((24, 4, 5, 3), 1, 0), ((24, 5, 6), -1, 0), ((40, 3), 1, 0), ((3, 40), 0, 1), ((400, 8, 16, 16), 1, 0), ((60_000, 4), 1, 0))
"""Shape, channel axis, axis that samples are dealt along; the last are large enough to be cut and to run in parallel."""


@check
def forward_is_that_of_all_samples_together(comm: Any) -> None:
    for shape, axis, samples in LAYOUTS:
        for dtype in (np.float32, np.float64):
            if dtype == np.float64 and np.prod(shape) > 10_000:
                continue
            x = batch(shape, dtype, axis)
            gamma, beta = rng(2).random((2, shape[axis]))
            found = fn.mpi.batch_norm_train(dealt(x, comm, samples), gamma, beta, axis=axis, comm=comm)
            single = fn.batch_norm_train(x, gamma, beta, axis=axis)
            assert found.y.dtype == dtype
            assert_same_bits(comm, found.mean, found.rstd)
            y = whole(found.y, comm, samples)
            if comm.size == 1:
                assert all(a.tobytes() == b.tobytes() for a, b in zip(found, single, strict=True)), "not the bits of one process"
            if np.prod(shape) < 10_000:
                expected = oracle.forward(x, axis, gamma=gamma, beta=beta)
                tolerance.assert_within(y, expected.y, tolerance.output(expected, dtype))
                tolerance.assert_within(found.mean, expected.mean, tolerance.mean(expected.mean, expected.var, dtype))
            np.testing.assert_allclose(y, single.y, rtol=3e-6, atol=3e-6)


@check
def far_from_zero_the_promise_holds(comm: Any) -> None:
    for dtype in (np.float32, np.float64):
        x = (rng(3).standard_normal((300, 4)) + 1e6).astype(dtype)
        y = whole(fn.mpi.batch_norm_train(dealt(x, comm), eps=0.0, comm=comm).y, comm)
        expected = oracle.forward(x, 1, eps=0.0)
        tolerance.assert_within(y, expected.y, tolerance.output(expected, dtype))


@check
def activation_residual_and_output(comm: Any) -> None:
    x, r = batch((24, 4, 5), np.float32, 1), batch((24, 4, 5), np.float32, 1, -0.5)
    for activation in ("relu", "leaky_relu", "silu", "gelu", "gelu_tanh"):
        expected = fn.batch_norm_train(x, activation=activation, residual=r).y
        mine = dealt(x, comm).copy()
        found = fn.mpi.batch_norm_train(mine, activation=activation, residual=dealt(r, comm), out=mine, comm=comm)
        assert found.y is mine
        np.testing.assert_allclose(whole(mine, comm), expected, rtol=1e-5, atol=1e-5)


@check
def running_statistics_count_all_ranks(comm: Any) -> None:
    x = batch((12, 3), np.float64, 1)
    for unbiased in (True, False):
        mean, var = np.full(3, 5.0), np.full(3, 7.0)
        fn.mpi.batch_norm_train(dealt(x, comm), running_mean=mean, running_var=var, momentum=0.25, unbiased=unbiased, comm=comm)
        np.testing.assert_allclose(mean, 0.75 * 5 + 0.25 * x.mean(0), rtol=1e-13)
        np.testing.assert_allclose(var, 0.75 * 7 + 0.25 * x.var(0, ddof=int(unbiased)), rtol=1e-13)
        assert_same_bits(comm, mean, var)


@check
def no_sample_anywhere(comm: Any) -> None:
    mean, var, empty = np.ones(3), np.ones(3), np.empty((0, 3), np.float32)
    found = fn.mpi.batch_norm_train(empty, running_mean=mean, running_var=var, comm=comm)
    assert found.y.shape == (0, 3)
    assert np.isnan(found.mean).all()
    assert np.isnan(found.rstd).all()
    assert (mean == 1).all()
    assert (var == 1).all()
    gradients = fn.mpi.batch_norm_backward(empty, empty, found.mean, found.rstd, comm=comm)
    assert gradients.dx.shape == (0, 3)
    assert (gradients.dbeta == 0).all()


@check
def samples_on_one_rank_only(comm: Any) -> None:
    x = batch((24, 3), np.float32, 1)
    single = fn.batch_norm_train(x)
    for owner in range(comm.size):
        found = fn.mpi.batch_norm_train(x if comm.rank == owner else x[:0], comm=comm)
        assert found.mean.tobytes() == single.mean.tobytes(), "ranks without samples change bits"
        assert found.rstd.tobytes() == single.rstd.tobytes()
        if comm.rank == owner:
            assert found.y.tobytes() == single.y.tobytes()


@check
def nan_and_constants(comm: Any) -> None:
    x = batch((24, 3), np.float32, 1)
    x[5, 1], x[:, 2] = np.nan, 4.0
    found, single = fn.mpi.batch_norm_train(dealt(x, comm), eps=0.0, comm=comm), fn.batch_norm_train(x, eps=0.0)
    np.testing.assert_allclose(whole(found.y, comm), single.y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.mean, single.mean, rtol=1e-6)
    assert found.rstd[2] == np.inf


@check
def backward_is_that_of_all_samples_together(comm: Any) -> None:
    for shape, axis, samples in LAYOUTS:
        for training in (True, False):
            x, dy = batch(shape, np.float32, axis), rng(4).standard_normal(shape).astype(np.float32)
            gamma = rng(2).random(shape[axis]) + 0.5
            _, mean, rstd = fn.batch_norm_train(x, axis=axis)
            mine = functools.partial(dealt, comm=comm, axis=samples)
            found = fn.mpi.batch_norm_backward(mine(dy), mine(x), mean, rstd, gamma, axis=axis, training=training, comm=comm)
            single = fn.batch_norm_backward(dy, x, mean, rstd, gamma, axis=axis, training=training)
            assert_same_bits(comm, found.dgamma, found.dbeta)
            if comm.size == 1:
                assert all(a.tobytes() == b.tobytes() for a, b in zip(found, single, strict=True)), f"not the bits of one process: {shape}"
            dx = whole(found.dx, comm, samples)
            np.testing.assert_allclose(dx, single.dx, rtol=1e-5, atol=1e-5)
            if np.prod(shape) < 10_000:
                expected = oracle.backward(dy, x, mean, rstd, axis, gamma=gamma, training=training)
                bound = tolerance.Gradient(expected, np.float32)
                tolerance.assert_within(dx, expected.dx, bound.dx)
                tolerance.assert_within(found.dgamma, expected.dgamma, bound.dgamma)
                tolerance.assert_within(found.dbeta, expected.dbeta, bound.dbeta)


@check
def a_wider_gradient_is_rounded_as_in_one_process(comm: Any) -> None:
    for shape, axis, samples in LAYOUTS[:4]:
        x, dy = batch(shape, np.float32, axis), rng(4).standard_normal(shape)
        _, mean, rstd = fn.batch_norm_train(x, axis=axis)
        found = fn.mpi.batch_norm_backward(dealt(dy, comm, samples), dealt(x, comm, samples), mean, rstd, axis=axis, comm=comm)
        rounded = fn.mpi.batch_norm_backward(
            dealt(dy.astype(np.float32), comm, samples), dealt(x, comm, samples), mean, rstd, axis=axis, comm=comm
        )
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found, rounded, strict=True))


@check
def backward_with_activation_and_residual(comm: Any) -> None:
    shape = (24, 4, 5)
    x, r, dy = batch(shape, np.float32, 1), batch(shape, np.float32, 1, -0.5), rng(4).standard_normal(shape).astype(np.float32)
    gamma, beta = rng(2).random((2, 4)).astype(np.float32)
    _, mean, rstd = fn.batch_norm_train(x)
    options = {"activation": "gelu", "beta": beta}
    single = fn.batch_norm_backward(dy, x, mean, rstd, gamma, residual=r, **options)
    parts = [dealt(a, comm) for a in (dy, x, r)]
    found = fn.mpi.batch_norm_backward(*parts[:2], mean, rstd, gamma, residual=parts[2], comm=comm, **options)
    assert found.dgamma.dtype == found.dbeta.dtype == np.float32
    np.testing.assert_allclose(whole(found.dx, comm), single.dx, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(whole(found.dresidual, comm), single.dresidual, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.dgamma, single.dgamma, rtol=1e-5)


@check
def an_error_on_one_rank_is_an_error_on_all(comm: Any) -> None:
    x = batch((24, 3), np.float32, 1)
    last = comm.size - 1
    running = np.ones(3)

    def on_last(wrong: Any, right: Any) -> Any:
        return wrong if comm.rank == last else right

    train = functools.partial(fn.mpi.batch_norm_train, comm=comm)
    out = np.full_like(dealt(x, comm), 7.0)
    faults: tuple[tuple[type[Exception], str, Callable[[], Any]], ...] = (
        (ValueError, "gamma has shape (2,)", lambda: train(dealt(x, comm), on_last(np.ones(2), np.ones(3)), out=out)),
        (ValueError, "eps is -1", lambda: train(dealt(x, comm), eps=on_last(-1, 1e-5), out=out)),
        (TypeError, "dtype complex128", lambda: train(dealt(x, comm).astype(on_last(complex, x.dtype)), out=out)),
        (on_last(np.exceptions.AxisError, ValueError), "dimension", lambda: train(dealt(x, comm), axis=on_last(5, 1), out=out)),
        (ValueError, "activation is 'tanh'", lambda: train(dealt(x, comm), activation=on_last("tanh", None), out=out)),
        (TypeError, "running_var must be a numpy array", lambda: train(dealt(x, comm), running_var=on_last([1.0], running), out=out)),
    )
    for error, words, call in faults:
        assert_raises(error, words, call)
        assert (out == 7.0).all(), "written to before the error"
        assert (running == 1.0).all()
    if comm.size > 1:
        differ = "number of channels of x is 3 on rank 0 but 2 on rank"
        assert_raises(ValueError, differ, lambda: train(dealt(x, comm)[:, : on_last(2, 3)]))
        assert_raises(ValueError, "eps is 1e-05 on rank 0 but 0.001 on rank", lambda: train(dealt(x, comm), eps=on_last(1e-3, 1e-5)))
        m = fn.RunningMoments(axis=0)
        assert_raises(ValueError, "call is", lambda: fn.mpi.merge_moments(m, comm) if comm.rank == last else train(dealt(x, comm)))
        names = f"rank {last}: gamma has" if comm.rank != last else "gamma has"
        assert_raises(ValueError, names, faults[0][2])
    one = x[:1] if comm.rank == 0 else x[:0]
    assert_raises(ValueError, "one value per channel on all ranks", lambda: train(one, running_var=running if comm.rank == 0 else None))
    stats = np.zeros(3), np.ones(3)
    back = functools.partial(fn.mpi.batch_norm_backward, dealt(x, comm), dealt(x, comm), comm=comm)
    assert_raises(ValueError, "mean has shape (2,)", lambda: back(on_last(np.ones(2), stats[0]), stats[1]))
    assert_raises(TypeError, "mean and rstd must be arrays", lambda: back(on_last(None, stats[0]), stats[1]))
    found = train(dealt(x, comm))  # nothing is left over from what has failed
    np.testing.assert_allclose(found.mean, x.mean(0, dtype=float), rtol=1e-6)


@check
def moments_of_all_ranks(comm: Any) -> None:
    x = rng(5).normal(1e4, 1.0, (500, 3))
    x[7, 2] = np.nan
    for policy in ("propagate", "omit"):
        mine, expected = fn.RunningMoments(axis=0, nan_policy=policy), fn.RunningMoments(axis=0, nan_policy=policy)
        for part in np.array_split(dealt(x, comm), 3):
            mine.update(part)
        expected.update(x)
        before = pickle.dumps(mine)
        for _ in range(2):  # what is merged is left alone
            total = fn.mpi.merge_moments(mine, comm)
            assert pickle.dumps(mine) == before
            np.testing.assert_array_equal(total.count, expected.count)
            for a, b in (
                (total.mean, expected.mean),
                (total.var(1), expected.var(1)),
                (total.min, expected.min),
                (total.max, expected.max),
            ):
                np.testing.assert_allclose(a, b, rtol=1e-12)
            assert_same_bits(comm, total.mean, total.var(), total.min, total.max)
        total.update(x[:5])
        assert pickle.dumps(mine) == before
    assert fn.mpi.merge_moments(fn.RunningMoments(axis=0), comm).count == 0
    assert_raises(TypeError, "must be a RunningMoments", lambda: fn.mpi.merge_moments(None, comm))
    if comm.size > 1:
        assert_raises(
            ValueError, "axis of moments is 0 on rank 0", lambda: fn.mpi.merge_moments(fn.RunningMoments(axis=min(comm.rank, 1)), comm)
        )
        wide = fn.RunningMoments(axis=0)
        wide.update(x[:, : 2 + (comm.rank > 0)])
        assert_raises(ValueError, "merge equals only", lambda: fn.mpi.merge_moments(wide, comm))


@check
def scalers_of_all_ranks(comm: Any) -> None:
    x = rng(6).normal([0.0, 10.0, 5.0], [1.0, 2.0, 0.0], (50, 3))
    x[[3, 44], 0] = np.nan
    for kind in (preprocessing.StandardScaler, preprocessing.MinMaxScaler, preprocessing.MaxAbsScaler):
        found, expected = kind(), kind().fit(x)
        found.fit(x + 100.0)  # forgotten
        assert fn.mpi.fit(found, dealt(x, comm), comm=comm) is found
        attributes = [name for name in vars(expected) if name.endswith("_")]
        assert attributes
        for name in attributes:
            a, b = getattr(found, name), getattr(expected, name)
            assert type(a) is type(b), name
            np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=name)
            assert_same_bits(comm, a)
        before = {name: np.array(getattr(found, name)) for name in attributes}
        bad = np.where(np.arange(50)[:, None] == 49, np.inf, x)
        assert_raises(ValueError, "infinity", lambda found=found, bad=bad: fn.mpi.fit(found, dealt(bad, comm), comm=comm))
        assert_raises(ValueError, "no sample on any rank", lambda found=found: fn.mpi.fit(found, x[:0], comm=comm))
        for name in attributes:
            np.testing.assert_array_equal(getattr(found, name), before[name])
    w = rng(7).integers(0, 3, 50).astype(float)
    w[: len(w) // (comm.size + 1)] = 0.0  # rank 0 of several has nothing that counts
    found = fn.mpi.fit(preprocessing.StandardScaler(), dealt(x, comm), sample_weight=dealt(w, comm), comm=comm)
    np.testing.assert_allclose(found.var_, preprocessing.StandardScaler().fit(x, sample_weight=w).var_, rtol=1e-12)
    streams = fn.mpi.fit(preprocessing.StandardScaler(), iter([x[: 10 * comm.rank + 10]]), comm=comm)
    pooled = np.concatenate([x[: 10 * k + 10] for k in range(comm.size)])
    np.testing.assert_allclose(streams.mean_, np.nanmean(pooled, 0), rtol=1e-12)
    assert_raises(TypeError, "scaler must be one", lambda: fn.mpi.fit(preprocessing.Normalizer(), x, comm=comm))
    if comm.size > 1:
        other = preprocessing.StandardScaler(with_mean=comm.rank == 0)
        assert_raises(ValueError, "parameters of the scaler", lambda: fn.mpi.fit(other, dealt(x, comm), comm=comm))


@check
def messages_of_the_program_are_left_alone(comm: Any) -> None:
    """A receive of anything from anybody is open while we exchange."""
    request = comm.irecv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG)
    fn.mpi.batch_norm_train(batch((6, 2), np.float64, 1), comm=comm)
    comm.send("mine", dest=(comm.rank + 1) % comm.size)
    assert request.wait() == "mine"


@check
def communicators(comm: Any) -> None:
    x = batch((24, 3), np.float64, 1)
    backwards = comm.Split(0, -comm.rank)
    found = fn.mpi.batch_norm_train(dealt(x, backwards), comm=backwards)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-13)
    alone = comm.Split(comm.rank, 0)
    mine = x[comm.rank :]
    assert fn.mpi.batch_norm_train(mine, comm=alone).mean.tobytes() == fn.batch_norm_train(mine).mean.tobytes()
    for part in (backwards, alone):
        part.Free()
    if comm == WORLD:
        np.testing.assert_allclose(fn.mpi.batch_norm_train(dealt(x, comm)).mean, x.mean(0), rtol=1e-13)  # the default
    for wrong in ("all", MPI.COMM_NULL, 3):
        assert_raises(TypeError, "must be an intracommunicator", lambda wrong=wrong: fn.mpi.batch_norm_train(x, comm=wrong))


@check
def a_part_is_as_small_as_documented(comm: Any) -> None:
    from fastnorm.interop.mpi_batch import _Forward
    from fastnorm.interop.mpi_exchange import _Share

    for channels in (64, 2048):
        forward = _Forward(np.ones((2, channels)), None, None, 1, 1e-5, None, None, 0.1, True, None, None, None)
        assert len(pickle.dumps(_Share(0, forward.agreed, forward.part))) <= 24 * channels + 1000


@check
def examples_are_true(comm: Any) -> None:
    if comm.size == 1:
        for name in ("mpi", "mpi_batch"):
            found = doctest.testmod(importlib.import_module(f"fastnorm.interop.{name}"))
            assert found.attempted > 0
            assert found.failed == 0


def main() -> int:
    warnings.simplefilter("error")
    for function in CHECKS:
        try:
            function(WORLD)
        except BaseException:
            print(f"rank {WORLD.rank}: {function.__name__}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            WORLD.Abort(1)
        WORLD.Barrier()
        if WORLD.rank == 0:
            print(f"{function.__name__} with {WORLD.size}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
