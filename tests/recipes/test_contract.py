"""The contract of all recipes: specs, declared attributes, imports."""

import ast
import contextlib
import importlib
import inspect
import itertools
import shutil
import subprocess
import sys
from typing import get_args

import keras
import numpy as np
import pytest
from omegaconf import OmegaConf

from recipes.specs import (
    Ablatable,
    AttentionLayer,
    Classes,
    Forecast,
    GeneratedImages,
    GlimpseLayer,
    Image,
    ImageGenerator,
    LabelledImage,
    LearningRates,
    NextTokenLogits,
    PatchLayer,
    RewardLayer,
    Series,
    SourceTarget,
    StepwiseDecoder,
    TargetTokenLogits,
    Tokens,
    Translator,
)
from src import config
from src.config import signature

CONFIGS = sorted((config.CONF / "model").glob("*.yaml"))
RECIPES = sorted(path.stem for path in CONFIGS)
INPUTS = [Image(8, 8, 1), Image(9, 7, 3), Tokens(12, 50), Series(20, 3), SourceTarget(7, 30, 9, 40), LabelledImage(8, 12, 3, 4)]
OUTPUTS = [Classes(4), Forecast(5, 3), TargetTokenLogits(9, 40), NextTokenLogits(12, 50), GeneratedImages(8, 12, 3)]
SOURCES = sorted((config.CONF.parent / "recipes").glob("*.py"))


def takes(recipe, inputs, outputs):
    accepted = signature.read(f"recipes.{recipe}.build")
    meaningful = isinstance(inputs, SourceTarget) == isinstance(outputs, TargetTokenLogits)
    meaningful = meaningful and isinstance(inputs, LabelledImage) == isinstance(outputs, GeneratedImages)
    meaningful = meaningful and (isinstance(inputs, Tokens) or not isinstance(outputs, NextTokenLogits))
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


@pytest.fixture
def precision(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


CASES = [  # every combination in float32; tests/src/training/test_grid.py trains and reloads every recipe in 16 bits, too
    pytest.param(*taken, precision, marks=[] if precision == "float32" else pytest.mark.slow)
    for taken in TAKEN
    for precision in ("float32", "mixed_bfloat16", "mixed_float16")
]


@pytest.mark.parametrize(("recipe", "inputs", "outputs", "precision"), CASES, indirect=["precision"], ids=str)
def test_outputs_match_the_specs_and_the_model_can_be_reloaded(recipe, inputs, outputs, precision, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_of(recipe)(inputs, outputs)
    answer = keras.ops.convert_to_numpy(model(example(inputs), training=False))
    shapes = {
        Classes: lambda: (outputs.count,),
        Forecast: lambda: (outputs.horizon, outputs.features),
        GeneratedImages: lambda: (len(model.loss_names),),
    }
    expected = (3, *shapes.get(type(outputs), lambda: (outputs.length, outputs.vocabulary))())
    assert answer.shape == expected
    assert answer.dtype == np.float32  # under every precision: losses are computed from it
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(example(inputs), training=False)), answer)


def choices(recipe):
    """{hyperparameter: value} for each value, other than its default, of each hyperparameter that is a choice."""
    for parameter in inspect.signature(build_of(recipe)).parameters.values():
        values = (True, False) if parameter.annotation is bool else get_args(parameter.annotation)
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default in values:
            yield from ({parameter.name: value} for value in values if value != parameter.default)


def build_first(recipe, choice):
    """The recipe with a choice, for the first inputs and outputs that go together with it."""
    if choice == {"stem": "imagenet"}:  # the backward pass in bfloat16 of TensorFlow is undefined where an extent becomes 1
        inputs = Image(64, 64, 1)
        return inputs, build_of(recipe)(inputs, Classes(4), **choice, depth=18)
    for _, inputs, outputs in (taken for taken in TAKEN if taken[0] == recipe):
        with contextlib.suppress(ValueError):
            return inputs, build_of(recipe)(inputs, outputs, **choice)
    raise AssertionError(f"{recipe} builds for nothing with {choice}")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"], indirect=True)
@pytest.mark.parametrize(("recipe", "choice"), [(recipe, choice) for recipe in RECIPES for choice in choices(recipe)], ids=str)
def test_every_choice_has_gradients_in_16_bits(recipe, choice, precision):
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    inputs, model = build_first(recipe, choice)
    examples = example(inputs)
    if choice == {"kind": "hard"}:
        examples = {"image": examples, "label": np.arange(3)}
    with tf.GradientTape() as tape:
        answer = model(examples, training=True)
        loss = tf.reduce_mean(tf.square(answer)) + sum(model.losses)
    assert answer.dtype == tf.float32
    for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.path


HIDING = ["attention", "cnn", "lstm", "rnn", "transformer"]


