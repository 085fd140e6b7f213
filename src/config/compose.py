"""Composition of the configuration from conf/ and overrides, by Hydra."""

import os
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config import hydra_patches, renamed, search_space
from src.config.files import EXTENSIONS, default_name
from src.config.messages import did_you_mean, similar_names
from src.config.schema import Dataset, flatten
from src.config.tasks import TASKS
from src.errors import UserError

hydra_patches.apply()
OmegaConf.register_new_resolver("name_of", default_name)  # ${name_of:${dataset.path}}

CONF = Path(__file__).resolve().parents[2] / "conf"
CONFIG_DIR = "EXPERIMENTS_CONFIG_DIR"  # environment variable: the folder of another project that adds options to those of conf/
SEARCH_PATH = "hydra.searchpath"


def compose_config(name: str, overrides: list[str], **how: bool) -> DictConfig:
    """Compose a configuration from conf/ and the folder that `CONFIG_DIR` names.

    Raises:
        UserError: a group, an option or a setting is unknown.
    """
    for group, _, option in (override.partition("=") for override in overrides):
        if hydra_patches.is_abstract(option) and (available := GlobalHydra.instance().config_loader().get_group_options(group)):
            raise UserError(f"There is no {group}={option}; available: {', '.join(available)}.")
    try:
        added = [] if any(override.startswith(SEARCH_PATH) for override in overrides) else search_path(config_dir())
        return compose(name, [*overrides, *added], **how)
    except MissingConfigException as error:
        raise UserError(_unknown_option(error)) from None
    except ConfigCompositionException as error:
        raise UserError(_unknown_key(str(error), name, overrides)) from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a group set to a number
        raise UserError(f"The configuration cannot be composed: {str(error).splitlines()[0]}") from None


def parse_overrides(overrides: list[str]) -> list[Override]:
    """Parse overrides in Hydra's grammar.

    Raises:
        UserError: an override has a syntax error, or a sweep without values.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        parsed = parser.parse_overrides(overrides)
    except OverrideParseException as error:
        raise UserError(
            f"'{error.override}' cannot be read; write key=value, like training.epochs=5, and a value with brackets, colons, ~ "
            """or letters outside of ASCII in quotes, like 'dataset.splits.test="train[80%:]"'."""
        ) from None
    for override in parsed:
        if override.is_sweep_override():
            search_space.validate(override)
    return parsed


def quote(value: str) -> str:
    """A text as a value in Hydra's grammar, in which some characters need quotes."""
    escaped = value.replace("'", r"\'")
    return f"'{escaped}'"


def to_dict(config: Any, *, resolve: bool = True, throw_on_missing: bool = False) -> dict[str, Any]:
    """Convert a section of an OmegaConf configuration to plain dictionaries, lists and values."""
    container = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=throw_on_missing)
    if not isinstance(container, dict):
        raise TypeError(f"{config!r} is not a section.")
    return {str(key): value for key, value in container.items()}


def config_dir() -> Path | None:
    """The folder that `CONFIG_DIR` names, if any.

    Raises:
        UserError: there is no such folder.
    """
    folder = os.environ.get(CONFIG_DIR)
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise UserError(f"{CONFIG_DIR}={folder} names no folder; correct it, or unset it.")
    return Path(folder).resolve()


def search_path(folder: Path | None) -> list[str]:
    """The override by which Hydra finds the options of a folder, too; empty if there is none."""
    return [f"{SEARCH_PATH}=[{quote(f'file://{folder}')}]"] if folder else []


def option_names(group: str) -> list[str]:
    """The options of a group, sorted: the files of conf/<group>, without the abstract ones (`_image`, …)."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not hydra_patches.is_abstract(path.stem))


def recipe_targets() -> set[str]:
    """The `_target_`s of conf/model, and those of the folder that `CONFIG_DIR` names."""
    return _values("model", "_target_")


def builders() -> set[str]:
    """The builders of conf/dataset, and those of the folder that `CONFIG_DIR` names."""
    return _values("dataset", "builder")


def _values(group: str, key: str) -> set[str]:
    """The values of a setting in the files of a group."""
    folders = [folder for folder in (CONF, config_dir()) if folder]
    paths = (path for folder in folders for path in (folder / group).glob("*.yaml"))
    sections = [(yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(group, {}) for path in paths]
    return {section[key] for section in sections if key in section}


def dataset(name: str) -> Dataset:
    """The settings of a data set.

    Raises:
        UserError: there is no such data set, or it has to be read from files.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        section = to_dict(compose_config("config", [f"dataset={name}"]))["dataset"]
    if section.get("builder") in EXTENSIONS:
        raise UserError(
            f"dataset={name} is read from files, which only src.run can be given; type the name of another data set."
        )
    return Dataset.model_validate(section)


def tasks_of_datasets() -> dict[str, list[str]]:
    """{name: tasks} of every data set."""
    names = GlobalHydra.instance().config_loader().get_group_options("dataset")
    return {name: hydra_patches.tasks(name) for name in names}


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    available = sorted(error.options or [])
    if not available:
        return str(error).splitlines()[0]
    suggestions = [f"{group}={word}" for word in similar_names(option, available)]
    return f"There is no {group}={option}; {did_you_mean(suggestions)}available: {', '.join(available)}."


def _unknown_key(message: str, name: str, overrides: list[str]) -> str:
    """Error message for an unknown key. Hydra suggests `+key`, which hides a typo; this one suggests similar keys."""
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if f"'{key}'" in message:
            break
    else:
        return message.splitlines()[0]
    group_overrides = [each for each in overrides if each.partition("=")[0] in groups]
    try:
        composed = dict(flatten(to_dict(compose(name, group_overrides), resolve=False)))
        # task.tokenizer.language_modeling is the default of task.tokenizer for one of the tasks.
        per_task = tuple(f".{task}" for task in TASKS)
        composed = {key.rpartition(".")[0] if key.endswith(per_task) else key: value for key, value in composed.items()}
        # training.epochs is ${dataset.epochs} by default: the latter is suggested only for a key of dataset.
        names = {name: name.rpartition(".")[2] for name in composed}
        defaults = {f"dataset.{last}" for name, last in names.items() if composed[name] == f"${{dataset.{last}}}"}
        candidates = [name for name in composed if name not in defaults or key.startswith("dataset.")]
    except HydraException:
        candidates = []
    new = renamed.describe_rename(key, override.partition("=")[2])
    if new and (key.startswith("hydra.") or renamed.RENAMED[key] in candidates):
        return new
    suggestions = similar_names(key, candidates + groups)
    return f"There is no setting '{key}'; {did_you_mean(suggestions)}see all with: python -m src.run --cfg job"
