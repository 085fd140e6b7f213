"""From a command line of `src.run` to the checked settings of each of its jobs.

Everything that it asks for is checked before the first job starts.
"""

import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pydantic
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from src.config import search_space
from src.config.checks import checked
from src.config.compose import CONF, compose_config, parse_overrides, plain
from src.config.messages import sentence
from src.config.schema import COSTS, Search, Settings
from src.errors import UserError

COMMAND = "SWEEP_COMMAND"  # variable of the environment: what was typed for the sweep that a process runs a job of
SEARCH = "hydra_plugins.src.sweeps.optuna_sweeper.OptunaSweeper"
ONE_BY_ONE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
EXTRAS = {  # launchers that not everyone wants: the package that each needs, and the file that installs it
    "ray": ("ray", "requirements-ray.txt"),
    "submitit_slurm": ("submitit", "requirements-slurm.txt"),
    "submitit_local": ("submitit", "requirements-slurm.txt"),
}


class Asked(NamedTuple):
    """What a command line asks for.

    Attributes:
        multirun: whether it is a sweep.
        words: its overrides.
        arguments: the command line as Hydra takes it.
        jobs: the settings of each job; none, if it asks Hydra for something else. A search does not know its jobs; of it these
            are the ends of what is varied, each by itself.
        search: how the jobs are chosen, if they are not simply all combinations.
        launcher: of Hydra's, which runs them: its class.
    """

    multirun: bool
    words: Sequence[str]
    arguments: Sequence[str]
    jobs: Sequence[Settings]
    search: Search | None = None
    launcher: str | None = None


def check(arguments: Sequence[str]) -> Asked:
    """Checks every job that a command line asks for, before the first one starts.

    Raises:
        UserError: a job could not run as it is written.
    """
    parsed = get_args_parser().parse_args(list(arguments))
    if parsed.help or parsed.hydra_help or parsed.shell_completion or parsed.info:
        return Asked(False, parsed.overrides, arguments, [])
    directory = Path(parsed.config_path).resolve() if parsed.config_path else CONF
    overrides = list(parsed.overrides)
    if parsed.config_dir:
        overrides.append(f"hydra.searchpath=[file://{Path(parsed.config_dir).resolve()}]")
    multirun, name = parsed.multirun, parsed.config_name or "config"
    if multirun and parsed.cfg:
        raise UserError("--cfg shows the settings of one run; leave out -m and what is varied.")
    with initialize_config_dir(str(directory), version_base="1.3"):
        swept, fixed = _overrides(overrides, parsed.multirun)
        search, launcher = None, None
        if multirun:
            _launcher_is_there(fixed)
            first = [f"{search_space.name(override)}={search_space.values(override)[0]}" for override in swept]
            composed = compose_config(name, fixed + first, return_hydra_config=True)
            launcher = composed.hydra.launcher._target_
            if composed.hydra.launcher.get("n_jobs") == 0:
                raise UserError("hydra.launcher.n_jobs=0 would run nothing; type a number of processes, or -1 for one a core.")
            if composed.hydra.sweeper._target_ == SEARCH:
                search = _search(composed)
            brought = [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
            arguments = _for_hydra(arguments, swept)
            swept = list({search_space.name(override): override for override in [*parse_overrides(brought), *swept]}.values())
        jobs = [checked(compose_config(name, fixed + job)) for job in _jobs(swept, search)]
    if search:
        _objectives_are_known(search, jobs)
    return Asked(multirun, parsed.overrides, arguments, jobs, search, launcher)


def _overrides(overrides: list[str], multirun: bool) -> tuple[list[Override], list[str]]:
    """Those that name several values, and the others."""
    parsed = parse_overrides(overrides)
    swept = [override for override in parsed if override.is_sweep_override()]
    if swept and not multirun:
        first = swept[0].input_line
        raise UserError(f"{first} names several values; add -m to run them one after the other.")
    return swept, [search_space.typed(override) for override in parsed if not override.is_sweep_override()]


def _for_hydra(arguments: Sequence[str], swept: Sequence[Override]) -> list[str]:
    """A command line whose fixed settings are swept over their one value, if groups are swept.

    Hydra applies what is fixed to the configuration without the swept groups too, in which model.units need not be there.
    """
    groups = GlobalHydra.instance().config_loader().list_groups("")
    if not any(search_space.name(override) in groups for override in swept):
        return list(arguments)
    taken = {override.input_line for override in swept}

    def one_of_one(word: str) -> str:
        key, is_override, value = word.partition("=")
        setting = is_override and key[0].isalpha() and "." in key and not key.startswith("hydra.")
        return f"{key}=choice({value})" if setting and word not in taken else word

    return [one_of_one(word) for word in arguments]


def _jobs(swept: Sequence[Override], search: Search | None) -> Iterator[list[str]]:
    """What each job sets besides what all of them do."""
    for override in swept:
        if search_space.is_interval(override) and (search is None or search.sampler == "grid"):
            instead = "list values" if search else "add hydra/sweeper=optuna, which searches it, or list values"
            raise UserError(f"{override.input_line} holds more values than can be tried; {instead}, like {_like(override)}.")
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
    for place, values in enumerate(choices):
        for value in values[1:]:
            yield [other[0] if at != place else value for at, other in enumerate(choices)]


def _like(override: Override) -> str:
    return f"{search_space.name(override)}={','.join(search_space.values(override))}"


def _search(composed: DictConfig) -> Search:
    """How a search is to be done.

    Raises:
        UserError: a setting of it is wrong.
    """
    hydra = {name: plain(composed.hydra[name]) for name in ("sweeper", "launcher")}
    try:
        return Search.of(hydra, composed.training.monitor)
    except pydantic.ValidationError as error:
        raise UserError(sentence(error.errors()[0], ("hydra", "sweeper"), {"hydra": hydra})) from None


def _objectives_are_known(search: Search, jobs: Sequence[Settings]) -> None:
    for name in search.objectives:
        for monitor in {job.training.monitor for job in jobs}:
            if name not in (monitor, *COSTS):
                raise UserError(
                    f"hydra.sweeper.objectives cannot have {name}; known: {', '.join((monitor, *COSTS))}. To improve another "
                    f"metric of the validation part type training.monitor={name}."
                )


def _launcher_is_there(overrides: Sequence[str]) -> None:
    for launcher, (package, file) in EXTRAS.items():
        if f"hydra/launcher={launcher}" in overrides and not importlib.util.find_spec(package):
            raise UserError(f"hydra/launcher={launcher} needs the package {package}; type pip install -r {file}.")
