"""What each parameter of a sweep does to the result."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.comparison.tables import number
from src.jobs import Job
from src.metrics import lower_is_better

WIDE = 10  # ratio between the largest and the smallest value from which on an axis is logarithmic
FEW = 6  # values that are all written at an axis
COLUMNS = 3


def ranked(jobs: Sequence[Job], objective: str) -> list[Job]:
    """Those that have finished, the best first."""
    finished = [job for job in jobs if job.objective is not None]
    return sorted(finished, key=lambda job: job.objective, reverse=not lower_is_better(objective))


def parameters(jobs: Sequence[Job]) -> list[str]:
    """What was varied."""
    names = dict.fromkeys(name for job in jobs for name in job.overrides)
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def table(jobs: Sequence[Job], objective: str) -> str:
    """The jobs, the best first; those that have failed last, with the reason."""
    names = parameters(jobs)
    measured = list(dict.fromkeys(name for job in jobs for name in job.metrics))
    rows = [[*names, objective, *measured]]
    for job in [*ranked(jobs, objective), *(job for job in jobs if job.objective is None)]:
        values = {objective: job.objective} | {name: job.metrics.get(name) for name in measured}
        shown = ["–" if value is None else number(value, name) for name, value in values.items()]
        rows.append([*(job.overrides.get(name, "") for name in names), *shown, *([job.failure] if job.failure else [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0])).rstrip() for row in rows)


def figures(jobs: Sequence[Job], objective: str) -> dict[str, Figure]:
    """Of jobs that have finished: the result against each parameter, and, where there are several, all of them at once."""
    names = parameters(jobs)
    if not names:
        return {}
    found = {"effects.png": _effects(jobs, names, objective)}
    if len(names) > 1:
        found["parallel_coordinates.png"] = _parallel(jobs, names, objective)
    return found


def _effects(jobs: Sequence[Job], names: Sequence[str], objective: str) -> Figure:
    rows = math.ceil(len(names) / COLUMNS)
    columns = min(len(names), COLUMNS)
    figure = Figure(figsize=(1.5 + 3.5 * columns, 0.5 + 3 * rows), layout="constrained")
    values = np.array([job.objective for job in jobs])
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False, sharey=True).flat, names):
        places = _along(axes, [job.overrides.get(name, "") for job in jobs])
        axes.plot(places, values, "o", alpha=0.5)
        means = {place: values[places == place].mean() for place in sorted(set(places))}
        axes.plot(means.keys(), means.values(), "-", color="C0", alpha=0.6)
        axes.set(xlabel=name)
        axes.grid(alpha=0.3)
    for place, axes in enumerate(figure.axes):
        if place >= len(names):
            axes.axis("off")
        elif place % columns == 0:
            axes.set_ylabel(objective)
    return figure


def _along(axes: Axes, texts: Sequence[str]) -> np.ndarray:
    """Where values lie along the horizontal axis, which is made fit for them: (n,)."""
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        known = list(dict.fromkeys(texts))
        axes.set_xticks(range(len(known)), known)
        return np.array([known.index(text) for text in texts], float)
    if _wide(numbers):
        axes.set_xscale("log")
    if len(set(numbers)) <= FEW:
        axes.set_xticks(numbers, texts, minor=False)
        axes.minorticks_off()
    return numbers


def _wide(numbers: np.ndarray) -> bool:
    return numbers.min() > 0 and numbers.max() >= WIDE * numbers.min()


def _parallel(jobs: Sequence[Job], names: Sequence[str], objective: str) -> Figure:
    """A line for each job, across an axis for each parameter and one for the result; the better, the darker."""
    figure = Figure(figsize=(2 + 2 * len(names), 4.5), layout="constrained")
    axes = figure.subplots()
    columns = [*names, objective]
    texts = [[job.overrides.get(name, "") for job in jobs] for name in names] + [[f"{job.objective:.4g}" for job in jobs]]
    heights = np.array([_height(column) for column in texts])  # (columns, jobs)
    best = ranked(jobs, objective)
    for job, line in zip(jobs, heights.T):
        share = 1 - best.index(job) / max(len(best) - 1, 1)
        axes.plot(range(len(columns)), line, color="C0", alpha=0.15 + 0.75 * share, linewidth=0.8 + 1.7 * share)
    for place, (column, levels) in enumerate(zip(texts, heights)):
        axes.axvline(place, color="0.6", linewidth=0.8)
        shown = dict(zip(levels, column))
        few = shown if len(shown) <= FEW else {level: shown[level] for level in (min(shown), max(shown))}
        for level, text in few.items():
            axes.annotate(text, (place, level), (4, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_xticks(range(len(columns)), columns, rotation=15)
    axes.set_yticks([])
    axes.margins(x=0.1)
    return figure


def _height(texts: Sequence[str]) -> np.ndarray:
    """Values as heights between 0 and 1, in their order: (n,)."""
    try:
        numbers = np.array([float(text) for text in texts])
        if _wide(numbers):
            numbers = np.log(numbers)
    except ValueError:
        known = list(dict.fromkeys(texts))
        numbers = np.array([known.index(text) for text in texts], float)
    return (numbers - numbers.min()) / max(float(np.ptp(numbers)), 1e-12)
