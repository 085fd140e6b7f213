"""Served models: what travels with them, and those that earlier versions have logged."""

import ast
import sys

import numpy as np
import pytest
import tensorflow as tf

from src import serving as earlier
from src.export import served_model, serving
from src.tasks.image_generation import ImageSampler
from src.tasks.serving import DEFAULT_FUNCTION, STATE, RandomState, Serving, batch_spec
from src.tasks.tokenizers import Tokenizer
from tests.commands import ROOT

FORMS = [("words", False), ("characters", False), ("bpe", True), ("bytes", True)]
TEXTS = ["one two", "two <|end|>", "", "   ", "three 我", "one two one two one two"]


def test_the_code_that_travels_is_small_and_imports_nothing_of_the_project(tmp_path):
    name = serving.write_code(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == f"{name}.py"
    assert file.stat().st_size < 20_000
    tree = ast.parse(file.read_text())
    imports = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imports |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    packages = {module.split(".")[0] for module in imports} - sys.stdlib_module_names
    assert packages == {"absl", "numpy", "tensorflow", "tokenizers"}


def test_the_commands_of_the_project_load_no_stored_code():
    calls = [
        (path.name, node.attr)
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "load_model"
    ]
    assert not calls  # neither MLflow's nor Keras's: a model is built from settings, and its weights are loaded


@pytest.mark.parametrize(("kind", "start"), FORMS)
def test_texts_become_the_tokens_that_the_model_was_trained_on(tmp_path, kind, start):
    tokenizer = Tokenizer.train(["one two three", "two"], kind, 300).configure(length=5, start=start)
    (tmp_path / "vocabulary.json").write_text(tokenizer.to_json())
    restored = served_model.read_tokenizer(tmp_path / "vocabulary.json")
    expected = tokenizer.encode(TEXTS)
    np.testing.assert_array_equal(served_model.encode_texts(restored, TEXTS, 5), expected)
    assert served_model.decode_texts(restored, expected).tolist() == tokenizer.decode(expected)


@pytest.mark.parametrize("conditional", [True, False])
def test_images_are_those_that_the_sampler_draws(tmp_path, conditional):
    class Noise:
        sampling_defaults, classes = {}, ("cat", "dog")

        def __init__(self):
            self.conditional = conditional

        def generate(self, labels, seed):
            noise = tf.random.stateless_uniform((tf.shape(labels)[0], 2, 2, 1), seed.next(), maxval=0.5)
            return noise + 0.25 * tf.cast(labels, "float32")[:, None, None, None]

    model, state = Noise(), RandomState()
    sampler = ImageSampler(model, model.classes)

    def sample(inputs, state_before):
        state.set(state_before)
        return {"image": sampler.sample_batch(inputs, state.seed), "state": state.get()}

    signature = {"inputs": tf.TensorSpec((None,), tf.int32), "state": STATE}
    functions = {DEFAULT_FUNCTION: (lambda inputs, state: sample(inputs, state), signature)}
    settings = {"classes": list(model.classes) if conditional else []}
    outputs = {"image": ("uint8", (2, 2, 1))}
    params = {"seed": 0, "number": 1}
    serving.save(Serving("ImageGenerator", functions, [state], ["cat"], outputs, settings, params), str(tmp_path / "saved"))
    served = served_model._load_pyfunc(str(tmp_path / "saved"))
    names = (["dog", "cat", ""] if conditional else ["", "", ""]) * 100  # more than a batch
    labels = np.tile([1, 0, -1] if conditional else [-1, -1, -1], 100)
    np.testing.assert_array_equal(served.predict(names, {"seed": 5})["image"], sampler.sample(labels, 5))
    twice = served.predict(names[:2], {"seed": 5, "number": 2})["image"]
    np.testing.assert_array_equal(twice, sampler.sample(np.repeat(labels[:2], 2), 5))
    assert served.predict([])["image"].shape == (0, 2, 2, 1)
    with pytest.raises(ValueError, match="no class 'bird'; available: " + ("cat, dog, or ''" if conditional else "''")):
        served.predict(["bird"])


def save_as_earlier(function, spec, folder):
    tf.saved_model.save(tf.Module(), str(folder), signatures=tf.function(function, input_signature=[spec]))
    return folder


def test_a_model_that_an_earlier_version_logged_is_served(tmp_path):
    """It took and returned texts, or it took token ids, and the form of its inputs was not stored with its vocabulary."""
    texts = tf.TensorSpec((None,), tf.string, name="inputs")
    folder = save_as_earlier(lambda inputs: {"text": tf.strings.upper(inputs)}, texts, tmp_path / "texts")
    assert earlier._load_pyfunc(str(folder)).predict(["one", "two"])["text"].tolist() == ["ONE", "TWO"]
    tokenizer = Tokenizer.train(["one two"], "bpe", 270)
    expected = tokenizer.configure(length=5, start=True).encode(["one", "two"])
    folder = save_as_earlier(lambda inputs: {"ids": tf.identity(inputs)}, batch_spec(expected), tmp_path / "ids")
    (folder / "vocabulary.json").write_text(tokenizer.to_json())
    np.testing.assert_array_equal(earlier._load_pyfunc(str(folder)).predict(["one", "two"])["ids"], expected)


def test_models_of_two_versions_are_loaded_by_one_process(tmp_path):
    """Python keeps a module by its name; so the name of what travels differs where its content does."""
    name = serving.write_code(tmp_path)
    changed = tmp_path / "changed.py"
    changed.write_bytes((tmp_path / f"{name}.py").read_bytes() + b"# another version\n")
    original, served_model.__file__ = served_model.__file__, str(changed)
    try:
        assert serving.write_code(tmp_path) != name
    finally:
        served_model.__file__ = original
