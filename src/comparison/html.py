"""Leaderboards as a page for a browser, with learning curves."""

import io
import math
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from src.comparison.groups import Board, Group
from src.comparison.tables import rows, title
from src.tracking.run_summaries import metric_histories

CURVES = 10  # groups of a board whose learning curves are drawn
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


def page(boards: Sequence[Board]) -> str:
    """An HTML page that needs nothing from elsewhere: tables that can be sorted, and learning curves."""
    parts = []
    for board in boards:
        head, body = rows(board)
        cells = "".join(_row(board, group, row) for group, row in zip(board.groups, body))
        parts.append(
            f"<h2>{escape(title(board))}</h2><table><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>"
            f"</thead><tbody>{cells}</tbody></table>{_curves(board)}"
        )
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>Runs, compared</title><style>{STYLE}</style></head>'
        f"<body><h1>Runs, compared</h1>{''.join(parts)}<script>{SORT}</script></body></html>"
    )


def _row(board: Board, group: Group, row: Sequence[str]) -> str:
    baseline = group.baseline(board.metric)
    values = {1: group.mean(board.metric), 3: baseline[1] if baseline else math.nan}
    cells = []
    for column, cell in enumerate(row):
        plain = values.get(column, cell.replace(",", ""))
        cells.append(f'<td data-value="{escape(str(plain))}">{escape(cell)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _curves(board: Board) -> str:
    """How the metric went on the validation part, or the loss, where that is not measured; a line for each seed."""
    measured = f"val/{board.metric.rpartition('/')[2]}"
    shown = board.groups[:CURVES]
    if not any(measured in run.metrics for group in shown for run in group.runs):
        measured = "val/loss"
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for number_, group in enumerate(shown):
        for first, points in enumerate(metric_histories(group.runs, measured).values()):
            steps, values = zip(*points)
            label = None if first else (group.title if len(group.title) < 60 else f"{group.title[:57]}…")
            axes.plot(steps, values, color=f"C{number_}", alpha=0.8, marker="." if len(points) < 2 else None, label=label)
    axes.set(xlabel="epoch", ylabel=measured)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]
