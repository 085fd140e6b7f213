"""Where XLA compiles the training step."""

import numpy as np
import pytest
import tensorflow as tf

from src import config, datasets
from src.config.tasks import TASKS
from src.tasks import factory
from src.training import loop, strategies, xla
from tests.src.training.test_grid import FEW, SMALL

LANGUAGE_MODEL = ("model=gpt", "dataset=docstrings", *FEW["language_modeling"])


def test_what_is_said_of_the_recipes_names_recipes_and_tasks():
    for recipe, task in xla.FEWEST_STEPS:
        assert recipe in config.option_names("model")
        assert task in TASKS


@pytest.mark.parametrize(
    ("overrides", "steps", "expected"),
    [
        (LANGUAGE_MODEL, 150, True),
        (LANGUAGE_MODEL, 149, False),
        ((*LANGUAGE_MODEL, "training.jit_compile=false"), 150, False),
        ((*LANGUAGE_MODEL, "training.jit_compile=true"), 1, True),
        ((*LANGUAGE_MODEL, "strategy=mirrored"), 150, False),
        ((*LANGUAGE_MODEL, "training.precision=mixed_bfloat16"), 150, False),
        (("model=gpt", "dataset=docstrings", "task.name=text_classification"), 150, False),
        (("model=lstm",), 10_000, False),
    ],
)
def test_auto_takes_xla_where_it_pays(settings, overrides, steps, expected):
    assert xla.compiles(settings(*overrides), steps) is expected


def test_auto_takes_no_xla_on_devices_without_a_measurement(settings, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"] if kind == "GPU" else [])
    assert not xla.compiles(settings(*LANGUAGE_MODEL), 150)


def test_xla_changes_nothing_but_rounding(settings, monkeypatch):
    monkeypatch.setitem(xla.FEWEST_STEPS, ("gpt", "language_modeling"), 1)
    losses = []
    for jit_compile in ("auto", "false"):
        run_settings = settings(
            *LANGUAGE_MODEL, *SMALL["gpt"], "training.epochs=2", "training.steps_per_epoch=8", "training.batch_size=8",
            "training.previews=0", "optimizer=sgd", "optimizer.learning_rate=0.1", f"training.jit_compile={jit_compile}",
        )  # fmt: skip
        data = datasets.load(run_settings.dataset)
        loop.prepare(run_settings)
        task = factory.create(run_settings.task, data)
        model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
        assert model.jit_compile == (jit_compile == "auto")
        loop.fit(model, run_settings, task, lambda metrics, epoch: losses.append(metrics["epoch/train/loss"]))
    assert losses[1] < losses[0]
    np.testing.assert_allclose(losses[:2], losses[2:], rtol=1e-5)
