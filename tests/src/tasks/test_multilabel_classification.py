"""Multi-label classification: metrics against scikit-learn, thresholds, baselines, serving and figures."""

import re

import keras
import numpy as np
import pytest
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, label_ranking_average_precision_score, log_loss
from sklearn.multiclass import OneVsRestClassifier

from recipes import attention, cnn, rnn
from src import uncertainty
from src.datasets import Data, Split, pipeline
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import store
from src.tasks.multilabel_classification import are_predicted, best_thresholds, with_thresholds
from src.training import loop, strategies
from tests.figures import overflowing
from tests.labels import LABELS, several_labels
from tests.served import save_and_load
from tests.src.tasks.test_audio_classification import RATE, log_mels

LINE = ("dataset=digits", "task.name=image_multilabel_classification")
WORDS = ["red", "green", "blue", "and", "the"]


@pytest.fixture
def task(settings, load):
    return factory.create(settings(*LINE).task, several_labels(load("digits")))


@pytest.fixture
def texts(settings):
    """A task of texts whose labels are the colors that they name."""
    draw = np.random.default_rng(0)

    def split(count):
        chosen = [draw.choice(WORDS, 4) for _ in range(count)]
        labels = np.array([[color in words for color in WORDS[:3]] for words in chosen])
        return Split(np.array([" ".join(words).encode() for words in chosen], dtype=object), labels)

    data = Data("made", "made:1.0.0", "", split(60), split(30), split(30), classes=tuple(WORDS[:3]))
    line = ("model=rnn", "dataset=docstrings", "task.name=text_multilabel_classification", "task.length=6")
    return factory.create(settings(*line).task, data)


