"""Which class learns which task."""

from collections.abc import Callable

from src.config import schema
from src.datasets import Data
from src.tasks.base import Task
from src.tasks.forecasting import Forecasting
from src.tasks.image_classification import ImageClassification
from src.tasks.image_generation import Generation, ImageGeneration
from src.tasks.language_modeling import LanguageModeling, Writer
from src.tasks.pixel_generation import PixelGeneration
from src.tasks.reference_classifier import Judge
from src.tasks.text_classification import TextClassification
from src.tasks.translation import Translation

TASKS: dict[str, Callable[..., Task]] = {
    "image_classification": ImageClassification,
    "image_generation": ImageGeneration,
    "pixel_generation": PixelGeneration,
    "text_classification": TextClassification,
    "language_modeling": LanguageModeling,
    "translation": Translation,
    "forecasting": Forecasting,
}

# Those whose models make something; their `restored` gives what does, from what a run kept.
MAKERS: dict[str, type[ImageGeneration] | type[PixelGeneration] | type[LanguageModeling]] = {
    "image_generation": ImageGeneration,
    "pixel_generation": PixelGeneration,
    "language_modeling": LanguageModeling,
}


def create(
    chosen: schema.Task, data: Data, limit: int | None = None, *,
    judge: Judge | None = None, pretrained: Writer | None = None,
) -> Task:  # fmt: skip
    """The task on a data set, with at most `limit` examples in each part.

    Args:
        chosen: its settings.
        data: the data set.
        limit: examples of each part; None: all.
        judge: of generated images.
        pretrained: whose vocabulary texts are read with.

    Raises:
        UserError: the data is not of the kind that the task needs.
    """
    task = TASKS[chosen.name](chosen, data, *([pretrained.vocabulary] if pretrained else []))
    task.train, task.validation, task.test = (part.first(limit) for part in (task.train, task.validation, task.test))
    if isinstance(task, Generation) and judge is not None:
        task.judge = judge
    return task
