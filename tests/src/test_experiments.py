"""Experiments say what their results are, and learn; tests/src/test_golden.py holds their settings."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from src import config, datasets
from src.tasks import factory
from src.training import loop
from tests.commands import ROOT
from tests.golden import EXPERIMENTS, settings_of
from tests.results import MEAN, NUMBER, READMES

HEADS = {name: (config.CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8") for name in EXPERIMENTS}
FOR_CPUS = [name for name in EXPERIMENTS if "Not run here" not in HEADS[name]]
MEASURED = re.compile(r"^# [^.:]+: (\S.*), mean ± sd of three seeds; (.*) a run on one CPU core\.$", re.MULTILINE)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_has_the_name_of_its_file(experiment):
    assert settings_of(f"experiment={experiment}")["experiment"] == experiment


@pytest.mark.parametrize("experiment", FOR_CPUS)
def test_its_head_says_what_it_reaches_and_costs_as_the_recipe_and_the_readmes_do(experiment):
    """If not, measure it, and: python -m tests.results"""
    reached, cost = MEASURED.search(HEADS[experiment]).groups()
    recipe = (ROOT / "recipes" / f"{settings_of(f'experiment={experiment}')['model.name']}.py").read_text(encoding="utf-8")
    assert re.search(rf"^    {experiment} +{re.escape(f'{reached}, {cost}')}$", recipe, re.MULTILINE)
    mean, costs = re.search(MEAN, reached)[0], re.findall(NUMBER, cost)
    for name in READMES:
        page = (ROOT / name).read_text(encoding="utf-8")
        assert f"| {experiment} | {mean} | 3 |" in page, name
        for row in re.findall(rf"^\| <img.+`{experiment}`.+$", page, re.MULTILINE):  # of the table of ten
            *_, result, spent, _ = row.split(" | ")
            assert mean in result, name
            assert re.findall(NUMBER, spent) == costs, name


@pytest.mark.parametrize("experiment", FOR_CPUS)
def test_it_learns_from_its_own_data(settings, catalogue_data, experiment):
    """Two steps of it, with nobody to judge what is generated."""
    few = (
        "training.epochs=1",
        "training.steps_per_epoch=2",
        "dataset.limit=256",
        "training.restore_best_weights=false",
        "training.previews=0",
    )
    run_settings = settings(f"experiment={experiment}", *few)
    data = datasets.load(run_settings.dataset.model_copy(update={"data_dir": catalogue_data}))
    loop.prepare(run_settings)
    task = factory.create(run_settings.task, data, run_settings.dataset.limit)
    model = loop.build(run_settings, task, tf.distribute.get_strategy())
    history = []
    loop.fit(model, run_settings, task, lambda metrics, epoch: history.append(metrics), profile_to=None)
    assert np.isfinite(history[-1]["train/loss"])
    keras.backend.clear_session()