@pytest.mark.parametrize("recipe", HIDING)
def test_token_dropout_masks_whole_tokens_in_training_only(recipe):
    build = importlib.import_module(f"recipes.{recipe}").build
    model = build(Tokens(50, 9), Classes(2), token_dropout=0.3)
    hiding = keras.Model(model.input, model.get_layer("token_dropout").output)
    tokens = np.random.default_rng(0).integers(1, 9, (40, 50))
    hidden = (keras.ops.convert_to_numpy(hiding(tokens, training=True)) == 0).mean(axis=2)  # of each vector
    assert set(np.unique(hidden)) == {0.0, 1.0}
    assert abs(hidden.mean() - 0.3) < 0.06  # six standard deviations
    assert keras.ops.convert_to_numpy(hiding(tokens, training=False)).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_unsupported_specs_are_rejected(recipe):
    with pytest.raises(TypeError, match="is not a kind of input"):
        build_of(recipe)("pixels", Classes(2))
    taken = signature.read(f"recipes.{recipe}.build").inputs
    with pytest.raises(TypeError, match="is not a kind of output"):
        build_of(recipe)(next(inputs for inputs in INPUTS if type(inputs) in taken), "label")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_has_every_hyperparameter_with_its_default(path):
    shown = OmegaConf.to_container(OmegaConf.load(path).model)
    assert shown.pop("name") == path.stem
    shown.pop("pretrained", None)
    module, _, function = shown.pop("_target_").rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
    in_code = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert shown == {name: list(value) if isinstance(value, tuple) else value for name, value in in_code.items()}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_recipes_import_only_keras(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported <= {"keras", "recipes", "annotated_types"} | sys.stdlib_module_names


# --- what a recipe declares besides `build` -------------------------------------------------------------------------

CONTRACTS = (
    Ablatable, AttentionLayer, GlimpseLayer, ImageGenerator, LearningRates, PatchLayer, RewardLayer,
    StepwiseDecoder, Translator,
)  # fmt: skip
TRANSLATOR = {AttentionLayer, StepwiseDecoder, Translator}
DECLARED = {
    ("attention", Image): {AttentionLayer},
    ("attention", Tokens): {AttentionLayer},
    ("attention", Series): {AttentionLayer},
    ("attention", SourceTarget): TRANSLATOR,
    ("diffusion", LabelledImage): {ImageGenerator},
    ("gan", LabelledImage): {ImageGenerator, LearningRates},
    ("transformer", Image): {AttentionLayer, PatchLayer},
    ("transformer", Tokens): {AttentionLayer},
    ("transformer", Series): {AttentionLayer},
    ("transformer", SourceTarget): TRANSLATOR,
}


def parts(model, contract):
    """The model, and the layers in it, that declare a contract."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, contract)]


def check_attention(model, inputs):
    for layer in parts(model, AttentionLayer):
        weights = keras.Model(model.input, layer.output[1])(example(inputs))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weights).sum(axis=-1), 1, rtol=1e-5)


def check_translator(model, inputs, outputs):
    examples = example(inputs)
    weights = keras.ops.convert_to_numpy(model.alignments(examples))
    assert weights.shape == (3, inputs.target_length, inputs.source_length)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    check_decoder(model, keras.ops.convert_to_tensor(examples["source"]), outputs)


def check_decoder(model, context, outputs):
    cache = model.init_cache(context, outputs.length)
    logits, after = model.decode_step(keras.ops.convert_to_tensor([1, 2, 3], "int32"), 0, cache)
    assert logits.shape == (3, outputs.vocabulary)
    keras.tree.assert_same_structure(cache, after)
    assert all(tensor.shape[0] == 3 for tensor in keras.tree.flatten(cache))


def check_generator(model, outputs):
    assert len(set(model.loss_names)) == len(model.loss_names)
    assert isinstance(model.conditional, bool)
    options = dict(model.sampling_defaults)
    if "steps" in options:
        assert 1 <= options["steps"] <= model.timesteps
        options["steps"] = 2
    images = keras.ops.convert_to_numpy(model.generate(np.array([0, -1]), keras.random.SeedGenerator(0), **options))
    assert images.shape == (2, outputs.height, outputs.width, outputs.channels)
    assert images.min() >= 0
    assert images.max() <= 1


def check_learning_rates(model):
    inside = {id(variable) for variable in model.trainable_variables}
    for layer, factor in model.learning_rate_factors():
        assert factor > 0
        assert layer.trainable_variables
        assert {id(variable) for variable in layer.trainable_variables} < inside


@pytest.mark.parametrize(("recipe", "inputs", "outputs"), TAKEN, ids=str)
def test_declared_contracts_hold(recipe, inputs, outputs):
    keras.utils.set_random_seed(0)
    model = build_of(recipe)(inputs, outputs)
    model(example(inputs), training=False)
    declared = {contract for contract in CONTRACTS if parts(model, contract)}
    language_model = {StepwiseDecoder} if recipe == "gpt" and isinstance(outputs, NextTokenLogits) else set()
    assert declared == DECLARED.get((recipe, type(inputs)), language_model)
    if AttentionLayer in declared and not isinstance(model, Translator):
        check_attention(model, inputs)
    if isinstance(outputs, TargetTokenLogits):
        check_translator(model, inputs, outputs)
    elif StepwiseDecoder in declared:
        check_decoder(model, 3, outputs)
    if isinstance(outputs, GeneratedImages):
        check_generator(model, outputs)
    if isinstance(model, LearningRates):
        check_learning_rates(model)
    for layer in parts(model, PatchLayer):
        assert layer.output.shape[1] == -(-inputs.height // layer.patch) * -(-inputs.width // layer.patch)


def test_hard_attention_declares_reward_glimpses_and_ablations():
    keras.utils.set_random_seed(0)
    model = build_of("attention")(Image(8, 8, 1), Classes(4), kind="hard", glimpse_size=4)
    assert {contract for contract in CONTRACTS if parts(model, contract)} == {Ablatable, GlimpseLayer, RewardLayer}
    assert set(model.input) == {"image", "label"}
    (layer,) = parts(model, GlimpseLayer)
    assert layer.size == 4
    examples = {"image": example(Image(8, 8, 1)), "label": np.full(3, -1)}
    locations = keras.ops.convert_to_numpy(keras.Model(model.input, layer.output[1])(examples))
    assert locations.shape == (3, 6, 2)
    assert np.abs(locations).max() <= 1
    for other in layer.ablations().values():
        other(examples["image"])
        other.set_weights(layer.get_weights())


def test_src_uses_no_layer_names():
    """Each contract that a recipe's model declares."""
    for path in (config.CONF.parent / "src").rglob("*.py"):
        assert "get_layer(" not in path.read_text(encoding="utf-8"), path


# --- one file can be copied elsewhere -------------------------------------------------------------------------------

SHARED = ("specs.py", "shared_layers.py", "augmentation.py")
TRAIN = """
import keras
import numpy as np
from recipes import {recipe}
from recipes.specs import *

inputs, outputs = {inputs}, {outputs}
model = {recipe}.build(inputs, outputs)
examples, targets = {examples}, np.zeros({targets}, np.float32)
model.compile(optimizer="adam", loss="mse")
history = model.fit(examples, targets, epochs=1, verbose=0).history
assert np.isfinite(history["loss"]).all()
"""
IMAGES, TEXTS = "np.zeros((4, 8, 8, 1), np.float32)", "np.ones((4, 12), np.int32)"
COPIED = {
    "cnn": ("Image(8, 8, 1)", "Classes(3)", IMAGES, (4, 3)),
    "resnet": ("Image(8, 8, 1)", "Classes(3)", IMAGES, (4, 3)),
    "lightweight": ("Image(8, 8, 1)", "Classes(3)", IMAGES, (4, 3)),
    "rnn": ("Image(8, 8, 1)", "Classes(3)", IMAGES, (4, 3)),
    "lstm": ("Image(8, 8, 1)", "Classes(3)", IMAGES, (4, 3)),
    "attention": ("Tokens(12, 50)", "Classes(3)", TEXTS, (4, 3)),
    "transformer": ("Image(8, 8, 1)", "Classes(3)", IMAGES, (4, 3)),
    "gpt": ("Tokens(12, 50)", "NextTokenLogits(12, 50)", TEXTS, (4, 12, 50)),
    "gan": (
        "LabelledImage(8, 8, 1, 0)", "GeneratedImages(8, 8, 1)",
        '{"image": np.zeros((4, 8, 8, 1), np.float32), "label": np.full(4, -1)}', (4, 3),
    ),
    "diffusion": (
        "LabelledImage(8, 8, 1, 3)", "GeneratedImages(8, 8, 1)",
        '{"image": np.zeros((4, 8, 8, 1), np.float32), "label": np.full(4, 1)}', (4, 1),
    ),
}  # fmt: skip


def test_every_recipe_is_tested_as_a_copy():
    assert sorted(COPIED) == RECIPES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_recipes_import_only_shared_modules_of_the_project(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("recipes"):
            assert node.module in ("recipes.specs", "recipes.shared_layers", "recipes.augmentation")


@pytest.mark.parametrize(
    "recipe", [pytest.param(recipe, marks=[] if recipe == "lstm" else pytest.mark.slow) for recipe in RECIPES]
)
def test_one_file_copied_elsewhere_builds_and_trains(recipe, tmp_path):
    (tmp_path / "recipes").mkdir()
    for name in (f"{recipe}.py", *SHARED):
        shutil.copy(config.CONF.parent / "recipes" / name, tmp_path / "recipes")
    inputs, outputs, examples, targets = COPIED[recipe]
    (tmp_path / "train.py").write_text(
        TRAIN.format(recipe=recipe, inputs=inputs, outputs=outputs, examples=examples, targets=targets)
    )
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, env={"PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"})
