"""A project of its own, beside this one, adds a recipe, a data set and an experiment: no file here is changed."""

import re
import shlex
import sys

import pytest

from src import config, datasets, evaluate, experiment
from src.errors import UserError
from tests.commands import ROOT, run
from tests.src.test_readme import README, blocks

FILES = {
    "perceptron.py": """
import keras
from keras import layers

from recipes.shared_layers import input_layer, output_head
from recipes.specs import Classes, Count, Image


def build(inputs: Image, outputs: Classes, *, units: Count = 64) -> keras.Model:
    source = input_layer(inputs)
    return keras.Model(source, output_head(layers.Dense(units, "relu")(layers.Flatten()(source)), outputs))
""",
    "kites.py": """
import numpy as np
import tensorflow_datasets as tfds


class Kites(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(6, 6, 1)), "label": tfds.features.ClassLabel(names=["sky", "kite"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for n in range(100):
            yield n, {"image": np.full((6, 6, 1), n + 100 * (n % 2), np.uint8), "label": n % 2}
""",
    "conf/model/perceptron.yaml": """# @package _global_
defaults:
  - override /dataset: kites
  - override /optimizer: adam
  - _self_
model:
  name: perceptron
  _target_: perceptron.build
  units: 64
""",
    "conf/dataset/kites.yaml": """# @package _global_
defaults: [_image, _self_]
dataset:
  name: kites
  builder: kites.Kites
  splits:
    train: train[:80%]
    validation: train[80%:90%]
    test: train[90%:]
  epochs: 1
""",
    "conf/experiment/kites.yaml": """# @package _global_
defaults:
  - override /model: perceptron
  - _self_
experiment: kites
model:
  units: 4
""",
}


@pytest.fixture
def kites(tmp_path):
    """The folder of the other project; its files are those that the README names."""
    for name, text in FILES.items():
        (tmp_path / "kites" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kites" / name).write_text(text)
    return tmp_path / "kites"


@pytest.fixture
def on_path(kites, monkeypatch):
    monkeypatch.syspath_prepend(kites)
    yield
    for name in ("kites", "perceptron"):
        sys.modules.pop(name, None)
    datasets.load.cache_clear()


def test_the_line_of_the_readme_runs_an_experiment_of_another_project(kites, here, data_dir):
    (line,) = (block for kind, block in blocks(README) if kind == "console")
    variable, *words = shlex.split(line.removeprefix("$ "))
    assert variable == "PYTHONPATH=../kites"
    assert words[:3] == ["python", "-m", "src.run"]
    folder = here / "clone"
    folder.mkdir()
    done = run(folder, *words[3:], "tracking.log_model=false", "tracking.log_figures=false", fresh=True,
               PYTHONPATH=f"{ROOT}:../kites")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^perceptron +\d\.\d+", done.stdout, re.MULTILINE)
    assert "run kites-seed0 of experiment kites" in done.stdout


def test_the_variable_does_so_for_every_command_and_without_it_no_code_of_a_run_is_imported(
    kites, on_path, store, data_dir, monkeypatch
):
    monkeypatch.setenv(config.CONFIG_DIR, str(kites / "conf"))
    quick = ["tracking.log_model=false", "tracking.log_figures=false", f"dataset.data_dir={data_dir}"]
    (settings,) = config.parse(["model=perceptron", *quick]).jobs
    assert settings.dataset.builder == "kites.Kites"
    result = experiment.run(settings)
    assert store.get_run(result.run_id).info.run_name == "perceptron-seed0"
    assert re.search(r"\nAll [2-9] metrics are identical\.$", evaluate.evaluate(result.run_id, record="false"))
    monkeypatch.delenv(config.CONFIG_DIR)
    with pytest.raises(
        UserError, match=r"was made by perceptron.build, which is no recipe in conf/model; choose another run, or"
    ):
        evaluate.evaluate(result.run_id, record="false")


def test_a_builder_that_no_file_names_is_not_imported(finished_copy, store):
    file = next(finished_copy.folder.rglob(f"{finished_copy.run_id}/artifacts/config.yaml"))
    file.write_text(file.read_text().replace("builder: digits", "builder: antigravity.Kites"))
    with pytest.raises(UserError, match=r"has the data of antigravity.Kites, which is no builder in conf/dataset"):
        evaluate.evaluate(finished_copy.run_id, record="false")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["nowhere.Kites", "src.datasets.builders.digits.Kites"])
def test_a_class_that_is_not_there_is_reported(settings, name):
    dataset = settings(f"dataset.builder={name}").dataset
    with pytest.raises(UserError, match=rf"^dataset.builder={name} names no class that can be imported \(.*; correct it\.$"):
        datasets.load(dataset)


def test_a_folder_that_is_not_there_is_reported(monkeypatch):
    monkeypatch.setenv(config.CONFIG_DIR, "nowhere")
    with pytest.raises(UserError, match=f"{config.CONFIG_DIR}=nowhere names no folder; correct it, or unset it."):
        config.parse(["model=cnn"])
