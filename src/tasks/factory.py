"""Creation of tasks from the registry, `src.config.tasks`."""

import pkgutil
from typing import TYPE_CHECKING, Any

from src.config.tasks import TASKS, GenerationSettings, TaskSettings
from src.datasets import Data
from src.tasks.base import Task

if TYPE_CHECKING:
    from src.tasks.language_modeling import TextGenerator
    from src.tasks.reference_classifier import ReferenceClassifier


def load_class(name: str) -> Any:
    """Import the class of a task: a subclass of `Task`, and of `Generative` if its models generate."""
    return pkgutil.resolve_name(TASKS[name].implementation)


def create(
    settings: TaskSettings, data: Data, limit: int | None = None, *,
    reference_classifier: "ReferenceClassifier | None" = None, pretrained: "TextGenerator | None" = None,
) -> Task:  # fmt: skip
    """Create a task on a data set.

    Args:
        settings: of the task.
        data: the data set.
        limit: examples to keep in each split; None: all.
        reference_classifier: measures generated images; not used by other tasks.
        pretrained: language model whose tokenizer is used instead of a new one.

    Raises:
        UserError: the data set does not have the type of data that the task needs.
    """
    options: dict[str, Any] = {}
    if isinstance(settings, GenerationSettings):
        options["reference_classifier"] = reference_classifier
    if pretrained is not None:
        options["tokenizer"] = pretrained.tokenizer
    task: Task = load_class(settings.name)(settings, data, **options)
    task.limit_examples(limit)
    return task
