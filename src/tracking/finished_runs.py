"""What finished runs have left in MLflow; and what a run takes from them: who judges its images, the language model it begins
with, the teacher it learns from.

Whether there is such a run is answered before TensorFlow loads, so what needs it is imported where a model is restored.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mlflow
import pydantic
import yaml

from src import config
from src.config import schema
from src.config.schema import Settings
from src.errors import UserError
from src.tracking.client import WEIGHTS, asking, connected
from src.tracking.provenance import SURROUNDINGS

if TYPE_CHECKING:
    import keras

    from src.datasets import Data
    from src.tasks.base import Task
    from src.tasks.language_modeling import TextGenerator
    from src.tasks.reference_classifier import ReferenceClassifier

FREE = {"dropout", "pooling"}  # hyperparameters of a language model that its weights do not depend on


def same(chosen: Settings) -> str | None:
    """The id of the newest finished run that learned with the same settings; None if there is none."""
    wanted = f"tags.`settings.digest` = '{chosen.digest()}' and attributes.status = 'FINISHED'"
    with asking():
        client = connected()
        experiment = client.get_experiment_by_name(chosen.tracking.experiment)
        found = client.search_runs([experiment.experiment_id], wanted, max_results=1) if experiment else []
    return found[0].info.run_id if found else None


class Stored:
    """What a finished run left behind.

    Args:
        run_id: of the run.
        setting: the setting that names it, for messages.

    Attributes:
        recorded: its settings, as it recorded them.
        weights: the path of its weights.

    Raises:
        UserError: there is no such run, it kept no weights, or its recipe is none of this project's: a run is data, and what
            it names is code that would be called.
    """

    def __init__(self, run_id: str, setting: str):
        self.run_id, self.name = run_id, f"{setting}={run_id}"
        try:
            with asking():
                self.client = connected()
                self.recorded = yaml.safe_load(self.text("config.yaml"))
                self.weights = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{WEIGHTS}")
        except (mlflow.MlflowException, OSError):
            raise UserError(
                f"{self.name} names no finished run; its id stands at the end of its log and in the MLflow UI."
            ) from None
        target = self.recorded["model"]["_target_"]
        if target not in config.recipes():
            raise UserError(f"{self.name} was made by {target}, which is no recipe in conf/model; choose another run.")

    @property
    def settings(self) -> Settings:
        """Its settings.

        Raises:
            UserError: they are not those of this version.
        """
        try:
            return Settings.model_validate(self.recorded)
        except pydantic.ValidationError:
            raise UserError(
                f"{self.name} was made with another version of this project; choose a run that was made with this one."
            ) from None

    def metric(self, name: str) -> float:
        """The last value of one of its metrics."""
        return self.client.get_run(self.run_id).data.metrics[name]

    def tag(self, name: str) -> str | None:
        """One of its tags."""
        return self.client.get_run(self.run_id).data.tags.get(name)

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """{metric: [(step, value), …]}."""
        names = self.client.get_run(self.run_id).data.metrics
        return {name: [(m.step, m.value) for m in self.client.get_metric_history(self.run_id, name)] for name in names}

    def surroundings(self) -> dict[str, str]:
        """What it ran on, as `surroundings` tells it of this process."""
        run = self.client.get_run(self.run_id)
        inputs = run.inputs.dataset_inputs if run.inputs else []
        data = {f"data.{entry.tags[0].value}": entry.dataset.digest for entry in inputs}
        return {name: run.data.tags[name] for name in run.data.tags if name in SURROUNDINGS} | data

    def text(self, name: str) -> str:
        """One of the texts that it kept."""
        return mlflow.artifacts.load_text(f"runs:/{self.run_id}/{name}")


# --- models ---------------------------------------------------------------------------------------------------------


def judge(run_id: str, data: "Data") -> "ReferenceClassifier":
    """The classifier of a run, which judges generated images.

    Raises:
        UserError: there is no such run.
    """
    from src.tasks.reference_classifier import ReferenceClassifier
    from src.training import loop

    stored = Stored(run_id, "task.judge")
    chosen = stored.settings
    loop.prepare(chosen)
    return ReferenceClassifier.from_run(chosen, data, stored.weights, run_id, stored.metric("test/accuracy"))


def teacher(chosen: Settings, task: "Task") -> "Callable[[], keras.Model]":
    """What makes the model of the run `compression.teacher`, once it is called.

    Raises:
        UserError: there is no such run, or it kept no weights.
    """
    from src.training import distillation

    stored = _stored(chosen.compression.teacher, "compression.teacher")
    return lambda: distillation.load_teacher(stored.recorded, stored.weights, chosen, task)


def pretrained(chosen: Settings) -> "tuple[Settings, TextGenerator]":
    """The language model of the run `model.pretrained`, and the settings with its tokens, which go with its weights.

    Raises:
        UserError: there is no such run, or it is not one of a language model of the same recipe and size.
    """
    from src.tasks.language_modeling import LanguageModeling

    name = f"model.pretrained={chosen.model.pretrained}"
    stored = _stored(chosen.model.pretrained, "model.pretrained")
    theirs = stored.settings
    learned = theirs.task
    if not isinstance(learned, schema.LanguageModeling) or theirs.model.target != chosen.model.target:
        raise UserError(
            f"{name} is a run of {theirs.model.name} that learned {learned.name}; choose one of {chosen.model.name} that "
            "learned language_modeling."
        )
    mine = chosen.model.hyperparameters
    other = {key: value for key, value in theirs.model.hyperparameters.items() if value != mine[key] and key not in FREE}
    if other:
        raise UserError(f"{name} has another size; type {' '.join(f'model.{key}={value}' for key, value in other.items())}.")
    writer = LanguageModeling.from_run(theirs, stored.text(LanguageModeling.ARTIFACT), stored.weights)
    tokens: dict[str, Any] = {"tokens": learned.tokens, "context": learned.context}
    if chosen.task.name == "text_classification":
        tokens = {"unit": learned.tokens, "vocabulary": len(writer.vocabulary), "length": learned.context}
    return chosen.model_copy(update={"task": chosen.task.model_copy(update=tokens)}), writer


def _stored(run_id: str | None, setting: str) -> Stored:
    """The run that a setting names, which is to be asked for only where it names one."""
    if run_id is None:
        raise ValueError(f"{setting} names no run.")
    return Stored(run_id, setting)
