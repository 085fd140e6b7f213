"""The MLflow run of a command that uses a finished run's model: an evaluation or a generation, linked to model and data set."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from src.redaction import redact
from src.tracking import provenance
from src.tracking.client import tracking_uri
from src.tracking.finished_runs import FinishedRun
from src.tracking.outbox import Outbox
from src.tracking.run_logger import RunLogger
from src.tracking.status import sync, track

KIND_TAG = "kind"  # sweep, evaluation or generation; a training has none
EVALUATION, GENERATION = "evaluation", "generation"


@contextlib.contextmanager
def usage_run(
    kind: str, stored: FinishedRun, command: str, params: Mapping[str, Any], inputs: Mapping[str, Mapping[str, str]]
) -> Iterator[RunLogger]:
    """The run of an evaluation or a generation, in the experiment of the run whose model it uses.

    Args:
        kind: EVALUATION or GENERATION.
        stored: the run whose model is used.
        command: with which it was started.
        params: {setting: value}.
        inputs: {split: name, digest, source_type and source of an MLflow `Dataset`}.
    """
    model_id = stored.model_id
    outbox = Outbox.create(
        fingerprint="", uri=tracking_uri(), experiment=stored.experiment, name=f"{kind}-{stored.name}",
        code=provenance.code_digest(), command=redact(command), model_id=model_id, uses_model=True,
    )  # fmt: skip
    run_logger = RunLogger(outbox)
    tags = {
        KIND_TAG: kind,
        "source.run_id": stored.run_id,
        "command": command,
        **provenance.environment(stored.settings.strategy),
    }

    def log_start() -> None:
        run_logger.start(params, tags, inputs, models=[model_id] if model_id else [])
        outbox.update_metadata(started=True)

    threading.Thread(target=sync, name="sync", daemon=True).start()
    with track(run_logger, log_start, announce=kind == EVALUATION):  # texts that are generated may be piped
        try:
            yield run_logger
        finally:
            outbox.update_metadata(closed=True)  # the same command starts a new run, whatever happened
