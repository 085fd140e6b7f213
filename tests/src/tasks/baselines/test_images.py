"""Baselines of image classification against scikit-learn's classifiers and by hand."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from src.tasks.baselines import classes, images

DRAW = np.random.default_rng(0)
CENTERS = DRAW.normal(size=(3, 5))
TARGETS = np.arange(90) % 3
IMAGES = (CENTERS[TARGETS] + DRAW.normal(size=(90, 5))).astype(np.float32)
TRAIN, VALIDATION, TEST = (slice(*bounds) for bounds in ((0, 40), (40, 60), (60, 90)))


def test_nearest_neighbors_are_those_of_scikit_learn_with_the_best_k():
    k, result = images.nearest_neighbors(
        (IMAGES[TRAIN], TARGETS[TRAIN]), (IMAGES[VALIDATION], TARGETS[VALIDATION]), IMAGES[TEST], 3
    )
    fitted = {n: KNeighborsClassifier(n).fit(IMAGES[TRAIN], TARGETS[TRAIN]) for n in (1, 3, 5, 7, 9, 15, 25)}
    scores = {n: model.score(IMAGES[VALIDATION], TARGETS[VALIDATION]) for n, model in fitted.items()}
    assert k == max(scores, key=scores.get)
    assert len(set(scores.values())) > 1
    np.testing.assert_array_equal(result.argmax(axis=1), fitted[k].predict(IMAGES[TEST]))
    votes = k * fitted[k].predict_proba(IMAGES[TEST])
    expected = np.log(votes + 1 / 3)
    factor = (result * expected).sum() / np.square(expected).sum()
    assert factor > 0
    np.testing.assert_allclose(result, factor * expected, atol=1e-9)


def test_logistic_regression_is_that_of_scikit_learn():
    result = images.logistic_regression(IMAGES[TRAIN], TARGETS[TRAIN], IMAGES[TEST], 4)
    model = LogisticRegression(max_iter=500).fit(IMAGES[TRAIN], TARGETS[TRAIN])
    np.testing.assert_allclose(np.exp(result[:, :3]), model.predict_proba(IMAGES[TEST]), atol=1e-3)
    np.testing.assert_allclose(np.exp(result[:, 3]), 1e-9)  # no training example


def test_gradient_boosting_learns_what_is_not_linear():
    """The class is whether two pixels are alike: no linear model does better than chance."""
    pixels = np.random.default_rng(1).random((600, 2)).round().astype(np.float32)
    alike = (pixels[:, 0] == pixels[:, 1]).astype(int)
    result = images.gradient_boosting(pixels[:400], alike[:400], pixels[400:], 2)
    np.testing.assert_array_equal(result.argmax(axis=1), alike[400:])


def test_the_number_of_examples_is_limited():
    assert images.regression_examples(3072) == 65104  # all of CIFAR-10
    assert images.regression_examples(10**12) == 1
    assert images.neighbor_examples(784, 16_000) > 54_000  # all of MNIST
    assert images.neighbor_examples(224 * 224 * 3, 100_000) == 265


def test_the_temperature_minimizes_the_negative_log_likelihood():
    """Scores that are three times too large are scaled back."""
    draw = np.random.default_rng(2)
    logits = draw.normal(size=(20_000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (draw.random((20_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    np.testing.assert_allclose(classes.temperature(3 * logits, targets), 1 / 3, rtol=0.03)


def test_majority_class_by_hand():
    np.testing.assert_allclose(np.exp(classes.majority_class(np.array([0, 0, 2]), 3, 2)), [[3 / 6, 1 / 6, 2 / 6]] * 2)
