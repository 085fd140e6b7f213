"""Task names and their classes."""

from collections.abc import Callable
from typing import Any

from src.config import schema
from src.datasets import Data
from src.tasks.base import Task
from src.tasks.forecasting import Forecasting
from src.tasks.image_classification import ImageClassification
from src.tasks.image_generation import ImageGeneration
from src.tasks.language_modeling import LanguageModeling, TextGenerator
from src.tasks.pixel_generation import PixelGeneration
from src.tasks.reference_classifier import ReferenceClassifier
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

# Tasks whose models generate; `from_run` of each restores the generator from the artifacts of a run.
GENERATORS: dict[str, type[ImageGeneration] | type[PixelGeneration] | type[LanguageModeling]] = {
    "image_generation": ImageGeneration,
    "pixel_generation": PixelGeneration,
    "language_modeling": LanguageModeling,
}


def create(
    settings: schema.Task, data: Data, limit: int | None = None, *,
    reference_classifier: ReferenceClassifier | None = None, pretrained: TextGenerator | None = None,
) -> Task:  # fmt: skip
    """Create a task on a data set.

    Args:
        settings: of the task.
        data: the data set.
        limit: examples to keep in each split; None: all.
        reference_classifier: measures generated images; not used by other tasks.
        pretrained: language model whose tokenizer is used instead of a new one.

    Raises:
        UserError: the data set has not the type of data that the task needs.
    """
    options: dict[str, Any] = {}
    if isinstance(settings, schema.GenerationSection):
        options["reference_classifier"] = reference_classifier
    if pretrained is not None:
        options["tokenizer"] = pretrained.tokenizer
    task = TASKS[settings.name](settings, data, **options)
    task.limit_examples(limit)
    return task
