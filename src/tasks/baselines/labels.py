"""Baselines of multi-label classification. Logits, and targets of 0 or 1, are (examples, labels)."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import logit
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits


def label_frequencies(targets: np.ndarray) -> np.ndarray:
    """The logits of the frequencies of labels among training targets: (labels,)."""
    result: np.ndarray = logit((targets.sum(axis=0) + 1) / (len(targets) + 2))  # smoothed, so that no label is impossible
    return result


def one_vs_rest(create: Callable[[], Any], train: Any, targets: np.ndarray, *inputs: Any) -> list[np.ndarray]:
    """The logits of one classifier for each label; of a label that all or no training examples have, of its frequency.

    Args:
        create: makes a classifier of scikit-learn.
        train: its training inputs, an array or a sparse matrix.
        targets: of the training inputs.
        *inputs: other inputs.

    Returns:
        The logits for each of the other inputs.
    """
    logits = [np.tile(label_frequencies(targets), (each.shape[0], 1)) for each in inputs]
    for label in range(targets.shape[1]):
        if not 0 < targets[:, label].sum() < len(targets):
            continue
        with warnings.catch_warnings(), threadpool_limits(1):  # several threads would mostly wait for each other
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = create().fit(train, targets[:, label])
        for result, each in zip(logits, inputs):
            result[:, label] = model.decision_function(each)
    return logits
