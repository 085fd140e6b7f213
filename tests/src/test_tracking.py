"""What a run leaves in MLflow."""

import importlib.metadata
import json
import subprocess
import sys
import time

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf
import yaml
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from src import datasets, earlier, journal, report, run, strategies, tasks, training
from src.errors import OutOfMemoryError, UserError
from src.tracking import lifecycle, origin, status
from src.tracking import record as recording
from src.tracking.server import connected
from tests.commands import ROOT, environment
from tests.stored import artifacts, client, runs


def only_run(client, experiment):
    (found,) = runs(client, experiment)
    return found


@pytest.fixture
def cnn_run(finished_run, monkeypatch):
    monkeypatch.chdir(finished_run.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished_run.folder / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    store = client(finished_run.folder)
    return store, only_run(store, "digits"), finished_run.settings, finished_run.objective


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


def test_generated_images_are_judged_by_a_run_that_is_made_once(store, settings):
    few = (
        "model.width=8",
        "training.epochs=2",
        "training.glances=1",
        "task.samples=20",
        "dataset.passes=1",
        "dataset.limit=128",
    )
    for seed in (0, 1):
        run.run(settings("model=gan", *few, f"seed={seed}", "model.conditional=true"), quiet=True)
    found = store.search_runs([store.get_experiment_by_name("digits").experiment_id], order_by=["attributes.start_time"])
    assert [each.info.run_name for each in found] == ["judge-cnn", "gan-seed0", "gan-seed1"]
    judge, first, second = found
    assert {each.data.tags["judge"] for each in (first, second)} == {judge.info.run_id}
    assert first.data.metrics["judge/accuracy"] == judge.data.metrics["test/accuracy"]
    measured = {"fid", "kid", "precision", "recall", "diversity", "confident", "classes", "class_distance", "training_distance"}
    for rows in ("test", "baseline/training_images", "baseline/noise"):
        assert {f"{rows}/{name}" for name in measured} <= set(first.data.metrics)
    assert {"val/fid", "milliseconds_per_sample", "train/discriminator_loss", "val/generator_loss"} <= set(first.data.metrics)
    assert {
        "figures/samples.png",
        "figures/epoch_0002/samples.png",
        "figures/nearest_training_images.png",
        "images.json",
    } <= set(artifacts(store, first.info.run_id))
    model = mlflow.pyfunc.load_model(f"runs:/{first.info.run_id}/model")
    images = model.predict(np.array([3, -1, 3], np.int32))["image"]
    assert images.shape == (3, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images[0] != images[2]).any()


TINY = ("model.dimension=16", "model.heads=2", "model.blocks=1", "training.epochs=1", "training.steps_per_epoch=20")
PARTS = [f'dataset.splits.{part}="train[{at}:{at + 64}]"' for part, at in (("train", 0), ("validation", 64), ("test", 128))]


def test_a_classifier_begins_with_the_weights_and_the_tokens_of_a_language_model(store, settings):
    run.run(settings("model=gpt", *TINY, *PARTS, "task.bpe_vocabulary=300", "task.context=24"), quiet=True)
    language_model = only_run(store, "docstrings").info.run_id
    tuned = ("model=gpt", *TINY, *PARTS, "task.name=text_classification", f"model.pretrained={language_model}")
    run.run(settings(*tuned, "tracking.experiment=tuned"), quiet=True)
    found = only_run(store, "tuned")
    told = {name: found.data.params[f"task.{name}"] for name in ("unit", "vocabulary", "length")}
    assert told == {"unit": "bpe", "vocabulary": "300", "length": "24"}
    texts = datasets.load(settings(*tuned).dataset).test
    answer = mlflow.pyfunc.load_model(f"runs:/{found.info.run_id}/model").predict([text.decode() for text in texts.inputs])
    assert np.mean(answer["class"] == texts.targets) == pytest.approx(found.data.metrics["test/accuracy"])

    chosen, writer = earlier.pretrained(settings(*tuned))
    training.prepare(chosen)
    task = tasks.create(chosen.task, datasets.load(chosen.dataset), pretrained=writer)
    model = training.build(chosen, task, strategies.create(chosen.strategy))
    training.transfer(writer.model, model)
    for one, two in zip(model.get_layer("backbone").get_weights(), writer.model.backbone.get_weights()):
        np.testing.assert_array_equal(one, two)

    with pytest.raises(UserError, match=r"has another size; type model.dimension=16 model.heads=2 model.blocks=1\.$"):
        earlier.pretrained(settings("model=gpt", "task.name=text_classification", f"model.pretrained={language_model}"))
    with pytest.raises(UserError, match=r"is a run of gpt that learned language_modeling; choose one of lstm that learned"):
        earlier.pretrained(settings("model=lstm", "dataset=docstrings", f"model.pretrained={language_model}"))
    with pytest.raises(UserError, match=r"is a run of gpt that learned text_classification; choose one of gpt"):
        earlier.pretrained(settings(*tuned[:-1], f"model.pretrained={found.info.run_id}"))


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no such thing"), "FAILED"), (KeyboardInterrupt(), "KILLED")], ids=["error", "ctrl-c"]
)
def test_the_status_is_true(store, settings, load, error, status):
    def body():
        with lifecycle.run(settings("model=cnn"), load("digits"), log_file=None):
            raise error

    with pytest.raises(type(error)):
        body()
    found = only_run(store, "digits")
    assert found.info.status == status
    if status == "FAILED":
        assert found.data.tags["failure"] == "ValueError: no such thing"
        assert "raise error" in mlflow.artifacts.load_text(f"runs:/{found.info.run_id}/traceback.txt")
    assert mlflow.active_run() is None


