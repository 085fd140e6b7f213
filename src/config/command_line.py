"""Parsing of a command line of `src.run` into the validated settings of each of its jobs, before the first one starts."""

import importlib.util
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pydantic
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from src.config import hydra_patches, search_space
from src.config.checks import validate
from src.config.compose import CONF, compose_config, config_dir, parse_overrides, search_path, to_dict
from src.config.messages import describe
from src.config.schema import COSTS, MultiWorker, Search, Settings
from src.errors import UserError

COMMAND = "SWEEP_COMMAND"  # environment variable: the command line of the sweep whose job this process runs
LAUNCHER, SWEEPER = "hydra/launcher", "hydra/sweeper"  # config groups
BASIC_LAUNCHER = "basic"  # runs one job after the other in this process
OPTIONAL_LAUNCHERS = {  # launcher: (package that it needs, requirements file that installs it)
    "ray": ("ray", "requirements-ray.txt"),
    "submitit_slurm": ("submitit", "requirements-slurm.txt"),
    "submitit_local": ("submitit", "requirements-slurm.txt"),
}


class ParsedCommand(NamedTuple):
    """A parsed command line.

    Attributes:
        multirun: whether it is a sweep.
        overrides: as typed.
        arguments: the command line for Hydra.
        jobs: settings of each job; empty if Hydra answers the command line itself (--help, --info, …). The jobs of a search are
            not known in advance: these are the extremes of its ranges, one range at a time.
        search: settings of the search; None for a sweep over all combinations.
        launcher: the option of hydra/launcher; None if it is no sweep.
        config_dir: the folder of another project that adds options to those of conf/; None if there is none.
    """

    multirun: bool
    overrides: Sequence[str]
    arguments: Sequence[str]
    jobs: Sequence[Settings]
    search: Search | None = None
    launcher: str | None = None
    config_dir: Path | None = None


