"""The results of a sweep: a table, and figures of what each parameter does."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src import tables
from src.config.tasks import TASKS
from src.metrics import format_value, lower_is_better
from src.sweeps.job_store import JobResult

LOG_SCALE_RATIO = 10  # of the largest to the smallest value, from which on an axis is logarithmic
MAX_ROWS, MAX_REMARK = 20, 80  # jobs in a description, characters of a remark: MLflow keeps 8,000 characters
EFFECTS = "effects.png"  # the figure of what each setting does
MAX_TICKS = 6  # up to so many values are all labelled
COLUMNS = 3  # of axes in a figure


def ranked(jobs: Sequence[JobResult], objective: str) -> list[JobResult]:
    """The jobs that have finished, the best first."""
    finished = [job for job in jobs if job.objective is not None]
    return sorted(finished, key=lambda job: job.final_objective, reverse=not lower_is_better(objective))


def parameters(jobs: Sequence[JobResult]) -> list[str]:
    """Names of the settings that differ between jobs."""
    names = dict.fromkeys(name for job in jobs for name in job.overrides)
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def table(jobs: Sequence[JobResult], objectives: Sequence[str]) -> str:
    """A table of the jobs, the best first, those that have not finished last, with the reason.

    Of the test metrics it has those that tasks are compared by; `results.csv` has all.
    """
    headings, rows = _cells(jobs, objectives)
    left = [*range(len(parameters(jobs))), len(headings)]
    return tables.text([*headings, ""], [[*cells, remark] for _, cells, remark in rows], left)


def description(jobs: Sequence[JobResult], objectives: Sequence[str], number: int, command: str) -> str:
    """The description of a sweep in MLflow: its jobs, the best first, with links to their runs, and how it was started.

    Args:
        jobs: that have ended.
        objectives: the monitored metric, and what else a search optimizes.
        number: of all jobs.
        command: with which the sweep was started.
    """
    headings, rows = _cells(jobs, objectives)
    lines = []
    for place, (job, cells, remark) in enumerate(rows[:MAX_ROWS], start=1):
        run = f"[{place}](run:{job.run_id})" if job.run_id else "–"
        lines.append([run, *cells, remark.replace("|", " ")[:MAX_REMARK]])
    finished = sum(job.objective is not None for job in jobs)
    best = f", the best by {objectives[0]} first" if finished else ""
    more = f"… and {len(rows) - MAX_ROWS} more: results.csv among the artifacts" if len(rows) > MAX_ROWS else ""
    table = tables.markdown(["run", *headings, ""], lines, [0, len(headings) + 1]) if jobs else ""
    sections = [f"**{finished} of {number} jobs finished**{best}", table, more, f"- Command: `{command}`"]
    return "\n\n".join(filter(None, sections))


def _cells(jobs: Sequence[JobResult], objectives: Sequence[str]) -> tuple[list[str], list[tuple[JobResult, list[str], str]]]:
    """The headings; and each job with its cells and a remark, the best first, those that have not finished last."""
    names, objective = parameters(jobs), objectives[0]
    best = pareto_front(ranked(jobs, objective), objectives) if len(objectives) > 1 else []
    leading = {f"test/{task.leading_metric}" for task in TASKS.values()}
    metrics = dict.fromkeys(
        name for job in jobs for name in job.metrics if name in leading or not name.startswith("test/")
    )  # without repetitions
    rows = []
    for job in [*ranked(jobs, objective), *(job for job in jobs if job.objective is None)]:
        values = {objective: job.objective} | {name: job.metrics.get(name) for name in metrics}
        cells = ["–" if value is None else format_value(value, name) for name, value in values.items()]
        remark = job.failure or job.pruned or ("on the Pareto front" if job in best else "")
        rows.append((job, [*(shorten(job.overrides.get(name, "")) for name in names), *cells], remark))
    return [*names, objective, *metrics], rows


def shorten(text: str) -> str:
    """Round a number with many digits, as a search draws them; leave any other value as it is typed."""
    try:
        rounded = f"{float(text):.4g}"
    except ValueError:
        return text
    return rounded if len(text) > len("0.00012345") else text


def pareto_front(jobs: Sequence[JobResult], objectives: Sequence[str]) -> list[JobResult]:
    """The jobs than which no other job is better in one objective and at least as good in all the others."""
    signs = np.array([1 if lower_is_better(name) else -1 for name in objectives])
    values = signs * np.array([[job.value(name) for name in objectives] for job in jobs])  # (jobs, objectives), lower is better
    return [
        job for job, row in zip(jobs, values) if not ((values <= row).all(axis=1) & (values < row).any(axis=1)).any()
    ]  # fmt: skip


def figures(jobs: Sequence[JobResult], objectives: Sequence[str]) -> dict[str, Figure]:
    """Figures of jobs that have finished: the objective against each parameter and all of them, and against other objectives.

    Args:
        jobs: that have finished.
        objectives: the monitored metric, and what else a search optimizes.

    Returns:
        {file name: figure}; empty if nothing was varied.
    """
    names, objective = parameters(jobs), objectives[0]
    if not names:
        return {}
    drawn = {EFFECTS: _effects(jobs, names, objective)}
    for other in objectives[1:]:
        drawn[f"pareto_{other}.png"] = _pareto(jobs, objectives, other)
    if len(names) > 1:
        drawn["parallel_coordinates.png"] = _parallel_coordinates(jobs, names, objective)
    return drawn


def _effects(jobs: Sequence[JobResult], names: Sequence[str], objective: str) -> Figure:
    """The objective against each parameter, with the mean of each value."""
    rows = math.ceil(len(names) / COLUMNS)
    columns = min(len(names), COLUMNS)
    figure = Figure(figsize=(1.5 + 3.5 * columns, 0.5 + 3 * rows), layout="constrained")
    values = np.array([job.final_objective for job in jobs])
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False, sharey=True).flat, names):
        positions = _positions(axes, [job.overrides.get(name, "") for job in jobs])
        axes.plot(positions, values, "o", alpha=0.5)
        means = {position: values[positions == position].mean() for position in sorted(set(positions))}
        axes.plot(means.keys(), means.values(), "-", color="C0", alpha=0.6)
        axes.set(xlabel=name)
        axes.grid(alpha=0.3)
    for index, axes in enumerate(figure.axes):
        if index >= len(names):
            axes.axis("off")
        elif index % columns == 0:
            axes.set_ylabel(objective)
    return figure


def _pareto(jobs: Sequence[JobResult], objectives: Sequence[str], other: str) -> Figure:
    """The first objective against another one, with a line through the Pareto front."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([job.value(other) for job in jobs], [job.final_objective for job in jobs], "o", color="0.6", label="all jobs")
    best = sorted(pareto_front(jobs, objectives), key=lambda job: job.value(other))
    axes.plot([job.value(other) for job in best], [job.final_objective for job in best], "o-", color="C0", label="Pareto front")
    if _spans_decades(np.array([job.value(other) for job in jobs])):
        axes.set_xscale("log")
    axes.set(xlabel=other, ylabel=objectives[0])
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def _positions(axes: Axes, texts: Sequence[str]) -> np.ndarray:
    """Set the scale and ticks of the horizontal axis for values; return where they lie on it: (n,)."""
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        categories = list(dict.fromkeys(texts))
        axes.set_xticks(range(len(categories)), categories)
        return np.array([categories.index(text) for text in texts], float)
    if _spans_decades(numbers):
        axes.set_xscale("log")
    if len(set(numbers)) <= MAX_TICKS:
        axes.set_xticks(numbers, [shorten(text) for text in texts], minor=False)
        axes.minorticks_off()
    return numbers


