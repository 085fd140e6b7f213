"""Formats leaderboards for the terminal, as Markdown, LaTeX or CSV."""

import csv
import io
import math
from collections.abc import Sequence

from src import metrics, tables
from src.comparison.groups import Group, Leaderboard

COSTS = {  # {heading: metric} of what a result costs
    "parameters": "parameters",
    "MACs": "macs",
    "seconds": "seconds",
    "joules": "joules",
    "examples/s": "examples_per_second",
}

P_VALUE = "p against the best (Holm)"  # heading of the p-values of paired tests


def mean_and_sd(group: Group, metric: str) -> str:
    """Mean ± standard deviation over the seeds; the mean alone of a single one."""
    mean, deviation = group.mean(metric), group.standard_deviation(metric)
    if math.isnan(deviation):
        return metrics.format_value(mean, metric)
    if metrics.is_percentage(metric):
        return f"{100 * mean:.2f} ± {100 * deviation:.2f} %"
    return f"{metrics.format_value(mean, metric)} ± {deviation:,.{metrics.decimals(mean)}f}"


def heading_and_rows(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """The cells of a leaderboard, without the costs that no run has."""
    costs = {heading: cost for heading, cost in COSTS.items() if any(len(group.values(cost)) for group in board.groups)}
    tested = [P_VALUE] if board.p_values else []
    heading = ["recipe", board.metric, "seeds", "baseline", *tested, *costs]
    rows = []
    for group in board.groups:
        baseline = group.baseline(board.metric)
        rows.append([
            group.title,
            mean_and_sd(group, board.metric),
            str(len(group.values(board.metric))),
            f"{metrics.format_value(baseline[1], board.metric)} ({baseline[0]})" if baseline else "–",
            *[f"{board.p_values[group.title]:.2g}" if group.title in board.p_values else "–" for _ in tested],
            *("–" if math.isnan(group.mean(cost)) else f"{group.mean(cost):,.0f}" for cost in costs.values()),
        ])  # fmt: skip
    return heading, rows


def title(board: Leaderboard) -> str:
    """The data set, the task and the metric of a leaderboard."""
    better = "lower" if metrics.lower_is_better(board.metric) else "higher"
    measured = ", ".join(filter(None, [metrics.describe(board.metric), board.conditions]))
    measured += f" ({board.difference})" if board.difference else ""
    return f"{board.dataset}, {board.task}: {measured}, {better} is better"


def text(boards: Sequence[Leaderboard]) -> str:
    """Leaderboards for the terminal."""
    return "\n\n\n".join(f"{title(board)}\n\n{tables.text(*heading_and_rows(board))}" for board in boards)


def markdown(boards: Sequence[Leaderboard]) -> str:
    """Leaderboards as Markdown tables."""
    return "\n".join(f"{title(board)}:\n\n{tables.markdown(*heading_and_rows(board))}\n" for board in boards)


def latex(boards: Sequence[Leaderboard]) -> str:
    """Leaderboards as LaTeX tables; they need the package booktabs."""
    sections = []
    for board in boards:
        heading, rows = heading_and_rows(board)
        sections.append(f"% {title(board)}\n{tables.latex(heading, rows)}\n")
    return "\n".join(sections)


def csv_text(boards: Sequence[Leaderboard]) -> str:
    """Leaderboards as CSV: a line for each group, numbers unrounded."""
    heading = ["dataset", "task", "recipe", "name", "differences", "metric", "mean", "standard_deviation", "seeds", "baseline"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*heading, "baseline_name", "p_value", *COSTS.values(), "run_ids"])
    for board in boards:
        metric = board.metric
        for group in board.groups:
            baseline_name, baseline = group.baseline(metric) or ("", math.nan)
            row = [
                board.dataset, board.task, group.recipe, group.name,
                " ".join(f"{key}={value}" for key, value in group.differences.items()),
                metric, group.mean(metric), group.standard_deviation(metric), len(group.values(metric)),
                baseline, baseline_name, board.p_values.get(group.title, math.nan),
                *(group.mean(cost) for cost in COSTS.values()),
                " ".join(run.run_id for run in group.runs),
            ]  # fmt: skip
            writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    return file.getvalue()
