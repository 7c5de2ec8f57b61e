"""What training gave, and what is read from it. No library but NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.training.settings import TARGET, Plan, Setting


class Trial(NamedTuple):
    """One setting with one seed.

    loss     : mean over the epoch's batches, for every epoch
    accuracy : of the test half after every epoch, with running statistics
    exact    : the same at the end, with exact population statistics
    finished : False if the loss overflowed; the epochs after that are missing
    """

    loss: list[float]
    accuracy: list[float]
    exact: float
    finished: bool

    @property
    def epochs_to_target(self) -> float:
        """Infinite if never."""
        return next((at + 1 for at, found in enumerate(self.accuracy) if found >= TARGET), np.inf)


class Results(NamedTuple):
    plan: Plan
    trials: dict[Setting, list[Trial]]  # in the order of the seeds

    @property
    def n_seeds(self) -> int:
        return len(next(iter(self.trials.values())))

    def final(self, setting: Setting) -> np.ndarray:
        return np.array([trial.accuracy[-1] for trial in self.trials[setting]])

    def exact(self, setting: Setting) -> np.ndarray:
        return np.array([trial.exact for trial in self.trials[setting]])

    def loss(self, setting: Setting) -> np.ndarray:
        return np.array([trial.loss[-1] for trial in self.trials[setting]])

    def epochs(self, setting: Setting) -> np.ndarray:
        return np.array([trial.epochs_to_target for trial in self.trials[setting]])

    def overflows(self, setting: Setting) -> int:
        return sum(not trial.finished for trial in self.trials[setting])

    def curve(self, setting: Setting, name: str) -> np.ndarray:
        """(seeds, epochs) of "loss" or "accuracy"; after an overflow the loss is NaN, the accuracy stays."""
        whole = np.full((self.n_seeds, setting.epochs), np.nan)
        for row, trial in zip(whole, self.trials[setting], strict=True):
            values = getattr(trial, name)
            row[: len(values)] = values
            if name == "accuracy":
                row[len(values) :] = values[-1]
        return whole
