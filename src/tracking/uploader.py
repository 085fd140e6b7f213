"""Uploads the events of an outbox to MLflow, in order, while the run goes on; what cannot be uploaded stays in the outbox."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from src.redaction import strip_credentials
from src.tracking.client import CHECKPOINT_ARTIFACTS, OUTBOX_TAG, PERMANENT_ERRORS, create_client
from src.tracking.mlflow_patches import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, delete_artifacts
from src.tracking.outbox import METRICS_EVENT, Event, Outbox, file_lock

log = logging.getLogger(__name__)

FLUSH_TIMEOUT = 5.0  # seconds that the end of a run waits for a server that does not answer
MAX_BATCH = 20  # metrics events in one request; MLflow accepts up to 1,000 metrics
POLL_INTERVAL = 0.25  # seconds between two checks for new events
MIN_RETRY_DELAY, MAX_RETRY_DELAY = 0.5, 30.0  # seconds; the delay doubles with each failed attempt


class Uploader:
    """Context manager that uploads the events of an outbox from a thread. This process holds the lock of the outbox.

    Attributes:
        failing_since: time.monotonic() of the first of the failed attempts in a row; None if the last one succeeded.
        last_error: of the last attempt; None if it succeeded.
    """

    def __init__(self, outbox: Outbox):
        self.outbox = outbox
        self.failing_since: float | None = None
        self.last_error: Exception | None = None
        self._flushing, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def flush(self) -> bool:
        """Wait until the outbox is empty, or until MLflow has not answered for FLUSH_TIMEOUT. Return whether it is empty."""
        start = time.monotonic()
        self._flushing.set()
        while not self.outbox.is_empty:
            if self.failing_since is not None and time.monotonic() - max(self.failing_since, start) > FLUSH_TIMEOUT:
                return False
            time.sleep(0.02)
        return True

    def _work(self) -> None:
        delay = MIN_RETRY_DELAY
        while not self._stop.is_set():
            self.last_error = upload(self.outbox)
            if self.last_error is None:
                self.failing_since, delay = None, MIN_RETRY_DELAY
                self._stop.wait(POLL_INTERVAL)
            else:
                self.failing_since = self.failing_since or time.monotonic()
                if self._flushing.is_set():
                    self._stop.wait(MIN_RETRY_DELAY)
                else:
                    self._flushing.wait(delay)
                    delay = min(2 * delay, MAX_RETRY_DELAY)


def upload(outbox: Outbox) -> Exception | None:
    """Upload the pending events, oldest first. Return the error if not all of them could be uploaded.

    An event that MLflow rejects for good is moved to `rejected/`, with a warning; but the start of a run is retried.
    """
    for events in _batches(outbox.pending()):
        try:
            _send(outbox, events)
        except Exception as error:  # anything that the network, the server or the database can raise
            if events[0].kind == "start" or getattr(error, "error_code", None) not in PERMANENT_ERRORS:
                log.debug("MLflow does not answer", exc_info=True)
                return error
            log.warning("MLflow rejects %s of a run: %s", events[0].kind, error)
            for event in events:
                event.reject(outbox.rejected)
        else:
            for event in events:
                event.delete()
    return None


def _batches(events: list[Event]) -> Iterator[list[Event]]:
    """Groups of events for one request each: consecutive metrics together, every other event alone."""
    batch: list[Event] = []
    for event in events:
        if batch and (event.kind != METRICS_EVENT or len(batch) == MAX_BATCH):
            yield batch
            batch = []
        if event.kind == METRICS_EVENT:
            batch.append(event)
        else:
            yield [event]
    if batch:
        yield batch


def _send(outbox: Outbox, events: list[Event]) -> None:
    """Send one event, or several of metrics, to MLflow."""
    uri, current = outbox.metadata["uri"], mlflow.get_tracking_uri()
    client = create_client(current if strip_credentials(current) == uri else uri)  # the outbox stores no password
    event = events[0]
    payload = event.payload
    if event.kind == "start":
        outbox.update_metadata(run_id=_create_run(client, payload))
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
        case "files":
            client.log_artifacts(run_id, str(event.folder / "files"), payload["artifact_path"])
        case "model":
            _log_model(client, run_id, event.folder / "files", payload["name"])
        case "end":
            client.set_terminated(run_id, payload["status"], payload["time"])
            if payload["status"] == "FINISHED":
                with contextlib.suppress(NotImplementedError, MlflowException):  # not every artifact store can delete
                    delete_artifacts(client, run_id, CHECKPOINT_ARTIFACTS)


def _create_run(client: mlflow.MlflowClient, payload: dict) -> str:
    """The id of the run, which is created unless an earlier attempt did so and was interrupted before the id was stored."""
    with file_lock("experiment"):
        experiment = client.get_experiment_by_name(payload["experiment"])
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(payload["experiment"])
        # Otherwise MLflow's UI shows its views for language models.
        client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
    if payload.get("sweep"):
        payload["tags"][MLFLOW_PARENT_RUN_ID] = _parent_run_id(client, **payload["sweep"])
    runs = client.search_runs([experiment_id], f"tags.{OUTBOX_TAG} = '{payload['tags'][OUTBOX_TAG]}'", max_results=1)
    run = runs[0] if runs else client.create_run(experiment_id, payload["time"], payload["tags"], payload["name"])
    client.log_batch(run.info.run_id, params=[Param(name, str(value)) for name, value in payload["params"].items()])
    inputs = [
        DatasetInput(Dataset(**data), [InputTag(MLFLOW_DATASET_CONTEXT, split)]) for split, data in payload["inputs"].items()
    ]
    client.log_inputs(run.info.run_id, datasets=inputs)
    return run.info.run_id


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


def _log_model(client: mlflow.MlflowClient, run_id: str, folder: Path, name: str) -> None:
    run = client.get_run(run_id)
    model = client.create_logged_model(run.info.experiment_id, name, run_id, params=run.data.params)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
