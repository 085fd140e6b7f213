"""What commands leave in a folder: the runs in MLflow's database, and what is still to be sent."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.entities import Run

from src.tracking import client as server


def client(folder: Path) -> mlflow.MlflowClient:
    """Of the database that commands in a folder make."""
    return server.connected(f"sqlite:///{folder / 'mlflow.db'}")


def runs(of: Path | mlflow.MlflowClient, experiment: str | None = None) -> list[Run]:
    """All runs in a folder or a store, or those of one experiment; the newest first."""
    asked = client(of) if isinstance(of, Path) else of
    found = [asked.get_experiment_by_name(experiment)] if experiment else asked.search_experiments()
    return asked.search_runs([each.experiment_id for each in found])


def steps(of: mlflow.MlflowClient, run: Run, metric: str = "val/loss") -> list[int]:
    """At which steps a metric was logged."""
    return [point.step for point in of.get_metric_history(run.info.run_id, metric)]


def artifacts(of: mlflow.MlflowClient, run_id: str, path: str | None = None) -> Iterator[str]:
    """The paths of all files of a run."""
    for item in of.list_artifacts(run_id, path):
        yield from artifacts(of, run_id, item.path) if item.is_dir else [item.path]


def unfinished(folder: Path) -> list[Path]:
    """The folders of runs that have not ended, or that MLflow does not have as a whole."""
    return [path for path in (folder / "mlruns/unfinished").glob("*") if path.is_dir()]
