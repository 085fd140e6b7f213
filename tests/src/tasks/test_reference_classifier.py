"""Metrics of generated images, against cases with a known value; features of the reference classifier."""

import keras
import numpy as np
import pytest
import scipy.linalg

from recipes import cnn
from recipes.specs import Classes, Image
from src.tasks.generative_metrics import frechet_distance, kernel_distance, nearest, precision_and_recall
from src.tasks.reference_classifier import ReferenceClassifier


@pytest.fixture
def draw():
    return np.random.default_rng(0)


def test_frechet_distance_of_shifted_features_is_the_squared_shift(draw):
    features, shift = draw.normal(size=(500, 4)), np.array([1.0, -2.0, 0.0, 0.5])
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features + shift) == pytest.approx((shift**2).sum())


def test_frechet_distance_of_scaled_features(draw):
    features = draw.normal(size=(500, 3))
    features -= features.mean(axis=0)
    deviations = np.sqrt(np.linalg.eigvalsh(np.cov(features, rowvar=False)))
    assert frechet_distance(features, 3 * features) == pytest.approx((4 * deviations**2).sum())


@pytest.mark.parametrize("number", [500, 12])  # fewer features than entries: the covariance is singular
def test_frechet_distance_matches_its_formula(draw, number):
    one, other = draw.normal(size=(number, 20)), draw.normal(size=(number, 20)) @ draw.normal(size=(20, 20)) + 1
    covariances = [np.cov(x, rowvar=False) for x in (one, other)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1] + 1e-10 * np.eye(20)).real
    apart = one.mean(axis=0) - other.mean(axis=0)
    expected = apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-3)


def test_kernel_distance_matches_its_definition(draw):
    one, other = draw.normal(size=(7, 3)), draw.normal(size=(5, 3)) + 0.5

    def k(x, y):
        return (np.dot(x, y) / 3 + 1) ** 3

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (one, other)]
    between = np.mean([k(x, y) for x in one for y in other])
    assert kernel_distance(one, other) == pytest.approx(within[0] + within[1] - 2 * between)


def test_kernel_distance_is_unbiased(draw):
    """The mean over many small samples of one distribution is 0."""
    result = [kernel_distance(draw.normal(size=(20, 4)), draw.normal(size=(20, 4))) for _ in range(2000)]
    assert abs(np.mean(result)) < 4 * np.std(result) / np.sqrt(len(result))


def test_precision_and_recall_separate_fidelity_from_coverage(draw):
    left, right = draw.normal(size=(300, 2)) - [20, 0], draw.normal(size=(300, 2)) + [20, 0]
    real = np.concatenate([left, right])
    assert precision_and_recall(real, real) == (1.0, 1.0)
    one_mode = precision_and_recall(real, draw.normal(size=(600, 2)) - [20, 0])
    assert one_mode[0] > 0.9
    assert 0.4 < one_mode[1] <= 0.5  # the other half is never reached
    partly_wrong = precision_and_recall(real, np.concatenate([draw.normal(size=(300, 2)) - [20, 0], left * 0 + [0, 90]]))
    assert 0.4 < partly_wrong[0] <= 0.5


def test_the_nearest_image_is_found_with_its_distance(draw):
    candidates = draw.integers(0, 256, (50, 4, 5, 1), dtype=np.uint8)
    images = candidates[[7, 3]].copy()
    images[0, 0, 0, 0] ^= 128
    numbers, distances = nearest(images, candidates)
    assert numbers.tolist() == [7, 3]
    assert distances[0] == pytest.approx(128 / 255 / np.sqrt(20), rel=1e-4)
    assert distances[1] == pytest.approx(0, abs=1e-3)


def test_features_are_the_inputs_of_the_last_layer(draw):
    network = cnn.build(Image(8, 8, 1), Classes(3))
    pixels = keras.Input((8, 8, 1), dtype="uint8")
    model = keras.Model(pixels, network(keras.layers.Rescaling(1 / 255)(pixels)))
    images = draw.integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
    features, probabilities = ReferenceClassifier(model, "run", 0.9).features_and_probabilities(images)
    logits = model.predict(images, verbose=0)
    kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in network.get_layer("logits").weights)
    np.testing.assert_allclose(features @ kernel + bias, logits, atol=1e-4)
    np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), atol=1e-5)
