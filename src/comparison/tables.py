"""How leaderboards are written: for the terminal, as Markdown or CSV."""

import csv
import io
import math
from collections.abc import Sequence

from src import metrics
from src.comparison.groups import Board, Group

COSTS = {  # columns of what a result costs: metric in MLflow, how it is written
    "parameters": ("parameters", "{:,.0f}"),
    "MACs": ("macs", "{:,.0f}"),
    "seconds": ("seconds", "{:,.0f}"),
    "joules": ("joules", "{:,.0f}"),
    "examples/s": ("examples_per_second", "{:,.0f}"),
}


def spread(group: Group, metric: str) -> str:
    """Mean ± standard deviation over the seeds."""
    mean, deviation = group.mean(metric), group.deviation(metric)
    if math.isnan(deviation):
        return metrics.format_value(mean, metric)
    if metrics.is_percentage(metric):
        return f"{100 * mean:.2f} ± {100 * deviation:.2f} %"
    return f"{metrics.format_value(mean, metric)} ± {deviation:,.{metrics.decimals(mean)}f}"


def rows(board: Board) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a board; columns of costs that no run has are left out."""
    costs = {head: how for head, how in COSTS.items() if any(len(group.values(how[0])) for group in board.groups)}
    head = ["recipe", board.metric, "seeds", "without deep learning", *costs]
    body = []
    for group in board.groups:
        baseline = group.baseline(board.metric)
        body.append([
            group.title,
            spread(group, board.metric),
            str(len(group.values(board.metric))),
            f"{metrics.format_value(baseline[1], board.metric)} ({baseline[0]})" if baseline else "–",
            *("–" if math.isnan(group.mean(name)) else form.format(group.mean(name)) for name, form in costs.values()),
        ])  # fmt: skip
    return head, body


def title(board: Board) -> str:
    """What a board shows."""
    better = "lower" if metrics.lower_is_better(board.metric) else "higher"
    return f"{board.dataset}, {board.task}: {board.metric}, {better} is better"


def text(boards: Sequence[Board]) -> str:
    """For a terminal."""
    parts = []
    for board in boards:
        head, body = rows(board)
        widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
            for row in [head, *body]
        ]
        parts.append("\n".join([title(board), "", *lines]))
    return "\n\n\n".join(parts)


def markdown(boards: Sequence[Board]) -> str:
    """Tables."""
    parts = []
    for board in boards:
        head, body = rows(board)
        lines = [f"| {' | '.join(row)} |" for row in [head, ["---", *["---:"] * (len(head) - 1)], *body]]
        parts.append("\n".join([f"{title(board)}:", "", *lines]))
    return "\n\n".join(parts) + "\n"


def comma_separated(boards: Sequence[Board]) -> str:
    """A line for each group, numbers as they are."""
    costs = [name for name, _ in COSTS.values()]
    head = ["dataset", "task", "recipe", "name", "differences", "metric", "mean", "standard_deviation", "seeds", "baseline"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*head, "baseline_name", *costs, "run_ids"])
    for board in boards:
        for group in board.groups:
            name, reached = group.baseline(board.metric) or ("", math.nan)
            particular = " ".join(f"{key}={value}" for key, value in group.differences.items())
            measured = [group.mean(board.metric), group.deviation(board.metric), len(group.values(board.metric)), reached]
            found = [group.mean(cost) for cost in costs]
            ids = " ".join(run.run_id for run in group.runs)
            row = [board.dataset, board.task, group.recipe, group.name, particular, board.metric, *measured, name, *found, ids]
            writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    return file.getvalue()
