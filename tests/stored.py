"""Access to what commands store in a folder: runs in MLflow's database, and outboxes."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.entities import Run

from src.tracking import baseline_runs
from src.tracking.client import create_client


def client(folder: Path) -> mlflow.MlflowClient:
    """A client of the database in a folder."""
    return create_client(f"sqlite:///{folder / 'mlflow.db'}")


def runs(source: Path | mlflow.MlflowClient, experiment: str | None = None) -> list[Run]:
    """The runs in a folder or of a client, of one experiment or of all; newest first. Those of baselines are left out."""
    return [run for run in _all_runs(source, experiment) if run.data.tags.get("kind") != baseline_runs.KIND]


def runs_of_baselines(source: Path | mlflow.MlflowClient, experiment: str | None = None) -> list[Run]:
    """The runs that record baselines, newest first."""
    return [run for run in _all_runs(source, experiment) if run.data.tags.get("kind") == baseline_runs.KIND]


def _all_runs(source: Path | mlflow.MlflowClient, experiment: str | None) -> list[Run]:
    store = client(source) if isinstance(source, Path) else source
    experiments = [store.get_experiment_by_name(experiment)] if experiment else store.search_experiments()
    return store.search_runs([each.experiment_id for each in experiments])


def steps(store: mlflow.MlflowClient, run: Run, metric: str = "epoch/val/loss") -> list[int]:
    """The steps at which a metric was logged."""
    return [point.step for point in store.get_metric_history(run.info.run_id, metric)]


def artifacts(store: mlflow.MlflowClient, run_id: str, path: str | None = None) -> Iterator[str]:
    """The paths of all artifacts of a run."""
    for item in store.list_artifacts(run_id, path):
        yield from artifacts(store, run_id, item.path) if item.is_dir else [item.path]


def unfinished(folder: Path) -> list[Path]:
    """The outboxes in a folder: of runs that have not ended, or are not uploaded completely."""
    return [path for path in (folder / "mlruns/unfinished").glob("*") if path.is_dir()]
