"""From the command line to checked settings, or to one sentence (`UserError`) that says what is wrong with it.

Hydra composes the configuration and pydantic checks it. TensorFlow takes seconds to import, so nothing here may import it.
"""

import contextlib
import difflib
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
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src import signature
from src.errors import UserError
from src.settings import KINDS, TASKS, Dataset, Generated, Model, Settings, leaves

CONF = Path(__file__).resolve().parent.parent / "conf"


class Asked(NamedTuple):
    """What a command line asks for.

    Attributes:
        multirun: whether it is a sweep.
        words: its overrides.
        jobs: the settings of each job; none, if it asks Hydra for something else.
    """

    multirun: bool
    words: Sequence[str]
    jobs: Sequence[Settings]


def check(arguments: Sequence[str]) -> Asked:
    """Checks every job that a command line asks for, before the first one starts.

    Raises:
        UserError: a job could not run as it is written.
    """
    parsed = get_args_parser().parse_args(list(arguments))
    if parsed.help or parsed.hydra_help or parsed.shell_completion or parsed.info:
        return Asked(False, parsed.overrides, [])
    directory = Path(parsed.config_path).resolve() if parsed.config_path else CONF
    overrides = list(parsed.overrides)
    if parsed.config_dir:
        overrides.append(f"hydra.searchpath=[file://{Path(parsed.config_dir).resolve()}]")
    with initialize_config_dir(str(directory), version_base="1.3"):
        jobs = [checked(_compose(parsed.config_name or "config", job)) for job in _jobs(overrides, parsed.multirun)]
    return Asked(parsed.multirun and not parsed.cfg, parsed.overrides, jobs)


def checked(config: DictConfig) -> Settings:
    """The settings that Hydra composed, with types and ranges checked.

    Raises:
        UserError: a value is of the wrong type or out of range, or values do not go together.
    """
    try:
        raw = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
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
    """The run that judges what another one generates: the recipe `task.judge`, as it is by default, on all the same data.

    Raises:
        UserError: there is no such recipe, or it is no classifier.
    """
    with contextlib.ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(str(CONF), version_base="1.3"))
        overrides = [f"model={chosen.task.judge}", "dataset=digits", f"training.epochs={chosen.dataset.passes}"]
        raw = OmegaConf.to_container(_compose("config", overrides), resolve=True)
    raw["dataset"] = chosen.dataset.model_copy(update={"limit": None}).model_dump()
    raw["task"] = {"name": "image_classification"}
    raw["tracking"] = {**chosen.tracking.model_dump(), "run_name": f"judge-{chosen.task.judge}", "log_model": False}
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
    if training.ema is not None and training.early_stopping is not None and training.keep == "last":
        raise UserError(
            "With training.ema and training.early_stopping the averaged weights of the last epoch are not kept; "
            "type training.keep=best."
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


def recipes() -> set[str]:
    """The functions that conf/model names."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (CONF / "model").glob("*.yaml")]
    return {file["model"]["_target_"] for file in files if file and "_target_" in file.get("model", {})}


def dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        UserError: there is none.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Dataset.model_validate(OmegaConf.to_container(_compose("config", [f"dataset={name}"]), resolve=True)["dataset"])


# --- composing ------------------------------------------------------------------------------------------------------


def _jobs(overrides: list[str], multirun: bool) -> Iterator[list[str]]:
    """The overrides of each job: one, or as many as a sweep over comma-separated values makes."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        parsed = parser.parse_overrides(overrides)
    except OverrideParseException as error:
        raise UserError(
            f"'{error.override}' cannot be read; write key=value, like training.epochs=5, and a value with brackets or colons "
            """in quotes, like 'dataset.splits.test="train[80%:]"'."""
        ) from None
    swept = [override for override in parsed if override.is_sweep_override()]
    if swept and not multirun:
        first = swept[0].input_line
        raise UserError(f"{first} names several values; add -m to run them one after the other.")
    fixed = [override.input_line for override in parsed if not override.is_sweep_override()]
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()] for o in swept if o.is_discrete_sweep()
    ]
    for values in itertools.product(*choices):
        yield fixed + list(values)


def _compose(name: str, overrides: list[str]) -> DictConfig:
    try:
        return compose(name, overrides)
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
        known = [key for key, _ in leaves(OmegaConf.to_container(compose(name, chosen), resolve=False))]
    except HydraException:
        known = []
    near = _near(key, known + groups)
    return f"There is no setting '{key}'; {_did_you_mean(near)}see all with: python -m src.run --cfg job"


def _near(word: str, known: Sequence[str]) -> list[str]:
    """The known words that `word` most likely stands for, best first: same last part, then alike."""
    last = word.rpartition(".")[2]
    same = [key for key in known if key.rpartition(".")[2] == last]
    by_last_part = {}
    for key in known:
        by_last_part.setdefault(key.rpartition(".")[2], key)
    alike = difflib.get_close_matches(word, known, n=2, cutoff=0.85)
    alike += [by_last_part[part] for part in difflib.get_close_matches(last, by_last_part, n=2, cutoff=0.75)]
    return list(dict.fromkeys(same + alike))[:3]


def _did_you_mean(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}? " if near else ""


def _sentence(error: dict[str, Any], section: tuple[str, ...], raw: dict[str, Any]) -> str:
    """One of pydantic's errors as a sentence that names the setting as it is typed."""
    place, here = [], raw
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


def must_be(key: str, error: dict[str, Any]) -> str:
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
    tasks = {name: compose(f"dataset/{name}").task.name for name in names}
    return {name: [found] if isinstance(found, str) else list(found) for name, found in tasks.items()}
