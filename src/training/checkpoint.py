"""Checkpoints: the complete state of training in one file, written atomically.

A file holds the variables of the model (weights, statistics, states of random number generators), of the optimizer and of the
metrics, the state of callbacks, and the position: epoch and step. The order of the examples follows from the seed and the
position. On a device with deterministic operations, a resumed run gives the same weights as an uninterrupted one, bit for bit.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from src import signals
from src.cluster import Cluster
from src.config import schema
from src.errors import ResumableError
from src.metrics import Logs
from src.training import strategies
from src.training.agreement import Agreement
from src.training.execution import Execution

log = logging.getLogger(__name__)

MAX_TO_KEEP = 2  # files: the newest, and the one before it in case the newest cannot be read
METADATA = "facts"  # name of the metadata within a file


class Stateful(Protocol):
    """A callback with a state that is part of a checkpoint."""

    def get_state(self) -> dict[str, Any]:
        """{name: number, None, or list of arrays}."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""


@dataclass(frozen=True)
class TrainingState:
    """The state of training after a step.

    Attributes:
        epoch: the running epoch, counted from 0.
        step: number of completed steps of the epoch, at least 1.
        arrays: values of variables, and arrays of callbacks, by name.
        metadata: everything else, as JSON: position, seconds, shapes of variables, numbers of callbacks.
    """

    epoch: int
    step: int
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def capture(model: keras.Model, callbacks: Sequence[Stateful], epoch: int, step: int, seconds: float = 0.0) -> TrainingState:
    """Copy the state of training after `step` steps of an epoch, and `seconds` of training in all."""
    arrays: dict[str, np.ndarray] = {}
    metadata: dict[str, Any] = {"epoch": epoch, "step": step, "seconds": seconds, "variables": [], "callbacks": []}
    for number, variable in enumerate(_variables(model)):
        replicas = strategies.replica_values(variable)
        metadata["variables"].append(_signature(variable))
        arrays |= {f"variable/{number}/{replica}": value.numpy() for replica, value in enumerate(replicas)}
    for number, callback in enumerate(callbacks):
        callback_state = {}
        for name, value in callback.get_state().items():
            if isinstance(value, list):
                arrays |= {f"callback/{number}/{name}/{index}": array for index, array in enumerate(value)}
                value = {"arrays": len(value)}
            callback_state[name] = value
        metadata["callbacks"].append(callback_state)
    return TrainingState(epoch, step, arrays, metadata)


def restore(state: TrainingState, model: keras.Model, callbacks: Sequence[Stateful]) -> None:
    """Set model, optimizer, metrics and callbacks to a state. Of metrics each worker of a cluster takes what its replicas had.

    Raises:
        ResumableError: the state is that of another model.
    """
    variables = _variables(model)
    if [_signature(variable) for variable in variables] != state.metadata["variables"]:
        raise ResumableError(
            "The checkpoint is that of another model or another number of replicas: the code has changed since; "
            "type resume=never to start afresh."
        )
    share, of_metrics = strategies.share_of(model.distribute_strategy), _numbers_of_metrics(model)
    for number, variable in enumerate(variables):
        first = share.index * share.replicas if share and number in of_metrics else 0
        for replica, value in enumerate(strategies.replica_values(variable), start=first):
            value.assign(state.arrays[f"variable/{number}/{replica}"])
    for number, (callback, stored) in enumerate(zip(callbacks, state.metadata["callbacks"])):
        callback_state = {}
        for name, value in stored.items():
            if isinstance(value, dict):
                value = [state.arrays[f"callback/{number}/{name}/{index}"] for index in range(value["arrays"])]
            callback_state[name] = value
        callback.set_state(callback_state)


def _signature(variable: keras.Variable) -> list:
    """[shape, dtype, number of replicas]: equal if a value fits. Names are not compared, since Keras numbers them."""
    return [list(variable.shape), variable.dtype, len(strategies.replica_values(variable))]


def _variables(model: keras.Model) -> list[keras.Variable]:
    """All variables that training changes, without duplicates."""
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return list({id(variable): variable for variable in variables}.values())


def _numbers_of_metrics(model: keras.Model) -> set[int]:
    """Which of these are variables of metrics: those that have another value on each replica."""
    of_metrics = {id(variable) for variable in model.metrics_variables}
    return {number for number, variable in enumerate(_variables(model)) if id(variable) in of_metrics}


def gather(state: TrainingState, model: keras.Model, cluster: Cluster) -> TrainingState | None:
    """The state of all workers, on the chief: its own, with the metrics of the replicas of all; None on the others.

    Args:
        state: of this worker.
        model: that is trained.
        cluster: the workers.
    """
    of_metrics = _numbers_of_metrics(model)
    own = {name: array for name, array in state.arrays.items() if _number(name) in of_metrics}
    gathered = cluster.gather(_to_bytes(own))
    arrays = dict(state.arrays)
    for worker, content in enumerate(gathered):
        for name, array in _from_bytes(content).items():
            number, replica = name.split("/")[1:]
            replicas = len(strategies.replica_values(_variables(model)[int(number)]))
            arrays[f"variable/{number}/{worker * replicas + int(replica)}"] = array
    return dataclasses.replace(state, arrays=arrays) if gathered else None


def _number(name: str) -> int | None:
    kind, number = name.split("/")[:2]
    return int(number) if kind == "variable" else None


def share_with_workers(state: TrainingState | None, cluster: Cluster) -> TrainingState | None:
    """The state that the chief passes, on all workers: where the run resumes."""
    arrays = {} if state is None else {**state.arrays, METADATA: _encode(state.metadata)}
    content = _from_bytes(cluster.broadcast(_to_bytes(arrays)))
    if not content:
        return None
    metadata = json.loads(content.pop(METADATA).tobytes())
    return TrainingState(metadata["epoch"], metadata["step"], content, metadata)


