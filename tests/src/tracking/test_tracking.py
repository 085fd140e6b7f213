"""What a run logs to MLflow."""

import contextlib
import errno
import importlib.metadata
import json
import math
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf
import yaml
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from src import datasets, experiment
from src.config import schema
from src.config.tasks import TASKS
from src.errors import DiskFullError, OutOfMemoryError, UserError
from src.export import litert, serving
from src.tasks import factory, report
from src.tasks.image_classification import ImageClassification
from src.tracking import descriptions, finished_runs, lifecycle, outbox, provenance, requests, status, training_logger, uploader
from src.tracking.client import create_client
from src.tracking.usage_run import usage_run
from src.training import loop, strategies
from tests.commands import ROOT, environment
from tests.stored import artifacts, client, runs


def only_run(client, experiment):
    (run,) = runs(client, experiment)
    return run


@pytest.fixture
def cnn_run(finished_run, monkeypatch):
    monkeypatch.chdir(finished_run.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished_run.folder / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    store = client(finished_run.folder)
    return store, only_run(store, "digits"), finished_run.settings, finished_run.objective


def test_a_run_logs_everything(cnn_run, settings):
    client, run, run_settings, objective = cnn_run
    run_id, metrics, tags = run.info.run_id, run.data.metrics, run.data.tags
    assert run.info.status == "FINISHED"
    assert run.data.params == {name: str(value) for name, value in run_settings.flat().items()}
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
    assert {f"epoch/{split}/{name}" for split in ("train", "val") for name in ("loss", "accuracy")} <= set(metrics)
    assert {f"test/{name}" for name in ("accuracy", "nll", "calibration_error")} <= set(metrics)
    assert {"test/baseline/majority_class/accuracy", "test/baseline/logistic_regression/nll"} <= set(metrics)
    assert any(name.startswith("system/") for name in metrics)
    history = client.get_metric_history(run_id, "epoch/val/loss")
    assert [point.step for point in history] == [1, 2]
    assert objective == min(point.value for point in history)

    data = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert set(data) == {"train", "validation", "test"}
    assert data["train"].digest == datasets.load(run_settings.dataset).train.digest
    assert json.loads(data["test"].source)["tags"] == {"tfds": "digits:1.0.0", "split": "train[80%:]"}

    logged = set(artifacts(client, run_id))
    assert {"config.yaml", "run.log", "figures/confusion_matrix.png", "figures/worst_mistakes.png"} <= logged
    config = yaml.safe_load(mlflow.artifacts.load_text(f"runs:/{run_id}/config.yaml"))
    assert config == run_settings.model_dump(by_alias=True)


def test_a_run_describes_itself_and_its_model(cnn_run):
    client, run, _, _ = cnn_run
    run_id, description = run.info.run_id, run.data.tags["mlflow.note.content"]
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (model.name, model.source_run_id, model.tags["mlflow.note.content"]) == ("cnn_digits", run_id, description)
    accuracy = run.data.metrics["test/accuracy"]
    baseline = run.data.metrics["test/baseline/logistic_regression/accuracy"]
    headline, figure, table, interval, facts = description.split("\n\n")[:5]
    assert headline == (
        f"**cnn on digits, seed 0**: accuracy {100 * accuracy:.2f} % (logistic regression: {100 * baseline:.2f} %)"
    )
    assert figure == f"![learning curves](get-artifact?path=learning_curves.png&run_uuid={run_id})"
    assert "learning_curves.png" in set(artifacts(client, run_id))
    assert re.search(rf"^\| cnn +\| +\**{accuracy:.4f}\** \|", table, re.MULTILINE)
    assert interval.startswith("95 % confidence interval of accuracy")
    assert f"{run.data.metrics['parameters']:,.0f} parameters" in facts
    assert f"- Command: `{run.data.tags['command']}`" in facts
    for line in (f'load_model("runs:/{run_id}/cnn_digits")', f"src.evaluate run={run_id}", f"src.reproduce run={run_id}"):
        assert line in description


def test_the_test_metrics_and_the_cost_of_a_model_are_linked_to_it_and_to_the_data(cnn_run):
    client, run, run_settings, _ = cnn_run
    digest = datasets.load(run_settings.dataset).test.digest
    (model,) = client.search_logged_models([run.info.experiment_id])
    linked = {metric.key: (metric.value, metric.dataset_name, metric.dataset_digest) for metric in model.metrics}
    for name in TASKS["image_classification"].metrics:
        assert linked.pop(f"test/{name}") == (run.data.metrics[f"test/{name}"], "digits", digest)
    assert linked == {name: (run.data.metrics[name], None, None) for name in ("parameters", "macs", "seconds")}
    for name in ("test/accuracy", "seconds"):
        assert len(client.get_metric_history(run.info.run_id, name)) == 1
    query = [{"field_name": "metrics.test/accuracy", "ascending": False, "dataset_name": "digits", "dataset_digest": digest}]
    assert [each.model_id for each in client.search_logged_models([run.info.experiment_id], order_by=query)] == [model.model_id]


def test_an_experiment_describes_itself_and_ranks_its_runs(cnn_run):
    client, run, _, _ = cnn_run
    tags = client.get_experiment(run.info.experiment_id).tags
    link = f"#/experiments/{run.info.experiment_id}/runs?viewStateShareKey=image_classification&workflowType=machine_learning"
    assert tags["mlflow.note.content"].endswith(f"The best first: [image classification]({link})")
    assert "mlflow.sharedViewState.image_classification" in tags


def test_what_users_write_about_an_experiment_is_kept(store, settings, load):
    experiment = store.create_experiment("digits")
    store.set_experiment_tag(experiment, "mlflow.note.content", "My notes.")
    for _ in range(2):
        with lifecycle.training_run(settings("model=cnn"), load("digits"), log_file=None):
            pass
    note = store.get_experiment(experiment).tags["mlflow.note.content"]
    assert note.startswith("My notes. [image classification](")
    assert note.count("viewStateShareKey") == 1


def test_learning_curves_of_a_resumed_run_begin_with_the_first_epoch(here):
    queue = outbox.Outbox.create(fingerprint="a", uri="b", history=[(1, {"epoch/val/loss": 3.0})])
    queue.add_metrics({"epoch/val/loss": 2.0, "system/cpu": 1.0}, step=2, time=0)
    with (queue.folder / "history.jsonl").open("a") as file:
        file.write('\n[3, {"epoch/val')  # the process was killed here
    resumed = outbox.Outbox(queue.folder)
    resumed.add_metrics({"epoch/val/loss": 1.0, "test/accuracy": 0.5}, step=3, time=0)
    assert resumed.history() == {"epoch/val/loss": [(1, 3.0), (2, 2.0), (3, 1.0)]}


def test_a_model_is_registered_under_an_alias(store, settings):
    few = ("model=lstm", "model.units=4", "training.epochs=1", "dataset.limit=64", "tracking.register=forecaster")
    for version in (1, 2):
        run_id = experiment.run(settings(*few)).run_id
        registered = store.get_model_version_by_alias("forecaster", "champion")
        assert (int(registered.version), registered.run_id) == (version, run_id)
        assert registered.description == store.get_run(run_id).data.tags["mlflow.note.content"]
        assert store.get_logged_model(registered.source.removeprefix("models:/")).source_run_id == run_id
    assert mlflow.pyfunc.load_model("models:/forecaster@champion").metadata.signature is not None


def test_events_that_are_sent_again_change_nothing(store, settings, load, monkeypatch):
    def send_twice(*arguments):
        for _ in range(2):
            requests.send(*arguments)

    monkeypatch.setattr(uploader, "send", send_twice)
    few = ("model=lstm", "model.units=4", "training.epochs=1", "dataset.limit=64", "tracking.register=forecaster")
    run_id = experiment.run(settings(*few)).run_id
    figure = Figure()
    with usage_run("evaluation", finished_runs.FinishedRun(run_id, "run"), "command", {}, {}) as run_logger:
        run_logger.log_images({"samples": figure}, 1)
    assert not list(outbox.ROOT.glob("*"))  # nothing was rejected, nothing waits
    evaluation, trained = (store.get_run(run.info.run_id) for run in runs(store, "co2"))
    (model,) = store.search_logged_models([trained.info.experiment_id])
    assert [output.model_id for output in trained.outputs.model_outputs] == [model.model_id]
    assert [used.model_id for used in evaluation.inputs.model_inputs] == [model.model_id]
    assert len(store.search_model_versions("name = 'forecaster'")) == 1
    assert len(list(artifacts(store, evaluation.info.run_id, "images"))) == 2  # the image, and a small copy
    histories = [store.get_metric_history(run_id, name) for name in trained.data.metrics if not name.startswith("system/")]
    assert {len(points) for points in histories} == {1}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tracking.register=a/b"], "tracking.register=a/b is no name of a model"),
        (["tracking.register=a", "tracking.log_model=false"], "tracking.register needs the logged model"),
    ],
)
def test_a_model_that_cannot_be_registered_is_reported_before_the_run(settings, overrides, message):
    with pytest.raises(UserError, match=message):
        settings("model=lstm", *overrides)


