"""The outbox of a run: its events, metadata and checkpoints on this machine, until it has ended and MLflow has all of it.

Events are on disk before anything is sent, so that neither a killed process nor a server that is down loses any of them.

    mlruns/unfinished/<name>/
        metadata.json    settings fingerprint, MLflow run id, final status, … of the run
        lock             held by the process of the run; the system releases it when the process is gone, however it ended
        last_steps.json  {metric: last step that was logged}: a resumed run logs no step twice
        history.jsonl    the metrics of each epoch, from which the learning curves are drawn
        checkpoints/     see src/training/checkpoint.py
        events/          one numbered folder for each event that is to be uploaded: event.json and its files
        rejected/        events that MLflow rejects for good; the outbox is kept because of them
        reserve          disk space for the events that record how the run ended, should the disk be full
"""

import contextlib
import functools
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from src.metrics import EPOCH

ROOT = Path("mlruns/unfinished")
PARTIAL_SUFFIX, REMOVED_SUFFIX = ".unfinished", ".removed"  # of what is being written, and of what is being deleted
METRICS_EVENT = "metrics"  # kind
IMAGE_FILE = "image.png"  # of an event of the kind image
RESERVED_BYTES = 1 << 16
# What files, keys and events of earlier versions are called now; `_migrate` and `_read_json` rename them.
RENAMED_FILES = {"outbox": "events", "refused": "rejected", "said.json": "last_steps.json", "journal.json": "metadata.json"}
RENAMED_KEYS = {"begun": "started", "over": "closed", "where": "artifact_path"}
RENAMED_KINDS = {"begin": "start", "again": "resume"}


@dataclass(frozen=True)
class Event:
    """Something that is to be uploaded.

    Attributes:
        kind: start, resume, metrics, model_metrics, baselines, tags, description, files, image, model, register or end.
        payload: its values.
        folder: contains its files.
    """

    kind: str
    payload: dict[str, Any]
    folder: Path

    def delete(self) -> None:
        """Delete an event that was uploaded."""
        removed = self.folder.with_suffix(PARTIAL_SUFFIX)  # atomically: deleting the folder itself would delete file by file
        os.replace(self.folder, removed)
        shutil.rmtree(removed)

    def reject(self, folder: Path) -> None:
        """Move the event to a folder of rejected ones, where it is not retried."""
        folder.mkdir(exist_ok=True)
        os.replace(self.folder, folder / self.folder.name)


