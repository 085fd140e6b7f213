"""Windows, metrics, baselines and text generation of language models."""

import keras
import numpy as np
import pytest

from recipes import gpt, lstm
from recipes.specs import PADDING, NextTokenLogits, Tokens
from src.datasets import Data, Split
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import language, store
from src.tasks.language_modeling import TextGenerator, unroll, windows
from tests.served import save_and_load

TEXTS = {"train": ["abab", "abc", "aab"] * 5, "validation": ["abc", "ab"], "test": ["cab", "aab", "bé"]}


def make_split(texts):
    array = np.array([text.encode() for text in texts], dtype=object)
    return Split(array, np.zeros(len(texts), int))


@pytest.fixture
def create(settings):
    def with_settings(*overrides):
        made = Data(
            "made", "made:1.0.0", "", *(make_split(TEXTS[name]) for name in ("train", "validation", "test")), classes=()
        )
        common = ("model=gpt", "dataset=docstrings", "task.context=4", "task.tokenizer=characters", "task.vocabulary_size=270")
        return factory.create(settings(*common, *overrides).task, made)

    return with_settings


def test_windows_predict_every_token_once():
    stream = np.arange(4, 17, dtype=np.int32)

    def windows_of(length, stride):
        return windows(np.concatenate([stream, np.full(length, PADDING, np.int32)]), length, stride)

    result = windows_of(5, 5)
    mask = result.targets != PADDING
    np.testing.assert_array_equal(result.targets[mask], stream[1:])
    np.testing.assert_array_equal(result.inputs[mask], stream[:-1])
    assert {tuple(row) for row in windows_of(4, 4).inputs} <= {tuple(row) for row in windows_of(4, 2).inputs}
    for length in range(1, 14):
        for stride in range(1, length + 1):
            split = windows_of(length, stride)
            assert (split.targets != PADDING).any(axis=1).all()
            assert set(split.targets[split.targets != PADDING]) == set(stream[1:])
            assert np.shares_memory(split.inputs, split.targets)


@pytest.mark.parametrize("tokenizer", ["characters", "bytes", "bpe"])
def test_metrics_by_hand(create, tokenizer):
    task = create(f"task.tokenizer={tokenizer}")
    likelihoods = np.where(task.test.targets == PADDING, 0.0, np.log(0.25))
    result = task.metrics(task.test, likelihoods)
    tokens = len(task.tokenizer.encode_stream(TEXTS["test"])) - 1
    assert result["nll"] == pytest.approx(np.log(4))
    assert result["perplexity"] == pytest.approx(4)
    assert result["bits_per_character"] == pytest.approx(2 * tokens / sum(map(len, TEXTS["test"])))


def test_predictions_are_log_likelihoods_of_the_targets(create):
    task = create()
    keras.utils.set_random_seed(0)
    model = task.build_model(gpt.build, {"dimension": 16, "heads": 2, "blocks": 1})
    logits = keras.ops.convert_to_numpy(model(task.test.inputs, training=False)).astype(np.float64)
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    expected = np.take_along_axis(logs, task.test.targets[..., None], axis=-1)[..., 0]
    expected[task.test.targets == PADDING] = 0
    result = task.predict(model, task.test, 2)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    model.compile(loss=task.loss(), weighted_metrics=task.training_metrics(model))
    full = task.test.take(2)  # windows without padding: the training loss equals the reported one
    assert (full.targets != PADDING).all()
    loss, _ = model.evaluate(full.inputs, full.targets, verbose=0)
    assert loss == pytest.approx(task.metrics(full, task.predict(model, full, 2))["nll"], rel=1e-5)


def test_baselines_see_the_whole_stream(create):
    task = create()
    result = store.compute(task)
    streams = {name: task.tokenizer.encode_stream(TEXTS[name]) for name in TEXTS}
    size = len(task.tokenizer)
    for name, split, stride in (("train", task.train, task.training_stride), ("test", task.test, None)):
        np.testing.assert_array_equal(unroll(split, stride), streams[name])
    n_grams = language.NGrams(streams["train"], size)
    of_validation = {n: -np.log(n_grams.kneser_ney(streams["validation"], n)[1:]).mean() for n in range(1, 7)}
    best = min(of_validation, key=of_validation.get)
    assert result.results["kneser_ney"].note == f"n = {best}"
    expected = -np.log(n_grams.kneser_ney(streams["test"], best)[1:]).mean()
    assert result.metrics["kneser_ney"]["nll"] == pytest.approx(expected)
    expected = -np.log(language.unigrams(streams["train"][1:], streams["test"][1:], size)).mean()
    assert result.metrics["unigram"]["nll"] == pytest.approx(expected)


