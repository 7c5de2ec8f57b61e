"""Batch normalization folded into the linear or convolution layer before it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnorm.plan.intake import as_array, eps_of, normalize_axis, result_dtype, vector

Array = NDArray[Any]


class FoldedBatchNorm(NamedTuple):
    """Result of `fold_batch_norm`."""

    weight: Array
    bias: Array


def fold_batch_norm(
    weight: ArrayLike,
    bias: ArrayLike | None,
    mean: ArrayLike,
    var: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    axis: int = 0,
) -> FoldedBatchNorm:
    """Weight and bias of one layer that does the work of two: a linear or convolution layer, then `batch_norm`.

    ``scale = gamma / sqrt(var + eps)``, ``weight * scale``, ``(bias - mean) * scale + beta``, in float64.

    Parameters
    ----------
    weight : array_like
        Of any rank, with C output channels along `axis`.
    bias : array_like (C,), optional
        None for a layer without bias.
    mean, var : array_like (C,)
        Running or population statistics of the layer's output.
    gamma, beta : array_like (C,), optional
        Learned scale and shift, of any float dtype.
    eps : float
        Added to the variance inside the square root.
    axis : int
        The output-channel axis of weight: 0 for (out, in, ...), grouped convolutions included; 1 for transposed
        convolutions (in, out, ...); -1 for kernels (..., in, out), as those of Keras and JAX.

    Returns
    -------
    weight : array like weight
        Of its dtype (float64 for integers).
    bias : array (C,)
        Of the dtype of the bias passed, else of weight.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError

    Notes
    -----
    What the layer adds to its input's borders must be zeros, as in every framework: folding changes no input.
    A grouped transposed convolution has C / groups entries along its axis: fold the weight of every group by itself.
    Source: Jacob et al. 2018, section 3.2, equation 14; the bias follows from the affine map.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> weight, bias = fn.fold_batch_norm(np.eye(2), None, mean=[1.0, 2.0], var=[4.0, 0.25], eps=0.0)
    >>> weight
    array([[0.5, 0. ],
           [0. , 2. ]])
    >>> bias
    array([-0.5, -4. ])
    """
    weight = as_array("weight", weight)
    index = _output_axis(axis, weight)
    channels = weight.shape[index]
    offset = np.zeros(channels, result_dtype(weight.dtype)) if bias is None else as_array("bias", bias)
    _check_length("bias", offset, channels, index)
    centre, spread = _statistic("mean", mean, channels, index), _statistic("var", var, channels, index)
    scale, shift = _parameter("gamma", gamma, channels, index), _parameter("beta", beta, channels, index)
    with np.errstate(all="ignore"):  # NaN and inf go where they belong, as in every other function
        gain = (1.0 if scale is None else scale) / np.sqrt(spread + eps_of(eps))
        along = [1] * weight.ndim
        along[index] = channels
        folded = weight.astype(np.float64) * gain.reshape(along)
        moved = (offset.astype(np.float64) - centre) * gain + (0.0 if shift is None else shift)
        return FoldedBatchNorm(
            folded.astype(result_dtype(weight.dtype), copy=False),
            moved.astype(result_dtype(offset.dtype), copy=False),
        )


def _output_axis(axis: Any, weight: Array) -> int:
    try:
        return normalize_axis(axis, weight.ndim, "weight")
    except np.exceptions.AxisError:
        raise np.exceptions.AxisError(
            f"axis is {axis!r} but weight has {weight.ndim} dimensions; pass the axis of its output channels, for example 0"
        ) from None


def _check_length(name: str, value: Any, channels: int, axis: int) -> None:
    if np.shape(value) != (channels,):
        remedy = f"pass an array of shape ({channels},)" + (" or None" if name in ("bias", "gamma", "beta") else "")
        raise ValueError(f"{name} has shape {np.shape(value)} but axis {axis} of weight has {channels} output channels; {remedy}")


def _parameter(name: str, value: Any, channels: int, axis: int) -> NDArray[np.float64] | None:
    if value is not None:
        _check_length(name, value, channels, axis)
    return vector(name, value, channels, axis)


def _statistic(name: str, value: Any, channels: int, axis: int) -> NDArray[np.float64]:
    found = _parameter(name, value, channels, axis)
    if found is None:
        raise TypeError(f"{name} is None but must be an array of shape ({channels},); pass running or population statistics")
    return found
