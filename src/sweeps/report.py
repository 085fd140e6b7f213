"""The results of a sweep: a table, and figures of what each parameter does."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from src import tables
from src.config.tasks import TASKS
from src.figures import style
from src.metrics import format_value, lower_is_better
from src.sweeps.job_store import JobResult

LOG_SCALE_RATIO = 10  # of the largest to the smallest value, from which on an axis is logarithmic
MAX_ROWS, MAX_REMARK = 20, 80  # jobs in a description, characters of a remark: MLflow keeps 8,000 characters
EFFECTS = "effects.png"  # the figure of what each setting does
MAX_TICKS = 6  # up to so many values are all labelled
MAX_CHARACTERS = 40  # of the categories of an axis; longer ones are written upwards
MIN_DISTANCE = 0.06  # of two labels of an axis, as a fraction of its height
COLUMNS = 3  # of axes in a figure
MIN_WIDTH = 6.0  # inches, for the title


def ranked(jobs: Sequence[JobResult], objective: str) -> list[JobResult]:
    """The jobs that have finished, the best first; they have one data set and one task."""
    finished = [job for job in jobs if job.objective is not None]
    return sorted(finished, key=lambda job: job.final_objective, reverse=not lower_is_better(objective))


def by_data_and_task(jobs: Sequence[JobResult]) -> dict[str, list[JobResult]]:
    """{data set and task: its jobs}, in their order: objectives on different ones cannot be compared."""
    groups: dict[str, list[JobResult]] = {}
    for job in jobs:
        groups.setdefault(job.compared_within, []).append(job)
    return groups


def labels(jobs: Sequence[JobResult]) -> dict[str, str]:
    """{data set and task: what names of its results begin with}: "co2-forecasting/"; empty if all jobs have the same."""
    names = list(by_data_and_task(jobs))
    return {name: f"{name.replace(', ', '-').replace(' ', '_')}/" if len(names) > 1 else "" for name in names}


def parameters(jobs: Sequence[JobResult]) -> list[str]:
    """Names of the settings that differ between jobs."""
    names = dict.fromkeys(name for job in jobs for name in job.overrides)
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def table(jobs: Sequence[JobResult], objectives: Sequence[str]) -> str:
    """A table of the jobs of each data set and task, the best first, those that have not finished last, with the reason.

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
    several = " of each data set and task" if len(by_data_and_task(jobs)) > 1 else ""
    best = f", the best by {objectives[0]}{several} first" if finished else ""
    more = f"… and {len(rows) - MAX_ROWS} more: results.csv among the artifacts" if len(rows) > MAX_ROWS else ""
    table = tables.markdown(["run", *headings, ""], lines, [0, len(headings) + 1]) if jobs else ""
    sections = [f"**{finished} of {number} jobs finished**{best}", table, more, f"- Command: `{command}`"]
    return "\n\n".join(filter(None, sections))


def _cells(jobs: Sequence[JobResult], objectives: Sequence[str]) -> tuple[list[str], list[tuple[JobResult, list[str], str]]]:
    """The headings; and each job with its cells and a remark, in the order of `table`."""
    names, objective = parameters(jobs), objectives[0]
    groups = {name: ranked(group, objective) for name, group in by_data_and_task(jobs).items()}
    front = [job for group in groups.values() for job in pareto_front(group, objectives) if len(objectives) > 1]
    best = {id(group[0]): f"the best of {name}" for name, group in groups.items() if group and len(groups) > 1}
    leading = {f"test/{task.leading_metric}" for task in TASKS.values()}
    metrics = dict.fromkeys(
        name for job in jobs for name in job.metrics if name in leading or not name.startswith("test/")
    )  # without repetitions
    rows = []
    finished = [job for group in groups.values() for job in group]
    for job in [*finished, *(job for job in jobs if job.objective is None)]:
        values = {objective: job.objective} | {name: job.metrics.get(name) for name in metrics}
        cells = ["–" if value is None else format_value(value, name) for name, value in values.items()]
        praise = filter(None, [best.get(id(job)), "on the Pareto front" if job in front else None])
        remark = job.failure or job.pruned or ", ".join(praise)
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
    if not jobs:
        return []
    values = signs * np.array([[job.value(name) for name in objectives] for job in jobs])  # (jobs, objectives), lower is better
    return [
        job for job, row in zip(jobs, values) if not ((values <= row).all(axis=1) & (values < row).any(axis=1)).any()
    ]  # fmt: skip


