"""Checkpoints: all that the next step of training depends on, in a file that is there whole or not at all.

A file holds the values of the model's variables (weights, statistics, the states of its random numbers), of the optimizer's and
of the metrics', what callbacks have to remember, and the place in the training: epoch and step. The order of the examples
follows from the seed and that place. On a device whose operations are deterministic, a run that goes on from a checkpoint
computes what it would have computed, bit for bit.
"""

import contextlib
import json
import logging
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from src import signals
from src.config import schema
from src.errors import ResumableError
from src.metrics import Logs
from src.training import strategies

log = logging.getLogger(__name__)

KEPT = 2  # files: the newest, and the one before it, in case that one cannot be read
FACTS = "facts"


class Remembers(Protocol):
    """A callback that has something to remember: a checkpoint asks for it, and hands it back."""

    def memory(self) -> dict[str, Any]:
        """{name: number, None, or list of arrays}."""

    def remember(self, memory: dict[str, Any]) -> None:
        """Takes back what `memory` gave."""


@dataclass(frozen=True)
class State:
    """The state of a training, in the memory of this process.

    Attributes:
        epoch: that is running, counted from 0.
        step: steps of it that are done, at least 1.
        arrays: by name.
        facts: the rest: numbers and names.
    """

    epoch: int
    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def capture(model: keras.Model, callbacks: Sequence[Remembers], epoch: int, step: int, seconds: float = 0.0) -> State:
    """The state of a training after `step` steps of an epoch, which has taken so many seconds."""
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {"epoch": epoch, "step": step, "seconds": seconds, "variables": [], "callbacks": []}
    for number, variable in enumerate(_variables(model)):
        parts = strategies.copies(variable)
        facts["variables"].append(_kind(variable))
        arrays |= {f"variable/{number}/{copy}": part.numpy() for copy, part in enumerate(parts)}
    for number, callback in enumerate(callbacks):
        told = {}
        for name, value in callback.memory().items():
            if isinstance(value, list):
                arrays |= {f"callback/{number}/{name}/{index}": array for index, array in enumerate(value)}
                value = {"arrays": len(value)}
            told[name] = value
        facts["callbacks"].append(told)
    return State(epoch, step, arrays, facts)


def restore(state: State, model: keras.Model, callbacks: Sequence[Remembers]) -> None:
    """Puts a training into a state.

    Raises:
        ResumableError: the state is that of another model.
    """
    variables = _variables(model)
    if [_kind(variable) for variable in variables] != state.facts["variables"]:
        raise ResumableError(
            "The checkpoint is that of another model or another number of replicas: the code has changed since; "
            "type resume=never to start afresh."
        )
    for number, variable in enumerate(variables):
        for copy, part in enumerate(strategies.copies(variable)):
            part.assign(state.arrays[f"variable/{number}/{copy}"])
    for number, (callback, told) in enumerate(zip(callbacks, state.facts["callbacks"])):
        memory = {}
        for name, value in told.items():
            if isinstance(value, dict):
                value = [state.arrays[f"callback/{number}/{name}/{index}"] for index in range(value["arrays"])]
            memory[name] = value
        callback.remember(memory)


def _kind(variable: keras.Variable) -> list:
    """[shape, type, number of copies]: what has to be equal for a value to fit. Names would not do, Keras numbers them."""
    return [list(variable.shape), variable.dtype, len(strategies.copies(variable))]


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Every variable that training changes, once."""
    found = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return list({id(variable): variable for variable in found}.values())


# --- files ----------------------------------------------------------------------------------------------------------


def write(state: State, folder: Path) -> Path:
    """Writes a checkpoint, and then removes old ones. Interrupted at any moment it leaves those that were there.

    Raises:
        OSError: it could not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{state.epoch:06d}-{state.step:08d}.npz"
    unfinished = path.with_suffix(".unfinished")
    facts = np.frombuffer(json.dumps(state.facts).encode(), np.uint8)
    for left in folder.glob("*.unfinished"):  # by a process that was killed
        left.unlink()
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, **{**state.arrays, FACTS: facts})  # type: ignore[arg-type]  # no array is named allow_pickle
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    for old in _files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read(folder: Path) -> State | None:
    """The newest checkpoint of a folder that can be read; None if there is none."""
    known = []
    for path in folder.glob("*.npz"):
        with _may_be_broken(path), np.load(path, allow_pickle=False) as file:
            facts = json.loads(file[FACTS].tobytes())
            known.append(((facts["epoch"], facts["step"]), str(path), facts))
    for (epoch, step), name, facts in sorted(known, key=lambda found: found[:2], reverse=True):
        with _may_be_broken(name), np.load(name, allow_pickle=False) as file:
            return State(epoch, step, {array: file[array] for array in file.files if array != FACTS}, facts)
    return None