@pytest.fixture
def tones(settings):
    """A task of clips whose labels are the tones that sound in them, in noise."""
    time = np.arange(RATE // 5) / RATE

    def split(count, seed):
        draw = np.random.default_rng(seed)
        labels = draw.random((count, 3)) < 0.5
        phases = 2 * np.pi * (np.multiply.outer(np.array([500, 1_000, 2_000]), time) + draw.random((count, 3, 1)))
        waves = np.einsum("nl,nlt->nt", labels * draw.uniform(0.03, 0.1, (count, 3)), np.sin(phases))
        return Split(np.rint(2**15 * (waves + draw.normal(0, 0.02, waves.shape))).astype(np.int16), labels)

    splits = (split(count, seed) for seed, count in enumerate((120, 30, 30)))
    data = Data("tones", "tones:1.0.0", "", *splits, classes=("low", "middle", "high"), sample_rate=RATE)
    return factory.create(settings("model=cnn", "dataset=dtmf", "task.name=audio_multilabel_classification").task, data)


def predictions_for(split, seed=0):
    """Random logits that are higher for labels that apply, and random thresholds."""
    draw = np.random.default_rng(seed)
    return with_thresholds(draw.normal(split.targets, 1), draw.normal(0.5, 0.3, split.targets.shape[1]))


# --- metrics --------------------------------------------------------------------------------------------------------


def test_metrics_are_those_of_scikit_learn(task):
    predictions, labels = predictions_for(task.test), task.test.targets
    predicted = predictions[..., 0] > predictions[..., 1]
    assert task.metrics(task.test, predictions) == pytest.approx({
        "macro_f1": f1_score(labels, predicted, average="macro"), "micro_f1": f1_score(labels, predicted, average="micro"),
        "mean_average_precision": average_precision_score(labels, predictions[..., 0], average="macro"),
    })  # fmt: skip


def test_a_label_without_examples_counts_where_it_is_predicted(task):
    """F1 of a label that no example has is 0 if it is predicted for one, and does not count otherwise."""
    labels = np.array([[True, False, False], [True, False, False], [False, False, True]])
    split = Split(np.zeros((3, 8, 8, 1)), labels)
    ranked = np.array([[2.0, -1, -1], [-1, -1, 3], [1, -1, 2]])  # of the first label one is missed and one is wrong
    metrics = task.metrics(split, with_thresholds(ranked, np.zeros(3)))
    assert metrics["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics["micro_f1"] == pytest.approx(2 * 2 / (3 + 4))
    first, last = (1 / 1 + 2 / 3) / 2, 1 / 2  # precision at each hit: ranks 1 and 3 of the first label, 2 of the last
    assert metrics["mean_average_precision"] == pytest.approx((first + last) / 2)
    wrong = task.metrics(split, with_thresholds(ranked, np.array([0, -2.0, 0])))
    assert wrong["macro_f1"] == pytest.approx((1 / 2 + 0 + 2 / 3) / 3)


def test_metrics_of_per_example_results_are_those_of_the_task(task):
    predictions = predictions_for(task.test)
    table, metrics = task.example_results(task.test, predictions), task.metrics(task.test, predictions)
    for name in ("macro_f1", "micro_f1"):
        statistics = uncertainty.statistics_of(name, table)
        assert len(statistics.rows) == len(task.test)  # an example is drawn with all its labels
        assert float(statistics.value(statistics.rows.sum(axis=0)[None])[0]) == pytest.approx(metrics[name])
        low, high, _ = uncertainty.confidence_interval(name, table)
        assert low < metrics[name] < high
    row = 3 * 7 + 2  # the third label of the eighth example
    assert (table["example"][row], table["class"][row]) == (7, LABELS[2])
    assert table["probability"][row] == pytest.approx(1 / (1 + np.exp(-predictions[7, 2, 0])))
    assert (table["label"][row], table["prediction"][row]) == (task.test.targets[7, 2], are_predicted(predictions)[7, 2])


def test_a_paired_test_is_of_the_same_examples_and_labels(task):
    one, other = (task.example_results(task.test, predictions_for(task.test, seed)) for seed in (0, 1))
    result = uncertainty.paired_test("macro_f1", [one], [other])
    assert result.units == len(task.test)
    assert uncertainty.paired_test("macro_f1", [one], [other | {"label": ~one["label"]}]) is None


# --- thresholds -----------------------------------------------------------------------------------------------------


def test_thresholds_have_the_highest_f1_of_all():
    draw = np.random.default_rng(3)
    labels = draw.random((80, 4)) < [0.1, 0.3, 0.6, 0.9]
    logits = np.round(draw.normal(labels, 1), 1)  # with ties
    thresholds = best_thresholds(labels, logits)
    for label in range(4):
        present, scores = labels[:, label], logits[:, label]
        tried = [f1_score(present, scores > cut) for cut in np.arange(-5, 5, 0.05) + 0.01]
        assert f1_score(present, scores > thresholds[label]) == pytest.approx(max(tried))


def test_thresholds_lie_halfway_between_scores():
    labels, logits = np.array([[True], [True], [False], [False]]), np.array([[3.0], [1.0], [0.0], [-4.0]])
    assert best_thresholds(labels, logits) == [0.5]
    assert best_thresholds(~labels, -logits) == [-0.5]


def test_thresholds_of_labels_that_cannot_be_told_apart():
    labels = np.array([[True, False], [False, False], [True, False]])
    constant = best_thresholds(labels, np.full((3, 2), -7.0))
    assert constant[0] < -7  # all are predicted, which has a higher F1 than none
    assert constant[1] == 0  # no example has it


def test_thresholds_are_chosen_on_the_validation_set_and_stay_with_the_weights(task, tmp_path):
    keras.utils.set_random_seed(0)
    model = task.build_model(cnn.build, {"filters": [4]})
    assert (task.predict(model, task.test, 64)[..., 1] == 0).all()
    task.finalize(model, 64)
    logits = model.predict(task.validation.inputs, verbose=0)
    expected = best_thresholds(task.validation.targets, logits)
    predictions = task.predict(model, task.test, 64)
    np.testing.assert_allclose(predictions[..., 1], np.broadcast_to(expected, (len(task.test), 3)), rtol=1e-5)
    np.testing.assert_allclose(predictions[..., 0], model.predict(task.test.inputs, verbose=0), rtol=1e-5)
    model.save_weights(tmp_path / "model.weights.h5")
    restored = task.build_model(cnn.build, {"filters": [4]})
    restored.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(task.predict(restored, task.test, 64), predictions)
    assert not [weight for weight in model.trainable_weights if "thresholds" in weight.path]


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("strategy=mirrored", "strategy.replicas=2")], ids=["single", "mirrored"])
def test_loss_and_f1_of_training_are_means_over_all_examples(task, settings, options):
    run_settings = settings(*LINE, "model=cnn", "model.filters=[4]", "training.batch_size=64", *options)
    loop.prepare(run_settings)
    model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
    model.get_layer("cnn").get_layer("logits").bias.assign([0.3, -0.2, 0.1])  # some of each are predicted
    loss, f1 = model.evaluate(pipeline.evaluation(task.validation, 64), verbose=0)  # the last batch is padded
    logits = task.predict(model, task.validation, 64)[..., 0]
    expected = np.mean([log_loss(labels, expit(scores)) for labels, scores in zip(task.validation.targets.T, logits.T)])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert f1 == pytest.approx(f1_score(task.validation.targets, logits > 0, average="micro"), rel=1e-5)