def test_the_logged_model_maps_pixels_to_named_outputs(cnn_run):
    _, run, run_settings, _ = cnn_run
    task = factory.create(run_settings.task, datasets.load(run_settings.dataset), run_settings.dataset.limit)
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/cnn_digits")
    outputs = model.predict(task.test.inputs)
    accuracy = np.mean(outputs["class"] == task.test.targets)
    assert accuracy == run.data.metrics["test/accuracy"]
    np.testing.assert_allclose(outputs["probability"].sum(axis=1), 1, rtol=1e-5)
    assert outputs["class_name"].tolist() == [task.classes[index] for index in outputs["class"]]
    assert model.metadata.metadata["classes"] == list("0123456789")
    assert {spec.name for spec in model.metadata.signature.outputs} == outputs.keys()
    assert model.input_example.shape == (1, 8, 8, 1)
    np.testing.assert_array_equal(model.predict(task.test.inputs.astype(float))["class"], outputs["class"])


def test_the_logged_model_holds_no_pickle(cnn_run, tmp_path):
    _, run, _, _ = cnn_run
    folder = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/cnn_digits", dst_path=str(tmp_path))
    names = [path.name for path in Path(folder).rglob("*") if path.is_file()]
    assert "saved_model.pb" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".cloudpickle"))]
    (code,) = (name for name in names if name.endswith(".py"))
    assert re.fullmatch(r"served_model_\w{8}\.py", code)


