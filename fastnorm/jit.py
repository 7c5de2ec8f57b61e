"""The library inside the user's own ``@njit`` code.

Importing this module, or installing the library, also makes `fn.layer_norm`, `fn.rms_norm`, `fn.batch_norm` and
`fn.mean_var` callable there.
"""

from fastnorm.interop.jit_activations import activate, gelu, gelu_tanh, leaky_relu, relu, silu
from fastnorm.interop.jit_gradients import layer_norm_row_backward, rms_norm_row_backward
from fastnorm.interop.jit_init import init
from fastnorm.interop.jit_runs import Moments, batch_norm_run, layer_norm_row, merge, moments, normalize, rms_norm_row

init()

__all__ = [
    "Moments",
    "activate",
    "batch_norm_run",
    "gelu",
    "gelu_tanh",
    "layer_norm_row",
    "layer_norm_row_backward",
    "leaky_relu",
    "merge",
    "moments",
    "normalize",
    "relu",
    "rms_norm_row",
    "rms_norm_row_backward",
    "silu",
]