def test_a_race_for_the_database_is_run_again(store, settings, load, monkeypatch):
    make, races = mlflow.MlflowClient.create_run, iter([True])

    def racing(*arguments, **more):
        if next(races, False):
            raise MlflowException("UNIQUE constraint failed", BAD_REQUEST)
        return make(*arguments, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", racing)
    with lifecycle.run(settings("model=cnn"), load("digits"), log_file=None):
        pass
    assert only_run(store, "digits").info.status == "FINISHED"


def test_a_database_that_was_being_made_when_its_process_was_killed_is_made_anew(here):
    process = subprocess.Popen(
        [sys.executable, "-c", "from src.tracking.server import connected\nconnected()\nprint('made')"],
        cwd=here, env=environment(), stdout=subprocess.PIPE,
    )  # fmt: skip
    unfinished = here / "mlflow.unfinished"
    while not (unfinished.exists() and unfinished.stat().st_size > 100_000):  # bytes: some of its tables
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.communicate() == (b"", None)
    assert not (here / "mlflow.db").exists()
    client = connected(f"sqlite:///{here / 'mlflow.db'}")
    assert client.search_runs([client.create_experiment("first")]) == []
    assert not unfinished.exists()


@pytest.mark.parametrize("place", ["file", "/proc"])  # no folder, and one that takes no file, not even of root
def test_a_database_in_a_place_that_cannot_be_written_is_answered_in_a_sentence(here, place):
    (here / "file").touch()
    with pytest.raises(UserError, match=rf"MLflow's database .*{place}/mlflow\.db cannot be created .* MLFLOW_TRACKING_URI"):
        connected(f"sqlite:///{here / place / 'mlflow.db'}")


def test_what_is_refused_is_set_aside_and_kept(store, settings, load):
    with lifecycle.run(settings("model=cnn"), load("digits"), log_file=None) as record:
        record.tags(**{"no such ? name": "1", "good": "2"})
        record.tags(afterwards="3")
    found = only_run(store, "digits")
    assert (found.info.status, found.data.tags["afterwards"]) == ("FINISHED", "3")
    (kept,) = journal.ROOT.glob("*/refused/*/event.json")
    assert "no such ? name" in kept.read_text()
    status.settle()
    assert kept.exists()


def test_with_other_code_a_run_is_a_new_one_unless_it_is_named(store, settings, load, monkeypatch):
    def cut_short(*more):
        with lifecycle.run(settings("model=cnn", *more), load("digits"), log_file=None):
            raise KeyboardInterrupt

    def number():
        return len(runs(store, "digits"))

    for code, wanted in (("as it was", 1), ("as it was", 1), ("changed", 2)):
        monkeypatch.setattr(lifecycle, "code", lambda code=code: code)
        with pytest.raises(KeyboardInterrupt):
            cut_short()
        assert number() == wanted
    newest, first = runs(store, "digits")
    assert newest.info.start_time > first.info.start_time
    with pytest.raises(KeyboardInterrupt):
        cut_short(f"resume={first.info.run_id}")
    assert number() == 2


def test_what_may_go_well_another_time_can_go_on(store, settings, load):
    for error, goes_on in ((UserError("wrong"), 0), (OutOfMemoryError("too little"), 1)):
        with pytest.raises(type(error)), lifecycle.run(settings("model=cnn"), load("digits"), log_file=None):
            raise error
        assert len(list(journal.ROOT.glob("*"))) == goes_on
    found = runs(store, "digits")
    assert {one.data.tags["failure"] for one in found} == {"UserError: wrong", "OutOfMemoryError: too little"}


def test_a_run_whose_memory_did_not_suffice_goes_on(store, settings, monkeypatch):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    chosen = settings(
        "model=cnn", "training.epochs=1", "dataset.limit=64", "training.batch_size=32", "tracking.log_model=false"
    )
    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "predict", full)
        with pytest.raises(OutOfMemoryError):
            run.run(chosen, quiet=True)
    found = only_run(store, "digits")
    assert found.info.status == "FAILED"
    assert found.data.tags["failure"].startswith("OutOfMemoryError: Out of memory with training.batch_size=32")
    run.run(chosen, quiet=True)
    assert only_run(store, "digits").info.status == "FINISHED"


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt"])
def test_a_path_that_leads_out_of_the_folder_is_refused(store, settings, load, here, name):
    outside = pytest.raises(UserError, match=r"would lie outside of the run's folder")
    with outside, lifecycle.run(settings("model=cnn"), load("digits"), log_file=None) as record:
        record.texts({name: "something"})
    assert not list(here.rglob("out.txt"))


