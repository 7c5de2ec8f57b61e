"""What the papers claim, put to the test on our numbers, seed by seed.

A claim holds if it is true for every seed: weights, split and order of samples are the same for all norms of one seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.training.results import Results
from bench.training.settings import HIGH, LOW, MLP_NORMS, TARGET

IOFFE_SZEGEDY, IOFFE, WU_HE = "Ioffe, Szegedy 2015", "Ioffe 2017", "Wu, He 2018"
COMPARISON = "no paper"
POINT = 0.01
"""Accuracy that one may lose and still keep what one has: ten of 899 test samples."""


class Claim(NamedTuple):
    source: str
    statement: str
    measured: str
    true: np.ndarray  # for every seed

    @property
    def verdict(self) -> str:
        if self.true.all():
            return "holds"
        return "mostly" if 2 * self.true.sum() > len(self.true) else "not seen"


def percent(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} %"


def count(values: np.ndarray) -> str:
    """The median; seeds that never arrive count as infinity."""
    middle = float(np.median(values))
    return f"{middle:g}" if np.isfinite(middle) else "never"


def _listed(values: dict[str, np.ndarray], shown: Callable[[np.ndarray], str]) -> str:
    return ", ".join(f"{name} {shown(found)}" for name, found in values.items())


def _faster_at_same_rate(results: Results) -> Claim:
    epochs = {norm: results.epochs(results.plan.mlp(norm, LOW)) for norm in MLP_NORMS}
    measured = f"epochs at rate {LOW:g}: " + _listed(epochs, count)
    statement = f"MLP: batch norm reaches {TARGET:.0%} in fewer epochs at the same low rate"
    return Claim(IOFFE_SZEGEDY, statement, measured, epochs["before"] < epochs["none"])


def _faster_at_own_rate(results: Results) -> Claim:
    plan = results.plan
    best = {norm: np.min([results.epochs(plan.mlp(norm, rate)) for rate in plan.rates], axis=0) for norm in MLP_NORMS}
    measured = "epochs at the best rate: " + _listed(best, count)
    statement = f"MLP: batch norm reaches {TARGET:.0%} in fewer epochs, each at its fastest rate"
    return Claim(IOFFE_SZEGEDY, statement, measured, best["before"] < best["none"])


def _higher_rates(results: Results) -> Claim:
    plan = results.plan
    usable = {}
    for norm in MLP_NORMS:
        trained = [np.where(results.final(plan.mlp(norm, rate)) >= TARGET, rate, 0) for rate in plan.rates]
        usable[norm] = np.max(trained, axis=0)
    measured = "largest rate: " + _listed(usable, count)
    return Claim(IOFFE_SZEGEDY, f"MLP: batch norm ends above {TARGET:.0%} at higher rates", measured, usable["before"] > usable["none"])


def _initialization(results: Results, rate: float) -> Claim:
    plan = results.plan
    trained = {norm: np.sum([results.final(plan.mlp(norm, rate, scale)) >= TARGET for scale in plan.scales], axis=0) for norm in MLP_NORMS}
    worst = {norm: np.min([results.final(plan.mlp(norm, rate, scale)) for scale in plan.scales], axis=0) for norm in MLP_NORMS}
    measured = f"of {len(plan.scales)}: {_listed(trained, count)}; worst: {_listed(worst, percent)}"
    statement = f"MLP: batch norm ends above {TARGET:.0%} for more scales of the initial weights, rate {rate:g}"
    return Claim(IOFFE_SZEGEDY, statement, measured, trained["before"] > trained["none"])


def _before_or_after(results: Results) -> Claim:
    means = {
        norm: np.mean([results.final(results.plan.mlp(norm, *sweep)) for sweep in results.plan.mlp_sweeps()], axis=0)
        for norm in ("before", "after")
    }
    measured = "mean over all rates and scales: " + _listed(means, percent)
    return Claim(IOFFE_SZEGEDY, "MLP: batch norm is better before the activation than after", measured, means["before"] > means["after"])


def _cnn(results: Results, norm: str, name: str) -> np.ndarray:
    return results.final(results.plan.cnn(norm, name))


def _title(norm: str) -> str:
    return norm if norm == "renorm" else f"{norm} norm"


def _versus(results: Results, better: str, worse: str, name: str, source: str) -> Claim:
    found = {norm: _cnn(results, norm, name) for norm in (better, worse)}
    statement = f"CNN, batch {name}: {_title(better)} beats {_title(worse)}"
    return Claim(source, statement, _listed(found, percent), found[better] > found[worse])


def _fits(results: Results) -> Claim:
    losses = {norm: results.loss(results.plan.cnn(norm, "4")) for norm in ("group", "batch", "renorm")}
    measured = "training loss: " + _listed(losses, lambda found: f"{found.mean():.3f}")
    statement = "CNN, batch 4: group norm fits the training half better than batch norm"
    return Claim(WU_HE, statement, measured, losses["group"] < losses["batch"])


def _drop(results: Results, norm: str, name: str, least: bool, source: str) -> Claim:
    """Whether accuracy falls by more (`least`) or by less than a point from batch 128."""
    found = {batch: _cnn(results, norm, batch) for batch in ("128", name)}
    lost = found["128"] - found[name]
    verb = "loses" if least else "keeps"
    statement = f"CNN, batch {name}: {_title(norm)} {verb} the accuracy it has at 128"
    measured = f"128: {percent(found['128'])}, {name}: {percent(found[name])}"
    return Claim(source, statement, measured, lost > POINT if least else lost <= POINT)


def _exact(results: Results, name: str) -> Claim:
    setting = results.plan.cnn("batch", name)
    found = {"running": results.final(setting), "exact": results.exact(setting)}
    statement = f"CNN, batch {name}: batch norm is better with exact than with running statistics"
    return Claim(COMPARISON, statement, _listed(found, percent), found["exact"] > found["running"])


def all_claims(results: Results) -> list[Claim]:
    grouped = [name for name in results.plan.batches if name not in ("128", "4")]
    claims = [_faster_at_same_rate(results), _faster_at_own_rate(results), _higher_rates(results)]
    claims += [_initialization(results, rate) for rate in (LOW, HIGH)]
    claims += [_before_or_after(results)]
    claims += [_drop(results, "batch", "4", True, WU_HE), _drop(results, "group", "4", False, WU_HE)]
    claims += [_versus(results, "group", "batch", "4", WU_HE), _fits(results), _versus(results, "renorm", "batch", "4", IOFFE)]
    for name in grouped:
        claims += [_drop(results, "batch", name, True, IOFFE), _versus(results, "renorm", "batch", name, IOFFE)]
        claims += [_drop(results, "renorm", name, False, IOFFE), _drop(results, "group", name, False, WU_HE)]
    claims += [_exact(results, name) for name in results.plan.batches]
    sources = (IOFFE_SZEGEDY, IOFFE, WU_HE, COMPARISON)
    return sorted(claims, key=lambda claim: sources.index(claim.source))
