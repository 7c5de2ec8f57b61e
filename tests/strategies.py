"""What fuzz tests and the soak draw from: decisions, junk, and calls of every public function.

A decision is a number below n. Hypothesis, a random generator or a coverage-guided fuzzer gives it: see `Choices`.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import cases
import numpy as np
from hypothesis import strategies as st

import fastnorm as fn

Array = np.ndarray
T = TypeVar("T")


class Choices:
    """Decisions by a function that gives a number from 0 to n - 1."""

    def __init__(self, below: Callable[[int], int]) -> None:
        self.below = below

    def one(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def flag(self) -> bool:
        return bool(self.below(2))

    def between(self, low: int, high: int) -> int:
        """Both included."""
        return low + self.below(high - low + 1)


def drawn(data: st.DataObject) -> Choices:
    return Choices(lambda n: data.draw(st.integers(0, n - 1)))


def at_random(seed: int) -> Choices:
    return Choices(random.Random(seed).randrange)


# --- junk ---


class Unwilling:
    """Has the attributes of an array, and no array."""

    shape, dtype, ndim = (2, 3), np.dtype(np.float32), 2


class OnlyIndex:
    def __index__(self) -> int:
        return 1


def endless() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


SCALARS: list[Callable[[], Any]] = [
    lambda: None, lambda: True, lambda: False, lambda: 0, lambda: 1, lambda: -1, lambda: 2, lambda: 7, lambda: 2**45, lambda: -(2**63),
    lambda: 2**64, lambda: 10**400, lambda: 0.0, lambda: -0.0, lambda: 0.5, lambda: 1.0, lambda: -1e-5, lambda: 1e308,
    lambda: float("nan"), lambda: float("inf"), lambda: -float("inf"), lambda: 1j, lambda: "x", lambda: "", lambda: "relu",
    lambda: "first", lambda: "omit", lambda: "float32", lambda: b"x", lambda: np.float32(0.5), lambda: np.float16("nan"),
    lambda: np.int64(1), lambda: np.uint8(1), lambda: np.bool_(True), lambda: np.complex64(1), lambda: np.longdouble(1),
    lambda: np.str_("relu"), lambda: np.datetime64("2020"), lambda: np.timedelta64(1, "s"), lambda: fractions.Fraction(1, 3),
    lambda: decimal.Decimal("0.1"), lambda: decimal.Decimal("sNaN"), lambda: datetime.date(2020, 1, 1), lambda: np.ma.masked,
    lambda: Ellipsis, object, Unwilling, OnlyIndex, lambda: int, lambda: np.float32, lambda: len, lambda: slice(1, 2), lambda: np,
]  # fmt: skip
CONTAINERS: list[Callable[[], Any]] = [
    list, tuple, dict, set, lambda: [None], lambda: (1,), lambda: (0, 1), lambda: (1, 1), lambda: (-1, -2), lambda: [1, 2],
    lambda: (0, (1,)), lambda: (10**30,), lambda: (1.0,), lambda: ("x",), lambda: (None, None), lambda: [[1.0, 2.0], [3.0]],
    lambda: [[1.0], 2.0], endless, lambda: ["a", "b"], lambda: [object()], lambda: {1: 2.0}, lambda: {1.0, 2.0}, lambda: range(0),
    lambda: iter([1.0]), lambda: (v for v in "ab"), lambda: memoryview(b"abc")[::2], lambda: bytearray(), lambda: [10**400], lambda: [1j],
    lambda: [[[]]], lambda: (np.zeros((4, 6, 5), np.float32), np.zeros(3)), lambda: (np.zeros((4, 6, 5), np.float32),) * 2,
]  # fmt: skip
# Dtypes and shapes that are refused, or that float32 and float64 kernels of other tests take.
ARRAYS: list[Callable[[], Any]] = [
    lambda: np.array(3.0), lambda: np.array(2), lambda: np.array([]), lambda: np.array([1e-5]), lambda: np.zeros((0, 6, 5), np.float32),
    lambda: np.zeros((4, 0, 5), np.float32), lambda: np.zeros((4, 6, 0), np.float32), lambda: np.zeros(0, np.float32), lambda: np.ones(6),
    lambda: np.ones(6, np.float32), lambda: np.ones(5, np.float32), lambda: np.ones((4, 6), np.float32),
    lambda: np.ones((6, 5), np.float32), lambda: np.ones((4, 6, 5), np.float32), lambda: np.ones((4, 6, 5)),
    lambda: np.ones((6, 1), np.float32), lambda: np.ones((1, 6, 1)), lambda: np.ones((4, 6, 5, 1), np.float32),
    lambda: np.ones((1,) * 64, np.float32), lambda: np.full((4, 6, 5), np.nan, np.float32), lambda: np.ones((4, 6, 5), object),
    lambda: np.ones(6, object), lambda: np.array([[1.0], None], object), lambda: np.ones((4, 6, 5), complex),
    lambda: np.ones((4, 6, 5), np.longdouble), lambda: np.ones(6, np.longdouble), lambda: np.ones((4, 6, 5), "S3"),
    lambda: np.ones((4, 6, 5), "U2"), lambda: np.zeros((4, 6, 5), "M8[s]"), lambda: np.zeros(6, "m8[ns]"),
    lambda: np.zeros((4, 6, 5), "V4"), lambda: np.zeros(6, [("a", "f4")]), lambda: np.zeros(6, np.int64),
    lambda: np.zeros((2, 3), np.int64), lambda: np.zeros(6, bool), lambda: cases.read_only(np.ones((4, 6, 5), np.float32)),
    lambda: cases.read_only(np.ones(6)), lambda: np.ma.ones((4, 6, 5)), lambda: np.ma.masked_less(np.ones(6), 2),
    lambda: np.ones((4, 6)).view(np.matrix), lambda: np.broadcast_to(np.float32(1), (4, 6, 5)),
    lambda: np.broadcast_to(np.float64(1), (6,)), lambda: np.ones(6)[::-1], lambda: np.ones(6).view(cases.Subclass),
    lambda: np.rec.array([(1.0,)], dtype=[("a", "f4")]), lambda: np.ones(6, ">f8"), lambda: np.ones((2, 2, 6)).view(np.recarray),
]  # fmt: skip
# Larger than any memory, for arguments whose result would be as large.
ABSURD: list[Callable[[], Any]] = [
    lambda: np.broadcast_to(np.float32(1), (2**30, 2**28, 5)),
    lambda: np.broadcast_to(np.float64(1), (4, 2**55)),
]
JUNK = SCALARS + CONTAINERS + ARRAYS


def junk(c: Choices) -> Any:
    return c.one(c.one((SCALARS, CONTAINERS, ARRAYS)))()


# --- good calls, whose arguments are replaced by junk ---


class Call(NamedTuple):
    function: Callable[..., Any]
    arguments: dict[str, Any]
    written: tuple[str, ...] = ()  # where they are given
    huge: tuple[str, ...] = ()  # arguments that may be absurdly large, because a result has their size
    warns: bool = False  # as NumPy and SciPy do
    owner: Any = None  # whose method it is: as it was, where the call is refused
    refuses_by: tuple[type[Exception], ...] = ()  # besides ValueError and TypeError


def _x(seed: int = 0, *shape: int) -> Array:
    return cases.rng_of(seed).standard_normal(shape or (4, 6, 5)).astype(np.float32)


def _v(seed: int, dtype: Any = np.float64) -> Array:
    return cases.parameter(6, dtype, seed) ** 2


def _out() -> Array:
    return np.full((4, 6, 5), 7, np.float32)


def _train() -> dict[str, Any]:
    return {"x": _x(), "gamma": _v(1), "beta": _v(2), "axis": 1, "eps": 1e-5, "running_mean": _v(3, np.float32),
            "running_var": _v(4, np.float32), "momentum": 0.3, "unbiased": True,
            "activation": None, "residual": None, "out": _out()}  # fmt: skip


def _layer(**more: Any) -> dict[str, Any]:
    return {"x": _x(), "gamma": np.ones(5, np.float32), "axis": -1, "eps": 1e-5, "return_stats": True, "out": _out(), **more}


def _row_backward(**more: Any) -> dict[str, Any]:
    return {"dy": _x(1), "x": _x(), "rstd": np.ones((4, 6)), "gamma": np.ones(5, np.float32), "axis": -1, "out": _out(), **more}


def _group(**more: Any) -> dict[str, Any]:
    return {
        "x": _x(),
        "gamma": _v(1),
        "beta": _v(2),
        "axis": 1,
        "eps": 1e-5,
        "activation": None,
        "return_stats": True,
        "out": _out(),
        **more,
    }


def _group_backward(n: int, **more: Any) -> dict[str, Any]:
    return {"dy": _x(1), "x": _x(), "mean": np.zeros((4, n)), "rstd": np.ones((4, n)), "gamma": _v(1), "axis": 1, "activation": None,
            "beta": None, "out": _out(), **more}  # fmt: skip


def _pair() -> tuple[Array, Array]:
    return _out(), _out()


def _average(**more: Any) -> dict[str, Any]:
    return {"a": _x(), "axis": 1, "dtype": None, "out": np.full((4, 5), 7, np.float32), "keepdims": False, "where": True, **more}


RUNNING = ("out", "running_mean", "running_var")
X, DY = ("x", "residual", "out"), ("x", "dy", "out")
CALLS: dict[str, Callable[[], Call]] = {
    "batch_norm_train": lambda: Call(fn.batch_norm_train, _train(), RUNNING, X),
    "batch_norm": lambda: Call(
        fn.batch_norm,
        {
            "x": _x(),
            "mean": _v(1),
            "var": _v(2),
            "gamma": _v(3),
            "beta": _v(4),
            "axis": 1,
            "eps": 1e-5,
            "activation": None,
            "residual": None,
            "out": _out(),
        },
        ("out",),
        X,
    ),
    "batch_norm_backward": lambda: Call(
        fn.batch_norm_backward,
        {
            "dy": _x(1),
            "x": _x(),
            "mean": _v(1),
            "rstd": _v(2),
            "gamma": _v(3),
            "axis": 1,
            "training": True,
            "activation": None,
            "beta": None,
            "residual": None,
            "out": _out(),
        },
        ("out",),
        DY,
    ),
    "batch_norm_backward, residual": lambda: Call(
        fn.batch_norm_backward,
        {
            "dy": _x(1),
            "x": _x(),
            "mean": _v(1),
            "rstd": _v(2),
            "gamma": _v(3),
            "activation": "relu",
            "beta": _v(4),
            "residual": _x(2),
            "out": _pair(),
        },
        ("out",),
        DY,
    ),
    "batch_renorm_train": lambda: Call(
        fn.batch_renorm_train,
        {
            "x": _x(),
            "running_mean": _v(3),
            "running_var": _v(4),
            "gamma": _v(1),
            "beta": _v(2),
            "axis": 1,
            "eps": 1e-5,
            "momentum": 0.1,
            "r_max": 3.0,
            "d_max": 5.0,
            "unbiased": True,
            "out": _out(),
        },
        RUNNING,
        X,
    ),
    "batch_renorm_backward": lambda: Call(
        fn.batch_renorm_backward,
        {"dy": _x(1), "x": _x(), "mean": _v(1), "rstd": _v(2), "r": _v(5), "d": _v(6), "gamma": _v(3), "axis": 1, "out": _out()},
        ("out",),
        DY,
    ),
    "layer_norm": lambda: Call(fn.layer_norm, _layer(beta=np.ones(5, np.float32)), ("out",), X),
    "rms_norm": lambda: Call(fn.rms_norm, _layer(), ("out",), X),
    "add_layer_norm": lambda: Call(fn.add_layer_norm, _layer(beta=np.ones(5, np.float32), residual=_x(1), out=_pair()), ("out",), X),
    "add_rms_norm": lambda: Call(fn.add_rms_norm, _layer(residual=_x(1), out=_pair()), ("out",), X),
    "layer_norm_backward": lambda: Call(fn.layer_norm_backward, _row_backward(mean=np.zeros((4, 6))), ("out",), DY),
    "rms_norm_backward": lambda: Call(fn.rms_norm_backward, _row_backward(), ("out",), DY),
    "group_norm": lambda: Call(fn.group_norm, _group(num_groups=2), ("out",), X),
    "group_norm_backward": lambda: Call(fn.group_norm_backward, _group_backward(2, num_groups=2), ("out",), DY),
    "instance_norm": lambda: Call(fn.instance_norm, _group(), ("out",), X),
    "instance_norm_backward": lambda: Call(fn.instance_norm_backward, _group_backward(6), ("out",), DY),
    "fold_batch_norm": lambda: Call(
        fn.fold_batch_norm,
        {"weight": _x(0, 6, 3), "bias": _v(5), "mean": _v(1), "var": _v(2), "gamma": _v(3), "beta": _v(4), "eps": 1e-5, "axis": 0},
        (),
        ("weight",),
    ),
    "normalize_images": lambda: Call(
        fn.normalize_images,
        {
            "images": _x(0, 2, 4, 5, 3),
            "mean": [0.4, 0.5, 0.6],
            "std": 0.5,
            "scale": 1.0,
            "channels": "last",
            "to": "first",
            "dtype": np.float32,
            "out": np.full((2, 3, 4, 5), 7, np.float32),
        },
        ("out",),
        ("images", "out"),
    ),
    "mean": lambda: Call(fn.mean, _average(), ("out",), warns=True),
    "var": lambda: Call(fn.var, _average(ddof=1, mean=np.zeros((4, 1, 5), np.float32)), ("out",), warns=True),
    "std": lambda: Call(fn.std, _average(correction=1), ("out",), warns=True),
    "nanmean": lambda: Call(fn.nanmean, _average(), ("out",), warns=True),
    "nanvar": lambda: Call(fn.nanvar, _average(ddof=1), ("out",), warns=True),
    "nanstd": lambda: Call(fn.nanstd, _average(ddof=1), ("out",), warns=True),
    "mean_var": lambda: Call(
        fn.mean_var, {"a": _x(), "axis": 1, "ddof": 0, "keepdims": False, "nan_policy": "propagate", "weights": None}, warns=True
    ),
    "zscore": lambda: Call(fn.zscore, {"a": _x(), "axis": 0, "ddof": 0, "nan_policy": "propagate"}, warns=True),
    "scale": lambda: Call(fn.preprocessing.scale, {"X": _x(0, 9, 4), "axis": 0, "with_mean": True, "with_std": True, "copy": True}, ("X",)),
    "minmax_scale": lambda: Call(
        fn.preprocessing.minmax_scale, {"X": _x(0, 9, 4), "feature_range": (0, 1), "axis": 0, "copy": True}, ("X",)
    ),
    "maxabs_scale": lambda: Call(fn.preprocessing.maxabs_scale, {"X": _x(0, 9, 4), "axis": 0, "copy": True}, ("X",)),
    "normalize": lambda: Call(
        fn.preprocessing.normalize, {"X": _x(0, 9, 4), "norm": "l2", "axis": 1, "copy": True, "return_norm": False}, ("X",)
    ),
    "set_num_threads": lambda: Call(fn.set_num_threads, {"n": 2}),
    "RunningMoments": lambda: Call(fn.RunningMoments, {"axis": 0, "nan_policy": "propagate"}),
    "BatchNorm": lambda: Call(
        fn.layers.BatchNorm,
        {
            "num_features": 6,
            "axis": 1,
            "eps": 1e-5,
            "momentum": 0.1,
            "unbiased": True,
            "activation": None,
            "affine": True,
            "dtype": np.float32,
        },
    ),
    "BatchRenorm": lambda: Call(fn.layers.BatchRenorm, {"num_features": 6, "r_max": 3.0, "d_max": 5.0, "momentum": 0.1, "eps": 1e-5}),
    "LayerNorm": lambda: Call(fn.layers.LayerNorm, {"normalized_shape": 5, "eps": 1e-5, "dtype": np.float32, "affine": True}),
    "RMSNorm": lambda: Call(fn.layers.RMSNorm, {"normalized_shape": (6, 5), "eps": 1e-5, "dtype": np.float32, "affine": True}),
    "GroupNorm": lambda: Call(fn.layers.GroupNorm, {"num_groups": 2, "num_channels": 6, "axis": 1, "eps": 1e-5, "affine": True}),
    "InstanceNorm": lambda: Call(fn.layers.InstanceNorm, {"num_features": 6, "axis": 1, "eps": 1e-5, "affine": True}),
}


def _moments() -> fn.RunningMoments:
    m = fn.RunningMoments(axis=0)
    m.update(_x(7))
    return m


def _method(owner: Any, name: str, written: tuple[str, ...] = (), warns: bool = False, **arguments: Any) -> Call:
    return Call(getattr(owner, name), arguments, written, warns=warns, owner=owner)


def _passed(layer: Any, x: Array | None = None) -> Any:
    layer(_x(8) if x is None else x)
    return layer


def _table(seed: int = 0) -> Array:
    return _x(seed, 9, 4)


def _scaler(name: str, **options: Any) -> Any:
    return getattr(fn.preprocessing, name)(**options).fit(_table(3))


_LAYERS = fn.layers
CALLS |= {
    "update": lambda: _method(_moments(), "update", warns=True, batch=_x(), weights=np.ones((4, 1, 1))),
    "merge": lambda: _method(_moments(), "merge", other=_moments()),
    "var of moments": lambda: _method(_moments(), "var", ddof=1),
    "recompute_statistics": lambda: _method(_passed(_LAYERS.BatchNorm(6)), "recompute_statistics", batches=[_x(1), _x(2)]),
    "load_state_dict": lambda: _method(_LAYERS.BatchNorm(6), "load_state_dict", state=_LAYERS.BatchNorm(6).state_dict())._replace(
        refuses_by=(KeyError,)
    ),
    "BatchNorm, forward": lambda: _method(_LAYERS.BatchNorm(6), "forward", ("out",), x=_x(), residual=_x(1), out=_out()),
    "BatchNorm, backward": lambda: _method(_passed(_LAYERS.BatchNorm(6)), "backward", ("out",), dy=_x(), out=_out()),
    "BatchRenorm, forward": lambda: _method(_LAYERS.BatchRenorm(6), "forward", ("out",), x=_x(), out=_out()),
    "BatchRenorm, backward": lambda: _method(_passed(_LAYERS.BatchRenorm(6)), "backward", ("out",), dy=_x(), out=_out()),
    "LayerNorm, forward": lambda: _method(_LAYERS.LayerNorm(5), "forward", ("out",), x=_x(), out=_out()),
    "LayerNorm, backward": lambda: _method(_passed(_LAYERS.LayerNorm(5)), "backward", ("out",), dy=_x(), out=_out()),
    "RMSNorm, forward": lambda: _method(_LAYERS.RMSNorm(5), "forward", ("out",), x=_x(), out=_out()),
    "GroupNorm, forward": lambda: _method(_LAYERS.GroupNorm(2, 6), "forward", ("out",), x=_x(), out=_out()),
    "GroupNorm, backward": lambda: _method(_passed(_LAYERS.GroupNorm(2, 6)), "backward", ("out",), dy=_x(), out=_out()),
    "InstanceNorm, forward": lambda: _method(_LAYERS.InstanceNorm(6), "forward", ("out",), x=_x(), out=_out()),
    "StandardScaler, fit": lambda: _method(_scaler("StandardScaler"), "fit", X=_table(), sample_weight=np.ones(9)),
    "StandardScaler, partial_fit": lambda: _method(_scaler("StandardScaler"), "partial_fit", X=_table(), sample_weight=np.ones(9)),
    "StandardScaler, transform": lambda: _method(
        _scaler("StandardScaler"), "transform", ("out", "X"), X=_table(), copy=True, out=_table(2)
    ),
    "StandardScaler, inverse_transform": lambda: _method(
        _scaler("StandardScaler"), "inverse_transform", ("out", "X"), X=_table(), copy=True, out=_table(2)
    ),
    "MinMaxScaler, partial_fit": lambda: _method(_scaler("MinMaxScaler"), "partial_fit", X=_table()),
    "MinMaxScaler, transform": lambda: _method(_scaler("MinMaxScaler", clip=True), "transform", ("out",), X=_table(), out=_table(2)),
    "MaxAbsScaler, partial_fit": lambda: _method(_scaler("MaxAbsScaler"), "partial_fit", X=_table()),
    "MaxAbsScaler, transform": lambda: _method(_scaler("MaxAbsScaler"), "transform", ("out",), X=_table(), out=_table(2)),
    "Normalizer, transform": lambda: _method(_scaler("Normalizer"), "transform", ("out", "X"), X=_table(), copy=True, out=_table(2)),
    "merge of scalers": lambda: _method(_scaler("StandardScaler"), "merge", other=_scaler("StandardScaler")),
}


def spoiled(c: Choices, name: str) -> Call:
    """A good call, one to three of whose arguments are junk, another argument's value, or absurdly large."""
    call = CALLS[name]()
    arguments = dict(call.arguments)
    for _ in range(1 + (c.below(3) == 0) + (c.below(6) == 0)):
        argument = c.one(list(arguments))
        how = c.below(12)
        if how == 0:
            arguments[argument] = c.one(list(arguments.values()))
        elif how == 1 and argument in call.huge:
            arguments[argument] = c.one(ABSURD)()
        else:
            arguments[argument] = junk(c)
    return call._replace(arguments=arguments)