class Outbox:
    """The outbox in a folder. `create` makes a new one, `all` lists the existing ones."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lock = filelock.FileLock(folder / "lock")
        self.events = folder / "events"
        self.rejected = folder / "rejected"
        self.checkpoints = folder / "checkpoints"
        self._number = max((int(path.name) for path in self._event_folders()), default=0)
        self._thread_lock = threading.RLock()  # training, system metrics and checkpoints add events from different threads

    @classmethod
    def create(
        cls,
        checkpoints: Path | None = None,
        last_steps: Mapping[str, int] | None = None,
        history: Iterable[tuple[int, Mapping[str, float]]] = (),
        **metadata: Any,
    ) -> "Outbox":
        """Create the outbox of a run, locked by this process.

        Args:
            checkpoints: folder of the checkpoints that the run resumes from.
            last_steps: {metric: last step that MLflow has}.
            history: (epoch, {metric: value}) of earlier epochs.
            metadata: initial metadata of the run.
        """
        folder = ROOT / uuid.uuid4().hex
        (folder / "events").mkdir(parents=True)
        outbox = cls(folder)
        outbox.lock.acquire()
        if checkpoints is not None:
            shutil.copytree(checkpoints, outbox.checkpoints)
        _write_atomically(folder / "last_steps.json", json.dumps(dict(last_steps or {})))
        for step, values in history:
            outbox._append_to_history(step, values)
        outbox.update_metadata(**metadata)  # last: with its metadata the outbox becomes visible to others
        return outbox

    @staticmethod
    def all() -> "list[Outbox]":
        """The outboxes in the working directory, newest first."""
        for removed in ROOT.glob(f"*{REMOVED_SUFFIX}"):
            shutil.rmtree(removed, ignore_errors=True)
        for path in ROOT.glob("*/journal.json"):
            _migrate(path.parent)
        folders = []
        for path in ROOT.glob("*/metadata.json"):
            with contextlib.suppress(FileNotFoundError):  # deleted by another process in the meantime
                folders.append((path.stat().st_mtime_ns, path.parent))
        return [Outbox(folder) for _, folder in sorted(folders, reverse=True)]

    def try_lock(self) -> bool:
        """Lock the outbox unless another process holds it, which is alive then. Return whether it was locked."""
        try:
            self.lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        if not self.metadata:
            self.delete()  # another process has deleted it; acquiring the lock created the folder again
            return False
        for partial in self.events.glob(f"*{PARTIAL_SUFFIX}"):
            shutil.rmtree(partial)
        return True

    def reserve_space(self) -> None:
        """Reserve disk space for the last events of the run."""
        if not (self.folder / "reserve").exists():
            (self.folder / "reserve").write_bytes(os.urandom(RESERVED_BYTES))

    def release_space(self) -> None:
        """Release the reserved disk space."""
        (self.folder / "reserve").unlink(missing_ok=True)

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the run; empty once the outbox is deleted."""
        try:
            return _read_json(self.folder / "metadata.json")
        except FileNotFoundError:
            return {}

    def update_metadata(self, **changes: Any) -> None:
        """Set metadata; None removes a key."""
        with self._thread_lock:
            metadata = self.metadata | changes
            text = json.dumps({name: value for name, value in metadata.items() if value is not None})
            _write_atomically(self.folder / "metadata.json", text)

    def add_metrics(self, values: Mapping[str, float], step: int, time: int) -> None:
        """Add an event with those metrics that were not logged for this step before.

        Args:
            values: {metric: value}.
            step: of all of them.
            time: milliseconds since 1970.
        """
        with self._thread_lock:
            new = {name: value for name, value in values.items() if self._last_steps.get(name, -1) < step}
            if new:
                with self.add_event(METRICS_EVENT, values=new, step=step, time=time):
                    pass
                self._append_to_history(step, {name: value for name, value in new.items() if name.startswith(EPOCH)})
                self._last_steps.update(dict.fromkeys(new, step))
                _write_atomically(self.folder / "last_steps.json", json.dumps(self._last_steps))

    def last_step(self, prefix: str) -> int:
        """The last step logged of the metrics whose names start with `prefix`; -1 if there is none."""
        with self._thread_lock:
            return max((step for name, step in self._last_steps.items() if name.startswith(prefix)), default=-1)

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """The learning curves: {metric: [(epoch, value), …]}."""
        curves: dict[str, dict[int, float]] = {}
        path = self.folder / "history.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError):  # a line that was being written when the process was killed
                step, values = json.loads(line)
                for name, value in values.items():
                    curves.setdefault(name, {})[step] = value
        return {name: sorted(points.items()) for name, points in curves.items()}

    def _append_to_history(self, step: int, values: Mapping[str, float]) -> None:
        if values:
            with (self.folder / "history.jsonl").open("a") as file:
                file.write(f"\n{json.dumps([step, values])}")  # the line break comes first: a last line may be incomplete

    @functools.cached_property
    def _last_steps(self) -> dict[str, int]:
        """{metric: last step}, of the file and the pending events: a process may be killed between the two writes."""
        last_steps = json.loads((self.folder / "last_steps.json").read_text())
        for event in self.pending():
            if event.kind == METRICS_EVENT:
                last_steps |= {name: max(last_steps.get(name, -1), event.payload["step"]) for name in event.payload["values"]}
        return last_steps

    @contextlib.contextmanager
    def add_event(self, kind: str, **payload: Any) -> Iterator[Path]:
        """Add an event at the end of the block, which may put files into the yielded folder."""
        with self._thread_lock:
            self._number += 1
            partial = self.events / f"{self._number:08d}{PARTIAL_SUFFIX}"
        partial.mkdir()
        try:
            yield partial
            (partial / "event.json").write_text(json.dumps({"kind": kind, **payload}))
            os.replace(partial, partial.with_suffix(""))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    @property
    def is_empty(self) -> bool:
        """Whether no event is pending."""
        return not self._event_folders()

    def pending(self) -> list[Event]:
        """The events that are still to be uploaded, in order."""
        events = []
        with self._thread_lock:
            for folder in self._event_folders():
                with contextlib.suppress(FileNotFoundError):  # uploaded and deleted in the meantime
                    payload = _read_json(folder / "event.json")
                    kind = payload.pop("kind")
                    events.append(Event(RENAMED_KINDS.get(kind, kind), payload, folder))
        return events

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """On exit, delete the outbox if its run is closed and fully uploaded; otherwise release its lock."""
        try:
            yield
        finally:
            if self.metadata.get("closed") and self.is_empty and not self.rejected.exists():
                self.delete()
            else:
                self.lock.release()

    def delete(self) -> None:
        """Delete the outbox, and release its lock."""
        removed = self.folder.with_suffix(REMOVED_SUFFIX)
        os.replace(self.folder, removed)
        shutil.rmtree(removed, ignore_errors=True)
        self.lock.release(force=True)

    def _event_folders(self) -> list[Path]:
        return sorted(path for path in self.events.glob("*") if path.suffix != PARTIAL_SUFFIX)


@contextlib.contextmanager
def file_lock(name: str) -> Iterator[None]:
    """Hold a named lock that the processes of this working directory share; wait while another one holds it."""
    ROOT.parent.mkdir(exist_ok=True)
    with filelock.FileLock(ROOT.parent / f".{name}.lock"):
        yield


def _migrate(folder: Path) -> None:
    """Rename the files in an outbox of an earlier version, unless its process is still running."""
    with contextlib.suppress(filelock.Timeout, FileNotFoundError), filelock.FileLock(folder / "lock", blocking=False):
        for old, new in RENAMED_FILES.items():
            if (folder / old).exists():
                os.replace(folder / old, folder / new)


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, its top-level keys renamed to those of this version."""
    return {RENAMED_KEYS.get(key, key): value for key, value in json.loads(path.read_text()).items()}


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(PARTIAL_SUFFIX)
    partial.write_text(text)
    os.replace(partial, path)
