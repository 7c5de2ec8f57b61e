"""Things that remember, as state machines: any order of their methods agrees with a model that keeps all the data."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import cases
import numpy as np
import oracle
import oracle_family
import pytest
import tolerance
from cases import F4, F8, Problem
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_running_moments import check as check_moments
from tolerance import assert_within

import fastnorm as fn
from fastnorm.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

Array = np.ndarray
SEEDS = st.integers(0, 50)
ROWS = st.integers(1, 9)
COLUMNS = 3


def rows(n: int, seed: int, dtype: Any = F8) -> Array:
    return cases.sample(Problem((n, COLUMNS)), dtype, seed, offset=3.0)


class Moments(RuleBasedStateMachine):
    """`RunningMoments` and all rows that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.moments = fn.RunningMoments(axis=0)
        self.seen = np.zeros((0, COLUMNS))

    def take(self, batch: Array) -> None:
        self.seen = np.concatenate([self.seen, batch])

    @rule(n=ROWS, seed=SEEDS)
    def update(self, n: int, seed: int) -> None:
        self.moments.update(rows(n, seed))
        self.take(rows(n, seed))

    @rule()
    def update_with_nothing(self) -> None:
        self.moments.update(np.zeros((0, COLUMNS)))

    @rule(shape=st.sampled_from([(4, COLUMNS + 1), (2, 2, COLUMNS)]))
    def update_with_another_shape(self, shape: tuple[int, ...]) -> None:
        if len(self.seen):
            with pytest.raises(ValueError, match="shape"):
                self.moments.update(np.zeros(shape))

    @rule(n=ROWS, seed=SEEDS, how=st.sampled_from(["merge", "+=", "+", "reversed +"]))
    def join(self, n: int, seed: int, how: str) -> None:
        other = fn.RunningMoments(axis=0)
        other.update(rows(n, seed))
        if how == "merge":
            self.moments.merge(other)
        elif how == "+=":
            self.moments += other
        else:
            self.moments = self.moments + other if how == "+" else other + self.moments
        self.take(rows(n, seed))
        assert other.count == n

    @precondition(lambda self: len(self.seen) <= 100)
    @rule()
    def join_itself(self) -> None:
        self.moments.merge(copy.deepcopy(self.moments))
        self.take(self.seen)

    @rule(copied=st.sampled_from([copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]))
    def copied(self, copied: Any) -> None:
        self.moments = copied(self.moments)

    @invariant()
    def agrees(self) -> None:
        if len(self.seen):
            check_moments(self.moments, self.seen)
        else:
            assert self.moments.count == 0


class Scalers(RuleBasedStateMachine):
    """A scaler and all rows that it has seen since it was fitted anew."""

    @initialize(kind=st.sampled_from([StandardScaler, MinMaxScaler, MaxAbsScaler]))
    def start(self, kind: Any) -> None:
        self.scaler, self.seen = kind(), np.zeros((0, COLUMNS))

    @rule(n=ROWS, seed=SEEDS, missing=st.booleans())
    def fit(self, n: int, seed: int, missing: bool) -> None:
        self.scaler.fit(self.batch(n, seed, missing))
        self.seen = self.batch(n, seed, missing)

    @rule(n=ROWS, seed=SEEDS, missing=st.booleans())
    def partial_fit(self, n: int, seed: int, missing: bool) -> None:
        self.scaler.partial_fit(self.batch(n, seed, missing))
        self.seen = np.concatenate([self.seen, self.batch(n, seed, missing)])

    def batch(self, n: int, seed: int, missing: bool) -> Array:
        batch = rows(n, seed)
        if missing and n > 1:
            batch[seed % n, seed % COLUMNS] = np.nan
        return batch

    @precondition(lambda self: len(self.seen))
    @rule(n=ROWS, seed=SEEDS)
    def merge(self, n: int, seed: int) -> None:
        self.scaler.merge(type(self.scaler)().fit(rows(n, seed)))
        self.seen = np.concatenate([self.seen, rows(n, seed)])

    @rule(
        bad=st.sampled_from(
            [np.zeros((0, COLUMNS)), np.full((2, COLUMNS), np.inf), np.zeros(3), "x", np.zeros((2, COLUMNS), complex), None]
        )
    )
    def refuse(self, bad: Any) -> None:
        before = pickle.dumps(self.scaler)
        for method in (self.scaler.fit, self.scaler.partial_fit):
            with pytest.raises((ValueError, TypeError)):
                method(bad)
        assert pickle.dumps(self.scaler) == before

    @rule()
    def pickled(self) -> None:
        self.scaler = pickle.loads(pickle.dumps(self.scaler))

    @precondition(lambda self: len(self.seen))
    @rule(n=ROWS, seed=SEEDS, in_place=st.booleans())
    def transform(self, n: int, seed: int, in_place: bool) -> None:
        X = rows(n, seed)
        low, high, mean, var = self.statistics()
        centre, spread = {
            StandardScaler: (mean, np.sqrt(var)), MinMaxScaler: (low, high - low), MaxAbsScaler: (0.0, np.maximum(abs(low), abs(high))),
        }[type(self.scaler)]  # fmt: skip
        # One row, or a feature whose rows are all alike, has a spread of 0 and is not scaled.
        spread = np.where(spread < 1e-14, 1.0, spread)
        wanted = (X - centre) / spread
        out = X if in_place else None
        Y = self.scaler.transform(X, out=out)
        assert_within(Y, wanted, 1e-11 * (1 + abs(wanted) + abs(np.asarray(centre)) / spread), "transformed")
        assert_within(self.scaler.inverse_transform(Y), rows(n, seed), 1e-11 * (1 + abs(rows(n, seed)) + spread), "and back")

    def statistics(self) -> tuple[Array, ...]:
        columns = [column[~np.isnan(column)] for column in self.seen.T]
        if not all(len(column) for column in columns):
            return tuple(np.array([f(column) if len(column) else np.nan for column in columns]) for f in (np.min, np.max, np.mean, np.var))
        mean, var = np.array([[float(v) for v in oracle.mean_var(column)] for column in columns]).T
        return np.array([c.min() for c in columns]), np.array([c.max() for c in columns]), mean, var


