"""``fn.RunningMoments``: any split of the data, in any order, gives the moments of the whole."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import cases
import numpy as np
import oracle
import pytest
from cases import Problem
from hypothesis import given
from hypothesis import strategies as st
from tolerance import assert_within

import fastnorm as fn
from fastnorm.state import moments

PROMISED = {cases.F8: 1e-12}  # relative to one pass over the pooled data; 1e-6 for 32- and 16-bit input
ROWS = cases.sample(Problem((200, 3)), cases.F8, offset=3.0)


def std_of(m: Any) -> Any:
    return m.std() if callable(m.std) else m.std


def of(*batches: np.ndarray, axis: Any = 0) -> fn.RunningMoments:
    m = fn.RunningMoments(axis=axis)
    for batch in batches:
        m.update(batch)
    return m


def check(m: fn.RunningMoments, pooled: np.ndarray, axis: Any = 0, dtype: Any = None) -> None:
    promised = PROMISED.get(np.dtype(dtype or pooled.dtype), 1e-6 if pooled.dtype.kind == "f" or pooled.dtype.kind == "V" else 1e-12)
    mean, var = oracle.mean_var(pooled, axis)
    axes = tuple(range(pooled.ndim)) if axis is None else axis
    assert (np.asarray(m.count) == pooled.size // max(mean.size, 1)).all()
    # Of the mean: relative to the size of what is summed, as |mean| alone may vanish.
    assert_within(m.mean, mean, promised * (np.abs(mean) + np.sqrt(var)), "mean")
    assert_within(m.var(), var, promised * var, "var")
    assert_within(std_of(m), np.sqrt(var), promised * np.sqrt(var), "std")
    _, sample_var = oracle.mean_var(pooled, axis, ddof=1)
    assert_within(m.var(ddof=1), sample_var, promised * sample_var, "var(ddof=1)")
    np.testing.assert_array_equal(np.asarray(m.min, np.float64), pooled.min(axis=axes).astype(np.float64))
    np.testing.assert_array_equal(np.asarray(m.max, np.float64), pooled.max(axis=axes).astype(np.float64))


def same(a: fn.RunningMoments, b: fn.RunningMoments) -> None:
    for name in ("count", "mean", "min", "max"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    np.testing.assert_array_equal(a.var(), b.var())


@given(cuts=st.lists(st.integers(0, 200), max_size=6))
def test_any_split_equals_one_pass(cuts: list[int]) -> None:
    check(of(*np.split(ROWS, sorted(cuts))), ROWS)


@given(cuts=st.tuples(st.integers(1, 199), st.integers(1, 199)), offset=st.sampled_from([0.0, 1.0, 100.0]))
def test_merge_is_associative_and_commutative(cuts: tuple[int, int], offset: float) -> None:
    rows = ROWS + offset
    parts = [of(part) for part in np.split(rows, sorted(cuts)) if len(part)]
    left = parts[0]
    for part in parts[1:]:
        left = left + part
    right = parts[-1]
    for part in parts[-2::-1]:
        right = part + right
    backwards = parts[-1]
    for part in parts[-2::-1]:
        backwards = backwards + part
    for merged in (left, right, backwards):
        check(merged, rows)


def test_one_row_at_a_time_equals_one_pass() -> None:
    check(of(*(ROWS[i : i + 1] for i in range(len(ROWS)))), ROWS)


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_the_promise_holds_far_from_0(offset: float) -> None:
    rows = ROWS + offset
    check(of(*np.array_split(rows, 13)), rows)
    halves = of(rows[:70])
    halves.merge(of(rows[70:]))
    check(halves, rows)


@pytest.mark.parametrize("axis", [0, -1, (0, 2, 3), (0, 1), None, (1,)], ids=str)
def test_every_axis(axis: Any) -> None:
    x = cases.sample(Problem((12, 3, 5, 4)), cases.F8)
    check(of(x, axis=axis), x, axis)


def test_kept_shape_follows_the_axes() -> None:
    x = cases.sample(Problem((12, 3, 5, 4)))
    assert np.shape(of(x, axis=(0, 2, 3)).mean) == (3,)
    assert np.shape(of(x, axis=0).mean) == (3, 5, 4)
    assert np.shape(of(x, axis=0).min) == (3, 5, 4)
    assert np.shape(of(x, axis=None).mean) == ()


def test_batches_may_differ_in_the_axes_reduced_over() -> None:
    a, b = cases.sample(Problem((4, 3, 5, 5)), cases.F8), cases.sample(Problem((7, 3, 2, 9)), cases.F8, seed=1)
    pooled = np.concatenate([part.transpose(1, 0, 2, 3).reshape(3, -1) for part in (a, b)], axis=1)
    check(of(a, b, axis=(0, 2, 3)), pooled, 1)


@pytest.mark.parametrize("dtype", [*cases.FLOATS, np.dtype(np.int64), np.dtype(bool)], ids=str)
def test_every_dtype(dtype: np.dtype) -> None:
    x = cases.sample(Problem((300, 3)), dtype)
    check(of(*np.array_split(x, 4)), x)


@pytest.mark.parametrize("view", ["Fortran", "negative strides", "every second, axis 0", "big-endian", "read-only"])
def test_every_kind_of_memory(view: str) -> None:
    check(of(cases.VIEWS[view](ROWS[:50]), cases.VIEWS[view](ROWS[50:])), ROWS)


def test_update_by_merge_and_by_operators_agree() -> None:
    a, b = ROWS[:80], ROWS[80:]
    merged = of(a)
    merged.merge(of(b))
    check(merged, ROWS)
    added = of(a)
    alias = added
    added += of(b)
    assert added is alias
    same(added, merged)
    same(of(a) + of(b), merged)


def test_plus_leaves_its_operands_alone_and_merge_its_argument() -> None:
    a, b = of(ROWS[:80]), of(ROWS[80:])
    total = a + b
    same(a, of(ROWS[:80]))
    same(b, of(ROWS[80:]))
    a.merge(b)
    same(b, of(ROWS[80:]))
    total.update(ROWS)
    a.update(ROWS)
    same(b, of(ROWS[80:]))


def test_merging_with_itself_doubles_the_data() -> None:
    m = of(ROWS)
    m.merge(m)
    check(m, np.concatenate([ROWS, ROWS]))
    m += m
    check(m, np.concatenate([ROWS] * 4))


def test_what_is_empty_changes_nothing() -> None:
    m = of(ROWS)
    m.update(ROWS[:0])
    same(m, of(ROWS))
    m.merge(fn.RunningMoments(axis=0))
    same(m, of(ROWS))
    empty = fn.RunningMoments(axis=0)
    empty.merge(of(ROWS))
    same(empty, of(ROWS))
    assert np.all(np.asarray(fn.RunningMoments(axis=0).count) == 0)


def test_results_are_not_windows_into_the_state() -> None:
    m = of(ROWS[:100])
    mean, low = np.array(m.mean), np.array(m.min)
    held_mean, held_low = m.mean, m.min
    m.update(ROWS[100:] - 1000)
    np.testing.assert_array_equal(held_mean, mean)
    np.testing.assert_array_equal(held_low, low)


def test_input_is_copied_not_held() -> None:
    batch = ROWS[:1].copy()
    m = of(batch)
    batch[...] = 1e9
    same(m, of(ROWS[:1]))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_continue_on_their_own(clone: Any) -> None:
    m = of(ROWS[:80])
    twin = clone(m)
    same(twin, m)
    twin.update(ROWS[80:])
    check(twin, ROWS)
    same(m, of(ROWS[:80]))
    same(clone(fn.RunningMoments(axis=0)) + m, m)


def test_constant_data_has_variance_exactly_0() -> None:
    m = of(*[np.full((7, 3), 0.1)] * 11)
    assert np.all(m.var() == 0.0)
    assert np.all(m.mean == 0.1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_stays_in_its_statistic() -> None:
    rows = ROWS.copy()
    rows[5, 1] = np.nan
    m = of(rows[:50], rows[50:])
    np.testing.assert_array_equal(np.isnan(m.mean), [False, True, False])
    np.testing.assert_array_equal(np.isnan(m.var()), [False, True, False])
    np.testing.assert_array_equal(np.isnan(m.min), [False, True, False])
    np.testing.assert_array_equal(np.isnan(m.max), [False, True, False])
    check(of(ROWS[:, [0, 2]]), rows[:, [0, 2]])


def test_large_batches_of_float32() -> None:
    x = cases.sample(Problem((40_009, 33)), offset=1e3)
    check(of(*np.array_split(x, 3)), x)


def test_bad_input_is_refused_and_leaves_the_state_alone() -> None:
    m = of(ROWS)
    with pytest.raises(ValueError, match=r"batch|shape"):
        m.update(np.ones((5, 4)))
    with pytest.raises(TypeError, match="complex128"):
        m.update(np.ones((5, 3), complex))
    with pytest.raises(np.exceptions.AxisError):
        of(ROWS, axis=2)
    with pytest.raises(ValueError, match=r"shape|other"):
        m.merge(of(np.ones((5, 4))))
    with pytest.raises(TypeError):
        m.merge(3.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        m + 3.0
    same(m, of(ROWS))


def test_integer_weights_are_repetitions() -> None:
    weights = np.arange(200) % 3
    m = fn.RunningMoments(axis=0)
    try:
        m.update(ROWS[:70], weights=weights[:70])
    except (NotImplementedError, TypeError):
        pytest.skip("weights not accepted yet")
    m.update(ROWS[70:], weights=weights[70:])
    mean, var = oracle.mean_var(np.repeat(ROWS, weights, axis=0), 0)
    assert_within(m.mean, mean, 1e-12 * (np.abs(mean) + np.sqrt(var)))
    assert_within(m.var(), var, 1e-12 * var)


def test_infinities_of_both_signs_merge_to_nan_without_a_warning() -> None:
    parts = [fn.RunningMoments(axis=0) for _ in range(2)]
    for part, value in zip(parts, (np.inf, -np.inf), strict=True):
        part.update(np.array([[1.0, value], [3.0, value]]))
    total = parts[0] + parts[1]
    assert total.mean[0] == 2.0
    assert np.isnan(total.mean[1])


@pytest.mark.parametrize("policy", ["propagate", "omit", "raise"])
@pytest.mark.parametrize("dtype", [*cases.FLOATS, np.dtype(np.int32), np.dtype(np.bool_)], ids=str)
def test_the_short_way_gives_the_bits_of_the_general_one(monkeypatch: pytest.MonkeyPatch, dtype: Any, policy: str) -> None:
    """Batches of finite numbers go it, before and after others."""
    for shape, axis in (((40, 7), 0), ((40, 7), 1), ((3, 4, 50), (0, 2)), ((5, 300), None), ((2, 3000), 0), ((6, 5, 4), 1)):
        batches = [(cases.sample(Problem(shape), cases.F8, offset=k) * 9).astype(dtype) for k in range(7)]
        batches[1] = batches[1][::-1]
        batches[2] = np.asfortranarray(batches[2])
        if dtype in cases.FLOATS and policy != "raise":
            batches[3][0] = np.nan
            batches[5].flat[3] = np.inf
        short, general = (fn.RunningMoments(axis, nan_policy=policy) for _ in range(2))
        for batch in batches:
            short.update(batch)
            with monkeypatch.context() as patch:
                patch.setattr(moments, "quick_batch", lambda *arguments: None)
                general.update(batch)
            same(short, general)


def test_the_short_way_leaves_the_state_alone_when_it_is_refused() -> None:
    m = of(ROWS)
    before = copy.deepcopy(m)
    with pytest.raises(ValueError, match="batches of one shape"):
        m.update(ROWS[:, :2])
    same(m, before)
    mean, extremes = m.mean, m._extrema
    m.update(ROWS + 100)
    np.testing.assert_array_equal(mean, before.mean)  # what was handed out is not written to
    np.testing.assert_array_equal(extremes, before._extrema)
