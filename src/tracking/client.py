"""The MLflow client: creating it, its errors, and the names of tags and artifacts that several modules use."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url

from src.errors import UserError
from src.redaction import redact, strip_credentials
from src.tracking.outbox import PARTIAL_SUFFIX, file_lock

OUTBOX_TAG = "journal"  # name of the outbox that a run was created from, so that it is created only once
FINGERPRINT_TAG = "settings.fingerprint"  # equal for runs one of which can resume the other
REFERENCE_CLASSIFIER_TAG = "reference_classifier"  # id of the run whose classifier measured generated images
RENAMED_TAGS = {"judge": REFERENCE_CLASSIFIER_TAG}  # of runs of earlier versions
CHECKPOINT_ARTIFACTS = "checkpoints"  # folder
ALIAS = "champion"  # of the version of a registered model that was registered last
XLA_TAG = "jit_compile"  # whether XLA compiled the training step, which training.jit_compile=auto does not say
MEASUREMENT_TAG = "measurement"  # what the test metrics were measured with
PREDICTIONS_FILE = "test_predictions.parquet"  # artifact with the results for each example of the test set
WEIGHTS_FILE = "model.weights.h5"  # artifact
# Requests that will never succeed. BAD_REQUEST is not one of them: MLflow returns it if two processes write a row at once.
PERMANENT_ERRORS = {"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST"}


def current_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a stored run, as this version names them."""
    return {RENAMED_TAGS.get(name, name): value for name, value in tags.items()}


@contextlib.contextmanager
def require_mlflow() -> Iterator[None]:
    """Turn connection errors into a `UserError`, where a run cannot go on without MLflow. Permanent errors are passed on.

    Raises:
        UserError: MLflow does not answer.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code in PERMANENT_ERRORS:
            raise
        raise UserError(
            f"MLflow at {tracking_uri()} does not answer ({short_message(error)}), and an earlier run is needed from it; "
            "type the same command again when it does."
        ) from error


def tracking_uri() -> str:
    """MLflow's tracking URI without user name and password."""
    return strip_credentials(mlflow.get_tracking_uri())


def short_message(error: Exception | None) -> str:
    """The first line of an error's message, at most 200 characters, without secrets."""
    return redact(str(error).partition("\n")[0])[:200]


def create_client(uri: str | None = None) -> mlflow.MlflowClient:
    """An MLflow client; a missing SQLite database is created first.

    The database is created under a lock and appears as a whole: MLflow's migrations fail if several processes run them at once,
    and a database left half migrated by a killed process can be neither used nor upgraded.

    Args:
        uri: tracking URI; the current one unless given.

    Raises:
        UserError: the database cannot be created.
    """
    uri = uri or mlflow.get_tracking_uri()
    file = make_url(uri).database if uri.startswith("sqlite:///") else None
    if file and file != ":memory:" and not os.path.exists(file):
        try:
            with file_lock("create_database"):
                _create_database(Path(file))
        except OSError as error:
            raise UserError(
                f"MLflow's database {file} cannot be created ({error}); set MLFLOW_TRACKING_URI to another place."
            ) from error
    return mlflow.MlflowClient(uri)


def _create_database(path: Path) -> None:
    if not path.exists():  # otherwise another process created it while this one waited for the lock
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(PARTIAL_SUFFIX)
        partial.write_bytes(b"")  # fails at once if the folder is not writable; MLflow would retry for minutes
        mlflow.MlflowClient(f"sqlite:///{partial}")
        os.replace(partial, path)