def test_the_requirements_of_a_logged_model_are_what_it_needs_to_answer(cnn_run, tmp_path):
    _, run, _, _ = cnn_run
    file = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/cnn_digits/requirements.txt", dst_path=str(tmp_path))
    packages = ("mlflow", "tensorflow", "keras", "numpy")
    assert Path(file).read_text().split() == [f"{package}=={importlib.metadata.version(package)}" for package in packages]


def test_keras_loads_the_logged_model_with_the_recipes_alone(cnn_run, tmp_path):
    _, run, run_settings, _ = cnn_run
    file = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/cnn_digits/model.keras", dst_path=str(tmp_path))
    with zipfile.ZipFile(file) as archive:
        modules = set(re.findall(r'"module": "(\w+)', archive.read("config.json").decode()))
        assert max(info.file_size for info in archive.infolist()) < 1.2 * 4 * run.data.metrics["parameters"]  # no optimizer
    assert modules <= {"keras", "recipes", "builtins"}
    task = factory.create(run_settings.task, datasets.load(run_settings.dataset), run_settings.dataset.limit)
    predicted = keras.saving.load_model(file).predict(task.test.raw, verbose=0).argmax(axis=1)
    assert np.mean(predicted == task.test.targets) == run.data.metrics["test/accuracy"]


