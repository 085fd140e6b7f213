"""Every recipe on every task that it supports: a few steps under each strategy and precision, saved and loaded."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from src import config, datasets
from src.config import signature
from src.config.tasks import TASKS
from src.datasets import lazy, pipeline
from src.errors import UserError
from src.tasks import factory
from src.training import loop, strategies
from tests.labels import several_labels
from tests.served import save_and_load

DATASETS = {
    "image_classification": "digits",
    "image_generation": "digits",
    "pixel_generation": "digits",
    "text_classification": "docstrings",
    "language_modeling": "docstrings",
    "forecasting": "sunspots",
    "quantile_forecasting": "sunspots",
    "translation": "dates",
    "image_multilabel_classification": "digits",
    "text_multilabel_classification": "docstrings",
    "audio_classification": "dtmf",
    "audio_multilabel_classification": "dtmf",
}
SMALL = {  # less of everything, where that makes a recipe faster to build
    "cnn": ["model.filters=[4,4]"],
    "lightweight": ["model.blocks=3", "model.width=0.25", "model.last=16"],
    "resnet": ["model.depth=8", "model.width=4"],
    "transformer": ["model.blocks=1", "model.dimension=16"],
    "gpt": ["model.blocks=1", "model.dimension=16", "training.steps_per_epoch=null"],
    "gan": ["model.width=8"],
    "diffusion": ["model.width=8", "model.levels=1", "model.heads=1", "model.timesteps=20"],
}
SLICES = [f'dataset.splits.{split}="train[{at}:{at + 50}]"' for split, at in (("train", 0), ("validation", 50), ("test", 100))]
FEW = {
    "image_classification": ["task.name=image_classification"],
    "image_generation": ["task.name=image_generation", "task.samples=20"],
    "pixel_generation": ["task.name=pixel_generation", "task.samples=20"],
    "text_classification": [*SLICES, "task.name=text_classification", "task.length=12"],
    "language_modeling": [*SLICES, "task.name=language_modeling", "task.context=12", "task.vocabulary_size=300"],
    "translation": SLICES,
    "quantile_forecasting": ["task.name=quantile_forecasting"],
    "image_multilabel_classification": ["task.name=image_multilabel_classification", "compression=none"],
    "audio_multilabel_classification": ["task.name=audio_multilabel_classification", "compression=none"],
    "text_multilabel_classification": [*SLICES, "task.name=text_multilabel_classification", "task.length=12"],
}
SAMPLING = {"state": [7, 0], "stop": 12, "temperature": 1.0, "top_k": 5, "top_p": 0.9}  # of served generators
RECIPES = config.option_names("model")


def supports(recipe, task):
    return signature.read(f"recipes.{recipe}.build").supports(TASKS[task].inputs, TASKS[task].outputs)


PAIRS = [(recipe, task) for recipe, task in itertools.product(RECIPES, DATASETS) if supports(recipe, task)]


class FakeReferenceClassifier:
    """Random features, and ten classes."""

    def features_and_probabilities(self, images):
        images = np.asarray(images)
        features = images.reshape(len(images), -1) @ np.random.default_rng(0).normal(size=(images[0].size, 10)) / 255
        exponentials = np.exp(features)
        return features, exponentials / exponentials.sum(axis=1, keepdims=True)


def test_every_task_is_tested():
    assert set(DATASETS) == set(TASKS)


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    keras.config.set_dtype_policy("float32")


# Every recipe runs every task in float32 (one runs each of several labels, which differ from those of one class in their loss
# alone, and one that of audio, which to a recipe are images), and its first task in each 16-bit precision, one of them on two
# devices.
FIRST = dict(reversed(PAIRS))
ONCE = {
    "image_multilabel_classification": "cnn", "text_multilabel_classification": "cnn", "audio_classification": "attention",
    "audio_multilabel_classification": "lstm",
}  # fmt: skip
QUICK = {(recipe, task, "single", "float32") for recipe, task in PAIRS if ONCE.get(task, recipe) == recipe}
QUICK |= {(*pair, *case) for pair in FIRST.items() for case in (("single", "mixed_float16"), ("mirrored", "mixed_bfloat16"))}
# The served model of every recipe and of every task; in the slow part, of both together.
SERVED = set(FIRST.items()) | {(recipe, task) for task, recipe in {task: recipe for recipe, task in reversed(PAIRS)}.items()}
GRID = [
    (*pair, strategy, precision)
    for pair in PAIRS
    for strategy in ("single", "mirrored")
    for precision in ("float32", "mixed_bfloat16", "mixed_float16")
]


@pytest.fixture
def graphs_as_traced(request):
    """Without the slow tests, TensorFlow does not optimize graphs, which would take a quarter of the time."""
    options = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": request.config.option.markexpr == "not slow"})
    yield
    tf.config.optimizer.set_experimental_options(options)


@pytest.fixture
def prepared(settings):
    """prepared(recipe, task, strategy, precision, storage="disk"): (settings, task, model), small and untrained."""

    def prepare(recipe, task_name, strategy="single", precision="float32", **dataset):
        run_settings = settings(
            f"model={recipe}", f"dataset={DATASETS[task_name]}", f"strategy={strategy}", f"training.precision={precision}",
            "dataset.limit=16", "training.batch_size=8", "training.epochs=1", *SMALL.get(recipe, []), *FEW.get(task_name, []),
        )  # fmt: skip
        run_settings = run_settings.model_copy(update={"dataset": run_settings.dataset.model_copy(update=dataset)})
        data = datasets.load(run_settings.dataset)
        if "multilabel" in task_name:
            data = several_labels(data)
        loop.prepare(run_settings)
        task = factory.create(
            run_settings.task, data, run_settings.dataset.limit, reference_classifier=FakeReferenceClassifier()
        )
        return run_settings, task, loop.build(run_settings, task, strategies.create(run_settings.strategy))

    return prepare


@pytest.mark.usefixtures("graphs_as_traced")
@pytest.mark.parametrize(
    ("recipe", "task_name", "strategy", "precision"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(case)) for case in GRID],
)
def test_recipe_trains_saves_and_loads(prepared, tmp_path, recipe, task_name, strategy, precision):
    run_settings, task, model = prepared(recipe, task_name, strategy, precision)
    weights_before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    logged = []
    loop.fit(model, run_settings, task, lambda metrics, epoch: logged.append(metrics), profile_to=None)
    assert np.isfinite(list(logged[-1].values())).all()
    changed = [np.abs(keras.ops.convert_to_numpy(w) - b).max() > 0 for w, b in zip(model.trainable_weights, weights_before)]
    assert all(changed), [w.path for w, c in zip(model.trainable_weights, changed) if not c]

    task.finalize(model, 8)
    predictions = task.predict(model, task.test, 8)
    metrics = task.metrics(task.test, predictions)
    assert metrics.keys() == TASKS[task_name].metrics.keys()
    assert np.isfinite(list(metrics.values())).all()
    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, task.test.take(8).inputs)
    output = keras.ops.convert_to_numpy(model(inputs, training=False))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(restored(inputs, training=False)), output)
    if (strategy, precision) == ("single", "float32") and (recipe, task_name) in SERVED:
        check_served(task, model, tmp_path / "saved_model")


@pytest.mark.parametrize(
    ("recipe", "task_name", "precision"),
    [
        pytest.param(*pair, precision, marks=[] if pair == ("cnn", "image_classification") else pytest.mark.slow)
        for pair in PAIRS
        for precision in ("float32", "mixed_bfloat16", "mixed_float16")
        if precision != "float32" or pair not in SERVED
    ],
)
def test_recipe_is_served_in_every_precision(prepared, tmp_path, recipe, task_name, precision):
    _, task, model = prepared(recipe, task_name, "single", precision)
    draw = np.random.default_rng(0)
    for weight in model.trainable_weights:  # no output is constant because a weight is zero at the start
        weight.assign(weight + 0.1 * draw.normal(size=weight.shape))
    check_served(task, model, tmp_path / "saved_model")


def check_served(task, model, folder):
    """What is written and loaded computes what the functions in memory compute, and answers what it says that it answers."""
    serving = task.serving(model)
    loaded = save_and_load(task, model, folder)
    for name, (function, specs) in serving.functions.items():
        arguments = SAMPLING | {"inputs": served_inputs(task, specs["inputs"])}
        tensors = {argument: tf.constant(arguments[argument], spec.dtype) for argument, spec in specs.items()}
        # Traced, as the saved one is: eagerly a generator takes half a minute, and 16-bit numbers are rounded otherwise.
        expected = tf.function(function, autograph=False)(**tensors)
        for output, values in loaded.model.signatures[name](**tensors).items():
            if output == "token_ids" and "state" in expected and keras.config.dtype_policy().compute_dtype == "bfloat16":
                continue  # sampled: one token drawn differently changes all that follow
            check_equal(output, values.numpy().astype(float), expected[output].numpy().astype(float))
    outputs = loaded.predict(serving.example, serving.example_params)
    assert {name: (values.dtype, values.shape[1:]) for name, values in outputs.items()} == serving.outputs


def served_inputs(task, spec):
    """Two test examples as a served function takes them: labels, the first tokens of texts, or the inputs of the model."""
    examples = task.test.take(2)
    if spec.shape.rank == 1:
        return examples.raw
    inputs = examples.inputs["source"] if isinstance(examples.inputs, dict) else examples.inputs
    return inputs[:, :4] if spec.shape[1] is None else inputs


def check_equal(output, saved, expected):
    if keras.config.dtype_policy().compute_dtype != "bfloat16":
        np.testing.assert_allclose(saved, expected, rtol=1e-5, atol=1e-6)
    elif output == "image":  # one pixel drawn differently changes all that follow, but not how bright the images are
        np.testing.assert_allclose(saved.mean(), expected.mean(), atol=10)
    else:  # 8 bits: a recurrent layer loses some at each step, and TensorFlow fuses steps
        np.testing.assert_allclose(saved, expected, rtol=0, atol=0.05 * np.abs(expected).max())


# --- data in memory and on disk

RECIPE = {task: recipe for recipe, task in PAIRS}  # one for each task
IN_MEMORY = {"forecasting", "quantile_forecasting"}  # tasks whose data does not stay on disk


def trained(prepared, task_name, **dataset):
    """The settings, and what three steps of training give: batches, losses, weights, predictions, and metrics."""
    run_settings, task, model = prepared(RECIPE[task_name], task_name, **dataset)
    model.run_eagerly = True  # to trace the model takes longer than three steps
    training = pipeline.training(task.model_inputs(model, task.train, training=True), 8, seed=1)
    evaluation = pipeline.evaluation(task.model_inputs(model, task.validation), 8)
    batches = [*training.take(3), *evaluation]
    losses = [model.train_on_batch(*batch) if len(batch) == 2 else model.test_on_batch(*batch) for batch in batches]
    task.finalize(model, 8)
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    predictions = task.predict(model, task.test, 8)
    return run_settings, {
        "batches": keras.tree.map_structure(keras.ops.convert_to_numpy, batches), "losses": losses, "weights": weights,
        "predictions": predictions, "metrics": task.metrics(task.test, predictions),
    }  # fmt: skip


@pytest.mark.parametrize("task_name", sorted(TASKS))
def test_training_from_disk_is_that_from_memory(prepared, tmp_path, task_name):
    _, expected = trained(prepared, task_name)
    if task_name in IN_MEMORY:  # they are read from the same files, though
        with pytest.raises(UserError, match=r"can be read from disk during training, but .* type dataset.storage=memory"):
            trained(prepared, task_name, storage="disk", data_dir=str(tmp_path))
        _, results = trained(prepared, task_name, data_dir=str(tmp_path))
    else:
        run_settings, results = trained(prepared, task_name, storage="disk")
        assert lazy.is_lazy(datasets.load(run_settings.dataset).train.inputs)
    keras.tree.map_structure(np.testing.assert_array_equal, results, expected)
