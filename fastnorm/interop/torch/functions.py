"""`torch.nn.functional`'s norms. What fastnorm does not compute goes to PyTorch's function of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnorm.interop.torch import autograd, norms, operators
from fastnorm.interop.torch.tensors import can_run, computable, have_shape, is_number


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`.

    Parameters
    ----------
    input : Tensor (N, C, ...)
        On the CPU, float32, float64, float16 or bfloat16, in any memory format. Anything else (another device, a meta
        tensor, a tensor subclass, an empty tensor, a call inside torch.func, torch.jit.trace or a forward-mode derivative)
        goes to PyTorch's own function.
    running_mean, running_var : Tensor (C,) or None
        Updated in place in training; needed otherwise.
    weight, bias : Tensor (C,), optional
        Of the dtype of input; also float32 where that has 16 bits.
    training : bool
        Whether to normalize by the statistics of the batch.
    momentum : float
        Weight of the new batch in the running statistics, of which the variance is the unbiased one.
    eps : float
        Added to the variance inside the square root.

    Returns
    -------
    Tensor like input
        Of its dtype and memory format (contiguous, channels_last, channels_last_3d).

    Raises
    ------
    ValueError, RuntimeError
        PyTorch's, for arguments that it does not accept: for example one value per channel in training.

    Notes
    -----
    Source: Ioffe, Szegedy 2015, algorithms 1 and 2. A gradient that is to be differentiated again is PyTorch's own.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    >>> fastnorm.torch.batch_norm(x, None, None, training=True, eps=1e-12)
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """
    if computable(input, weight, bias, running_mean, running_var) and input.dim() >= 2:
        channels = input.shape[1]
        if have_shape((channels,), weight, bias, running_mean, running_var) and can_run(running_mean, running_var) and is_number(eps, 0.0):
            if training is True:
                if input.numel() > channels and eps > 0 and is_number(momentum, 0.0, 1.0):
                    return _run(norms.BatchNorm(eps, running_mean, running_var, momentum), input, weight, bias)
            elif training is False and running_mean is not None and running_var is not None:
                return _run(norms.FixedBatchNorm(eps, running_mean, running_var), input, weight, bias)
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.instance_norm`.

    Parameters
    ----------
    input : Tensor (N, C, ...)
        As in `batch_norm`.
    running_mean, running_var, weight, bias : Tensor (C,), optional
        Running statistics receive the mean over the samples of the statistics of the instances.
    use_input_stats : bool
        Whether to normalize by the statistics of the instances, or by the running ones.
    momentum, eps : float
        As in `batch_norm`.

    Returns
    -------
    Tensor like input
        Of its memory format. (PyTorch's is contiguous.)

    Raises
    ------
    ValueError, RuntimeError
        PyTorch's, for arguments that it does not accept: for example one value per instance.

    Notes
    -----
    Source: Ulyanov, Vedaldi, Lempitsky 2016, equation 4.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> fastnorm.torch.instance_norm(torch.tensor([[[1.0, 3.0], [10.0, 30.0]]]), eps=1e-12)
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """
    numbers = is_number(momentum, 0.0, 1.0) and is_number(eps, 0.0)
    if numbers and computable(input, weight, bias, running_mean, running_var) and input.dim() >= 3:
        samples, channels = input.shape[:2]
        if have_shape((channels,), weight, bias, running_mean, running_var) and can_run(running_mean, running_var):
            if use_input_stats is False:
                if running_mean is not None and running_var is not None:
                    return _run(norms.FixedBatchNorm(eps, running_mean, running_var), input, weight, bias)
            elif use_input_stats is True and input.numel() > samples * channels:
                return _run(norms.InstanceNorm(eps, running_mean, running_var, momentum), input, weight, bias)
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """`torch.nn.functional.group_norm`.

    Parameters
    ----------
    input : Tensor (N, C, ...)
        As in `batch_norm`.
    num_groups : int
        A divisor of C.
    weight, bias : Tensor (C,), optional
    eps : float

    Returns
    -------
    Tensor like input
        Of its memory format.

    Raises
    ------
    ValueError, RuntimeError
        PyTorch's, for arguments that it does not accept.

    Notes
    -----
    Source: Wu, He 2018, equations 1, 2 and 7.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> fastnorm.torch.group_norm(torch.tensor([[1.0, 3.0, 10.0, 30.0]]), 2, eps=1e-12)
    tensor([[-1.,  1., -1.,  1.]])
    """
    if computable(input, weight, bias) and input.dim() >= 2 and type(num_groups) is int and num_groups > 0 and is_number(eps, 0.0):
        channels = input.shape[1]
        alone = input.numel() == num_groups  # one value per group of one sample, or what PyTorch takes for it
        if channels % num_groups == 0 and not alone and have_shape((channels,), weight, bias):
            return _run(norms.GroupNorm(eps, num_groups), input, weight, bias)
    return F.group_norm(input, num_groups, weight, bias, eps)


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """`torch.nn.functional.layer_norm`.

    Parameters
    ----------
    input : Tensor
        As in `batch_norm`; its last axes have the normalized shape.
    normalized_shape : sequence of int
    weight, bias : Tensor of the normalized shape, optional
    eps : float

    Returns
    -------
    Tensor like input
        Contiguous, as PyTorch's.

    Raises
    ------
    ValueError, RuntimeError
        PyTorch's, for arguments that it does not accept.

    Notes
    -----
    Source: Ba, Kiros, Hinton 2016, equations 3 and 4.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> fastnorm.torch.layer_norm(torch.tensor([[1.0, 3.0], [10.0, 30.0]]), (2,), eps=1e-12)
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """
    shape = _last_axes(input, normalized_shape)
    if shape and computable(input, weight, bias) and have_shape(shape, weight, bias) and is_number(eps, 0.0):
        return _run(norms.LayerNorm(eps, shape), input, weight, bias)
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """`torch.nn.functional.rms_norm`.

    Parameters
    ----------
    input, normalized_shape, weight
        As in `layer_norm`.
    eps : float, optional
        None: that of the arithmetic, ``torch.finfo(torch.float32).eps`` for 16-bit input too.

    Returns
    -------
    Tensor like input
        Contiguous.

    Raises
    ------
    ValueError, RuntimeError
        PyTorch's, for arguments that it does not accept.

    Notes
    -----
    Source: Zhang, Sennrich 2019, equation 4.

    Examples
    --------
    >>> import torch, fastnorm.torch
    >>> fastnorm.torch.rms_norm(torch.tensor([[1.0, 7.0]]), (2,), eps=1e-12)
    tensor([[0.2000, 1.4000]])
    """
    shape = _last_axes(input, normalized_shape)
    if shape and computable(input, weight) and have_shape(shape, weight) and (eps is None or is_number(eps, 0.0)):
        if eps is None:
            eps = torch.finfo(torch.float64 if input.dtype is torch.float64 else torch.float32).eps
        return _run(norms.RMSNorm(eps, shape), input, weight, None)
    return F.rms_norm(input, normalized_shape, weight, eps)


def _last_axes(input: Any, normalized_shape: Any) -> tuple[int, ...] | None:
    """The normalized shape, if the input ends with it."""
    if not isinstance(input, Tensor) or not isinstance(normalized_shape, tuple | list):
        return None
    shape = tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        return None
    return None if any(isinstance(n, float | bool) for n in shape) else shape


def _run(norm: norms.Norm, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    # An operator costs some ten microseconds more than a node of the graph.
    return (operators if torch.compiler.is_compiling() else autograd).run(norm, x, weight, bias)
