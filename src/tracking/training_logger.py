"""What a training logs in addition to what every run does: data set, checkpoints, weights, and the model that MLflow serves."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import keras
import yaml
from matplotlib.figure import Figure

from src.config.schema import Settings
from src.datasets import Data
from src.datasets.splits import AUTO, SAME
from src.figures import style
from src.metrics import ABLATION, BASELINE
from src.redaction import redact
from src.tasks.base import Task
from src.tasks.baselines.store import BaselineResults
from src.tasks.learning_curves import best_epoch, learning_curves
from src.tasks.reference_classifier import ReferenceClassifier
from src.tasks.report import headline, named_results
from src.tracking import baseline_runs, descriptions, logged_model, provenance
from src.tracking.client import CHECKPOINT_ARTIFACTS, FINGERPRINT_TAG, REFERENCE_CLASSIFIER_TAG, WEIGHTS_FILE
from src.tracking.outbox import Outbox
from src.tracking.run_logger import RunLogger
from src.tracking.system import PREFIX
from src.training import strategies
from src.training.checkpoint import CheckpointManager, TrainingState

SPLITS = ("train", "validation", "test")


class TrainingLogger(RunLogger):
    """Logs a training.

    Args:
        outbox: of the run.
        resumed: the checkpoint that the run resumes from; None for a new run.
    """

    def __init__(self, outbox: Outbox, resumed: TrainingState | None = None):
        super().__init__(outbox)
        self.resumed = resumed
        self._queued_checkpoint: Path | None = None  # folder of its event, which exists until it is uploaded

    def log_start(self, settings: Settings, data: Data) -> None:
        """Log the start of a new training: settings, provenance and data set."""
        ranking = {"task": settings.task.name, "description": descriptions.of_experiment(data.name, data.source)}
        self.start(settings.flat(), _tags(settings), dataset_inputs(settings, data), ranking)
        config = yaml.safe_dump(settings.model_dump(by_alias=True), sort_keys=False, allow_unicode=True)
        diff = provenance.git("diff", "HEAD")
        self.log_texts(redact({"config.yaml": config} | ({"uncommitted.diff": diff} if diff else {})))
        self._describe(settings, data)

    def log_baselines(self, settings: Settings, data: Data, computed: BaselineResults, digest: str, task: Task) -> None:
        """Log results of baselines, and refer to the run that records them, which is made if MLflow has none yet.

        If one has failed, there is no such run: the next training tries it again.

        Args:
            settings: of the run.
            data: its data set.
            computed: results of the baselines.
            digest: of all that they depend on.
            task: whose baselines they are.
        """
        self.log_metrics(named_results(baselines=computed.metrics))
        if computed.failed:
            return
        content = baseline_runs.describe(settings, data, dataset_inputs(settings, data), computed, digest, task)
        with self.outbox.add_event("baselines", content=content):
            pass

    def log_worker_metrics(self, index: int, metrics: Mapping[str, float]) -> None:
        """Log system metrics of another worker under its number: system/worker_1/cpu_utilization_percentage.

        Args:
            index: of the worker.
            metrics: as its own run would log them.
        """
        named = {name.replace(PREFIX, f"{PREFIX}worker_{index}/", 1): value for name, value in metrics.items()}
        with contextlib.suppress(OSError):  # the disk is full: the training will report it
            self.log_metrics(named, self.outbox.last_step(f"{PREFIX}worker_{index}/") + 1)

    def log_learning_curves(self, settings: Settings, results: Mapping[str, float], units: Mapping[str, str]) -> None:
        """Log the figure of the learning curves, which stands in the description of the run, too.

        Args:
            settings: of the run.
            results: test metrics and those of the baselines, as MLflow names them.
            units: {metric: unit} of the metrics that have one.
        """

        def draw() -> dict[str, Figure | str]:
            training, curves = settings.training, self.outbox.history()
            keeps_best = training.restore_best_weights and not settings.compression.sparsity
            kept = best_epoch(curves, training.monitor) if keeps_best else None
            figure = learning_curves(curves, settings.task.name, results, units, kept)
            return style.label({descriptions.LEARNING_CURVES: figure}, settings.subject)

        self.log_figures(draw, folder=None)  # among the other figures it would not come first

    def log_results(
        self,
        settings: Settings,
        data: Data,
        table: str,
        results: Mapping[str, float],
        cost: Mapping[str, float],
        units: Mapping[str, str],
    ) -> None:
        """Describe the finished run, link its results to the model, and register the model if the settings say so.

        Args:
            settings: of the run.
            data: its data set.
            table: the results in Markdown.
            results: test metrics and those of the baselines, as MLflow names them.
            cost: parameters, macs and seconds.
            units: {metric: unit} of the metrics that have one.
        """
        own = [name for name in results if not name.startswith((BASELINE, ABLATION))]
        self.link_metrics(own, {"name": data.name, "digest": data.test.digest})
        self.link_metrics(cost)
        self._describe(settings, data, descriptions.Results(headline(settings.task.name, results, units), table, cost))
        if settings.tracking.register_as and "sweep" not in self.outbox.metadata:  # a sweep registers its best model
            self.register_model(settings.tracking.register_as)

    def _describe(self, settings: Settings, data: Data, results: descriptions.Results | None = None) -> None:
        metadata = self.outbox.metadata
        source = descriptions.Source(metadata["command"], strategies.in_force(settings.strategy)["device"], "sweep" in metadata)
        self.describe_run(descriptions.of_training(settings, data, source, results))

    @property
    def checkpoint_manager(self) -> CheckpointManager:
        """The checkpoints of this run; each one is logged when it is written."""
        return CheckpointManager(
            self.outbox.checkpoints, self.resumed, on_saved=self.log_checkpoint, on_failed=self._log_checkpoint_error
        )

    @property
    def previous_seconds(self) -> float:
        """Seconds of training up to the checkpoint that the run resumes from."""
        return self.checkpoint_manager.elapsed

    def log_checkpoint(self, path: Path) -> None:
        """Log a checkpoint, so that another machine can resume the run; MLflow keeps the last two.

        A checkpoint is skipped while the previous one waits to be uploaded: a server that is down must not fill the disk.
        """
        if self._queued_checkpoint is not None and self._queued_checkpoint.exists():
            return
        with contextlib.suppress(OSError):  # the disk is full: the training will report it
            self._queue_checkpoint(path)

    def _queue_checkpoint(self, path: Path) -> None:
        number = self.outbox.metadata.get("uploads", 0)
        self.outbox.update_metadata(uploads=number + 1)
        with self.outbox.add_event("files", artifact_path=CHECKPOINT_ARTIFACTS) as folder:
            (folder / "files").mkdir()
            copy = folder / "files" / f"{number % 2}.npz"
            try:
                os.link(path, copy)
            except OSError:  # the file system has no hard links
                shutil.copy2(path, copy)
        self._queued_checkpoint = folder.with_suffix("")

    def _log_checkpoint_error(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            self.set_tags(**{"checkpoint.failure": str(error)})

    def log_reference_classifier(self, classifier: ReferenceClassifier) -> None:
        """Log which classifier generated images are scored with, and its test accuracy."""
        self.set_tags(**{REFERENCE_CLASSIFIER_TAG: classifier.run_id})
        self.log_metrics({"reference_classifier/accuracy": classifier.accuracy})

    def log_model(self, task: Task, model: keras.Model, settings: Settings) -> None:
        """Log a model for `mlflow.pyfunc.load_model("runs:/<run id>/<model name>")` and `mlflow models serve`.

        Args:
            task: of the model.
            model: trained.
            settings: of the run, which name the model (`descriptions.model_name`).
        """
        with self.outbox.add_event("model", name=descriptions.model_name(settings)) as folder:
            logged_model.save(task.serving(model), model, folder / "files")

    def log_weights(self, model: keras.Model) -> None:
        """Log the weights; with config.yaml they restore the model (`finished_runs`)."""
        with self.outbox.add_event("files", artifact_path=None) as folder:
            (folder / "files").mkdir()
            model.save_weights(folder / "files" / WEIGHTS_FILE)


def dataset_inputs(settings: Settings, data: Data) -> dict[str, dict[str, str]]:
    """The splits of a data set as MLflow's `Dataset`, by name."""
    expressions = settings.dataset.splits.model_dump().items()
    return {split: dataset_input(data, split, expression) for split, expression in expressions}


