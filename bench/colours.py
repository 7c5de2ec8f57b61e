"""How a library looks, the same in every picture."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.providers import OURS


class Look(NamedTuple):
    colour: str
    marker: str
    dashes: str  # Matplotlib's line style
    width: float = 1.1

    def line(self) -> dict[str, Any]:
        """For `Axes.plot`."""
        first = self.width > 2
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dashes,
            "linewidth": self.width,
            "markersize": 4.5 if first else 3.5,
            "zorder": 3 if first else 2,
        }


LOOKS = {
    "fastnorm": Look("#000000", "o", "-", 2.2),
    "fastnorm-f32": Look("#7f7f7f", "o", "--"),
    "fastnorm-alone": Look("#b0b0b0", "o", ":"),
    "numpy": Look("#1f77b4", "s", "-"),
    "scipy": Look("#6baed6", "s", "--"),
    "sklearn": Look("#ff7f0e", "D", "-"),
    "bottleneck": Look("#8c564b", "P", "-"),
    "numbagg": Look("#bcbd22", "X", "-"),
    "torch": Look("#d62728", "^", "-"),
    "torch-out": Look("#ff9896", "v", "-"),
    "torch-compile": Look("#8b0000", "<", "--"),
    "onednn": Look("#2ca02c", "*", "-"),
    "jax": Look("#9467bd", "d", "-"),
    "onnxruntime": Look("#17becf", "h", "-"),
    "openvino": Look("#e377c2", ">", "-"),
}

ORDER = {name: place for place, name in enumerate((OURS, *(name for name in LOOKS if name != OURS)))}
