"""What each kind of event asks of MLflow. All of it may be repeated: an earlier attempt may have been interrupted anywhere."""

import contextlib
from pathlib import Path

import mlflow
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from PIL import Image

from src.redaction import strip_credentials
from src.tracking import baseline_runs, descriptions, pages
from src.tracking.client import ALIAS, CHECKPOINT_ARTIFACTS, OUTBOX_TAG, create_client
from src.tracking.mlflow_patches import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
    delete_artifacts,
    last_metrics,
)
from src.tracking.outbox import IMAGE_FILE, Event, Outbox, file_lock

MAX_RUN_NOTE, MAX_MODEL_NOTE = 8000, 5000  # characters that MLflow keeps of a description


def send(outbox: Outbox, events: list[Event]) -> None:
    """Send one event, or several of metrics, to MLflow.

    Args:
        outbox: of the run.
        events: of it.

    Raises:
        Exception: anything that the network, the server or the database can raise.
    """
    uri, current = outbox.metadata["uri"], mlflow.get_tracking_uri()
    client = create_client(current if strip_credentials(current) == uri else uri)  # the outbox stores no password
    event = events[0]
    payload = event.payload
    if event.kind == "start":
        run = _create_run(client, payload)
        outbox.update_metadata(run_id=run.info.run_id, experiment_id=run.info.experiment_id)
        return
    run_id = outbox.metadata["run_id"]
    match event.kind:
        case "resume":
            client.update_run(run_id, status="RUNNING")
            for tag in client.get_run(run_id).data.tags:
                if tag == "failure" or tag.startswith("failure."):
                    client.delete_tag(run_id, tag)
        case "tags":
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in payload["tags"].items()])
        case "metrics":
            # A metric that is sent again after an interruption has the same time, by which MLflow recognises the duplicate.
            payloads = [event.payload for event in events]
            metrics = [
                Metric(name, value, payload["time"], payload["step"])
                for payload in payloads
                for name, value in payload["values"].items()
            ]
            client.log_batch(run_id, metrics=metrics)
        case "model_metrics":
            _link_metrics(client, run_id, outbox.metadata.get("model_id"), **payload)
        case "description":
            _describe(client, outbox, payload["text"])
        case "baselines":
            client.set_tag(run_id, baseline_runs.RUN_TAG, baseline_runs.record(client, payload["content"]))
        case "files":
            client.log_artifacts(run_id, str(event.folder / "files"), payload["artifact_path"])
        case "model":
            _log_model(client, outbox, event.folder / "files", payload["name"])
        case "image":
            _log_image(client, run_id, event.folder / IMAGE_FILE, **payload)
        case "register":
            _register(client, payload["run_id"] or run_id, payload["run_id"] is not None, payload["name"])
        case "end":
            client.set_terminated(run_id, payload["status"], payload["time"])
            if payload["status"] == "FINISHED":
                with contextlib.suppress(NotImplementedError, MlflowException):  # not every artifact store can delete
                    delete_artifacts(client, run_id, CHECKPOINT_ARTIFACTS)


def _create_run(client: mlflow.MlflowClient, payload: dict) -> Run:
    """The run, which is created unless an earlier attempt did so and was interrupted before its id was stored."""
    with file_lock("experiment"):
        experiment = client.get_experiment_by_name(payload["experiment"])
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(payload["experiment"])
        if payload.get("ranking"):
            _describe_experiment(client, experiment_id, payload["time"], **payload["ranking"])
    if payload.get("sweep"):
        payload["tags"][MLFLOW_PARENT_RUN_ID] = _parent_run_id(client, **payload["sweep"])
    runs = client.search_runs([experiment_id], f"tags.{OUTBOX_TAG} = '{payload['tags'][OUTBOX_TAG]}'", max_results=1)
    run = runs[0] if runs else client.create_run(experiment_id, payload["time"], payload["tags"], payload["name"])
    client.log_batch(run.info.run_id, params=[Param(name, str(value)) for name, value in payload["params"].items()])
    inputs = [
        DatasetInput(Dataset(**data), [InputTag(MLFLOW_DATASET_CONTEXT, split)]) for split, data in payload["inputs"].items()
    ]
    recorded = client.get_run(run.info.run_id).inputs  # MLflow links no model twice, and a search does not return them
    linked = [model.model_id for model in recorded.model_inputs] if recorded else []
    models = [LoggedModelInput(model_id) for model_id in payload.get("models", []) if model_id not in linked]
    client.log_inputs(run.info.run_id, datasets=inputs, models=models)
    return run