@contextlib.contextmanager
def _may_be_broken(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("The checkpoint %s cannot be read (%s).", path, error)


def _files(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("*.npz"), reverse=True)


# --- in a training --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keeper:
    """Where checkpoints are kept.

    Attributes:
        folder: of the files.
        resumed: the state to go on from.
        saved: told the path of each file, in the thread that has written it.
        failed: told why one could not be written.
    """

    folder: Path
    resumed: State | None = None
    saved: Callable[[Path], None] = lambda path: None
    failed: Callable[[OSError], None] = lambda error: None

    @property
    def spent(self) -> float:
        """Seconds of training up to the state to go on from."""
        return self.resumed.facts["seconds"] if self.resumed else 0.0


class Checkpoints(keras.callbacks.Callback):
    """Saves the state of a training from time to time, and puts a training that goes on into the state that was saved.

    A training that is asked to stop is saved first. This has to be the last of the callbacks that change anything: what is
    saved after a step is what all the others have made of it.

    Args:
        keeper: keeps them.
        chosen: how often.
        callbacks: those that have something to remember.
    """

    def __init__(self, keeper: Keeper, chosen: schema.Checkpoint, callbacks: Sequence[Remembers]):
        super().__init__()
        self.keeper, self.chosen, self.callbacks, self.resumed = keeper, chosen, callbacks, keeper.resumed
        self.writer: threading.Thread | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Starts the clock."""
        self.began = time.monotonic() - self.keeper.spent
        self.last_time, self.steps, self.writing = time.monotonic(), 0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Of a training that goes on, the steps that are done are passed over."""
        self.epoch = epoch
        if self.resumed is not None:
            self.train_function, logs = self.model.train_function, self.model.get_metrics_result()
            self.model.train_function = lambda iterator: logs

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Saves the state, if that is due; after the last step that is passed over goes into the one that was saved."""
        if self.resumed is not None:
            if batch + 1 == self.resumed.step:
                restore(self.resumed, self.model, self.callbacks)
                self.model.train_function, self.resumed = self.train_function, None
            return
        self.steps += 1
        # A state is safe once its file is there, so one is taken the sooner, the longer that takes.
        since = self.steps if self.chosen.unit == "steps" else time.monotonic() - self.last_time + self.writing
        if self.chosen.every is not None and (since >= self.chosen.every or signals.stop_requested()):
            self.save(batch + 1)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Leaves no file half written."""
        self.wait()

    def save(self, step: int) -> None:
        """Copies the state, which stops the training for that long, and writes it: where seconds count, in the background."""
        state = capture(self.model, self.callbacks, self.epoch, step, time.monotonic() - self.began)
        self.wait()
        self.writer = threading.Thread(target=self._write, args=(state,), name="checkpoint")
        self.writer.start()
        self.last_time, self.steps = time.monotonic(), 0
        if self.chosen.unit == "steps":
            self.wait()

    def wait(self) -> None:
        """Until the last file is written."""
        if self.writer is not None:
            self.writer.join()

    def _write(self, state: State) -> None:
        began = time.monotonic()
        try:
            path = write(state, self.keeper.folder)
        except OSError as error:
            log.warning("A checkpoint could not be written (%s); the one before it stands.", error)
            self.keeper.failed(error)
        else:
            self.writing = time.monotonic() - began
            self.keeper.saved(path)
