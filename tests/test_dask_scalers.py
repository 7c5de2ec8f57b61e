"""`fastnorm.dask`'s scalers: fitted in one pass, applied lazily, equal to those of one machine."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

import fastnorm as fn  # noqa: E402
from fastnorm import preprocessing  # noqa: E402

ROWS, FEATURES = 40, 5
WEIGHTS = np.random.default_rng(8).integers(0, 3, ROWS).astype(float)
WEIGHTS[:7] = 0.0
CHUNKS = ((40, 5), (1, 3), (7, 2), ((0, 1, 12, 0, 27, 0), (2, 0, 3)))
NAMES = ("StandardScaler", "MinMaxScaler")


def table(dtype: Any = np.float64) -> np.ndarray:
    """With a feature that is constant, and one with NaN."""
    x = np.random.default_rng(7).normal([0.0, 10.0, -3.0, 1e5, 4.0], [1.0, 2.0, 0.1, 1.0, 0.0], (ROWS, FEATURES)).astype(dtype)
    x[[0, 5, 30], 2] = np.nan
    return x


def pair(name: str, **parameters: Any) -> tuple[Any, Any]:
    """Ours of Dask and ours of one machine."""
    return getattr(fn.dask, name)(**parameters), getattr(preprocessing, name)(**parameters)


def assert_same(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    """Every attribute, in value, type and shape."""
    names = {name for name in vars(expected) if name.endswith("_")}
    assert names == {name for name in vars(found) if name.endswith("_")}
    assert names
    for name in names:
        a, b = getattr(found, name), getattr(expected, name)
        assert type(a) is type(b), name
        assert np.shape(a) == np.shape(b), name
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None), name
        if name == "feature_names_in_":
            assert list(a) == list(b)
        elif b is not None:
            np.testing.assert_allclose(a, b, rtol=rtol, err_msg=name)


@pytest.fixture(autouse=True)
def synchronous(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread, where a test does not say otherwise."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_any_chunks_are_the_whole(name: str, dtype: Any, chunks: Any) -> None:
    x = table(dtype)
    (found, expected), lazy = pair(name), da.from_array(x, chunks=chunks)
    expected.fit(x)
    rtol = 1e-12 if dtype is np.float64 else 1e-5
    assert found.fit(lazy, split_every=2) is found
    assert_same(found, expected, rtol)
    scaled = found.transform(lazy)
    assert isinstance(scaled, da.Array)
    assert scaled.chunks == lazy.chunks
    assert scaled.dtype == dtype
    (values,) = dask.compute(scaled)
    assert values.dtype == dtype
    np.testing.assert_allclose(values, expected.transform(x), rtol=rtol, atol=rtol)
    back = found.inverse_transform(scaled)
    assert back.chunks == lazy.chunks
    np.testing.assert_allclose(back.compute(), x, rtol=10 * rtol, atol=10 * rtol)
    np.testing.assert_allclose(getattr(fn.dask, name)().fit_transform(lazy).compute(), values, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_in_memory_is_taken_as_by_the_scaler_of_one_machine(name: str) -> None:
    found, expected = pair(name)
    x = table()
    assert_same(found.fit(x), expected.fit(x))
    np.testing.assert_array_equal(found.transform(x), expected.transform(x))
    np.testing.assert_array_equal(found.fit_transform(x), expected.transform(x))
    np.testing.assert_array_equal(found.inverse_transform(x), expected.inverse_transform(x))
    np.testing.assert_array_equal(next(found.transform(iter([x]))), expected.transform(x))


@pytest.mark.parametrize("name", NAMES)
def test_partial_fit_and_merge_go_on(name: str) -> None:
    x = table()
    found, expected = pair(name)
    expected.fit(x)
    lazy = da.from_array(x, chunks=(9, 3))
    found.partial_fit(lazy[:10]).partial_fit(lazy[10:25]).partial_fit(x[25:])
    assert_same(found, expected)
    ahead, behind = (getattr(fn.dask, name)().fit(part) for part in (lazy[:10], lazy[10:]))
    assert_same(ahead.merge(behind), expected)
    assert_same(found.fit(lazy[:20]), getattr(preprocessing, name)().fit(x[:20]))  # forgets
    assert_same(pickle.loads(pickle.dumps(ahead)), expected)


@pytest.mark.parametrize("given", ["lazy", "other chunks", "numpy", "scalar"])
def test_weights(given: str) -> None:
    x = table()
    w = {"lazy": da.from_array(WEIGHTS, chunks=3), "other chunks": da.from_array(WEIGHTS), "numpy": WEIGHTS, "scalar": 2.0}[given]
    found, expected = pair("StandardScaler")
    expected.fit(x, sample_weight=np.full(ROWS, 2.0) if given == "scalar" else WEIGHTS)
    assert_same(found.fit(da.from_array(x, chunks=(3, 2)), sample_weight=w), expected)


@pytest.mark.parametrize("parameters", [{"with_mean": False}, {"with_std": False}, {"with_mean": False, "with_std": False}], ids=str)
def test_parameters_of_the_standard_scaler(parameters: Any) -> None:
    x = table()
    found, expected = pair("StandardScaler", **parameters)
    lazy = da.from_array(x, chunks=(11, 2))
    assert_same(found.fit(lazy), expected.fit(x))
    np.testing.assert_allclose(found.transform(lazy).compute(), expected.transform(x), rtol=1e-12, atol=1e-12)


def test_parameters_of_the_min_max_scaler() -> None:
    x = table()
    found, expected = pair("MinMaxScaler", feature_range=(-1, 3), clip=True)
    lazy = da.from_array(x, chunks=(11, 2))
    assert_same(found.fit(lazy[:20]), expected.fit(x[:20]))
    np.testing.assert_allclose(found.transform(lazy).compute(), expected.transform(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.int32, bool, np.float16, object], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, dtype: Any) -> None:
    x = np.random.default_rng(1).integers(0, 9, (20, 3)).astype(dtype)
    found, expected = pair(name)
    lazy = da.from_array(x, chunks=(6, 2))
    scaled = found.fit(lazy).transform(lazy)
    values = expected.fit(x).transform(x)
    assert scaled.dtype == scaled.compute().dtype == values.dtype
    np.testing.assert_allclose(scaled.compute(), values, rtol=1e-3 if dtype == np.float16 else 1e-12, atol=1e-3)


def test_sparse_chunks() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    x = np.random.default_rng(2).integers(0, 3, (20, 4)).astype(float)
    lazy = da.from_array(x, chunks=(6, 4)).map_blocks(sparse.csr_array)
    found, expected = pair("StandardScaler", with_mean=False)
    assert_same(found.fit(lazy), expected.fit(sparse.csr_array(x)))
    np.testing.assert_allclose(found.transform(lazy).compute().toarray(), expected.transform(sparse.csr_array(x)).toarray())


def test_chunks_of_others_are_never_written_to() -> None:
    x = table()
    before = x.copy()
    lazy = da.from_array(x, chunks=(10, 5))
    scaler = fn.dask.StandardScaler(copy=False).fit(lazy)
    scaler.transform(lazy).compute()
    np.testing.assert_array_equal(x, before)


def test_attributes_changed_by_hand_are_applied() -> None:
    lazy = da.from_array(table(), chunks=(10, 2))
    scaler = fn.dask.StandardScaler().fit(lazy)
    scaler.mean_, scaler.scale_ = np.zeros(FEATURES), np.full(FEATURES, 2.0)
    np.testing.assert_array_equal(scaler.transform(lazy).compute(), table() / 2.0)


def test_transform_is_lazy_and_fit_reads_once() -> None:
    reads = []

    def load(block: np.ndarray) -> np.ndarray:
        reads.append(len(block))
        return block

    lazy = da.from_array(table(), chunks=(10, 5)).map_blocks(load, dtype=float, meta=np.empty((0, 0)))
    scaler = fn.dask.StandardScaler().fit(lazy, sample_weight=abs(lazy[:, 0]) + 1.0)
    assert reads == [10] * 4
    scaled = scaler.transform(lazy)
    assert reads == [10] * 4
    scaled.compute()
    assert reads == [10] * 8


def test_the_same_bits_from_every_scheduler() -> None:
    x = np.random.default_rng(3).normal(1e3, 1.0, (30_000, 4)).astype("f4")
    lazy = da.from_array(x, chunks=(1111, 3))
    first = fn.dask.StandardScaler().fit(lazy)
    with dask.config.set(scheduler="threads", num_workers=4):
        for _ in range(3):
            again = fn.dask.StandardScaler().fit(lazy)
            assert again.mean_.tobytes() == first.mean_.tobytes()
            assert again.var_.tobytes() == first.var_.tobytes()


# Frames.


@pytest.mark.parametrize("name", NAMES)
def test_frames_in_frames_out(name: str) -> None:
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    frame = pandas.DataFrame(table(), columns=list("abcde"), index=np.arange(ROWS) * 3)
    lazy = dd.from_pandas(frame, npartitions=5)
    some, kept = frame[frame.a > 0.5], lazy[lazy.a > 0.5]  # partitions of unknown length, some empty
    found, expected = pair(name)
    assert_same(found.fit(kept), expected.fit(some))
    assert list(found.feature_names_in_) == list("abcde")
    scaled = found.transform(kept)
    values = scaled.compute()
    pandas.testing.assert_frame_equal(values, pandas.DataFrame(expected.transform(some), some.index, some.columns), rtol=1e-12)
    assert list(scaled.columns) == list("abcde")
    assert scaled.dtypes.to_dict() == values.dtypes.to_dict()
    pandas.testing.assert_frame_equal(found.inverse_transform(scaled).compute(), some, rtol=1e-12)
    none = found.transform(lazy[lazy.a > 1e9]).compute()
    assert none.shape == (0, FEATURES)
    assert none.dtypes.to_dict() == values.dtypes.to_dict()
    with pytest.raises(ValueError, match="0 sample"):
        found.fit(lazy[lazy.a > 1e9])
    assert_same(found, expected)
    with pytest.raises(ValueError, match="feature names should match"):
        found.transform(kept[list("edcba")])
    arrays = kept.to_dask_array()  # rows of unknown number
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_allclose(found.transform(arrays).compute(), values, rtol=1e-12)
    assert found.fit(arrays).n_features_in_ == FEATURES


def test_weights_of_frames() -> None:
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    frame = pandas.DataFrame(table(), columns=list("abcde"))
    frame["w"] = WEIGHTS
    lazy = dd.from_pandas(frame, npartitions=5)
    some, kept = frame[frame.b > 9.0], lazy[lazy.b > 9.0]
    columns = list("abcde")
    expected = preprocessing.StandardScaler().fit(some[columns], sample_weight=some.w)
    for weights in (kept.w, kept.w.to_dask_array()):
        assert_same(fn.dask.StandardScaler().fit(kept[columns], sample_weight=weights), expected)
    for weights in (np.ones(3), da.ones(ROWS, chunks=40)):
        with pytest.raises(ValueError, match="a column of the same data frame"):
            fn.dask.StandardScaler().fit(kept[columns], sample_weight=weights)


def test_columns_of_several_dtypes() -> None:
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    frame = pandas.DataFrame({"i": np.arange(8), "f": np.linspace(0, 1, 8, dtype="f4"), "n": pandas.array([1, None] * 4, "Int64")})
    lazy = dd.from_pandas(frame, npartitions=3)
    found, expected = pair("StandardScaler")
    assert_same(found.fit(lazy), expected.fit(frame))
    values = found.transform(lazy).compute()
    np.testing.assert_allclose(values, expected.transform(frame), rtol=1e-12)
    assert (values.dtypes == np.float64).all()


# Errors.


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused(name: str) -> None:
    x = table()
    lazy = da.from_array(x, chunks=(10, 2))
    kind = getattr(fn.dask, name)
    scaler = kind().fit(lazy)
    before = dict(vars(scaler))
    infinite = da.from_array(np.where(x > 9.9e4, np.inf, x), chunks=(10, 2))
    for call, error, match in (
        (lambda: kind().transform(lazy), ValueError, "not fitted"),
        (lambda: scaler.transform(lazy[:, :3]), ValueError, "X has 3 features"),
        (lambda: scaler.inverse_transform(lazy[:, :3]), ValueError, "X has 3 features"),
        (lambda: scaler.partial_fit(lazy[:, :3]), ValueError, "other has 3 features"),
        (lambda: scaler.fit(lazy[:, 0]), ValueError, "X has 1 dimensions"),
        (lambda: scaler.transform(lazy[:, 0]), ValueError, "X has 1 dimensions"),
        (lambda: scaler.fit(infinite), ValueError, "infinity"),
        (lambda: scaler.transform(infinite).compute(), ValueError, "infinity"),
        (lambda: scaler.fit(lazy[:0]), ValueError, "0 sample"),
        (lambda: scaler.fit(lazy[:, :0]), ValueError, "0 feature"),
        (lambda: scaler.fit(lazy, split_every=0), ValueError, "split_every is 0"),
        (lambda: scaler.fit(lazy, progress=True), TypeError, "progress is for arrays in memory"),
        (lambda: scaler.transform(lazy, out=x), TypeError, "out is for arrays in memory"),
        (lambda: scaler.transform(lazy[:, lazy[0] > -1e9]), ValueError, "compute_chunk_sizes"),
        (lambda: kind(copy=1).fit(lazy), ValueError, "'copy' parameter"),
    ):
        with pytest.raises(error, match=match):
            call()
        assert vars(scaler) == before


def test_weights_that_are_refused() -> None:
    lazy = da.from_array(table(), chunks=(10, 2))
    scaler = fn.dask.StandardScaler()
    for weights, match in (
        (np.ones(7), r"sample_weight.shape == \(7,\)"),
        (np.ones((ROWS, 1)), "must be 1D"),
        (-np.ones(ROWS), "negative numbers"),
        (np.full(ROWS, np.nan), "NaN or infinity"),
        (np.zeros(ROWS), "without a weight that is not 0"),
    ):
        with pytest.raises(ValueError, match=match):
            scaler.fit(lazy, sample_weight=weights)
        assert not hasattr(scaler, "mean_")
