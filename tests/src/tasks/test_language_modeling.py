"""Windows, metrics, baselines and writing of language models."""

import itertools

import keras
import numpy as np
import pytest

from recipes import gpt, lstm
from recipes.specs import PADDING, NextTokenLogits, Tokens
from src import serving, tasks
from src.datasets import Data, Part
from src.errors import UserError
from src.tasks.language_modeling import Writer, windows

TEXTS = {"train": ["abab", "abc", "aab"] * 5, "validation": ["abc", "ab"], "test": ["cab", "aab", "bé"]}


def part(texts):
    array = np.array([text.encode() for text in texts], dtype=object)
    return Part(array, np.zeros(len(texts), int))


@pytest.fixture
def create(settings):
    def with_settings(*overrides):
        made = Data("made", "made:1.0.0", "", *(part(TEXTS[name]) for name in ("train", "validation", "test")), classes=())
        common = ("model=gpt", "dataset=docstrings", "task.context=4", "task.tokens=character", "task.bpe_vocabulary=270")
        return tasks.create(settings(*common, *overrides).task, made)

    return with_settings


def test_every_token_is_told_once_and_after_the_right_one():
    stream = np.arange(4, 17, dtype=np.int32)
    found = windows(stream, 5)
    np.testing.assert_array_equal(found.targets[found.targets != PADDING], stream[1:])
    np.testing.assert_array_equal(found.inputs[found.inputs != PADDING], stream[:-1])
    real = found.targets != PADDING
    np.testing.assert_array_equal(found.targets[real], found.inputs[real] + 1)
    halves = windows(stream, 4, every=2)
    assert {tuple(row) for row in windows(stream, 4).inputs} <= {tuple(row) for row in halves.inputs}


@pytest.mark.parametrize("tokens", ["character", "byte", "bpe"])
def test_metrics_by_hand(create, tokens):
    task = create(f"task.tokens={tokens}")
    likelihoods = np.where(task.test.targets == PADDING, 0.0, np.log(0.25))
    found = task.metrics(task.test, likelihoods)
    told = len(task.vocabulary.stream(TEXTS["test"])) - 1
    assert found["nll"] == pytest.approx(np.log(4))
    assert found["perplexity"] == pytest.approx(4)
    assert found["bits_per_character"] == pytest.approx(2 * told / sum(map(len, TEXTS["test"])))


def test_what_is_predicted_is_the_likelihood_of_the_targets(create):
    task = create()
    keras.utils.set_random_seed(0)
    model = task.model(gpt.build, {"dimension": 16, "heads": 2, "blocks": 1})
    logits = keras.ops.convert_to_numpy(model(task.test.inputs, training=False)).astype(np.float64)
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    wanted = np.take_along_axis(logs, task.test.targets[..., None], axis=-1)[..., 0]
    wanted[task.test.targets == PADDING] = 0
    found = task.predict(model, task.test, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    model.compile(loss=task.loss(), weighted_metrics=task.training_metrics())
    whole = task.test.first(2)  # windows without padding: what training calls the loss is what is reported
    assert (whole.targets != PADDING).all()
    loss, _ = model.evaluate(whole.inputs, whole.targets, verbose=0)
    assert loss == pytest.approx(task.metrics(whole, task.predict(model, whole, 2))["nll"], rel=1e-5)


def test_baselines_by_hand(create):
    task = create()
    found = task.baselines()
    size = len(task.vocabulary)
    counts = np.bincount(task.train.targets.ravel(), minlength=size) + 1.0
    counts[PADDING] = 0
    shares = counts / counts.sum()
    tested = task.vocabulary.stream(TEXTS["test"])[1:]
    assert found["unigram"]["nll"] == pytest.approx(-np.log(shares[tested]).mean())

    def bigram(stream, backing):
        """−log p of each token, the pairs counted one by one."""
        told = [row for row in zip(task.train.inputs.flat, task.train.targets.flat) if row[1] != PADDING]
        nats = []
        for one, two in itertools.pairwise(stream):
            seen, before = told.count((one, two)), [first for first, _ in told].count(one)
            nats.append(-np.log((seen + backing * shares[two]) / (before + backing)))
        return nats

    checked, asked = (task.vocabulary.stream(TEXTS[name]) for name in ("validation", "test"))
    best = min((1, 10, 100, 1000), key=lambda backing: sum(bigram(checked, backing)))
    assert found["bigram"]["nll"] == pytest.approx(np.mean(bigram(asked, best)))


@pytest.mark.parametrize("recipe", [gpt, lstm])
def test_it_writes_more_than_its_context_the_same_again_and_from_a_prompt(create, recipe):
    task = create()
    keras.utils.set_random_seed(0)
    writer = Writer(task.model(recipe.build, {}), task.vocabulary, 4)
    found = writer.write("ab", 30, 40, seed=1)
    assert all(text.startswith("ab") for text in found)
    assert found == writer.write("ab", 30, 40, seed=1) != writer.write("ab", 30, 40, seed=2)
    assert max(map(len, found)) > 4
    assert max(map(len, found)) <= 2 + 40


def test_a_prompt_that_cannot_be_gone_on_from_is_refused(create):
    task = create()
    writer = Writer(task.model(gpt.build, {}), task.vocabulary, 4)
    with pytest.raises(UserError, match="has never seen 'x' 'é'"):
        writer.write("axé", 1, 5, seed=0)
    with pytest.raises(UserError, match=r"The prompt has 3 tokens, and the model sees 4 .* at most 2 tokens"):
        writer.write("abc", 1, 5, seed=0)


def test_the_served_model_tells_what_follows_the_last_token(create, tmp_path):
    task = create()
    model = task.model(gpt.build, {"positions": "rotary"})
    tokens = np.array([[5, 4, 6, 0], [4, 4, 5, 6]], np.int32)
    answers = serving.save(*task.served(model), tokens, str(tmp_path / "saved"))["probability"]
    short = keras.ops.softmax(model(tokens[:1, :3], training=False)[0, -1])
    np.testing.assert_allclose(answers[0], keras.ops.convert_to_numpy(short), atol=1e-5)
    assert answers.shape == (2, len(task.vocabulary))


def test_a_network_that_reads_backwards_tells_nothing_next():
    with pytest.raises(ValueError, match="must not read backwards"):
        lstm.build(Tokens(4, 9), NextTokenLogits(4, 9), bidirectional=True)
