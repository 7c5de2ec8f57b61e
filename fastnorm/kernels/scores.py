"""From statistics to what standard scores are made with."""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver
from fastnorm.element.bits import wide_vectors
from fastnorm.element.moments import may_be_constant, score_factor
from fastnorm.element.storage import at, row, write
from fastnorm.kernels.moments import MEAN, RSTD, VARIANCE


@chunk_body
def factors_of(stats, count, free, eps, limit):
    wide_vectors()
    means, variances, factors = row(stats, MEAN), row(stats, VARIANCE), row(stats, RSTD)
    suspects = 0
    for k in range(means.size):
        mean, var = at(means, k), at(variances, k)
        suspects += may_be_constant(mean, var, limit)
        write(factors, k, score_factor(mean, var, count, free, eps))
    return suspects


@driver
def score_factors(stats, count, free, eps, limit):
    """Fill the last row of statistics (4, n); returns how many slices may be constant."""
    return factors_of(stats, count, free, eps, limit)
