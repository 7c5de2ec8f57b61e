"""The library for C: pointers to functions, and a header."""

from fastnorm.interop.capi import Function, functions, header, table

__all__ = ["Function", "functions", "header", "table"]
