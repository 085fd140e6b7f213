"""All uses of parts of MLflow that are private or not documented, each with its reason.

Tests hold the reasons against the installed version: tests/src/tracking/test_mlflow_patches.py.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import mlflow
from mlflow.entities import Metric, Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

# What `mlflow.start_run` tags a run with (user, source, commit); `MlflowClient.create_run` does not.
from mlflow.tracking.context.registry import resolve_tags

# Names of tags that MLflow's UI and queries use; its documentation has the texts, and its API no names for them.
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE, MLFLOW_USER

__all__ = [
    "MLFLOW_DATASET_CONTEXT", "MLFLOW_PARENT_RUN_ID", "MLFLOW_RUN_NOTE", "MLFLOW_USER",
    "delete_artifacts", "last_metrics", "requirements_as_installed", "resolve_tags", "system_metrics_monitors",
]  # fmt: skip


def last_metrics(run: Run) -> list[Metric]:
    """The last value of each metric of a run, with its step and time; the public `run.data.metrics` has the values alone."""
    return list(run.data._metric_objs)


def delete_artifacts(client: mlflow.MlflowClient, run_id: str, folder: str) -> None:
    """Delete a folder of artifacts; the public API can log, list and download artifacts, but not delete them.

    Raises:
        NotImplementedError: the artifact store cannot delete.
    """
    get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts(folder)


@contextlib.contextmanager
def requirements_as_installed() -> Iterator[None]:
    """Save models in the block without comparing their requirements with the installed packages.

    MLflow lists the modules of every installed package for that, which takes most of a second, and has no switch.
    """
    from mlflow.utils import environment

    check = environment.warn_dependency_requirement_mismatches
    environment.warn_dependency_requirement_mismatches = lambda model_requirements: None
    try:
        yield
    finally:
        environment.warn_dependency_requirement_mismatches = check


def system_metrics_monitors() -> list[Any]:
    """The monitors of CPU, disk, network and, where there are, GPUs.

    The public switch, `mlflow.enable_system_metrics_logging`, starts a thread that ends for good when a server fails to answer.
    """
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # NVML is missing, or there is no GPU
        monitors.append(GPUMonitor())
    return monitors
