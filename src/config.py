"""From the command line to checked settings, or to one sentence (`UserError`) that says what is wrong with it.

Hydra composes the configuration and pydantic checks it. TensorFlow takes seconds to import, so nothing here may import it.
"""

import contextlib
import difflib
import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic_core import ErrorDetails

from src import hydra_patches, renamed, signature
from src.errors import UserError
from src.settings import COSTS, KINDS, TASKS, Dataset, Generated, Model, Search, Settings, leaves
from src.sweeping import space

hydra_patches.apply()

CONF = Path(__file__).resolve().parent.parent / "conf"
SEARCH = "hydra_plugins.src.sweeping.search.OptunaSweeper"
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
            first = [f"{space.name(override)}={space.values(override)[0]}" for override in swept]
            composed = _compose(name, fixed + first, return_hydra_config=True)
            launcher = composed.hydra.launcher._target_
            if composed.hydra.launcher.get("n_jobs") == 0:
                raise UserError("hydra.launcher.n_jobs=0 would run nothing; type a number of processes, or -1 for one a core.")
            if composed.hydra.sweeper._target_ == SEARCH:
                search = _search(composed)
            brought = [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
            arguments = _for_hydra(arguments, swept)
            swept = list({space.name(override): override for override in [*_parsed(brought), *swept]}.values())
        jobs = [checked(_compose(name, fixed + job)) for job in _jobs(swept, search)]
    if search:
        _objectives_are_known(search, jobs)
    return Asked(multirun, parsed.overrides, arguments, jobs, search, launcher)


def checked(config: DictConfig) -> Settings:
    """The settings that Hydra composed, with types and ranges checked.

    Raises:
        UserError: a value is of the wrong type or out of range, or values do not go together.
    """
    try:
        raw = plain(config, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"The configuration cannot be read: {str(error).splitlines()[0]}.") from None
    try:
        accepted = signature.read(Model.model_validate(raw["model"]).target)
        raw["task"] = _task(raw, accepted)
        settings = Settings.model_validate(raw)
        accepted.hyperparameters.model_validate(settings.model.hyperparameters)
    except pydantic.ValidationError as error:
        # Only the hyperparameters are checked against a class of another name.
        section = () if error.title == Settings.__name__ else ("model",)
        raise UserError(_sentence(error.errors()[0], section, raw)) from None
    _strategy_can_do(settings)
    _can_be_compressed(settings)
    if settings.model.pretrained and settings.task.name not in ("text_classification", "language_modeling"):
        raise UserError(
            f"model.pretrained works for text_classification and language_modeling, not for {settings.task.name}; type "
            "model.pretrained=null."
        )
    if isinstance(settings.task, Generated):
        judge(settings)
    return settings


def judge(chosen: Settings) -> Settings:
    """The run that judges what another one generates: `task.reference_classifier` with its defaults, on all the same data.

    Raises:
        UserError: there is no such recipe, or it is no classifier.
    """
    recipe = chosen.task_as(Generated).reference_classifier
    with contextlib.ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(str(CONF), version_base="1.3"))
        overrides = [f"model={recipe}", "dataset=digits", f"training.epochs={chosen.dataset.epochs}"]
        raw = plain(_compose("config", overrides))
    raw["dataset"] = chosen.dataset.model_copy(update={"limit": None}).model_dump()
    raw["task"] = {"name": "image_classification"}
    raw["tracking"] = {**chosen.tracking.model_dump(), "run_name": f"judge-{recipe}", "log_model": False}
    return checked(OmegaConf.create(raw))


def _task(raw: dict[str, Any], accepted: signature.Signature) -> Any:
    """The section of the one task that is learned: of those that the data set names, what the recipe is made for first.

    Raises:
        UserError: the recipe can learn none of them.
    """
    section = raw["task"]
    if not isinstance(section, dict) or "name" not in section:
        return section  # for pydantic to answer
    names = section["name"] if isinstance(section["name"], list) else [section["name"]]
    if not set(names) <= set(KINDS):
        return section

    def learned(names: Sequence[str]) -> list[str]:
        """Those that can be learned, the best first."""
        fitting = [name for name in names if KINDS[name][0] in accepted.inputs and KINDS[name][1] in accepted.outputs]
        return sorted(fitting, key=lambda name: accepted.outputs.index(KINDS[name][1]))

    if not learned(names):
        model, dataset = raw["model"]["name"], raw["dataset"]["name"]
        fitting = [name for name, tasks in _datasets().items() if learned(tasks)]
        raise UserError(
            f"model={model} cannot learn {' or '.join(names)}, which dataset={dataset} asks for; "
            f"it can learn from dataset={', '.join(fitting)}."
        )
    chosen = learned(names)[0]
    fields = {task.model_fields["name"].annotation.__args__[0]: set(task.model_fields) for task in TASKS}
    others = set().union(*fields.values()) - fields[chosen]  # settings of what else the data set could ask for
    return {key: value for key, value in section.items() if key not in others} | {"name": chosen}