class BatchLayer(RuleBasedStateMachine):
    """`layers.BatchNorm` and running statistics by the oracle."""

    @initialize(momentum=st.sampled_from([0.1, None, 1.0]), unbiased=st.booleans())
    def start(self, momentum: float | None, unbiased: bool) -> None:
        self.layer = fn.layers.BatchNorm(COLUMNS, momentum=momentum, unbiased=unbiased)
        self.layer.gamma[...], self.layer.beta[...] = cases.parameter(COLUMNS), cases.parameter(COLUMNS, seed=2)
        self.mean, self.var = np.zeros(COLUMNS), np.ones(COLUMNS)
        self.batches = 0
        self.last: Any = None
        self.error = 0.0  # roundings of the running arrays so far, relative

    @rule(n=st.integers(2, 9), seed=SEEDS, how=st.sampled_from(["", "out", "in place"]))
    def forward(self, n: int, seed: int, how: str) -> None:
        x = rows(n, seed, F4)
        out = {"": None, "out": np.empty_like(x), "in place": x}[how]
        expected = self.expected(x)
        y = self.layer(x, out=out)
        if self.layer.training:
            self.follow(expected, n)
            assert_within(y, expected.y, tolerance.output(expected, F4), "y")
        else:
            assert_within(y, expected.y, tolerance.output(expected, F4) * 8, "y")
        given = {} if self.layer.training else {"mean": self.layer.running_mean.copy(), "var": self.layer.running_var.copy()}
        self.last = None if how == "in place" else (rows(n, seed, F4), given)

    def expected(self, x: Array) -> oracle.Forward:
        given = {} if self.layer.training else {"mean": self.layer.running_mean, "var": self.layer.running_var}
        return oracle.forward(x, gamma=self.layer.gamma, beta=self.layer.beta, **given)

    def follow(self, expected: oracle.Forward, n: int) -> None:
        weight = self.layer.momentum if self.layer.momentum is not None else 1 / (self.batches + 1)
        self.mean = oracle.running(self.mean, expected.mean, weight)
        self.var = oracle.running(self.var, expected.var * (n / (n - 1) if self.layer.unbiased else 1.0), weight)
        self.batches += 1

    @rule(seed=SEEDS)
    def backward(self, seed: int) -> None:
        if self.last is None:
            with pytest.raises(RuntimeError, match="backward needs"):
                self.layer.backward(np.zeros((2, COLUMNS), np.float32))
            return
        x, given = self.last
        dy = rows(len(x), seed + 100, F4)
        at = oracle.forward(x, **given)
        wanted = oracle.backward(dy, x, at.mean, at.rstd, gamma=self.layer.gamma, beta=self.layer.beta, training=not given)
        bound = tolerance.Gradient(wanted, F4, self.layer.gamma)
        assert_within(self.layer.backward(dy), wanted.dx, 2 * bound.dx, "dx")
        assert_within(self.layer.dgamma, wanted.dgamma, 2 * bound.dgamma, "dgamma")
        assert_within(self.layer.dbeta, wanted.dbeta, 2 * bound.dbeta, "dbeta")

    @rule(mode=st.booleans())
    def mode(self, mode: bool) -> None:
        assert self.layer.train(mode) is self.layer

    @rule()
    def refuse(self) -> None:
        before = pickle.dumps(self.layer.state_dict())
        for bad in (np.zeros((2, COLUMNS + 1)), np.zeros(COLUMNS), np.ma.ones((2, COLUMNS)), "x"):
            with pytest.raises((ValueError, TypeError)):
                self.layer(bad)
        assert pickle.dumps(self.layer.state_dict()) == before

    @rule()
    def saved_and_loaded(self) -> None:
        state, layer = self.layer.state_dict(), self.layer
        self.layer = fn.layers.BatchNorm(COLUMNS, momentum=layer.momentum, unbiased=layer.unbiased).train(layer.training)
        self.layer.load_state_dict(state)
        self.last = None

    @rule(seeds=st.lists(SEEDS, min_size=1, max_size=3))
    def recompute(self, seeds: list[int]) -> None:
        batches = [rows(5, seed, F4) for seed in seeds]
        self.layer.recompute_statistics(batches)
        self.mean, self.var = oracle.mean_var(np.concatenate(batches), 0, ddof=int(self.layer.unbiased))

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "layer"):
            return
        # A rounding of float32 per batch, and the statistics' own errors, are damped by the weights that follow.
        bound = 2.0**-24 * (self.batches + 2) + 2e-6
        assert_within(self.layer.running_mean, self.mean, bound * (abs(self.mean) + np.sqrt(self.var) + 3), "running_mean")
        assert_within(self.layer.running_var, self.var, bound * (self.var + 1), "running_var")
        assert self.layer.num_batches_tracked == self.batches


