"""The configuration as Hydra composes it from conf/ and what is typed."""

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
from src.config.messages import did_you_mean, similar
from src.config.schema import Dataset, leaves
from src.errors import UserError

hydra_patches.apply()

CONF = Path(__file__).resolve().parents[2] / "conf"


def compose_config(name: str, overrides: list[str], **how: bool) -> DictConfig:
    """What Hydra makes of a configuration and overrides.

    Raises:
        UserError: a group, an option or a setting is unknown.
    """
    for group, _, option in (override.partition("=") for override in overrides):
        if hydra_patches.is_abstract(option) and (known := GlobalHydra.instance().config_loader().get_group_options(group)):
            raise UserError(f"There is no {group}={option}; known: {', '.join(known)}.")
    try:
        return compose(name, overrides, **how)
    except MissingConfigException as error:
        raise UserError(_unknown_option(error)) from None
    except ConfigCompositionException as error:
        raise UserError(_unknown_key(str(error), name, overrides)) from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a group set to a number
        raise UserError(f"The configuration cannot be composed: {str(error).splitlines()[0]}") from None


def parse_overrides(overrides: list[str]) -> list[Override]:
    """Words of a command line in Hydra's grammar.

    Raises:
        UserError: one of them cannot be read, or varies nothing.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        parsed = parser.parse_overrides(overrides)
    except OverrideParseException as error:
        raise UserError(
            f"'{error.override}' cannot be read; write key=value, like training.epochs=5, and a value with brackets or colons "
            """in quotes, like 'dataset.splits.test="train[80%:]"'."""
        ) from None
    for override in parsed:
        if override.is_sweep_override():
            search_space.check(override)
    return parsed


def plain(config: Any, *, resolve: bool = True, throw_on_missing: bool = False) -> dict[str, Any]:
    """A section of Hydra's as mappings, lists and values."""
    found = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=throw_on_missing)
    if not isinstance(found, dict):
        raise TypeError(f"{config!r} is no section.")
    return {str(key): value for key, value in found.items()}


def options(group: str) -> list[str]:
    """What conf/<group> offers, sorted: its files, without those that are only there to be inherited from."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not hydra_patches.is_abstract(path.stem))


def recipes() -> set[str]:
    """The functions that conf/model names."""
    files = [yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8")) for name in options("model")]
    return {file["model"]["_target_"] for file in files if file and "_target_" in file.get("model", {})}


def dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        UserError: there is none.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Dataset.model_validate(plain(compose_config("config", [f"dataset={name}"]))["dataset"])


def tasks_of_datasets() -> dict[str, list[str]]:
    """{name: tasks} of every data set that can be chosen."""
    names = GlobalHydra.instance().config_loader().get_group_options("dataset")
    return {name: hydra_patches.tasks(name) for name in names}


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    known = sorted(error.options or [])
    if not known:
        return str(error).splitlines()[0]
    near = [f"{group}={word}" for word in similar(option, known)]
    return f"There is no {group}={option}; {did_you_mean(near)}known: {', '.join(known)}."


def _unknown_key(message: str, name: str, overrides: list[str]) -> str:
    """Hydra's own advice for an unknown key is `+key`, which hides a typo; answer with the key that was meant."""
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if f"'{key}'" in message:
            break
    else:
        return message.splitlines()[0]
    chosen = [other for other in overrides if other.partition("=")[0] in groups]
    try:
        composed = dict(leaves(plain(compose(name, chosen), resolve=False)))
        defaults = [f"dataset.{key}"] if composed.get(f"training.{key}") == f"${{dataset.{key}}}" else []
        known = [each for each in composed if each not in defaults]  # of epochs, training.epochs is what is meant
    except HydraException:
        known = []
    new = renamed.answer(key, override.partition("=")[2])
    if new and (key.startswith("hydra.") or renamed.RENAMED[key] in known):
        return new
    near = similar(key, known + groups)
    return f"There is no setting '{key}'; {did_you_mean(near)}see all with: python -m src.run --cfg job"
