"""The reasons for uses of undocumented parts of MLflow: where one of these tests fails, a public part may do instead."""

import inspect

import mlflow
from mlflow.entities import RunData
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from src.tracking import client, mlflow_patches


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def test_the_step_of_a_last_metric_is_not_public():
    assert {name for name in public(RunData) if "metric" in name} == {"metrics"}
    metric = mlflow.entities.Metric("loss", 0.5, timestamp=7, step=3)
    data = RunData(metrics=[metric])
    assert data.metrics == {"loss": 0.5}
    assert data._metric_objs == [metric]


def test_artifacts_cannot_be_deleted_with_the_public_api():
    assert not [name for name in public(mlflow.MlflowClient) | public(mlflow.artifacts) if "delete_artifact" in name]


def test_a_client_does_not_tag_the_runs_that_it_creates():
    assert "resolve_tags" not in inspect.getsource(mlflow.MlflowClient.create_run)
    assert "resolve_tags" not in public(mlflow) | public(mlflow.tracking) | public(mlflow.MlflowClient)


def test_tags_have_no_public_names():
    names = {"MLFLOW_DATASET_CONTEXT", "MLFLOW_PARENT_RUN_ID", "MLFLOW_RUN_NOTE", "MLFLOW_USER"}
    assert not names & (public(mlflow) | public(mlflow.entities))


def test_saving_a_model_compares_its_requirements_with_what_is_installed(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(mlflow.utils.environment, "warn_dependency_requirement_mismatches", compared.append)

    def save(folder):
        mlflow.pyfunc.save_model(folder, loader_module="json", pip_requirements=["numpy==1.0"])

    save(tmp_path / "compared")
    assert [requirement for requirement in compared[0] if "numpy" in requirement] == ["numpy==1.0"]
    with mlflow_patches.requirements_as_installed():
        save(tmp_path / "as installed")
    assert len(compared) == 1
    requirements = [(tmp_path / name / "requirements.txt").read_text() for name in ("compared", "as installed")]
    assert requirements[0] == requirements[1]


def test_the_monitor_of_mlflow_ends_when_a_server_does_not_answer(monkeypatch):
    attempts = []

    def get_run(mlflow_client, run_id):
        attempts.append(run_id)
        assert len(attempts) < 3  # ends the test where this fails
        raise MlflowException("no answer")

    monkeypatch.setattr(mlflow.MlflowClient, "get_run", get_run)
    SystemMetricsMonitor("a run", sampling_interval=0.01, tracking_uri="http://localhost:9").monitor()
    assert attempts == ["a run"]


def test_permanent_errors_are_errors_of_mlflow():
    for name in client.PERMANENT_ERRORS:
        assert MlflowException("", getattr(mlflow.protos.databricks_pb2, name)).error_code == name