class RowLayers(RuleBasedStateMachine):
    """Layers without running statistics: what backward is about is the last forward, whatever came before."""

    @initialize(kind=st.sampled_from(["layer", "rms", "group", "instance"]))
    def start(self, kind: str) -> None:
        self.kind = kind
        self.layer = {
            "layer": lambda: fn.layers.LayerNorm(6), "rms": lambda: fn.layers.RMSNorm(6, eps=1e-5),
            "group": lambda: fn.layers.GroupNorm(2, 4), "instance": lambda: fn.layers.InstanceNorm(4),
        }[kind]()  # fmt: skip
        self.layer.gamma[...] = cases.parameter(self.layer.gamma.size)
        self.x: Array | None = None

    def slices(self, x: Array) -> oracle_family.Slices:
        if self.kind in ("layer", "rms"):
            return oracle_family.layer_slices(x.shape, -1)
        return oracle_family.group_slices(x.shape, 2 if self.kind == "group" else 4)

    def sample(self, n: int, seed: int) -> Array:
        return cases.sample(Problem((n, 4, 6)), F4, seed)

    def expected(self, x: Array) -> oracle.Forward:
        options = {"gamma": self.layer.gamma, "beta": self.layer.beta, "rms": self.kind == "rms"}
        return oracle_family.forward(x, self.slices(x), eps=self.layer.eps, **options)

    @rule(n=st.integers(1, 5), seed=SEEDS, in_place=st.booleans())
    def forward(self, n: int, seed: int, in_place: bool) -> None:
        x = self.sample(n, seed)
        wanted = self.expected(x)
        y = self.layer(x, out=x if in_place else None)
        assert_within(y, wanted.y, tolerance.output(wanted, F4), "y")
        self.x = None if in_place else x

    @rule(seed=SEEDS)
    def backward(self, seed: int) -> None:
        if self.x is None:
            with pytest.raises(RuntimeError, match="backward needs"):
                self.layer.backward(self.sample(2, 0))
            return
        dy, at = self.sample(len(self.x), seed + 100), self.expected(self.x)
        mean = None if self.kind == "rms" else at.mean
        wanted = oracle_family.backward(dy, self.x, mean, at.rstd, self.slices(self.x), gamma=self.layer.gamma)
        bound = tolerance.Gradient(wanted, F4, self.layer.gamma)
        assert_within(self.layer.backward(dy), wanted.dx, 2 * bound.dx, "dx")
        assert_within(self.layer.dgamma, wanted.dgamma, 2 * bound.dgamma, "dgamma")

    @rule()
    def refuse(self) -> None:
        before = pickle.dumps(self.layer.state_dict())
        for bad in (np.zeros((2, 5, 7), np.float32), np.zeros(3), np.ma.ones((2, 4, 6)), "x"):
            with pytest.raises((ValueError, TypeError)):
                self.layer(bad)
        assert pickle.dumps(self.layer.state_dict()) == before

    @rule()
    def copied(self) -> None:
        self.layer = copy.deepcopy(self.layer)
        self.x = None

    @rule(seed=SEEDS)
    def learn(self, seed: int) -> None:
        for value, gradient in self.layer.parameters():
            value -= np.float32(0.01) * np.clip(gradient, -1, 1)


STEPS = settings(stateful_step_count=8)
TestMoments, TestScalers, TestBatchLayer, TestRowLayers = (m.TestCase for m in (Moments, Scalers, BatchLayer, RowLayers))
TestMoments.settings = TestScalers.settings = TestBatchLayer.settings = TestRowLayers.settings = STEPS
