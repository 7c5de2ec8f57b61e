"""``fn.mean, var, std, nanmean, nanvar, nanstd``: laws, NumPy's results for NumPy's arguments, accuracy.

What is warned of and refused is in test_averages_warnings.
"""

from __future__ import annotations

import inspect
import itertools
import math
import warnings
from typing import Any

import cases
import numpy as np
import oracle
import pytest
import tolerance
from cases import Problem
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import HALF_ULP, assert_within

import fastnorm as fn
from fastnorm.ops import averages, quick, widening
from fastnorm.plan import problem, schedule

AVERAGES = ("mean", "var", "std", "nanmean", "nanvar", "nanstd")
SQUARES = ("var", "std", "nanvar", "nanstd")
CUBE = Problem((4, 5, 6))


def rounding(values: Any, dtype: Any) -> np.ndarray:
    """Of the result to its dtype."""
    relative, absolute = HALF_ULP[np.dtype(dtype).name]
    return relative * (1 + 2.0**-7) * np.abs(values) + absolute


def bound(name: str, mean: Any, var: Any, dtype: Any, result: Any) -> np.ndarray:
    """Of a result in dtype `result` for values of `dtype`, whose exact mean and variance are given."""
    if name.endswith("mean"):
        return tolerance.mean(mean, var, dtype) + rounding(mean, result)
    if name.endswith("var"):
        return tolerance.var(var, dtype) + rounding(var, result)
    return tolerance.var(np.sqrt(var), dtype) + rounding(np.sqrt(var), result)


