"""Private parts of Hydra and OmegaConf that this project uses or replaces: each with its reason, all in this one place.

Composing a configuration takes 0.15 s or more as these libraries do it, and all jobs of a command line are composed before the
first one starts. `apply` makes that about three times faster and changes no result. It also hides the abstract files of a
group, which others inherit from.

Tests hold the reasons against the installed versions: tests/src/config/test_hydra_patches.py.
"""

import argparse
import copy
import functools
import os
from collections.abc import Sequence
from typing import Any

import omegaconf._utils
import omegaconf.base
import omegaconf.grammar_parser
import yaml
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import get_args_parser
from hydra.core.default_element import ConfigDefault, InputDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.plugin import Plugin
from omegaconf import DictConfig, OmegaConf


@functools.cache
def apply() -> None:
    """Patch this process, once."""
    _read_yaml_in_c()
    _load_each_file_once()
    _parse_each_interpolation_once()
    _share_the_sources()
    _interpolate_defaults_on_demand()
    _hide_abstract_files()


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line into overrides and flags, as Hydra does; the public `hydra.main` also runs it."""
    return get_args_parser().parse_args(list(arguments))


def register_plugin(plugin: type[Plugin]) -> None:
    """Make a sweeper or launcher of this project available as `hydra_plugins.<module>.<class>`.

    The public `Plugins.register` registers a class under its own name, but Hydra instantiates only classes whose name begins
    with hydra_plugins.
    """
    Plugins.instance().class_name_to_class[f"hydra_plugins.{plugin.__module__}.{plugin.__name__}"] = plugin


def is_abstract(option: str) -> bool:
    """Whether a file of a group is only there to be inherited from: its name begins with an underscore."""
    return option.startswith("_")


def tasks(dataset: str) -> list[str]:
    """The tasks that a data set names, read from its file or those that it inherits from, without composing a run."""
    repository: ConfigRepository = GlobalHydra.instance().config_loader().repository  # type: ignore[attr-defined]
    loaded = repository.load_config(f"dataset/{dataset}")
    if loaded is None:
        raise LookupError(f"There is no file of a data set '{dataset}'.")
    names = OmegaConf.select(loaded.config, "task.name")
    if names is not None:
        return [names] if isinstance(names, str) else list(names)
    parents = [
        default for default in loaded.defaults_list or [] if isinstance(default, ConfigDefault) and not default.is_self()
    ]
    return next((inherited for parent in reversed(parents) if (inherited := tasks(str(parent.path)))), [])


def _read_yaml_in_c() -> None:
    """OmegaConf reads YAML with PyYAML's parser in Python; libyaml's is ten times faster, where PyYAML was built with it."""
    if not yaml.__with_libyaml__:
        return
    from yaml._yaml import CParser

    in_python = omegaconf._utils.get_yaml_loader()

    class Loader(CParser, in_python):  # type: ignore[misc, valid-type]  # what is parsed in C, in_python makes objects of
        def __init__(self, stream: Any):
            CParser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    omegaconf._utils.get_yaml_loader = lambda: Loader


def _load_each_file_once() -> None:
    """Hydra loads all files anew for each job of a sweep. A file is loaded again here only if it has changed."""
    load, embed = ConfigRepository.load_config, ConfigLoaderImpl._embed_result_config
    loaded: dict[tuple[Any, ...], ConfigResult | None] = {}

    def load_once(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() not in ("file", "pkg"):  # a structured config is made anew in no time
            return load(self, config_path)
        key: tuple[Any, ...] = (source.scheme(), source.path, config_path)
        if source.scheme() == "file":
            status = os.stat(os.path.join(source.path, source._normalize_file_name(config_path)))
            key += (status.st_mtime_ns, status.st_size)
        if key not in loaded:
            loaded[key] = load(self, config_path)
        return loaded[key]

    def embed_copy(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        embedded = embed(ret, package_override)
        if embedded is ret:  # else it is a copy already; merging moves the nodes of what it merges
            embedded = copy.copy(ret)
            embedded.config = copy.deepcopy(ret.config)
        return embedded

    ConfigRepository.load_config = load_once  # type: ignore[method-assign]
    ConfigLoaderImpl._embed_result_config = staticmethod(embed_copy)  # type: ignore[method-assign]


def _parse_each_interpolation_once() -> None:
    """OmegaConf parses ${…} with a grammar, at every access; the tree that comes out is only read."""
    parse = functools.lru_cache(maxsize=1024)(omegaconf.grammar_parser.parse)
    for module in (omegaconf._utils, omegaconf.base):
        module.parse = parse  # type: ignore[attr-defined]


def _share_the_sources() -> None:
    """Hydra copies its list of sources for each composition, which may get a list of its own, and with it the store of all
    structured configs, which nothing changes.
    """
    ConfigRepository.__deepcopy__ = lambda self, memo: copy.copy(self)  # type: ignore[attr-defined]


def _interpolate_defaults_on_demand() -> None:
    """Hydra collects what a defaults list could interpolate (`- dataset: ${model}`), for every file; few have such an entry."""
    collect = defaults_list._create_interpolation_map

    def collect_if_needed(overrides: Any, defaults: list[InputDefault], self_added: bool) -> DictConfig:
        if any(default.is_interpolation() for default in defaults):
            return collect(overrides, defaults, self_added)
        return DictConfig({})

    defaults_list._create_interpolation_map = collect_if_needed  # type: ignore[assignment]


def _hide_abstract_files() -> None:
    """Completion, --help, glob(*) and messages list every file of a group."""
    list_all = ConfigRepository.get_group_options

    def list_options(
        self: ConfigRepository, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG
    ) -> list[str]:
        return [option for option in list_all(self, group_name, results_filter) if not is_abstract(option)]

    ConfigRepository.get_group_options = list_options  # type: ignore[method-assign]
