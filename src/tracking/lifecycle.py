"""Starts the MLflow run of a training, or resumes an interrupted one: from its local outbox, or from what MLflow has of it."""

import contextlib
import functools
import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from src import config, terminal
from src.config.schema import Settings
from src.datasets import Data
from src.errors import UserError
from src.metrics import EPOCH
from src.redaction import redact
from src.tracking.client import (
    CHECKPOINT_ARTIFACTS,
    FINGERPRINT_TAG,
    OUTBOX_TAG,
    create_client,
    short_message,
    tracking_uri,
)
from src.tracking.mlflow_patches import MLFLOW_USER, last_metrics, resolve_tags
from src.tracking.outbox import Outbox
from src.tracking.provenance import CODE_TAG, code_digest, command, is_this_command
from src.tracking.status import sync, track
from src.tracking.system import SystemMetricsMonitor
from src.tracking.training_logger import TrainingLogger
from src.training import checkpoint

log = logging.getLogger(__name__)

OTHER_VERSION = (
    "{} was started by another version of the code, in which settings had other names or defaults; to finish it, type its "
    "command in that version (the tag git.commit of the run)."
)
STALE_AFTER = 600  # seconds without a new metric after which a running run on another machine is considered dead


@contextlib.contextmanager
def training_run(
    settings: Settings, data: Data, log_file: str | None, sweep: dict[str, str] | None = None
) -> Iterator[TrainingLogger]:
    """The MLflow run of a training: an interrupted run with the same settings that is resumed, or else a new one.

    Args:
        settings: of the run.
        data: its data set.
        log_file: path of the log, which becomes an artifact.
        sweep: outbox and experiment of the sweep that the run is a job of (`JobStore.sweep`).

    Raises:
        UserError: `resume` names a run that cannot be resumed.
    """
    with terminal.phase("Looking for an interrupted run in MLflow"):
        outbox, resumed = _open_outbox(settings, sweep)
    run_logger = TrainingLogger(outbox, resumed)
    threading.Thread(target=sync, name="sync", daemon=True).start()
    log_start = functools.partial(_log_start, run_logger, settings, data, log_file)
    with track(run_logger, log_start), SystemMetricsMonitor(run_logger, settings.tracking.system_metrics_interval):
        yield run_logger


def _log_start(run_logger: TrainingLogger, settings: Settings, data: Data, log_file: str | None) -> None:
    outbox = run_logger.outbox
    metadata = outbox.metadata
    outbox.reserve_space()
    if "started" not in metadata:
        run_logger.log_start(settings, data)
    else:
        if "status" not in metadata:
            run_logger.log_log_file()  # of the previous process, which was killed before it could
        run_logger.resume()
    log_path = str(Path(log_file).resolve()) if log_file else None
    outbox.update_metadata(started=True, status=None, log=log_path, processes=metadata.get("processes", 0) + 1)


def _open_outbox(settings: Settings, sweep: dict[str, str] | None) -> tuple[Outbox, checkpoint.TrainingState | None]:
    """The locked outbox of the run to resume, and its checkpoint; or a new outbox."""
    _check_experiment(settings.tracking.experiment)
    fingerprint, uri = settings.fingerprint(), tracking_uri()
    if settings.resume != "never":
        interrupted = _find_local(settings, fingerprint, uri) or _find_remote(settings, fingerprint)
        if interrupted is not None:
            return interrupted, _read_checkpoint(interrupted)
    new = Outbox.create(
        fingerprint=fingerprint, uri=uri, experiment=settings.tracking.experiment,
        name=_name(settings), code=code_digest(), command=redact(command()), sweep=sweep,
    )  # fmt: skip
    return new, None


def _name(settings: Settings) -> str:
    return redact(settings.tracking.run_name or config.run_name(settings))


def _find_local(settings: Settings, fingerprint: str, uri: str) -> Outbox | None:
    """The outbox in this folder of the run to resume, locked.

    Raises:
        UserError: `resume` names a run with other settings.
    """
    for outbox in Outbox.all():
        metadata = outbox.metadata
        if metadata.get("uri") != uri or metadata.get("closed"):
            continue
        if settings.resume == metadata.get("run_id"):
            _check_settings(settings, metadata["fingerprint"] == fingerprint, metadata["command"])
        elif settings.resume != "auto":
            continue
        elif metadata["fingerprint"] != fingerprint:
            same_name = metadata["name"] == _name(settings) and not metadata.get("sweep")  # a sweep gives all jobs its command
            if same_name and is_this_command(metadata["command"]):
                run = f"An interrupted run of this command ({metadata.get('run_id', 'it has no id yet')})"
                log.info("%s Starting a new run.", OTHER_VERSION.format(run))
            continue
        elif metadata["code"] != code_digest():
            run_id = metadata.get("run_id", "it has no id yet")
            log.info("An interrupted run has these settings, but the code has changed: starting a new run. (Old: %s.)", run_id)
            continue
        if outbox.try_lock():
            return outbox
    return None


