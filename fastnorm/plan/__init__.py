"""Which elements belong together: integers only, no Numba."""
