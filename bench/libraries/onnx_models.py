"""Models of one operator, made in memory, for ONNX Runtime and OpenVINO.

Parameters are constants of the model, as in an exported network, so a runtime may prepare them when it loads it. ONNX has
operators for the channel at axis 1 only, none for gradients, and none for a variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bench.problems import Key, Problem, UnsupportedError

_OPSET, _CONTRIBUTED = 23, "com.microsoft"
_IR_VERSION = 11  # of opset 23


class Model(NamedTuple):
    text: bytes
    inputs: dict[str, np.ndarray]
    results: dict[str, np.ndarray]  # name in the graph -> array to be written


class _Graph(NamedTuple):
    nodes: list[Any]
    constants: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def _single_output(p: Problem, operator: str, constants: dict[str, np.ndarray], **attributes: Any) -> _Graph:
    node = helper.make_node(operator, ["x", *constants], ["y"], **attributes)
    return _Graph([node], constants, {"x": p.x}, {"y": p.out})


def _affine(p: Problem) -> dict[str, np.ndarray]:
    return {"gamma": p.gamma, "beta": p.beta}


def inference(p: Problem) -> _Graph:
    statistics = {"mean": p.mean.astype(np.float32), "var": p.var.astype(np.float32)}
    return _single_output(p, "BatchNormalization", _affine(p) | statistics, epsilon=p.eps)


def train(p: Problem) -> _Graph:
    """The running statistics it returns are those of the batch: momentum is the weight of the old ones."""
    running = {"running_mean": np.zeros(p.channels, np.float32), "running_var": np.ones(p.channels, np.float32)}
    constants = _affine(p) | running
    results = {"y": p.out, "mean": np.empty(p.channels, np.float32), "var": np.empty(p.channels, np.float32)}
    node = helper.make_node("BatchNormalization", ["x", *constants], list(results), epsilon=p.eps, momentum=0.0, training_mode=1)
    return _Graph([node], constants, {"x": p.x}, results)


def layer_norm(p: Problem) -> _Graph:
    return _single_output(p, "LayerNormalization", _affine(p), epsilon=p.eps, axis=-1)


def rms_norm(p: Problem) -> _Graph:
    return _single_output(p, "RMSNormalization", {"gamma": p.gamma}, epsilon=p.eps, axis=-1)


def add_layer_norm(p: Problem) -> _Graph:
    """An operator of ONNX Runtime, which OpenVINO reads too."""
    inputs = ["x", "residual", "gamma", "beta"]
    node = helper.make_node("SkipLayerNormalization", inputs, ["y", "", "", "h"], epsilon=p.eps, domain=_CONTRIBUTED)
    return _Graph([node], _affine(p), {"x": p.x, "residual": p.residual}, {"y": p.out, "h": p.out_sum})


def group_norm(p: Problem) -> _Graph:
    return _single_output(p, "GroupNormalization", _affine(p), epsilon=p.eps, num_groups=p.groups)


def instance_norm(p: Problem) -> _Graph:
    return _single_output(p, "InstanceNormalization", _affine(p), epsilon=p.eps)


def mean(p: Problem) -> _Graph:
    axes = tuple(range(p.x.ndim)) if p.reduced is None else (p.reduced,)
    kept = [size for axis, size in enumerate(p.shape) if axis not in axes]
    node = helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0)
    return _Graph([node], {"axes": np.array(axes, np.int64)}, {"x": p.x}, {"mean": np.empty(kept, np.float32)})


_GRAPHS: tuple[Callable[[Problem], _Graph], ...] = (
    inference,
    train,
    layer_norm,
    rms_norm,
    add_layer_norm,
    group_norm,
    instance_norm,
    mean,
)
OPERATIONS = {graph.__name__: graph for graph in _GRAPHS}


def refuses(key: Key, fresh: bool) -> str | None:
    """Why there is no model, or None. Outputs are bound to given arrays."""
    if fresh:
        return "outputs are bound"
    if key.layout == "NHWC":
        return "ONNX's operators take the channel at axis 1"
    return None if key.dtype == "float32" else f"models are made for float32, not {key.dtype}"


def build(p: Problem, fresh: bool) -> Model:
    """Raises UnsupportedError."""
    reason = refuses(p.key, fresh)
    if reason:
        raise UnsupportedError(reason)
    nodes, constants, inputs, results = OPERATIONS[p.operation](p)

    def declared(arrays: dict[str, np.ndarray]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in arrays.items()]

    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, p.operation, declared(inputs), declared(results), weights)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIBUTED, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return Model(model.SerializeToString(), inputs, results)


def found(p: Problem, results: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is compared: the sum of add_layer_norm is not."""
    return {name: array for name, array in results.items() if name != "h"}
