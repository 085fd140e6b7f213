"""A template of MLflow's database, copied instead of creating new ones, which takes MLflow over a second."""

import os
import shutil
from pathlib import Path

import mlflow

from src.tracking import client
from src.tracking.outbox import PARTIAL_SUFFIX

TEMPLATE = "MLFLOW_DATABASE_TEMPLATE"  # environment variable: the path of an empty one


def make_template(path: Path) -> None:
    """Makes the database that is copied, by this process and by those that it starts through tests/forkserver.py."""
    mlflow.MlflowClient(f"sqlite:///{path}")
    os.environ[TEMPLATE] = str(path)


def copy_from_now_on() -> None:
    """Makes this process copy the template where it would create a database; all else is as `client.create_client` does it."""
    client._create_database = copy


def copy(path: Path) -> None:
    """A new database at a path, unless there is one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(PARTIAL_SUFFIX)
        shutil.copy(os.environ[TEMPLATE], unfinished)
        os.replace(unfinished, path)
