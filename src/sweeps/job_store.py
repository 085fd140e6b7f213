"""What the jobs of a sweep have come to: files that outlive every process, which the sweep reads when it is typed again."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from src.config.command_line import COMMAND

VARIABLE = "SWEEP_FOLDER"  # of the environment, which tells a job, in whatever process it runs, which sweep it belongs to


@dataclass(frozen=True)
class Job:
    """How a job has ended.

    Attributes:
        overrides: what it was asked for: {"model": "cnn", …}.
        objective: the monitored metric; None if it has not finished.
        metrics: of the test part, and what the run cost.
        run_id: MLflow's; None if MLflow has not answered.
        failure: why it has failed.
        pruned: why it was given up before its end.
    """

    overrides: Mapping[str, str]
    objective: float | None
    metrics: Mapping[str, float]
    run_id: str | None
    failure: str | None = None
    pruned: str | None = None

    @property
    def reached(self) -> float:
        """The monitored metric of a job that has finished."""
        if self.objective is None:
            raise ValueError(f"The job with {dict(self.overrides)} has not finished.")
        return self.objective

    def value(self, objective: str) -> float:
        """Of the metric that is improved, or of what the run cost: parameters, macs, seconds."""
        return self.metrics.get(objective, self.reached)


class Jobs:
    """The jobs of a sweep that have ended, in a folder.

    Args:
        folder: with a file for each.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def current(cls) -> "Jobs | None":
        """Those of the sweep that this process runs a job of."""
        folder = os.environ.get(VARIABLE)
        return cls(Path(folder)) if folder else None

    @classmethod
    def joined(cls) -> "Jobs":
        """As `current`, in a process that does run such a job."""
        jobs = cls.current()
        if jobs is None:
            raise RuntimeError(f"This process runs no job of a sweep: {VARIABLE} is not set.")
        return jobs

    def begin(self, command: str, again: bool = True) -> None:
        """Makes this the current sweep, typed as `command`; what has failed is tried again, unless a search knows better."""
        self.folder.mkdir(exist_ok=True)
        os.environ |= {VARIABLE: str(self.folder.resolve()), COMMAND: command}
        for path, job in self._read().items():
            if job.failure and again:
                path.unlink()

    @property
    def study(self) -> Path:
        """Where a search keeps what it has tried."""
        return self.folder.parent / "study.log"

    @property
    def sweep(self) -> dict[str, str]:
        """The name of the sweep's outbox, and its experiment."""
        metadata = json.loads((self.folder.parent / "metadata.json").read_text())
        return {"journal": self.folder.parent.name, "experiment": metadata["experiment"]}

    def finished(self, fingerprint: str) -> Job | None:
        """The job with these settings, if it has finished, or was given up for good."""
        found = self._read().get(self.folder / f"{fingerprint}.json")
        return found if found and not found.failure else None

    def asked(self, overrides: Mapping[str, str]) -> Job | None:
        """The job that was asked for this, if it has ended."""
        found = [job for job in self.all() if overrides.items() <= job.overrides.items()]
        return found[-1] if found else None

    def failed(self) -> list[Job]:
        """Those that have failed since the sweep was typed the last time."""
        return [job for job in self.all() if job.failure]

    def failures(self) -> list[str]:
        """Why they have failed."""
        return [job.failure for job in self.all() if job.failure]

    def alone(self, fingerprint: str) -> filelock.BaseFileLock:
        """Held while a job runs: a process may have outlived the sweep that began it, when that is typed again."""
        return filelock.FileLock(self.folder / f"{fingerprint}.lock")

    def ended(self, fingerprint: str, job: Job) -> None:
        """Notes how one has ended."""
        path = self.folder / f"{fingerprint}.json"
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(dataclasses.asdict(job)))
        os.replace(unfinished, path)

    def all(self) -> Sequence[Job]:
        """Those that have ended, in the order in which they did."""
        return list(self._read().values())

    def _read(self) -> dict[Path, Job]:
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return {path: Job(**json.loads(path.read_text())) for path in paths}
