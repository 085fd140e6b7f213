"""Metrics and baselines of image classification, against scikit-learn and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss

from recipes import attention, cnn, transformer
from recipes.specs import Classes, Image
from src import serving, tasks, training
from src.datasets import Part, pipeline
from src.errors import UserError
from src.tasks import image_classification
from src.tasks.classification import attention_weights, calibration_error


@pytest.fixture
def task(settings, load):
    return tasks.create(settings("dataset=digits").task, load("digits"))


def test_metrics_are_those_of_scikit_learn(task):
    logits = np.random.default_rng(0).normal(0, 3, (len(task.test), 10)).astype(np.float32)
    found = task.metrics(task.test, logits)
    assert found["accuracy"] == accuracy_score(task.test.targets, logits.argmax(axis=1))
    np.testing.assert_allclose(found["nll"], log_loss(task.test.targets, softmax(logits.astype(np.float64), axis=1)), rtol=1e-6)


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.45, 0.55]])
    targets = np.array([0, 1, 0, 1])
    # Two bins hold examples: two at 0.9, of which one is right; and 0.6 and 0.55, which fall into one bin each.
    wanted = (2 * abs(0.5 - 0.9) + abs(1 - 0.6) + abs(1 - 0.55)) / 4
    np.testing.assert_allclose(calibration_error(targets, probabilities), wanted)
    sure_and_right = np.eye(2)[[0, 1]]
    assert calibration_error(np.array([0, 1]), sure_and_right) == 0


def test_baselines(task):
    found = task.baselines()
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(task.train), 1)), task.train.targets)
    answer = dummy.predict_proba(np.zeros((len(task.test), 1)))
    assert found["majority_class"]["accuracy"] == accuracy_score(task.test.targets, answer.argmax(axis=1))
    np.testing.assert_allclose(found["majority_class"]["nll"], log_loss(task.test.targets, answer), rtol=1e-2)  # smoothed
    assert found["logistic_regression"]["accuracy"] > 0.9


def test_the_logistic_regression_learns_from_no_more_pixels_than_fit(task, monkeypatch):
    whole = task.linear_model()
    monkeypatch.setattr(image_classification, "REGRESSION_PIXELS", 100 * 64)  # 100 images of 8 × 8
    some = LogisticRegression(max_iter=50).fit(task.train.raw[:100].reshape(100, -1) / 255, task.train.targets[:100])
    wanted = accuracy_score(task.test.targets, some.predict(task.test.raw.reshape(len(task.test), -1) / 255))
    found = task.linear_model()["logistic_regression"]["accuracy"]
    assert abs(found - wanted) < 0.01
    assert found < whole["logistic_regression"]["accuracy"]


def test_baselines_of_a_part_that_lacks_a_class(task):
    task.train = Part(task.train.inputs[task.train.targets == 3], task.train.targets[task.train.targets == 3])
    share = float(np.mean(task.test.targets == 3))
    assert {name: metrics["accuracy"] for name, metrics in task.baselines().items()} == {
        "majority_class": share, "logistic_regression": share,
    }  # fmt: skip


def test_what_keras_measures_in_training_is_what_is_reported(task, settings):
    chosen = settings("dataset=digits")
    model = training.build(chosen, task, tf.distribute.get_strategy())
    loss, accuracy = model.evaluate(pipeline.evaluation(task.validation, 64), verbose=0)
    found = task.metrics(task.validation, task.predict(model, task.validation, 64))
    np.testing.assert_allclose([loss, accuracy], [found["nll"], found["accuracy"]], rtol=1e-5)


def test_the_served_model_takes_pixels_and_names_its_answers(task, tmp_path):
    keras.utils.set_random_seed(0)
    model = task.model(cnn.build, {})
    network = cnn.build(Image(8, 8, 1), Classes(10))
    network.set_weights(model.get_weights())
    images = task.test.inputs[:5]
    answer = serving.save(*task.served(model), images, str(tmp_path / "saved"))
    wanted = softmax(keras.ops.convert_to_numpy(network(images.astype(np.float32) / 255, training=False)), axis=1)
    np.testing.assert_allclose(answer["probability"], wanted, rtol=1e-4)
    np.testing.assert_array_equal(answer["class"], wanted.argmax(axis=1))


def test_an_image_of_another_shape_is_refused(task, tmp_path):
    serving.save(*task.served(task.model(cnn.build, {})), task.test.raw[:2], str(tmp_path / "saved"))
    served = serving.Served(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=r"takes inputs of shape \(None, 8, 8, 1\), not \(2, 8, 8, 3\)"):
        served.predict(np.zeros((2, 8, 8, 3), np.uint8))


def test_no_images_get_no_answers(task, tmp_path):
    serving.save(*task.served(task.model(cnn.build, {})), task.test.raw[:2], str(tmp_path / "saved"))
    answers = serving.Served(str(tmp_path / "saved")).predict(task.test.raw[:0])
    assert {name: values.shape for name, values in answers.items()} == {"probability": (0, 10), "class": (0,)}


def test_figures_are_drawn(task, tmp_path):
    logits = np.random.default_rng(0).normal(0, 1, (len(task.test), 10)) + 6 * np.eye(10)[task.test.targets]
    model = task.model(cnn.build, {})
    figures = task.figures(model, logits)
    assert set(figures) == {"confusion_matrix.png", "worst_mistakes.png"}
    for name, figure in figures.items():
        figure.savefig(tmp_path / name)
    shown = [text.get_text() for text in figures["confusion_matrix.png"].axes[0].texts]
    assert sum(map(int, shown)) == len(task.test)
    perfect = task.figures(model, 100 * np.eye(10)[task.test.targets])  # no mistake to show
    perfect["worst_mistakes.png"].savefig(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("recipe", "hyperparameters", "grid", "reach"),
    [(transformer, {"patch": 4}, (2, 2), (8, 8)), (transformer, {"patch": 3}, (3, 3), (9, 9)), (attention, {}, (8, 1), (8, 8))],
    ids=["patches", "patches that do not fit", "rows"],
)
def test_what_a_recipe_attends_to_is_drawn_where_it_lies(task, recipe, hyperparameters, grid, reach):
    model = task.model(recipe.build, hyperparameters)
    figure = task.figures(model, task.predict(model, task.test, 64))["attention.png"]
    network = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    weights = attention_weights(network, task.test.raw[:16] / np.float32(255))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-4)
    for axes, each in zip(figure.axes, weights):
        _, shown = axes.get_images()
        np.testing.assert_allclose(shown.get_alpha(), 0.7 * each.reshape(grid) / each.max(), rtol=1e-5)
        assert tuple(shown.get_extent()) == (-0.5, reach[1] - 0.5, reach[0] - 0.5, -0.5)


def test_where_a_recipe_looked_is_drawn_and_the_right_answer_is_told_in_training_alone(task, tmp_path):
    model = task.model(attention.build, {"kind": "hard", "glimpse_size": 4, "units": 8})
    assert set(np.unique(task.train.inputs["label"])) == set(range(10))
    assert set(task.validation.inputs["label"]) == set(task.test.inputs["label"]) == {-1}
    logits = task.predict(model, task.test, 64)
    task.figures(model, logits)["glimpses.png"].savefig(tmp_path / "glimpses.png")
    assert set(task.ablations(model, 64)) == {"random", "center"}
    answers = serving.save(*task.served(model), task.test.raw[:5], str(tmp_path / "saved"))
    np.testing.assert_array_equal(answers["class"], logits[:5].argmax(axis=1))


def test_a_series_is_no_image(settings, load):
    with pytest.raises(UserError, match="image_classification needs images"):
        tasks.create(settings("dataset=digits").task, load("co2"))
