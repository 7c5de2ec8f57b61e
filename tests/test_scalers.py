"""Scalers on dense tables: laws, then scikit-learn's attributes, then bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnorm as fn
from fastnorm.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, StandardScaler, scale

Array = np.ndarray
LEARNING = (StandardScaler, MinMaxScaler, MaxAbsScaler)
ALL = (*LEARNING, Normalizer)
F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
# Relative to the whole: roundings of float64 sums; of float32, eight of its own (tests/tolerance.py).
CLOSE = {F8: 1e-12, F4: 1e-6}


def table(dtype: Any = F8, rows: int = 90, missing: bool = False) -> Array:
    """Five features: far from zero, wide, constant, zero, whole numbers; with `missing`, NaN, and one feature of nothing else."""
    rng = np.random.default_rng(7)
    X = rng.normal([1000.0, 0.0, 0.0, 0.0, 3.0], [1.0, 50.0, 0.0, 0.0, 4.0], (rows, 5))
    X[:, 2] = 7.5
    X[:, 4] = np.round(X[:, 4])
    if missing:
        X[rng.random(X.shape) < 0.2] = np.nan
        X[:, 1] = np.nan
    return X.astype(dtype)


def state(scaler: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(scaler).items() if name.endswith("_")}


def assert_same_state(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 0.0) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None or isinstance(value, int):
            assert found[name] == value, name
        elif isinstance(value, np.ndarray) and value.dtype == object:
            np.testing.assert_array_equal(found[name], value)
        else:
            size = np.nanmax(np.abs(value), initial=1e-300)
            np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * size, err_msg=name)


# Laws.


@pytest.mark.parametrize("dtype", [F8, F4])
def test_standardized_features_have_mean_0_and_variance_1(dtype: np.dtype) -> None:
    X = table(dtype)
    Y = StandardScaler().fit_transform(X)
    assert Y.dtype == dtype
    mean, var = oracle.mean_var(Y, 0)
    np.testing.assert_allclose(mean, 0.0, atol=CLOSE[dtype])
    np.testing.assert_allclose(var, [1, 1, 0, 0, 1], atol=4 * CLOSE[dtype])
    np.testing.assert_array_equal(Y[:, 2:4], 0.0)


@pytest.mark.parametrize("dtype", [F8, F4])
def test_a_range_is_filled_to_its_ends(dtype: np.dtype) -> None:
    X = table(dtype, missing=True)
    Y = MinMaxScaler((-2, 3)).fit_transform(X)
    np.testing.assert_array_equal(np.isnan(Y), np.isnan(X))
    for column, constant in ((0, False), (2, True), (4, False)):
        assert np.nanmin(Y[:, column]) == -2.0
        np.testing.assert_allclose(np.nanmax(Y[:, column]), -2.0 if constant else 3.0, rtol=4 * CLOSE[dtype])


@pytest.mark.parametrize("dtype", [F8, F4])
def test_the_largest_magnitude_becomes_1(dtype: np.dtype) -> None:
    Y = MaxAbsScaler().fit_transform(table(dtype))
    np.testing.assert_allclose(np.abs(Y).max(axis=0), [1, 1, 1, 0, 1], rtol=CLOSE[dtype])


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("dtype", [F8, F4])
def test_normalized_samples_have_norm_1(dtype: np.dtype, norm: str) -> None:
    X = table(dtype)
    X[3] = 0.0
    for samples in (X, np.repeat(X, 200, axis=1)):  # short rows, and long ones
        Y = Normalizer(norm).transform(samples)
        found = np.linalg.norm(Y.astype(np.float64), {"l1": 1, "l2": 2, "max": np.inf}[norm], axis=1)
        np.testing.assert_allclose(np.delete(found, 3), 1.0, rtol=2 * CLOSE[dtype])
        np.testing.assert_array_equal(Y[3], 0.0)


@pytest.mark.parametrize("dtype", [F8, F4])
@pytest.mark.parametrize("scaler", [StandardScaler(), StandardScaler(with_mean=False), MinMaxScaler((-1, 4)), MaxAbsScaler()])
def test_there_and_back(scaler: Any, dtype: np.dtype) -> None:
    X = table(dtype, missing=True)
    back = scaler.fit(X).inverse_transform(scaler.transform(X))
    assert back.dtype == dtype
    np.testing.assert_allclose(back, X, rtol=4 * CLOSE[dtype], atol=100 * CLOSE[dtype])


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 89), max_size=4, unique=True), weighted=st.booleans())
def test_any_partition_learned_or_merged_is_the_whole(cuts: list[int], weighted: bool) -> None:
    X, w = table(missing=True), np.random.default_rng(1).random(90)
    parts = np.split(np.arange(90), sorted(cuts))
    for kind in LEARNING:

        def given_weights(rows: Array, kind: type = kind) -> dict[str, Array]:
            return {"sample_weight": w[rows]} if weighted and kind is StandardScaler else {}

        whole = state(kind().fit(X, **given_weights(np.arange(90))))
        learned, merged = kind(), kind()
        for rows in parts:
            learned.partial_fit(X[rows], **given_weights(rows))
            assert merged.merge(kind().fit(X[rows], **given_weights(rows))) is merged
        assert_same_state(state(learned), whole, 1e-12)
        assert_same_state(state(merged), whole, 1e-12)


def test_a_weight_is_a_number_of_repetitions() -> None:
    X = table(missing=True)
    times = np.random.default_rng(2).integers(0, 4, 90)
    weighted, repeated = StandardScaler().fit(X, sample_weight=times), StandardScaler().fit(np.repeat(X, times, axis=0))
    assert_same_state(state(weighted), state(repeated), 1e-12)
    assert np.asarray(weighted.n_samples_seen_).dtype == np.float64
    assert np.asarray(repeated.n_samples_seen_).dtype.kind == "i"


@pytest.mark.parametrize(("dtype", "offset", "promised"), [(F4, 1e5, 1e-6), (F8, 1e6, 1e-13)])
def test_far_from_zero_results_are_those_of_the_data(dtype: np.dtype, offset: float, promised: float) -> None:
    X = np.random.default_rng(3).normal(offset, 1.0, (400, 3)).astype(dtype)
    mean, var = (np.array([f(list(c)) for c in X.astype(np.longdouble).T]) for f in (np.mean, np.var))
    exact = ((X - mean) / np.sqrt(var)).astype(np.float64)
    merged = StandardScaler().fit(X[:7]).partial_fit(X[7:300]).merge(StandardScaler().fit(X[300:]))
    for result in (StandardScaler().fit(X).transform(X), merged.transform(X), scale(X)):
        error = np.abs(result - exact)
        assert (error <= promised * (1 + np.abs(exact))).all(), error.max()
    low, high = X.min(axis=0).astype(np.longdouble), X.max(axis=0).astype(np.longdouble)
    exact = ((X - low) / (high - low)).astype(np.float64)
    error = np.abs(MinMaxScaler().fit(X).transform(X) - exact)
    assert (error <= promised * (1 + np.abs(exact))).all(), error.max()


# Layouts, places and dtypes of tables and results.


def strided(X: Array) -> Array:
    wide = np.zeros((2 * X.shape[0], 3 * X.shape[1]), X.dtype)
    wide[::2, ::3] = X
    return wide[::2, ::3]


@pytest.mark.parametrize("layout", [np.asfortranarray, strided], ids=["fortran", "strided"])
@pytest.mark.parametrize("kind", ALL)
def test_any_layout(kind: Any, layout: Callable[[Array], Array]) -> None:
    X = table()
    X.flags.writeable = False
    expected, found = kind().fit(X), kind().fit(layout(X))
    assert_same_state(state(found), state(expected), 1e-12)
    np.testing.assert_allclose(found.transform(layout(X)), expected.transform(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("few", [65536, 0])  # integers that are converted, not read as they are
def test_dtypes_are_kept_and_integers_become_float64(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnorm.preprocessing.door.FEW_INTEGERS", few)
    for dtype, result in (("f2", "f2"), ("f4", "f4"), ("f8", "f8"), ("i4", "f8"), (">f8", "f8")):
        X = np.array([[1, 2], [3, 6], [5, 4]], dtype)
        scaler = StandardScaler().fit(X)
        assert scaler.transform(X).dtype == np.dtype(result)
        np.testing.assert_allclose(scaler.transform(X), (X - [3.0, 4.0]) / np.sqrt(8 / 3), atol=1e-3)
        assert scaler.mean_.dtype == scaler.var_.dtype == scaler.scale_.dtype == np.float64


def test_attributes_in_the_memory_of_the_output_are_read_first() -> None:
    X = np.random.default_rng(1).normal(5.0, 2.0, (200_000, 3))
    expected = StandardScaler().fit(X).transform(X)
    for row in (0, 70_000, 199_999):
        scaler, out = StandardScaler().fit(X), np.zeros_like(X)
        out[row], scaler.mean_ = scaler.mean_, out[row]
        np.testing.assert_array_equal(scaler.transform(X, out=out), expected)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("progress", [False, True])
def test_out_receives_the_result(kind: Any, progress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if progress:
        pytest.importorskip("rich")
        monkeypatch.setattr("fastnorm.preprocessing.blocks.BLOCK_BYTES", 1000)  # 25 rows
    X = table()
    scaler = kind().fit(X)
    expected = scaler.transform(X)
    for out in (np.empty_like(X), np.empty(X.shape, order="F"), np.empty(X.shape, np.float32)):
        assert scaler.transform(X, out=out, progress=progress) is out
        np.testing.assert_allclose(out, expected, rtol=1e-6 if out.dtype == F4 else 1e-13, atol=1e-7 if out.dtype == F4 else 0)
        assert kind().fit_transform(X, out=out) is out
    memory = np.concatenate([X, X[:7]])
    memory[:90] = X
    scaler.transform(memory[:90], out=memory[7:], progress=progress)
    np.testing.assert_array_equal(memory[7:], expected)
    if kind is not Normalizer:
        back = np.empty_like(X)
        assert scaler.inverse_transform(expected, out=back, progress=progress) is back
        np.testing.assert_allclose(back, X, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("kind", LEARNING)
def test_fit_transform_does_not_look_for_infinities_twice(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = kind().fit(X := table()).transform(X)
    monkeypatch.setattr(kind, "_check_values", None)
    np.testing.assert_array_equal(kind().fit_transform(X), expected)
    X[3, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        kind().fit_transform(X)


@pytest.mark.parametrize("kind", ALL)
def test_copy_false_writes_to_x_where_it_can(kind: Any) -> None:
    expected = kind().fit_transform(table())
    for X in (table(), np.asfortranarray(table())):
        assert kind(copy=False).fit(X).transform(X) is X
        np.testing.assert_allclose(X, expected, rtol=1e-12, atol=1e-12)
    fixed = table()
    fixed.flags.writeable = False
    kind(copy=False).fit_transform(fixed)
    np.testing.assert_array_equal(fixed, table())
    whole = table().astype(np.int64)
    assert kind(copy=False).fit_transform(whole).dtype == F8
    np.testing.assert_array_equal(whole, table().astype(np.int64))
    X = table()
    kind().fit(X).transform(X)
    np.testing.assert_array_equal(X, table())


def test_the_call_overrides_the_parameter_copy() -> None:
    for kind in (StandardScaler, Normalizer):
        X = table()
        assert kind().fit(X).transform(X, copy=False) is X
        assert kind(copy=False).fit(X).transform(X, copy=True) is not X


def test_clip() -> None:
    X = np.array([[0.0, -4.0], [1.0, 2.0]])
    beyond = np.array([[-1.0, 8.0], [2.0, np.nan]])
    np.testing.assert_array_equal(MinMaxScaler((1, 2), clip=True).fit(X).transform(beyond), [[1.0, 2.0], [2.0, np.nan]])
    np.testing.assert_array_equal(MaxAbsScaler(clip=True).fit(X).transform(beyond), [[-1.0, 1.0], [1.0, np.nan]])


def test_attributes_made_or_changed_by_hand_are_used() -> None:
    X = table()
    made = StandardScaler()
    made.mean_, made.scale_ = np.arange(5.0), np.full(5, 2.0)
    np.testing.assert_allclose(made.transform(X), (X - np.arange(5.0)) / 2.0, rtol=1e-12)
    standard, ranged = StandardScaler().fit(X), MinMaxScaler().fit(X)
    standard.mean_ = standard.mean_ + 1.0
    np.testing.assert_allclose(standard.transform(X), (X - standard.mean_) / standard.scale_, rtol=1e-12, atol=1e-12)
    ranged.min_ = ranged.min_ + 0.5
    np.testing.assert_allclose(ranged.transform(X), X * ranged.scale_ + ranged.min_, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(ranged.inverse_transform(ranged.transform(X)), X, rtol=1e-12)


# As scikit-learn has it.


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dtype", [F8, F4])
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("StandardScaler", {}),
        ("StandardScaler", {"with_mean": False}),
        ("StandardScaler", {"with_std": False}),
        ("StandardScaler", {"with_mean": False, "with_std": False}),
        ("MinMaxScaler", {"feature_range": (-3, 2), "clip": True}),
        ("MaxAbsScaler", {}),
    ],
)
@pytest.mark.filterwarnings("ignore:All-NaN", "ignore:invalid value")  # theirs
def test_attributes_and_results_are_those_of_scikit_learn(name: str, parameters: dict, dtype: np.dtype, missing: bool) -> None:
    theirs = getattr(pytest.importorskip("sklearn.preprocessing"), name)(**parameters)
    ours = getattr(fn.preprocessing, name)(**parameters)
    X = table(dtype, missing=missing)
    for rows in (slice(0, 90), slice(10, 60)):
        ours.partial_fit(X[rows]), theirs.partial_fit(X[rows])
        assert_same_state(state(ours), state(theirs), CLOSE[dtype])
    # Theirs cancel far from zero: column 0.
    slack = np.array([3e-4 if dtype == F4 else 1e-12, *[4 * CLOSE[dtype]] * 4])
    assert (np.nan_to_num(np.abs(ours.transform(X) - theirs.transform(X))) <= slack * (1 + np.nan_to_num(np.abs(X)))).all()
    np.testing.assert_allclose(ours.inverse_transform(X), theirs.inverse_transform(X), rtol=8 * CLOSE[dtype], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_sum_of_weights_is_one_number_unless_features_differ(dtype: Any) -> None:
    rng = np.random.default_rng(4)
    x, weights = rng.standard_normal((1000, 20)).astype(dtype), rng.random(1000)
    seen = StandardScaler().fit(x, sample_weight=weights).n_samples_seen_
    assert isinstance(seen, float)
    assert seen == pytest.approx(weights.sum(), rel=1e-8)
    x[3, 4] = np.nan
    seen = StandardScaler().fit(x, sample_weight=weights).n_samples_seen_
    assert seen.shape == (20,)
    np.testing.assert_allclose(np.delete(seen, 4), weights.sum(), rtol=1e-8)
    assert len(set(np.delete(seen, 4))) == 1
    np.testing.assert_allclose(seen[4], weights.sum() - weights[3], rtol=1e-6)
