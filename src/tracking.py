"""The record of a run, in MLflow. The only module that knows MLflow."""

import contextlib
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import filelock
import keras
import mlflow
import numpy as np
import pydantic
import yaml
from matplotlib.figure import Figure
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema

from src import compression, serving, settings
from src.datasets import Data
from src.errors import UserError
from src.tasks import Judge, LanguageModeling, Task, Writer

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
logging.getLogger("mlflow").setLevel(logging.ERROR)  # importing MLflow has set it to INFO: every step of its own set-up

# What a logged model needs to be loaded and served; left to itself MLflow finds out by loading it, which takes seconds.
SERVING = ("tensorflow", "numpy", "pandas", "tokenizers", "annotated-types")
WEIGHTS = "model.weights.h5"
FREE = {"dropout", "pooling"}  # hyperparameters of a language model that its weights do not depend on
STACK = ("tensorflow", "keras", "tensorflow-datasets", "hydra-core", "mlflow", "numpy")


class Record:
    """What a run tells MLflow. Made by `run`."""

    def __init__(self, run: mlflow.ActiveRun):
        self.run_id, self.name = run.info.run_id, run.info.run_name
        self.experiment_id = run.info.experiment_id
        self.experiment = mlflow.get_experiment(self.experiment_id).name

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers, all in one call."""
        mlflow.log_metrics(dict(values), step=step)

    def figures(self, figures: Mapping[str, Figure | str]) -> None:
        """Keeps figures as pictures, or as the HTML pages that they are."""
        for name, figure in figures.items():
            if isinstance(figure, str):
                mlflow.log_text(figure, f"figures/{name}")
            else:
                mlflow.log_figure(figure, f"figures/{name}", save_kwargs={"dpi": 100})

    def texts(self, texts: Mapping[str, str]) -> None:
        """Keeps texts under the names of files."""
        for name, text in texts.items():
            mlflow.log_text(text, name)

    def judge(self, judge: Judge) -> None:
        """Tells whose eyes generated images were seen with, and how good they are."""
        mlflow.set_tag("judge", judge.run_id)
        self.metrics({"judge/accuracy": judge.accuracy})

    def files(self, folder: str, where: str) -> None:
        """Keeps all the files of a folder under the name `where`."""
        mlflow.log_artifacts(folder, where)

    def model(self, task: Task, model: keras.Model, example: np.ndarray, classes: tuple[str, ...]) -> None:
        """Keeps a model that `mlflow.pyfunc.load_model("runs:/<run id>/model")` loads and `mlflow models serve` serves."""
        with tempfile.TemporaryDirectory() as scratch:
            answer, owners = task.served(model)
            answers = serving.save(answer, owners, example, f"{scratch}/saved_model", task.encoder)
            texts = example.dtype == object
            inputs = Schema([ColSpec("string")]) if texts else infer_signature(example).inputs
            mlflow.pyfunc.log_model(
                name="model",
                loader_module=serving.__name__,
                data_path=f"{scratch}/saved_model",
                signature=ModelSignature(inputs=inputs, outputs=infer_signature(example, answers).outputs),
                input_example=example.tolist() if texts else example,
                pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in SERVING],
                metadata={"classes": list(classes)} if classes else None,
            )

    def weights(self, model: keras.Model) -> None:
        """Keeps the weights: with the recorded settings they are the model again, for later runs to learn from."""
        with tempfile.TemporaryDirectory() as scratch:
            model.save_weights(f"{scratch}/{WEIGHTS}")
            mlflow.log_artifact(f"{scratch}/{WEIGHTS}")

    def where(self) -> str:
        """How a person finds the run."""
        return f"experiment '{self.experiment}', run '{self.name}' ({self.run_id})"


def teacher(chosen: settings.Settings, task: Task) -> Callable[[], keras.Model]:
    """What makes the model of the run `compression.teacher`, once it is called.

    Raises:
        UserError: there is no such run, or it kept no weights.
    """
    stored = Stored(chosen.compression.teacher, "compression.teacher")
    return lambda: compression.teacher(stored.settings, stored.weights, chosen, task)


def pretrained(chosen: settings.Settings) -> tuple[settings.Settings, Writer]:
    """The language model of the run `model.pretrained`, and the settings with its tokens, which go with its weights.

    Raises:
        UserError: there is no such run, or it is not one of a language model of the same recipe and size.
    """
    name = f"model.pretrained={chosen.model.pretrained}"
    stored = Stored(chosen.model.pretrained, "model.pretrained")
    try:
        theirs = settings.Settings.model_validate(stored.settings)
    except pydantic.ValidationError:
        raise UserError(f"{name} was made with another version of this project; choose a run of this one.") from None
    if (theirs.task.name, theirs.model.target) != ("language_modeling", chosen.model.target):
        raise UserError(
            f"{name} is a run of {theirs.model.name} that learned {theirs.task.name}; choose one of {chosen.model.name} that "
            "learned language_modeling."
        )
    mine = chosen.model.hyperparameters
    other = {key: value for key, value in theirs.model.hyperparameters.items() if value != mine[key] and key not in FREE}
    if other:
        raise UserError(f"{name} has another size; type {' '.join(f'model.{key}={value}' for key, value in other.items())}.")
    writer = LanguageModeling.restored(theirs, stored.text(LanguageModeling.KEPT), stored.weights)
    tokens = {"tokens": theirs.task.tokens, "context": theirs.task.context}
    if chosen.task.name == "text_classification":
        tokens = {"unit": theirs.task.tokens, "vocabulary": len(writer.vocabulary), "length": theirs.task.context}
    return chosen.model_copy(update={"task": chosen.task.model_copy(update=tokens)}), writer


def same(chosen: settings.Settings) -> str | None:
    """The id of the newest finished run that learned with the same settings; None if there is none."""
    with _first_use():
        experiment = mlflow.get_experiment_by_name(chosen.tracking.experiment)
    if experiment is None:
        return None
    wanted = f"tags.`settings.digest` = '{chosen.digest()}' and attributes.status = 'FINISHED'"
    found = mlflow.search_runs([experiment.experiment_id], wanted, max_results=1, output_format="list")
    return found[0].info.run_id if found else None


class Stored:
    """What a finished run left behind.

    Args:
        run_id: of the run.
        setting: the setting that names it, for messages.

    Attributes:
        settings: as it recorded them.
        weights: the path of its weights.

    Raises:
        UserError: there is no such run, or it kept no weights.
    """

    def __init__(self, run_id: str, setting: str):
        self.run_id = run_id
        try:
            self.settings = yaml.safe_load(self.text("config.yaml"))
            self.weights = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{WEIGHTS}")
        except (mlflow.MlflowException, OSError):
            raise UserError(
                f"{setting}={run_id} names no finished run; its id stands at the end of its log and in the MLflow UI."
            ) from None

    def metric(self, name: str) -> float:
        """The last value of one of its metrics."""
        return mlflow.get_run(self.run_id).data.metrics[name]

    def text(self, name: str) -> str:
        """One of the texts that it kept."""
        return mlflow.artifacts.load_text(f"runs:/{self.run_id}/{name}")


@contextlib.contextmanager
def run(chosen: settings.Settings, data: Data, log_file: str | None) -> Iterator[Record]:
    """Opens a run in MLflow and closes it with a status that is true.

    FINISHED if the block ended; KILLED on Ctrl-C or a signal; FAILED on any other exception, with its last line as the tag
    `failure` and its traceback among the artifacts. The log goes along in each case.
    """
    with _first_use():
        mlflow.set_experiment(chosen.tracking.experiment)
    mlflow.set_experiment_tag("mlflow.experimentKind", "custom_model_development")  # else the UI shows pages on language models
    mlflow.set_system_metrics_sampling_interval(chosen.tracking.system_metrics_interval)
    mlflow.set_system_metrics_samples_before_logging(1)
    name = chosen.tracking.run_name or f"{chosen.model.name}-seed{chosen.seed}"
    started = mlflow.start_run(run_name=name, tags=_tags(chosen), log_system_metrics=True)
    status = "FAILED"
    try:
        _log_settings(chosen)
        _log_data(chosen.dataset, data)
        _log_code()
        yield Record(started)
        status = "FINISHED"
    except KeyboardInterrupt:  # Ctrl-C, or a signal that `src.run` turns into it
        status = "KILLED"
        raise
    except Exception as error:
        mlflow.set_tag("failure", f"{type(error).__name__}: {error}"[:5000])
        mlflow.log_text(traceback.format_exc(), "traceback.txt")
        raise
    finally:
        if log_file and Path(log_file).exists():
            mlflow.log_artifact(log_file)
        mlflow.end_run(status)


@contextlib.contextmanager
def _first_use() -> Iterator[None]:
    """Lets one process at a time create the database: parallel first starts race on its migrations."""
    if mlflow.get_tracking_uri().startswith("sqlite:"):
        Path("mlruns").mkdir(exist_ok=True)
        with filelock.FileLock("mlruns/.first_use.lock"):
            yield
    else:
        yield


def _tags(chosen: settings.Settings) -> dict[str, str]:
    tags = {
        "model": chosen.model.name,
        "dataset": chosen.dataset.name,
        "task": chosen.task.name,
        "strategy": chosen.strategy.name,
        "settings.digest": chosen.digest(),
        "precision": chosen.training.precision,
        "backend": keras.config.backend(),
        "python": platform.python_version(),
        "command": " ".join(["python -m src.run", *sys.argv[1:]]),
    }
    for package in STACK:
        tags[f"version.{package}"] = importlib.metadata.version(package)
    return tags


def _log_settings(chosen: settings.Settings) -> None:
    mlflow.log_params(chosen.flat())
    mlflow.log_text(yaml.safe_dump(chosen.model_dump(by_alias=True), sort_keys=False, allow_unicode=True), "config.yaml")


def _log_data(chosen: settings.Dataset, data: Data) -> None:
    for name, split in chosen.splits.model_dump().items():
        source = CodeDatasetSource(tags={"tfds": data.source, "split": split})
        mlflow.log_input(MetaDataset(source, name=data.name, digest=getattr(data, name).digest), context=name)


def _log_code() -> None:
    """The commit that runs, and what differs from it. Nothing outside a git checkout, or where git is not installed."""
    commit, diff = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    if commit:
        mlflow.set_tags({"git.commit": commit.strip(), "git.dirty": str(bool(diff)).lower()})
    if commit and diff:
        mlflow.log_text(diff, "uncommitted.diff")


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
