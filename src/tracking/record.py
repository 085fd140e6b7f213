"""The record of a run: what it tells MLflow, by way of its journal."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import keras
import mlflow
import numpy as np
import yaml
from matplotlib.figure import Figure
from mlflow.models import ModelSignature, infer_signature
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import ColSpec, Schema

from src import serving, settings, strategies
from src.checkpoint import Keeper, State
from src.datasets import Data
from src.errors import UserError
from src.journal import Journal
from src.redaction import redacted
from src.tasks import Judge, Task

# What a logged model needs to be loaded and served; left to itself MLflow finds out by loading it, which takes seconds.
SERVING = ("tensorflow", "numpy", "pandas", "tokenizers", "annotated-types")
WEIGHTS = "model.weights.h5"
JOURNAL = "journal"  # tag: which journal a run was made from, so that it is made once
FINGERPRINT = "settings.fingerprint"  # tag: what two commands have in common of which one goes on where the other was cut short
CODE = "code"  # tag: digest of it
CHECKPOINTS = "checkpoints"
STACK = ("tensorflow", "keras", "tensorflow-datasets", "hydra-core", "mlflow", "numpy")
PARTS = ("train", "validation", "test")
ROOT = Path(__file__).resolve().parents[2]
SURROUNDINGS = {
    CODE,
    "git.commit",
    "git.dirty",
    "python",
    "backend",
    "machine",
    "device",
    *(f"version.{package}" for package in STACK),
}


class Record:
    """What a run tells MLflow. Nothing here waits for an answer: all of it goes into the journal.

    Args:
        journal: of the run.
        resumed: the state that it goes on from, if it goes on.
    """

    def __init__(self, journal: Journal, resumed: State | None = None):
        self.journal, self.resumed = journal, resumed
        self.run_id: str | None = None  # once the run has ended
        self._waiting: Path | None = None  # where the last checkpoint was until it was told

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

    def checkpoint(self, path: Path) -> None:
        """A checkpoint, for another machine to go on from; it takes the place of the last but one.

        Nothing is told as long as the one before it waits to be: a server that is away shall not fill the disk.
        """
        if self._waiting is not None and self._waiting.exists():
            return
        with contextlib.suppress(OSError):  # a full disk: what the training has to tell will say so
            self._upload(path)

    def _upload(self, path: Path) -> None:
        number = self.journal.facts.get("uploads", 0)
        self.journal.know(uploads=number + 1)
        with self.journal.event("files", where=CHECKPOINTS) as folder:
            (folder / "files").mkdir()
            copy = folder / "files" / f"{number % 2}.npz"
            try:
                os.link(path, copy)
            except OSError:  # not on every file system
                shutil.copy2(path, copy)
        self._waiting = folder.with_suffix("")

    @property
    def keeper(self) -> Keeper:
        """Of the checkpoints of this run."""
        return Keeper(self.journal.checkpoints, self.resumed, saved=self.checkpoint, failed=self._failed)

    def _failed(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            self.tags(**{"checkpoint.failure": str(error)})

    @property
    def spent(self) -> float:
        """Seconds of training before the run was cut short, that were not in vain."""
        return self.keeper.spent

    def where(self) -> str:
        """How a person finds the run."""
        run_id = self.journal.facts.get("run_id", "it gets an id when MLflow answers")
        return f"experiment '{self.journal.facts['experiment']}', run '{self.journal.facts['name']}' ({run_id})"

    def judge(self, judge: Judge) -> None:
        """Whose eyes generated images were seen with, and how good they are."""
        self.tags(judge=judge.run_id)
        self.metrics({"judge/accuracy": judge.accuracy})

    def model(self, task: Task, model: keras.Model, example: np.ndarray, classes: tuple[str, ...]) -> None:
        """A model that `mlflow.pyfunc.load_model("runs:/<run id>/model")` loads and `mlflow models serve` serves."""
        with self.journal.event("model", name="model") as folder:
            answer, owners = task.served(model)
            answers = serving.save(answer, owners, example, str(folder / "saved_model"), task.encoder)
            texts = example.dtype == object
            inputs = Schema([ColSpec("string")]) if texts else infer_signature(example).inputs
            mlflow.pyfunc.save_model(
                str(folder / "files"),
                loader_module=serving.__name__,
                data_path=str(folder / "saved_model"),
                signature=ModelSignature(inputs=inputs, outputs=infer_signature(example, answers).outputs),
                input_example=example.tolist() if texts else example,
                pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in SERVING],
                metadata={"classes": list(classes)} if classes else None,
            )
            shutil.rmtree(folder / "saved_model")

    def weights(self, model: keras.Model) -> None:
        """The weights: with the recorded settings they are the model again, for later runs to learn from."""
        with self.journal.event("files", where=None) as folder:
            (folder / "files").mkdir()
            model.save_weights(folder / "files" / WEIGHTS)

    # --- from the beginning to the end ------------------------------------------------------------------------------

    def begin(self, chosen: settings.Settings, data: Data) -> None:
        """Who the run is."""
        inputs = {
            part: {
                "name": data.name,
                "digest": getattr(data, part).digest,
                "source_type": "code",
                "source": json.dumps({"tags": {"tfds": data.source, "split": split}}),
            }
            for part, split in chosen.dataset.splits.model_dump().items()
        }
        with self.journal.event(
            "begin", experiment=self.journal.facts["experiment"], name=self.journal.facts["name"], time=now(),
            params=redacted(chosen.flat()), inputs=inputs,
            tags=redacted(resolve_tags({**_tags(chosen), JOURNAL: self.journal.folder.name})),
        ):  # fmt: skip
            pass
        config = yaml.safe_dump(chosen.model_dump(by_alias=True), sort_keys=False, allow_unicode=True)
        diff = _git("diff", "HEAD")
        self.texts(redacted({"config.yaml": config} | ({"uncommitted.diff": diff} if diff else {})))

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


def _tags(chosen: settings.Settings) -> dict[str, str]:
    tags = {
        "model": chosen.model.name,
        "dataset": chosen.dataset.name,
        "task": chosen.task.name,
        "strategy": chosen.strategy.name,
        "settings.digest": chosen.digest(),
        FINGERPRINT: chosen.fingerprint(),
        "precision": chosen.training.precision,
        "command": command(),
    }
    return tags | _stack()


def surroundings(data: Data) -> dict[str, str]:
    """What a run's results depend on, besides its settings: code, versions, machine, and the data's digests."""
    return _stack() | {f"data.{part}": getattr(data, part).digest for part in PARTS}


def _stack() -> dict[str, str]:
    found = {
        CODE: code(),
        "backend": keras.config.backend(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": strategies.devices(),
        **{f"version.{package}": importlib.metadata.version(package) for package in STACK},
    }
    commit = _git("rev-parse", "HEAD")
    if commit:
        found |= {"git.commit": commit.strip(), "git.dirty": str(bool(_git("diff", "HEAD"))).lower()}
    return found


def command() -> str:
    """What was typed."""
    return shlex.join(["python", "-m", "src.run", *sys.argv[1:]])


@functools.cache
def code() -> str:
    """A digest of the code of this project, committed or not: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for folder in ("recipes", "src") for path in (ROOT / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    """What git says; nothing outside a git checkout, or where git is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