def _to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
    return buffer.getvalue()


def _from_bytes(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)


def _encode(metadata: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(metadata).encode(), np.uint8)


# --- files ----------------------------------------------------------------------------------------------------------


def write(state: TrainingState, folder: Path) -> Path:
    """Write a checkpoint atomically, then remove old ones.

    Returns:
        The path of the file.

    Raises:
        OSError: it could not be written; the earlier files are still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{state.epoch:06d}-{state.step:08d}.npz"
    unfinished = path.with_suffix(".unfinished")
    metadata = _encode(state.metadata)
    for leftover in folder.glob("*.unfinished"):  # of a process that was killed
        leftover.unlink()
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, **{**state.arrays, METADATA: metadata})  # type: ignore[arg-type]  # no array is named allow_pickle
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    for old in _files(folder)[MAX_TO_KEEP:]:
        old.unlink(missing_ok=True)
    return path


def read(folder: Path) -> TrainingState | None:
    """Read the newest checkpoint of a folder that is intact; None if there is none."""
    candidates = []
    for path in folder.glob("*.npz"):
        with _skip_if_broken(path), np.load(path, allow_pickle=False) as file:
            metadata = json.loads(file[METADATA].tobytes())
            candidates.append(((metadata["epoch"], metadata["step"]), str(path), metadata))
    for (epoch, step), name, metadata in sorted(candidates, key=lambda candidate: candidate[:2], reverse=True):
        with _skip_if_broken(name), np.load(name, allow_pickle=False) as file:
            return TrainingState(epoch, step, {array: file[array] for array in file.files if array != METADATA}, metadata)
    return None


@contextlib.contextmanager
def _skip_if_broken(path: Path | str) -> Iterator[None]:
    """Turn an error that shows that a file is truncated, or is no checkpoint, into a warning."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("The checkpoint %s cannot be read (%s).", path, error)


def _files(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    return sorted(folder.glob("*.npz"), reverse=True)


# --- during training ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckpointManager:
    """The checkpoints of a run.

    Attributes:
        folder: of the files.
        resumed: the state to resume from; None: training starts anew.
        on_saved: called with the path of each file, in the thread that has written it.
        on_failed: called with the error if a file could not be written.
    """

    folder: Path
    resumed: TrainingState | None = None
    on_saved: Callable[[Path], None] = lambda path: None
    on_failed: Callable[[OSError], None] = lambda error: None

    @property
    def elapsed(self) -> float:
        """Seconds of training before the state to resume from."""
        return self.resumed.metadata["seconds"] if self.resumed else 0.0


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves checkpoints at intervals and before a requested stop; restores the state of a run that resumes.

    It has to come after all callbacks that change the model, since a checkpoint holds the state after them.

    Args:
        manager: of the checkpoints.
        settings: the interval.
        execution: of the steps.
        callbacks: those with a state.
        agreement: of several workers, which save after the same step; None: there is only this one.
    """

    def __init__(
        self, manager: CheckpointManager, settings: schema.Checkpoint, execution: Execution, callbacks: Sequence[Stateful],
        agreement: Agreement | None = None,
    ):  # fmt: skip
        super().__init__()
        self.execution, self.agreement = execution, agreement
        self.manager, self.settings, self.callbacks, self.resumed = manager, settings, callbacks, manager.resumed
        self.write_thread: threading.Thread | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Start the clock."""
        self.start = time.monotonic() - self.manager.elapsed
        self.last_save, self.steps_since_save, self.write_seconds = time.monotonic(), 0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """In a run that resumes, restore the state, after Keras has reset the metrics."""
        self.epoch = epoch
        if self.resumed is not None:
            restore(self.resumed, self.model, self.callbacks)
            self.resumed = None

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Save a checkpoint if one is due."""
        if not self.execution.taken:
            return
        self.steps_since_save += self.execution.taken
        # What counts is when the file is complete: the longer writing takes, the sooner it starts.
        seconds = time.monotonic() - self.last_save + self.write_seconds
        elapsed = self.steps_since_save if self.settings.unit == "steps" else seconds
        due = self.settings.every is not None and elapsed >= self.settings.every
        if self.agreement:  # steps are counted alike everywhere, clocks are not
            agreed = self.agreement.decide(self.execution.step, due)
            due = agreed or (due and self.settings.unit == "steps")
        else:
            due = due or signals.stop_requested()
        if due and self.settings.every is not None:
            self.save(self.execution.step)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Wait for the file that is being written."""
        self.wait()

    def save(self, step: int) -> None:
        """Copy the state and write it, in the background if the interval is in seconds; copying blocks training."""
        state = capture(self.model, self.callbacks, self.epoch, step, time.monotonic() - self.start)
        of_all = gather(state, self.model, self.agreement.cluster) if self.agreement else state
        self.wait()
        self.last_save, self.steps_since_save = time.monotonic(), 0
        if of_all is None:
            return  # the chief writes it
        self.write_thread = threading.Thread(target=self._write, args=(of_all,), name="checkpoint")
        self.write_thread.start()
        if self.settings.unit == "steps":
            self.wait()

    def wait(self) -> None:
        """Wait until the last file is written."""
        if self.write_thread is not None:
            self.write_thread.join()

    def _write(self, state: TrainingState) -> None:
        start = time.monotonic()
        try:
            path = write(state, self.manager.folder)
        except OSError as error:
            log.warning("A checkpoint could not be written (%s); the previous one is kept.", error)
            self.manager.on_failed(error)
        else:
            self.write_seconds = time.monotonic() - start
            self.manager.on_saved(path)
