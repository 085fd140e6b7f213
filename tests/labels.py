"""Data sets of several labels in tests, made from those of one class."""

import dataclasses

import numpy as np

from src.datasets import Data, Split

LABELS = ("even", "small", "round")


def of_classes(targets: np.ndarray) -> np.ndarray:
    """Labels (examples, labels) of class indices; some have no label, some have all."""
    return np.stack([targets % 2 == 0, targets < 3, np.isin(targets, (0, 6, 8))], axis=1)


def several_labels(data: Data) -> Data:
    """The data set with labels instead of classes."""
    converted = data.convert(lambda _, split: Split(split.inputs, of_classes(split.targets)))
    return dataclasses.replace(converted, classes=LABELS)
