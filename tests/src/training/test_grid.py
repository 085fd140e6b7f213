"""Every recipe on every task that it supports: a few steps under each strategy and precision, saved and loaded."""

import itertools

import keras
import numpy as np
import pytest

from src import config, datasets
from src.config import signature
from src.config.schema import TASK_SPECS
from src.export import serving
from src.tasks import registry
from src.training import loop, strategies

DATASETS = {
    "image_classification": "digits",
    "image_generation": "digits",
    "pixel_generation": "digits",
    "text_classification": "docstrings",
    "language_modeling": "docstrings",
    "forecasting": "sunspots",
    "translation": "dates",
}
SMALL = {  # less of everything, where that makes a recipe faster to build
    "cnn": ["model.filters=[4,4]"],
    "resnet": ["model.depth=8", "model.width=4"],
    "transformer": ["model.blocks=1", "model.dimension=16"],
    "gpt": ["model.blocks=1", "model.dimension=16", "training.steps_per_epoch=null"],
    "gan": ["model.width=8"],
    "diffusion": ["model.width=8", "model.levels=1", "model.heads=1", "model.timesteps=20"],
}
SLICES = [
    f'dataset.splits.{split}="train[{at}:{at + 200}]"' for split, at in (("train", 0), ("validation", 200), ("test", 400))
]
FEW = {
    "image_classification": ["task.name=image_classification"],
    "image_generation": ["task.name=image_generation", "task.samples=20"],
    "pixel_generation": ["task.name=pixel_generation", "task.samples=20"],
    "text_classification": [*SLICES, "task.name=text_classification", "task.length=12"],
    "language_modeling": [*SLICES, "task.name=language_modeling", "task.context=12", "task.vocabulary_size=300"],
    "translation": SLICES,
}
RECIPES = config.option_names("model")


def supports(recipe, task):
    accepted = signature.read(f"recipes.{recipe}.build")
    inputs, outputs = TASK_SPECS[task]
    return inputs in accepted.inputs and outputs in accepted.outputs


PAIRS = [(recipe, task) for recipe, task in itertools.product(RECIPES, DATASETS) if supports(recipe, task)]


class FakeReferenceClassifier:
    """Random features, and ten classes."""

    def features_and_probabilities(self, images):
        features = images.reshape(len(images), -1) @ np.random.default_rng(0).normal(size=(images[0].size, 10)) / 255
        exponentials = np.exp(features)
        return features, exponentials / exponentials.sum(axis=1, keepdims=True)


def test_every_task_has_a_data_set_here():
    assert set(DATASETS) == set(TASK_SPECS)


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    keras.config.set_dtype_policy("float32")


# Every recipe runs every task in float32, and its first task in each 16-bit precision, one of them on two devices.
FIRST = dict(reversed(PAIRS))
QUICK = {(*pair, "single", "float32") for pair in PAIRS}
QUICK |= {(*pair, *case) for pair in FIRST.items() for case in (("single", "mixed_float16"), ("mirrored", "mixed_bfloat16"))}
GRID = [
    (*pair, strategy, precision)
    for pair in PAIRS
    for strategy in ("single", "mirrored")
    for precision in ("float32", "mixed_bfloat16", "mixed_float16")
]


@pytest.mark.parametrize(
    ("recipe", "task_name", "strategy", "precision"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(case)) for case in GRID],
)
def test_a_few_steps(settings, tmp_path, recipe, task_name, strategy, precision):
    run_settings = settings(
        f"model={recipe}", f"dataset={DATASETS[task_name]}", f"strategy={strategy}", f"training.precision={precision}",
        "dataset.limit=16", "training.batch_size=8", "training.epochs=1", *SMALL.get(recipe, []), *FEW.get(task_name, []),
    )  # fmt: skip
    data = datasets.load(run_settings.dataset)
    loop.prepare(run_settings)
    task = registry.create(run_settings.task, data, run_settings.dataset.limit, reference_classifier=FakeReferenceClassifier())
    model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
    weights_before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    logged = []
    loop.fit(model, run_settings, task, lambda metrics, epoch: logged.append(metrics), quiet=True, profile_to=None)
    assert np.isfinite(list(logged[-1].values())).all()
    changed = [np.abs(keras.ops.convert_to_numpy(w) - b).max() > 0 for w, b in zip(model.trainable_weights, weights_before)]
    assert all(changed), [w.path for w, c in zip(model.trainable_weights, changed) if not c]

    predictions = task.predict(model, task.test, 8)
    assert np.isfinite(list(task.metrics(task.test, predictions).values())).all()
    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, task.test.take(8).inputs)
    output = keras.ops.convert_to_numpy(model(inputs, training=False))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(restored(inputs, training=False)), output)

    if strategy == "single":
        serving_fn, owners = task.serving_fn(model)
        folder, reads, writes = str(tmp_path / "saved_model"), task.input_tokenizer, task.output_tokenizer
        outputs = serving.save(serving_fn, owners, task.test.raw, folder, reads, writes)
        served_inputs = reads.encode(task.test.raw) if reads else task.test.raw
        for name, values in serving_fn(keras.ops.convert_to_tensor(served_inputs)).items():
            expected = values.numpy()
            if name == "token_ids":
                assert writes.decode(expected) == outputs["text"].tolist()
            else:
                # A float16 graph rounds elsewhere when it comes from a file: by one level of grey, in an image.
                level = 1 if expected.dtype == np.uint8 and precision == "mixed_float16" else 1e-4
                np.testing.assert_allclose(outputs[name].astype(float), expected.astype(float), rtol=1e-3, atol=level)
        loaded = serving.ServedModel(folder).predict(task.test.raw)
        for name, values in outputs.items():
            assert len(values) == len(task.test)
            np.testing.assert_array_equal(loaded[name], values)