def exact(name: str, a: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The value by exact sums, and the bound of a result in NumPy's dtype."""
    a = np.asarray(a)
    mean, var = oracle.mean_var(a, axis, ddof=int(ddof), keepdims=keepdims)
    result = np.float64 if a.dtype.kind in "biu" else a.dtype
    value = mean if name.endswith("mean") else np.sqrt(var) if name.endswith("std") else var
    return value, bound(name, mean, var, a.dtype, result)


def recorded(name: str, library: Any, *args: Any, **options: Any) -> tuple[Any, list[tuple[type, str]]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = getattr(library, name)(*args, **options)
    return result, [(w.category, str(w.message)) for w in caught]


# --- laws ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, -7.3, 1e-20, 3e15])
def test_of_a_constant(dtype: Any, value: float) -> None:
    a = np.full((7, 1000, 3), value, dtype)
    for axis in (None, 0, 1, (0, 2)):
        assert np.all(fn.mean(a, axis) == dtype(value))
        assert np.all(fn.nanmean(a, axis) == dtype(value))
        for name in SQUARES:
            assert np.all(getattr(fn, name)(a, axis, ddof=1) == 0.0)


def test_a_shift_moves_the_mean_and_leaves_the_variance() -> None:
    a = np.round(cases.sample(CUBE, cases.F8) * 1024) / 1024  # so that a + 2**20 is exact
    for axis in (None, 1, (0, 2)):
        assert_within(fn.var(a + 2.0**20, axis), fn.var(a, axis), 2 * tolerance.var(fn.var(a, axis), cases.F8))
        assert_within(fn.mean(a + 2.0**20, axis), fn.mean(a, axis) + 2.0**20, 2.0**-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mean_is_the_mean_of_the_means_of_equal_parts(dtype: Any) -> None:
    a = cases.sample(Problem((60, 8)), dtype)
    parts = fn.mean(a.reshape(6, 10, 8), axis=1)
    expected, allowed = exact("mean", a, 0)
    assert_within(fn.mean(parts, axis=0), expected, 4 * allowed)
    assert_within(fn.mean(a, axis=0), expected, allowed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_functions_are_the_plain_ones_of_what_is_left(dtype: Any) -> None:
    a = cases.sample(Problem((301, 4)), dtype)
    a[::3, 1], a[5:, 2], a[:, 3] = np.nan, np.nan, np.nan
    for name in AVERAGES:
        options = {"ddof": 1} if name in SQUARES else {}
        found, _ = recorded(name, fn, a, axis=0, **options)
        for c in range(3):
            expected, allowed = exact(name[-3:] if name in SQUARES else "mean", a[~np.isnan(a[:, c]), c], ddof=len(options))
            if name.startswith("nan"):
                assert_within(found[c], expected, allowed, name)
        assert np.isnan(found[3])
        assert np.isnan(found[1:3]).all() == (not name.startswith("nan"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_nan_the_bits_of_the_plain_function(dtype: Any) -> None:
    a = cases.sample(Problem((40, 70)), dtype)
    for axis in (None, 0, 1):
        for name in ("mean", "var", "std"):
            for options in ({}, {"keepdims": True}):
                plain, same = getattr(fn, name)(a, axis, **options), getattr(fn, f"nan{name}")(a, axis, **options)
                np.testing.assert_array_equal(plain, same)


@pytest.mark.parametrize("holes", [(np.nan,), (np.inf,), (np.nan, np.inf), (np.inf, -np.inf)], ids=str)
@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_the_short_way_with_nan_and_infinities(monkeypatch: pytest.MonkeyPatch, dtype: Any, holes: tuple[float, ...]) -> None:
    """Bits and warnings of the general one, and what it is of NumPy in float64."""
    arrays = []
    for shape in ((300,), (100, 4), (4, 5003), (2, 3, 4, 5), (130, 70)):
        a = cases.sample(Problem(shape, 0), np.float64).astype(dtype)
        for hole in holes:
            a[np.random.default_rng(a.ndim).random(shape) < 0.02] = hole
        arrays += [a, np.asfortranarray(a), a[::-1]]
    calls = [(name, a, axis) for name in AVERAGES for a in arrays for axis in (None, *range(a.ndim), tuple(range(a.ndim))[::2])]
    short = [recorded(name, fn, a, axis) for name, a, axis in calls]
    for way in ("quick_mean", "quick_var"):
        monkeypatch.setattr(averages, way, lambda *arguments, **options: None)
    for (found, texts), (name, a, axis) in zip(short, calls, strict=True):
        general, said = recorded(name, fn, a, axis)
        np.testing.assert_array_equal(found, general)
        assert (type(found), np.shape(found), texts) == (type(general), np.shape(general), said)
        expected = recorded(name, np, a.astype(np.float64), axis)[0]
        np.testing.assert_allclose(
            np.asarray(found, np.float64), expected, *((1e-2, 1e-2) if np.dtype(dtype).itemsize == 2 else (1e-5, 1e-5))
        )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_a_hole_in_one_of_many_short_rows(dtype: Any, hole: float) -> None:
    """Averages are looked through for NaN: the first, the last, and some between."""
    a = cases.sample(Problem((20011, 3), 0), np.float64).astype(dtype)
    for k in (0, 8191, 8192, len(a) - 1):
        holed = a.copy()
        holed[k, 1] = hole
        for name in AVERAGES:
            found, texts = recorded(name, fn, holed, 1)
            general, said = recorded(name, fn, holed, 1, where=True)
            assert found.tobytes() == general.tobytes()
            assert texts == said
            assert np.flatnonzero(~np.isfinite(found)).tolist() == ([] if "nan" in name and np.isnan(hole) else [k])


@pytest.mark.parametrize("ddof", [0, 1, 90])
def test_degrees_of_freedom_of_what_is_not_nan(ddof: int) -> None:
    a = cases.sample(Problem((100, 3)), np.float64)
    a[:20, 0], a[50, 1] = np.nan, np.nan
    for name in ("nanvar", "nanstd"):
        (found, texts), (expected, said) = (recorded(name, library, a, 0, ddof=ddof) for library in (fn, np))
        np.testing.assert_allclose(found, expected, 1e-12)
        assert texts == said


@pytest.mark.parametrize("ddof", [-(2**53) - 1, -(2**63), -(2**70)])
def test_degrees_of_freedom_beyond_the_integers_of_float64(ddof: int) -> None:
    a = cases.sample(Problem((100, 3)), np.float64)
    holes = np.where(a > 1, np.nan, a)
    for _ in range(3):  # the third call is one of a function that takes what it was compiled for
        np.testing.assert_allclose(fn.nanvar(holes, 0, ddof=ddof), np.nansum((a - np.nanmean(holes, 0)) ** 2 * (a <= 1), 0) / -ddof, 1e-12)
        np.testing.assert_allclose(fn.mean_var(a, 0, ddof=ddof).var, a.var(0) * 100 / (100 - ddof), 1e-12)
    assert not fn.nanvar(holes, 0, ddof=-(10**400)).any()
    assert not fn.std(a, 0, ddof=-(10**400)).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 64, 65])
def test_of_few_rows_of_many_columns(n: int, dtype: Any) -> None:
    """Their shift is a mean that the first row, far from all others, takes part in."""
    columns = 4099 if n < 10 else 211
    a = (cases.sample(Problem((2 * n, columns)), cases.F8) * 10 + 300).astype(dtype)[::2]
    a[0, ::3] = -100 if dtype is np.float16 else -30000
    for array in (a, np.ascontiguousarray(a), a[:, ::-1]):
        for name in ("mean", "var", "std"):
            expected, allowed = exact(name, array, 0)
            assert_within(getattr(fn, name)(array, axis=0), expected, allowed, name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape",
    [(1,), (5,), (2049,), (4097,), (32767,), (32768,), (10, 300), (3, 4099), (1000, 3), (10007, 1), (7, 5, 3), (3, 4, 1, 9)],
    ids=str,
)
def test_the_short_way_gives_the_bits_of_the_general_one(dtype: Any, shape: tuple[int, ...]) -> None:
    a = cases.sample(Problem(shape, 0), dtype)
    several = [axes for n in range(2, len(shape) + 1) for axes in itertools.permutations(range(len(shape)), n)]
    for axis in (None, *range(-len(shape), len(shape)), *several[:: max(1, len(several) // 8)]):
        for name in AVERAGES:
            for options in ({}, {"ddof": 1}, {"ddof": 3}) if name in SQUARES else ({}, {"keepdims": True}, {"keepdims": False}):
                short, texts = recorded(name, fn, a, axis, **options)
                general, _ = recorded(name, fn, a, axis, where=True, **options)
                assert type(short) is type(general)
                assert np.shape(short) == np.shape(general)
                assert np.asarray(short).tobytes() == np.asarray(general).tobytes(), (name, axis, options)
                length = a.size if axis is None else np.prod(np.take(shape, axis))
                assert bool(texts) == (length <= options.get("ddof", 0))
                out = np.empty(np.shape(short), dtype)
                assert recorded(name, fn, a, axis, out=out, **options)[0] is out
                assert out.tobytes() == np.asarray(general).tobytes()


def memories(a: np.ndarray) -> dict[str, np.ndarray]:
    """The same values elsewhere."""
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    behind = np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    locked = a.copy()
    locked.flags.writeable = False
    turned = np.ascontiguousarray(a.transpose(1, 2, 0)).transpose(2, 0, 1)
    return {
        "as it is": a, "Fortran": np.asfortranarray(a), "turned": turned, "every other": wide[..., ::2], "backwards": a[::-1].copy()[::-1],
        "misaligned": behind, "read-only": locked, "big-endian": a.astype(a.dtype.newbyteorder(">")),
        "broadcast": np.broadcast_to(a[:1], a.shape),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [*cases.FLOATS, np.dtype(np.uint8)], ids=str)
def test_the_short_way_through_any_memory(dtype: Any) -> None:
    a = (np.random.default_rng(3).standard_normal((5, 6, 7)) * 90).astype(dtype)
    for memory, same in memories(a).items():
        for axis in (None, 0, 1, 2, (0, 1), (0, 2), (2, 1)):
            for name in AVERAGES:
                for options in ({}, {"keepdims": True}):
                    for _ in range(2):
                        short, _ = recorded(name, fn, same, axis, **options)
                        general, _ = recorded(name, fn, same, axis, where=True, **options)
                        assert type(short) is type(general)
                        assert np.asarray(short).tobytes() == np.asarray(general).tobytes(), (memory, name, axis)
                        assert (np.shape(short), np.asarray(short).dtype) == (np.shape(general), np.asarray(general).dtype)
            mean, var = fn.mean_var(same, axis, ddof=1)
            of_doubles = np.asarray(same, np.float64)
            np.testing.assert_allclose(mean, of_doubles.mean(axis), rtol=1e-6, atol=1e-5)
            np.testing.assert_allclose(var, of_doubles.var(axis, ddof=1), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(9, 1300), (3, 9000), (2, 40000), (70, 50)], ids=str)
def test_asking_for_what_is_read_next_changes_no_bit(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    a = cases.sample(Problem(shape, 0), np.float32)
    for axis in (None, 1):
        wanted = fn.mean_var(a, axis)
        with monkeypatch.context() as patched:
            patched.setattr(schedule, "FETCHED_BYTES", 0)
            patched.setattr(problem, "_kept", {})
            patched.setattr(quick, "_walks", {})
            for one, other in zip(fn.mean_var(a, axis), wanted, strict=True):
                assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
            if axis == 1:
                assert {kept.schedule.ahead for kept in problem._kept.values()} == {True}


def test_axes_that_only_look_like_known_ones() -> None:
    """1.0 and True are found under the key of 1, and -1 names what 2 does."""
    a = cases.sample(Problem((4, 5, 6), 0), np.float32)
    wanted = fn.mean(a, (1, 2))
    np.testing.assert_array_equal(fn.mean(a, (1, -1)), wanted)
    np.testing.assert_array_equal(fn.mean(a, (np.int64(1), 2)), wanted)
    for axes in ((1.0, 2), (1, 1), (2, -1), (1, 3), ("1", 2)):
        with pytest.raises((TypeError, ValueError)) as refused:
            fn.mean(a, axes)
        with pytest.raises((TypeError, ValueError)):
            np.mean(a, axes)  # type: ignore[call-overload]
        assert "axis" in str(refused.value)
    np.testing.assert_array_equal(fn.mean(a, ()), a)


# --- NumPy's results ---


@pytest.mark.parametrize("name", AVERAGES)
def test_signatures_are_those_of_numpy(name: str) -> None:
    def parameters(function: Any) -> list[tuple[Any, ...]]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(getattr(fn, name)) == parameters(getattr(np, name))


def views(a: np.ndarray) -> list[np.ndarray]:
    found = [a, np.asfortranarray(a), cases.read_only(a)]
    return found if a.ndim == 0 else [*found, cases.flipped(a), cases.every_second(a, -1), cases.every_second(a, 0), np.flip(a, 0)]


@st.composite
def calls(draw: Any, mask: bool) -> tuple[str, np.ndarray, dict[str, Any]]:
    """An average of a small array of small whole numbers, so that NumPy's sums are exact."""
    name = draw(st.sampled_from(AVERAGES))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(["f8"] if mask else ["f4", "f8", "f8", "i8", "?", "f2"])))
    values = draw(st.lists(st.sampled_from([0, 1, 2, 2, 5, -3, 7, math.nan]), min_size=math.prod(shape), max_size=math.prod(shape)))
    a = np.array([0 if dtype.kind in "bi" and v != v else v for v in values]).reshape(shape).astype(dtype)
    options: dict[str, Any] = {}
    if dtype.kind == "f" and dtype.itemsize > 2:
        a = draw(st.sampled_from(views(a)))
    axes = st.integers(-len(shape), len(shape) - 1) if shape else st.none()
    some = st.permutations(range(len(shape))).flatmap(lambda p: st.integers(0, len(p)).map(lambda n: tuple(p[:n])))
    options["axis"] = draw(st.one_of(st.none(), axes, some))
    if draw(st.booleans()):
        options["keepdims"] = draw(st.sampled_from([True, False, 1]))
    if name in SQUARES:
        options[draw(st.sampled_from(["ddof", "correction"]))] = draw(st.sampled_from([0, 1, 2, 1.5]))
    if mask:
        along = [n if draw(st.booleans()) else 1 for n in shape]
        options["where"] = np.array(draw(st.lists(st.booleans(), min_size=math.prod(along), max_size=math.prod(along))), bool).reshape(
            along
        )
    return name, a, options


def check_against_numpy(call: tuple[str, np.ndarray, dict[str, Any]]) -> None:
    name, a, options = call
    before = a.copy()
    found, texts = recorded(name, fn, a, **options)
    expected, wanted = recorded(name, np, a, **options)
    assert texts == wanted
    assert type(found) is type(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    # At most 75 values below 8: the mean square is below 64, and float32 and float16 keep 2**-20 and 2**-10 of it.
    allowed = {"float64": 2.0**-44, "float32": 2.0**-15, "float16": 2.0**-4}[found.dtype.name]
    assert_within(found, expected, allowed, name)
    np.testing.assert_array_equal(a, before)


@given(calls(mask=False))
@settings(max_examples=300)
def test_results_and_warnings_are_those_of_numpy(call: tuple[str, np.ndarray, dict[str, Any]]) -> None:
    check_against_numpy(call)


@given(calls(mask=True))
@settings(max_examples=200)
def test_results_and_warnings_with_where_are_those_of_numpy(call: tuple[str, np.ndarray, dict[str, Any]]) -> None:
    check_against_numpy(call)


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "f", float, complex, np.longdouble])
def test_dtype_is_that_of_the_result(name: str, dtype: Any) -> None:
    for source in (np.float32, np.float64, np.int64):
        a = np.arange(12).reshape(4, 3).astype(source)
        for axis in (None, 0):
            found, texts = recorded(name, fn, a, axis, dtype)
            expected, wanted = recorded(name, np, a, axis, dtype)
            assert (type(found), found.dtype, texts) == (type(expected), expected.dtype, wanted)
            np.testing.assert_allclose(found, expected, rtol=2e-3 if dtype is np.float16 else 1e-6)


@pytest.mark.parametrize("name", AVERAGES)
def test_out_is_written_and_returned(name: str) -> None:
    a = np.arange(12.0).reshape(4, 3)
    for dtype in (np.float64, np.float32, np.float16):
        buffer = np.full((3, 2), 77.0, dtype)
        out = buffer[::-1, 1]
        assert getattr(fn, name)(a, 0, out=out) is out
        np.testing.assert_allclose(out, getattr(np, name)(a, 0), rtol=1e-3)
        assert (buffer[:, 0] == 77).all()
    scalar = np.empty(())
    assert getattr(fn, name)(a, out=scalar) is scalar
    kept = np.empty((1, 3))
    assert getattr(fn, name)(a, 0, out=kept, keepdims=True) is kept
    expected, row = getattr(np, name)(a, 0), a[0]
    getattr(fn, name)(a, 0, out=row)  # a part of the input
    np.testing.assert_allclose(a[0], expected)


def test_integer_results_and_masks_are_those_of_numpy() -> None:
    a = np.arange(12.0).reshape(4, 3)
    for where in ([2, 0, 1], [0.5, 0.0, 1.0]):  # NumPy counts their sum
        expected = recorded("mean", np, a, 0, where=where)[0]
        np.testing.assert_array_equal(recorded("mean", fn, a, 0, where=where)[0], expected)
    for name in ("mean", "var"):
        counts = np.empty(3, int)
        assert getattr(fn, name)(a, 0, out=counts) is counts
        np.testing.assert_array_equal(counts, getattr(np, name)(a, 0, out=np.empty(3, int)))
        np.testing.assert_array_equal(getattr(fn, name)(a, 0, int), getattr(np, name)(a, 0, int))


@pytest.mark.parametrize("name", AVERAGES)
def test_what_where_excludes_may_be_anything(name: str) -> None:
    a = cases.sample(Problem((30, 4)), cases.F8)
    mask = np.random.default_rng(1).random(a.shape) < 0.6
    clean = getattr(np, name)(a, 0, where=mask)
    a[~mask] = np.random.default_rng(2).choice([np.nan, np.inf, -np.inf, 1e308], np.count_nonzero(~mask))
    np.testing.assert_allclose(getattr(fn, name)(a, 0, where=mask), clean, rtol=1e-12)
    np.testing.assert_allclose(getattr(fn, name)(a.T, 1, where=mask.T), clean, rtol=1e-12)
    whole = np.arange(120).reshape(30, 4)
    np.testing.assert_allclose(getattr(fn, name)(whole, where=mask), getattr(np, name)(whole, where=mask))


@pytest.mark.parametrize("name", ["mean", "nanmean"])
def test_nan_and_infinities_that_where_leaves_count(name: str) -> None:
    a = np.array([[np.nan, np.inf, 1.0], [np.inf, 1.0, 2.0], [np.nan, 1.0, 2.0], [-np.inf, 0.0, 7.0]])
    mask = np.array([True, True, True, False])[:, None] | np.array([True, True, False])
    expected = getattr(np, name)(a, 1, where=mask)
    np.testing.assert_array_equal(getattr(fn, name)(a, 1, where=mask), expected)


@pytest.mark.parametrize("name", SQUARES)
def test_deviations_from_a_given_mean(name: str) -> None:
    a = cases.sample(CUBE, cases.F8)
    a[0, 0, 0] = np.nan if name.startswith("nan") else 3.0
    for axis in (None, 1, (0, 2)):
        own = getattr(np, "nanmean" if name.startswith("nan") else "mean")(a, axis, keepdims=True)
        for centre in (own, own + 1.0, 0.5, 2):
            for options in ({}, {"ddof": 1}, {"where": np.array([True, False] * 3)}, {"keepdims": True}, {"dtype": np.float32}):
                found, texts = recorded(name, fn, a, axis, mean=centre, **options)
                expected, wanted = recorded(name, np, a, axis, mean=centre, **options)
                assert (found.dtype, texts) == (expected.dtype, wanted)
                np.testing.assert_allclose(found, expected, rtol=1e-6 if "dtype" in options else 1e-12)
    whole = np.broadcast_to(np.arange(6.0), a.shape)  # not one number per slice: NumPy's own
    np.testing.assert_allclose(getattr(fn, name)(a, 1, mean=whole), getattr(np, name)(a, 1, mean=whole))
    single = a.astype(np.float32)
    for centre in (0.5, np.float64(0.5), np.zeros((4, 1, 6))):
        assert getattr(fn, name)(single, 1, mean=centre).dtype == getattr(np, name)(single, 1, mean=centre).dtype
    for values in ([np.inf, 1.0], [np.inf, -np.inf, 1.0], [np.inf, np.nan]):
        np.testing.assert_array_equal(getattr(fn, name)(values, mean=1.0), getattr(np, name)(values, mean=1.0))


def test_array_likes_and_subclasses_are_plain_arrays() -> None:
    pandas = pytest.importorskip("pandas")
    values = [1.0, 2.0, 4.0]
    for a in (values, tuple(values), pandas.Series(values), np.array(values).view(cases.Subclass)):
        assert fn.mean(a) == np.mean(values)
        assert math.isclose(fn.var(a, ddof=1), 7 / 3, rel_tol=1e-15)
    assert fn.mean(3) == 3.0
    for name in AVERAGES:
        assert type(getattr(fn, name)(np.array([values]).view(cases.Subclass), 0)) is np.ndarray


@pytest.mark.skipif(cases.BFLOAT16 is None, reason="ml_dtypes is not installed")
def test_bfloat16() -> None:
    a = cases.sample(Problem((40, 3)), cases.BFLOAT16)
    for name in ("mean", "var", "nanstd"):
        found = getattr(fn, name)(a, 0)
        assert found.dtype == cases.BFLOAT16
        np.testing.assert_allclose(found.astype(float), getattr(np, name)(a.astype(float), 0), rtol=2.0**-7)
    a[3, 1] = np.nan
    assert np.isnan(fn.nanmean(a, 0).astype(float)).sum() == 0
    far = np.array([[3e38, 1.0], [-3e38, 2.0], [3e38, 3.0]], cases.BFLOAT16)  # whose differences are no float32
    np.testing.assert_array_equal(fn.mean(far, 0), fn.mean(far, 0, where=True))
    np.testing.assert_allclose(fn.mean(far, 0).astype(float), [1e38, 2.0], rtol=2.0**-7)


# --- accuracy ---


def test_the_mean_of_millions_of_tenths_is_a_tenth() -> None:
    a = np.full((2_000_000, 2), 0.1, np.float32)
    assert (fn.mean(a, axis=0) == np.float32(0.1)).all()
    assert (abs(np.mean(a, axis=0) - 0.1) > 1e-4).all()  # NumPy adds row to row
    assert (fn.var(a, axis=0) == 0.0).all()


def test_squares_of_float16_do_not_overflow() -> None:
    a = (np.random.default_rng(0).integers(-400, 400, (500, 3)) + 1000).astype(np.float16)
    for name in ("var", "std", "nanvar"):
        expected, allowed = exact(name, a, 0)
        assert_within(getattr(fn, name)(a, 0), expected, allowed, name)
    assert np.isfinite(fn.mean(np.full(10_000, 60_000, np.float16)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", AVERAGES)
def test_accurate_at_any_offset(name: str, dtype: Any) -> None:
    a = cases.sample(Problem((3000, 5)), dtype, offset=1e5)
    for axis in (None, 0, 1):
        expected, allowed = exact(name, a, axis)
        assert_within(getattr(fn, name)(a, axis), expected, allowed, name)


@pytest.mark.parametrize("source", [np.float32, np.float16])
def test_float64_results_of_narrower_floats_are_summed_in_float64(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widening, "BLOCK_ELEMENTS", 700)
    a = cases.sample(Problem((90, 13)), source)
    for axis in (None, 0, 1):
        mean, var = oracle.mean_var(a, axis)
        allowed = tolerance.mean(mean, var, np.float64)
        assert_within(fn.mean(a, axis, np.float64), mean, allowed)
        assert_within(fn.mean(a, axis, out=np.empty(mean.shape)), mean, allowed)
        assert_within(fn.var(a, axis, float), var, tolerance.var(var, np.float64))
    a[::4, 2], a[:, 3], a[7, 4], a[:60, 5] = np.nan, np.nan, np.inf, np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the column of NaN
        for axis in (0, 1):
            for name in AVERAGES:
                expected = getattr(np, name)(a.astype(np.float64), axis)
                np.testing.assert_allclose(getattr(fn, name)(a, axis, np.float64), expected, rtol=1e-12)
    assert fn.mean(np.float32(0.1), dtype=float) == np.float64(np.float32(0.1))
