"""Activations of one element, and of a run."""

from __future__ import annotations

from typing import Any

from numba.core import errors, types
from numba.extending import overload

from fastnorm._jit import exported, exported_element, variant
from fastnorm.element.activation import activate as activation_of
from fastnorm.element.bits import wide_vectors
from fastnorm.interop.jit_operands import takes
from fastnorm.interop.jit_runs import apply_to_run
from fastnorm.kernels.operands import ACTIVATIONS

RELU, LEAKY_RELU, SILU, GELU, GELU_TANH = (ACTIVATIONS[name] for name in ("relu", "leaky_relu", "silu", "gelu", "gelu_tanh"))


@exported
def activate_run(run, out, activation):
    wide_vectors()
    run = takes(run, out, None, None)
    apply_to_run(run, None, out, None, None, 1.0, None, None, activation)


@variant
def real(z: Any) -> Any:
    """A float32 or float64 as it is, an integer as float64. Constants of a formula take the type of its number."""
    if isinstance(z, types.Integer | types.Boolean):
        return lambda z: z * 1.0
    if z not in (types.float32, types.float64):
        raise errors.TypingError(f"z is {z}; pass float32 or float64")
    return lambda z: z


@exported_element
def relu(z):
    """``max(z, 0)`` of one element, float32 or float64.

    >>> import fastnorm as fn
    >>> fn.jit.relu(-2.0)
    0.0
    """
    return activation_of(RELU, real(z))


@exported_element
def leaky_relu(z):
    """z, or ``0.01 * z`` where z is negative, of one element, float32 or float64.

    >>> import fastnorm as fn
    >>> fn.jit.leaky_relu(-2.0)
    -0.02
    """
    return activation_of(LEAKY_RELU, real(z))


@exported_element
def silu(z):
    """``z * sigmoid(z)`` of one element, float32 or float64. Source: Hendrycks, Gimpel 2016; Ramachandran et al. 2017

    >>> import fastnorm as fn
    >>> fn.jit.silu(0.0)
    0.0
    """
    return activation_of(SILU, real(z))


@exported_element
def gelu(z):
    """``z * Phi(z)``, exact, of one element, float32 or float64. Source: Hendrycks, Gimpel 2016

    >>> import fastnorm as fn
    >>> fn.jit.gelu(0.0)
    0.0
    """
    return activation_of(GELU, real(z))


@exported_element
def gelu_tanh(z):
    """GELU by tanh, of one element, float32 or float64. Source: Hendrycks, Gimpel 2016

    >>> import fastnorm as fn
    >>> fn.jit.gelu_tanh(0.0)
    0.0
    """
    return activation_of(GELU_TANH, real(z))


def activate(run: Any, out: Any, activation: str) -> None:
    """Write the activation of every element of a run.

    Parameters
    ----------
    run, out : contiguous float32 or float64 arrays of one length
        `out` may be `run`.
    activation : {"relu", "leaky_relu", "silu", "gelu", "gelu_tanh"}
        In compiled code a constant.

    Raises
    ------
    ValueError
        From Python, of another name; compiled code does not compile then.

    Examples
    --------
    >>> import numpy as np, fastnorm as fn
    >>> y = np.array([-1.0, 3.0])
    >>> fn.jit.activate(y, y, "relu")
    >>> y
    array([0., 3.])
    """
    if activation not in ACTIVATIONS or activation is None:
        raise ValueError(f"activation is {activation!r}; pass one of {_names()}")
    activate_run(run, out, ACTIVATIONS[activation])


def _names() -> str:
    return ", ".join(repr(name) for name in ACTIVATIONS if name)


def tag_of(activation: Any) -> Any:
    """Of a type of None or of a literal. Raises TypingError."""
    if isinstance(activation, types.Omitted):
        activation = types.none if activation.value is None else types.literal(activation.value)
    if activation is types.none or activation is None:
        return None
    if not isinstance(activation, types.StringLiteral) or activation.literal_value not in ACTIVATIONS:
        raise errors.TypingError(f"activation is {activation}; pass one of the constants {_names()}")
    return ACTIVATIONS[activation.literal_value]


@overload(activate, strict=False)
def _activate(run: Any, out: Any, activation: Any) -> Any:
    tag = tag_of(activation)
    return lambda run, out, activation: activate_run(run, out, tag)
