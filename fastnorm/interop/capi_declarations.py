"""The C functions as text: one list of prototypes, from which the header and the compiled signatures are made."""

from __future__ import annotations

from typing import NamedTuple

STATUS = {
    "FASTNORM_OK": (0, "done"),
    "FASTNORM_NULL_POINTER": (1, "an argument that is needed is NULL; nothing was written"),
    "FASTNORM_BAD_SIZE": (2, "a size is negative, too large, or groups does not divide channel; nothing was written"),
    "FASTNORM_BAD_EPS": (3, "eps is negative, infinite or NaN; nothing was written"),
    "FASTNORM_OUT_OF_MEMORY": (4, "no memory for statistics or tiles; results are incomplete"),
}
# The element type T of a function's name: what a prototype calls T.
ELEMENTS = {"f32": "float", "f64": "double"}


class Declaration(NamedTuple):
    arguments: str  # C, with T for the element type
    text: str
    optional: tuple[str, ...] = ()  # pointers that may be NULL


_SHAPE = "int64_t outer, int64_t channel, int64_t inner"

DECLARATIONS = {
    "batch_norm_train": Declaration(
        f"const T *x, const T *gamma, const T *beta, {_SHAPE}, double eps, T *y, double *mean, double *rstd, double *var",
        "Batch norm with the statistics of x. mean, rstd = 1 / sqrt(var + eps), var (population): (channel).",
        ("gamma", "beta", "mean", "rstd", "var"),
    ),
    "batch_norm": Declaration(
        f"const T *x, const double *mean, const double *var, const T *gamma, const T *beta, {_SHAPE}, double eps, T *y",
        "Batch norm with given statistics: inference.",
        ("gamma", "beta"),
    ),
    "batch_norm_backward": Declaration(
        f"const T *dy, const T *x, const double *mean, const double *rstd, const T *gamma, {_SHAPE}, int32_t training, "
        "T *dx, double *dgamma, double *dbeta",
        "Gradients of both; training = 0: statistics are constants. dgamma, dbeta: (channel).",
        ("gamma", "dgamma", "dbeta"),
    ),
    "layer_norm": Declaration(
        "const T *x, const T *gamma, const T *beta, int64_t rows, int64_t n, double eps, T *y, double *mean, double *rstd",
        "Layer norm of rows of n elements. gamma, beta: (n). mean, rstd: (rows).",
        ("gamma", "beta", "mean", "rstd"),
    ),
    "layer_norm_backward": Declaration(
        "const T *dy, const T *x, const double *mean, const double *rstd, const T *gamma, int64_t rows, int64_t n, "
        "T *dx, double *dgamma, double *dbeta",
        "Gradients of layer norm. dgamma, dbeta: (n).",
        ("gamma", "dgamma", "dbeta"),
    ),
    "rms_norm": Declaration(
        "const T *x, const T *gamma, int64_t rows, int64_t n, double eps, T *y, double *rstd",
        "RMS norm of rows of n elements. gamma: (n). rstd: (rows).",
        ("gamma", "rstd"),
    ),
    "rms_norm_backward": Declaration(
        "const T *dy, const T *x, const double *rstd, const T *gamma, int64_t rows, int64_t n, T *dx, double *dgamma",
        "Gradients of RMS norm. dgamma: (n).",
        ("gamma", "dgamma"),
    ),
    "group_norm": Declaration(
        f"const T *x, const T *gamma, const T *beta, int64_t batch, {_SHAPE}, int64_t groups, double eps, T *y, double *mean, double *rstd",
        "Group norm: statistics of every sample and of channel / groups neighbouring channels. mean, rstd: (batch, groups).",
        ("gamma", "beta", "mean", "rstd"),
    ),
    "group_norm_backward": Declaration(
        f"const T *dy, const T *x, const double *mean, const double *rstd, const T *gamma, int64_t batch, {_SHAPE}, int64_t groups, "
        "T *dx, double *dgamma, double *dbeta",
        "Gradients of group norm. dgamma, dbeta: (channel).",
        ("gamma", "dgamma", "dbeta"),
    ),
    "moments": Declaration(
        f"const T *x, {_SHAPE}, double *mean, double *var",
        "Mean and population variance of every channel: (channel).",
        ("var",),
    ),
}

