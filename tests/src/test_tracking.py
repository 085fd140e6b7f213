"""What a run leaves in MLflow."""

import importlib.metadata
import json
import subprocess

import mlflow
import numpy as np
import pytest
import yaml

from src import datasets, report, run, tasks, tracking
from src.errors import UserError
from tests.conftest import ROOT


@pytest.fixture
def store(here, monkeypatch):
    """An MLflow store of its own: within one process MLflow remembers where `mlflow.db` was."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    return mlflow.MlflowClient()


def only_run(client, experiment):
    (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return found


def artifacts(client, run_id, path=None):
    for found in client.list_artifacts(run_id, path):
        yield from artifacts(client, run_id, found.path) if found.is_dir else [found.path]


@pytest.fixture
def cnn_run(store, here, settings):
    chosen = settings("model=cnn", "training.epochs=2", "dataset.limit=128", "tracking.system_metrics_interval=1")
    log = here / "run.log"
    log.write_text("what was said\n")
    objective = run.run(chosen, log_file=str(log), quiet=True)
    return store, only_run(store, "digits"), chosen, objective


def test_a_run_carries_everything(cnn_run, settings):
    client, found, chosen, objective = cnn_run
    run_id, metrics, tags = found.info.run_id, found.data.metrics, found.data.tags
    assert found.info.status == "FINISHED"
    assert found.data.params == {name: str(value) for name, value in chosen.flat().items()}
    assert (tags["model"], tags["dataset"], tags["task"], tags["strategy"]) == (
        "cnn",
        "digits",
        "image_classification",
        "single",
    )
    assert tags["backend"] == "tensorflow"
    assert tags["version.keras"] == importlib.metadata.version("keras")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        assert tags["git.commit"] == commit.stdout.strip()

    assert {"parameters", "macs", "seconds", "learning_rate", "examples_per_second"} <= set(metrics)
    assert {f"{part}/{name}" for part in ("train", "val") for name in ("loss", "accuracy")} <= set(metrics)
    assert {f"test/{name}" for name in ("accuracy", "nll", "calibration_error")} <= set(metrics)
    assert {"baseline/majority_class/accuracy", "baseline/logistic_regression/nll"} <= set(metrics)
    assert any(name.startswith("system/") for name in metrics)
    history = client.get_metric_history(run_id, "val/loss")
    assert [point.step for point in history] == [1, 2]
    assert objective == min(point.value for point in history)

    data = {entry.tags[0].value: entry.dataset for entry in found.inputs.dataset_inputs}
    assert set(data) == {"train", "validation", "test"}
    assert data["train"].digest == datasets.load(chosen.dataset).train.digest
    assert json.loads(data["test"].source)["tags"] == {"tfds": "digits:1.0.0", "split": "train[80%:]"}

    kept = set(artifacts(client, run_id))
    assert {"config.yaml", "run.log", "figures/confusion_matrix.png", "figures/worst_mistakes.png"} <= kept
    config = yaml.safe_load(mlflow.artifacts.load_text(f"runs:/{run_id}/config.yaml"))
    assert config == chosen.model_dump(by_alias=True)


def test_the_logged_model_answers_pixels_with_named_answers(cnn_run):
    _, found, chosen, _ = cnn_run
    task = tasks.create(chosen.task, datasets.load(chosen.dataset), chosen.dataset.limit)
    model = mlflow.pyfunc.load_model(f"runs:/{found.info.run_id}/model")
    answer = model.predict(task.test.inputs)
    accuracy = np.mean(answer["class"] == task.test.targets)
    assert accuracy == found.data.metrics["test/accuracy"]
    np.testing.assert_allclose(answer["probability"].sum(axis=1), 1, rtol=1e-5)
    assert model.metadata.metadata["classes"] == list("0123456789")
    assert {spec.name for spec in model.metadata.signature.outputs} == {"probability", "class"}
    assert model.input_example.shape == (2, 8, 8, 1)


def test_the_logged_model_holds_no_pickle(cnn_run, tmp_path):
    _, found, _, _ = cnn_run
    folder = mlflow.artifacts.download_artifacts(f"runs:/{found.info.run_id}/model", dst_path=str(tmp_path))
    names = [path.name for path in __import__("pathlib").Path(folder).rglob("*") if path.is_file()]
    assert "saved_model.pb" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".cloudpickle", ".py"))]


def test_the_logged_model_forecasts_in_the_unit_of_the_series(store, settings):
    chosen = settings("model=lstm", "training.epochs=1", "dataset.limit=128", "model.units=4")
    run.run(chosen, quiet=True)
    found = only_run(store, "co2")
    task = tasks.create(chosen.task, datasets.load(chosen.dataset), chosen.dataset.limit)
    answer = mlflow.pyfunc.load_model(f"runs:/{found.info.run_id}/model").predict(task.test.inputs)["forecast"]
    assert answer.shape == task.test.targets.shape
    error = np.abs(answer - task.test.targets).mean()
    np.testing.assert_allclose(error, found.data.metrics["test/mae"], rtol=1e-5)
    assert "baseline/exponential_smoothing/mae" in found.data.metrics
    assert {"figures/forecast.png", "figures/error_by_step.png"} <= set(artifacts(store, found.info.run_id))


def test_a_student_learns_from_a_finished_run_and_its_files_are_kept(store, settings):
    few = ("training.epochs=1", "dataset.limit=64", "model.augmentation=0")
    run.run(settings("model=cnn", *few, "model.filters=[4,8]"), quiet=True)
    teacher = only_run(store, "digits").info.run_id
    pupil = (
        "model=lightweight",
        "model.blocks=2",
        "model.last=8",
        f"compression.teacher={teacher}",
        "tracking.experiment=pupils",
    )
    run.run(settings(*pupil, *few), quiet=True)
    found = only_run(store, "pupils")
    assert {"litert/model_float.tflite", "litert/model_int8.tflite", "model.weights.h5"} <= set(
        artifacts(store, found.info.run_id)
    )
    assert {"litert/int8/bytes", "litert/float/latency_p95"} <= set(found.data.metrics)
    assert found.data.params["compression.teacher"] == teacher
    with pytest.raises(UserError, match=r"compression.teacher=nobody names no finished run"):
        run.run(settings("model=cnn", *few, "compression.teacher=nobody"), quiet=True)


def test_the_logged_model_takes_plain_strings(store, settings):
    chosen = settings("model=cnn", "dataset=docstrings", "training.epochs=1", "dataset.limit=64")
    run.run(chosen, quiet=True)
    found = only_run(store, "docstrings")
    model = mlflow.pyfunc.load_model(f"runs:/{found.info.run_id}/model")
    task = tasks.create(chosen.task, datasets.load(chosen.dataset), chosen.dataset.limit)
    answer = model.predict([text.decode() for text in task.test.source])
    assert np.mean(answer["class"] == task.test.targets) == found.data.metrics["test/accuracy"]
    assert model.metadata.metadata["classes"][0] == "keras"
    assert "figures/worst_mistakes.html" in set(artifacts(store, found.info.run_id))


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no such thing"), "FAILED"), (KeyboardInterrupt(), "KILLED")], ids=["error", "ctrl-c"]
)
def test_the_status_is_true(store, settings, load, error, status):
    def body():
        with tracking.run(settings("model=cnn"), load("digits"), log_file=None):
            raise error

    with pytest.raises(type(error)):
        body()
    found = only_run(store, "digits")
    assert found.info.status == status
    if status == "FAILED":
        assert found.data.tags["failure"] == "ValueError: no such thing"
        assert "raise error" in mlflow.artifacts.load_text(f"runs:/{found.info.run_id}/traceback.txt")
    assert mlflow.active_run() is None


def test_what_differs_from_the_commit_is_kept(store, settings, load, monkeypatch):
    answers = {"rev-parse": "abc123\n", "diff": "- old\n+ new\n"}
    monkeypatch.setattr(tracking, "_git", lambda *arguments: answers[arguments[0]])
    with tracking.run(settings("model=cnn"), load("digits"), log_file=None):
        pass
    found = only_run(store, "digits")
    assert (found.data.tags["git.commit"], found.data.tags["git.dirty"]) == ("abc123", "true")
    assert mlflow.artifacts.load_text(f"runs:/{found.info.run_id}/uncommitted.diff") == "- old\n+ new\n"


def test_mlflow_is_known_to_one_module():
    knowing = [
        path.name
        for path in (ROOT / "src").rglob("*.py")
        if "import mlflow" in (text := path.read_text()) or "from mlflow" in text
    ]
    assert knowing == ["tracking.py"]


def test_the_summary_marks_the_best_of_each_column():
    text = report.table("lstm", {"mae": 1.0, "skill": 0.2}, {}, {"seasonal_naive": {"mae": 2.0, "skill": 0.5}}, {"mae": "ppm"})
    assert text.splitlines() == [
        "on the test part  mae (ppm)    skill",
        "lstm                 1.0000*  0.2000",
        "seasonal naive       2.0000   0.5000*",
    ]
