"""oneDNN's own primitives, without PyTorch between: on AVX-512 and AVX2 they are generated for the shape.

They take an output array, and never allocate one: fresh rows do not list them.
"""

from __future__ import annotations

import numpy as np

from bench.libraries import onednn_api as dnn
from bench.problems import Problem, UnsupportedError
from bench.providers import Prepared, Results, Setup

_ALL = dnn.SCALE_SHIFT


def _planes(p: Problem, array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, p.axis, 1)


def _single(values: np.ndarray, shape: tuple[int, ...] = (-1,)) -> np.ndarray:
    return values.astype(np.float32).reshape(shape)


def _not_fresh(fresh: bool) -> None:
    if fresh:
        raise UnsupportedError("oneDNN allocates nothing")


def _arrays(p: Problem, statistics: tuple[int, ...]) -> dict[int, np.ndarray]:
    return {
        dnn.SRC: _planes(p, p.x),
        dnn.SCALE: _single(p.gamma),
        dnn.MEAN: _single(p.mean, statistics),
        dnn.VARIANCE: _single(p.var, statistics),
    }


def _forward(p: Problem, kind: str, prop: int, flags: int) -> Prepared:
    layer = kind.startswith("layer")
    arrays = _arrays(p, (p.dims[0],) if layer else (p.channels,))
    arrays |= {dnn.SHIFT: _single(p.beta), dnn.DST: _planes(p, p.out)}
    tensors = (dnn.describe(arrays[dnn.SRC]), dnn.describe(arrays[dnn.DST]))
    described = (*tensors, dnn.describe(arrays[dnn.MEAN])) if layer else tensors
    call = dnn.primitive(dnn.descriptor(kind, prop, described, p.eps, flags), arrays)
    return Prepared(call, lambda _: {"y": p.out})


def _backward(p: Problem, kind: str) -> Prepared:
    layer = kind.startswith("layer")
    arrays = _arrays(p, (p.dims[0],) if layer else (p.channels,))
    arrays |= {dnn.DIFF_DST: _planes(p, p.dy), dnn.DIFF_SRC: _planes(p, p.out)}
    arrays |= {dnn.DIFF_SCALE: np.empty(p.channels, np.float32), dnn.DIFF_SHIFT: np.empty(p.channels, np.float32)}
    if layer:  # needed for layer norm, refused for batch norm
        arrays[dnn.SHIFT] = _single(p.beta)
    src = dnn.describe(arrays[dnn.SRC])
    extra = (dnn.describe(arrays[dnn.MEAN]),) if layer else ()
    forward = dnn.descriptor(f"{kind}_forward", dnn.TRAINING, (src, src, *extra), p.eps, _ALL)
    tensors = (dnn.describe(arrays[dnn.DIFF_SRC]), dnn.describe(arrays[dnn.DIFF_DST]), src, *extra)
    described = dnn.descriptor(f"{kind}_backward", dnn.BACKWARD, tensors, p.eps, _ALL, (forward,))

    def results(_: object) -> Results:
        return {"dx": p.out, "dgamma": arrays[dnn.DIFF_SCALE], "dbeta": arrays[dnn.DIFF_SHIFT]}

    return Prepared(dnn.primitive(described, arrays), results)


def train(p: Problem, fresh: bool) -> Prepared:
    _not_fresh(fresh)
    return _forward(p, "batch_normalization_forward", dnn.TRAINING, _ALL)


def inference(p: Problem, fresh: bool) -> Prepared:
    _not_fresh(fresh)
    return _forward(p, "batch_normalization_forward", dnn.INFERENCE, _ALL | dnn.GLOBAL_STATS)


def backward(p: Problem, fresh: bool) -> Prepared:
    _not_fresh(fresh)
    return _backward(p, "batch_normalization")


def layer_norm(p: Problem, fresh: bool) -> Prepared:
    _not_fresh(fresh)
    return _forward(p, "layer_normalization_forward", dnn.TRAINING, _ALL)


def layer_norm_backward(p: Problem, fresh: bool) -> Prepared:
    _not_fresh(fresh)
    return _backward(p, "layer_normalization")


SETUPS: dict[str, Setup] = {f.__name__: f for f in (train, inference, backward, layer_norm, layer_norm_backward)}
