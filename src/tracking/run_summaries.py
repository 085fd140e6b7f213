"""Summaries of all finished runs in MLflow, for comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pyarrow.parquet
from mlflow.entities import Run

from src.config import renamed
from src.metrics import current_name, stored_names
from src.tracking import pages
from src.tracking.client import (
    MEASUREMENT_TAG,
    PREDICTIONS_FILE,
    REFERENCE_CLASSIFIER_TAG,
    create_client,
    current_tags,
    require_mlflow,
)
from src.tracking.mlflow_patches import MLFLOW_DATASET_CONTEXT

PAGE_SIZE = 1000  # runs of one request


@dataclass(frozen=True)
class RunSummary:
    """A finished run.

    Attributes:
        run_id: MLflow's.
        start_time: milliseconds since 1970.
        settings: {"training.epochs": "10", …}, as this version names them; values are texts.
        metrics: {"test/accuracy": 0.99, …}, as this version names them; the last value of each.
        test_digest: digest of its test set.
        experiment_id: MLflow's.
        measurement: what its test metrics were measured with: `Task.measurement`, or the id of the reference classifier's run.
    """

    run_id: str
    start_time: int
    settings: Mapping[str, str]
    metrics: Mapping[str, float]
    test_digest: str
    experiment_id: str = ""
    measurement: str = ""

    @property
    def url(self) -> str:
        """Its page in MLflow's UI, on the server or where `mlflow ui` listens."""
        return pages.address(pages.run_page(self.experiment_id, self.run_id))[0]


def load_summaries() -> list[RunSummary]:
    """All finished runs of this project, newest first.

    Raises:
        UserError: MLflow does not answer.
    """
    summaries, token = [], None
    with require_mlflow():
        client = create_client()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    while experiments:
        with require_mlflow():
            page = client.search_runs(experiments, "attributes.status = 'FINISHED'", max_results=PAGE_SIZE, page_token=token)
        summaries += [_summarize(run) for run in page if "model._target_" in run.data.params]
        token = page.token
        if not token:
            break
    return summaries


def _summarize(run: Run) -> RunSummary:
    digests = {
        tag.value: entry.dataset.digest
        for entry in (run.inputs.dataset_inputs if run.inputs else [])
        for tag in entry.tags
        if tag.key == MLFLOW_DATASET_CONTEXT
    }
    settings, tags = renamed.migrate_params(run.data.params), current_tags(run.data.tags)
    values = {current_name(name): value for name, value in run.data.metrics.items()}
    return RunSummary(
        run.info.run_id, run.info.start_time, settings, values, digests.get("test", ""), run.info.experiment_id,
        tags.get(MEASUREMENT_TAG, tags.get(REFERENCE_CLASSIFIER_TAG, "")),  # earlier versions name the classifier alone
    )  # fmt: skip


def load_predictions(run_id: str) -> dict[str, np.ndarray] | None:
    """The results of a run for each example of the test set (`Task.example_results`); None if it has stored none."""
    try:
        path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=PREDICTIONS_FILE)
        table = pyarrow.parquet.read_table(path)
    except (mlflow.MlflowException, OSError):
        return None
    return {name: table[name].to_numpy() for name in table.column_names}


def metric_histories(runs: Sequence[RunSummary], metric: str) -> dict[str, list[tuple[int, float]]]:
    """The learning curves {run id: [(step, value), …]} of a metric, of those runs that have it."""
    with require_mlflow():
        client = create_client()
        return {
            run.run_id: [
                (point.step, point.value)
                for name in stored_names(metric)
                for point in client.get_metric_history(run.run_id, name)
            ]
            for run in runs
            if metric in run.metrics
        }
