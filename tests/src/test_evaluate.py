"""`src.evaluate` and `src.reproduce`: evaluating or repeating a finished run gives the metrics that it logged."""

import contextlib
import re
import sqlite3
from pathlib import Path

import numpy as np
import pandas
import pytest
import tensorflow_datasets as tfds
import yaml
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score

from src import datasets, evaluate, experiment
from src.tracking.client import PREDICTIONS_FILE
from tests import commands, faults
from tests.stored import client, runs

QUICK = ("gpt", "lstm")  # one that is scored on tokens, one on numbers; cnn is evaluated below


@pytest.mark.parametrize(
    "recipe", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(faults.SHORT_RUNS)]
)
def test_evaluation_gives_the_logged_metrics(store, settings, recipe):
    done = experiment.run(settings(*faults.overrides(recipe), "training.epochs=1"))
    assert re.search(r"\nAll [2-9] metrics are identical\.$", evaluate.evaluate(done.run_id, record="false"))


def test_evaluation_of_several_labels_uses_the_thresholds_of_the_run(store, settings, tmp_path):
    digits = load_digits()
    images = np.rint(digits.images[:200] * (255 / 16)).astype(np.uint8)[..., None]
    present = np.stack([digits.target[:200] % 2 == 0, digits.target[:200] < 3], axis=1)
    features = {"image": tfds.features.Image(shape=(8, 8, 1)), "even": np.bool_, "small": np.bool_}
    examples = [(n, {"image": image, "even": row[0], "small": row[1]}) for n, (image, row) in enumerate(zip(images, present))]
    tfds.dataset_builders.store_as_tfds_dataset(
        "made", version="1.0.0", features=tfds.features.FeaturesDict(features), split_datasets={"train": examples},
        data_dir=tmp_path, disable_shuffling=True,
    )  # fmt: skip
    options = ("task.name=image_multilabel_classification", "dataset.name=made", "dataset.builder=made")
    monitor = "training.monitor=val_micro_f1_at_half"
    model = ("model=cnn", "model.filters=[4]", "training.epochs=3", "training.batch_size=16", "optimizer.learning_rate=0.03")
    composed = settings(*model, monitor, *options, "dataset.targets=[even,small]")
    dataset = composed.dataset.model_copy(update={"data_dir": str(tmp_path)})
    done = experiment.run(composed.model_copy(update={"dataset": dataset}))
    assert re.search(r"\nAll 3 metrics are identical\.$", evaluate.evaluate(done.run_id, record="false"))
    curve = [metric.value for metric in store.get_metric_history(done.run_id, "epoch/val/micro_f1_at_half")]
    assert done.objective == max(curve) > min(curve)
    run = store.get_run(done.run_id)
    assert {"classes.png", "classes.html"} <= {Path(file.path).name for file in store.list_artifacts(done.run_id, "figures")}
    table = pandas.read_parquet(store.download_artifacts(done.run_id, PREDICTIONS_FILE))
    pairs = [table[name].to_numpy().reshape(-1, 2) for name in ("label", "prediction")]
    assert run.data.metrics["test/macro_f1"] == f1_score(*pairs, average="macro", zero_division=np.nan)
    low, high = (run.data.metrics[f"test/ci_{bound}/macro_f1"] for bound in ("low", "high"))
    assert low < run.data.metrics["test/macro_f1"] < high
    assert run.data.metrics["test/baseline/label_frequencies/macro_f1"] > 0


def test_an_evaluation_is_a_run_linked_to_the_model_and_the_data(store, settings, caplog):
    done = experiment.run(settings("model=lstm", "model.units=4", "training.epochs=1", "dataset.limit=64"))
    with caplog.at_level("INFO", "src"):
        evaluate.evaluate("last")
        evaluate.evaluate("last")  # the last training, not the evaluation of it
    trained = store.get_run(done.run_id)
    newest, _ = (run for run in runs(store, "co2") if run.data.tags.get("kind") == "evaluation")
    evaluation = store.get_run(newest.info.run_id)  # a search leaves out what models a run uses
    assert evaluation.info.status == "FINISHED"
    assert evaluation.info.run_name == f"evaluation-{trained.info.run_name}"
    assert evaluation.data.metrics == {name: v for name, v in trained.data.metrics.items() if re.match("test/[^/]+$", name)}
    (model_id,) = (output.model_id for output in trained.outputs.model_outputs)
    assert [used.model_id for used in evaluation.inputs.model_inputs] == [model_id]
    (data,) = (used.dataset for used in evaluation.inputs.dataset_inputs)
    assert data.digest == next(d.dataset.digest for d in trained.inputs.dataset_inputs if d.tags[0].value == "test")
    linked = [metric for metric in store.get_logged_model(model_id).metrics if metric.run_id == evaluation.info.run_id]
    assert {(metric.key, metric.dataset_digest) for metric in linked} == {(n, data.digest) for n in evaluation.data.metrics}
    assert f"/runs/{done.run_id}?" in evaluation.data.tags["mlflow.note.content"]
    assert store.get_logged_model(model_id).tags["mlflow.note.content"] == trained.data.tags["mlflow.note.content"]
    assert f"#/experiments/1/runs/{evaluation.info.run_id}?workflowType=machine_learning" in caplog.text
    before = len(runs(store, "co2"))
    evaluate.evaluate(done.run_id, record="false")
    assert len(runs(store, "co2")) == before