def parse(arguments: Sequence[str]) -> ParsedCommand:
    """Parse a command line, and validate the settings of all its jobs.

    Raises:
        UserError: a setting of a job is invalid.
    """
    parsed = hydra_patches.parse_arguments(arguments)
    added = parsed.config_dir and Path(parsed.config_dir).resolve()
    if not added and (added := config_dir()):
        arguments = ["--config-dir", str(added), *arguments]
    if parsed.help or parsed.hydra_help or parsed.shell_completion or parsed.info:
        return ParsedCommand(False, parsed.overrides, arguments, [])
    directory = Path(parsed.config_path).resolve() if parsed.config_path else CONF
    overrides = list(parsed.overrides)
    overrides += search_path(added)
    multirun, name = parsed.multirun, parsed.config_name or "config"
    if multirun and parsed.cfg:
        raise UserError("--cfg shows the settings of one run; leave out -m and what is varied.")
    with initialize_config_dir(str(directory), version_base="1.3"):
        swept, fixed = _overrides(overrides, parsed.multirun)
        search, launcher = None, None
        if multirun:
            _check_launcher(fixed)
            first = [f"{search_space.name(override)}={search_space.values(override)[0]}" for override in swept]
            composed = compose_config(name, fixed + first, return_hydra_config=True)
            choices = composed.hydra.runtime.choices
            launcher = choices[LAUNCHER]
            if composed.hydra.launcher.get("n_jobs") == 0:
                raise UserError("hydra.launcher.n_jobs=0 would run nothing; type a number of processes, or -1 for one a core.")
            if choices[SWEEPER] == "optuna":
                search = _search(composed)
            params = [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
            arguments = _for_hydra(arguments, swept)
            swept = list({search_space.name(override): override for override in [*parse_overrides(params), *swept]}.values())
        jobs = [validate(compose_config(name, fixed + job)) for job in _jobs(swept, search)]
        if multirun:
            _check_workers(composed.hydra.launcher, jobs)
    if search:
        _check_objectives(search, jobs)
        if search.sampler == "grid":
            points = math.prod(len(search_space.values(override)) for override in swept)
            search = search.model_copy(update={"n_trials": min(search.n_trials, points)})
    return ParsedCommand(multirun, parsed.overrides, arguments, jobs, search, launcher, added)


def _overrides(overrides: list[str], multirun: bool) -> tuple[list[Override], list[str]]:
    """The sweep overrides, and the others."""
    parsed = parse_overrides(overrides)
    swept = [override for override in parsed if override.is_sweep_override()]
    if swept and not multirun:
        first = swept[0].input_line
        raise UserError(f"{first} names several values; add -m to run them one after the other.")
    return swept, [search_space.as_typed(override) for override in parsed if not override.is_sweep_override()]


def _for_hydra(arguments: Sequence[str], swept: Sequence[Override]) -> list[str]:
    """The command line with fixed settings written as sweeps over one value, if a group is swept.

    Hydra applies fixed overrides to the configuration without the swept group, too, where model.units need not exist.
    """
    groups = GlobalHydra.instance().config_loader().list_groups("")
    if not any(search_space.name(override) in groups for override in swept):
        return list(arguments)
    sweeps = {override.input_line for override in swept}

    def as_single_choice(word: str) -> str:
        key, is_override, value = word.partition("=")
        setting = is_override and key[0].isalpha() and "." in key and not key.startswith("hydra.")
        return f"{key}=choice({value})" if setting and word not in sweeps else word

    return [as_single_choice(word) for word in arguments]


def _jobs(swept: Sequence[Override], search: Search | None) -> Iterator[list[str]]:
    """The overrides of each job besides the fixed ones."""
    for override in swept:
        if search_space.is_interval(override) and (search is None or search.sampler == "grid"):
            instead = "list values" if search else "add hydra/sweeper=optuna, which searches it, or list values"
            raise UserError(f"{override.input_line} holds more values than can be tried; {instead}, like {_example(override)}.")
    choices = [[f"{search_space.name(override)}={value}" for value in search_space.values(override)] for override in swept]
    if search is None:
        yield from map(list, itertools.product(*choices))
        return
    if not swept:
        raise UserError(
            "hydra/sweeper=optuna has nothing to vary; type sweep=<recipe>, or a range like "
            "'optimizer.learning_rate=tag(log,interval(1e-4,1e-1))'."
        )
    yield [values[0] for values in choices]
    for varied, values in enumerate(choices):
        for value in values[1:]:
            yield [value if index == varied else others[0] for index, others in enumerate(choices)]


def _example(override: Override) -> str:
    return f"{search_space.name(override)}={','.join(search_space.values(override))}"


def _search(composed: DictConfig) -> Search:
    """The settings of a search.

    Raises:
        UserError: one of them is invalid.
    """
    hydra = {name: to_dict(composed.hydra[name]) for name in ("sweeper", "launcher")}
    try:
        return Search.from_hydra(hydra, composed.training.monitor)
    except pydantic.ValidationError as error:
        raise UserError(describe(error.errors(), ("hydra", "sweeper"), {"hydra": hydra})) from None


def _check_objectives(search: Search, jobs: Sequence[Settings]) -> None:
    for name in search.objectives:
        for monitor in {job.training.monitor for job in jobs}:
            if name not in (monitor, *COSTS):
                raise UserError(
                    f"hydra.sweeper.objectives cannot have {name}; available: {', '.join((monitor, *COSTS))}. To improve "
                    f"another metric of the validation set type training.monitor={name}."
                )


def _check_workers(launcher: DictConfig, jobs: Sequence[Settings]) -> None:
    """Check that each job has several workers where the launcher starts several processes for it, and only there."""
    numbers = {name: launcher.get(name, 1) for name in ("nodes", "tasks_per_node", "workers")}
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise UserError(f"hydra.launcher.{name}={number} would run nothing; type 1 or more.")
    processes = math.prod(numbers.values())
    for strategy in (job.strategy for job in jobs):
        if not isinstance(strategy, MultiWorker):
            if processes > 1:
                raise UserError(
                    f"hydra.launcher starts {processes} processes for each job, which train one model together only with "
                    "strategy=multi_worker; type that, too, or let the launcher start one."
                )
        elif strategy.workers or strategy.local:
            raise UserError("In a sweep the launcher starts the workers of each job; leave out strategy.workers and .local.")
        elif processes < 2:
            raise UserError(
                "In a sweep, strategy=multi_worker needs a launcher that starts several processes for each job; leave out -m, "
                "or type hydra/launcher=submitit_slurm hydra.launcher.nodes=2 or hydra/launcher=ray hydra.launcher.workers=2."
            )


def _check_launcher(overrides: Sequence[str]) -> None:
    for launcher, (package, file) in OPTIONAL_LAUNCHERS.items():
        if f"hydra/launcher={launcher}" in overrides and not importlib.util.find_spec(package):
            raise UserError(f"hydra/launcher={launcher} needs the package {package}; type pip install -r {file}.")
