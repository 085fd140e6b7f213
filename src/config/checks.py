"""From a composed configuration to checked settings, or to one sentence (`UserError`) that says what is wrong with it."""

import contextlib
from collections.abc import Sequence
from typing import Any

import pydantic
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config import signature
from src.config.compose import CONF, compose_config, plain, tasks_of_datasets
from src.config.messages import sentence
from src.config.schema import KINDS, TASKS, Generated, Model, Settings
from src.errors import UserError


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
        raise UserError(sentence(error.errors()[0], section, raw)) from None
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
        raw = plain(compose_config("config", overrides))
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
        fitting = [name for name, tasks in tasks_of_datasets().items() if learned(tasks)]
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