def test_weights_that_do_not_fit_are_reported(cnn_run):
    _, run, _, _ = cnn_run
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(UserError, match=r"The weights of run=\w+ do not fit its recipe, which has changed since; choose"):
        finished_runs.FinishedRun(run.info.run_id, "run").load_weights(model)


def test_the_logged_model_forecasts_in_the_unit_of_the_series(store, settings):
    run_settings = settings("model=lstm", "training.epochs=1", "dataset.limit=128", "model.units=4")
    experiment.run(run_settings)
    run = only_run(store, "co2")
    task = factory.create(run_settings.task, datasets.load(run_settings.dataset), run_settings.dataset.limit)
    outputs = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/lstm_co2").predict(task.test.inputs)["forecast"]
    assert outputs.shape == task.test.targets.shape
    error = np.abs(outputs - task.test.targets).mean()
    np.testing.assert_allclose(error, run.data.metrics["test/mae"], rtol=1e-5)
    assert "test/baseline/exponential_smoothing/mae" in run.data.metrics
    assert {"figures/forecast.png", "figures/error_by_step.png"} <= set(artifacts(store, run.info.run_id))


def test_a_student_learns_from_a_finished_run_and_its_files_are_kept(store, settings):
    few = ("training.epochs=1", "dataset.limit=64", "model.augmentation=0")
    experiment.run(settings("model=cnn", *few, "model.filters=[4,8]"))
    teacher = only_run(store, "digits").info.run_id
    student = (
        "model=lightweight",
        "model.blocks=2",
        "model.last=8",
        f"compression.teacher={teacher}",
        "tracking.experiment=students",
    )
    experiment.run(settings(*student, *few))
    run = only_run(store, "students")
    assert {"litert/model_float.tflite", "litert/model_int8.tflite", "model.weights.h5"} <= set(
        artifacts(store, run.info.run_id)
    )
    assert {"litert/int8/bytes", "litert/float/latency_p95"} <= set(run.data.metrics)
    assert run.data.params["compression.teacher"] == teacher
    with pytest.raises(UserError, match=r"compression.teacher=nobody names no finished run"):
        experiment.run(settings("model=cnn", *few, "compression.teacher=nobody"))


def test_the_logged_model_takes_plain_strings(store, settings):
    run_settings = settings("model=cnn", "dataset=docstrings", "training.epochs=1", "dataset.limit=64")
    experiment.run(run_settings)
    run = only_run(store, "docstrings")
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/cnn_docstrings")
    task = factory.create(run_settings.task, datasets.load(run_settings.dataset), run_settings.dataset.limit)
    outputs = model.predict([text.decode() for text in task.test.source])
    assert np.mean(outputs["class"] == task.test.targets) == run.data.metrics["test/accuracy"]
    assert model.metadata.metadata["classes"][0] == "keras"
    assert "figures/worst_mistakes.html" in set(artifacts(store, run.info.run_id))


