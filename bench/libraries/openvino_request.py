"""OpenVINO on CPUs, in float32: the models of ONNX, inputs and outputs in the memory of the row's arrays.

Its threads are TBB's.
"""

from __future__ import annotations

import sys
from typing import Any

from bench import environment
from bench.libraries import onnx_models
from bench.problems import Problem
from bench.providers import Prepared, Setup

# It would send usage data from a forked child: not from a process with other threads, and not from a bench at all.
_modules: dict[str, Any] = sys.modules
_modules.setdefault("openvino_telemetry", None)

import openvino  # noqa: E402

_core = openvino.Core()


def _options() -> dict[str, object]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",  # it may compute in bfloat16 otherwise
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": environment.stated_threads(),
        "ENABLE_CPU_PINNING": False,
    }


def _setup(p: Problem, fresh: bool) -> Prepared:
    model = onnx_models.build(p, fresh)
    with environment.unpinned():  # its threads inherit the cores of the one that starts them
        request = _core.compile_model(_core.read_model(model.text), "CPU", _options()).create_infer_request()
    for name, array in model.inputs.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    for name, array in model.results.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    return Prepared(request.infer, lambda _: onnx_models.found(p, model.results))


SETUPS: dict[str, Setup] = dict.fromkeys(onnx_models.OPERATIONS, _setup)
refuses = onnx_models.refuses
