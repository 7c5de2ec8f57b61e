"""Tables for people."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.training.claims import all_claims, count
from bench.training.results import Results
from bench.training.settings import CNN_NORMS, MLP_NORMS, TARGET, Setting

_STYLES = {"holds": "green", "mostly": "yellow", "not seen": "red"}


def _spread(values: np.ndarray, unit: float, digits: int) -> str:
    """Mean and standard deviation over the seeds."""
    text = f"{unit * values.mean():.{digits}f}"
    return text + f" ± {unit * values.std(ddof=1):.{digits}f}" if len(values) > 1 else text


def _accuracy(results: Results, setting: Setting) -> Text:
    found = results.final(setting)
    overflows = results.overflows(setting)
    note = f" ({overflows}/{results.n_seeds} overflow)" if overflows else ""
    return Text(_spread(found, 100, 1) + note, style="" if found.mean() >= TARGET else "red")


def mlp_table(results: Results) -> Table:
    title = f"multilayer perceptron, {results.n_seeds} seeds: final test accuracy in %, mean ± standard deviation; epochs to {TARGET:.0%}"
    table = Table(title=title, title_justify="left")
    for name in ("rate", "weights x", *(f"accuracy {norm}" for norm in MLP_NORMS), *(f"epochs {norm}" for norm in MLP_NORMS)):
        table.add_column(name, justify="right", no_wrap=True)
    for rate, scale in results.plan.mlp_sweeps():
        settings = [results.plan.mlp(norm, rate, scale) for norm in MLP_NORMS]
        accuracies = [_accuracy(results, setting) for setting in settings]
        table.add_row(f"{rate:g}", f"{scale:g}", *accuracies, *(count(results.epochs(setting)) for setting in settings))
    return table


def cnn_table(results: Results) -> Table:
    title = "convolutional network: final training loss and test accuracy in %,\nwith running and with exact population statistics"
    table = Table(title=title, title_justify="left")
    for name in ("batch", "norm"):
        table.add_column(name, no_wrap=True)
    for name in ("training loss", "accuracy, running", "accuracy, exact"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in results.plan.batches:
        for at, norm in enumerate(CNN_NORMS):
            setting = results.plan.cnn(norm, name)
            exact = _spread(results.exact(setting), 100, 1) if norm in ("batch", "renorm") else ""
            table.add_row("" if at else name, norm, _spread(results.loss(setting), 1, 3), _accuracy(results, setting), exact)
        table.add_section()
    return table


def claims_table(results: Results) -> Table:
    table = Table(title="claims of the papers, and the two kinds of statistics; a claim holds if every seed agrees", title_justify="left")
    table.add_column("source", no_wrap=True)
    table.add_column("claim", overflow="fold")
    table.add_column("measured", overflow="fold")
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    source = None
    for claim in all_claims(results):
        agree = f"{claim.true.sum()}/{len(claim.true)}"
        named, source = "" if claim.source == source else claim.source, claim.source
        table.add_row(named, claim.statement, claim.measured, agree, Text(claim.verdict, style=_STYLES[claim.verdict]))
    return table


def show(results: Results, console: Console) -> None:
    for table in (mlp_table(results), cnn_table(results), claims_table(results)):
        console.print(table)
