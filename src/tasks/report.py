"""The table of results that a run prints at its end and shows in its description."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from src import tables
from src.config.tasks import TASKS
from src.metrics import (
    ABLATION,
    BASELINE,
    FEATURE_DISTANCES,
    FEATURES,
    TEST,
    format_value,
    is_ranked,
    lower_is_better,
    strongest_baseline,
)
from src.tasks.base import Metrics
from src.uncertainty import Interval

if TYPE_CHECKING:
    from src.tasks.baselines.store import BaselineResults


def named_results(
    test: Mapping[str, float] = {}, ablations: Mapping[str, Metrics] = {}, baselines: Mapping[str, Metrics] = {}
) -> dict[str, float]:
    """The test metrics of a model, its ablations and the baselines, as MLflow names them."""
    rows = {TEST: test} | {f"{ABLATION}{name}/": row for name, row in ablations.items()}
    rows |= {f"{BASELINE}{name}/": row for name, row in baselines.items()}
    return {f"{prefix}{metric}": value for prefix, row in rows.items() for metric, value in row.items()}


def headline(task: str, results: Mapping[str, float], units: Mapping[str, str]) -> str:
    """The leading metric beside the strongest baseline: "accuracy 99.62 % (logistic regression: 92.22 %)".

    Args:
        task: name of the task.
        results: as MLflow names them.
        units: {metric: unit} of the metrics that have one.
    """
    metric = TASKS[task].leading_metric

    def formatted(value: float) -> str:
        return " ".join(filter(None, [format_value(value, metric), units.get(metric)]))

    baseline = strongest_baseline(results, metric)
    beside = f" ({baseline[0]}: {formatted(baseline[1])})" if baseline else ""
    return f"{FEATURE_DISTANCES.get(metric, metric.replace('_', ' '))} {formatted(results[f'{TEST}{metric}'])}{beside}"


def strongest(task: str, results: Mapping[str, float], units: Mapping[str, str]) -> str:
    """The strongest baseline by the leading metric: "logistic regression: accuracy 92.22 %". The arguments are those above."""
    metric = TASKS[task].leading_metric
    best = strongest_baseline(results, metric)
    if best is None:
        return "none could be computed"
    value = " ".join(filter(None, [format_value(best[1], metric), units.get(metric)]))
    return f"{best[0]}: {FEATURE_DISTANCES.get(metric, metric.replace('_', ' '))} {value}"


def baselines_table(computed: "BaselineResults", units: Mapping[str, str]) -> str:
    """Format the test metrics of baselines, the seconds that they took, and how they were fitted."""
    heading, *rows = _baseline_cells(computed, units)
    cells = [[row[0], *(cell if cell.endswith("*") else f"{cell} " for cell in row[1:-1]), row[-1]] for row in rows]
    return tables.text([heading[0], *(f"{cell} " for cell in heading[1:-1]), heading[-1]], cells, left=(0, len(heading) - 1))


def baselines_markdown(computed: "BaselineResults", units: Mapping[str, str]) -> str:
    """The table of `baselines_table` in Markdown; the best value of each column is bold."""
    heading, *rows = _baseline_cells(computed, units)
    body = [[row[0], *(f"**{cell[:-1]}**" if cell.endswith("*") else cell for cell in row[1:])] for row in rows]
    return tables.markdown(heading, body, left=(0, len(heading) - 1))


def _baseline_cells(computed: "BaselineResults", units: Mapping[str, str]) -> list[list[str]]:
    """The heading and a row for each baseline; a star follows the best value of each column."""
    if not computed.results:
        return [["on the test set", "seconds", ""]]
    (first, metrics), *others = computed.metrics.items()
    heading, *rows = _cells(first.replace("_", " "), metrics, {}, dict(others), units)
    ends = ([f"{result.seconds:.1f}", result.note] for result in computed.results.values())
    return [[*heading, "seconds", "fitted with"], *([*row, *end] for row, end in zip(rows, ends))]


def interval_sentence(metric: str, interval: Interval, units: Mapping[str, str]) -> str:
    """The confidence interval of a metric: "95 % confidence interval of accuracy on another test set …: 99.48 % to 99.73 %".

    Args:
        metric: without a prefix.
        interval: of the metric.
        units: {metric: unit} of the metrics that have one.
    """
    low, high = (format_value(bound, metric) for bound in (interval.low, interval.high))
    method = " ".join(filter(None, ["bootstrap", interval.basis]))
    values = " ".join(filter(None, [f"{low} to {high}", units.get(metric)]))
    return f"95 % confidence interval of {metric.replace('_', ' ')} for test sets like this one: {values} ({method})."


def results_table(
    model: str, test: Metrics, ablations: Mapping[str, Metrics], baselines: Mapping[str, Metrics], units: Mapping[str, str]
) -> str:
    """Format the test metrics of a model, its ablations and the baselines; a star marks the best finite value of a column."""
    heading, *rows = _cells(model, test, ablations, baselines, units)
    cells = [[row[0], *(cell if cell.endswith("*") else f"{cell} " for cell in row[1:])] for row in rows]
    table = tables.text([heading[0], *(f"{cell} " for cell in heading[1:])], cells)
    return table if FEATURE_DISTANCES.keys().isdisjoint(test) else f"{table}\n(distances between {FEATURES})"


def results_markdown(
    model: str, test: Metrics, ablations: Mapping[str, Metrics], baselines: Mapping[str, Metrics], units: Mapping[str, str]
) -> str:
    """The table of `results_table` in Markdown; the best value of each column is bold."""
    heading, *rows = _cells(model, test, ablations, baselines, units)
    body = [[row[0], *(f"**{cell[:-1]}**" if cell.endswith("*") else cell for cell in row[1:])] for row in rows]
    return tables.markdown(heading, body)


def _cells(
    model: str, test: Metrics, ablations: Mapping[str, Metrics], baselines: Mapping[str, Metrics], units: Mapping[str, str]
) -> list[list[str]]:
    """The heading and a row for each method; a star follows the best value of each column."""
    rows = {model: test, **{f"{model}, {name}": metrics for name, metrics in ablations.items()}}
    rows |= {name.replace("_", " "): metrics for name, metrics in baselines.items()}
    names = list(test)
    ranked = [name for name in names if is_ranked(name)]
    finite = {name: [row[name] for row in rows.values() if math.isfinite(row[name])] for name in ranked}
    best = {name: (min if lower_is_better(name) else max)(values) for name, values in finite.items() if values}
    titles = [FEATURE_DISTANCES.get(name, name.replace("_", " ")) for name in names]
    headings = [f"{title} ({units[name]})" if name in units else title for name, title in zip(names, titles)]
    body = [
        [label, *(f"{round(row[name], 4) + 0.0:.4f}{'*' if row[name] == best.get(name) else ''}" for name in names)]
        for label, row in rows.items()
    ]
    return [["on the test set", *headings], *body]