@pytest.mark.parametrize("recipe", [gpt, lstm])
def test_generated_texts_follow_prompt_and_seed_beyond_the_context(create, recipe):
    task = create()
    keras.utils.set_random_seed(0)
    generator = TextGenerator(task.build_model(recipe.build, {}), task.tokenizer, 4)
    result = generator.generate("ab", 30, 40, seed=1)
    assert all(text.startswith("ab") for text in result)
    assert result == generator.generate("ab", 30, 40, seed=1) != generator.generate("ab", 30, 40, seed=2)
    assert max(map(len, result)) > 4
    assert max(map(len, result)) <= 2 + 40


def test_a_prompt_that_cannot_be_continued_is_an_error(create):
    task = create()
    generator = TextGenerator(task.build_model(gpt.build, {}), task.tokenizer, 4)
    with pytest.raises(UserError, match="does not have 'x' 'é'"):
        generator.generate("axé", 1, 5, seed=0)
    with pytest.raises(UserError, match=r"The prompt has 3 tokens, and the context of the model 4, .* at most 2 tokens"):
        generator.generate("abc", 1, 5, seed=0)


@pytest.mark.parametrize(("recipe", "size"), [(gpt, {"dimension": 16, "blocks": 1}), (lstm, {"units": 8})])
def test_the_served_model_continues_texts_as_the_generator_does(create, tmp_path, recipe, size):
    task = create()
    keras.utils.set_random_seed(0)
    model = task.build_model(recipe.build, size)
    model(task.test.inputs)  # creates the weights
    served, generator = save_and_load(task, model, tmp_path / "saved"), TextGenerator(model, task.tokenizer, 4)
    for options in ({}, {"temperature": 0.5, "top_p": 0.8}, {"temperature": 0.0}, {"top_k": 2}):
        expected = generator.generate("ab", 3, 9, seed=7, **options)
        assert served.predict(["ab"] * 3, {"length": 9, "seed": 7, **options})["text"].tolist() == expected
    assert served.predict(["ab"], {"length": 9, "seed": 7, "number": 3, "top_k": 2})["text"].tolist() == expected
    prompts = ["a", "", "ab", "a"]  # of several lengths
    texts = served.predict(prompts, {"length": 5})["text"].tolist()
    assert all(text.startswith(prompt) for text, prompt in zip(texts, prompts))
    assert served.predict([])["text"].tolist() == []


def test_the_served_model_gives_the_probabilities_of_the_next_token(create, tmp_path):
    task = create()
    model = task.build_model(gpt.build, {"positions": "rotary", "dimension": 16, "blocks": 1})
    model(task.test.inputs)  # creates the weights
    served = save_and_load(task, model, tmp_path / "saved")
    answers = served.predict(["a", "ba"], {"length": 1, "probabilities": True})
    assert answers.keys() == {"text", "next_token_probability"}
    for prompt, probability in zip(("a", "ba"), answers["next_token_probability"]):
        tokens = np.array([task.tokenizer.encode_prompt(prompt)])
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(model(tokens, training=False)[0, -1]))
        assert list(probability) == task.tokenizer.tokens
        np.testing.assert_allclose(list(probability.values()), expected, atol=1e-5)


def test_the_served_model_says_what_it_does_not_take(create, tmp_path):
    task = create()
    served = save_and_load(task, task.build_model(lstm.build, {"units": 4}), tmp_path / "saved")
    for prompt, params, message in (
        ("axé", {}, "does not have 'x' 'é'"),
        ("abc", {}, r"The prompt has 3 tokens; the model takes a prompt of at most 2"),
        (3, {}, "takes texts, not int"),
        ("a", {"top_p": 1.5}, r"top_p=1\.5 must be at least 1e-06 and at most 1"),
        ("a", {"temperature": -1.0}, r"temperature=-1\.0 must be at least 0\."),
        ("a", {"heat": 1}, "There is no parameter 'heat'; available: length, seed, temperature"),
    ):
        with pytest.raises(ValueError, match=message):
            served.predict([prompt], params)


def test_a_bidirectional_network_is_no_language_model():
    with pytest.raises(ValueError, match="must not read backwards"):
        lstm.build(Tokens(4, 9), NextTokenLogits(4, 9), bidirectional=True)
