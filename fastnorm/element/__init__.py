"""Formulas for one element or one statistic: no loops, no arrays made."""
