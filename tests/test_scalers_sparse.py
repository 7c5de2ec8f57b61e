"""Scalers on sparse matrices: what they make of the dense table, without making it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from fastnorm.ops import sparse
from fastnorm.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, StandardScaler, maxabs_scale, normalize, scale

CONTAINERS = [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array]
ids = [container.__name__ for container in CONTAINERS]
TOLERANCE = {"f": 1e-6, "d": 1e-12}
SPARSE_SCALERS = [StandardScaler(with_mean=False), StandardScaler(with_mean=False, with_std=False), MaxAbsScaler(), MaxAbsScaler(clip=True)]


def table(missing: bool = True) -> np.ndarray:
    """Few elements, many, all of them, nearly one value far from zero, one value, none, NaN among few, nothing but NaN."""
    rng = np.random.default_rng(5)
    X = np.zeros((300, 8))
    for column, density in enumerate((0.02, 0.6, 1.0)):
        X[:, column] = np.where(rng.random(300) < density, rng.normal(2.0, 1.0, 300), 0.0)
    X[:, 3] = rng.normal(1e4, 1e-2, 300)
    X[:, 4] = 7.3
    X[:, 6] = X[::-1, 0]
    if missing:
        X[::7, 6] = np.nan
        X[:, 7] = np.nan
    return X


def state(scaler: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(scaler).items() if name.endswith("_") and value is not None}


def dense(X: Any) -> np.ndarray:
    assert sp.issparse(X)
    return X.toarray()


def check(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    assert state(found).keys() == state(expected).keys()
    for name, value in state(expected).items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=tolerance, atol=1e-40, err_msg=name)


@pytest.mark.parametrize("container", CONTAINERS, ids=ids)
@pytest.mark.parametrize("scaler", SPARSE_SCALERS, ids=str)
def test_statistics_and_results_are_those_of_the_dense_table(scaler: Any, container: Any) -> None:
    X = container(table())
    check(scaler.fit(X), type(scaler)(**scaler.get_params()).fit(table()), 1e-11)
    Y = scaler.transform(X)
    assert type(Y) is container
    np.testing.assert_allclose(dense(Y), scaler.transform(table()), rtol=1e-12)
    if not getattr(scaler, "clip", False):
        np.testing.assert_allclose(dense(scaler.inverse_transform(Y)), table(), rtol=1e-12)
    np.testing.assert_array_equal(dense(X), table())


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array], ids=["csr", "csc"])
def test_weights_are_numbers_of_repetitions(container: Any) -> None:
    times = np.random.default_rng(6).integers(0, 3, 300)
    found = StandardScaler(with_mean=False).fit(container(table()), sample_weight=times)
    check(found, StandardScaler(with_mean=False).fit(container(np.repeat(table(), times, axis=0))), 1e-11)
    uneven = np.random.default_rng(6).random(300)
    found = StandardScaler(with_mean=False).fit(container(table()), sample_weight=uneven)
    check(found, StandardScaler(with_mean=False).fit(table(), sample_weight=uneven), 1e-11)
    for seed in range(20):  # one value, stored in every row: what rounding leaves of the weights is no zero
        weights = np.random.default_rng(seed).random(100)
        assert StandardScaler(with_mean=False).fit(container(np.full((100, 1), 100.0)), sample_weight=weights).scale_ == 1.0


@pytest.mark.parametrize("scaler", [StandardScaler(with_mean=False), MaxAbsScaler()], ids=str)
def test_parts_learned_or_merged_are_the_whole(scaler: Any) -> None:
    X = sp.csr_array(table())
    learned, merged = (type(scaler)(**scaler.get_params()) for _ in range(2))
    for part in (X[:100], X[100:101], X[101:].tocsc()):
        learned.partial_fit(part)
        merged.merge(type(scaler)(**scaler.get_params()).fit(part))
    check(learned, scaler.fit(X), 1e-11)
    check(merged, scaler.fit(X), 1e-11)


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array], ids=["csr", "csc"])
def test_many_chunks_on_any_number_of_threads_give_the_same_bits(container: Any, restore_threads: None) -> None:
    import fastnorm as fn

    X = container(sp.random_array((20_000, 60), density=0.4, random_state=np.random.default_rng(8)), dtype=np.float32)
    assert sparse.compressed(X).chunks(4 * 60) > 2
    kinds = (StandardScaler(with_mean=False), MaxAbsScaler(), Normalizer())
    results = []
    for threads in (1, 2):
        fn.set_num_threads(threads)
        results.append([(state(kind.fit(X)), kind.transform(X).data) for kind in kinds])
    for kind, (one, first), (other, second) in zip(kinds, *results, strict=True):
        np.testing.assert_array_equal(first, second)
        for name, value in one.items():
            np.testing.assert_array_equal(other[name], value)
        expected = type(kind)(**kind.get_params()).fit(X.toarray().astype(np.float64))
        check(kind, expected, 1e-6)
        np.testing.assert_allclose(dense(kind.transform(X)), expected.transform(X.toarray().astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_of_elements_are_kept_whatever_the_indices_are(dtype: Any, index: Any) -> None:
    X = sp.csr_array(table().astype(dtype))
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    for scaler in (StandardScaler(with_mean=False), MaxAbsScaler()):
        Y = scaler.fit_transform(X)
        assert Y.dtype == dtype
        np.testing.assert_allclose(dense(Y), scaler.fit_transform(dense(X).astype(np.float64)), rtol=TOLERANCE[Y.dtype.char])
    assert MaxAbsScaler().fit_transform(sp.csr_array([[1, 2], [3, 0]])).dtype == np.float64


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_lines_have_norm_1(norm: str) -> None:
    X = table(missing=False)
    X[5] = 0.0
    for container in CONTAINERS:
        np.testing.assert_allclose(dense(normalize(container(X), norm)), normalize(X, norm), rtol=1e-12)
        np.testing.assert_allclose(dense(normalize(container(X), norm, axis=0)), normalize(X, norm, axis=0), rtol=1e-12)
        np.testing.assert_allclose(dense(Normalizer(norm).transform(container(X))), normalize(X, norm), rtol=1e-12)
    X = sp.random_array(
        (5000, 60), density=0.05, rng=np.random.default_rng(4), format="csr"
    )  # many empty lines, more than are dealt at once
    np.testing.assert_allclose(dense(normalize(X, norm)), normalize(dense(X), norm), rtol=1e-12)
    X = table(missing=False)
    _, norms = normalize(sp.csr_array(X), "max", return_norm=True)
    np.testing.assert_array_equal(norms, np.abs(X).max(axis=1))
    with pytest.raises(NotImplementedError, match="norm 'l1'"):
        normalize(sp.csr_array(X), "l1", return_norm=True)


def test_functions() -> None:
    X = table()
    for container in CONTAINERS:
        found = dense(scale(container(X), with_mean=False))
        np.testing.assert_allclose(found[:, :3], X[:, :3] / X[:, :3].std(axis=0), rtol=1e-11)
        np.testing.assert_array_equal(found[:, 4], X[:, 4])
        np.testing.assert_allclose(dense(scale(container(X), with_mean=False, with_std=False)), X)
        np.testing.assert_allclose(dense(maxabs_scale(container(X))), maxabs_scale(X), rtol=1e-12)
        np.testing.assert_allclose(dense(maxabs_scale(container(X), axis=1)), maxabs_scale(X, axis=1), rtol=1e-12)


def test_elements_that_are_stored_twice_are_sums() -> None:
    twice = sp.csr_array((np.array([1.0, 2.0, 5.0, -3.0]), ([1, 1, 0, 0]), [0, 2, 4]), shape=(2, 2))
    for scaler in (StandardScaler(with_mean=False), MaxAbsScaler(clip=True), Normalizer()):
        expected = type(scaler)(**scaler.get_params()).fit(twice.toarray())
        np.testing.assert_allclose(dense(scaler.fit(twice).transform(twice)), expected.transform(twice.toarray()))
    assert twice.nnz == 4


@pytest.mark.parametrize("container", CONTAINERS, ids=ids)
def test_copy_false_scales_in_place(container: Any) -> None:
    for kind in (StandardScaler(with_mean=False, copy=False), MaxAbsScaler(copy=False), MaxAbsScaler(copy=False, clip=True)):
        X = container(table())
        expected = type(kind)(**{**kind.get_params(), "copy": True}).fit(X).transform(X)
        assert np.shares_memory(kind.fit(X).transform(X).data, X.data)
        np.testing.assert_array_equal(dense(X), dense(expected))
        X.data.flags.writeable = False
        assert not np.shares_memory(kind.transform(X).data, X.data)


def test_memory_of_any_kind_is_read() -> None:
    plain = sp.csr_array(table())
    expected = MaxAbsScaler().fit_transform(plain)
    spaced = sp.csr_array(plain)
    spaced.data = np.repeat(plain.data, 2)[::2]
    roomy = sp.csr_array(plain)
    roomy.data, roomy.indices = np.append(plain.data, [1e9, np.nan]), np.append(plain.indices, [0, 0]).astype(np.int32)
    for X in (spaced, roomy):
        found = MaxAbsScaler().fit_transform(X)
        np.testing.assert_array_equal(found.data[: plain.nnz], expected.data)
    for array in (plain.data, plain.indices, plain.indptr):
        array.flags.writeable = False
    np.testing.assert_array_equal(MaxAbsScaler().fit_transform(plain).data, expected.data)


def test_other_formats_become_csr_and_an_empty_matrix_stays_one() -> None:
    for form in ("coo", "lil", "dok"):
        found = MaxAbsScaler().fit_transform(sp.coo_array(table()).asformat(form))
        np.testing.assert_array_equal(dense(found), MaxAbsScaler().fit_transform(table()))
    nothing = sp.csr_array((4, 3))
    for scaler in SPARSE_SCALERS:
        assert scaler.fit_transform(nothing).nnz == 0


@pytest.mark.parametrize("container", CONTAINERS, ids=ids)
def test_what_is_refused(container: Any) -> None:
    X = container(table())
    bad = X.copy()
    bad.data[3] = np.inf
    for scaler in (StandardScaler(with_mean=False), MaxAbsScaler()):
        for method in ("fit", "partial_fit", "transform", "inverse_transform"):
            with pytest.raises(ValueError, match="infinity"):
                getattr(scaler.fit(X), method)(bad)
        with pytest.raises(TypeError, match="out is for dense X"):
            scaler.transform(X, out=np.empty(X.shape))
        with pytest.raises(ValueError, match="X has 2 features"):
            scaler.transform(X[:, :2])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        Normalizer().transform(X)
    for method in ("fit", "transform", "inverse_transform"):
        with pytest.raises(ValueError, match="Cannot center sparse matrices: pass `with_mean=False`"):
            getattr(StandardScaler().fit(table()), method)(X)
        with pytest.raises(TypeError, match="Consider using MaxAbsScaler"):
            getattr(MinMaxScaler().fit(table()), method)(X)
    with pytest.raises(ValueError, match="Cannot center sparse matrices"):
        scale(X)
    with pytest.raises(ValueError, match="on axis=0"):
        scale(X, axis=1, with_mean=False)
