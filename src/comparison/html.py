"""Leaderboards as an HTML page, with learning curves."""

import io
import math
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from src.comparison.formats import heading_and_rows, title
from src.comparison.groups import Group, Leaderboard
from src.metrics import VALIDATION
from src.tracking.run_summaries import metric_histories

MAX_CURVES = 10  # groups of a leaderboard whose learning curves are drawn
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:80em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:3px 10px;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left;white-space:normal}th{cursor:pointer}svg{max-width:100%;height:auto}"
)
SORT = """
document.querySelectorAll("th").forEach(th => th.addEventListener("click", () => {
  const body = th.closest("table").tBodies[0], column = th.cellIndex, down = th.dataset.down = th.dataset.down ? "" : "1";
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const order = (a, b) => isNaN(value(a)) || isNaN(value(b)) ? value(a).localeCompare(value(b)) : value(a) - value(b);
  [...body.rows].sort((a, b) => down ? order(b, a) : order(a, b)).forEach(row => body.append(row));
}));
"""


def page(boards: Sequence[Leaderboard]) -> str:
    """A self-contained HTML page: tables that can be sorted, and learning curves."""
    sections = []
    for board in boards:
        heading, rows = heading_and_rows(board)
        cells = "".join(_row(board, group, row) for group, row in zip(board.groups, rows))
        sections.append(
            f"<h2>{escape(title(board))}</h2><table><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in heading)}</tr>"
            f"</thead><tbody>{cells}</tbody></table>{_learning_curves(board)}"
        )
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>Comparison of runs</title><style>{STYLE}</style></head>'
        f"<body><h1>Comparison of runs</h1>{''.join(sections)}<script>{SORT}</script></body></html>"
    )


def _row(board: Leaderboard, group: Group, row: Sequence[str]) -> str:
    baseline = group.baseline(board.metric)
    values = {1: group.mean(board.metric), 3: baseline[1] if baseline else math.nan}
    cells = []
    for column, cell in enumerate(row):
        sort_value = values.get(column, cell.replace(",", ""))
        cells.append(f'<td data-value="{escape(str(sort_value))}">{escape(cell)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _learning_curves(board: Leaderboard) -> str:
    """The metric on the validation set, or the loss where that is not logged, after each epoch; a line for each seed: SVG."""
    metric = f"{VALIDATION}{board.metric.rpartition('/')[2]}"
    shown = board.groups[:MAX_CURVES]
    if not any(metric in run.metrics for group in shown for run in group.runs):
        metric = f"{VALIDATION}loss"
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, group in enumerate(shown):
        for seed_index, points in enumerate(metric_histories(group.runs, metric).values()):
            steps, values = zip(*points)
            label = None if seed_index else (group.title if len(group.title) < 60 else f"{group.title[:57]}…")
            axes.plot(steps, values, color=f"C{index}", alpha=0.8, marker="." if len(points) < 2 else None, label=label)
    axes.set(xlabel="epoch", ylabel=metric)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]
