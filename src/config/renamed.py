"""Settings that have another name than in earlier versions: an old name is answered with the new one, a stored one migrated."""

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
    "task.judge": "task.reference_classifier",
    "task.reach_back": "task.include_history",
    "training.glances": "training.previews",
    "training.keep": "training.restore_best_weights",
}
VALUES: dict[str, dict[Any, Any]] = {"training.keep": {"best": True, "last": False}}  # of settings whose values changed too


def answer(old: str, value: str = "") -> str | None:
    """The sentence about a setting that was typed with its old name; None if it is no old name.

    Args:
        old: the setting, like training.keep.
        value: what it was set to, as typed.
    """
    if old not in RENAMED:
        return None
    new = RENAMED[old]
    values = VALUES.get(old)
    if values:
        value = typed(values[value]) if value in values else " or ".join(map(typed, values.values()))
    return f"The setting '{old}' is now {new}; type {new}={value}." if value else f"The setting '{old}' is now {new}."


def typed(value: Any) -> str:
    """A value as one types it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def migrate(settings: dict[str, dict[str, Any]], hyperparameters: Collection[str] = ()) -> dict[str, Any]:
    """The settings of a stored run, as this version names them.

    Args:
        settings: those that the run recorded: {"training": {"glances": 5, …}, …}.
        hyperparameters: what its recipe takes now: a recipe may still have one that was renamed elsewhere.
    """
    migrated = {name: dict(section) if isinstance(section, dict) else section for name, section in settings.items()}
    for old, new in RENAMED.items():
        section, _, key = old.rpartition(".")
        values = migrated.get(section)
        if isinstance(values, dict) and key in values and not (section == "model" and key in hyperparameters):
            value = values.pop(key)
            values[new.rpartition(".")[2]] = VALUES.get(old, {}).get(value, value)
    return migrated


def migrate_params(params: dict[str, str]) -> dict[str, str]:
    """The same for the parameters of a run in MLflow, {"training.glances": "5", …}, which are texts."""
    return {RENAMED.get(name, name): str(VALUES.get(name, {}).get(value, value)) for name, value in params.items()}
