"""`fastnorm.dask` on the distributed scheduler, and without Dask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

import fastnorm as fn  # noqa: E402

X = np.random.default_rng(4).normal([1e3, -5.0, 0.1], [1.0, 2.0, 3.0], (20_000, 3)).astype("f4")


@pytest.fixture(params=["processes", "threads"])
def client(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Any]:
    """Closed in the end, with everything that it has started."""
    processes = request.param == "processes"
    options = {"n_workers": 2 if processes else 1, "threads_per_worker": 1 if processes else 4, "processes": processes}
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        distributed.LocalCluster(dashboard_address=None, protocol=None if processes else "inproc", **options) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def test_a_cluster_finds_the_bits_of_one_thread(client: Any) -> None:
    # A view in one process arrives contiguous, or misaligned, in another.
    lazy = da.from_array(X, chunks=((1, 0, 7_999, 12_000), (2, 1)))
    mean, var = dask.compute(*fn.dask.mean_var(lazy, 0))
    scaler = fn.dask.StandardScaler().fit(lazy, sample_weight=abs(lazy[:, 1]))
    limits = fn.dask.MinMaxScaler().fit(lazy)
    scaled = scaler.transform(lazy).compute()
    with dask.config.set(scheduler="synchronous"):
        for found, expected in zip((mean, var), dask.compute(*fn.dask.mean_var(lazy, 0)), strict=True):
            assert found.tobytes() == expected.tobytes()
        again = fn.dask.StandardScaler().fit(lazy, sample_weight=abs(lazy[:, 1]))
        for name in ("mean_", "var_", "scale_", "n_samples_seen_"):
            np.testing.assert_array_equal(getattr(scaler, name), getattr(again, name))
        np.testing.assert_allclose(scaled, again.transform(lazy).compute(), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(limits.data_max_, X.max(0))
    np.testing.assert_allclose(mean, X.mean(0, dtype="f8"), rtol=1e-6)


def test_without_dask_the_error_names_what_to_install(run_python: Any) -> None:
    code = """
import sys
sys.modules["dask"] = None
import fastnorm
try:
    fastnorm.dask
except ImportError as error:
    print(error)
assert "dask" not in fastnorm.__all__
from fastnorm import *
"""
    assert 'pip install "fastnorm[dask]"' in run_python("-c", code).stdout
