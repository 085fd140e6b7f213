"""Teacher forcing, losses, metrics, decoding and serving of translation."""

import keras
import numpy as np
import pytest
import sacrebleu

from recipes import attention, transformer
from recipes.specs import END, PADDING, START
from src.datasets import Data, Split
from src.tasks import factory
from src.tasks.baselines import store
from src.tasks.losses import TokenAccuracy, TokenCrossentropy
from tests.served import save_and_load

PAIRS = [("one two", "eins zwei"), ("two", "zwei"), ("Three, one", "drei, eins"), ("一", "eins")]


def make_split(pairs):
    inputs, targets = (np.array([text.encode() for text in side], dtype=object) for side in zip(*pairs))
    return Split(inputs, targets)


@pytest.fixture
def create(settings):
    def with_settings(*overrides, pairs=PAIRS):
        made = Data("made", "made:1.0.0", "", make_split(pairs), make_split(pairs), make_split(pairs), classes=())
        common = ("model=transformer", "dataset=dates", "task.tokenizer=words", "task.source_length=5", "task.target_length=4")
        return factory.create(settings(*common, *overrides).task, made)

    return with_settings


def test_the_target_is_shifted_by_one(create):
    task = create()
    inputs, expected = task.train.inputs["target"], task.train.targets
    assert inputs[0, 0] == START
    np.testing.assert_array_equal(inputs[0, 1:3], expected[0, :2])
    assert expected[0, 2] == END
    assert (expected[0, 3:] == PADDING).all()
    assert task.train.inputs["source"].shape == (4, 5)


def test_the_loss_by_hand():
    draw = np.random.default_rng(0)
    logits, targets = draw.normal(size=(2, 3, 5)).astype(np.float32), np.array([[4, 3, 0], [1, 2, 3]])
    log_probabilities = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    for smoothing in (0.0, 0.1):
        soft = (1 - smoothing) * np.eye(5)[targets] + smoothing / 5
        tokens = -(soft * log_probabilities).sum(axis=-1) * (targets != 0)
        result = TokenCrossentropy(2.5, smoothing).call(targets, logits)
        np.testing.assert_allclose(result, tokens.sum(axis=1) / 2.5, rtol=1e-5)
    assert float(TokenCrossentropy(2.5)(targets, logits)) == pytest.approx(
        -(np.eye(5)[targets] * log_probabilities).sum(-1)[targets != 0].mean(), rel=1e-5
    )


def test_the_accuracy_counts_no_padding():
    metric = TokenAccuracy()
    metric.update_state(np.array([[4, 3, 0], [1, 2, 3]]), np.eye(5)[[[4, 1, 0], [1, 2, 3]]], np.array([1.0, 1.0]))
    assert float(metric.result()) == pytest.approx(4 / 5)
    metric.reset_state()
    metric.update_state(np.array([[4, 3, 0], [1, 2, 3]]), np.eye(5)[[[4, 1, 0], [1, 2, 3]]], np.array([2.0, 0.0]))
    assert float(metric.result()) == pytest.approx(1 / 2)


def test_metrics_are_those_of_sacrebleu(create):
    task = create()
    predictions = np.array(["eins zwei", "zwei", "drei , zwei", "zwei eins"], dtype=object)
    references = ["eins zwei", "zwei", "drei , eins", "eins"]
    result = task.metrics(task.test, predictions)
    assert result["exact_match"] == 0.5
    assert result["bleu"] == sacrebleu.corpus_bleu(list(predictions), [references]).score
    assert result["chrf"] == sacrebleu.corpus_chrf(list(predictions), [references]).score
    perfect = np.array(references, dtype=object)
    assert task.metrics(task.test, perfect)["exact_match"] == 1


@pytest.mark.parametrize(
    ("recipe", "hyperparameters"),
    [
        pytest.param(transformer, {"blocks": 1}, id="transformer"),
        pytest.param(attention, {}, id="attention", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("tokenizer", "beams"),
    [("words", 3), *(pytest.param(*both, marks=pytest.mark.slow) for both in (("words", 1), ("bpe", 3)))],
)
def test_translation_model_overfits_decodes_and_serves(create, tmp_path, recipe, hyperparameters, beams, tokenizer):
    keras.utils.set_random_seed(0)
    task = create(
        f"task.tokenizer={tokenizer}",
        "task.vocabulary_size=290",
        "task.source_length=8",
        "task.target_length=9",
        f"task.beams={beams}",
    )
    model = task.build_model(recipe.build, {"dropout": 0.0, **hyperparameters})
    model.compile(keras.optimizers.Adam(0.01), loss=task.loss(), weighted_metrics=task.training_metrics(model))
    model.fit(task.train.inputs, task.train.targets, epochs=60, verbose=0)
    expected = ["eins zwei", "zwei", "drei , eins" if tokenizer == "words" else "drei, eins", "eins"]
    predictions = task.predict(model, task.test, 3)  # the last batch is padded
    assert predictions.tolist() == expected
    figures = task.figures(model, predictions)
    assert expected[2] in figures["alignments.html"]
    served = save_and_load(task, model, tmp_path / "saved")
    assert served.predict([text.decode() for text in task.test.raw])["text"].tolist() == expected
    assert served.predict(["two", "一"])["text"].tolist() == ["zwei", "eins"]


@pytest.mark.parametrize("tokenizer", ["words", "bpe"])
def test_truncated_target_has_no_end_token(create, tokenizer):
    overrides = (f"task.tokenizer={tokenizer}", "task.vocabulary_size=400", "task.target_length=3")
    task = create(*overrides, pairs=[("a", "b b b"), ("a", "b b b b")])
    inputs, expected = task.train.inputs["target"], task.train.targets
    assert (inputs[:, 0] == START).all()
    np.testing.assert_array_equal(inputs[:, 1:], expected[:, :-1])
    assert expected[0, 3] == END
    assert expected[1, 3] > END


def test_baselines_copy_the_source_or_translate_it_word_by_word(create):
    result = store.compute(create(pairs=[("same", "same"), ("One", "Eins")])).metrics
    assert result["copy"]["exact_match"] == 0.5
    assert result["word_by_word"]["exact_match"] == 1
