"""Every setting of training in every precision, and what Keras would do otherwise than a run records."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from src import config
from src.config import schema, signature
from src.errors import UserError
from src.tasks import factory
from src.training import loop, optimizers
from tests.src.training.test_grid import DATASETS, FEW, FIRST, SMALL

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
OTHER = {  # a value of each setting other than its default
    "epochs": 1, "steps_per_epoch": 3, "steps_per_execution": 2, "batch_size": 8, "jit_compile": "true",
    "gradient_accumulation": 2, "ema": 0.5, "gradient_norm": "true", "early_stopping": 1, "previews": 0,
    "monitor": "val_accuracy", "restore_best_weights": "false", "profile": "true",
}  # fmt: skip
TOGETHER = [f"training.{name}={OTHER[name]}" for name in ("gradient_accumulation", "ema", "gradient_norm", "early_stopping")]
CASES = [pytest.param([*TOGETHER, "optimizer.clip_norm=1", "training.epochs=1"], id="together")]
CASES += [pytest.param([f"training.{name}={value}"], id=name, marks=pytest.mark.slow) for name, value in OTHER.items()]
CASES += [pytest.param([*TOGETHER, "training.jit_compile=true"], id="together-jit_compile", marks=pytest.mark.slow)]


AUGMENTING = [
    recipe for recipe in config.option_names("model")
    if "augmentation" in signature.read(f"recipes.{recipe}.build").hyperparameters.model_fields
]  # fmt: skip


@pytest.fixture(autouse=True)
def restore_float32():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def train(settings, load, tmp_path):
    """train("training.ema=0.5", …): the model and the metrics of the last epoch; 64 digits."""

    def run(*overrides):
        small = ("model.filters=[4]", "model.augmentation=0", "model.dropout=0", "dataset.limit=64", "training.batch_size=16")
        run_settings = settings("model=cnn", "training.epochs=2", *small, *overrides)
        data = load("digits")
        loop.prepare(run_settings)
        task = factory.create(run_settings.task, data, run_settings.dataset.limit)
        model = loop.build(run_settings, task, tf.distribute.get_strategy())
        history = []
        loop.fit(
            model, run_settings, task, lambda metrics, epoch: history.append(metrics),
            profile_to=str(tmp_path) if run_settings.training.profile else None,
        )  # fmt: skip
        return model, history[-1]

    return run


def test_every_setting_is_tried():
    assert set(OTHER) == set(schema.Training.model_fields) - {"precision"}


@pytest.mark.parametrize("overrides", CASES)
def test_every_setting_trains_alike_in_every_precision(train, overrides):
    results = {}
    for precision in PRECISIONS:
        model, metrics = train(*overrides, f"training.precision={precision}")
        assert model.jit_compile == ("training.jit_compile=true" in overrides)
        assert optimizers.unwrap(model.optimizer).use_ema == ("training.ema=0.5" in overrides)
        names = ["epoch/train/loss", "epoch/val/loss", *(name for name in metrics if "gradient_norm" in name)]
        results[precision] = [metrics[name] for name in names]
        assert len(names) == 2 + 2 * ("training.gradient_norm=true" in overrides)
    for precision in PRECISIONS[1:]:
        np.testing.assert_allclose(results[precision], results["float32"], rtol=0.05)


@pytest.mark.parametrize(
    ("overrides", "layer"),
    [(("model.augmentation=0.05",), "random_affine"), (("model.augmentation=0", "model.crop=0.5"), "random_resized_crop")],
)
def test_what_xla_cannot_compile_is_refused(train, overrides, layer):
    message = rf"cannot compile these layers of model=cnn: .*{layer}.*; type training.jit_compile=false, or disable them"
    with pytest.raises(UserError, match=message):
        train("training.jit_compile=true", *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", config.option_names("model"))
def test_every_recipe_trains_compiled_by_xla(settings, load, recipe):
    task_name = FIRST[recipe]
    run_settings = settings(
        f"model={recipe}", f"dataset={DATASETS[task_name]}", "training.jit_compile=true", "dataset.limit=16",
        "training.batch_size=8", "training.epochs=1", "training.previews=0", *SMALL.get(recipe, []), *FEW.get(task_name, []),
        *(["model.augmentation=0", "model.flip=true", "model.shift=1"] if recipe in AUGMENTING else []),
    )  # fmt: skip
    data = load(run_settings.dataset.name)
    loop.prepare(run_settings)
    task = factory.create(run_settings.task, data, run_settings.dataset.limit)
    model = loop.build(run_settings, task, tf.distribute.get_strategy())
    logged = []
    loop.fit(model, run_settings, task, lambda metrics, epoch: logged.append(metrics))
    assert model.jit_compile
    assert np.isfinite(list(logged[-1].values())).all()


def test_what_keras_json_says_of_floats_and_images_is_overruled(settings):
    keras.config.set_floatx("float64")
    keras.config.set_image_data_format("channels_first")
    try:
        loop.prepare(settings("model=cnn"))
        assert (keras.config.floatx(), keras.config.image_data_format()) == ("float32", "channels_last")
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")