def _strategy_can_do(settings: Settings) -> None:
    training, strategy = settings.training, settings.strategy
    if strategy.name == "mirrored":
        if training.jit_compile:
            raise UserError(
                "strategy=mirrored cannot run a step compiled by XLA; type training.jit_compile=false or strategy=single."
            )
        if training.gradient_accumulation > 1:
            raise UserError(
                "strategy=mirrored cannot accumulate gradients; type training.gradient_accumulation=1 or strategy=single."
            )
        check_share(training.batch_size, strategy.replicas or 1)
    if training.ema is not None and training.early_stopping is not None and not training.restore_best_weights:
        raise UserError(
            "With training.ema and training.early_stopping the averaged weights of the last epoch are not kept; "
            "type training.restore_best_weights=true."
        )


def _can_be_compressed(settings: Settings) -> None:
    compression = settings.compression
    asked = [name for name, wanted in (("teacher", compression.teacher), ("export", compression.export)) if wanted]
    if asked and settings.task.name != "image_classification":
        raise UserError(
            f"compression.{asked[0]} works for image classification, not for {settings.task.name}; type compression=none."
        )


def check_share(batch_size: int, replicas: int) -> None:
    """Raises a UserError unless `replicas` can share a batch evenly; an uneven share would change the loss."""
    if batch_size % replicas:
        fitting = [n for n in (batch_size // replicas * replicas, -(-batch_size // replicas) * replicas) if n]
        raise UserError(
            f"training.batch_size={batch_size} cannot be shared by {replicas} replicas; "
            f"type training.batch_size={' or '.join(map(str, fitting))}."
        )


# --- the other commands ---------------------------------------------------------------------------------------------


def pairs(arguments: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """{key: value} of the words key=value of a command line, of which `run=<id>` has to be one.

    Raises:
        UserError: a word is none, a key is not known, or `run` is missing.
    """
    said = {}
    for word in arguments:
        key, is_pair, value = word.partition("=")
        if not is_pair:
            raise UserError(f"'{word}' cannot be read; write key=value, like run=<id>.")
        if key not in known:
            raise UserError(f"There is no setting '{key}'; known: {', '.join(known)}.")
        said[key] = value
    if "run" not in said:
        raise UserError("The setting 'run' is missing; write run=<id>.")
    return said


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
        return Dataset.model_validate(plain(_compose("config", [f"dataset={name}"]))["dataset"])


def plain(config: Any, *, resolve: bool = True, throw_on_missing: bool = False) -> dict[str, Any]:
    """A section of Hydra's as mappings, lists and values."""
    found = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=throw_on_missing)
    if not isinstance(found, dict):
        raise TypeError(f"{config!r} is no section.")
    return {str(key): value for key, value in found.items()}


# --- composing ------------------------------------------------------------------------------------------------------


def _overrides(overrides: list[str], multirun: bool) -> tuple[list[Override], list[str]]:
    """Those that name several values, and the others."""
    parsed = _parsed(overrides)
    swept = [override for override in parsed if override.is_sweep_override()]
    if swept and not multirun:
        first = swept[0].input_line
        raise UserError(f"{first} names several values; add -m to run them one after the other.")
    return swept, [space.typed(override) for override in parsed if not override.is_sweep_override()]


def _for_hydra(arguments: Sequence[str], swept: Sequence[Override]) -> list[str]:
    """A command line whose fixed settings are swept over their one value, if groups are swept.

    Hydra applies what is fixed to the configuration without the swept groups too, in which model.units need not be there.
    """
    groups = GlobalHydra.instance().config_loader().list_groups("")
    if not any(space.name(override) in groups for override in swept):
        return list(arguments)
    taken = {override.input_line for override in swept}

    def one_of_one(word: str) -> str:
        key, is_override, value = word.partition("=")
        setting = is_override and key[0].isalpha() and "." in key and not key.startswith("hydra.")
        return f"{key}=choice({value})" if setting and word not in taken else word

    return [one_of_one(word) for word in arguments]


def _parsed(overrides: list[str]) -> list[Override]:
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
            space.check(override)
    return parsed


def _jobs(swept: Sequence[Override], search: Search | None) -> Iterator[list[str]]:
    """What each job sets besides what all of them do."""
    for override in swept:
        if space.is_interval(override) and (search is None or search.sampler == "grid"):
            instead = "list values" if search else "add hydra/sweeper=optuna, which searches it, or list values"
            raise UserError(f"{override.input_line} holds more values than can be tried; {instead}, like {_like(override)}.")
    choices = [[f"{space.name(override)}={value}" for value in space.values(override)] for override in swept]
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
    return f"{space.name(override)}={','.join(space.values(override))}"


def _search(composed: DictConfig) -> Search:
    """How a search is to be done.

    Raises:
        UserError: a setting of it is wrong.
    """
    hydra = {name: plain(composed.hydra[name]) for name in ("sweeper", "launcher")}
    try:
        return Search.of(hydra, composed.training.monitor)
    except pydantic.ValidationError as error:
        raise UserError(_sentence(error.errors()[0], ("hydra", "sweeper"), {"hydra": hydra})) from None


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


def _compose(name: str, overrides: list[str], **how: bool) -> DictConfig:
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


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    known = sorted(error.options or [])
    if not known:
        return str(error).splitlines()[0]
    near = [f"{group}={word}" for word in _near(option, known)]
    return f"There is no {group}={option}; {_did_you_mean(near)}known: {', '.join(known)}."


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
    near = _near(key, known + groups)
    return f"There is no setting '{key}'; {_did_you_mean(near)}see all with: python -m src.run --cfg job"


def _near(word: str, known: Sequence[str]) -> list[str]:
    """The known words that `word` most likely stands for, best first: same last part, then alike."""
    last = word.rpartition(".")[2]
    same = [key for key in known if key.rpartition(".")[2] == last]
    by_last_part: dict[str, str] = {}
    for key in known:
        by_last_part.setdefault(key.rpartition(".")[2], key)
    alike = difflib.get_close_matches(word, known, n=2, cutoff=0.85)
    alike += [by_last_part[part] for part in difflib.get_close_matches(last, by_last_part, n=2, cutoff=0.75)]
    return list(dict.fromkeys(same + alike))[:3]


def _did_you_mean(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}? " if near else ""


def _sentence(error: ErrorDetails, section: tuple[str, ...], raw: dict[str, Any]) -> str:
    """One of pydantic's errors as a sentence that names the setting as it is typed."""
    place: list[str | int] = []
    here: Any = raw
    for part in section + error["loc"]:
        if isinstance(here, dict) and part not in here and here.get("name") == part:
            continue  # the chosen member of a union ("adam"), which is no part of a setting's name
        place.append(part)
        here = here[part] if isinstance(here, dict) and part in here else None
    key = ".".join(map(str, place))
    for index in [part for part in place if isinstance(part, int)]:
        key = key.replace(f".{index}", f"[{index}]")
    match error["type"]:
        case "extra_forbidden":
            if new := renamed.answer(key, renamed.typed(error["input"])):
                return new
            siblings = _siblings(raw, place, section)
            return f"There is no setting '{key}'; {_did_you_mean(siblings)}see all with: python -m src.run --cfg job"
        case "missing":
            return f"The setting '{key}' is missing."
        case "union_tag_invalid":
            return f"{key}.name must be {error['ctx']['expected_tags']}, not '{error['ctx']['tag']}'."
        case "value_error":
            return f"{error['ctx']['error']}."
        case _:
            return must_be(key, error)


def must_be(key: str, error: ErrorDetails) -> str:
    """What pydantic says of a value that is none, of the setting `key`."""
    wanted = error["msg"].removeprefix("Input should be ")
    return f"{key} must be {wanted}, not {error['input']!r}."


def _siblings(raw: dict[str, Any], place: list[Any], section: tuple[str, ...]) -> list[str]:
    *parents, last = place
    here = raw
    for part in parents:
        here = here[part]
    return [".".join(map(str, [*parents, near])) for near in _near(str(last), [k for k in here if k != last])]


def _datasets() -> dict[str, list[str]]:
    """{name: tasks} of every data set that can be chosen."""
    names = GlobalHydra.instance().config_loader().get_group_options("dataset")
    return {name: hydra_patches.tasks(name) for name in names}