def test_generated_images_are_scored_by_a_classifier_that_is_trained_once(store, settings):
    few = (
        "model.width=8",
        "training.epochs=2",
        "training.previews=1",
        "task.samples=20",
        "dataset.epochs=1",
        "dataset.limit=128",
    )
    for seed in (0, 1):
        experiment.run(settings("model=gan", *few, f"seed={seed}", "model.conditional=true"))
    digits_runs = runs(store, "digits")[::-1]
    names = [each.info.run_name for each in digits_runs]
    assert names[0] == "reference-classifier-cnn-digits"
    assert [name[:4] + name[-5:] for name in names[1:]] == ["gan-seed0", "gan-seed1"]
    classifier, first, second = digits_runs
    assert {each.data.tags["reference_classifier"] for each in (first, second)} == {classifier.info.run_id}
    assert first.data.metrics["reference_classifier/accuracy"] == classifier.data.metrics["test/accuracy"]
    measured = {
        "frechet_distance", "kernel_distance", "precision", "recall", "diversity", "confident_fraction", "classes",
        "class_distance", "training_distance",
    }  # fmt: skip
    for rows in ("test", "test/baseline/training_images", "test/baseline/noise"):
        assert {f"{rows}/{name}" for name in measured} <= set(first.data.metrics)
    assert {
        "epoch/val/frechet_distance",
        "milliseconds_per_sample",
        "epoch/train/discriminator_loss",
        "epoch/val/generator_loss",
    } <= set(first.data.metrics)
    previews = [name for name in artifacts(store, first.info.run_id) if name.startswith("images/epoch~samples+step+2+")]
    assert [name.rpartition(".")[2] for name in sorted(previews)] == ["webp", "png"]  # the small copy, and the image
    assert {
        "figures/samples.png",
        "figures/nearest_training_images.png",
        "images.json",
    } <= set(artifacts(store, first.info.run_id))
    model = mlflow.pyfunc.load_model(f"runs:/{first.info.run_id}/gan_digits")
    images = model.predict(["3", "", "3"])["image"]
    assert images.shape == (3, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images[0] != images[2]).any()


TINY = ("model.dimension=16", "model.heads=2", "model.blocks=1", "training.epochs=1", "training.steps_per_epoch=20")
SPLITS = [f'dataset.splits.{split}="train[{at}:{at + 64}]"' for split, at in (("train", 0), ("validation", 64), ("test", 128))]


def test_a_classifier_starts_with_the_weights_and_the_tokenization_of_a_language_model(store, settings):
    experiment.run(settings("model=gpt", *TINY, *SPLITS, "task.vocabulary_size=300", "task.context=24"))
    language_model = only_run(store, "docstrings").info.run_id
    finetuned = ("model=gpt", *TINY, *SPLITS, "task.name=text_classification", f"model.pretrained={language_model}")
    experiment.run(settings(*finetuned, "tracking.experiment=finetuned"))
    run = only_run(store, "finetuned")
    params = {name: run.data.params[f"task.{name}"] for name in ("tokenizer", "vocabulary_size", "length")}
    assert params == {"tokenizer": "bpe", "vocabulary_size": "300", "length": "24"}
    texts = datasets.load(settings(*finetuned).dataset).test
    outputs = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/gpt_docstrings").predict(
        [text.decode() for text in texts.inputs]
    )
    assert np.mean(outputs["class"] == texts.targets) == pytest.approx(run.data.metrics["test/accuracy"])

    run_settings, writer = finished_runs.load_pretrained(settings(*finetuned))
    loop.prepare(run_settings)
    task = factory.create(run_settings.task, datasets.load(run_settings.dataset), pretrained=writer)
    model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
    loop.transfer_weights(writer.model, model)
    for transferred, source in zip(model.get_layer("backbone").get_weights(), writer.model.backbone.get_weights()):
        np.testing.assert_array_equal(transferred, source)

    with pytest.raises(UserError, match=r"has another size; type model.dimension=16 model.heads=2 model.blocks=1\.$"):
        finished_runs.load_pretrained(
            settings("model=gpt", "task.name=text_classification", f"model.pretrained={language_model}")
        )
    with pytest.raises(UserError, match=r"is a run of gpt on the task language_modeling; choose one of lstm on"):
        finished_runs.load_pretrained(settings("model=lstm", "dataset=docstrings", f"model.pretrained={language_model}"))
    with pytest.raises(UserError, match=r"is a run of gpt on the task text_classification; choose one of gpt"):
        finished_runs.load_pretrained(settings(*finetuned[:-1], f"model.pretrained={run.info.run_id}"))


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no such thing"), "FAILED"), (KeyboardInterrupt(), "KILLED")], ids=["error", "ctrl-c"]
)
def test_status_of_finished_failed_and_killed_runs(store, settings, load, error, status):
    def failing_run():
        with lifecycle.training_run(settings("model=cnn"), load("digits"), log_file=None):
            raise error

    with pytest.raises(type(error)):
        failing_run()
    run = only_run(store, "digits")
    assert run.info.status == status
    if status == "FAILED":
        assert run.data.tags["failure"] == "ValueError: no such thing"
        assert "raise error" in mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/traceback.txt")
    assert mlflow.active_run() is None