def _check_settings(settings: Settings, equal: bool, command: str) -> None:
    if not equal and is_this_command(command):
        raise UserError(OTHER_VERSION.format(f"resume={settings.resume}"))
    if not equal:
        raise UserError(f"resume={settings.resume} is a run with other settings; it was: {command}")


def _check_experiment(name: str) -> None:
    with contextlib.suppress(MlflowException):  # a server that does not answer is no error here
        experiment = create_client().get_experiment_by_name(name)
        if experiment and experiment.lifecycle_stage == "deleted":
            raise UserError(
                f"The experiment '{name}' was deleted in MLflow; type mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}, or tracking.experiment=<another name>."
            )


def _read_checkpoint(outbox: Outbox) -> checkpoint.TrainingState | None:
    state = checkpoint.read(outbox.checkpoints)
    place = f"epoch {state.epoch + 1}, step {state.step}" if state else "the beginning, since it has no checkpoint"
    log.info("Resuming an interrupted run from %s. (resume=never starts a new one.)", place)
    if outbox.metadata["code"] != code_digest():
        log.warning("The code has changed since this run started, so no single version of it reproduces the run.")
    return state


def _find_remote(settings: Settings, fingerprint: str) -> Outbox | None:
    """A new outbox for the run to resume, made from what MLflow has of it: the old one is on another machine, or lost.

    Raises:
        UserError: `resume` names no run that can be resumed.
    """
    try:
        client = create_client()
        if settings.resume == "auto":
            experiment = client.get_experiment_by_name(settings.tracking.experiment)
            query = (
                f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}' and tags.`{MLFLOW_USER}` = '{resolve_tags()[MLFLOW_USER]}' "
                f"and tags.`{CODE_TAG}` = '{code_digest()}' and attributes.status != 'FINISHED'"
            )
            runs = client.search_runs([experiment.experiment_id], query) if experiment else []
        else:
            runs = [client.get_run(settings.resume)]
            tags = runs[0].data.tags
            _check_settings(
                settings, tags.get(FINGERPRINT_TAG) == fingerprint, tags.get("command", "made with an earlier version")
            )
        for run in runs:
            last_metric = max((metric.timestamp for metric in last_metrics(run)), default=run.info.start_time)
            dead = run.info.status != "RUNNING" or time.time() - last_metric / 1000 > STALE_AFTER
            is_local = run.data.tags[OUTBOX_TAG] in {outbox.folder.name for outbox in Outbox.all()}
            resumable = (dead or settings.resume == run.info.run_id) and not is_local
            if resumable and client.list_artifacts(run.info.run_id, CHECKPOINT_ARTIFACTS):
                return _download_outbox(run, settings)
    except MlflowException as error:
        if settings.resume != "auto":
            raise UserError(f"resume={settings.resume} names no run that MLflow has: {short_message(error)}") from None
        log.warning("MLflow at %s does not answer, so an interrupted run on another machine cannot be found.", tracking_uri())
    if settings.resume != "auto":
        raise UserError(
            f"resume={settings.resume} cannot be resumed: it has finished, it runs in this folder, or it has no checkpoint."
        )
    return None


def _download_outbox(run: mlflow.entities.Run, settings: Settings) -> Outbox:
    tags, run_id = run.data.tags, run.info.run_id
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=CHECKPOINT_ARTIFACTS, dst_path=scratch)
        return Outbox.create(
            checkpoints=Path(checkpoints), last_steps={metric.key: metric.step for metric in last_metrics(run)},
            history=_history(run),
            fingerprint=tags[FINGERPRINT_TAG], uri=tracking_uri(), experiment=settings.tracking.experiment,
            name=run.info.run_name, code=tags[CODE_TAG], command=tags["command"], run_id=run_id, started=True,
            experiment_id=run.info.experiment_id,
        )  # fmt: skip


def _history(run: mlflow.entities.Run) -> list[tuple[int, dict[str, float]]]:
    """What MLflow has of the learning curves: (epoch, {metric: value})."""
    client, names = create_client(), [name for name in run.data.metrics if name.startswith(EPOCH)]
    return [(m.step, {name: m.value}) for name in names for m in client.get_metric_history(run.info.run_id, name)]