def _spans_decades(numbers: np.ndarray) -> bool:
    """Whether positive numbers differ by an order of magnitude."""
    return numbers.min() > 0 and numbers.max() >= LOG_SCALE_RATIO * numbers.min()


def _parallel_coordinates(jobs: Sequence[JobResult], names: Sequence[str], objective: str) -> Figure:
    """A line for each job, across an axis for each parameter and one for the objective; the better, the darker."""
    figure = Figure(figsize=(2 + 2 * len(names), 4.5), layout="constrained")
    axes = figure.subplots()
    columns = [*names, objective]
    texts = [[shorten(job.overrides.get(name, "")) for job in jobs] for name in names]
    texts.append([f"{job.objective:.4g}" for job in jobs])
    heights = np.array([_normalized(column) for column in texts])  # (columns, jobs)
    best = ranked(jobs, objective)
    for job, line in zip(jobs, heights.T):
        rank = 1 - best.index(job) / max(len(best) - 1, 1)  # 1: the best job, 0: the worst
        axes.plot(range(len(columns)), line, color="C0", alpha=0.15 + 0.75 * rank, linewidth=0.8 + 1.7 * rank)
    for index, (column, column_heights) in enumerate(zip(texts, heights)):
        axes.axvline(index, color="0.6", linewidth=0.8)
        labels = dict(zip(column_heights, column))
        if len(labels) > MAX_TICKS:
            labels = {height: labels[height] for height in (min(labels), max(labels))}
        for height, text in labels.items():
            axes.annotate(text, (index, height), (4, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_xticks(range(len(columns)), columns, rotation=15)
    axes.set_yticks([])
    axes.margins(x=0.1)
    return figure


def _normalized(texts: Sequence[str]) -> np.ndarray:
    """Values scaled to 0…1, on a logarithmic scale where they span decades; categories by their order: (n,)."""
    try:
        numbers = np.array([float(text) for text in texts])
        if _spans_decades(numbers):
            numbers = np.log(numbers)
    except ValueError:
        categories = list(dict.fromkeys(texts))
        numbers = np.array([categories.index(text) for text in texts], float)
    return (numbers - numbers.min()) / max(float(np.ptp(numbers)), 1e-12)