def dataset_input(data: Data, split: str, expression: str) -> dict[str, str]:
    """A split of a data set, given by its setting in dataset.splits, as MLflow's `Dataset`."""
    if split in data.series_lengths:
        expression = f"{expression} of each of {len(data.series_lengths[split]):,} series"
    elif expression in (AUTO, SAME):
        (slices,) = data.slices[split].values()
        expression = "+".join(f"{base}[{start}:{stop}]" for base, start, stop in slices)
    source = json.dumps({"tags": {"tfds": data.source, "split": expression}})
    return {"name": data.name, "digest": getattr(data, split).digest, "source_type": "code", "source": source}


def _tags(settings: Settings) -> dict[str, str]:
    tags = {
        "model": settings.model.name,
        "dataset": settings.dataset.name,
        "task": settings.task.name,
        "strategy": settings.strategy.name,
        "settings.digest": settings.digest(),
        FINGERPRINT_TAG: settings.fingerprint(),
        "precision": settings.training.precision,
        "command": provenance.command(),
    }
    return tags | provenance.environment(settings.strategy)


def provenance_of(settings: Settings, data: Data) -> dict[str, str]:
    """What results depend on besides the settings: code, versions and machine of this process, and digests of the data."""
    return provenance.environment(settings.strategy) | {f"data.{split}": getattr(data, split).digest for split in SPLITS}