def _describe_experiment(client: mlflow.MlflowClient, experiment_id: str, time: int, task: str, description: str) -> None:
    """Add to an experiment the view that ranks the runs of a task, and a link to it; what users have written is kept."""
    tags = client.get_experiment(experiment_id).tags
    note, link = tags.get(MLFLOW_RUN_NOTE) or description, descriptions.ranking_link(experiment_id, task)
    view = tags.get(f"{pages.VIEW_TAG}{task}")
    ranking = pages.ranking_view(task, time) if view is None or pages.ranks_by_old_name(view) else {}
    for name, value in ({MLFLOW_RUN_NOTE: note if link in note else f"{note} {link}"} | ranking).items():
        if tags.get(name) != value:
            client.set_experiment_tag(experiment_id, name, value)


def _describe(client: mlflow.MlflowClient, outbox: Outbox, text: str) -> None:
    metadata = outbox.metadata
    parent = _parent_run_id(client, **metadata["sweep"]) if metadata.get("sweep") else None
    text = pages.fill_in(text, metadata["run_id"], parent, lambda run_id: client.get_run(run_id).info.experiment_id)
    client.set_tag(metadata["run_id"], MLFLOW_RUN_NOTE, _cut(text, MAX_RUN_NOTE))
    if "model_id" in metadata and not metadata.get("uses_model"):
        client.set_logged_model_tags(metadata["model_id"], {MLFLOW_RUN_NOTE: _cut(text, MAX_MODEL_NOTE)})


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _link_metrics(
    client: mlflow.MlflowClient, run_id: str, model_id: str | None, names: list[str], dataset: dict[str, str]
) -> None:
    """Log metrics of a run again, with the model; MLflow recognises that the run has them already."""
    if model_id is None:
        return
    data = {f"dataset_{name}": value for name, value in dataset.items()}
    logged = [metric for metric in last_metrics(client.get_run(run_id)) if metric.key in names]
    metrics = [Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=run_id, **data) for m in logged]
    client.log_batch(run_id, metrics=metrics)


def _log_image(client: mlflow.MlflowClient, run_id: str, path: Path, key: str, step: int, time: int) -> None:
    """Log an image, unless an earlier attempt did so completely and was interrupted afterwards: the small copy comes last."""
    logged = [item.path for item in client.list_artifacts(run_id, "images")]
    name = key.replace("/", "~")
    if not any(f"/{name}+step+{step}+timestamp+{time}+" in path and path.endswith(".webp") for path in logged):
        with Image.open(path) as image:
            client.log_image(run_id, image, key=key, step=step, timestamp=time)


def _register(client: mlflow.MlflowClient, run_id: str, of_job: bool, name: str) -> None:
    """Register the model that a run has logged, and point the alias to this version.

    Raises:
        LookupError: MLflow does not have the model yet: the run is a job of the sweep, and still being uploaded.
        MlflowException: the run has logged no model.
    """
    run = client.get_run(run_id)
    if not run.outputs or not run.outputs.model_outputs:
        if of_job and run.info.status == "RUNNING":
            raise LookupError(f"the model of the run {run_id} has not been uploaded yet")
        raise MlflowException.invalid_parameter_value(f"the run {run_id} has logged no model")
    model_id = run.outputs.model_outputs[0].model_id
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = [v for v in client.search_model_versions(f"name = '{name}'") if v.source == f"models:/{model_id}"]
    note = client.get_logged_model(model_id).tags.get(MLFLOW_RUN_NOTE)
    version = versions[0] if versions else client.create_model_version(
        name, f"models:/{model_id}", run_id, description=note, model_id=model_id
    )  # fmt: skip
    client.set_registered_model_alias(name, ALIAS, version.version)


def _parent_run_id(client: mlflow.MlflowClient, journal: str, experiment: str) -> str:
    """The id of a sweep's run, which another process may be about to create.

    Args:
        client: MLflow's.
        journal: name of the outbox of the sweep.
        experiment: name of its experiment.

    Raises:
        LookupError: the run does not exist yet.
    """
    parent = client.get_experiment_by_name(experiment)
    runs = client.search_runs([parent.experiment_id], f"tags.{OUTBOX_TAG} = '{journal}'") if parent else []
    if not runs:
        raise LookupError(f"the run of the sweep {journal} has not been created yet")
    return runs[0].info.run_id


def _log_model(client: mlflow.MlflowClient, outbox: Outbox, folder: Path, name: str) -> None:
    run_id, model_id = outbox.metadata["run_id"], outbox.metadata.get("model_id")
    run = client.get_run(run_id)
    if model_id is None:  # otherwise an earlier attempt created it
        model_id = client.create_logged_model(run.info.experiment_id, name, run_id, params=run.data.params).model_id
        outbox.update_metadata(model_id=model_id)
    if model_id not in [model.model_id for model in (run.outputs.model_outputs if run.outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    client.log_model_artifacts(model_id, str(folder))
    client.finalize_logged_model(model_id, "READY")
