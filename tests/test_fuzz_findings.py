"""What the fuzz has found, each in its smallest form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnorm as fn
from fastnorm.preprocessing import StandardScaler, scale

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
HUGE = 10**400
AMBIGUOUS = np.ones(2)  # neither true nor false


@pytest.mark.parametrize("eps", [np.ma.masked, np.complex64(1), np.array([1e-5]), np.ma.array(1e-5)], ids=repr)
def test_numbers_that_float_takes_with_a_warning(eps: Any) -> None:
    with pytest.raises(TypeError, match="eps"):
        fn.layer_norm(X, eps=eps)


def test_integers_beyond_all_floats() -> None:
    with pytest.raises(ValueError, match="eps"):
        fn.layer_norm(X, eps=HUGE)
    with pytest.raises(ValueError, match="X"):
        scale([[HUGE]])
    with pytest.raises(ValueError, match="sample_weight"):
        StandardScaler().fit(X[0], sample_weight=[HUGE, 1, 1])
    moments = fn.RunningMoments()
    moments.update(X)
    assert np.isnan(moments.var(HUGE)).all()
    with pytest.warns(RuntimeWarning, match="Degrees of freedom"):
        assert np.isnan(fn.mean_var(X, ddof=HUGE).var)


@pytest.mark.parametrize("call", [fn.add_layer_norm, fn.add_rms_norm])
def test_return_stats_of_sums_is_asked_before_anything_is_written(call: Any) -> None:
    out = np.full_like(X, 7), np.full_like(X, 7)
    with pytest.raises(ValueError, match="truth value"):
        call(X, X, return_stats=AMBIGUOUS, out=out)
    np.testing.assert_array_equal(out, 7)


def test_return_stats_of_groups_is_asked_before_anything_is_written() -> None:
    out = np.full_like(X, 7)
    for call in (lambda **o: fn.group_norm(X, 3, **o), lambda **o: fn.instance_norm(X, **o)):
        with pytest.raises(ValueError, match="truth value"):
            call(return_stats=AMBIGUOUS, out=out)
    np.testing.assert_array_equal(out, 7)


@pytest.mark.parametrize("name", ["mean", "var", "std", "nanmean", "nanvar", "nanstd"])
@pytest.mark.parametrize("out", [(1.0,), "x", [0.0], 1])
def test_out_that_is_no_array(name: str, out: Any) -> None:
    with pytest.raises(TypeError, match="out"):
        getattr(fn, name)(X, out=out)


@pytest.mark.filterwarnings("ignore:The 'generic' unit:DeprecationWarning")  # of NumPy 2.5, on its way to the TypeError
def test_what_numpy_refuses_leaves_out_as_it_was() -> None:
    out = np.full((2, 4), 7, np.float32)
    with pytest.raises(TypeError):
        fn.mean(X, 1, out=out, where=np.timedelta64(1, "s"))
    with pytest.raises(ValueError, match="NumPy refuses"):
        fn.var(X, 1, out=out, mean=[HUGE])
    np.testing.assert_array_equal(out, 7)


def test_masked_arrays_are_no_place_for_results() -> None:
    hidden = np.ma.array(np.full_like(X, 7), mask=True)
    with pytest.raises(TypeError, match=r"out.*Masked"):
        fn.layer_norm(X, out=hidden)
    np.testing.assert_array_equal(hidden.data, 7)
    with pytest.raises(TypeError, match="running_mean"):
        fn.batch_norm_train(X, running_mean=np.ma.zeros(3))


def test_axes_and_sizes_of_layers_that_are_masked() -> None:
    for options in ({"axis": np.ma.masked}, {"num_features": np.ma.masked}):
        with pytest.raises(TypeError):
            fn.layers.BatchNorm(**{"num_features": 3, **options})


def test_weights_of_samples_that_are_no_real_float32() -> None:
    with pytest.raises(TypeError, match="sample_weight"):
        StandardScaler().fit(X[0], sample_weight=np.ones(3, complex))
    with pytest.raises(ValueError, match="sample_weight"):
        StandardScaler().fit(X[0], sample_weight=1e308)


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_gradients_wider_than_the_input(dtype: Any) -> None:
    """Twice: the second call is a remembered one."""
    dy, gamma, statistics = np.round(4 * X).astype(dtype), np.ones(4, np.float32), {"mean": X.mean(-1), "rstd": np.ones((2, 3))}
    calls = (
        lambda dy: fn.layer_norm_backward(dy, X, gamma=gamma, **statistics),
        lambda dy: fn.rms_norm_backward(dy, X, statistics["rstd"], gamma),
        lambda dy: fn.group_norm_backward(dy, X, 3, **statistics),
        lambda dy: fn.batch_norm_backward(dy, X, np.ones(3), np.ones(3)),
    )
    for call in calls:
        expected = call(dy.astype(np.float32))
        for _ in range(3):
            for found, wanted in zip(call(dy), expected, strict=True):
                assert found.dtype == wanted.dtype
                np.testing.assert_array_equal(found, wanted)
