"""scikit-learn where it is installed (1.6 or later), our stand-ins where it is not: nothing else asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastnorm.preprocessing.standin import (
        BaseEstimator,
        NotFittedError,
        OneToOneFeatureMixin,
        TransformerMixin,
        check_array,
        check_is_fitted,
        validate_data,
    )
else:
    try:
        from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_array, check_is_fitted, validate_data
    except ImportError:
        from fastnorm.preprocessing.standin import (
            BaseEstimator,
            NotFittedError,
            OneToOneFeatureMixin,
            TransformerMixin,
            check_array,
            check_is_fitted,
            validate_data,
        )

__all__ = [
    "BaseEstimator",
    "NotFittedError",
    "OneToOneFeatureMixin",
    "TransformerMixin",
    "check_array",
    "check_is_fitted",
    "validate_data",
]
