"""Brings to MLflow what is in a journal, in order, while the run goes on; what cannot be brought waits on disk."""

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
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

from src.redaction import bare
from src.tracking.client import CHECKPOINTS, HOPELESS, JOURNAL, connected
from src.tracking.outbox import METRICS, Event, Journal, one_at_a_time

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that the end of a run waits for a server that does not answer
TOGETHER = 20  # times that metrics were told, in one request; MLflow takes up to 1,000 metrics
LOOK = 0.25  # seconds between two looks into the outbox
WAITS = (0.5, 30.0)  # seconds between two attempts to reach a server that does not answer: at first, and at most


class Delivery:
    """Delivers a journal's events from a thread of its own, as a context; the journal is locked by this process."""

    def __init__(self, journal: Journal):
        self.journal = journal
        self.away_since: float | None = None  # when MLflow stopped answering
        self.why: Exception | None = None  # what was in the way the last time
        self._hurry, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="delivery", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ending.set()
        self._thread.join()

    def flush(self) -> bool:
        """Waits until all is told, but not long for a server that does not answer. Returns whether all is told."""
        began = time.monotonic()
        self._hurry.set()
        while not self.journal.empty:
            if self.away_since is not None and time.monotonic() - max(self.away_since, began) > PATIENCE:
                return False
            time.sleep(0.02)
        return True

    def _work(self) -> None:
        wait = WAITS[0]
        while not self._ending.is_set():
            self.why = deliver(self.journal)
            if self.why is None:
                self.away_since, wait = None, WAITS[0]
                self._ending.wait(LOOK)
            else:
                self.away_since = self.away_since or time.monotonic()
                if self._hurry.is_set():
                    self._ending.wait(WAITS[0])
                else:
                    self._hurry.wait(wait)
                    wait = min(2 * wait, WAITS[1])


def deliver(journal: Journal) -> Exception | None:
    """Tells MLflow what is pending, the oldest first. Returns what was in the way, if not all could be told.

    What MLflow refuses for good is set aside, into `refused/` of the journal, and said; but a run that it does not let begin
    waits.
    """
    for events in _at_once(journal.pending()):
        try:
            _tell(journal, *events)
        except Exception as error:  # whatever the network, the server and the database can do
            if events[0].kind == "begin" or getattr(error, "error_code", None) not in HOPELESS:
                log.debug("MLflow does not answer", exc_info=True)
                return error
            log.warning("MLflow refuses %s of a run: %s", events[0].kind, error)
            for event in events:
                event.set_aside(journal.refused)
        else:
            for event in events:
                event.delivered()
    return None


def _at_once(events: list[Event]) -> Iterator[list[Event]]:
    """What goes in one request: metrics that follow each other, and everything else by itself."""
    together: list[Event] = []
    for event in events:
        if together and (event.kind != METRICS or len(together) == TOGETHER):
            yield together
            together = []
        if event.kind == METRICS:
            together.append(event)
        else:
            yield [event]
    if together:
        yield together


def _tell(journal: Journal, event: Event, *more: Event) -> None:
    uri, here = journal.facts["uri"], mlflow.get_tracking_uri()
    client = connected(here if bare(here) == uri else uri)  # a journal holds no password
    facts = event.facts
    if event.kind == "begin":
        journal.know(run_id=_begin(client, facts))
        return
    run_id = journal.facts["run_id"]
    match event.kind:
        case "again":
            client.update_run(run_id, status="RUNNING")
            if "failure" in client.get_run(run_id).data.tags:
                client.delete_tag(run_id, "failure")
        case "tags":
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in facts["tags"].items()])
        case "metrics":
            # With the same time as before, MLflow takes what it was told already for what it is.
            each = [told.facts for told in (event, *more)]
            metrics = [Metric(key, value, told["time"], told["step"]) for told in each for key, value in told["values"].items()]
            client.log_batch(run_id, metrics=metrics)
        case "files":
            client.log_artifacts(run_id, str(event.folder / "files"), facts["where"])
        case "model":
            _model(client, run_id, event.folder / "files", facts["name"])
        case "end":
            client.set_terminated(run_id, facts["status"], facts["time"])
            if facts["status"] == "FINISHED":
                with contextlib.suppress(NotImplementedError, MlflowException):  # not every store of artifacts can forget
                    get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts(CHECKPOINTS)


def _begin(client: mlflow.MlflowClient, facts: dict) -> str:
    """The id of the run, which is made unless that was done and could not be noted."""
    with one_at_a_time("experiment"):
        experiment = client.get_experiment_by_name(facts["experiment"])
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(facts["experiment"])
        client.set_experiment_tag(
            experiment_id, "mlflow.experimentKind", "custom_model_development"
        )  # else the UI shows language models
    if facts.get("sweep"):
        facts["tags"][MLFLOW_PARENT_RUN_ID] = _sweep(client, **facts["sweep"])
    made = client.search_runs([experiment_id], f"tags.{JOURNAL} = '{facts['tags'][JOURNAL]}'", max_results=1)
    run = made[0] if made else client.create_run(experiment_id, facts["time"], facts["tags"], facts["name"])
    client.log_batch(run.info.run_id, params=[Param(name, str(value)) for name, value in facts["params"].items()])
    inputs = [
        DatasetInput(Dataset(**data), [InputTag(MLFLOW_DATASET_CONTEXT, context)]) for context, data in facts["inputs"].items()
    ]
    client.log_inputs(run.info.run_id, datasets=inputs)
    return run.info.run_id


def _sweep(client: mlflow.MlflowClient, journal: str, experiment: str) -> str:
    """The id of a sweep's run, which another process may be about to make.

    Raises:
        LookupError: it is not there yet.
    """
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], f"tags.{JOURNAL} = '{journal}'") if found else []
    if not runs:
        raise LookupError(f"its sweep {journal} has not begun")
    return runs[0].info.run_id


def _model(client: mlflow.MlflowClient, run_id: str, folder: Path, name: str) -> None:
    run = client.get_run(run_id)
    made = client.create_logged_model(run.info.experiment_id, name, run_id, params=run.data.params)
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    client.log_model_artifacts(made.model_id, str(folder))
    client.finalize_logged_model(made.model_id, "READY")