@pytest.mark.parametrize("name", ["task", "tones"])
def test_a_reward_is_refused(name, request):
    with pytest.raises(
        UserError, match=r"learns by a reward for the one right class, .*; choose another model, or model\.kind=soft"
    ):
        request.getfixturevalue(name).build_model(attention.build, {"kind": "hard", "glimpse_size": 4, "units": 8})


def test_a_network_learns_which_tones_sound(tones, settings):
    run_settings = settings(
        "model=cnn", "dataset=dtmf", "task.name=audio_multilabel_classification", "model.filters=[8,8]", "training.epochs=12",
        "model.global_pooling=false", "model.augmentation=0", "training.batch_size=16", "optimizer.learning_rate=3e-3",
    )  # fmt: skip
    loop.prepare(run_settings)
    model = loop.build(run_settings, tones, strategies.create(run_settings.strategy))
    loop.fit(model, run_settings, tones, lambda metrics, epoch: None)
    tones.finalize(model, 16)
    predictions = tones.predict(model, tones.test, 16)
    metrics = tones.metrics(tones.test, predictions)
    assert metrics["macro_f1"] == pytest.approx(f1_score(tones.test.targets, are_predicted(predictions), average="macro"))
    assert metrics["macro_f1"] > 0.9  # 0.67 if all are always predicted


# --- baselines ------------------------------------------------------------------------------------------------------


def test_baselines_of_images_are_those_of_scikit_learn(task):
    computed = store.compute(task)
    assert set(computed.results) == {"label_frequencies", "logistic_regression"}
    train, validation, test = (split.raw.reshape(len(split), -1) / 255 for split in (task.train, task.validation, task.test))
    model = OneVsRestClassifier(LogisticRegression(max_iter=50)).fit(train, task.train.targets)
    predictions = computed.predictions["logistic_regression"]
    # 50 iterations do not converge, and end elsewhere for each processor, but logits span more than 10.
    np.testing.assert_allclose(predictions[..., 0], model.decision_function(test), atol=0.05)
    thresholds = best_thresholds(task.validation.targets, model.decision_function(validation))
    np.testing.assert_allclose(predictions[0, :, 1], thresholds, atol=0.05)
    frequency = computed.predictions["label_frequencies"]
    np.testing.assert_allclose(expit(frequency[0, :, 0]), task.train.targets.mean(axis=0), atol=1e-3)
    shares = task.test.targets.mean(axis=0)
    expected = {"macro_f1": np.mean(2 * shares / (1 + shares)), "mean_average_precision": shares.mean()}  # all are predicted
    result = computed.metrics["label_frequencies"]
    assert {name: result[name] for name in expected} == pytest.approx(expected)


def test_baselines_of_audio_are_those_of_scikit_learn(tones):
    computed = store.compute(tones)
    assert set(computed.results) == {"label_frequencies", "logistic_regression"}
    train, validation, test = (log_mels(split.raw / 2**15) for split in (tones.train, tones.validation, tones.test))
    mean, deviation = train.mean(axis=(0, 1)), train.std(axis=(0, 1))
    standardized = ((clips - mean) / deviation for clips in (train, validation, test))
    train, validation, test = (np.concatenate([clips.mean(axis=1), clips.std(axis=1)], axis=1) for clips in standardized)
    model = OneVsRestClassifier(LogisticRegression(max_iter=50)).fit(train, tones.train.targets)
    predictions = computed.predictions["logistic_regression"]
    np.testing.assert_allclose(predictions[..., 0], model.decision_function(test), atol=0.05)
    thresholds = best_thresholds(tones.validation.targets, model.decision_function(validation))
    np.testing.assert_allclose(predictions[0, :, 1], thresholds, atol=0.05)


