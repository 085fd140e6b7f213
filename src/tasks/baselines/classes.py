"""What baselines of image and text classification share. Logits and log-probabilities are (examples, classes)."""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

IMPOSSIBLE = np.log(1e-9)  # log-probability of a class without training examples


def majority_class(targets: np.ndarray, classes: int, examples: int) -> np.ndarray:
    """The logarithms of the class frequencies of training targets, for each of a number of examples."""
    counts = np.bincount(targets, minlength=classes) + 1  # add-one smoothing, so that no class is impossible
    return np.tile(np.log(counts / counts.sum()), (examples, 1))


def log_probabilities(model: Any, inputs: Any, classes: int) -> np.ndarray:
    """The predictions of a fitted scikit-learn classifier; its training set may lack classes."""
    result = np.full((inputs.shape[0], classes), IMPOSSIBLE)
    with np.errstate(divide="ignore"):
        result[:, model.classes_] = np.maximum(np.log(model.predict_proba(inputs)), IMPOSSIBLE)
    return result


def temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """The factor that makes scores the logits with the smallest negative log-likelihood (Guo et al. 2017).

    Args:
        scores: of validation examples, (examples, classes).
        targets: their class indices.
    """

    def nll(log_factor: float) -> float:
        return -float(np.mean(log_softmax(np.exp(log_factor) * scores, axis=1)[np.arange(len(targets)), targets]))

    return float(np.exp(minimize_scalar(nll, bounds=(-7, 7), method="bounded").x))
