"""Experiments have the same results on all pages, and train; tests/src/test_golden.py holds their settings."""

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
from tests.results import MEAN, NUMBER, READMES, TABLES, VALUE

HEADS = {name: (config.CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8") for name in EXPERIMENTS}
FOR_CPUS = [name for name in EXPERIMENTS if "Not run here" not in HEADS[name]]
MEASURED = re.compile(
    r"^# [^.:]+: (\S.*), mean ± sd of three seeds; (.*) a run on one CPU core\.(?: Distances.*)?$", re.MULTILINE
)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_named_like_its_file(experiment):
    assert settings_of(f"experiment={experiment}")["experiment"] == experiment


@pytest.mark.parametrize("experiment", FOR_CPUS)
def test_head_recipe_and_pages_have_the_same_results(experiment):
    """If not, measure it, and: python -m tests.results"""
    reached, cost = MEASURED.search(HEADS[experiment]).groups()
    recipe = (ROOT / "recipes" / f"{settings_of(f'experiment={experiment}')['model.name']}.py").read_text(encoding="utf-8")
    assert re.search(rf"^    {experiment} +{re.escape(f'{reached}, {cost}')}$", recipe, re.MULTILINE)
    mean, costs = re.search(MEAN, reached)[0], re.findall(NUMBER, cost)
    baseline = re.search(rf"\(.+? ({VALUE})\)$", reached)[1]
    (row,) = re.findall(rf"^\| {experiment} +\|.+$", TABLES.read_text(encoding="utf-8"), re.MULTILINE)
    _, result, seeds, simple, parameters, _, seconds, _ = row.strip("| ").split("|")
    assert [result.strip(), seeds.strip(), parameters.strip(), seconds.strip()] == [mean, "3", *costs]
    assert simple.strip().startswith(f"{baseline} (")
    for name in READMES:
        page = (ROOT / name).read_text(encoding="utf-8")
        for row in re.findall(rf"^\| .+`experiment={experiment}` \|$", page, re.MULTILINE):
            *_, result, simple, _, spent, _ = row.split(" | ")
            assert mean in result, name
            assert re.search(VALUE, simple)[0] == baseline, name
            assert re.findall(NUMBER, spent) == costs, name


def test_the_readmes_have_an_experiment_of_each_recipe():
    for name in READMES:
        page = (ROOT / name).read_text(encoding="utf-8")
        experiments = re.findall(r"`experiment=(\w+)` \|$", page, re.MULTILINE)
        assert sorted(settings_of(f"experiment={name}")["model.name"] for name in experiments) == sorted(
            config.option_names("model")
        )


@pytest.mark.parametrize("experiment", FOR_CPUS)
def test_an_experiment_trains_on_its_own_data(settings, catalogue_data, experiment):
    """Two steps, without the reference classifier of generated images."""
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
    assert np.isfinite(history[-1]["epoch/train/loss"])
    keras.backend.clear_session()
