"""Metrics and baselines of image classification, against scikit-learn and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss

from recipes import attention, cnn, transformer
from recipes.specs import Classes, Image
from src.datasets import Split, pipeline
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import images, store
from src.tasks.classification import attention_weights, calibration_error, mistakes_title
from src.training import loop, optimizers
from tests.figures import overflowing
from tests.served import save_and_load


@pytest.fixture
def task(settings, load):
    return factory.create(settings("dataset=digits").task, load("digits"))


def test_metrics_are_those_of_scikit_learn(task):
    logits = np.random.default_rng(0).normal(0, 3, (len(task.test), 10)).astype(np.float32)
    result = task.metrics(task.test, logits)
    assert result["accuracy"] == accuracy_score(task.test.targets, logits.argmax(axis=1))
    np.testing.assert_allclose(
        result["nll"], log_loss(task.test.targets, softmax(logits.astype(np.float64), axis=1)), rtol=1e-6
    )


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.45, 0.55]])
    targets = np.array([0, 1, 0, 1])
    # Two bins hold examples: two at 0.9, of which one is right; and 0.6 and 0.55, which fall into one bin each.
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.6) + abs(1 - 0.55)) / 4
    np.testing.assert_allclose(calibration_error(targets, probabilities), expected)
    confident_and_correct = np.eye(2)[[0, 1]]
    assert calibration_error(np.array([0, 1]), confident_and_correct) == 0


def test_baselines(task, monkeypatch):
    monkeypatch.setattr(images, "BOOSTING_VALUES", 0)  # seconds
    computed = store.compute(task)
    result = computed.metrics
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(task.train), 1)), task.train.targets)
    probabilities = dummy.predict_proba(np.zeros((len(task.test), 1)))
    assert result["majority_class"]["accuracy"] == accuracy_score(task.test.targets, probabilities.argmax(axis=1))
    np.testing.assert_allclose(
        result["majority_class"]["nll"], log_loss(task.test.targets, probabilities), rtol=1e-2
    )  # smoothed
    assert result["logistic_regression"]["accuracy"] > 0.9
    assert result["nearest_neighbors"]["accuracy"] > result["logistic_regression"]["accuracy"]
    assert computed.results["nearest_neighbors"].note.startswith("k = ")


def test_baselines_of_large_data_are_limited_and_say_so(task, monkeypatch):
    monkeypatch.setattr(images, "REGRESSION_VALUES", 100 * 64)  # 100 images of 8 × 8
    monkeypatch.setattr(images, "NEIGHBOR_PRODUCTS", 50 * 64 * (len(task.validation) + len(task.test)))
    monkeypatch.setattr(images, "BOOSTING_VALUES", 100)
    computed = store.compute(task)
    reference = LogisticRegression(max_iter=50).fit(task.train.raw[:100].reshape(100, -1) / 255, task.train.targets[:100])
    expected = accuracy_score(task.test.targets, reference.predict(task.test.raw.reshape(len(task.test), -1) / 255))
    assert abs(computed.metrics["logistic_regression"]["accuracy"] - expected) < 0.01
    assert computed.results["logistic_regression"].note == f"100 of {len(task.train):,} training images"
    assert computed.results["nearest_neighbors"].note.endswith(f", 50 of {len(task.train):,} training images")
    assert computed.skipped == {"gradient_boosting": f"{len(task.train) * 640:,} pixels times classes are more than 100"}


def test_baselines_of_a_single_class(task):
    task.train = Split(task.train.inputs[task.train.targets == 3], task.train.targets[task.train.targets == 3])
    share = float(np.mean(task.test.targets == 3))
    assert {name: metrics["accuracy"] for name, metrics in store.compute(task).metrics.items()} == {"majority_class": share}


def test_training_metrics_equal_reported_metrics(task, settings):
    run_settings = settings("dataset=digits")
    model = loop.build(run_settings, task, tf.distribute.get_strategy())
    loss, accuracy = model.evaluate(pipeline.evaluation(task.validation, 64), verbose=0)
    result = task.metrics(task.validation, task.predict(model, task.validation, 64))
    np.testing.assert_allclose([loss, accuracy], [result["nll"], result["accuracy"]], rtol=1e-5)


def test_the_served_model_takes_pixels_and_names_its_outputs(task, tmp_path):
    keras.utils.set_random_seed(0)
    model = task.build_model(cnn.build, {})
    network = cnn.build(Image(8, 8, 1), Classes(10))
    network.set_weights(model.get_weights())
    images = task.test.inputs[:5]
    served = save_and_load(task, model, tmp_path / "saved")
    outputs = served.predict(images)
    expected = softmax(keras.ops.convert_to_numpy(network(images.astype(np.float32) / 255, training=False)), axis=1)
    np.testing.assert_allclose(outputs["probability"], expected, rtol=1e-4)
    np.testing.assert_array_equal(outputs["class"], expected.argmax(axis=1))


def test_the_served_model_takes_numbers_of_any_type_in_the_range_of_the_pixels(task, tmp_path):
    served = save_and_load(task, task.build_model(cnn.build, {"filters": [4]}), tmp_path / "saved")
    images = task.test.raw[:2]
    expected = served.predict(images)
    assert expected["class_name"].tolist() == [task.classes[index] for index in expected["class"]]
    np.testing.assert_array_equal(list(expected["probability_by_name"][1].values()), expected["probability"][1])
    for typed in (images.astype(int), np.clip(images + 0.3, 0, 255), images.astype(object), images.tolist()):
        np.testing.assert_array_equal(served.predict(typed)["probability"], expected["probability"])
    empty = served.predict(images[:0])
    assert {name: values.shape for name, values in empty.items()} == {
        "probability": (0, 10), "class": (0,), "class_name": (0,), "probability_by_name": (0,),
    }  # fmt: skip
    for typed, message in (
        (np.zeros((2, 8, 8, 3), np.uint8), r"takes inputs of shape \(None, 8, 8, 1\), not \(2, 8, 8, 3\)"),
        (images.astype(int) - 300, "takes values of 0 to 255, not of -300 to"),
        (images / 255, "lie between 0 and 1, and the model takes values of 0 to 255: multiply by 255"),
        (np.full(images.shape, np.nan), "missing or infinite values"),
    ):
        with pytest.raises(ValueError, match=message):
            served.predict(typed)


def test_figures_are_drawn(task, tmp_path):
    logits = np.random.default_rng(0).normal(0, 1, (len(task.test), 10)) + 3 * np.eye(10)[task.test.targets]
    model = task.build_model(cnn.build, {})
    figures = task.figures(model, logits)
    assert set(figures) == {"confusion_matrix.png", "worst_mistakes.png"}
    for name, figure in figures.items():
        figure.savefig(tmp_path / name)
    shown = [text.get_text() for text in figures["confusion_matrix.png"].axes[0].texts]
    assert sum(map(int, shown)) == len(task.test)
    perfect = task.figures(model, 100 * np.eye(10)[task.test.targets])  # no mistake to show
    perfect["worst_mistakes.png"].savefig(tmp_path / "none.png")
    assert perfect["worst_mistakes.png"].get_suptitle().startswith("No mistake on 359 test images")
    assert not any(map(overflowing, figures.values()))
    (first, *_), wrong = figures["worst_mistakes.png"].axes, np.flatnonzero(logits.argmax(axis=1) != task.test.targets)
    worst = min(wrong, key=lambda index: log_softmax(logits[index])[task.test.targets[index]])
    probability = softmax(logits[worst]).max()
    assert first.get_title() == f"{task.test.targets[worst]} / {logits[worst].argmax()} ({100 * probability:.0f} %)"


@pytest.mark.parametrize(
    ("mistakes", "shown", "title"),
    [
        (0, 0, "No mistake on 1,000 test texts"), (1, 1, "The only mistake on 1,000 test texts"),
        (5, 5, "All 5 mistakes on 1,000 test texts"), (23, 16, "The 16 worst of 23 mistakes on 1,000 test texts"),
    ],
)  # fmt: skip
def test_the_title_says_how_many_mistakes_there_are(mistakes, shown, title):
    assert mistakes_title(mistakes, shown, 1000, "texts") == title


@pytest.mark.parametrize(
    ("recipe", "hyperparameters", "grid", "reach"),
    [(transformer, {"patch": 4}, (2, 2), (8, 8)), (transformer, {"patch": 3}, (3, 3), (9, 9)), (attention, {}, (8, 1), (8, 8))],
    ids=["patches", "patches that do not fit", "rows"],
)
def test_attention_weights_are_drawn_over_their_patches(task, recipe, hyperparameters, grid, reach):
    model = task.build_model(recipe.build, hyperparameters)
    figure = task.figures(model, task.predict(model, task.test, 64))["attention.png"]
    network = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    weights = attention_weights(network, task.test.raw[:16] / np.float32(255))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-4)
    for axes, each in zip(figure.axes, weights):
        _, shown = axes.get_images()
        np.testing.assert_allclose(shown.get_alpha(), 0.7 * each.reshape(grid) / each.max(), rtol=1e-5)
        assert tuple(shown.get_extent()) == (-0.5, reach[1] - 0.5, reach[0] - 0.5, -0.5)


def test_glimpses_are_drawn_and_labels_are_inputs_only_in_training(settings, task, tmp_path):
    model = task.build_model(attention.build, {"kind": "hard", "glimpse_size": 4, "units": 8})
    train = task.model_inputs(model, task.train, training=True)
    validation, test = (task.model_inputs(model, split) for split in (task.validation, task.test))
    assert set(np.unique(train.inputs["label"])) == set(range(10))
    assert set(validation.inputs["label"]) == set(test.inputs["label"]) == {-1}
    assert isinstance(task.train.inputs, np.ndarray)  # building a model changes no data
    logits = task.predict(model, task.test, 64)
    figure = task.figures(model, logits)["glimpses.png"]
    figure.savefig(tmp_path / "glimpses.png")
    for index, axes in enumerate(figure.axes):
        assert axes.get_title().startswith(f"{task.test.targets[index]} / {logits[index].argmax()} (")
        assert [text.get_text() for text in axes.texts] == ["1", "2", "3", "4", "5", "6"]
    run_settings = settings("model=attention", "dataset=digits")
    model.compile(optimizers.create(run_settings.optimizer, run_settings.training, steps=10), task.loss())
    assert set(task.ablations(model, 64)) == {"random", "center"}
    outputs = save_and_load(task, model, tmp_path / "saved").predict(task.test.raw[:5])
    np.testing.assert_array_equal(outputs["class"], logits[:5].argmax(axis=1))


def test_series_are_rejected_as_images(settings, load):
    with pytest.raises(UserError, match="image_classification needs images"):
        factory.create(settings("dataset=digits").task, load("co2"))
