"""NumPy arrays as tensors over the same memory, and back."""

from __future__ import annotations

import os

import numpy as np
import torch

from bench.problems import Problem

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
torch.set_grad_enabled(False)


def tensor(p: Problem, array: np.ndarray) -> torch.Tensor:
    """N C H W whatever the layout: with the channel innermost in memory it is PyTorch's channels_last."""
    if array.dtype.kind == "V" or array.dtype.name == "bfloat16":
        flat = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        flat = torch.from_numpy(array)
    return flat.permute(0, 3, 1, 2) if p.key.layout == "NHWC" else flat


def array(p: Problem, tensor: torch.Tensor) -> np.ndarray:
    if p.key.layout == "NHWC":
        tensor = tensor.permute(0, 2, 3, 1)
    found: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return found


def vector(p: Problem, values: np.ndarray) -> torch.Tensor:
    """Parameters and statistics: PyTorch keeps them in float32 for 16-bit x, otherwise in the dtype of x."""
    return torch.from_numpy(values.astype(np.float64 if p.dtype == np.float64 else np.float32))
