"""The table of results that a run prints at its end."""

import math
from collections.abc import Mapping

from src import tables
from src.metrics import FEATURE_DISTANCES, FEATURES, is_ranked, lower_is_better
from src.tasks.base import Metrics


def results_table(
    model: str, test: Metrics, ablations: Mapping[str, Metrics], baselines: Mapping[str, Metrics], units: Mapping[str, str]
) -> str:
    """Format the test metrics of a model, its ablations and the baselines; a star marks the best finite value of a column."""
    rows = {model: test, **{f"{model}, {name}": metrics for name, metrics in ablations.items()}}
    rows |= {name.replace("_", " "): metrics for name, metrics in baselines.items()}
    names = list(test)
    ranked = [name for name in names if is_ranked(name)]
    finite = {name: [row[name] for row in rows.values() if math.isfinite(row[name])] for name in ranked}
    best = {name: (min if lower_is_better(name) else max)(values) for name, values in finite.items() if values}
    titles = [FEATURE_DISTANCES.get(name, name.replace("_", " ")) for name in names]
    headings = [f"{title} ({units[name]}) " if name in units else f"{title} " for name, title in zip(names, titles)]
    body = [
        [label, *(f"{round(row[name], 4) + 0.0:.4f}{'*' if row[name] == best.get(name) else ' '}" for name in names)]
        for label, row in rows.items()
    ]
    table = tables.text(["on the test set", *headings], body)
    return table if FEATURE_DISTANCES.keys().isdisjoint(names) else f"{table}\n(distances between {FEATURES})"
