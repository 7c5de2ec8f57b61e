"""Statistics over all ranks of MPI: batch normalization, running moments, scalers."""

from fastnorm.interop.mpi import batch_norm_backward, batch_norm_train, fit, merge_moments

__all__ = ["batch_norm_backward", "batch_norm_train", "fit", "merge_moments"]
