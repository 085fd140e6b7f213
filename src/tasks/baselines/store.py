"""Computes the baselines of a task once, and keeps them in a file beside the data, for all runs on the same examples.

    <folder of prepared data>/baselines/<digest>.npz

The digest is that of all that the results depend on: examples, settings of the task, the code of tasks and data sets, versions.
A file appears as a whole, and only if no baseline has failed; one that cannot be read is computed again. It can be deleted.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from src import terminal
from src.config.tasks import TaskSettings
from src.datasets import Data
from src.tasks.base import Metrics, Task
from src.tasks.baselines.interface import SkippedError

log = logging.getLogger(__name__)

FOLDER, SUFFIX = "baselines", ".npz"
DESCRIPTION = " description"  # the array of a file that holds all but predictions; no baseline has a name with a space
SOURCES = Path(__file__).parents[2]  # src/
PACKAGES = ("numpy", "scikit-learn", "statsmodels", "sacrebleu")  # that compute the baselines


@dataclass(frozen=True)
class BaselineResult:
    """The result of one baseline.

    Attributes:
        metrics: on the test set.
        predictions: for the test set, as `Task.metrics` takes them.
        note: what there is to say about how it was fitted.
        seconds: that it took.
    """

    metrics: Metrics
    predictions: np.ndarray
    note: str
    seconds: float


@dataclass(frozen=True)
class BaselineResults:
    """The results of all baselines of a task.

    Attributes:
        results: {name: result}.
        skipped: {name: why} of baselines that would have taken too long.
        failed: {name: error} of baselines that failed.
    """

    results: Mapping[str, BaselineResult]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]

    @property
    def metrics(self) -> dict[str, Metrics]:
        """{name: metrics on the test set}."""
        return {name: result.metrics for name, result in self.results.items()}

    @property
    def predictions(self) -> dict[str, np.ndarray]:
        """{name: predictions for the test set}."""
        return {name: result.predictions for name, result in self.results.items()}

    @property
    def seconds(self) -> float:
        """Seconds that all of them took."""
        return sum(result.seconds for result in self.results.values())


NONE = BaselineResults({}, {}, {})


def digest_of(task: Task, settings: TaskSettings, data: Data, limit: int | None) -> str:
    """A digest of all that the results of baselines depend on: 32 hexadecimal digits.

    Args:
        task: made from the other arguments.
        settings: of the task.
        data: the data set.
        limit: examples that are kept of each split; None: all.
    """
    code = hashlib.blake2b(digest_size=16)
    elsewhere = {getattr(sys.modules[owner.__module__], "__file__", None) for owner in type(task).__mro__}
    files = {*(SOURCES / "tasks").rglob("*.py"), *(SOURCES / "datasets").glob("*.py"), *map(Path, filter(None, elsewhere))}
    for path in sorted(files):
        code.update(path.read_bytes())
    content = {
        "data": [split.digest for split in data.splits.values()],
        "task": type(task).__qualname__,
        "settings": {name: getattr(settings, name) for name in task.baseline_settings or type(settings).model_fields},
        "limit": limit,
        "other": task.baseline_dependencies(),
        "code": code.hexdigest(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def load_or_compute(task: Task, digest: str, folder: Path | None) -> BaselineResults:
    """The results of a task's baselines, computed unless they are in the folder; parallel jobs compute them once.

    Args:
        task: whose baselines.
        digest: of `digest_of`.
        folder: of the prepared data; None: there is none, and nothing is kept.
    """
    if folder is None:
        return compute(task)
    path = folder / FOLDER / f"{digest}{SUFFIX}"
    if (kept := _read(path)) is not None:
        return kept
    if not os.access(path.parent if path.parent.exists() else folder, os.W_OK):
        log.info("The baselines cannot be kept in %s, which is read-only, so each run computes them.", folder)
        return compute(task)
    path.parent.mkdir(exist_ok=True)
    with _lock(path):
        if (kept := _read(path)) is not None:
            return kept
        computed = compute(task)
        if not computed.failed:
            _write(path, computed)
    return computed


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file; wait while another process holds it."""
    lock = filelock.FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        with terminal.phase("Waiting for a parallel job, which fits the baselines"):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def compute(task: Task) -> BaselineResults:
    """Compute the baselines of a task; one that fails costs a warning."""
    declared = task.baselines()
    results, skipped, failed = {}, {}, {}
    with terminal.phase("Fitting the baselines", total=len(declared)) as phase:
        for number, (name, predict) in enumerate(declared.items()):
            phase.update(number, note=name.replace("_", " "))
            start = time.perf_counter()
            try:
                prediction = predict()
                metrics = task.metrics(task.test, prediction.values)
            except SkippedError as reason:
                skipped[name] = str(reason)
            except Exception as error:
                log.warning("The baseline '%s' failed (%s: %s); the others are kept.", name, type(error).__name__, error)
                log.debug("Traceback", exc_info=True)
                failed[name] = f"{type(error).__name__}: {error}"
            else:
                results[name] = BaselineResult(metrics, prediction.values, prediction.note, time.perf_counter() - start)
    return BaselineResults(results, skipped, failed)


def _write(path: Path, computed: BaselineResults) -> None:
    """Write a file that appears as a whole; a failure costs a message."""
    description = {
        "results": {name: [each.metrics, each.note, each.seconds] for name, each in computed.results.items()},
        "skipped": dict(computed.skipped),
    }
    arrays: dict[str, Any] = {DESCRIPTION: np.array(json.dumps(description))}
    for name, values in computed.predictions.items():
        arrays[name] = values.astype(str) if values.dtype == object else values  # objects would be pickled
    partial = path.with_suffix(f".{os.getpid()}.unfinished")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(partial, path)
    except OSError as error:
        log.info("The baselines cannot be kept in %s (%s).", path.parent, error.strerror)
        partial.unlink(missing_ok=True)


def _read(path: Path) -> BaselineResults | None:
    """The results in a file; None if there is none, or if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            description = json.loads(str(file[DESCRIPTION]))
            results = {
                name: BaselineResult(metrics, file[name], note, seconds)
                for name, (metrics, note, seconds) in description["results"].items()
            }
            return BaselineResults(results, description["skipped"], {})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.info("%s cannot be read (%s), so the baselines are computed again.", path, error)
        return None