def test_metrics_that_differ_from_the_logged_ones_are_named(finished_copy, store):
    store.log_metric(finished_copy.run_id, "test/nll", 1000.0)
    assert re.search(r"\nDifferent from what was logged: nll by \S+\.$", evaluate.evaluate(finished_copy.run_id))


def test_a_run_of_an_earlier_version_is_scored_with_its_settings_migrated(finished_copy, store):
    file = next(finished_copy.folder.rglob(f"{finished_copy.run_id}/artifacts/config.yaml"))
    recorded = yaml.safe_load(file.read_text(encoding="utf-8"))
    recorded["dataset"]["passes"] = recorded["dataset"].pop("epochs")
    recorded["training"]["glances"] = recorded["training"].pop("previews")
    recorded["training"]["keep"] = "best" if recorded["training"].pop("restore_best_weights") else "last"
    file.write_text(yaml.safe_dump(recorded), encoding="utf-8")
    with contextlib.closing(sqlite3.connect(finished_copy.folder / "mlflow.db")) as database, database:
        for table in ("metrics", "latest_metrics"):  # which it did not have
            database.execute(f"DELETE FROM {table} WHERE key IN ('test/balanced_accuracy', 'test/macro_f1')")
    assert re.search(r"\nAll 3 metrics that were logged are identical\.$", evaluate.evaluate(finished_copy.run_id))


def test_another_data_set_has_to_be_compatible(finished_run):
    arguments = (finished_run.folder, f"run={finished_run.run_id}")
    for other, message in (("co2", "has other classes than digits"), ("nonsense", "dataset")):
        done = commands.run(*arguments, f"dataset={other}", module="src.evaluate")
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    named = "run=cnn-limit=128-training.epochs=2-seed0"
    done = commands.run(finished_run.folder, named, "dataset=digits", "record=false", module="src.evaluate")
    assert done.returncode == 0, done.stderr
    assert "cnn on digits" in done.stdout


@pytest.mark.parametrize("line", [("model=cnn", "dataset=digits"), ("model=lstm", "dataset=docstrings")])
def test_another_data_set_may_be_on_disk(settings, line):
    memory, disk = (datasets.load(settings(*line, f"dataset.storage={storage}").dataset) for storage in ("memory", "disk"))
    assert evaluate._with_test_set_of(disk, memory).test is disk.test


def test_a_run_is_reproduced(finished_copy, here, command):
    done = command("run=last", module="src.reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing has changed since then" in done.stdout
    assert re.search(r"All \d+ metrics are identical, at every step\.", done.stdout)
    assert len(runs(here, "digits")) == 2


def test_differences_from_the_recorded_run_are_printed(finished_copy, here, command):
    run_id, store = finished_copy.run_id, client(here)
    store.set_tag(run_id, "version.keras", "3.0.0")
    store.log_metric(run_id, "epoch/val/loss", 12.5, step=1, timestamp=2**41)
    done = command(f"run={run_id}", module="src.reproduce")
    assert done.returncode == 1, done.stderr
    assert re.search(r"Changed since then:\n  version\.keras: 3\.0\.0 then, \S+ now", done.stdout)
    assert re.search(r"epoch/val/loss: 12\.5 then, \S+ now, by \S+\n1 metric\(s\) differ\.", done.stdout)


@pytest.mark.parametrize("module", ["evaluate", "generate", "reproduce"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The setting 'run' is missing"),
        (["run=nonsense"], "run=nonsense names no finished run"),
        (["nonsense"], "'nonsense' cannot be read"),
        (["run=1", "runs=1"], "There is no setting 'runs'"),
    ],
)
def test_invalid_arguments_are_reported_in_one_sentence_before_tensorflow_loads(command, module, arguments, message):
    done = command(*arguments, module=f"src.{module}", fresh=True, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not re.search(r"\| +(tensorflow|keras)$", done.stderr, re.MULTILINE)


def test_run_with_a_recipe_outside_conf_is_rejected(finished_copy, here, command):
    run_id = finished_copy.run_id
    config = next(here.rglob(f"{run_id}/artifacts/config.yaml"))
    recorded = yaml.safe_load(config.read_text())
    recorded["model"] = {"name": "evil", "_target_": "os.system", "command": f"touch {here / 'owned'}", "pretrained": None}
    config.write_text(yaml.safe_dump(recorded))
    for module, *arguments in (
        ["evaluate", f"run={run_id}"],
        ["reproduce", f"run={run_id}"],
        ["run", "model=cnn", f"compression.teacher={run_id}"],
    ):
        done = command(*arguments, module=f"src.{module}")
        assert done.returncode == 2, done.stdout
        assert f"={run_id} was made by os.system, which is no recipe in conf/model" in done.stderr
    assert not (here / "owned").exists()
