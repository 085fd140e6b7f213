"""The runs in MLflow that record baselines: one for the same examples, task settings and code, to which all trainings refer.

What is computed is kept beside the data (`src.tasks.baselines.store`). These runs show it: one is made when a training, or
`src.baselines`, sends its results to an MLflow that has none yet. They have no recipe, so no comparison takes them for one.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException

from src.config.schema import Settings
from src.config.tasks import TASKS
from src.errors import UserError
from src.redaction import redact
from src.tracking import descriptions, provenance
from src.tracking.client import create_client, short_message, tracking_uri
from src.tracking.mlflow_patches import MLFLOW_DATASET_CONTEXT, MLFLOW_RUN_NOTE, resolve_tags
from src.tracking.outbox import file_lock

if TYPE_CHECKING:
    from src.datasets import Data
    from src.tasks.base import Task
    from src.tasks.baselines.store import BaselineResults

KIND = "baselines"  # value of the tag `usage_run.KIND_TAG`
DIGEST_TAG = "baselines.digest"  # of such a run
RUN_TAG = "baselines.run_id"  # of a training: the run that records its baselines
UNRELATED = ("dataset.data_dir", "dataset.storage", "dataset.epochs")  # settings that change no baseline


def describe(
    settings: Settings,
    data: "Data",
    inputs: Mapping[str, Mapping[str, str]],
    computed: "BaselineResults",
    digest: str,
    task: "Task",
) -> dict[str, Any]:
    """All that the run of baselines will have, in a form that JSON can hold.

    Args:
        settings: of a training whose baselines they are.
        data: its data set.
        inputs: {split: name, digest, source_type and source of an MLflow `Dataset`}.
        computed: results of the baselines.
        digest: of `store.digest_of`.
        task: whose baselines they are.
    """
    from src.tasks import report  # needs Keras, and the upload does not

    named = report.named_results(baselines=computed.metrics)
    names = ("name", *task.baseline_settings) if task.baseline_settings else type(settings.task).model_fields
    params = {name: str(value) for name, value in settings.flat().items() if name.startswith("dataset.")}
    params |= {f"task.{name}": str(getattr(settings.task, name)) for name in names}
    headline = report.strongest(settings.task.name, named, task.units)
    table = report.baselines_markdown(computed, task.units)
    return redact({
        "experiment": settings.tracking.experiment,
        "name": f"{KIND}-{settings.task.name}",
        "params": {name: value for name, value in params.items() if name not in UNRELATED},
        "tags": {"kind": KIND, "dataset": data.name, provenance.CODE_TAG: provenance.code_digest(), DIGEST_TAG: digest},
        "inputs": {split: dict(values) for split, values in inputs.items()},
        "metrics": named,
        "seconds": computed.seconds,
        "description": descriptions.of_baselines(TASKS[settings.task.name].title, data, headline, table, computed),
    })  # fmt: skip


def record(client: mlflow.MlflowClient, content: Mapping[str, Any]) -> str:
    """The id of the run that records baselines, which is made unless there is one.

    One that was left unfinished, since its process was killed, is completed.

    Args:
        client: MLflow's.
        content: of `describe`.
    """
    with file_lock(KIND):  # parallel jobs make one
        experiment = client.get_experiment_by_name(content["experiment"])
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(content["experiment"])
        runs = client.search_runs([experiment_id], f"tags.`{DIGEST_TAG}` = '{content['tags'][DIGEST_TAG]}'")
        finished = [run for run in runs if run.info.status == "FINISHED"]
        if finished:
            return finished[0].info.run_id
        return _complete(client, runs[0] if runs else _create(client, experiment_id, content), content)


def record_now(content: Mapping[str, Any]) -> str:
    """The same, with MLflow's client, for a command that makes such a run.

    Raises:
        UserError: MLflow does not answer.
    """
    try:
        return record(create_client(), content)
    except MlflowException as error:
        raise UserError(
            f"MLflow at {tracking_uri()} does not answer ({short_message(error)}); the baselines are kept beside the data, so "
            "type the same command again when it does."
        ) from error


def _create(client: mlflow.MlflowClient, experiment_id: str, content: Mapping[str, Any]) -> Run:
    start = time.time() - content["seconds"]  # so that the UI shows how long it took
    tags = resolve_tags({**content["tags"], MLFLOW_RUN_NOTE: content["description"]})
    return client.create_run(experiment_id, int(1000 * start), tags, content["name"])


def _complete(client: mlflow.MlflowClient, run: Run, content: Mapping[str, Any]) -> str:
    run_id, now = run.info.run_id, int(1000 * time.time())
    metrics = [Metric(name, value, now, 0) for name, value in {**content["metrics"], "seconds": content["seconds"]}.items()]
    client.log_batch(run_id, metrics, [Param(name, value) for name, value in content["params"].items()])
    datasets = [
        DatasetInput(Dataset(**each), [InputTag(MLFLOW_DATASET_CONTEXT, split)]) for split, each in content["inputs"].items()
    ]
    client.log_inputs(run_id, datasets)
    client.set_terminated(run_id, "FINISHED", run.info.start_time + int(1000 * content["seconds"]))
    return run_id
