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

    def assumes_finite() -> bool:
        """Whether users have said to scikit-learn that there is no NaN and no infinity to look for."""

else:
    try:
        from sklearn import get_config
        from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_array, check_is_fitted, validate_data

        def assumes_finite() -> bool:
            return bool(get_config()["assume_finite"])

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

        def assumes_finite() -> bool:
            return False


__all__ = [
    "BaseEstimator",
    "NotFittedError",
    "OneToOneFeatureMixin",
    "TransformerMixin",
    "assumes_finite",
    "check_array",
    "check_is_fitted",
    "validate_data",
]
