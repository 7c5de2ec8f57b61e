"""ONNX Runtime on CPUs: inputs and outputs are bound to the arrays of the row."""

from __future__ import annotations

from functools import partial

import onnxruntime

from bench import environment
from bench.libraries import onnx_models
from bench.problems import Problem
from bench.providers import Prepared, Setup

# Idle workers spin for 50 ms by default, on the core that the next provider wants: for 0.1 ms, as OpenMP's. Versions that do not
# know this option know the other one, which ends it with the call.
_SPINNING = ("session.intra_op.spin_duration_us", "100")
_SPINNING_BEFORE = ("session.force_spinning_stop", "1")
_BOUNDED_SINCE = (1, 26)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = environment.stated_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    options.add_session_config_entry(*(_SPINNING if version >= _BOUNDED_SINCE else _SPINNING_BEFORE))
    return options


def _setup(p: Problem, fresh: bool) -> Prepared:
    model = onnx_models.build(p, fresh)
    with environment.unpinned():  # its threads inherit the cores of the one that starts them
        session = onnxruntime.InferenceSession(model.text, _options(), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in model.inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for name, array in model.results.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    return Prepared(partial(session.run_with_iobinding, binding), lambda _: onnx_models.found(p, model.results))


SETUPS: dict[str, Setup] = dict.fromkeys(onnx_models.OPERATIONS, _setup)
refuses = onnx_models.refuses
