"""What every run logs, a training or a sweep."""

import contextlib
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from matplotlib.figure import Figure

from src.errors import DiskFullError, UserError, translate_disk_full
from src.metrics import EPOCH
from src.redaction import redact
from src.tracking import pages
from src.tracking.client import OUTBOX_TAG
from src.tracking.mlflow_patches import resolve_tags
from src.tracking.outbox import IMAGE_FILE, Outbox

log = logging.getLogger(__name__)

Draw = Callable[[], Mapping[str, Figure | str]]


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

    def start(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        inputs: Mapping[str, Mapping[str, str]],
        experiment: Mapping[str, str] | None = None,
        models: Iterable[str] = (),
    ) -> None:
        """Log the start of a new run.

        Args:
            params: {setting: value}.
            tags: {tag: value}.
            inputs: {split: name, digest, source_type and source of an MLflow `Dataset`}.
            experiment: task that its experiment ranks, and description of the experiment; None if it ranks none.
            models: ids of the logged models that the run uses.
        """
        metadata = self.outbox.metadata
        with self.outbox.add_event(
            "start", experiment=metadata["experiment"], name=metadata["name"], time=now_ms(), sweep=metadata.get("sweep"),
            params=redact(dict(params)), inputs=dict(inputs), ranking=redact(dict(experiment or {})), models=list(models),
            tags=redact(resolve_tags({**tags, OUTBOX_TAG: self.outbox.folder.name})),
        ):  # fmt: skip
            pass

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step; a resumed run ignores those that it logged before it was interrupted."""
        self.outbox.add_metrics({name: float(value) for name, value in values.items()}, step, now_ms())

    def link_metrics(self, names: Iterable[str], dataset: Mapping[str, str] | None = None) -> None:
        """Link metrics, which were logged before, to the logged model of the run, so that MLflow ranks models by them.

        Args:
            names: of the metrics.
            dataset: name and digest of the data that they were measured on; None if on none.
        """
        with self.outbox.add_event("model_metrics", names=list(names), dataset=dict(dataset or {})):
            pass

    def describe_run(self, text: str) -> None:
        """Set the description of the run, and of its logged model, if it has one.

        Args:
            text: Markdown, with the placeholders of `src.tracking.pages`.
        """
        with self.outbox.add_event("description", text=redact(text)):
            pass

    def register_model(self, name: str, run_id: str | None = None) -> None:
        """Register a logged model, and give its version the alias `client.ALIAS`.

        Args:
            name: of the registered model; it is created if there is none.
            run_id: of the run that has logged the model; None: this run.
        """
        with self.outbox.add_event("register", name=name, run_id=run_id):
            pass

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

    def log_figures(self, draw: Draw, folder: str | None = "figures") -> None:
        """Draw figures and log them as artifacts in a folder; the run survives if that fails.

        Args:
            draw: returns {file name: Matplotlib figure, or the text of an HTML page}.
            folder: of the artifacts; None: that of the run.
        """
        with self.survive("figures"):
            self._log_figures(draw(), folder)

    def _log_figures(self, figures: Mapping[str, Figure | str], folder: str | None) -> None:
        if not figures:
            return
        with self.outbox.add_event("files", artifact_path=folder) as event:
            for name, figure in figures.items():
                path = _artifact_file(event / "files", name)
                if isinstance(figure, str):
                    path.write_text(figure, encoding="utf-8")
                else:
                    figure.savefig(path)

    def log_images(self, figures: Mapping[str, Figure], step: int) -> None:
        """Log figures that MLflow shows among the charts, with a slider for the steps: {name: figure}."""
        for name, figure in figures.items():
            with self.outbox.add_event("image", key=f"{EPOCH}{name}", step=step, time=now_ms()) as folder:
                figure.savefig(folder / IMAGE_FILE)

    def log_samples(self, draw: Draw, epoch: int) -> None:
        """Draw and log what a generative model makes during training, images with a slider for the epochs.

        Args:
            draw: returns {file name: figure, or text}.
            epoch: after which it was made.
        """
        with self.survive("figures"):
            samples = draw()
            images = {Path(name).stem: figure for name, figure in samples.items() if isinstance(figure, Figure)}
            self.log_images(images, epoch)
            texts = {name: text for name, text in samples.items() if isinstance(text, str)}
            self._log_figures({f"epoch_{epoch:04d}/{name}": text for name, text in texts.items()}, "figures")

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Log texts as artifacts: {file name: text}."""
        if not texts:
            return
        with self.outbox.add_event("files", artifact_path=None) as folder:
            for name, text in texts.items():
                _artifact_file(folder / "files", name).write_text(text, encoding="utf-8")

    def log_table(self, file: str, columns: Mapping[str, np.ndarray]) -> None:
        """Log a table as a Parquet file, which `pandas.read_parquet` reads; nothing if it has no columns.

        Args:
            file: its name.
            columns: {name: values (rows,)}.
        """
        if not columns:
            return
        with self.outbox.add_event("files", artifact_path=None) as folder:
            table = pyarrow.table({name: pyarrow.array(values) for name, values in columns.items()})
            pyarrow.parquet.write_table(table, _artifact_file(folder / "files", file), compression="zstd")

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
        """Name and experiment of the run, and on a line of its own the address of its page in MLflow's UI."""
        metadata = self.outbox.metadata
        where = f"In MLflow: run {metadata['name']} of experiment {metadata['experiment']}"
        if "run_id" not in metadata:
            return f"{where}; it gets an id and a page when MLflow answers."
        address, command = pages.address(pages.run_page(metadata.get("experiment_id", "0"), metadata["run_id"]))
        how = f".\nTo look at it, type `{command}` and open" if command else ""
        return f"{where}{how}:\n{address}"

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