def test_a_request_that_loses_a_race_for_the_database_is_retried(store, settings, load, monkeypatch):
    original, races = mlflow.MlflowClient.create_run, iter([True])

    def create_run(*args, **kwargs):
        if next(races, False):
            raise MlflowException("UNIQUE constraint failed", BAD_REQUEST)
        return original(*args, **kwargs)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", create_run)
    with lifecycle.training_run(settings("model=cnn"), load("digits"), log_file=None):
        pass
    assert only_run(store, "digits").info.status == "FINISHED"


def test_a_database_whose_creation_was_killed_is_created_again(here):
    process = subprocess.Popen(
        [sys.executable, "-c", "from src.tracking.client import create_client\ncreate_client()\nprint('made')"],
        cwd=here, env=environment(), stdout=subprocess.PIPE,
    )  # fmt: skip
    partial = here / "mlflow.unfinished"
    while not (partial.exists() and partial.stat().st_size > 100_000):  # bytes: some of its tables
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.communicate() == (b"", None)
    assert not (here / "mlflow.db").exists()
    client = create_client(f"sqlite:///{here / 'mlflow.db'}")
    assert client.search_runs([client.create_experiment("first")]) == []
    assert not partial.exists()


@pytest.mark.parametrize("place", ["file", "/proc"])  # no folder, and one that takes no file, not even of root
def test_a_database_that_cannot_be_created_is_reported_in_one_sentence(here, place):
    (here / "file").touch()
    with pytest.raises(UserError, match=rf"MLflow's database .*{place}/mlflow\.db cannot be created .* MLFLOW_TRACKING_URI"):
        create_client(f"sqlite:///{here / place / 'mlflow.db'}")


def test_rejected_events_are_kept_and_the_others_uploaded(store, settings, load):
    with lifecycle.training_run(settings("model=cnn"), load("digits"), log_file=None) as run_logger:
        run_logger.set_tags(**{"no such ? name": "1", "good": "2"})
        run_logger.set_tags(afterwards="3")
    run = only_run(store, "digits")
    assert (run.info.status, run.data.tags["afterwards"]) == ("FINISHED", "3")
    (rejected,) = outbox.ROOT.glob("*/rejected/*/event.json")
    assert "no such ? name" in rejected.read_text()
    status.sync()
    assert rejected.exists()


def test_changed_code_starts_a_new_run_unless_resume_names_the_old_one(store, settings, load, monkeypatch):
    def interrupted_run(*overrides):
        with lifecycle.training_run(settings("model=cnn", *overrides), load("digits"), log_file=None):
            raise KeyboardInterrupt

    def number():
        return len(runs(store, "digits"))

    for code, expected in (("as it was", 1), ("as it was", 1), ("changed", 2)):
        monkeypatch.setattr(lifecycle, "code_digest", lambda code=code: code)
        with pytest.raises(KeyboardInterrupt):
            interrupted_run()
        assert number() == expected
    newest, first = runs(store, "digits")
    assert newest.info.start_time > first.info.start_time
    with pytest.raises(KeyboardInterrupt):
        interrupted_run(f"resume={first.info.run_id}")
    assert number() == 2


