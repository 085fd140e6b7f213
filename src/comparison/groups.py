"""Groups runs that differ by their seed alone, and ranks the groups."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from src import metrics
from src.config.differences import NUISANCE_SETTINGS, differing
from src.config.tasks import TASKS
from src.errors import UserError
from src.tracking.run_summaries import RunSummary

DIGEST = "digest of the test set"


@dataclass(frozen=True)
class Group:
    """Runs with the same settings, of each seed the newest.

    Attributes:
        runs: one for each seed.
        settings: that the runs have in common.
        differences: the settings that differ between the groups of the same name on a leaderboard.
    """

    runs: Sequence[RunSummary]
    settings: Mapping[str, str]
    differences: Mapping[str, str] = field(default_factory=dict)

    @property
    def task_title(self) -> str:
        """The title of the task; its name if no such task is registered here."""
        name = self.settings["task.name"]
        return TASKS[name].title if name in TASKS else name.replace("_", " ")

    @property
    def evaluation(self) -> dict[str, str]:
        """What was tested: results of groups are compared only where all of this is equal."""
        test_split = f"{self.settings['dataset.name']} {self.settings.get('dataset.splits.test', 'test')}"
        task = TASKS.get(self.settings["task.name"])
        names = {"dataset.limit", *(task.settings_of_evaluation(self.settings) if task else ())}
        settings = {name: self.settings.get(name, "None") for name in sorted(names)}
        measurement = {"measurement": self.runs[0].measurement} if self.runs[0].measurement else {}
        digest = self.runs[0].test_digest or test_split
        return {"task": self.task_title, DIGEST: digest, **settings, **measurement}

    @property
    def recipe(self) -> str:
        return self.settings["model.name"]

    @property
    def name(self) -> str:
        """The name of the experiment, or else of the recipe."""
        experiment = self.settings.get("experiment", "None")
        return self.recipe if experiment == "None" else experiment

    def values(self, metric: str) -> np.ndarray:
        """A metric of the runs that have it: (n,)."""
        return np.array([run.metrics[metric] for run in self.runs if metric in run.metrics])

    def mean(self, metric: str) -> float:
        """Mean over the seeds; nan if no run has the metric."""
        values = self.values(metric)
        return float(values.mean()) if len(values) else math.nan

    def standard_deviation(self, metric: str) -> float:
        """Sample standard deviation over the seeds; nan of a single one."""
        values = self.values(metric)
        return float(values.std(ddof=1)) if len(values) > 1 else math.nan

    def baseline(self, metric: str) -> tuple[str, float] | None:
        """Name and result of the best baseline; None if there is none."""
        measured = metric.removeprefix(metrics.TEST)
        return metrics.strongest_baseline(self.runs[0].metrics, measured) if metric.startswith(metrics.TEST) else None

    @property
    def title(self) -> str:
        """The name, and the settings that differ from those of the other groups of this name."""
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.differences.items())])


@dataclass(frozen=True)
class Leaderboard:
    """Groups that were tested for the same task on the same examples, the best first.

    Attributes:
        dataset: name of the data set.
        task: title of the task.
        metric: by which the groups are ranked.
        groups: the best first.
        difference: what tells it from the other leaderboards of the data set and the task; empty if there is none.
        p_values: {title of a group: p-value of its difference from the best one, corrected}; empty: not tested.
    """

    dataset: str
    task: str
    metric: str
    groups: Sequence[Group]
    difference: str = ""
    p_values: Mapping[str, float] = field(default_factory=dict)

    @property
    def conditions(self) -> str:
        """What distances between features depend on: the number of images, and whose features; empty for other metrics."""
        settings = self.groups[0].settings
        if self.metric.removeprefix(metrics.TEST) not in metrics.FEATURE_DISTANCES or "task.samples" not in settings:
            return ""
        return (
            f"{int(settings['task.samples']):,} images each, classifier {settings.get('task.reference_classifier', 'unknown')}"
        )

    @property
    def unit(self) -> str:
        """The unit of the metric; empty if it has none."""
        name = self.metric.rpartition("/")[2]
        if name in ("mae", "rmse"):
            return self.groups[0].settings.get("task.unit", "")
        return {"nll": "nats"}.get(name, "")


def group_runs(runs: Iterable[RunSummary]) -> list[Group]:
    """Group the runs that differ by nuisance settings alone; of several runs with the same seed the newest counts."""
    groups: dict[tuple, dict[str, RunSummary]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.start_time, reverse=True):
        settings = {name: value for name, value in run.settings.items() if not name.startswith(NUISANCE_SETTINGS)}
        groups[(run.test_digest, run.measurement, *sorted(settings.items()))].setdefault(run.settings["seed"], run)
    return [Group(list(seeds.values()), dict(key[2:])) for key, seeds in groups.items()]


def leaderboards(runs: Iterable[RunSummary], metric: str | None = None) -> list[Leaderboard]:
    """Make a leaderboard for each data set and task.

    Args:
        runs: finished runs.
        metric: to rank by, as MLflow names it; None: that of each task.

    Raises:
        UserError: no run has the metric.
    """
    runs = list(runs)
    available = {name for run in runs for name in run.metrics if not name.startswith("system/")}
    if metric is not None and metric not in available:
        raise UserError(f"No run has the metric '{metric}'; available: {', '.join(sorted(available))}.")
    comparable: dict[tuple, list[Group]] = defaultdict(list)
    for group in group_runs(runs):
        ranked_by = metric or (metric_of(group) if group.settings["task.name"] in TASKS else "")
        if len(group.values(ranked_by)):
            key = group.settings["dataset.name"], group.task_title, ranked_by, tuple(group.evaluation.items())
            comparable[key].append(group)
    if not comparable:
        raise UserError(
            f"No run has a metric that its task is compared by; type metric=<one of {', '.join(sorted(available))}>."
        )
    boards = [
        Leaderboard(dataset, task, ranked_by, _ranked(_with_differences(groups), ranked_by))
        for (dataset, task, ranked_by, _), groups in sorted(comparable.items(), key=lambda item: item[0][:3])
    ]
    return [dataclasses.replace(board, difference=_difference(board, boards)) for board in boards]


def _difference(board: Leaderboard, boards: Iterable[Leaderboard]) -> str:
    """What tells a leaderboard from others of its data set, task and metric: "test set train[:10%], dataset.limit=100"."""
    alike = [each for each in boards if (each.dataset, each.task, each.metric) == (board.dataset, board.task, board.metric)]
    own, names = board.groups[0].evaluation, differing(each.groups[0].evaluation for each in alike)
    splits = {each.groups[0].settings.get("dataset.splits.test", "test") for each in alike}
    in_title = [DIGEST, *(["task.samples", "task.reference_classifier"] if board.conditions else [])]
    parts = [f"{name}={own[name]}" for name in names if name in own and name not in in_title]
    if DIGEST in names:
        split = board.groups[0].settings.get("dataset.splits.test", "test")
        parts.insert(0, f"test set {split if len(splits) == len(alike) else own[DIGEST][:8]}")
    return ", ".join(parts)


def check_comparable(one: Group, other: Group) -> None:
    """Raise a UserError unless two groups were tested for the same task on the same examples."""
    differing = [
        f"{name} ({one.evaluation.get(name)} and {other.evaluation.get(name)})"
        for name in dict.fromkeys([*one.evaluation, *other.evaluation])
        if one.evaluation.get(name) != other.evaluation.get(name)
    ]
    if differing:
        datasets = [group.settings["dataset.name"] for group in (one, other)]
        raise UserError(
            f"a was tested on {datasets[0]} and b on {datasets[1]}, and they differ by {', '.join(differing)}; only results of "
            "one task on the same examples are compared, so choose groups that agree in that."
        )


def metric_of(group: Group) -> str:
    """The metric that the task of a group is compared by, as MLflow names it.

    Raises:
        UserError: the task is not registered.
    """
    name = group.settings["task.name"]
    if name not in TASKS:
        raise UserError(f"The task '{name}' of {group.title} is not registered; type metric=<name>, like metric=test/nll.")
    return f"test/{TASKS[name].leading_metric}"


def differing_settings(groups: Iterable[Group]) -> list[str]:
    """Names of the settings that differ between groups; of another strategy, which has other settings, its name alone."""
    names = differing(group.settings for group in groups)
    return [
        name for name in names if name == "strategy.name" or not ("strategy.name" in names and name.startswith("strategy."))
    ]


def _ranked(groups: list[Group], metric: str) -> list[Group]:
    return sorted(groups, key=lambda group: group.mean(metric), reverse=not metrics.lower_is_better(metric))


def _with_differences(groups: list[Group]) -> list[Group]:
    """The groups, each with the settings that differ between those of its name."""
    result = []
    for group in groups:
        names = differing_settings(other for other in groups if other.name == group.name)
        differences = {name.removesuffix(".name"): group.settings.get(name, "none") for name in names}
        result.append(Group(group.runs, group.settings, differences))
    return result
