"""Baselines of image classification, on pixels from 0 to 1, and of audio classification, on features of spectrograms.

Both are (examples, values); baselines return logits (examples, classes).
"""

import warnings

import numpy as np
import threadpoolctl
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from src.tasks.baselines.classes import log_probabilities, temperature

REGRESSION_VALUES = 200_000_000  # pixels to fit the logistic regression on, 800 MB: all of CIFAR-10
REGRESSION_ITERATIONS = 50  # more cost minutes, and gain less than 1 % on data sets like MNIST
NEIGHBORS = (1, 3, 5, 7, 9, 15, 25)  # of the k that are tried
NEIGHBOR_PRODUCTS = 4e12  # multiplications for the distances, about a minute on two cores: all of MNIST and CIFAR-10
BOOSTING_VALUES = 5_000_000  # pixels times classes, about ten seconds; more are skipped


def regression_examples(size: int) -> int:
    """How many images of a size the logistic regression is fitted on at most."""
    return max(REGRESSION_VALUES // size, 1)


def neighbor_examples(size: int, queries: int) -> int:
    """Among how many images of a size the nearest ones of a number of others are looked for at most."""
    return max(int(NEIGHBOR_PRODUCTS / size / queries), 1)


def logistic_regression(train: np.ndarray, targets: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Logistic regression."""
    model = LogisticRegression(max_iter=REGRESSION_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, targets)
    return log_probabilities(model, test, classes)


def nearest_neighbors(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], test: np.ndarray, classes: int
) -> tuple[int, np.ndarray]:
    """The k nearest training images by Euclidean distance; k has the highest accuracy on the validation set.

    Logits are logarithms of the votes, with one more vote spread evenly over all classes, scaled on the validation set.

    Args:
        train: images and class indices.
        validation: the same.
        test: images.
        classes: number of classes.

    Returns:
        k, and the logits.
    """
    index = NearestNeighbors(n_neighbors=min(NEIGHBORS[-1], len(train[0])), algorithm="brute").fit(train[0])

    def nearest_classes(images: np.ndarray) -> np.ndarray:
        return train[1][index.kneighbors(images, return_distance=False)]  # (images, neighbors), the nearest first

    def logits(labels: np.ndarray, k: int) -> np.ndarray:
        votes = np.stack([(labels[:, :k] == each).sum(axis=1) for each in range(classes)], axis=1)
        return np.log(votes + 1 / classes)

    labels = nearest_classes(validation[0])
    tried = [k for k in NEIGHBORS if k <= len(train[0])]
    k = max(tried, key=lambda k: np.mean(logits(labels, k).argmax(axis=1) == validation[1]))
    return k, temperature(logits(labels, k), validation[1]) * logits(nearest_classes(test), k)


def gradient_boosting(train: np.ndarray, targets: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Gradient boosting of decision trees of depth 3, on histograms of the pixels."""
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):  # several threads spin when others use the cores
        model = HistGradientBoostingClassifier(max_depth=3, random_state=0, early_stopping=False).fit(train, targets)
        return log_probabilities(model, test, classes)
