"""Leaderboards as an HTML page, with learning curves and links to the runs."""

import io
import math
from collections.abc import Sequence
from html import escape

from matplotlib.ticker import PercentFormatter

from src import metrics
from src.comparison.formats import heading_and_rows, title
from src.comparison.groups import Group, Leaderboard
from src.figures import html, style
from src.metrics import VALIDATION
from src.tracking.run_summaries import metric_histories

MAX_CURVES = 10  # groups of a leaderboard whose learning curves are drawn
CSS = (
    "body{max-width:80em}h2{font-size:1.1em}table{border-collapse:collapse}"
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
        heading[1] += f" ({board.unit})" if board.unit else ""
        cells = "".join(_row(board, group, row) for group, row in zip(board.groups, rows))
        head = "".join(f"<th>{escape(name)}</th>" for name in heading)
        sections.append(
            f"<h2>{escape(title(board))}</h2><table><thead><tr>{head}<th>runs, by seed</th></tr></thead>"
            f"<tbody>{cells}</tbody></table>{_learning_curves(board)}"
        )
    return html.page("Comparison of runs", sections, CSS, SORT)


def _row(board: Leaderboard, group: Group, row: Sequence[str]) -> str:
    baseline = group.baseline(board.metric)
    values = {1: group.mean(board.metric), 3: baseline[1] if baseline else math.nan}
    cells = []
    for column, cell in enumerate(row):
        sort_value = values.get(column, cell.replace(",", ""))
        cells.append(f'<td data-value="{escape(str(sort_value))}">{escape(cell)}</td>')
    runs = sorted(group.runs, key=lambda run: int(run.settings["seed"]))
    links = ", ".join(f'<a href="{escape(run.url)}">{escape(run.settings["seed"])}</a>' for run in runs)
    return f"<tr>{''.join(cells)}<td>{links}</td></tr>"


def _learning_curves(board: Leaderboard) -> str:
    """The metric on the validation set, or the loss where that is not logged, after each epoch; a line for each seed: SVG."""
    metric = f"{VALIDATION}{board.metric.rpartition('/')[2]}"
    shown = board.groups[:MAX_CURVES]
    if not any(metric in run.metrics for group in shown for run in group.runs):
        metric = f"{VALIDATION}loss"
    figure, (axes,) = style.create(f"Learning curves on the validation set: {board.dataset}, {board.task}", size=(9, 4.5))
    for index, group in enumerate(shown):
        for seed_index, points in enumerate(metric_histories(group.runs, metric).values()):
            steps, values = zip(*points)
            label = None if seed_index else group.title
            axes.plot(steps, values, color=f"C{index}", alpha=0.8, marker="." if len(points) < 2 else None, label=label)
    baselines = list(filter(None, (group.baseline(board.metric) for group in shown)))
    if metric != f"{VALIDATION}loss" and baselines:
        name, value = (min if metrics.lower_is_better(metric) else max)(baselines, key=lambda baseline: baseline[1])
        axes.axhline(value, color=style.TARGET, linestyle="--", linewidth=1, label=f"baseline on the test set: {name}")
    unit = f" ({board.unit})" if board.unit and metric != f"{VALIDATION}loss" else ""
    axes.set(xlabel="epoch", ylabel=f"{metric}{unit}")
    style.integer_ticks(axes)
    if metrics.is_percentage(metric):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid()
    if axes.get_legend_handles_labels()[0]:
        figure.set_figheight(4.5 + 0.2 * len(axes.get_legend_handles_labels()[0]))
        figure.legend(loc="outside lower left")
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]
