"""What a run keeps on this machine until it has ended and MLflow knows all of it: who it is, its checkpoints, and what is still
to be told, in order. It is on disk before anything is sent, so neither this process nor a tracking server can take it along.

    mlruns/unfinished/<name>/
        journal.json    whose journal it is, and what is known of the run
        lock            held by the process that runs; the system lets go of it when that is gone, whatever way it went
        said.json       {metric: the last step that was told}, so that a run that goes on tells nothing twice
        checkpoints/    see src/checkpoint.py
        outbox/         one folder for each event, numbered: event.json and the files that belong to it
"""

import contextlib
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
UNFINISHED = ".unfinished"


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

    def set_aside(self) -> None:
        """Keeps it where it is not tried again."""
        refused = self.folder.parent.parent / "refused"
        refused.mkdir(exist_ok=True)
        os.replace(self.folder, refused / self.folder.name)


class Journal:
    """The journal in a folder; `new` makes one, `all` finds those that are there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lock = filelock.FileLock(folder / "lock")
        self.outbox = folder / "outbox"
        self.checkpoints = folder / "checkpoints"
        self._number = max((int(path.name) for path in self._events()), default=0)
        self._one_at_a_time = (
            threading.Lock()
        )  # the training, the system metrics and the checkpoints tell from threads of their own

    @classmethod
    def new(cls, **facts: Any) -> "Journal":
        """A journal of a run that begins, locked by this process."""
        folder = ROOT / uuid.uuid4().hex
        (folder / "outbox").mkdir(parents=True)
        journal = cls(folder)
        journal.lock.acquire()
        journal.know(**facts)
        return journal

    @staticmethod
    def all() -> "list[Journal]":
        """Those in the working directory, the newest first."""
        found = sorted(ROOT.glob("*/journal.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [Journal(path.parent) for path in found]

    def claim(self) -> bool:
        """Locks it, unless a process holds it: then that is alive."""
        try:
            self.lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        return (self.folder / "journal.json").exists()

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the run."""
        return json.loads((self.folder / "journal.json").read_text())

    def know(self, **facts: Any) -> None:
        """Adds to what is known; what is None is known no longer."""
        path = self.folder / "journal.json"
        with self._one_at_a_time:
            known = (self.facts if path.exists() else {}) | facts
            _replace(path, json.dumps({name: value for name, value in known.items() if value is not None}))

    def news(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """Those of the metrics that were not told for this step; they count as told from now on."""
        with self._one_at_a_time:
            said = self._said()
            new = {name: value for name, value in values.items() if said.get(name, -1) < step}
            if new:
                self.say(said | dict.fromkeys(new, step))
            return new

    def say(self, steps: Mapping[str, int]) -> None:
        """Notes the last step of each metric that was told."""
        _replace(self.folder / "said.json", json.dumps(dict(steps)))

    def last_step(self, prefix: str) -> int:
        """The last step that was told of metrics of this prefix; -1 if none was."""
        return max((step for name, step in self._said().items() if name.startswith(prefix)), default=-1)

    def _said(self) -> dict[str, int]:
        path = self.folder / "said.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @contextlib.contextmanager
    def event(self, kind: str, **facts: Any) -> Iterator[Path]:
        """Adds an event at the end of the block, in which files can be put into the folder that is its."""
        with self._one_at_a_time:
            self._number += 1
            unfinished = self.outbox / f"{self._number:08d}{UNFINISHED}"
        unfinished.mkdir()
        yield unfinished
        (unfinished / "event.json").write_text(json.dumps({"kind": kind, **facts}))
        os.replace(unfinished, unfinished.with_suffix(""))

    @property
    def empty(self) -> bool:
        """Whether nothing is left to be told."""
        return not self._events()

    def pending(self) -> list[Event]:
        """What is still to be told, in order."""
        events = []
        for folder in self._events():
            facts = json.loads((folder / "event.json").read_text())
            events.append(Event(facts.pop("kind"), facts, folder))
        return events

    def remove(self) -> None:
        """Forgets the run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.release(force=True)

    def _events(self) -> list[Path]:
        return sorted(path for path in self.outbox.glob("*") if path.suffix != UNFINISHED)


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_suffix(UNFINISHED)
    unfinished.write_text(text)
    os.replace(unfinished, path)
