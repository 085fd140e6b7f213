"""The table of results that a run prints at its end."""

import math
from collections.abc import Mapping

from src.metrics import LOWER_IS_BETTER, UNRANKED
from src.tasks.base import Metrics

# Literature computes FID and KID with features of Inception v3, here they are those of a reference classifier.
HEADINGS = {"fid": "Fréchet distance", "kid": "kernel distance"}


def results_table(
    model: str, test: Metrics, ablations: Mapping[str, Metrics], baselines: Mapping[str, Metrics], units: Mapping[str, str]
) -> str:
    """Format the test metrics of a model, its ablations and the baselines; a star marks the best finite value of a column."""
    rows = {model: test, **{f"{model}, {name}": metrics for name, metrics in ablations.items()}}
    rows |= {name.replace("_", " "): metrics for name, metrics in baselines.items()}
    names = list(test)
    ranked = [name for name in names if name not in UNRANKED]
    finite = {name: [row[name] for row in rows.values() if math.isfinite(row[name])] for name in ranked}
    best = {name: (min if name in LOWER_IS_BETTER else max)(values) for name, values in finite.items() if values}
    headings = [HEADINGS.get(name, name.replace("_", " ")) + (f" ({units[name]})" if name in units else "") for name in names]
    body = [
        [label, *(f"{round(row[name], 4) + 0.0:.4f}{'*' if row[name] == best.get(name) else ' '}" for name in names)]
        for label, row in rows.items()
    ]
    lines = [["on the test set", *(f"{heading} " for heading in headings)], *body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]).rstrip()
        for line in lines
    )
