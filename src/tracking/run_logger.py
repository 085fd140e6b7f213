"""What a run tells MLflow, be it a training or a sweep, by way of its journal."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mlflow.tracking.context.registry import resolve_tags

from src.errors import UserError
from src.redaction import redacted
from src.tracking.client import JOURNAL
from src.tracking.outbox import Journal


class Account:
    """What a run tells. Nothing here waits for an answer: all of it goes into the journal.

    Args:
        journal: of the run.
    """

    def __init__(self, journal: Journal):
        self.journal = journal
        self.run_id: str | None = None  # once the run has ended

    def begin(self, params: Mapping[str, Any], tags: Mapping[str, str], inputs: Mapping[str, Mapping[str, str]]) -> None:
        """Who the run is.

        Args:
            params: settings.
            tags: short texts.
            inputs: {part: what MLflow keeps of a data set}.
        """
        facts = self.journal.facts
        with self.journal.event(
            "begin", experiment=facts["experiment"], name=facts["name"], time=now(), sweep=facts.get("sweep"),
            params=redacted(dict(params)), inputs=dict(inputs),
            tags=redacted(resolve_tags({**tags, JOURNAL: self.journal.folder.name})),
        ):  # fmt: skip
            pass

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step; those that were told before the run was cut short are not told again."""
        self.journal.metrics({name: float(value) for name, value in values.items()}, step, now())

    def tags(self, **tags: str) -> None:
        """Short texts that stand beside the run."""
        with self.journal.event("tags", tags=redacted(tags)):
            pass

    def figures(self, figures: Mapping[str, Figure | str]) -> None:
        """Figures as pictures, or as the HTML pages that they are."""
        if not figures:
            return
        with self.journal.event("files", where="figures") as folder:
            for name, figure in figures.items():
                path = _place(folder / "files", name)
                if isinstance(figure, str):
                    path.write_text(figure, encoding="utf-8")
                else:
                    figure.savefig(path, dpi=100)

    def texts(self, texts: Mapping[str, str]) -> None:
        """Texts under the names of files."""
        if not texts:
            return
        with self.journal.event("files", where=None) as folder:
            for name, text in texts.items():
                _place(folder / "files", name).write_text(text, encoding="utf-8")

    def files(self, source: str | Path, where: str | None = None) -> None:
        """A file, or all the files of a folder, under the name `where`."""
        with self.journal.event("files", where=where) as folder:
            if Path(source).is_dir():
                shutil.copytree(source, folder / "files")
            else:
                (folder / "files").mkdir()
                shutil.copy2(source, folder / "files")

    def log(self) -> None:
        """What the process has said that ran last: run.log, and run-2.log, … of those that went on."""
        facts = self.journal.facts
        if not Path(facts.get("log", "")).is_file():
            return
        with self.journal.event("files", where=None) as folder:
            (folder / "files").mkdir()
            number = facts["processes"]
            shutil.copy2(facts["log"], folder / "files" / ("run.log" if number == 1 else f"run-{number}.log"))

    def where(self) -> str:
        """How a person finds the run."""
        run_id = self.journal.facts.get("run_id", "it gets an id when MLflow answers")
        return f"experiment '{self.journal.facts['experiment']}', run '{self.journal.facts['name']}' ({run_id})"

    def again(self) -> None:
        """That it goes on."""
        with self.journal.event("again"):
            pass

    def end(self, status: str) -> None:
        """How it ended: FINISHED, FAILED or KILLED."""
        with self.journal.event("end", status=status, time=now()):
            pass
        self.journal.know(status=status)


def _place(folder: Path, name: str) -> Path:
    """Where a file of that name goes.

    Raises:
        UserError: that is outside of the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"The file '{name}' would lie outside of the run's folder; give it a name without '..' or a '/' first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000
