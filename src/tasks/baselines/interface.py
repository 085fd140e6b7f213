"""What a baseline returns, and how a task declares its baselines."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Prediction(NamedTuple):
    """What a baseline predicts for the test set.

    Hyperparameters are chosen on the validation set, and everything else is fitted on the training set alone, as recipes are.

    Attributes:
        values: as `Task.metrics` takes them.
        note: the chosen hyperparameters, and how much of the training set was used if not all; empty: nothing to say.
    """

    values: np.ndarray
    note: str = ""


class SkippedError(Exception):
    """A baseline is not computed, since it would take too long on this data; the message says why."""


Baselines = Mapping[str, Callable[[], Prediction]]  # {name: what fits it and predicts the test set}


def spaced_rows(count: int, limit: int) -> np.ndarray:
    """At most `limit` row numbers of 0 … count − 1, evenly spaced."""
    return np.linspace(0, count - 1, min(count, max(limit, 1))).astype(int)


def sample_note(used: int, count: int, noun: str) -> str:
    """How many of the training examples were used; empty if it is all of them."""
    return "" if used == count else f"{used:,} of {count:,} training {noun}"


def join_notes(*notes: str) -> str:
    """Join the notes that are not empty."""
    return ", ".join(filter(None, notes))
