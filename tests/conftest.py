"""Fixtures: the folder of prepared data, settings, MLflow stores, commands, a finished run."""

import contextlib
import functools
import gc
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests import commands

if TYPE_CHECKING:
    import mlflow

    from src.config.schema import Settings
    from src.datasets import Data

CATALOGUE_DATA = "CATALOGUE_DATA_DIR"  # a TFDS data folder with data sets of the catalogue, prepared or downloaded


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of tests/src/test_golden.py."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew, from the settings as they are")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are cores: a test that waits for a server or a browser leaves its core to another.

    The smoke tests take less time than it takes to load TensorFlow in several processes.
    """
    return 0 if config.option.markexpr == "smoke" else (os.cpu_count() or 1) + 1


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For the smoke tests, import only the files that have some."""
    if config.option.markexpr == "smoke" and collection_path.suffix == ".py" and "smoke" not in collection_path.read_text():
        return True
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Load TensorFlow, except in the process that only distributes tests."""
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":
        from src import terminal

        terminal.load_tensorflow()
        from src.training import strategies

        gc.freeze()  # what was imported is not garbage: a million objects that each collection would look through
        gc.set_threshold(20_000, 20, 50)  # tracing graphs makes many objects: three times fewer collections, 4 % of the time
        strategies.prepare_devices()  # logical CPU devices: they cannot be made any more once TensorFlow has used one


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory) -> Path:
    """The folder of prepared data sets, shared by all test processes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tensorflow_datasets"
    folder.mkdir(exist_ok=True)
    os.environ["TFDS_DATA_DIR"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def settings(data_dir) -> Callable[..., "Settings"]:
    """settings("model=lstm", …): checked settings of a command line."""
    from hydra import compose, initialize_config_dir

    from src import config

    def composed(*overrides: str) -> "Settings":
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            return config.validate(compose("config", [*overrides, f"dataset.data_dir={data_dir}"]))

    return composed


@pytest.fixture(scope="session")
def load(settings) -> Callable[[str], "Data"]:
    """load("digits"): a data set."""
    from src import datasets

    recipe = {"dates": "transformer"}
    return lambda name: datasets.load(settings(f"model={recipe.get(name, 'lstm')}", f"dataset={name}").dataset)


@pytest.fixture(scope="session", autouse=True)
def database_template(tmp_path_factory) -> None:
    """The empty MLflow database that is copied for commands and tests."""
    from tests import database

    database.make_template(tmp_path_factory.mktemp("database") / "mlflow.db")
    database.copy_from_now_on()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory with MLflow's default store."""
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def store(here, monkeypatch) -> "mlflow.MlflowClient":
    """An MLflow store of its own: within one process MLflow remembers where `mlflow.db` was."""
    import mlflow

    from src.tracking import client

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    return client.create_client()


@pytest.fixture(scope="session")
def finished_run(settings, database_template, tmp_path_factory) -> SimpleNamespace:
    """A finished run of the CNN, for tests that only read it: its folder, its settings, its objective, and its id in MLflow."""
    import mlflow

    from src import experiment

    folder = tmp_path_factory.mktemp("finished_run")
    run_settings = settings("model=cnn", "training.epochs=2", "dataset.limit=128", "tracking.system_metrics_interval=1")
    (folder / "run.log").write_text("a line of the log\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        mlflow.set_tracking_uri(None)
        outcome = experiment.run(run_settings, log_file="run.log")
    return SimpleNamespace(folder=folder, settings=run_settings, objective=outcome.objective, run_id=outcome.run_id)


@pytest.fixture
def finished_copy(finished_run, here) -> SimpleNamespace:
    """The finished run in a working directory of its own, for tests that change it."""
    shutil.copytree(finished_run.folder, here, dirs_exist_ok=True)
    paths = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
    with contextlib.closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        for table, column in paths.items():  # which are absolute
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(finished_run.folder), str(here)))
    return SimpleNamespace(**{**vars(finished_run), "folder": here})


@pytest.fixture
def command(here) -> Callable[..., subprocess.CompletedProcess]:
    """command("model=lstm"): `python -m src.run model=lstm` in an empty working directory."""
    return functools.partial(commands.run, here)


@pytest.fixture(scope="session")
def own_data(tmp_path_factory) -> Path:
    """A folder with files of every kind that `dataset.path` can name, for tests that only read them."""
    from tests import own_data

    return own_data.make(tmp_path_factory.mktemp("own_data"))


@pytest.fixture
def catalogue_data() -> str:
    """A folder with data sets of the TFDS catalogue; without one the test is skipped."""
    if not os.environ.get(CATALOGUE_DATA):
        pytest.skip(f"{CATALOGUE_DATA} names no folder with data sets of the TFDS catalogue")
    return os.environ[CATALOGUE_DATA]
