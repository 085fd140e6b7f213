"""What every run logs, a training or a sweep."""

import contextlib
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from src.errors import DiskFullError, UserError, translate_disk_full
from src.redaction import redact
from src.tracking.client import OUTBOX_TAG
from src.tracking.mlflow_patches import resolve_tags
from src.tracking.outbox import Outbox

log = logging.getLogger(__name__)


class RunLogger:
    """Logs a run to its outbox, from where it is uploaded to MLflow; no method waits for MLflow.

    Args:
        outbox: of the run.

    Attributes:
        run_id: MLflow's; set when the run has ended, None if MLflow has not answered by then.
    """

    def __init__(self, outbox: Outbox):
        self.outbox = outbox
        self.run_id: str | None = None

    def start(self, params: Mapping[str, Any], tags: Mapping[str, str], inputs: Mapping[str, Mapping[str, str]]) -> None:
        """Log the start of a new run.

        Args:
            params: {setting: value}.
            tags: {tag: value}.
            inputs: {split: name, digest, source_type and source of an MLflow `Dataset`}.
        """
        metadata = self.outbox.metadata
        with self.outbox.add_event(
            "start", experiment=metadata["experiment"], name=metadata["name"], time=now_ms(), sweep=metadata.get("sweep"),
            params=redact(dict(params)), inputs=dict(inputs),
            tags=redact(resolve_tags({**tags, OUTBOX_TAG: self.outbox.folder.name})),
        ):  # fmt: skip
            pass

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step; a resumed run ignores those that it logged before it was interrupted."""
        self.outbox.add_metrics({name: float(value) for name, value in values.items()}, step, now_ms())

    def set_tags(self, **tags: str) -> None:
        """Set tags of the run."""
        with self.outbox.add_event("tags", tags=redact(tags)):
            pass

    @contextlib.contextmanager
    def survive(self, stage: str) -> Iterator[None]:
        """Let the run go on if the block fails; a warning, the tag failure.<stage> and a traceback as artifact report it.

        For what comes after training, so that no failure there loses the weights and metrics. A full disk is no such failure:
        nothing more can be logged then, and the run can be resumed.

        Args:
            stage: name of what the block does: figures, export, …
        """
        try:
            with translate_disk_full():
                yield
        except Exception as error:
            if isinstance(error, DiskFullError) or "No space left" in str(error):  # the latter by TensorFlow
                raise
            reason = redact(f"{type(error).__name__}: {error}")
            log.warning(
                "%s failed (%s); the weights and the metrics are kept, and the traceback is an artifact of the run.",
                stage.capitalize(), " ".join(reason.split())[:300],
            )  # fmt: skip
            self.set_tags(**{f"failure.{stage}": reason[:5000]})
            self.log_texts(redact({f"traceback-{stage}.txt": traceback.format_exc()}))

    def log_figures(self, draw: Callable[[], Mapping[str, Figure | str]]) -> None:
        """Draw figures and log them as artifacts; the run survives if that fails.

        Args:
            draw: returns {file name: Matplotlib figure, or the text of an HTML page}.
        """
        with self.survive("figures"):
            self._log_figures(draw())

    def _log_figures(self, figures: Mapping[str, Figure | str]) -> None:
        if not figures:
            return
        with self.outbox.add_event("files", artifact_path="figures") as folder:
            for name, figure in figures.items():
                path = _artifact_file(folder / "files", name)
                if isinstance(figure, str):
                    path.write_text(figure, encoding="utf-8")
                else:
                    figure.savefig(path, dpi=100)

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Log texts as artifacts: {file name: text}."""
        if not texts:
            return
        with self.outbox.add_event("files", artifact_path=None) as folder:
            for name, text in texts.items():
                _artifact_file(folder / "files", name).write_text(text, encoding="utf-8")

    def log_files(self, source: str | Path, artifact_path: str | None = None) -> None:
        """Log a file, or all files of a folder, as artifacts in the folder `artifact_path` of the run."""
        with self.outbox.add_event("files", artifact_path=artifact_path) as folder:
            if Path(source).is_dir():
                shutil.copytree(source, folder / "files")
            else:
                (folder / "files").mkdir()
                shutil.copy2(source, folder / "files")

    def log_log_file(self) -> None:
        """Log the log file of the last process as an artifact: run.log, and run-2.log, … of those that resumed the run."""
        metadata = self.outbox.metadata
        if not Path(metadata.get("log", "")).is_file():
            return
        with self.outbox.add_event("files", artifact_path=None) as folder:
            (folder / "files").mkdir()
            number = metadata["processes"]
            shutil.copy2(metadata["log"], folder / "files" / ("run.log" if number == 1 else f"run-{number}.log"))

    def describe(self) -> str:
        """Experiment, name and id of the run, by which a user finds it."""
        metadata = self.outbox.metadata
        run_id = metadata.get("run_id", "it gets an id when MLflow answers")
        return f"experiment '{metadata['experiment']}', run '{metadata['name']}' ({run_id})"

    def resume(self) -> None:
        """Log that an interrupted run is running again."""
        with self.outbox.add_event("resume"):
            pass

    def end(self, status: str) -> None:
        """Log the end of the run, with the status FINISHED, FAILED or KILLED."""
        with self.outbox.add_event("end", status=status, time=now_ms()):
            pass
        self.outbox.update_metadata(status=status)


def _artifact_file(folder: Path, name: str) -> Path:
    """The path of a file in a folder, whose parents are created.

    Raises:
        UserError: the path is outside of the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"The file '{name}' would lie outside of the run's folder; give it a name without '..' or a leading '/'."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def now_ms() -> int:
    """Milliseconds since 1970, MLflow's unit of time."""
    return time.time_ns() // 1_000_000
