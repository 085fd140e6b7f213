"""Writes down all the settings of every experiment, so that a default which changes anywhere shows in a review:

python -m tests.pin
"""

from typing import Any

from src import config
from tests.commands import ROOT

PINNED = ROOT / "tests" / "experiments"
EXPERIMENTS = config.options("experiment")


def settings_of(experiment: str) -> dict[str, Any]:
    """{"training.epochs": 8, …} of an experiment's run."""
    (job,) = config.check([f"experiment={experiment}"]).jobs
    return job.flat()


def resolved(experiment: str) -> str:
    """The settings of an experiment's run, one a line."""
    return "".join(f"{name}: {value}\n" for name, value in sorted(settings_of(experiment).items()))


if __name__ == "__main__":
    PINNED.mkdir(exist_ok=True)
    for file in PINNED.glob("*.txt"):
        file.unlink()
    for name in EXPERIMENTS:
        (PINNED / f"{name}.txt").write_text(resolved(name), encoding="utf-8")
