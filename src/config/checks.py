"""Validation of a composed configuration: types and ranges, and settings that exclude each other."""

import contextlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import pydantic
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config import renamed, signature
from src.config.compose import CONF, compose_config, tasks_of_datasets, to_dict
from src.config.files import check_path
from src.config.messages import describe
from src.config.schema import Mirrored, Model, MultiWorker, Settings
from src.config.tasks import TASKS, GenerationSettings
from src.errors import UserError

COMPRESSIBLE = ("image_classification", "image_multilabel_classification")  # tasks with distillation and export


def validate(config: DictConfig) -> Settings:
    """Validate what Hydra composed.

    Raises:
        UserError: a value is of the wrong type or out of range, or values do not go together.
    """
    try:
        raw = to_dict(config, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"The configuration cannot be read: {str(error).splitlines()[0]}.") from None
    try:
        check_path(raw["dataset"])
        accepted = signature.read(Model.model_validate(raw["model"]).target)
        raw["task"] = _task(raw, accepted)
        settings = Settings.model_validate(raw)
        accepted.hyperparameters.model_validate(settings.model.hyperparameters)
    except pydantic.ValidationError as error:
        # Only the hyperparameters are checked against a class of another name.
        section = () if error.title == Settings.__name__ else ("model",)
        raise UserError(describe(error.errors(), section, raw)) from None
    if message := renamed.describe_renamed_metric(renamed.MONITOR, settings.training.monitor):
        raise UserError(message)
    _check_strategy(settings)
    _check_compression(settings)
    fine_tuned = ("text_classification", "text_multilabel_classification", "language_modeling")
    if settings.model.pretrained and settings.task.name not in fine_tuned:
        raise UserError(
            f"model.pretrained works for {', '.join(fine_tuned[:-1])} and {fine_tuned[-1]}, not for {settings.task.name}; type "
            "model.pretrained=null."
        )
    if isinstance(settings.task, GenerationSettings):
        reference_classifier_settings(settings)
    return settings


def reference_classifier_settings(settings: Settings) -> Settings:
    """The settings of the run that trains `task.reference_classifier`, with its defaults, on the whole data set.

    Raises:
        UserError: there is no such recipe, or it does not classify images.
    """
    recipe = settings.task_as(GenerationSettings).reference_classifier
    with contextlib.ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(str(CONF), version_base="1.3"))
        overrides = [f"model={recipe}", "dataset=digits", f"training.epochs={settings.dataset.epochs}"]
        raw = to_dict(compose_config("config", overrides))
    raw["dataset"] = settings.dataset.model_copy(update={"limit": None}).model_dump()
    raw["task"] = {"name": "image_classification"}
    raw["tracking"] = {
        **settings.tracking.model_dump(by_alias=True),
        "run_name": f"reference-classifier-{recipe}-{settings.dataset.name}",
        "log_model": False,
        "log_figures": False,
        "register": None,
    }
    return validate(OmegaConf.create(raw))


def _task(raw: dict[str, Any], accepted: signature.Signature) -> Any:
    """Select the task: among those that the data set offers, the one that comes first in the recipe's outputs.

    Raises:
        UserError: the recipe supports none of them.
    """
    section = raw["task"]
    if not isinstance(section, dict) or "name" not in section:
        return section  # pydantic reports it
    names = section["name"] if isinstance(section["name"], list) else [section["name"]]
    if not set(names) <= set(TASKS):
        return section

    def supported(names: Sequence[str]) -> list[str]:
        """The tasks that the recipe supports, in its order of preference."""
        matching = [name for name in names if accepted.supports(TASKS[name].inputs, TASKS[name].outputs)]
        return sorted(matching, key=lambda name: accepted.outputs.index(TASKS[name].outputs))

    if not supported(names):
        model, dataset = raw["model"]["name"], raw["dataset"]["name"]
        compatible = [name for name, tasks in tasks_of_datasets().items() if supported(tasks)]
        raise UserError(
            f"model={model} cannot learn {' or '.join(names)}, which dataset={dataset} asks for; "
            f"it can learn from dataset={', '.join(compatible)}."
        )
    task_name = supported(names)[0]
    fields = {name: set(task.settings.model_fields) for name, task in TASKS.items()}
    other_fields = set().union(*fields.values()) - fields[task_name]  # settings of the other tasks of the data set
    selected = {key: value for key, value in section.items() if key not in other_fields} | {"name": task_name}
    # A setting may have a value for each task: {text_classification: words, language_modeling: bpe}.
    return {key: value.get(task_name) if isinstance(value, dict) else value for key, value in selected.items()}


def _check_strategy(settings: Settings) -> None:
    training, strategy = settings.training, settings.strategy
    if strategy.name != "single":
        if training.jit_compile is True:
            raise UserError(
                f"strategy={strategy.name} cannot run a step compiled by XLA; type training.jit_compile=false or "
                "strategy=single."
            )
        if training.gradient_accumulation > 1:
            raise UserError(
                f"strategy={strategy.name} cannot accumulate gradients; type training.gradient_accumulation=1 or "
                "strategy=single."
            )
    if isinstance(strategy, Mirrored):
        check_even_split(training.batch_size, strategy.replicas or 1)
    if isinstance(strategy, MultiWorker):
        check_even_split(training.batch_size, strategy.local or len(strategy.workers or ()) or 1)
    if training.ema is not None and training.early_stopping is not None and not training.restore_best_weights:
        raise UserError(
            "With training.ema and training.early_stopping the averaged weights of the last epoch are not kept; "
            "type training.restore_best_weights=true."
        )


def _check_compression(settings: Settings) -> None:
    compression = settings.compression
    for name in ("teacher", "export", "onnx"):
        if getattr(compression, name) and settings.task.name not in COMPRESSIBLE:
            raise UserError(
                f"compression.{name} works for {' and '.join(COMPRESSIBLE)}, not for {settings.task.name}; type "
                "compression=none."
            )
    if compression.onnx and not all(map(importlib.util.find_spec, ("tf2onnx", "onnxruntime"))):
        raise UserError("compression.onnx=true needs more packages; type pip install -r requirements-onnx.txt.")


def check_even_split(batch_size: int, replicas: int) -> None:
    """Raise a UserError unless a batch can be split evenly over the replicas; an uneven split would change the loss."""
    if batch_size % replicas:
        divisible = [n for n in (batch_size // replicas * replicas, -(-batch_size // replicas) * replicas) if n]
        raise UserError(
            f"training.batch_size={batch_size} cannot be shared by {replicas} replicas; "
            f"type training.batch_size={' or '.join(map(str, divisible))}."
        )
