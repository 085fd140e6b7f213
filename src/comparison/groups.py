"""Runs that differ by their seed alone are taken together, and ranked."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from src import metrics
from src.errors import UserError
from src.tracking.run_summaries import RunSummary

CHANCE = (
    "seed",
    "resume",
    "sweep.",
    "tracking.",
    "checkpoint.",
    "dataset.data_dir",
)  # what may differ between runs taken together


@dataclass(frozen=True)
class Group:
    """Runs with the same settings, of each seed the newest.

    Attributes:
        runs: they.
        settings: what they have in common.
        differences: those of the settings that are others than in the groups of the same name beside it.
    """

    runs: Sequence[RunSummary]
    settings: Mapping[str, str]
    differences: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        return self.settings["model.name"]

    @property
    def name(self) -> str:
        """The experiment's, or else the recipe's."""
        experiment = self.settings.get("experiment", "None")
        return self.recipe if experiment == "None" else experiment

    def values(self, metric: str) -> np.ndarray:
        """(n,), of the runs that have it."""
        return np.array([run.metrics[metric] for run in self.runs if metric in run.metrics])

    def mean(self, metric: str) -> float:
        """Over the seeds; nan if no run has the metric."""
        values = self.values(metric)
        return float(values.mean()) if len(values) else math.nan

    def deviation(self, metric: str) -> float:
        """Standard deviation over the seeds; nan of a single one."""
        values = self.values(metric)
        return float(values.std(ddof=1)) if len(values) > 1 else math.nan

    def baseline(self, metric: str) -> tuple[str, float] | None:
        """The best predictor without deep learning: its name, and what it reaches."""
        found = {}
        for name, value in self.runs[0].metrics.items():
            kind, _, rest = name.partition("/")
            other, _, measured = rest.rpartition("/")
            if kind == "baseline" and f"test/{measured}" == metric:
                found[other.replace("_", " ")] = value
        if not found:
            return None
        return (min if metrics.lower_is_better(metric) else max)(found.items(), key=lambda item: item[1])

    @property
    def title(self) -> str:
        """The name and what is particular."""
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.differences.items())])


@dataclass(frozen=True)
class Board:
    """Groups that were tested on the same examples with the same question, the best first.

    Attributes:
        dataset: its name.
        task: what it is called.
        metric: that they are ranked by.
        groups: they.
    """

    dataset: str
    task: str
    metric: str
    groups: Sequence[Group]


def grouped(runs: Iterable[RunSummary]) -> list[Group]:
    """Runs that differ by chance alone, together."""
    found: dict[tuple, dict[str, RunSummary]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.start_time, reverse=True):
        same = {name: value for name, value in run.settings.items() if not name.startswith(CHANCE)}
        found[(run.test_digest, *sorted(same.items()))].setdefault(run.settings["seed"], run)
    return [Group(list(seeds.values()), dict(key[1:])) for key, seeds in found.items()]


def boards(runs: Iterable[RunSummary], metric: str | None = None) -> list[Board]:
    """A leaderboard for each data set and task.

    Args:
        runs: finished ones.
        metric: that is compared, as MLflow has it; without one, each task's own.

    Raises:
        UserError: no run has the metric.
    """
    runs = list(runs)
    known = {name for run in runs for name in run.metrics if not name.startswith("system/")}
    if metric is not None and metric not in known:
        raise UserError(f"No run has the metric '{metric}'; known: {', '.join(sorted(known))}.")
    together: dict[tuple, list[Group]] = defaultdict(list)
    for group in grouped(runs):
        settings = group.settings
        task, chosen = metrics.LEADING_METRICS[settings["task.name"]][0], metric or metric_of(group)
        if len(group.values(chosen)):
            question = group.runs[0].test_digest, settings.get("task.horizon")
            together[(settings["dataset.name"], task, chosen, question)].append(group)
    if not together:
        raise UserError(f"No run has a metric that its task is compared by; type metric=<one of {', '.join(sorted(known))}>.")
    return [
        Board(dataset, task, chosen, _ranked(_told_apart(groups), chosen))
        for (dataset, task, chosen, _), groups in sorted(together.items(), key=lambda item: item[0][:3])
    ]


def metric_of(group: Group) -> str:
    """What the task of a group is compared by, as MLflow has it."""
    return f"test/{metrics.LEADING_METRICS[group.settings['task.name']][1]}"


def differing(groups: Iterable[Group]) -> list[str]:
    """The settings in which groups are not alike."""
    settings = [group.settings for group in groups]
    names = sorted({name for one in settings for name in one})
    return [name for name in names if len({one.get(name) for one in settings}) > 1]


def _ranked(groups: list[Group], metric: str) -> list[Group]:
    return sorted(groups, key=lambda group: group.mean(metric), reverse=not metrics.lower_is_better(metric))


def _told_apart(groups: list[Group]) -> list[Group]:
    """The groups, with what is particular about each among those of the same name."""
    told = []
    for group in groups:
        names = differing(other for other in groups if other.name == group.name)
        told.append(Group(group.runs, group.settings, {name: group.settings.get(name, "none") for name in names}))
    return told
