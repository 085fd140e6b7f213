"""What belongs to a file of a model for several labels, which returns logits alone."""

import json
from pathlib import Path

import keras

from src.tasks.base import Task
from src.tasks.multilabel_classification import MultilabelClassification, thresholds_of


def save_thresholds(model: keras.Model, task: Task, folder: Path) -> None:
    """Write labels.json: in the order of the logits, the logit above which each label is predicted.

    Of a task of one label nothing is written.

    Args:
        model: trained.
        task: its task.
        folder: of the model's file.
    """
    if isinstance(task, MultilabelClassification):
        thresholds = dict(zip(task.classes, keras.ops.convert_to_numpy(thresholds_of(model)).tolist()))
        (folder / "labels.json").write_text(json.dumps(thresholds, ensure_ascii=False, indent=1), encoding="utf-8")
