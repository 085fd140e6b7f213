"""The results of a sweep's jobs, in files that outlive every process: a sweep that is typed again resumes from them."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from src.config.command_line import COMMAND

FOLDER_VARIABLE = "SWEEP_FOLDER"  # environment variable: the folder of the sweep that this process runs a job of


@dataclass(frozen=True)
class JobResult:
    """How a job has ended.

    Attributes:
        overrides: of the job: {"model": "cnn", …}.
        objective: the monitored metric; None if the job has not finished.
        metrics: test metrics, and what the run cost.
        run_id: MLflow's; None if MLflow has not answered.
        failure: why the job has failed; None unless it has.
        pruned: why a search has pruned the job; None unless it has.
        compared_within: data set and task, "co2, forecasting": its objective is compared with those of the same alone.
    """

    overrides: Mapping[str, str]
    objective: float | None
    metrics: Mapping[str, float]
    run_id: str | None
    failure: str | None = None
    pruned: str | None = None
    compared_within: str = ""

    @property
    def final_objective(self) -> float:
        """The monitored metric of a job that has finished.

        Raises:
            ValueError: it has not.
        """
        if self.objective is None:
            raise ValueError(f"The job with {dict(self.overrides)} has not finished.")
        return self.objective

    def value(self, objective: str) -> float:
        """The value of an objective: the monitored metric, or a cost: parameters, macs, seconds."""
        return self.metrics.get(objective, self.final_objective)


class JobStore:
    """The results of the jobs of a sweep that have ended, one file each.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def current(cls) -> "JobStore | None":
        """The store of the sweep that this process runs a job of; None if it runs none."""
        folder = os.environ.get(FOLDER_VARIABLE)
        return cls(Path(folder)) if folder else None

    @classmethod
    def require_current(cls) -> "JobStore":
        """As `current`, in a process that runs such a job.

        Raises:
            RuntimeError: it does not.
        """
        store = cls.current()
        if store is None:
            raise RuntimeError(f"This process runs no job of a sweep: {FOLDER_VARIABLE} is not set.")
        return store

    def start(self, command: str, retry_failed: bool = True) -> None:
        """Make this the store of the current sweep.

        Args:
            command: as which the sweep was typed.
            retry_failed: forget the jobs that have failed, so that they run again.
        """
        self.folder.mkdir(exist_ok=True)
        os.environ |= {FOLDER_VARIABLE: str(self.folder.resolve()), COMMAND: command}
        for path, result in self._read().items():
            if result.failure and retry_failed:
                path.unlink()

    @property
    def study_path(self) -> Path:
        """The file of a search's Optuna study."""
        return self.folder.parent / "study.log"

    @property
    def sweep(self) -> dict[str, str]:
        """The name and the experiment of the sweep's outbox, and own run."""
        return {"journal": self.folder.parent.name, "experiment": self._metadata["experiment"]}

    @property
    def number(self) -> int:
        """The number of all jobs of the sweep."""
        return self._metadata["jobs"]

    @property
    def _metadata(self) -> dict[str, Any]:
        return json.loads((self.folder.parent / "metadata.json").read_text())

    def finished(self, fingerprint: str) -> JobResult | None:
        """The result of the job with these settings, if it has finished or was pruned."""
        result = self._read().get(self.folder / f"{fingerprint}.json")
        return result if result and not result.failure else None

    def find(self, overrides: Mapping[str, str]) -> JobResult | None:
        """The latest result of a job with these overrides."""
        matches = [result for result in self.all() if overrides.items() <= result.overrides.items()]
        return matches[-1] if matches else None

    def failed(self) -> list[JobResult]:
        """The results of the jobs that have failed since the sweep was last typed."""
        return [result for result in self.all() if result.failure]

    def failures(self) -> list[str]:
        """Why they have failed."""
        return [result.failure for result in self.all() if result.failure]

    def lock(self, fingerprint: str) -> filelock.BaseFileLock:
        """Held while a job runs: its process may outlive the sweep, which is then typed again."""
        return filelock.FileLock(self.folder / f"{fingerprint}.lock")

    def save(self, fingerprint: str, result: JobResult) -> None:
        """Store the result of the job with these settings."""
        path = self.folder / f"{fingerprint}.json"
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(dataclasses.asdict(result)))
        os.replace(unfinished, path)

    def all(self) -> Sequence[JobResult]:
        """All results, in the order in which the jobs have ended."""
        return list(self._read().values())

    def _read(self) -> dict[Path, JobResult]:
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return {path: JobResult(**json.loads(path.read_text())) for path in paths}
