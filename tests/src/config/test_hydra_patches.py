"""Patches of Hydra and OmegaConf: they change no configuration, and are still needed."""

import functools
import inspect
import json
import subprocess
import sys

import hydra
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf, _utils
from yaml._yaml import CParser

from src import config
from src.config import hydra_patches
from tests.commands import environment

LINES = [[], ["model=lstm", "optimizer.learning_rate=1"], ["experiment=gan_fashion_mnist"], ["dataset=etth1", "debug=overfit"]]
LINES = [*LINES, *LINES[::-1]]
# Hydra and OmegaConf as they come. Counts what the patches spare: a number of 0 or 1 means that a patch is no longer needed.
AS_THEY_COME = f"""
import collections, functools, json, sys
from hydra import compose, initialize_config_dir
from hydra._internal import config_repository, defaults_list
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf, _utils, base
from yaml._yaml import CParser

counts = collections.Counter()

def counting(what, function):
    @functools.wraps(function)
    def counted(*arguments, **named):
        counts[what(*arguments, **named)] += 1
        return function(*arguments, **named)
    return counted

base.parse = counting(lambda text, *_, **__: "interpolations" if text == "${{hydra.job.num}}" else "", base.parse)
repository = config_repository.ConfigRepository
repository.load_config = counting(
    lambda self, config_path: "files" if config_path == "training/default" else "", repository.load_config
)
defaults_list._create_interpolation_map = counting(lambda *_, **__: "maps", defaults_list._create_interpolation_map)
ConfigStore.__deepcopy__ = counting(lambda self, memo: "stores", lambda self, memo: self)

with initialize_config_dir({str(config.CONF)!r}, version_base="1.3"):
    composed = [OmegaConf.to_container(compose("config", line)) for line in {LINES}]
in_c = int(issubclass(_utils.get_yaml_loader(), CParser))
print(json.dumps([composed, counts, in_c]))
"""


@functools.cache
def as_they_come():
    done = subprocess.run([sys.executable, "-c", AS_THEY_COME], env=environment(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_hydra_has_no_public_parser_of_a_command_line():
    assert not [name for name in dir(hydra) if not name.startswith("_") and "pars" in name]
    assert "arg" not in "".join(inspect.signature(hydra.main).parameters)  # it takes those of the process


class Here(Launcher):
    """A plugin that does nothing."""

    def setup(self, **arguments):
        pass

    def launch(self, job_overrides, initial_job_idx):
        pass


def test_registered_plugins_outside_of_hydra_plugins_are_not_instantiated():
    """The reason for a name that begins with hydra_plugins."""
    plugins, name = Plugins.instance(), f"{Here.__module__}.Here"
    plugins.register(Here)
    with pytest.raises(RuntimeError, match="Invalid plugin"):
        plugins._instantiate(OmegaConf.create({"_target_": name}))
    hydra_patches.register_plugin(Here)
    assert isinstance(plugins._instantiate(OmegaConf.create({"_target_": f"hydra_plugins.{name}"})), Here)


def composed(line):
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", line))


def test_patched_hydra_composes_the_same_configurations():
    assert [composed(line) for line in LINES] == as_they_come()[0]


@pytest.mark.parametrize(
    "patch", ["interpolations", "files", "maps", "stores"],
)  # fmt: skip
def test_patches_are_still_needed(patch):
    assert as_they_come()[1][patch] >= len(LINES)


def test_the_c_yaml_loader_reads_what_omegaconf_reads():
    loader = _utils.get_yaml_loader()
    assert issubclass(loader, CParser)
    assert not as_they_come()[2]
    (in_python,) = (base for base in loader.__bases__ if base is not CParser)
    for path in config.CONF.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert yaml.load(text, loader) == yaml.load(text, in_python)
    for text in ("1e-3", "1_000", "2026-01-01", "a: [.5, 1., off]", "é: '∞'"):
        assert yaml.load(text, loader) == yaml.load(text, in_python)
    with pytest.raises(yaml.constructor.ConstructorError, match="found duplicate key a"):
        yaml.load("a: 1\na: 2", loader)


def test_changed_config_files_are_reloaded(tmp_path):
    for units in (1, 2):
        (tmp_path / "config.yaml").write_text(f"units: {units}\n" + units * "#", encoding="utf-8")
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            assert compose("config") == {"units": units}


def test_interpolation_in_defaults_lists(tmp_path):
    for name in ("model/cnn", "dataset/of_cnn"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n", encoding="utf-8")
    defaults = "defaults:\n  - _self_\n  - model: cnn\n  - dataset: of_${model}\n"
    (tmp_path / "config.yaml").write_text(defaults, encoding="utf-8")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("config").dataset.name == "dataset/of_cnn"


def test_tasks_of_a_data_set_are_read_without_composing():
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        for name in ("digits", "fashion_mnist", "wiki40b", "sunspots"):
            names = compose(f"dataset/{name}").task.name
            assert hydra_patches.tasks(name) == ([names] if isinstance(names, str) else list(names))