def test_a_checkpoint_waits_for_the_one_before_it(here):
    kept = journal.Journal.new(fingerprint="a", uri="b")
    record = recording.Record(kept)
    (here / "some.npz").write_bytes(b"12")
    for _ in range(3):
        record.checkpoint(here / "some.npz")
    (waiting,) = kept.pending()
    assert (waiting.folder / "files/0.npz").read_bytes() == b"12"
    waiting.delivered()
    record.checkpoint(here / "some.npz")
    (waiting,) = kept.pending()
    assert (waiting.folder / "files/1.npz").exists()


def test_what_differs_from_the_commit_is_kept(store, settings, load, monkeypatch):
    answers = {"rev-parse": "abc123\n", "diff": "- old\n+ new\n"}
    monkeypatch.setattr(origin, "git", lambda *arguments: answers[arguments[0]])
    with lifecycle.run(settings("model=cnn"), load("digits"), log_file=None):
        pass
    found = only_run(store, "digits")
    assert (found.data.tags["git.commit"], found.data.tags["git.dirty"]) == ("abc123", "true")
    assert mlflow.artifacts.load_text(f"runs:/{found.info.run_id}/uncommitted.diff") == "- old\n+ new\n"


def test_mlflow_is_known_to_one_package():
    knowing = {
        path.parent.name
        for path in (ROOT / "src").rglob("*.py")
        if "import mlflow" in (text := path.read_text()) or "from mlflow" in text
    }
    assert knowing == {"tracking"}


def test_the_summary_marks_the_best_of_each_column():
    text = report.table("lstm", {"mae": 1.0, "skill": 0.2}, {}, {"seasonal_naive": {"mae": 2.0, "skill": 0.5}}, {"mae": "ppm"})
    assert text.splitlines() == [
        "on the test part  mae (ppm)    skill",
        "lstm                 1.0000*  0.2000",
        "seasonal naive       2.0000   0.5000*",
    ]
