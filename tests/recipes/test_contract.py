"""What every recipe has to do, whatever its algorithm."""

import ast
import importlib
import inspect
import itertools
import sys

import keras
import numpy as np
import pytest
from omegaconf import OmegaConf

from recipes.kinds import (
    Classes,
    Continuation,
    Forecast,
    Image,
    LabelledImage,
    NextTokens,
    Samples,
    Series,
    SourceTarget,
    Tokens,
)  # fmt: skip
from src import config
from src.config import signature

CONFIGS = sorted((config.CONF / "model").glob("*.yaml"))
RECIPES = sorted(path.stem for path in CONFIGS)
INPUTS = [Image(8, 8, 1), Image(9, 7, 3), Tokens(12, 50), Series(20, 3), SourceTarget(7, 30, 9, 40), LabelledImage(8, 12, 3, 4)]
OUTPUTS = [Classes(4), Forecast(5, 3), NextTokens(9, 40), Continuation(12, 50), Samples(8, 12, 3)]
SOURCES = sorted((config.CONF.parent / "recipes").glob("*.py"))


def takes(recipe, inputs, outputs):
    accepted = signature.read(f"recipes.{recipe}.build")
    meaningful = isinstance(inputs, SourceTarget) == isinstance(outputs, NextTokens)
    meaningful = meaningful and isinstance(inputs, LabelledImage) == isinstance(outputs, Samples)
    meaningful = meaningful and (isinstance(inputs, Tokens) or not isinstance(outputs, Continuation))
    return meaningful and type(inputs) in accepted.inputs and type(outputs) in accepted.outputs


TAKEN = [combination for combination in itertools.product(RECIPES, INPUTS, OUTPUTS) if takes(*combination)]


def example(inputs, batch=3):
    draw = np.random.default_rng(0)
    match inputs:
        case Image(height, width, channels):
            return draw.random((batch, height, width, channels), np.float32)
        case LabelledImage(height, width, channels, classes):
            images = draw.random((batch, height, width, channels), np.float32)
            return {"image": images, "label": draw.integers(0, classes, batch, np.int32)}
        case Tokens(length, vocabulary):
            return draw.integers(1, vocabulary, (batch, length), np.int32)
        case Series(length, features):
            return draw.normal(size=(batch, length, features)).astype(np.float32)
        case SourceTarget(source_length, source_vocabulary, target_length, target_vocabulary):
            return {
                "source": draw.integers(1, source_vocabulary, (batch, source_length), np.int32),
                "target": draw.integers(1, target_vocabulary, (batch, target_length), np.int32),
            }


def build_of(recipe):
    return importlib.import_module(f"recipes.{recipe}").build


@pytest.fixture(params=["float32", "mixed_bfloat16", "mixed_float16"])
def precision(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(("recipe", "inputs", "outputs"), TAKEN, ids=str)
def test_answers_what_it_says_and_comes_back_from_disk(recipe, inputs, outputs, precision, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_of(recipe)(inputs, outputs)
    answer = keras.ops.convert_to_numpy(model(example(inputs), training=False))
    shapes = {
        Classes: lambda: (outputs.count,),
        Forecast: lambda: (outputs.horizon, outputs.features),
        Samples: lambda: (len(model.terms),),
    }
    wanted = (3, *shapes.get(type(outputs), lambda: (outputs.length, outputs.vocabulary))())
    assert answer.shape == wanted
    assert answer.dtype == np.float32  # under every precision: losses are computed from it
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(example(inputs), training=False)), answer)


HIDING = ["attention", "cnn", "lstm", "rnn", "transformer"]


@pytest.mark.parametrize("recipe", HIDING)
def test_as_many_tokens_are_hidden_as_are_asked_for_whole_ones_and_in_training_alone(recipe):
    build = importlib.import_module(f"recipes.{recipe}").build
    model = build(Tokens(50, 9), Classes(2), token_dropout=0.3)
    hiding = keras.Model(model.input, model.get_layer("token_dropout").output)
    tokens = np.random.default_rng(0).integers(1, 9, (40, 50))
    hidden = (keras.ops.convert_to_numpy(hiding(tokens, training=True)) == 0).mean(axis=2)  # of each vector
    assert set(np.unique(hidden)) == {0.0, 1.0}
    assert abs(hidden.mean() - 0.3) < 0.06  # six standard deviations
    assert keras.ops.convert_to_numpy(hiding(tokens, training=False)).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_refuses_what_is_no_kind(recipe):
    with pytest.raises(TypeError, match="is not a kind of input"):
        build_of(recipe)("pixels", Classes(2))
    taken = signature.read(f"recipes.{recipe}.build").inputs
    with pytest.raises(TypeError, match="is not a kind of output"):
        build_of(recipe)(next(inputs for inputs in INPUTS if type(inputs) in taken), "label")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_shows_every_hyperparameter_with_the_default_of_the_code(path):
    shown = OmegaConf.to_container(OmegaConf.load(path).model)
    assert shown.pop("name") == path.stem
    shown.pop("pretrained", None)
    module, _, function = shown.pop("_target_").rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
    in_code = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert shown == {name: list(value) if isinstance(value, tuple) else value for name, value in in_code.items()}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_knows_keras_alone(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported <= {"keras", "recipes", "annotated_types"} | sys.stdlib_module_names