def test_interrupted_run_of_another_version_is_reported(settings, load, monkeypatch, caplog):
    def interrupted_run(version, *overrides):
        monkeypatch.setattr(lifecycle, "code_digest", lambda: version)
        monkeypatch.setattr(schema.Settings, "fingerprint", lambda _: f"settings of {version}")
        with (
            contextlib.suppress(KeyboardInterrupt),
            lifecycle.training_run(settings("model=cnn", *overrides), load("digits"), log_file=None) as run_logger,
        ):
            raise KeyboardInterrupt
        return run_logger.run_id

    caplog.set_level("INFO")
    monkeypatch.setattr(sys, "argv", ["src/run.py", "model=cnn", "training.glances=0"])
    old = interrupted_run("old")
    monkeypatch.setattr(sys, "argv", ["src/run.py", "model=cnn", "training.previews=0"])
    assert interrupted_run("new") != old
    assert f"An interrupted run of this command ({old}) was started by another version of the code" in caplog.text
    with pytest.raises(UserError, match=f"resume={old} was started by another version of the code"):
        interrupted_run("new", f"resume={old}")
    caplog.clear()
    monkeypatch.setattr(sys, "argv", ["src/run.py", "model=cnn", "training.previews=1"])
    interrupted_run("newest")
    assert "another version" not in caplog.text


def test_only_temporary_failures_are_resumable(store, settings, load):
    for error, outboxes in ((UserError("wrong"), 0), (OutOfMemoryError("too little"), 1)):
        with pytest.raises(type(error)), lifecycle.training_run(settings("model=cnn"), load("digits"), log_file=None):
            raise error
        assert len(list(outbox.ROOT.glob("*"))) == outboxes
    failed = runs(store, "digits")
    assert {run.data.tags["failure"] for run in failed} == {"UserError: wrong", "OutOfMemoryError: too little"}


def test_a_run_that_was_out_of_memory_is_resumed(store, settings, monkeypatch):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    run_settings = settings(
        "model=cnn", "training.epochs=1", "dataset.limit=64", "training.batch_size=32", "tracking.log_model=false"
    )
    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "predict", full)
        with pytest.raises(OutOfMemoryError):
            experiment.run(run_settings)
    run = only_run(store, "digits")
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"].startswith("OutOfMemoryError: Out of memory with training.batch_size=32")
    experiment.run(run_settings)
    assert only_run(store, "digits").info.status == "FINISHED"


