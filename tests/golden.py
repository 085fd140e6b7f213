"""The resolved settings of each model's default run, and in what those of each experiment differ from them.

They stand in tests/golden/, so that a change of a default anywhere is seen in review. To rewrite them:

python -m pytest tests/src/test_golden.py --update-golden
"""

import functools
from collections.abc import Mapping
from typing import Any

from src import config
from tests.commands import ROOT

GOLDEN = ROOT / "tests" / "golden"
MODELS, EXPERIMENTS = config.option_names("model"), config.option_names("experiment")


@functools.cache
def settings_of(option: str) -> Mapping[str, Any]:
    """{"training.epochs": 8, …} of the run of model=<name> or experiment=<name>."""
    (job,) = config.parse([option]).jobs
    return job.flat()


def of_model(name: str) -> str:
    """All settings of a model's default run."""
    return _lines(settings_of(f"model={name}"))


def of_experiment(name: str) -> str:
    """The settings of an experiment that its model's default run does not have, or has with another value.

    Those that only the default run has follow from task.name and optimizer.name, and are left out.
    """
    settings = settings_of(f"experiment={name}")
    default = settings_of(f"model={settings['model.name']}")
    absent = object()
    return _lines({key: value for key, value in settings.items() if default.get(key, absent) != value})


def _lines(settings: Mapping[str, Any]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in sorted(settings.items()))
