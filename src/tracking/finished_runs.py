"""Finished runs in MLflow, and what a new run takes from them: the reference classifier of generated images, a pre-trained
language model, a teacher.

Whether such a run exists is checked before TensorFlow loads, so what needs TensorFlow is imported where a model is restored.
"""

import functools
import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import mlflow
import pydantic
import yaml

from src import config
from src.config import renamed, signature
from src.config.schema import Settings
from src.config.tasks import LanguageModelingSettings
from src.errors import UserError
from src.metrics import current_name
from src.tracking import migration
from src.tracking.client import WEIGHTS_FILE, create_client, current_tags, require_mlflow
from src.tracking.provenance import PROVENANCE_TAGS

if TYPE_CHECKING:
    import keras

    from src.datasets import Data
    from src.tasks.base import Task
    from src.tasks.language_modeling import TextGenerator
    from src.tasks.reference_classifier import ReferenceClassifier

# Hyperparameters of a language model that do not change the shapes of its weights.
SHAPE_INDEPENDENT = {"dropout", "pooling"}


def find_run(settings: Settings) -> str | None:
    """The id of the newest finished run with the same settings; None if there is none."""
    query = f"tags.`settings.digest` = '{settings.digest()}' and attributes.status = 'FINISHED'"
    with require_mlflow():
        client = create_client()
        experiment = client.get_experiment_by_name(settings.tracking.experiment)
        runs = client.search_runs([experiment.experiment_id], query, max_results=1) if experiment else []
    return runs[0].info.run_id if runs else None