def figures(jobs: Sequence[JobResult], objectives: Sequence[str]) -> dict[str, Figure]:
    """Figures of finished jobs of one data set and task: the objective against each parameter and all, and other objectives.

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
    """The objective against each parameter, with the mean of each value; means of numbers are connected."""
    rows, columns = math.ceil(len(names) / COLUMNS), min(len(names), COLUMNS)
    size = (max(1.0 + 3.2 * columns, MIN_WIDTH), 1.3 + 2.8 * rows)
    figure, panels = style.create(
        f"Effect of each setting on {axis_label(objective)}, {len(jobs)} jobs", rows, columns, size, sharey=True
    )
    values = np.array([job.final_objective for job in jobs])
    for axes, name in zip(panels, names):
        positions, are_numbers = _positions(axes, name, [job.overrides.get(name, "") for job in jobs])
        axes.plot(positions, values, "o", color=style.MODEL, alpha=0.4, label="job")
        if 2 * len(set(positions)) <= len(positions):  # means of single jobs would be those jobs
            means = {position: values[positions == position].mean() for position in sorted(set(positions))}
            line = "_-" if are_numbers else "_"
            axes.plot(list(means), list(means.values()), line, color=style.TARGET, markersize=14, linewidth=1, label="mean")
        axes.set_xlabel(f"{name} (log scale)" if axes.get_xscale() == "log" else name)
        axes.grid()
    for axes in panels[::columns]:
        axes.set_ylabel(objective)
    for axes in panels[len(names) :]:
        axes.axis("off")
    entries = {text: line for axes in panels for line, text in zip(*axes.get_legend_handles_labels())}
    figure.legend(entries.values(), entries.keys(), ncols=2, loc="outside lower center")
    return figure


def _pareto(jobs: Sequence[JobResult], objectives: Sequence[str], other: str) -> Figure:
    """The first objective against another one, with a line through the Pareto front."""
    figure, (axes,) = style.create(f"{objectives[0]} against {other}, {len(jobs)} jobs")
    best = sorted(pareto_front(jobs, objectives), key=lambda job: job.value(other))
    for shown, line, color, text in ((jobs, "o", style.PAST, "all jobs"), (best, "o-", style.MODEL, "Pareto front")):
        axes.plot([job.value(other) for job in shown], [job.final_objective for job in shown], line, color=color, label=text)
    values = np.array([job.value(other) for job in jobs])
    if _spans_decades(values):
        style.log_scale(axes, "x", values)
    axes.set(xlabel=axis_label(other, axes.get_xscale() == "log"), ylabel=axis_label(objectives[0]))
    axes.legend()
    axes.grid()
    return figure


def axis_label(objective: str, log_scale: bool = False) -> str:
    """An objective, and which of its values are better: "val_loss (lower is better)"."""
    better = f"{'lower' if lower_is_better(objective) else 'higher'} is better"
    return f"{objective} ({'log scale, ' if log_scale else ''}{better})"


def _positions(axes: Axes, name: str, texts: Sequence[str]) -> tuple[np.ndarray, bool]:
    """Set the scale and ticks of the horizontal axis for values.

    Returns:
        Where the values lie on the axis, (n,), and whether they are numbers; seeds count as names.
    """
    numbers = None if name == "seed" else _numbers(texts)
    if numbers is None:
        categories = list(dict.fromkeys(texts))
        long = sum(map(len, categories)) > MAX_CHARACTERS
        axes.set_xticks(range(len(categories)), categories, rotation=90 if long else 0)
        axes.set_xlim(-0.5, len(categories) - 0.5)
        return np.array([categories.index(text) for text in texts], float), False
    if _spans_decades(numbers):
        style.log_scale(axes, "x", numbers)
    if len(set(numbers)) <= MAX_TICKS:
        ticks = {number: shorten(text) for number, text in zip(numbers, texts)}
        axes.set_xticks(list(ticks), list(ticks.values()), minor=False)
        axes.minorticks_off()
    axes.margins(x=0.1)
    return numbers, True


def _numbers(texts: Sequence[str]) -> np.ndarray | None:
    """The numbers that texts stand for, (n,); None if one stands for none."""
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return None


def _spans_decades(numbers: np.ndarray) -> bool:
    """Whether positive numbers differ by an order of magnitude."""
    return numbers.min() > 0 and numbers.max() >= LOG_SCALE_RATIO * numbers.min()


def _parallel_coordinates(jobs: Sequence[JobResult], names: Sequence[str], objective: str) -> Figure:
    """A line for each job, across an axis for each parameter and one for the objective, in the color of its objective."""
    columns = [*names, objective]
    title = f"The settings of {len(jobs)} jobs and their {axis_label(objective)}"
    figure, (axes,) = style.create(title, size=(max(2.5 + 1.7 * len(columns), MIN_WIDTH), 5))
    objectives = np.array([job.final_objective for job in jobs])
    scales = [_Scale.of([job.overrides.get(name, "") for job in jobs]) for name in names]
    scales.append(_Scale.of([repr(value) for value in objectives.tolist()]))
    dark_if_better = colormaps["viridis" if lower_is_better(objective) else "viridis_r"]
    scale_of_colors = Normalize(objectives.min(), objectives.max())
    for job in reversed(ranked(jobs, objective)):  # the best one on top
        index, is_best = jobs.index(job), job is ranked(jobs, objective)[0]
        heights = [scale.heights[index] for scale in scales]
        color, width = dark_if_better(scale_of_colors(job.final_objective)), 3.0 if is_best else 1.2
        axes.plot(range(len(columns)), heights, color=color, linewidth=width, label="best job" if is_best else None)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    for index, scale in enumerate(scales):
        axes.axvline(index, color="0.4", linewidth=0.8, zorder=1)
        for height, text in scale.ticks.items():
            axes.plot(index, height, "_", color="0.4", zorder=3)
            axes.annotate(
                text, (index, height), (6, 0), textcoords="offset points", va="center", fontsize=9, bbox=box, zorder=4
            )
    axes.set_xticks(range(len(columns)), [column.replace(".", ".\n") for column in columns])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set(yticks=[], xlim=(-0.2, len(columns) - 0.5), ylim=(-0.06, 1.06))
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside lower center")
    return figure


@dataclass(frozen=True)
class _Scale:
    """An axis of parallel coordinates.

    Attributes:
        heights: of the values, 0…1: (n,).
        ticks: {height: label}.
    """

    heights: np.ndarray
    ticks: Mapping[float, str]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """The axis of values: logarithmic where numbers span decades; categories lie at equal distances."""
        numbers = _numbers(texts)
        if numbers is None:
            categories = list(dict.fromkeys(texts))
            places = np.linspace(0.0, 1.0, len(categories)) if len(categories) > 1 else np.array([0.5])
            ticks = dict(zip(places.tolist(), categories))
            return cls(np.array([places[categories.index(text)] for text in texts]), ticks)
        transform = np.log if _spans_decades(numbers) else np.asarray
        low, high = transform(numbers.min()), transform(numbers.max())
        if len(set(numbers)) <= MAX_TICKS:
            marks = np.unique(numbers)
        else:
            locator = LogLocator(subs=style.LOG_TICKS) if transform is np.log else MaxNLocator(MAX_TICKS - 1)
            marks = np.asarray(locator.tick_values(float(numbers.min()), float(numbers.max())))
            marks = marks[(marks >= numbers.min()) & (marks <= numbers.max())]

        def height(values: np.ndarray) -> np.ndarray:
            return (transform(values) - low) / max(high - low, 1e-12)

        ticks = {}
        for mark, place in zip(marks, height(marks).tolist()):
            if all(abs(place - other) >= MIN_DISTANCE for other in ticks):
                ticks[place] = f"{mark:.4g}"
        return cls(height(numbers), ticks)
