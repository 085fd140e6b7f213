"""Encoding, baselines, serving and figures of text classification."""

import keras
import numpy as np
import pytest

from recipes import attention, cnn, lstm, rnn, transformer
from src.datasets import Data, Split
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import store
from src.tasks.classification import attention_weights
from src.tasks.text_classification import without_markup
from tests.served import save_and_load

GOOD, BAD = (
    ["a fine film", "I like it, fine", "like a fine day", "好看 film", "fine fine"],
    ["a dull film", "dull, and long", "I hate dull days", "无聊", "dull"],
)


def make_split(texts, labels):
    return Split(np.array([text.encode() for text in texts], dtype=object), np.array(labels))


def data(train=None, **splits):
    both = make_split(GOOD + BAD, [1] * 5 + [0] * 5) if train is None else train
    named = {"train": both, "validation": both, "test": both} | splits
    return Data("made", "made:1.0.0", "", **named, classes=("bad", "good"))


@pytest.fixture
def create(settings):
    def with_settings(made, *overrides):
        return factory.create(settings("dataset=docstrings", "model=cnn", "task.length=6", *overrides).task, made)

    return with_settings


RECIPES = [cnn, rnn, lstm, transformer, attention]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_prediction_does_not_depend_on_the_padding(create, recipe):
    """The same text in a tensor of another length: what is there beyond its end must not count."""
    keras.utils.set_random_seed(0)
    short, long = create(data(), "task.length=6"), create(data(), "task.length=17")
    one, other = short.build_model(recipe.build, {}), long.build_model(recipe.build, {})
    other.set_weights(one.get_weights())
    np.testing.assert_allclose(one.predict(short.test.inputs, verbose=0), other.predict(long.test.inputs, verbose=0), atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_the_served_model_takes_plain_strings(create, tmp_path, recipe):
    keras.utils.set_random_seed(0)
    task = create(data())
    model = task.build_model(recipe.build, {})
    logits = task.predict(model, task.test, 4)
    served = save_and_load(task, model, tmp_path / "saved")
    outputs = served.predict([text.decode() for text in task.test.raw])
    expected = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    np.testing.assert_allclose(outputs["probability"], expected, rtol=1e-4)
    np.testing.assert_array_equal(outputs["class"], logits.argmax(axis=1))
    assert outputs["class_name"].tolist() == [task.classes[index] for index in logits.argmax(axis=1)]
    assert list(outputs["probability_by_name"][0]) == list(task.classes)
    np.testing.assert_array_equal(list(outputs["probability_by_name"][0].values()), outputs["probability"][0])
    np.testing.assert_array_equal(served.predict(["好看 film", "never seen"])["class"].shape, (2,))
    assert np.isfinite(served.predict(["", "   ", "?"])["probability"]).all()  # a user may send nothing


def test_baselines(create):
    task = create(data())
    result = store.compute(task).metrics
    assert result["majority_class"]["accuracy"] == 0.5
    assert result["bag_of_words"]["accuracy"] >= 0.9
    assert result["nb_svm"]["accuracy"] >= 0.9


def test_baselines_use_the_whole_text(create):
    long = make_split([f"{'w ' * 30} {word}" for word in ("yes", "no") * 10], [1, 0] * 10)
    task = create(data(long), "task.length=6")
    assert len({tuple(row) for row in task.train.inputs}) == 1  # the recipe cannot tell them apart
    metrics = store.compute(task).metrics
    assert metrics["bag_of_words"]["accuracy"] == metrics["nb_svm"]["accuracy"] == 1


def test_vocabulary_is_built_from_the_training_set_only(create):
    task = create(data(test=make_split(["unheard words"], [0])))
    assert set(task.test.inputs[0]) == {0, 1}


def test_empty_text_is_reported(create):
    with pytest.raises(UserError, match=r"Example 1 of the test split of dataset=made is an empty text \(1 in all\)"):
        create(data(test=make_split(["words", "  "], [0, 1])))


def test_images_are_rejected_as_texts(settings, load):
    with pytest.raises(UserError, match=r"The train split of dataset=digits holds no texts"):
        factory.create(settings("dataset=docstrings", "model=cnn").task, load("digits"))


@pytest.mark.parametrize(("recipe", "has_attention"), [(transformer, True), (attention, True), (cnn, False)])
def test_attention_weights_are_drawn(create, recipe, has_attention):
    task = create(data(test=make_split(["a <b>fine</b> film,<br /> 1 < 2", "dull"], [1, 0])))
    model = task.build_model(recipe.build, {})
    figures = task.figures(model, task.predict(model, task.test, 2))
    assert ("attention.html" in figures) == has_attention
    assert "confusion_matrix.png" in figures
    assert "<b>" not in figures["worst_mistakes.html"].replace("<b>bad</b>", "").replace("<b>good</b>", "")
    if has_attention:
        weights = attention_weights(model, task.test.inputs, task.test.inputs != 0)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-4)
        assert (weights[task.test.inputs == 0] < 1e-6).all()
        assert "&lt;" in figures["attention.html"]
        assert ">br<" not in figures["attention.html"]


def test_markup_is_not_shown():
    tokens = ["a", "<", "b", ">", "fine", "</", "b", ">", "film", "<", "br", "/", ">", "1", "<", "2", ">", "0"]
    assert [tokens[place] for place in without_markup(tokens)] == ["a", "fine", "film", "1", "<", "2", ">", "0"]


def test_chinese_text_is_split_into_tokens(create):
    task = create(data(make_split(["我喜欢吃苹果", "我不喜欢"], [1, 0])))
    assert (task.train.inputs > 0).sum(axis=1).tolist() == [6, 4]


def test_serving_no_texts_gives_empty_outputs(create, tmp_path):
    task = create(data())
    served = save_and_load(task, task.build_model(cnn.build, {}), tmp_path / "saved")
    assert served.predict([])["probability"].shape == (0, 2)
