"""Evaluates a finished run's model again: `python -m src.evaluate run=last`; on another test set: `… dataset=sunspots`."""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from src import cli, config, terminal
from src.errors import UserError

if TYPE_CHECKING:
    from src.datasets import Data
    from src.tracking.finished_runs import FinishedRun

USAGE = cli.Usage(
    "python -m src.evaluate run=<run> [dataset=<name>] [record=false]",
    "Evaluate a finished run's model again and compare the test metrics with those that were logged, bit for bit. MLflow gets "
    "a run of the evaluation, linked to the model and the data set.",
    ["python -m src.evaluate run=last", "python -m src.evaluate run=lstm-seed0 dataset=sunspots"],
    {
        "run": cli.RUN,
        "dataset": "evaluate on the test set of this data set instead; options: conf/dataset",
        "record": cli.RECORD,
    },
)


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    print(evaluate(**cli.parse_key_values(arguments, USAGE.settings, required=["run"])))
    return 0


def evaluate(run: str, dataset: str | None = None, record: str = "true") -> str:
    """Return a table of the logged and the new test metrics, and whether they are identical.

    Args:
        run: a finished run: its id, a prefix of it, its name, or `last`.
        dataset: name of a data set to evaluate on instead; nothing was logged for it.
        record: whether the evaluation becomes a run in MLflow: true or false.

    Raises:
        UserError: there is no such run, or the data set has other classes or other inputs.
    """
    recorded, other = cli.parse_bool("record", record), config.dataset(dataset) if dataset else None
    from src.tracking.finished_runs import FinishedRun
    from src.tracking.run_lookup import find_run_id

    stored = FinishedRun(find_run_id(run), "run")
    settings = original = stored.settings
    terminal.load_tensorflow()
    from src import datasets
    from src import experiment as runs
    from src.tasks import report
    from src.tracking import finished_runs
    from src.tracking.client import REFERENCE_CLASSIFIER_TAG
    from src.tracking.training_logger import dataset_input
    from src.training import strategies

    strategy = strategies.create(settings.strategy)
    data = datasets.load(settings.dataset)
    if other:
        data = _with_test_set_of(datasets.load(other), data)
    classifier_run = stored.tag(REFERENCE_CLASSIFIER_TAG)
    reference_classifier = finished_runs.load_reference_classifier(classifier_run, data) if classifier_run else None
    settings, task, model = runs.build_model(settings, data, strategy, reference_classifier)
    stored.load_weights(model)
    metrics = task.metrics(task.test, task.predict(model, task.test, settings.training.batch_size))
    if recorded:
        typed = {"run": stored.run_id} | ({"dataset": dataset} if dataset else {})
        _record(stored, typed, dataset_input(data, "test", (other or original.dataset).splits.test), metrics, task.units)
    model_on_data = f"{settings.model.name} on {data.source}"
    if other:
        return report.results_table(model_on_data, metrics, {}, {}, task.units)
    before = stored.metrics
    logged = {name: before[f"test/{name}"] for name in metrics if f"test/{name}" in before}
    different = [f"{name} by {abs(metrics[name] - value):.3g}" for name, value in logged.items() if metrics[name] != value]
    new = [name for name in metrics if name not in logged]  # the run is of a version that did not have them
    verdict = (
        f"Different from what was logged: {', '.join(different)}."
        if different
        else f"All {len(logged)} metrics {'that were logged ' if new else ''}are identical."
    )
    as_logged = dict.fromkeys(new, math.nan) | logged
    return f"{report.results_table(model_on_data, metrics, {}, {'as logged': as_logged}, task.units)}\n\n{verdict}"


def _record(
    stored: "FinishedRun", typed: dict[str, str], test_set: dict[str, str], metrics: dict[str, float], units: dict[str, str]
) -> None:
    """Make the evaluation a run in MLflow.

    Args:
        stored: the run whose model was evaluated.
        typed: {setting: value} of the command line.
        test_set: what it was evaluated on, as MLflow's `Dataset`.
        metrics: on it.
        units: {metric: unit} of the metrics that have one.
    """
    from src.tasks import report
    from src.tracking.usage_run import EVALUATION, usage_run

    command = shlex.join(["python", "-m", "src.evaluate", *(f"{name}={value}" for name, value in typed.items())])
    with usage_run(EVALUATION, stored, command, typed, {"test": test_set}) as run_logger:
        named = report.named_results(metrics)
        run_logger.log_metrics(named)
        run_logger.link_metrics(named, {key: test_set[key] for key in ("name", "digest")})
        table = report.results_markdown(f"{stored.name} on {test_set['name']}", metrics, {}, {}, units)
        run_logger.describe_run(f"Evaluation of [{stored.name}](run:{stored.run_id})\n\n{table}\n\n- Command: `{command}`")


def _with_test_set_of(other: "Data", data: "Data") -> "Data":
    """Return `data` with the test set of `other`, and with its validation set, which is the history of a series.

    Raises:
        UserError: their classes or the shapes of their inputs differ.
    """
    if other.classes != data.classes:
        raise UserError(f"dataset={other.name} has other classes than {data.name}, which the run was trained on.")
    inputs, trained = other.test.raw_inputs, data.test.raw_inputs
    if inputs.shape[1:] != trained.shape[1:] or inputs.dtype != trained.dtype:
        raise UserError(
            f"dataset={other.name} has inputs {inputs.shape[1:]} of {inputs.dtype}, and {data.name}, which the run was trained "
            f"on, {trained.shape[1:]} of {trained.dtype}."
        )
    times = {**other.times, "train": data.times["train"]} if data.times and other.times else {}
    series_lengths = {**other.series_lengths, "train": data.series_lengths.get("train", {})}
    return dataclasses.replace(
        data, validation=other.validation, test=other.test, name=other.name, source=other.source, slices={}, times=times,
        series_lengths=series_lengths,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run_command(main, USAGE)
