"""Teacher forcing, losses, metrics, writing and serving of translation."""

import keras
import numpy as np
import pytest
import sacrebleu

from recipes import attention, transformer
from recipes.specs import END, PADDING, START
from src import serving, tasks
from src.datasets import Data, Part
from src.tasks.translation import TokenAccuracy, TokenCrossentropy

PAIRS = [("one two", "eins zwei"), ("two", "zwei"), ("Three, one", "drei, eins"), ("一", "eins")]


def part(pairs):
    inputs, targets = (np.array([text.encode() for text in side], dtype=object) for side in zip(*pairs))
    return Part(inputs, targets)


@pytest.fixture
def create(settings):
    def with_settings(*overrides, pairs=PAIRS):
        made = Data("made", "made:1.0.0", "", part(pairs), part(pairs), part(pairs), classes=())
        common = ("model=transformer", "dataset=dates", "task.unit=word", "task.source_length=5", "task.target_length=4")
        return tasks.create(settings(*common, *overrides).task, made)

    return with_settings


def test_the_target_is_shifted_by_one(create):
    task = create()
    given, wanted = task.train.inputs["target"], task.train.targets
    assert given[0, 0] == START
    np.testing.assert_array_equal(given[0, 1:3], wanted[0, :2])
    assert wanted[0, 2] == END
    assert (wanted[0, 3:] == PADDING).all()
    assert task.train.inputs["source"].shape == (4, 5)


def test_the_loss_by_hand():
    draw = np.random.default_rng(0)
    logits, truth = draw.normal(size=(2, 3, 5)).astype(np.float32), np.array([[4, 3, 0], [1, 2, 3]])
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    for smoothing in (0.0, 0.1):
        soft = (1 - smoothing) * np.eye(5)[truth] + smoothing / 5
        tokens = -(soft * logs).sum(axis=-1) * (truth != 0)
        found = TokenCrossentropy(2.5, smoothing).call(truth, logits)
        np.testing.assert_allclose(found, tokens.sum(axis=1) / 2.5, rtol=1e-5)
    assert float(TokenCrossentropy(2.5)(truth, logits)) == pytest.approx(
        -(np.eye(5)[truth] * logs).sum(-1)[truth != 0].mean(), rel=1e-5
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
    said = np.array([text.encode() for text in ("eins zwei", "zwei", "drei , zwei", "zwei eins")], dtype=object)
    references = ["eins zwei", "zwei", "drei , eins", "eins"]
    found = task.metrics(task.test, said)
    assert found["exact_match"] == 0.5
    said = [text.decode() for text in said]
    assert found["bleu"] == sacrebleu.corpus_bleu(said, [references]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(said, [references]).score
    perfect = np.array([text.encode() for text in references], dtype=object)
    assert task.metrics(task.test, perfect)["exact_match"] == 1


@pytest.mark.parametrize("recipe", [transformer, attention], ids=["transformer", "attention"])
@pytest.mark.parametrize(
    ("unit", "beams"), [("word", 3), *(pytest.param(*more, marks=pytest.mark.slow) for more in (("word", 1), ("bpe", 3)))]
)
def test_it_learns_by_heart_writes_by_itself_and_is_served(create, tmp_path, recipe, beams, unit):
    keras.utils.set_random_seed(0)
    task = create(
        f"task.unit={unit}", "task.vocabulary=290", "task.source_length=8", "task.target_length=9", f"task.beams={beams}"
    )
    model = task.model(recipe.build, {"dropout": 0.0})
    model.compile(keras.optimizers.Adam(0.01), loss=task.loss(), weighted_metrics=task.training_metrics())
    model.fit(task.train.inputs, task.train.targets, epochs=60, verbose=0)
    wanted = ["eins zwei", "zwei", "drei , eins" if unit == "word" else "drei, eins", "eins"]
    written = task.predict(model, task.test, 3)  # the last batch is filled up
    assert [text.decode() for text in written] == wanted
    figures = task.figures(model, written)
    assert wanted[2] in figures["alignments.html"]
    answers = serving.save(*task.served(model), task.test.raw, str(tmp_path / "saved"), task.encoder)
    assert answers["text"].tolist() == wanted
    assert serving.Served(str(tmp_path / "saved")).predict(["two", "一"])["text"].tolist() == ["zwei", "eins"]


@pytest.mark.parametrize("unit", ["word", "bpe"])
def test_a_target_that_is_cut_has_no_end(create, unit):
    task = create(f"task.unit={unit}", "task.vocabulary=400", "task.target_length=3", pairs=[("a", "b b b"), ("a", "b b b b")])
    given, wanted = task.train.inputs["target"], task.train.targets
    assert (given[:, 0] == START).all()
    np.testing.assert_array_equal(given[:, 1:], wanted[:, :-1])
    assert wanted[0, 3] == END
    assert wanted[1, 3] > END


def test_the_baseline_copies_the_source(create):
    task = create(pairs=[("same", "same"), ("one", "eins")])
    assert task.baselines()["copy"]["exact_match"] == 0.5