# In the form of SciPy's LowLevelCallable for scipy.ndimage.generic_filter; returns 1, or 0 where it failed.
FILTER = Declaration(
    "T *window, int64_t size, double *result, void *data",
    "Population variance of a window: a callback for scipy.ndimage.generic_filter. Returns 1; 0 if it cannot.",
    ("data",),
)

NAMES = (*(f"{name}_{kind}" for name in DECLARATIONS for kind in ELEMENTS), "filter_variance_f64")


def declaration_of(name: str) -> tuple[str, str, Declaration]:
    """Function, element type of C, and declaration of a name such as "layer_norm_f32". Raises KeyError."""
    if name not in NAMES:
        raise KeyError(f"no C function is called {name!r}; fastnorm.capi.functions has {', '.join(NAMES)}")
    function, _, kind = name.rpartition("_")
    return function, ELEMENTS[kind], DECLARATIONS.get(function, FILTER)


def parameters_of(name: str) -> list[tuple[str, str]]:
    """Type, without const, and name of every argument; a pointer's type ends with a star."""
    _, element, declared = declaration_of(name)
    found = []
    for argument in declared.arguments.split(", "):
        kind, _, label = argument.removeprefix("const ").rpartition(" ")
        kind = kind.replace("T", element) if kind == "T" else kind
        found.append((kind + " *", label[1:]) if label.startswith("*") else (kind, label))
    return found


def prototype_of(name: str, declarator: str | None = None) -> str:
    _, element, declared = declaration_of(name)
    arguments = ", ".join(
        f"{element} {a[2:]}" if a.startswith("T ") else a.replace("const T ", f"const {element} ") for a in declared.arguments.split(", ")
    )
    result = "int" if declared is FILTER else "int32_t"
    return f"{result} {declarator or name}({arguments})"


_HEAD = """/* fastnorm: normalization on CPUs. Made by fastnorm.capi.header(); the pointers come from fastnorm.capi.

   Arrays are contiguous. Element (b, o, c, i) lies at ((b * outer + o) * channel + c) * inner + i, without b where there is no batch:
     (N, C, H, W)          outer = N,         channel = C, inner = H * W    (group norm: batch = N, outer = 1)
     (N, H, W, C), (N, C)  outer = N * H * W, channel = C, inner = 1        (group norm: batch = N, outer = H * W)
   One statistic for every channel (group norm: for every sample and group); gamma and beta have one value per channel.
   y may be x, dx may be dy or x; apart from that, no two arrays overlap. Every function runs on the calling thread alone,
   needs no interpreter lock, and returns a status. The pointers live as long as the Python process. */
#ifndef FASTNORM_H
#define FASTNORM_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum fastnorm_status {
"""
_TAIL = """
#ifdef __cplusplus
}
#endif
#endif
"""


def header() -> str:
    lines = [f"  {name} = {value}, /* {text} */" for name, (value, text) in STATUS.items()]
    parts = [_HEAD + "\n".join(lines) + "\n};\n"]
    for name in NAMES:
        _, _, declared = declaration_of(name)
        absent = f" May be NULL: {', '.join(declared.optional)}." if declared.optional else ""
        parts.append(f"/* {declared.text}{absent} */\ntypedef {prototype_of(name, f'(*{name}_fn)')};\n")
    members = "\n".join(f"  {name}_fn {name};" for name in NAMES)
    parts.append(f"/* As fastnorm.capi.table() fills it. */\ntypedef struct {{\n{members}\n}} fastnorm_functions;\n")
    return "\n".join(parts) + _TAIL
