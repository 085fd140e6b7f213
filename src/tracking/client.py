"""What it takes to ask MLflow something: it may be away, refuse, or be used for the first time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST, ErrorCode
from sqlalchemy import make_url

from src.errors import UserError
from src.redaction import bare, redacted
from src.tracking.outbox import UNFINISHED, one_at_a_time

JOURNAL = "journal"  # tag: which journal a run was made from, so that it is made once
FINGERPRINT = "settings.fingerprint"  # tag: what two commands have in common of which one goes on where the other was cut short
CHECKPOINTS = "checkpoints"  # folder of artifacts
WEIGHTS = "model.weights.h5"  # artifact
# What MLflow refuses for good. (BAD_REQUEST is not among them: it says so if two processes write the same row at once.)
HOPELESS = {ErrorCode.Name(code) for code in (INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST)}


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Where something of an earlier run is needed; that MLflow has no such thing is passed on as its own exception.

    Raises:
        UserError: MLflow does not answer.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code in HOPELESS:
            raise
        raise UserError(
            f"MLflow at {address()} does not answer ({first_line(error)}), and it has an earlier run that is needed here; "
            "type the same again when it does."
        ) from error


def address() -> str:
    """Where MLflow is, without the password that may stand in it."""
    return bare(mlflow.get_tracking_uri())


def first_line(error: Exception | None) -> str:
    """What an error says, in short."""
    return redacted(str(error).partition("\n")[0])[:200]


def connected(uri: str | None = None) -> mlflow.MlflowClient:
    """Whom to ask. A database that is a file is created here, by one process and as a whole: first starts side by side race on
    its migrations, and half a database, left by a process that is killed meanwhile, can be neither used nor upgraded.

    Args:
        uri: of MLflow; the one in force unless given.

    Raises:
        UserError: the database cannot be created.
    """
    uri = uri or mlflow.get_tracking_uri()
    file = make_url(uri).database if uri.startswith("sqlite:///") else None
    if file and file != ":memory:" and not os.path.exists(file):
        try:
            with one_at_a_time("first_use"):
                _create(Path(file))
        except OSError as error:
            raise UserError(
                f"MLflow's database {file} cannot be created ({error}); let MLFLOW_TRACKING_URI name another place."
            ) from error
    return mlflow.MlflowClient(uri)


def _create(path: Path) -> None:
    if not path.exists():  # else another process has created it meanwhile
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(UNFINISHED)
        unfinished.write_bytes(b"")  # left to find out that it cannot be written, MLflow would try for minutes
        mlflow.MlflowClient(f"sqlite:///{unfinished}")
        os.replace(unfinished, path)
