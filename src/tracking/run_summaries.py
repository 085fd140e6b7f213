"""The finished runs that MLflow has, to be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from src.config import renamed
from src.tracking.client import asking, connected

PAGE = 1000  # runs in one request


@dataclass(frozen=True)
class Finished:
    """A run that has finished.

    Attributes:
        run_id: MLflow's.
        start: milliseconds since 1970.
        settings: {"training.epochs": "10", …}, as texts, by the names of this version.
        metrics: {"test/accuracy": 0.99, …}, the last value of each.
        tested_on: digest of its test part.
    """

    run_id: str
    start: int
    settings: Mapping[str, str]
    metrics: Mapping[str, float]
    tested_on: str


def finished() -> list[Finished]:
    """All of them that were made by this project, the newest first.

    Raises:
        UserError: MLflow does not answer.
    """
    runs, token = [], None
    with asking():
        client = connected()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    while experiments:
        with asking():
            page = client.search_runs(experiments, "attributes.status = 'FINISHED'", max_results=PAGE, page_token=token)
        runs += [_finished(run) for run in page if "model._target_" in run.data.params]
        token = page.token
        if not token:
            break
    return runs


def _finished(run: Run) -> Finished:
    digests = {
        tag.value: entry.dataset.digest
        for entry in (run.inputs.dataset_inputs if run.inputs else [])
        for tag in entry.tags
        if tag.key == MLFLOW_DATASET_CONTEXT
    }
    settings = renamed.migrate_params(run.data.params)
    return Finished(run.info.run_id, run.info.start_time, settings, run.data.metrics, digests.get("test", ""))


def curves(runs: Sequence[Finished], metric: str) -> dict[str, list[tuple[int, float]]]:
    """{run id: [(step, value), …]} of a metric, of the runs that have it."""
    with asking():
        client = connected()
        return {
            run.run_id: [(told.step, told.value) for told in client.get_metric_history(run.run_id, metric)]
            for run in runs
            if metric in run.metrics
        }
