"""What a run takes from earlier ones: who judges its images, the language model it begins with, the teacher it learns from."""

from collections.abc import Callable
from typing import Any

import keras

from src import compression, training
from src.datasets import Data
from src.errors import UserError
from src.settings import LanguageModeling as LanguageModelingSettings
from src.settings import Settings
from src.tasks import Judge, LanguageModeling, Task, Writer
from src.tracking.stored import Stored

FREE = {"dropout", "pooling"}  # hyperparameters of a language model that its weights do not depend on


def judge(run_id: str, data: Data) -> Judge:
    """The classifier of a run, which judges generated images.

    Raises:
        UserError: there is no such run.
    """
    stored = Stored(run_id, "task.reference_classifier")
    chosen = stored.settings
    training.prepare(chosen)
    return Judge.restored(chosen, data, stored.weights, run_id, stored.metric("test/accuracy"))


def teacher(chosen: Settings, task: Task) -> Callable[[], keras.Model]:
    """What makes the model of the run `compression.teacher`, once it is called.

    Raises:
        UserError: there is no such run, or it kept no weights.
    """
    stored = _stored(chosen.compression.teacher, "compression.teacher")
    return lambda: compression.teacher(stored.recorded, stored.weights, chosen, task)


def pretrained(chosen: Settings) -> tuple[Settings, Writer]:
    """The language model of the run `model.pretrained`, and the settings with its tokens, which go with its weights.

    Raises:
        UserError: there is no such run, or it is not one of a language model of the same recipe and size.
    """
    name = f"model.pretrained={chosen.model.pretrained}"
    stored = _stored(chosen.model.pretrained, "model.pretrained")
    theirs = stored.settings
    learned = theirs.task
    if not isinstance(learned, LanguageModelingSettings) or theirs.model.target != chosen.model.target:
        raise UserError(
            f"{name} is a run of {theirs.model.name} that learned {learned.name}; choose one of {chosen.model.name} that "
            "learned language_modeling."
        )
    mine = chosen.model.hyperparameters
    other = {key: value for key, value in theirs.model.hyperparameters.items() if value != mine[key] and key not in FREE}
    if other:
        raise UserError(f"{name} has another size; type {' '.join(f'model.{key}={value}' for key, value in other.items())}.")
    writer = LanguageModeling.restored(theirs, stored.text(LanguageModeling.KEPT), stored.weights)
    tokens: dict[str, Any] = {"tokens": learned.tokens, "context": learned.context}
    if chosen.task.name == "text_classification":
        tokens = {"unit": learned.tokens, "vocabulary": len(writer.vocabulary), "length": learned.context}
    return chosen.model_copy(update={"task": chosen.task.model_copy(update=tokens)}), writer


def _stored(run_id: str | None, setting: str) -> Stored:
    """The run that a setting names, which is to be asked for only where it names one."""
    if run_id is None:
        raise ValueError(f"{setting} names no run.")
    return Stored(run_id, setting)
