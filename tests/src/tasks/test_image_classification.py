"""Metrics and baselines of image classification, against scikit-learn and by hand."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, precision_score, recall_score
from sklearn.utils.class_weight import compute_class_weight

from recipes import attention, cnn, transformer
from recipes.specs import Classes, Image
from src.datasets import Data, Split, pipeline
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import images, store
from src.tasks.classification import attention_weights, balanced_class_weights, calibration_error, mistakes_title
from src.training import loop, optimizers, strategies
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
    assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(task.test.targets, logits.argmax(axis=1)))
    assert result["macro_f1"] == pytest.approx(f1_score(task.test.targets, logits.argmax(axis=1), average="macro"))


def test_classes_without_examples_do_not_count(task):
    """Class 0 is neither a label nor predicted, class 1 is predicted alone."""
    rows = task.test.targets > 1
    split = Split(task.test.inputs[rows], task.test.targets[rows])
    logits = np.random.default_rng(0).normal(0, 3, (len(split), 10)) - 100 * np.eye(10)[0]
    result, predicted = task.metrics(split, logits), logits.argmax(axis=1)
    recalls = [np.mean(predicted[split.targets == label] == label) for label in range(2, 10)]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert result["macro_f1"] == pytest.approx(f1_score(split.targets, predicted, average="macro"))  # over nine classes


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
    assert set(figures) == {"confusion_matrix.png", "classes.html", "worst_mistakes.png"}
    table = figures.pop("classes.html")
    for name, figure in figures.items():
        figure.savefig(tmp_path / name)
    shown = [text.get_text() for text in figures["confusion_matrix.png"].axes[0].texts]
    assert sum(map(int, shown)) == len(task.test)
    perfect = task.figures(model, 100 * np.eye(10)[task.test.targets])  # no mistake to show
    perfect["worst_mistakes.png"].savefig(tmp_path / "none.png")
    assert perfect["worst_mistakes.png"].get_suptitle().startswith("No mistake on 359 test images")
    assert not any(map(overflowing, figures.values()))
    (heading, *_, last, means) = re.findall(r"<tr>(.*?)</tr>", table)
    assert re.findall(r"<th>(.*?)</th>", heading) == ["class", "precision", "recall", "F1", "examples"]
    predicted, label = logits.argmax(axis=1), task.test.targets
    expected = [score(label, predicted, labels=[9], average="macro") for score in (precision_score, recall_score, f1_score)]
    assert re.findall(r"<td>(.*?)</td>", last) == ["9", *(f"{value:.4f}" for value in expected), str(np.sum(label == 9))]
    assert re.findall(r"<td>(.*?)</td>", means)[2] == f"{balanced_accuracy_score(label, predicted):.4f}"
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


# --- weights of classes ---------------------------------------------------------------------------------------------


def shifted(counts, seed=0):
    """Images of one gray level: two classes that overlap, with as many examples."""
    labels = np.repeat([0, 1], counts)
    levels = np.random.default_rng(seed).normal(100 + 50 * labels, 40).clip(0, 255)
    return Split(np.broadcast_to(levels[:, None, None, None], (len(labels), 2, 2, 1)).astype(np.uint8), labels)


@pytest.fixture
def imbalanced(settings):
    """imbalanced("task.class_weights=balanced"): a task in which one example of twenty is of the second class."""
    data = Data("made", "made:1.0.0", "", *(shifted((380, 20), seed) for seed in range(3)), classes=("common", "rare"))
    return lambda *overrides: factory.create(settings("dataset=digits", *overrides).task, data)


def logistic(inputs, outputs):
    image = keras.Input((inputs.height, inputs.width, inputs.channels))
    return keras.Model(image, keras.layers.Dense(outputs.count, name="logits")(keras.layers.Flatten()(image)))


def test_balanced_weights_are_those_of_scikit_learn():
    targets = np.array([0] * 50 + [1] * 30 + [3] * 4)
    weights = balanced_class_weights(targets, 5)
    present = [0, 1, 3]
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=np.array(present), y=targets))
    assert weights[targets].mean() == pytest.approx(1)
    assert weights[2] == weights[4] == 1


def test_the_weighted_loss_and_its_gradient_by_hand(imbalanced):
    loss = imbalanced("task.class_weights=balanced").loss()
    labels, logits = np.array([0, 1, 1, 0, 0, 1]), np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    sample_weight = np.array([1.5, 1.5, 1.5, 1.5, 0, 0], np.float32)  # as of a padded batch
    weights = np.where(labels == 1, 400 / (2 * 20), 400 / (2 * 380))
    probability = softmax(logits, axis=1)
    with tf.GradientTape() as tape:
        tape.watch(variable := tf.constant(logits))
        value = loss(tf.constant(labels), variable, tf.constant(sample_weight))
    nats = -np.log(probability[np.arange(6), labels])
    np.testing.assert_allclose(value, np.mean(sample_weight * weights * nats), rtol=1e-5)
    expected = (sample_weight * weights)[:, None] * (probability - np.eye(2)[labels]) / 6
    np.testing.assert_allclose(tape.gradient(value, variable), expected, atol=1e-6)
    copy = type(loss).from_config(loss.get_config())
    np.testing.assert_allclose(copy(labels, logits), np.mean(weights * nats), rtol=1e-5)


@pytest.mark.parametrize(
    "options", [("strategy=mirrored", "strategy.replicas=2"), ("training.precision=mixed_float16",)], ids=str
)
def test_the_weighted_validation_loss_is_the_mean_over_all_examples(imbalanced, settings, options):
    run_settings = settings("model=cnn", "model.filters=[4]", "dataset=digits", "training.batch_size=64", *options)
    task = imbalanced("task.class_weights=balanced")
    loop.prepare(run_settings)
    model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
    loss, accuracy = model.evaluate(pipeline.evaluation(task.validation, 64), verbose=0)  # the last batch is padded
    keras.config.set_dtype_policy("float32")
    logits = task.predict(model, task.validation, 64)
    nats = -log_softmax(logits, axis=1)[np.arange(400), task.validation.targets]
    weights = np.where(task.validation.targets == 1, 10, 400 / 760)
    assert loss == pytest.approx(np.mean(weights * nats), rel=1e-4)
    assert accuracy == pytest.approx(task.metrics(task.validation, logits)["accuracy"])  # metrics have no weights


def test_a_rare_class_is_recognized_more_often_with_weights(imbalanced):
    recalls = []
    for weights in ("null", "balanced"):
        task = imbalanced(f"task.class_weights={weights}")
        keras.utils.set_random_seed(0)
        model = task.build_model(logistic, {})
        model.compile(keras.optimizers.Adam(0.1), task.loss())
        model.fit(pipeline.training(task.train, 100, seed=0), steps_per_epoch=100, verbose=0)
        predicted = task.predict(model, task.test, 100).argmax(axis=1)
        recalls.append(recall_score(task.test.targets, predicted))
        if weights == "balanced":
            assert task.metrics(task.test, task.predict(model, task.test, 100))["balanced_accuracy"] > 0.65
    assert recalls[0] < 0.2
    assert recalls[1] > 0.6


def test_without_weights_the_loss_is_that_of_keras(imbalanced):
    assert type(imbalanced().loss()) is keras.losses.SparseCategoricalCrossentropy


def test_weights_of_classes_do_not_reach_a_reward(imbalanced):
    with pytest.raises(
        UserError, match=r"does not weight the reward that this recipe learns by; type task\.class_weights=null"
    ):
        imbalanced("task.class_weights=balanced").build_model(attention.build, {"kind": "hard", "glimpse_size": 2, "units": 4})


def test_series_are_rejected_as_images(settings, load):
    with pytest.raises(UserError, match="image_classification needs images"):
        factory.create(settings("dataset=digits").task, load("co2"))