def test_no_failure_after_training_loses_the_weights_or_the_metrics(store, settings, monkeypatch, caplog):
    def fail(*_, **__):
        raise ValueError("cannot be done")

    for owner, name in (
        (ImageClassification, "finalize"), (ImageClassification, "example_results"),
        (ImageClassification, "figures"), (ImageClassification, "baselines"), (ImageClassification, "ablations"),
        (ImageClassification, "inference_costs"), (litert, "export"), (serving, "save"), (descriptions, "how_to_use"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, fail)
    small = ("model.filters=[4]", "training.epochs=1", "training.batch_size=32", "compression.export=true")
    run_settings = settings("model=cnn", "dataset.limit=61", *small)  # on which no other test has kept baselines
    outcome = experiment.run(run_settings)
    run = only_run(store, "digits")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/accuracy"] == outcome.metrics["test/accuracy"]
    stages = {"finalize", "predictions", "figures", "baselines", "ablations", "costs", "export", "serving", "description"}
    failures = {name: value for name, value in run.data.tags.items() if name.startswith("failure")}
    assert failures == {f"failure.{stage}": "ValueError: cannot be done" for stage in stages}
    assert {f"traceback-{stage}.txt" for stage in stages} | {"model.weights.h5"} <= set(artifacts(store, run.info.run_id))
    for stage in stages:
        assert f"{stage.capitalize()} failed (ValueError: cannot be done); the weights and the metrics are kept" in caplog.text
    strategy = strategies.create(run_settings.strategy)
    _, task, model = experiment.build_model(run_settings, datasets.load(run_settings.dataset), strategy, None)
    finished_runs.FinishedRun(run.info.run_id, "run").load_weights(model)
    assert task.metrics(task.test, task.predict(model, task.test, 32))["accuracy"] == outcome.metrics["test/accuracy"]


def test_weights_outlive_a_failure_to_test_them(store, settings, monkeypatch):
    def fail(*_, **__):
        raise ValueError("cannot be done")

    monkeypatch.setattr(ImageClassification, "predict", fail)
    with pytest.raises(ValueError, match="cannot be done"):
        experiment.run(settings("model=cnn", "training.epochs=1", "dataset.limit=64", "training.batch_size=32"))
    run = only_run(store, "digits")
    assert run.info.status == "FAILED"
    assert "model.weights.h5" in artifacts(store, run.info.run_id)


def test_a_full_disk_is_not_survived(here):
    run_logger = training_logger.TrainingLogger(outbox.Outbox.create(fingerprint="a", uri="b"))
    for error in (OSError(errno.ENOSPC, "full"), tf.errors.ResourceExhaustedError(None, None, "No space left on device")):
        with pytest.raises((DiskFullError, tf.errors.ResourceExhaustedError)), run_logger.survive("figures"):
            raise error
    run_logger.log_figures(lambda: {"a.png": Figure(), "b.txt": 1 / 0})
    assert [event.kind for event in run_logger.outbox.pending()] == ["tags", "files"]  # the failure and its traceback


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt"])
def test_artifact_path_outside_the_run_is_rejected(store, settings, load, here, name):
    outside = pytest.raises(UserError, match=r"would lie outside of the run's folder")
    with outside, lifecycle.training_run(settings("model=cnn"), load("digits"), log_file=None) as run_logger:
        run_logger.log_texts({name: "something"})
    assert not list(here.rglob("out.txt"))


def test_checkpoint_upload_waits_for_the_previous_one(here):
    queue = outbox.Outbox.create(fingerprint="a", uri="b")
    run_logger = training_logger.TrainingLogger(queue)
    (here / "some.npz").write_bytes(b"12")
    for _ in range(3):
        run_logger.log_checkpoint(here / "some.npz")
    (queued,) = queue.pending()
    assert (queued.folder / "files/0.npz").read_bytes() == b"12"
    queued.delete()
    run_logger.log_checkpoint(here / "some.npz")
    (queued,) = queue.pending()
    assert (queued.folder / "files/1.npz").exists()


def test_uncommitted_changes_are_logged(store, settings, load, monkeypatch):
    output = {"rev-parse": "abc123\n", "diff": "- old\n+ new\n"}
    monkeypatch.setattr(provenance, "git", lambda *arguments: output[arguments[0]])
    with lifecycle.training_run(settings("model=cnn"), load("digits"), log_file=None):
        pass
    run = only_run(store, "digits")
    assert (run.data.tags["git.commit"], run.data.tags["git.dirty"]) == ("abc123", "true")
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/uncommitted.diff") == "- old\n+ new\n"


def test_one_package_imports_mlflow():
    importing = {
        path.parent.name
        for path in (ROOT / "src").rglob("*.py")
        if "import mlflow" in (text := path.read_text()) or "from mlflow" in text
    }
    assert importing == {"tracking"}


def test_results_table_marks_the_best_of_each_column():
    baselines = {"seasonal_naive": {"mae": 2.0, "skill": 0.5}}
    text = report.results_table("lstm", {"mae": 1.0, "skill": 0.2}, {}, baselines, {"mae": "ppm"})
    assert text.splitlines() == [
        "on the test set  mae (ppm)    skill",
        "lstm                1.0000*  0.2000",
        "seasonal naive      2.0000   0.5000*",
    ]


def test_results_table_says_whose_features_distances_have():
    assert report.results_table(
        "gan", {"frechet_distance": 1.0}, {}, {"noise": {"frechet_distance": 3.0}}, {}
    ).splitlines() == [
        "on the test set  Fréchet distance",
        "gan                        1.0000*",
        "noise                      3.0000",
        "(distances between features of this project's classifier)",
    ]


def test_results_table_marks_no_value_that_is_not_finite():
    rows = {"mae": 1.0, "mase": math.inf}, {"mae": math.nan, "mase": math.nan}
    text = report.results_table("lstm", rows[0], {}, {"seasonal_naive": rows[1]}, {})
    assert [line.count("*") for line in text.splitlines()] == [0, 1, 0]
