"""Served models in tests: written and loaded, in this process."""

from pathlib import Path

import keras

from src.export import served_model, serving
from src.tasks.base import Task


def save_and_load(task: Task, model: keras.Model, folder: Path) -> served_model.ArrayModel:
    """The served model of a task, written to a folder and loaded from there."""
    serving.save(task.serving(model), str(folder))
    return served_model._load_pyfunc(str(folder))
