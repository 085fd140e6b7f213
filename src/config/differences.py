"""Differences between settings, and the names of runs, sweeps and rows of a leaderboard that show them."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from src.config.checks import validate
from src.config.compose import CONF, compose_config, quote
from src.config.renamed import as_typed
from src.config.schema import Settings
from src.errors import UserError

# Prefixes of the settings that do not change what is learned or how it is tested, and of the seed, which a name has anyway.
NUISANCE_SETTINGS = (
    "seed", "resume", "sweep.", "tracking.", "checkpoint.", "dataset.data_dir", "dataset.storage", "dataset.path",
    "training.steps_per_execution", "task.time_unit",
    "strategy.workers", "strategy.index", "strategy.local", "strategy.wait", "strategy.timeout",
)  # fmt: skip
SELECTED = ("dataset", "strategy", "optimizer", "task")  # sections whose name selects the defaults of the others in it
MAX_PARTS, MAX_VALUE = 4, 16  # differences in a name, characters of a value
ABSENT = object()


def differing(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the settings, sorted, that are not the same in all of the mappings."""
    settings = list(settings)
    names = sorted({name for one in settings for name in one})
    return [name for name in names if any(one.get(name, ABSENT) != settings[0].get(name, ABSENT) for one in settings)]


def differences_from_default(settings: Settings) -> dict[str, Any]:
    """What is set besides the experiment or else the recipe: {"dataset": "sunspots", "model.units": 128, …}.

    A section with another name (another data set, optimizer, …) counts once, and its settings are compared with the defaults
    that it has under this name.
    """
    flat = settings.flat()
    base = f"experiment={settings.experiment}" if settings.experiment else f"model={settings.model.name}"
    overrides, selected = [base], {}
    default = _defaults(base)
    for section in SELECTED:
        name = flat[f"{section}.name"]
        if default.get(f"{section}.name") == name:
            continue
        selected[section] = name
        added = [f"task.name={name}" if section == "task" else f"{section}={name}"]
        if section == "dataset" and settings.dataset.path is not None:  # its name is that of the user's files
            added = [f"dataset={settings.dataset.builder}", "dataset.path=" + quote(settings.dataset.path)]
        with contextlib.suppress(UserError):  # conf/ has no file of this name: all its settings are compared with the default
            default = _defaults(*overrides, *added)
            overrides += added
    ignored = (*NUISANCE_SETTINGS, "dataset.digest", "experiment", *(f"{section}.name" for section in SELECTED))
    others = {name: value for name, value in flat.items() if not name.startswith(ignored)}
    return selected | {name: value for name, value in others.items() if default.get(name, ABSENT) != value}


@functools.cache
def _defaults(*overrides: str) -> dict[str, Any]:
    """All settings of a run with these overrides alone; empty if there is no such recipe or experiment in conf/."""
    with contextlib.ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(str(CONF), version_base="1.3"))
        try:
            return validate(compose_config("config", list(overrides))).flat()
        except UserError:
            if len(overrides) > 1:
                raise
            return {}


def run_name(settings: Settings) -> str:
    """The default name of a run: experiment or recipe, what differs from its defaults, and the seed; lstm-units=128-seed0.

    Runs of different settings have different names: where a part is shortened, a digest of all differences is added.
    """
    differences = differences_from_default(settings)
    short = short_names(settings.flat())
    parts = [(None if name == "dataset" else short.get(name, name), value) for name, value in differences.items()]
    return join_name(settings.experiment or settings.model.name, parts, f"seed{settings.seed}")


def sweep_name(kind: str, overrides: Sequence[str]) -> str:
    """The name of a sweep: its kind, and what was typed, what is varied first; sweep-model=cnn,lstm-seed=0,1-epochs=3.

    Args:
        kind: sweep or search.
        overrides: of the command line.
    """
    pairs = [override.partition("=")[::2] for override in overrides]
    parts = [(name, value) for name, value in pairs if not name.startswith(("hydra", *NUISANCE_SETTINGS[1:]))]
    short = short_names(dict(parts))
    parts.sort(key=lambda part: not any(sign in part[1] for sign in ",("))  # several values, or a range
    return join_name(kind, [(short[name], value) for name, value in parts])


def join_name(first: str, parts: Sequence[tuple[str | None, Any]], *last: str) -> str:
    """Join the parts of a name by hyphens, and shorten them: at most `MAX_PARTS` parts, and `MAX_VALUE` characters of a value.

    Args:
        first: with which the name begins.
        parts: (name, value) of each setting; the name is left out where it is None.
        last: with what the name ends.
    """
    shown = [_part(name, value) for name, value in parts[:MAX_PARTS]]
    if len(parts) > MAX_PARTS or any(len(_text(value)) > MAX_VALUE for _, value in parts):
        digest = hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=3).hexdigest()
        shown.append(digest if len(parts) <= MAX_PARTS else f"and{len(parts) - MAX_PARTS}more-{digest}")
    return "-".join([first, *shown, *last])


def short_names(names: Iterable[str]) -> dict[str, str]:
    """The shortest ending of each setting's name that no other setting has: {"model.units": "units", …}."""
    names = list(names)
    endings = {name: [name.split(".", start)[-1] for start in range(name.count("."), -1, -1)] for name in names}
    uses: dict[str, int] = {}
    for ending in (ending for several in endings.values() for ending in several):
        uses[ending] = uses.get(ending, 0) + 1
    return {name: next((ending for ending in several if uses[ending] == 1), name) for name, several in endings.items()}


def _part(name: str | None, value: Any) -> str:
    text = _text(value)
    text = text if len(text) <= MAX_VALUE else _rounded(value) or f"{text[: MAX_VALUE - 1]}…"
    return text if name is None else f"{name}={text}"


def _rounded(value: Any) -> str | None:
    """A number with four significant digits; None if it is none."""
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    """A value as it is typed, lists without brackets and spaces."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return "null" if value is None else as_typed(value).replace(" ", "")
