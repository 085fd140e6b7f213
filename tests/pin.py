"""Writes down all the settings of every experiment, so that a default which changes anywhere shows in a review:

python -m tests.pin
"""

from src import config, settings
from tests.conftest import ROOT

PINNED = ROOT / "tests" / "experiments"
EXPERIMENTS = sorted(path.stem for path in (config.CONF / "experiment").glob("*.yaml"))


def resolved(experiment: str) -> str:
    """The settings of an experiment's run, one a line."""
    (job,) = config.check([f"experiment={experiment}"]).jobs
    lines = [f"{name}: {value}" for name, value in settings.leaves(job.model_dump(by_alias=True))]
    return "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    PINNED.mkdir(exist_ok=True)
    for file in PINNED.glob("*.txt"):
        file.unlink()
    for name in EXPERIMENTS:
        (PINNED / f"{name}.txt").write_text(resolved(name), encoding="utf-8")
