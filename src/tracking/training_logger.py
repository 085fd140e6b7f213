"""The record of a run: what it tells MLflow, by way of its journal."""

import contextlib
import importlib.metadata
import json
import os
import shutil
from pathlib import Path

import keras
import mlflow
import numpy as np
import yaml
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema

from src.config import schema
from src.datasets import Data
from src.export import serving
from src.redaction import redacted
from src.tasks.base import Task
from src.tasks.reference_classifier import ReferenceClassifier
from src.tracking import provenance
from src.tracking.client import CHECKPOINTS, FINGERPRINT, WEIGHTS
from src.tracking.outbox import Journal
from src.tracking.run_logger import Account
from src.training.checkpoint import CheckpointManager, TrainingState

# What a logged model needs to be loaded and served; left to itself MLflow finds out by loading it, which takes seconds.
SERVING = ("tensorflow", "numpy", "pandas", "tokenizers", "annotated-types")
PARTS = ("train", "validation", "test")


class Record(Account):
    """What a training tells.

    Args:
        journal: of the run.
        resumed: the state that it goes on from, if it goes on.
    """

    def __init__(self, journal: Journal, resumed: TrainingState | None = None):
        super().__init__(journal)
        self.resumed = resumed
        self._waiting: Path | None = None  # where the last checkpoint was until it was told

    def checkpoint(self, path: Path) -> None:
        """A checkpoint, for another machine to go on from; it takes the place of the last but one.

        Nothing is told as long as the one before it waits to be: a server that is away shall not fill the disk.
        """
        if self._waiting is not None and self._waiting.exists():
            return
        with contextlib.suppress(OSError):  # a full disk: what the training has to tell will say so
            self._upload(path)

    def _upload(self, path: Path) -> None:
        number = self.journal.facts.get("uploads", 0)
        self.journal.know(uploads=number + 1)
        with self.journal.event("files", where=CHECKPOINTS) as folder:
            (folder / "files").mkdir()
            copy = folder / "files" / f"{number % 2}.npz"
            try:
                os.link(path, copy)
            except OSError:  # not on every file system
                shutil.copy2(path, copy)
        self._waiting = folder.with_suffix("")

    @property
    def keeper(self) -> CheckpointManager:
        """Of the checkpoints of this run."""
        return CheckpointManager(self.journal.checkpoints, self.resumed, on_saved=self.checkpoint, on_failed=self._failed)

    def _failed(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            self.tags(**{"checkpoint.failure": str(error)})

    @property
    def spent(self) -> float:
        """Seconds of training before the run was cut short, that were not in vain."""
        return self.keeper.elapsed

    def judge(self, judge: ReferenceClassifier) -> None:
        """Whose eyes generated images were seen with, and how good they are."""
        self.tags(judge=judge.run_id)
        self.metrics({"judge/accuracy": judge.accuracy})

    def model(self, task: Task, model: keras.Model, example: np.ndarray, classes: tuple[str, ...]) -> None:
        """A model that `mlflow.pyfunc.load_model("runs:/<run id>/model")` loads and `mlflow models serve` serves."""
        with self.journal.event("model", name="model") as folder:
            answer, owners = task.serving_fn(model)
            answers = serving.save(answer, owners, example, str(folder / "saved_model"), task.encoder)
            texts = example.dtype == object
            inputs = Schema([ColSpec("string")]) if texts else infer_signature(example).inputs
            mlflow.pyfunc.save_model(
                str(folder / "files"),
                loader_module=serving.__name__,
                data_path=str(folder / "saved_model"),
                signature=ModelSignature(inputs=inputs, outputs=infer_signature(example, answers).outputs),
                input_example=example.tolist() if texts else example,
                pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in SERVING],
                metadata={"classes": list(classes)} if classes else None,
            )
            shutil.rmtree(folder / "saved_model")

    def weights(self, model: keras.Model) -> None:
        """The weights: with the recorded settings they are the model again, for later runs to learn from."""
        with self.journal.event("files", where=None) as folder:
            (folder / "files").mkdir()
            model.save_weights(folder / "files" / WEIGHTS)

    # --- from the beginning to the end ------------------------------------------------------------------------------

    def introduce(self, chosen: schema.Settings, data: Data) -> None:
        """Who the run is."""
        inputs = {
            part: {
                "name": data.name,
                "digest": getattr(data, part).digest,
                "source_type": "code",
                "source": json.dumps({"tags": {"tfds": data.source, "split": split}}),
            }
            for part, split in chosen.dataset.splits.model_dump().items()
        }
        self.begin(chosen.flat(), _tags(chosen), inputs)
        config = yaml.safe_dump(chosen.model_dump(by_alias=True), sort_keys=False, allow_unicode=True)
        diff = provenance.git("diff", "HEAD")
        self.texts(redacted({"config.yaml": config} | ({"uncommitted.diff": diff} if diff else {})))


def _tags(chosen: schema.Settings) -> dict[str, str]:
    tags = {
        "model": chosen.model.name,
        "dataset": chosen.dataset.name,
        "task": chosen.task.name,
        "strategy": chosen.strategy.name,
        "settings.digest": chosen.digest(),
        FINGERPRINT: chosen.fingerprint(),
        "precision": chosen.training.precision,
        "command": provenance.command(),
    }
    return tags | provenance.stack()


def surroundings(data: Data) -> dict[str, str]:
    """What a run's results depend on, besides its settings: code, versions, machine, and the data's digests."""
    return provenance.stack() | {f"data.{part}": getattr(data, part).digest for part in PARTS}
