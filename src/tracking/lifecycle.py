"""How a training begins, or goes on where it was cut short: here, or from what MLflow has of it."""

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
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_USER

from src.config import schema
from src.datasets import Data
from src.errors import UserError
from src.redaction import redacted
from src.tracking.client import CHECKPOINTS, FINGERPRINT, JOURNAL, address, connected, first_line
from src.tracking.outbox import Journal
from src.tracking.provenance import CODE, code, command
from src.tracking.status import settle, told
from src.tracking.system import SystemMetrics
from src.tracking.training_logger import Record
from src.training import checkpoint

log = logging.getLogger(__name__)

GONE = 600  # seconds without a word after which a run on another machine counts as gone


@contextlib.contextmanager
def run(chosen: schema.Settings, data: Data, log_file: str | None, sweep: dict[str, str] | None = None) -> Iterator[Record]:
    """A training in MLflow: a new run, or one with the same settings that was cut short and goes on.

    Args:
        chosen: the settings.
        data: the data set.
        log_file: a log that is kept with the run.
        sweep: what it is a job of (`JobStore.sweep`).

    Raises:
        UserError: `resume` names a run that cannot go on.
    """
    journal, resumed = _open(chosen, sweep)
    record = Record(journal, resumed)
    threading.Thread(target=settle, name="settle", daemon=True).start()
    begin = functools.partial(_begin, record, chosen, data, log_file)
    with told(record, begin), SystemMetrics(record, chosen.tracking.system_metrics_interval):
        yield record


def _begin(record: Record, chosen: schema.Settings, data: Data, log_file: str | None) -> None:
    facts = record.journal.facts
    record.journal.reserve()
    if "begun" not in facts:
        record.introduce(chosen, data)
    else:
        if "status" not in facts:
            record.log()  # of the process that ended without a word
        record.again()
    log_path = str(Path(log_file).resolve()) if log_file else None
    record.journal.know(begun=True, status=None, log=log_path, processes=facts.get("processes", 0) + 1)


def _open(chosen: schema.Settings, sweep: dict[str, str] | None) -> tuple[Journal, checkpoint.State | None]:
    _check_experiment(chosen.tracking.experiment)
    fingerprint, uri = chosen.fingerprint(), address()
    if chosen.resume != "never":
        found = _here(chosen, fingerprint, uri) or _elsewhere(chosen, fingerprint)
        if found is not None:
            return _go_on(found)
    name = redacted(chosen.tracking.run_name or f"{chosen.experiment or chosen.model.name}-seed{chosen.seed}")
    experiment = chosen.tracking.experiment
    return Journal.new(
        fingerprint=fingerprint,
        uri=uri,
        experiment=experiment,
        name=name,
        code=code(),
        command=redacted(command()),
        sweep=sweep,
    ), None


def _here(chosen: schema.Settings, fingerprint: str, uri: str) -> Journal | None:
    """The journal in this folder of the run to go on with, claimed.

    Raises:
        UserError: `resume` names a run with other settings.
    """
    for journal in Journal.all():
        facts = journal.facts
        if facts.get("uri") != uri or facts.get("over"):
            continue
        if chosen.resume == facts.get("run_id"):
            _check_settings(chosen, facts["fingerprint"] == fingerprint, facts["command"])
        elif chosen.resume != "auto" or facts["fingerprint"] != fingerprint:
            continue
        elif facts["code"] != code():
            name = facts.get("run_id", "it has no id yet")
            log.info(
                "A run with these settings was cut short, but the code was another; this is a new one. (The old one: %s.)", name
            )
            continue
        if journal.claim():
            return journal
    return None


def _check_settings(chosen: schema.Settings, equal: bool, command: str) -> None:
    if not equal:
        raise UserError(f"resume={chosen.resume} is a run with other settings; it was: {command}")


def _check_experiment(name: str) -> None:
    with contextlib.suppress(MlflowException):  # a server that is away is no mistake
        experiment = connected().get_experiment_by_name(name)
        if experiment and experiment.lifecycle_stage == "deleted":
            raise UserError(
                f"The experiment '{name}' was deleted in MLflow; type mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}, or tracking.experiment=<another name>."
            )


def _go_on(journal: Journal) -> tuple[Journal, checkpoint.State | None]:
    state = checkpoint.read(journal.checkpoints)
    place = f"epoch {state.epoch + 1}, step {state.step}" if state else "the beginning, for want of a checkpoint"
    log.info("This run was cut short; it goes on from %s. (resume=never starts afresh.)", place)
    if journal.facts["code"] != code():
        log.warning("The code has changed since, so no one version of it reproduces this run.")
    return journal, state


def _elsewhere(chosen: schema.Settings, fingerprint: str) -> Journal | None:
    """A journal of the run to go on with, made from what MLflow has of it: its own is on another machine, or is lost.

    Raises:
        UserError: `resume` names no run that can go on.
    """
    try:
        client = connected()
        if chosen.resume == "auto":
            experiment = client.get_experiment_by_name(chosen.tracking.experiment)
            mine = f"tags.`{FINGERPRINT}` = '{fingerprint}' and tags.`{MLFLOW_USER}` = '{resolve_tags()[MLFLOW_USER]}'"
            wanted = f"{mine} and tags.`{CODE}` = '{code()}' and attributes.status != 'FINISHED'"
            runs = client.search_runs([experiment.experiment_id], wanted) if experiment else []
        else:
            runs = [client.get_run(chosen.resume)]
            tags = runs[0].data.tags
            _check_settings(chosen, tags.get(FINGERPRINT) == fingerprint, tags.get("command", "made with an earlier version"))
        for run in runs:
            last = max((metric.timestamp for metric in run.data._metric_objs), default=run.info.start_time)
            gone = run.info.status != "RUNNING" or time.time() - last / 1000 > GONE
            known = run.data.tags[JOURNAL] in {journal.folder.name for journal in Journal.all()}
            if (gone or chosen.resume == run.info.run_id) and not known and client.list_artifacts(run.info.run_id, CHECKPOINTS):
                return _fetched(run, chosen)
    except MlflowException as error:
        if chosen.resume != "auto":
            raise UserError(f"resume={chosen.resume} names no run that MLflow has: {first_line(error)}") from None
        log.warning("MLflow at %s does not answer; whether this run was cut short before is not known.", address())
    if chosen.resume != "auto":
        raise UserError(
            f"resume={chosen.resume} cannot go on: it has finished, it runs in this folder, or it left no checkpoint."
        )
    return None


def _fetched(run: mlflow.entities.Run, chosen: schema.Settings) -> Journal:
    tags, run_id = run.data.tags, run.info.run_id
    with tempfile.TemporaryDirectory() as scratch:
        found = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=CHECKPOINTS, dst_path=scratch)
        return Journal.new(
            checkpoints=Path(found), said={metric.key: metric.step for metric in run.data._metric_objs},
            fingerprint=tags[FINGERPRINT], uri=address(), experiment=chosen.tracking.experiment,
            name=run.info.run_name, code=tags[CODE], command=tags["command"], run_id=run_id, begun=True,
        )  # fmt: skip
