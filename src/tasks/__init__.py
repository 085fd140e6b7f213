"""What a data set asks of a model: one module for each task."""

from src import settings
from src.datasets import Data
from src.tasks.forecasting import Forecasting
from src.tasks.image_classification import ImageClassification
from src.tasks.task import Task

TASKS: dict[str, type[Task]] = {"image_classification": ImageClassification, "forecasting": Forecasting}


def create(chosen: settings.Task, data: Data) -> Task:
    """The task on a data set.

    Raises:
        UserError: the data is not of the kind that the task needs.
    """
    return TASKS[chosen.name](chosen, data)
