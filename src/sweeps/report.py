"""What each parameter of a sweep does to the result."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.metrics import format_value, lower_is_better
from src.sweeps.job_store import Job

WIDE = 10  # ratio between the largest and the smallest value from which on an axis is logarithmic
FEW = 6  # values that are all written at an axis
COLUMNS = 3


def ranked(jobs: Sequence[Job], objective: str) -> list[Job]:
    """Those that have finished, the best first."""
    finished = [job for job in jobs if job.objective is not None]
    return sorted(finished, key=lambda job: job.reached, reverse=not lower_is_better(objective))


def parameters(jobs: Sequence[Job]) -> list[str]:
    """What was varied."""
    names = dict.fromkeys(name for job in jobs for name in job.overrides)
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def table(jobs: Sequence[Job], objectives: Sequence[str]) -> str:
    """The jobs, the best first; those that have not finished last, with the reason."""
    names, objective = parameters(jobs), objectives[0]
    best = front(ranked(jobs, objective), objectives) if len(objectives) > 1 else []
    measured = list(dict.fromkeys(name for job in jobs for name in job.metrics))
    rows = [[*names, objective, *measured]]
    for job in [*ranked(jobs, objective), *(job for job in jobs if job.objective is None)]:
        values = {objective: job.objective} | {name: job.metrics.get(name) for name in measured}
        shown = ["–" if value is None else format_value(value, name) for name, value in values.items()]
        why = job.failure or job.pruned or ("on the Pareto front" if job in best else None)
        rows.append([*(short(job.overrides.get(name, "")) for name in names), *shown, *([why] if why else [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0])).rstrip() for row in rows)


def short(text: str) -> str:
    """A value as it is typed, or a number with more digits than anyone wants to read, as a search draws them, rounded."""
    try:
        rounded = f"{float(text):.4g}"
    except ValueError:
        return text
    return rounded if len(text) > len("0.00012345") else text


def front(jobs: Sequence[Job], objectives: Sequence[str]) -> list[Job]:
    """The Pareto front: those to which no other one is better in one objective and as good in all the others."""
    signs = np.array([1 if lower_is_better(name) else -1 for name in objectives])
    values = signs * np.array([[job.value(name) for name in objectives] for job in jobs])  # (jobs, objectives), less is better
    return [
        job for job, own in zip(jobs, values) if not ((values <= own).all(axis=1) & (values < own).any(axis=1)).any()
    ]  # fmt: skip


def figures(jobs: Sequence[Job], objectives: Sequence[str]) -> dict[str, Figure]:
    """Of jobs that have finished: the result against each parameter, against all of them, and objectives against each other."""
    names, objective = parameters(jobs), objectives[0]
    if not names:
        return {}
    found = {"effects.png": _effects(jobs, names, objective)}
    for other in objectives[1:]:
        found[f"pareto_{other}.png"] = _pareto(jobs, objectives, other)
    if len(names) > 1:
        found["parallel_coordinates.png"] = _parallel(jobs, names, objective)
    return found


def _effects(jobs: Sequence[Job], names: Sequence[str], objective: str) -> Figure:
    rows = math.ceil(len(names) / COLUMNS)
    columns = min(len(names), COLUMNS)
    figure = Figure(figsize=(1.5 + 3.5 * columns, 0.5 + 3 * rows), layout="constrained")
    values = np.array([job.reached for job in jobs])
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


def _pareto(jobs: Sequence[Job], objectives: Sequence[str], other: str) -> Figure:
    """The first objective against another one, with the jobs of the front joined."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([job.value(other) for job in jobs], [job.reached for job in jobs], "o", color="0.6", label="all jobs")
    best = sorted(front(jobs, objectives), key=lambda job: job.value(other))
    axes.plot([job.value(other) for job in best], [job.reached for job in best], "o-", color="C0", label="Pareto front")
    if _wide(np.array([job.value(other) for job in jobs])):
        axes.set_xscale("log")
    axes.set(xlabel=other, ylabel=objectives[0])
    axes.legend()
    axes.grid(alpha=0.3)
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
        axes.set_xticks(numbers, [short(text) for text in texts], minor=False)
        axes.minorticks_off()
    return numbers


def _wide(numbers: np.ndarray) -> bool:
    return numbers.min() > 0 and numbers.max() >= WIDE * numbers.min()


def _parallel(jobs: Sequence[Job], names: Sequence[str], objective: str) -> Figure:
    """A line for each job, across an axis for each parameter and one for the result; the better, the darker."""
    figure = Figure(figsize=(2 + 2 * len(names), 4.5), layout="constrained")
    axes = figure.subplots()
    columns = [*names, objective]
    texts = [[short(job.overrides.get(name, "")) for job in jobs] for name in names]
    texts.append([f"{job.objective:.4g}" for job in jobs])
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