def test_baselines_of_texts_are_those_of_scikit_learn(texts):
    computed = store.compute(texts)
    assert set(computed.results) == {"label_frequencies", "bag_of_words"}
    vectorizer = TfidfVectorizer(lowercase=False, ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    train, test = ([text.decode() for text in split.raw] for split in (texts.train, texts.test))
    model = OneVsRestClassifier(LogisticRegression(C=10)).fit(vectorizer.fit_transform(train), texts.train.targets)
    expected = model.decision_function(vectorizer.transform(test))
    np.testing.assert_allclose(computed.predictions["bag_of_words"][..., 0], expected, atol=0.02)
    assert computed.metrics["bag_of_words"]["macro_f1"] == 1
    assert label_ranking_average_precision_score(texts.test.targets, expected) == 1


def test_a_label_that_no_training_example_has_gets_its_frequency(task):
    task.train = Split(task.train.inputs, task.train.targets & [True, True, False])
    computed = store.compute(task)
    assert not computed.failed
    assert len(np.unique(computed.predictions["logistic_regression"][:, 2, 0])) == 1


# --- serving and figures --------------------------------------------------------------------------------------------


def test_the_served_model_names_the_labels_above_their_thresholds(task, tmp_path):
    keras.utils.set_random_seed(0)
    model = task.build_model(cnn.build, {"filters": [4]})
    task.finalize(model, 64)
    predictions = task.predict(model, task.test, 64)
    answer = save_and_load(task, model, tmp_path / "saved").predict(task.test.raw)
    np.testing.assert_allclose(answer["probability"], expit(predictions[..., 0]), rtol=1e-4)
    np.testing.assert_array_equal(answer["predicted"], are_predicted(predictions))
    assert 0 < answer["predicted"].mean() < 1
    assert answer["labels"].tolist() == [
        [name for name, present in zip(LABELS, row) if present] for row in are_predicted(predictions)
    ]
    assert list(answer["probability_by_name"][0]) == list(LABELS)
    assert save_and_load(task, model, tmp_path / "again").predict(task.test.raw[:0])["labels"].shape == (0,)


def test_the_served_model_of_audio_takes_waveforms(tones, tmp_path):
    keras.utils.set_random_seed(0)
    model = tones.build_model(cnn.build, {"filters": [4]})
    tones.finalize(model, 16)
    predictions = tones.predict(model, tones.test, 16)
    answer = save_and_load(tones, model, tmp_path / "saved").predict(tones.test.raw)
    np.testing.assert_allclose(answer["probability"], expit(predictions[..., 0]), rtol=1e-3)
    np.testing.assert_array_equal(answer["predicted"], are_predicted(predictions))


def test_the_served_model_of_texts_takes_texts(texts, tmp_path):
    model = texts.build_model(rnn.build, {})
    texts.finalize(model, 10)
    answer = save_and_load(texts, model, tmp_path / "saved").predict([text.decode() for text in texts.test.raw])
    np.testing.assert_array_equal(answer["predicted"], are_predicted(texts.predict(model, texts.test, 10)))


def test_each_label_has_its_results(task, tmp_path):
    predictions, labels = predictions_for(task.test), task.test.targets
    figures = task.figures(task.build_model(cnn.build, {"filters": [4]}), predictions)
    assert set(figures) == {"classes.png", "classes.html", "worst_mistakes.png"}
    assert not overflowing(figures["classes.png"])
    left, right = figures["classes.png"].axes
    order = np.argsort(-labels.sum(axis=0))  # the most frequent label at the top
    assert [text.get_text() for text in left.get_yticklabels()] == [LABELS[label] for label in order]
    f1 = f1_score(labels, are_predicted(predictions), average=None)
    np.testing.assert_allclose([bar.get_width() for bar in left.containers[0]], f1[order])
    np.testing.assert_allclose([bar.get_width() for bar in right.containers[0]], labels.mean(axis=0)[order])
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", figures["classes.html"])]
    assert [row[3] for row in rows[1:]] == [*(f"{value:.4f}" for value in f1), f"{f1.mean():.4f}"]
    assert [row[6] for row in rows[1:-1]] == [f"{value:.4f}" for value in expit(predictions[0, :, 1])]


def test_the_worst_mistakes_come_first(task):
    predictions = predictions_for(task.test)
    figure = task.figures(task.build_model(cnn.build, {"filters": [4]}), predictions)["worst_mistakes.png"]
    labels, predicted, probability = task.test.targets, are_predicted(predictions), expit(predictions[..., 0])
    likelihood = np.where(labels, probability, 1 - probability).prod(axis=1)
    wrong = np.flatnonzero((labels != predicted).any(axis=1))
    worst = wrong[likelihood[wrong].argmin()]
    names = [", ".join(name for name, present in zip(LABELS, row[worst]) if present) or "none" for row in (labels, predicted)]
    assert figure.axes[0].get_title() == f"{names[0]} /\n{names[1]}"
    assert figure.get_suptitle() == f"The 16 worst of {len(wrong)} mistakes on 359 test images; true / predicted labels"


def test_attention_is_drawn_over_texts_of_several_labels(texts):
    model = texts.build_model(attention.build, {})
    page = texts.figures(model, texts.predict(model, texts.test, 10))["attention.html"]
    assert "true / predicted labels" in page
