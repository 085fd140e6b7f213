"""What it takes to ask MLflow something: it may be away, refuse, or be used for the first time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock
import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST, ErrorCode

from src.errors import UserError
from src.redaction import bare, redacted

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
        uri = bare(mlflow.get_tracking_uri())
        raise UserError(
            f"MLflow at {uri} does not answer ({first_line(error)}), and it has an earlier run that is needed here; type the "
            "same again when it does."
        ) from error


def first_line(error: Exception | None) -> str:
    """What an error says, in short."""
    return redacted(str(error).partition("\n")[0])[:200]


@contextlib.contextmanager
def first_use() -> Iterator[None]:
    """Lets one process at a time create the database: parallel first starts race on its migrations."""
    if mlflow.get_tracking_uri().startswith("sqlite:"):
        Path("mlruns").mkdir(exist_ok=True)
        with filelock.FileLock("mlruns/.first_use.lock"):
            yield
    else:
        yield
