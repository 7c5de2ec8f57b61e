"""Statistics and scalers of Dask's arrays and data frames."""

from fastnorm.interop.dask import MinMaxScaler, StandardScaler, mean_var

__all__ = ["MinMaxScaler", "StandardScaler", "mean_var"]
