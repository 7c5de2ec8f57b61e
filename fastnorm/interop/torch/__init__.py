"""PyTorch on CPUs, re-exported as `fastnorm.torch`: tensors -> norms -> autograd, operators -> functions -> modules -> conversion."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as absence:
    raise ImportError("fastnorm.torch needs PyTorch, which is not installed; pip install 'fastnorm[torch]'") from absence
