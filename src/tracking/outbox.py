"""What a run keeps on this machine until it has ended and MLflow knows all of it: who it is, its checkpoints, and what is still
to be told, in order. It is on disk before anything is sent, so neither this process nor a tracking server can take it along.

    mlruns/unfinished/<name>/
        journal.json    whose journal it is, and what is known of the run
        lock            held by the process that runs; the system lets go of it when that is gone, whatever way it went
        said.json       {metric: the last step that was told, or is in the outbox}: a run that goes on tells nothing twice
        checkpoints/    see src/training/checkpoint.py
        refused/        what MLflow refuses for good; the journal is kept for its sake
        reserve         room to say how the run ended, should the disk be full
        outbox/         one folder for each event, numbered: event.json and the files that belong to it
"""

import contextlib
import functools
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

ROOT = Path("mlruns/unfinished")
UNFINISHED, REMOVED = ".unfinished", ".removed"  # suffixes of what is not there yet, and not there any more
METRICS = "metrics"  # the kind of an event
RESERVE = 1 << 16  # bytes


@dataclass(frozen=True)
class Event:
    """Something that is to be told.

    Attributes:
        kind: what it is.
        facts: of which it consists.
        folder: where the files lie that belong to it.
    """

    kind: str
    facts: dict[str, Any]
    folder: Path

    def delivered(self) -> None:
        """Forgets it."""
        gone = self.folder.with_suffix(UNFINISHED)  # at once, where the folder itself would lose its files one by one
        os.replace(self.folder, gone)
        shutil.rmtree(gone)

    def set_aside(self, refused: Path) -> None:
        """Keeps it in a folder where it is not tried again."""
        refused.mkdir(exist_ok=True)
        os.replace(self.folder, refused / self.folder.name)


class Journal:
    """The journal in a folder; `new` makes one, `all` finds those that are there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lock = filelock.FileLock(folder / "lock")
        self.outbox = folder / "outbox"
        self.refused = folder / "refused"
        self.checkpoints = folder / "checkpoints"
        self._number = max((int(path.name) for path in self._events()), default=0)
        self._one_at_a_time = threading.RLock()  # the training, the system metrics and the checkpoints tell from threads

    @classmethod
    def new(cls, checkpoints: Path | None = None, said: Mapping[str, int] | None = None, **facts: Any) -> "Journal":
        """A journal of a run, locked by this process.

        Args:
            checkpoints: a folder of those that the run goes on from.
            said: {metric: the last step that was told}.
            facts: what is known of the run.
        """
        folder = ROOT / uuid.uuid4().hex
        (folder / "outbox").mkdir(parents=True)
        journal = cls(folder)
        journal.lock.acquire()
        if checkpoints is not None:
            shutil.copytree(checkpoints, journal.checkpoints)
        _replace(folder / "said.json", json.dumps(dict(said or {})))
        journal.know(**facts)  # last: from now on it is there
        return journal

    @staticmethod
    def all() -> "list[Journal]":
        """Those in the working directory, the newest first."""
        for gone in ROOT.glob(f"*{REMOVED}"):
            shutil.rmtree(gone, ignore_errors=True)
        found = []
        for path in ROOT.glob("*/journal.json"):
            with contextlib.suppress(FileNotFoundError):  # another process may be done with it this moment
                found.append((path.stat().st_mtime_ns, path.parent))
        return [Journal(folder) for _, folder in sorted(found, reverse=True)]

    def claim(self) -> bool:
        """Locks it, unless a process holds it: then that is alive."""
        try:
            self.lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        if not self.facts:
            self.remove()  # another process was done with it; locking has made the folder again
            return False
        for unfinished in self.outbox.glob(f"*{UNFINISHED}"):
            shutil.rmtree(unfinished)
        return True

    def reserve(self) -> None:
        """Keeps some room."""
        if not (self.folder / "reserve").exists():
            (self.folder / "reserve").write_bytes(os.urandom(RESERVE))

    def spend_reserve(self) -> None:
        """Makes use of it."""
        (self.folder / "reserve").unlink(missing_ok=True)

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the run; nothing once the journal is removed."""
        try:
            return json.loads((self.folder / "journal.json").read_text())
        except FileNotFoundError:
            return {}

    def know(self, **facts: Any) -> None:
        """Adds to what is known; what is None is known no longer."""
        with self._one_at_a_time:
            known = self.facts | facts
            text = json.dumps({name: value for name, value in known.items() if value is not None})
            _replace(self.folder / "journal.json", text)

    def metrics(self, values: Mapping[str, float], step: int, time: int) -> None:
        """Adds an event of those of the metrics that were not told for this step before."""
        with self._one_at_a_time:
            new = {name: value for name, value in values.items() if self._said.get(name, -1) < step}
            if new:
                with self.event(METRICS, values=new, step=step, time=time):
                    pass
                self._said.update(dict.fromkeys(new, step))
                _replace(self.folder / "said.json", json.dumps(self._said))

    def last_step(self, prefix: str) -> int:
        """The last step that was told of metrics of this prefix; -1 if none was."""
        with self._one_at_a_time:
            return max((step for name, step in self._said.items() if name.startswith(prefix)), default=-1)

    @functools.cached_property
    def _said(self) -> dict[str, int]:
        """What is noted, and what is in the outbox: a process may have been killed before it noted that."""
        said = json.loads((self.folder / "said.json").read_text())
        for event in self.pending():
            if event.kind == METRICS:
                said |= {name: max(said.get(name, -1), event.facts["step"]) for name in event.facts["values"]}
        return said

    @contextlib.contextmanager
    def event(self, kind: str, **facts: Any) -> Iterator[Path]:
        """Adds an event at the end of the block, in which files can be put into the folder that is its."""
        with self._one_at_a_time:
            self._number += 1
            unfinished = self.outbox / f"{self._number:08d}{UNFINISHED}"
        unfinished.mkdir()
        try:
            yield unfinished
            (unfinished / "event.json").write_text(json.dumps({"kind": kind, **facts}))
            os.replace(unfinished, unfinished.with_suffix(""))
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    @property
    def empty(self) -> bool:
        """Whether nothing is left to be told."""
        return not self._events()

    def pending(self) -> list[Event]:
        """What is still to be told, in order."""
        events = []
        with self._one_at_a_time:
            for folder in self._events():
                with contextlib.suppress(FileNotFoundError):  # delivered this moment
                    facts = json.loads((folder / "event.json").read_text())
                    events.append(Event(facts.pop("kind"), facts, folder))
        return events

    @contextlib.contextmanager
    def put_away(self) -> Iterator[None]:
        """Afterwards forgets a run that is over, once all is told; leaves another one for whoever goes on with it."""
        try:
            yield
        finally:
            if self.facts.get("over") and self.empty and not self.refused.exists():
                self.remove()
            else:
                self.lock.release()

    def remove(self) -> None:
        """Forgets the run."""
        gone = self.folder.with_suffix(REMOVED)
        os.replace(self.folder, gone)
        shutil.rmtree(gone, ignore_errors=True)
        self.lock.release(force=True)

    def _events(self) -> list[Path]:
        return sorted(path for path in self.outbox.glob("*") if path.suffix != UNFINISHED)


@contextlib.contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Lets one process of the working directory do something, while the others wait for it."""
    ROOT.parent.mkdir(exist_ok=True)
    with filelock.FileLock(ROOT.parent / f".{name}.lock"):
        yield


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_suffix(UNFINISHED)
    unfinished.write_text(text)
    os.replace(unfinished, path)
