"""Renamed settings and metrics: a command line with an old name is answered with the new one, and stored ones are migrated."""

import shlex
from collections.abc import Collection
from typing import Any

RENAMED = {
    "dataset.passes": "dataset.epochs",
    "hydra.sweeper.jobs": "hydra.sweeper.n_jobs",
    "hydra.sweeper.startup": "hydra.sweeper.n_startup_trials",
    "hydra.sweeper.trials": "hydra.sweeper.n_trials",
    "hydra.sweeper.warmup": "hydra.sweeper.n_warmup_epochs",
    "model.halvings": "model.downsamplings",
    "model.unlabelled": "model.label_dropout",
    "task.bpe_vocabulary": "task.vocabulary_size",
    "task.judge": "task.reference_classifier",
    "task.reach_back": "task.include_history",
    "task.tokens": "task.tokenizer",
    "task.unit": "task.tokenizer",
    "task.vocabulary": "task.vocabulary_size",
    "training.glances": "training.previews",
    "training.keep": "training.restore_best_weights",
}
# {old name: {old value: new value}} of settings whose values changed too. With another value it is another setting: the
# `task.unit` of a series, like ppm, keeps its name.
KINDS = {"word": "words", "character": "characters", "byte": "bytes", "bpe": "bpe"}
VALUES: dict[str, dict[Any, Any]] = {
    "task.tokens": KINDS,
    "task.unit": KINDS,
    "training.keep": {"best": True, "last": False},
}
# What runs of earlier versions did that record no such hyperparameter: Keras's default.
FORMERLY = {"layer_norm_epsilon": 1e-3}
METRICS = {"confident": "confident_fraction", "fid": "frechet_distance", "kid": "kernel_distance"}  # of tasks, without a prefix
MONITOR = "training.monitor"  # the setting whose value is the name of a metric


def rename_metric(name: str) -> str:
    """The name that a metric has in this version, behind the same prefix: val_frechet_distance for val_fid."""
    base = name.rpartition("/")[2].removeprefix("val_")
    return name.removesuffix(base) + METRICS.get(base, base)


def describe_renamed_metric(setting: str, name: str) -> str | None:
    """The error message for a setting that was typed with the old name of a metric; None if it is not an old name."""
    new = rename_metric(name)
    return f"The metric {name} is now {new}; type {setting}={new}." if new != name else None


def describe_rename(old: str, value: str = "") -> str | None:
    """The error message for a setting that was typed with its old name; None if it is not an old name.

    Args:
        old: the setting, like training.keep.
        value: what it was set to, as typed.
    """
    if old not in RENAMED:
        return None
    new = RENAMED[old]
    values = VALUES.get(old)
    if values:
        value = as_typed(values[value]) if value in values else " or ".join(map(as_typed, values.values()))
    return f"The setting '{old}' is now {new}; type {new}={value}." if value else f"The setting '{old}' is now {new}."


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def migrate(settings: dict[str, dict[str, Any]], hyperparameters: Collection[str] = ()) -> dict[str, Any]:
    """Rename the settings of a stored run as this version names them, and add hyperparameters that it does not record.

    Args:
        settings: those that the run recorded: {"training": {"glances": 5, …}, …}.
        hyperparameters: what its recipe takes now: a recipe may still have one that was renamed elsewhere.
    """
    migrated = {name: dict(section) if isinstance(section, dict) else section for name, section in settings.items()}
    for old in RENAMED:
        section, _, key = old.rpartition(".")
        values = migrated.get(section)
        if isinstance(values, dict) and key in values and not (section == "model" and key in hyperparameters):
            new, value = _rename(old, values.pop(key))
            values[new.rpartition(".")[2]] = value
    if isinstance(migrated.get("model"), dict):
        migrated["model"] = {name: FORMERLY[name] for name in FORMERLY if name in hyperparameters} | migrated["model"]
    section, _, key = MONITOR.rpartition(".")
    if key in migrated.get(section, {}):
        migrated[section][key] = rename_metric(migrated[section][key])
    return migrated


def migrate_command(command: str) -> list[str]:
    """The words of a recorded command line, sorted, with settings as this version names them and without `resume`."""
    words = []
    for word in shlex.split(command):
        name, separator, value = word.partition("=")
        if name != "resume":
            name, value = _rename(name, value)
            words.append(f"{name}{separator}{as_typed(value)}")
    return sorted(words)


def migrate_params(params: dict[str, str]) -> dict[str, str]:
    """The same for the parameters of a run in MLflow, {"training.glances": "5", …}, which are texts."""
    renamed = dict(_rename(name, value) for name, value in params.items())
    return {name: str(value) for name, value in renamed.items()}


def _rename(name: str, value: Any) -> tuple[str, Any]:
    """The name and the value of a setting as this version has them."""
    if name == MONITOR:
        return name, rename_metric(value)
    if name not in RENAMED or (name in VALUES and value not in VALUES[name]):
        return name, value
    return RENAMED[name], VALUES.get(name, {}).get(value, value)
