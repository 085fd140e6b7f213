"""What it takes to ask MLflow something: it may be away, refuse, or be used for the first time."""

import contextlib
from collections.abc import Iterator

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST, ErrorCode

from src.errors import UserError
from src.journal import one_at_a_time
from src.redaction import bare, redacted

JOURNAL = "journal"  # tag: which journal a run was made from, so that it is made once
FINGERPRINT = "settings.fingerprint"  # tag: what two commands have in common of which one goes on where the other was cut short
CHECKPOINTS = "checkpoints"  # folder of artifacts
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


def first_use() -> contextlib.AbstractContextManager[None]:
    """Lets one process at a time create the database: parallel first starts race on its migrations."""
    return one_at_a_time("first_use") if mlflow.get_tracking_uri().startswith("sqlite:") else contextlib.nullcontext()
