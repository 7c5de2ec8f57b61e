"""scikit-learn's scalers: swap the import, keep the code."""

from fastnorm.preprocessing.functions import maxabs_scale, minmax_scale, normalize, scale
from fastnorm.preprocessing.maxabs import MaxAbsScaler
from fastnorm.preprocessing.minmax import MinMaxScaler
from fastnorm.preprocessing.normalizer import Normalizer
from fastnorm.preprocessing.standard import StandardScaler

__all__ = ["MaxAbsScaler", "MinMaxScaler", "Normalizer", "StandardScaler", "maxabs_scale", "minmax_scale", "normalize", "scale"]