class FinishedRun:
    """A finished run.

    Args:
        run_id: its id in MLflow.
        setting: name of the setting that holds the id, for error messages.

    Attributes:
        config: its config.yaml, with the names that settings have in this version.

    Raises:
        UserError: there is no such run, it has no weights, or its recipe or builder is not one of conf/. The last is a
            security check: a run is data, and these name code that would be called.
    """

    def __init__(self, run_id: str, setting: str):
        self.run_id, self.argument = run_id, f"{setting}={run_id}"
        try:
            with require_mlflow():
                self.client = create_client()
                self.config = yaml.safe_load(self.load_text("config.yaml"))
                self._weights = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{WEIGHTS_FILE}")
        except (mlflow.MlflowException, OSError):
            raise UserError(
                f"{self.argument} names no finished run; the id of a run is in the last line of its log and in the MLflow UI."
            ) from None
        target = self.config["model"]["_target_"]
        if target not in config.recipe_targets():
            raise UserError(
                f"{self.argument} was made by {target}, which is no recipe in conf/model; choose another run, or set "
                f"{config.CONFIG_DIR} to the folder of the project that has it."
            )
        builder = self.config["dataset"]["builder"]
        if "." in builder and builder not in config.builders():
            raise UserError(
                f"{self.argument} has the data of {builder}, which is no builder in conf/dataset; choose another run, or set "
                f"{config.CONFIG_DIR} to the folder of the project that has it."
            )
        self.config = renamed.migrate(self.config, signature.read(target).hyperparameters.model_fields)

    @property
    def settings(self) -> Settings:
        """Its settings.

        Raises:
            UserError: they are not valid in this version.
        """
        try:
            return Settings.model_validate(self.config)
        except pydantic.ValidationError:
            raise UserError(
                f"{self.argument} was made with another version of this project; choose a run that was made with this one."
            ) from None

    def load_weights(self, model: "keras.Model", advice: str = "choose a run that was made with this version") -> None:
        """Load its weights into a model that was built from its settings.

        Args:
            model: is changed.
            advice: what the user can do if the weights do not fit.

        Raises:
            UserError: the weights do not fit, since the recipe has changed.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                model.load_weights(migration.migrate_weights(self._weights, os.path.join(folder, WEIGHTS_FILE)))
        except ValueError as error:
            raise UserError(
                f"The weights of {self.argument} do not fit its recipe, which has changed since; {advice}."
            ) from error

    @property
    def name(self) -> str:
        """Its name in MLflow."""
        return self.client.get_run(self.run_id).info.run_name

    @property
    def experiment(self) -> str:
        """The name of its experiment."""
        return self.client.get_experiment(self.client.get_run(self.run_id).info.experiment_id).name

    @property
    def model_id(self) -> str | None:
        """The id of the model that it has logged; None if it has logged none."""
        outputs = self.client.get_run(self.run_id).outputs
        return outputs.model_outputs[0].model_id if outputs and outputs.model_outputs else None

    def dataset_input(self, split: str) -> dict[str, str]:
        """A split of its data set, as MLflow's `Dataset`; empty if it has recorded none."""
        inputs = self.client.get_run(self.run_id).inputs
        datasets = [entry.dataset for entry in (inputs.dataset_inputs if inputs else []) if entry.tags[0].value == split]
        return {key: getattr(datasets[0], key) for key in ("name", "digest", "source_type", "source")} if datasets else {}

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric, as this version names them."""
        return {current_name(key): value for key, value in self.client.get_run(self.run_id).data.metrics.items()}

    def tag(self, name: str) -> str | None:
        """The value of a tag."""
        return current_tags(self.client.get_run(self.run_id).data.tags).get(name)

    def metric_history(self) -> dict[str, list[tuple[int, float]]]:
        """All metrics, as this version names them: {metric: [(step, value), …]}."""
        names = self.client.get_run(self.run_id).data.metrics
        return {
            current_name(name): [(m.step, m.value) for m in self.client.get_metric_history(self.run_id, name)] for name in names
        }

    def provenance(self) -> dict[str, str]:
        """Its code, versions, machine and data digests, with the keys of `training_logger.provenance_of`."""
        run = self.client.get_run(self.run_id)
        inputs = run.inputs.dataset_inputs if run.inputs else []
        data = {f"data.{entry.tags[0].value}": entry.dataset.digest for entry in inputs}
        return {name: run.data.tags[name] for name in run.data.tags if name in PROVENANCE_TAGS} | data

    def load_text(self, artifact: str) -> str:
        """The contents of a text artifact."""
        return mlflow.artifacts.load_text(f"runs:/{self.run_id}/{artifact}")


# --- models ---------------------------------------------------------------------------------------------------------


def load_reference_classifier(run_id: str, data: "Data") -> "ReferenceClassifier":
    """Restore the classifier that generated images are scored with.

    Args:
        run_id: of the classifier's run.
        data: the data set of the generator.

    Raises:
        UserError: there is no such run.
    """
    from src.tasks.reference_classifier import ReferenceClassifier
    from src.training import loop

    run = FinishedRun(run_id, "task.reference_classifier")
    settings = run.settings
    loop.prepare(settings)
    load_weights = functools.partial(run.load_weights, advice="delete that run, and a new one is trained")
    return ReferenceClassifier.from_run(settings, data, load_weights, run_id, run.metrics["test/accuracy"])


def load_teacher(settings: Settings, task: "Task") -> "Callable[[], keras.Model]":
    """A function that restores the model of the run `compression.teacher`.

    Raises:
        UserError: there is no such run, or it has no weights.
    """
    from src.training import distillation

    run = _run_of(settings.compression.teacher, "compression.teacher")
    return lambda: distillation.load_teacher(run.config, run.load_weights, settings, task)


def load_pretrained(settings: Settings) -> "tuple[Settings, TextGenerator]":
    """Restore the language model of the run `model.pretrained`.

    Returns:
        The settings with the tokenization that the language model was trained with, and the language model.

    Raises:
        UserError: there is no such run, or its model is not a language model of the same recipe and size.
    """
    from src.tasks.language_modeling import LanguageModeling

    run = _run_of(settings.model.pretrained, "model.pretrained")
    source = run.settings
    source_task = source.task
    if not isinstance(source_task, LanguageModelingSettings) or source.model.target != settings.model.target:
        raise UserError(
            f"{run.argument} is a run of {source.model.name} on the task {source_task.name}; choose one of "
            f"{settings.model.name} on language_modeling."
        )
    own = settings.model.hyperparameters
    mismatched = {
        key: value for key, value in source.model.hyperparameters.items() if value != own[key] and key not in SHAPE_INDEPENDENT
    }
    if mismatched:
        overrides = " ".join(f"model.{key}={value}" for key, value in mismatched.items())
        raise UserError(f"{run.argument} has another size; type {overrides}.")
    language_model = LanguageModeling.from_run(source, run.load_text(LanguageModeling.ARTIFACT), run.load_weights)
    tokenization = {
        "tokenizer": source_task.tokenizer,
        "vocabulary_size": len(language_model.tokenizer),
        "context" if settings.task.name == "language_modeling" else "length": source_task.context,
    }
    return settings.model_copy(update={"task": settings.task.model_copy(update=tokenization)}), language_model


def _run_of(run_id: str | None, setting: str) -> FinishedRun:
    """The run that a setting names. Only called where the setting is not None."""
    if run_id is None:
        raise ValueError(f"{setting} names no run.")
    return FinishedRun(run_id, setting)
