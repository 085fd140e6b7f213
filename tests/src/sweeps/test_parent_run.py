"""Sweeps: one parent run in MLflow, resumed after an interruption; their tables and figures."""

import csv
import io
import re
import signal

import numpy as np
import pytest

from src.sweeps import parent_run, report
from src.sweeps.job_store import JobResult, JobStore
from src.tracking.client import tracking_uri
from src.tracking.outbox import Outbox
from src.tracking.provenance import command as this_command
from src.tracking.run_logger import RunLogger
from tests.figures import overflowing, overlapping_ticks
from tests.src.sweeps.sweeps import TINY, StoredSweep, killed_after, start


def test_sweep_is_a_parent_run_with_child_runs(here, command):
    done = command("-m", *TINY, "seed=0,1", "optimizer.learning_rate=1e-3,1e-2")
    assert done.returncode == 0, done.stderr
    stored = StoredSweep(here)
    (sweep,) = stored.parents
    assert sweep.info.status == "FINISHED"
    assert sweep.data.params["optimizer.learning_rate"] == "1e-3,1e-2"
    assert "-m model=lstm" in sweep.data.tags["command"]
    assert len(stored.children) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in stored.children} == {sweep.info.run_id}
    rows = list(csv.DictReader(io.StringIO(stored.text(sweep, "results.csv"))))
    assert sorted(row["run_id"] for row in rows) == sorted(run.info.run_id for run in stored.children)
    best = min(rows, key=lambda row: float(row["objective"]))
    assert sweep.data.tags["best.run_id"] == best["run_id"]
    assert sweep.data.metrics["sweep/best/objective"] == float(best["objective"])
    description = sweep.data.tags["mlflow.note.content"]
    links = re.findall(r"\| \[\d\]\(#/experiments/1/runs/(\w+)\?workflowType=machine_learning\) +\|", description)
    assert links == [row["run_id"] for row in sorted(rows, key=lambda row: float(row["objective"]))]
    assert sweep.data.tags["command"] in description
    assert f"[all its jobs](#/experiments/1/runs/{sweep.info.run_id}?" in stored.children[0].data.tags["mlflow.note.content"]
    assert done.stdout.rstrip().endswith(f"#/experiments/1/runs/{sweep.info.run_id}?workflowType=machine_learning")
    names = {file.path for file in stored.client.list_artifacts(sweep.info.run_id, "figures")}
    assert names == {"figures/effects.png", "figures/parallel_coordinates.png"}
    table = done.stdout[done.stdout.rindex("seed  ") :].splitlines()
    assert [line.split()[2] for line in table[1:5]] == sorted(line.split()[2] for line in table[1:5])
    assert not list((here / "mlruns/unfinished").glob("*/"))


@pytest.mark.slow
def test_best_model_of_a_sweep_is_registered(here, command):
    tiny = [override for override in TINY if "log_model" not in override]
    done = command("-m", *tiny, "optimizer.learning_rate=1e-3,1e-2", "tracking.register=tiny")
    assert done.returncode == 0, done.stderr
    stored = StoredSweep(here)
    registered = stored.client.get_model_version_by_alias("tiny", "champion")
    assert (int(registered.version), registered.run_id) == (1, stored.parents[0].data.tags["best.run_id"])


def test_best_job_with_a_run_is_the_one_to_register(here, caplog):
    store, run_logger = JobStore(here / "jobs"), RunLogger(Outbox.create(fingerprint="a", uri="b"))
    store.folder.mkdir()
    for seed, (objective, run_id) in enumerate([(0.5, "worse"), (0.3, "best"), (None, None)]):
        store.save(str(seed), JobResult({"seed": str(seed)}, objective, {}, run_id))
    for name in ("forecaster", None):
        parent_run._register_best(run_logger, store, name, "val_loss")
    (event,) = run_logger.outbox.pending()
    assert (event.kind, event.payload) == ("register", {"name": "forecaster", "run_id": "best"})
    store.save("3", JobResult({"seed": "3"}, 0.1, {}, None))  # MLflow did not answer
    parent_run._register_best(run_logger, store, "forecaster", "val_loss")
    assert len(run_logger.outbox.pending()) == 1
    assert "The best model is not registered as forecaster" in caplog.text


@pytest.mark.slow
def test_sweep_killed_twice_ends_as_an_uninterrupted_one(tmp_path):
    overrides = [*TINY, "seed=0,1,2,3", "optimizer.learning_rate=1e-3,3e-3,1e-2"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    process = start(whole, *overrides)
    output, _ = process.communicate()
    assert process.returncode == 0, output

    killed_after(cut, 3, signal.SIGKILL, *overrides)
    output = killed_after(cut, 4, signal.SIGTERM, *overrides)
    assert "This sweep was interrupted; it resumes" in output
    (sweep,) = StoredSweep(cut).parents
    assert sweep.info.status == "KILLED"
    process = start(cut, *overrides)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert output.count("Has finished before") >= 6
    stored = StoredSweep(cut)
    (resumed,) = stored.parents
    assert (resumed.info.run_id, resumed.info.status) == (sweep.info.run_id, "FINISHED")
    assert {run.info.status for run in stored.children} == {"FINISHED"}
    assert len(stored.children) == 12
    assert stored.metrics() == StoredSweep(whole).metrics()
    assert stored.text(resumed, "results.csv").count("\n") == 13


def test_failed_job_stops_the_sweep_only_with_fail_fast(here, command):
    overrides = ["-m", *TINY, "optimizer.learning_rate=1e-3,1e30,2e-3"]
    done = command(*overrides)
    assert done.returncode == 2
    assert "1 of 3 jobs failed; the first: UserError: " in done.stderr
    stored = StoredSweep(here)
    (sweep,) = stored.parents
    assert sweep.info.status == "FAILED"
    assert sorted(run.info.status for run in stored.children) == ["FAILED", "FINISHED", "FINISHED"]
    failures = [row["failure"] for row in csv.DictReader(io.StringIO(stored.text(sweep, "results.csv")))]
    assert [failure.partition(":")[0] for failure in failures] == ["", "UserError", ""]

    done = command(*overrides, "sweep.fail_fast=true", "resume=never")
    assert done.returncode == 2
    stored = StoredSweep(here)
    assert len(stored.parents) == 2
    assert len(stored.children) == 5  # the third has not started


def test_fixed_settings_of_a_swept_group(here, command):
    done = command("-m", "model=lstm,rnn", "dataset=co2", *TINY[1:])
    assert done.returncode == 0, done.stderr
    stored = StoredSweep(here)
    assert {run.data.params["model.units"] for run in stored.children} == {"4"}
    assert {run.data.tags["command"] for run in stored.runs} == {stored.parents[0].data.tags["command"]}
    assert "model=lstm,rnn dataset=co2 model.units=4" in stored.parents[0].data.tags["command"]


def test_repeating_a_finished_sweep_starts_a_new_one(here, command):
    for number in (1, 2):
        assert command("-m", *TINY, "seed=0").returncode == 0
        stored = StoredSweep(here)
        assert (len(stored.parents), len(stored.children)) == (number, number)


def test_interrupted_sweep_of_another_version_is_reported(here, settings, caplog):
    caplog.set_level("INFO")
    old = {"uri": tracking_uri(), "command": this_command(), "fingerprint": "settings", "code": "old"}
    with Outbox.create(**old).closing():
        pass
    new = parent_run._open("settings", [settings("model=cnn")], "sweep-1-jobs")
    assert new.metadata["code"] != "old"
    assert "An interrupted sweep of this command was started by another version of the code" in caplog.text


def test_job_results_are_stored_on_disk(tmp_path, monkeypatch):
    monkeypatch.delenv("SWEEP_FOLDER", raising=False)
    assert JobStore.current() is None
    store = JobStore(tmp_path / "jobs")
    monkeypatch.setenv("SWEEP_FOLDER", "restored afterwards")
    monkeypatch.setenv("SWEEP_COMMAND", "restored afterwards")
    store.start("python -m src.run -m seed=0,1")
    good, bad = (
        JobResult({"seed": "0"}, 0.5, {"test/mae": 1.0}, "a"),
        JobResult({"seed": "1"}, None, {}, None, "ValueError: no"),
    )
    store.save("good", good)
    store.save("bad", bad)
    current = JobStore.current()
    assert list(current.all()) == [good, bad]
    assert current.finished("good") == good
    assert current.finished("bad") is None
    assert current.failed() == [bad]
    current.start("python -m src.run -m seed=0,1")
    assert list(current.all()) == [good]


@pytest.mark.parametrize(("objective", "best"), [("val_loss", "0"), ("val_accuracy", "2")])
def test_best_job_is_ranked_first(objective, best):
    jobs = [JobResult({"seed": str(seed), "model": "cnn"}, 0.1 * seed, {}, "a") for seed in range(3)]
    jobs.append(JobResult({"seed": "3", "model": "cnn"}, None, {}, None, "ValueError: no"))
    assert report.ranked(jobs, objective)[0].overrides["seed"] == best
    assert report.parameters(jobs) == ["seed"]
    lines = report.table(jobs, [objective]).splitlines()
    assert lines[1].split()[0] == best
    assert lines[4].split()[0] == "3"
    assert lines[4].endswith("ValueError: no")


def several():
    """Two jobs on each of two data sets; the losses of one are smaller than those of the other."""
    losses = {"co2, forecasting": (5.0, 4.0), "digits, image classification": (0.1, 0.2)}
    return [
        JobResult({"dataset": name.partition(",")[0], "seed": str(seed)}, loss, {}, f"{name[0]}{seed}", compared_within=name)
        for seed in (0, 1)
        for name, loss in ((name, pair[seed]) for name, pair in losses.items())
    ]


def test_each_data_set_has_a_best_job():
    lines = report.table(several(), ["val_loss"]).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["co2", "1"], ["co2", "0"], ["digits", "0"], ["digits", "1"]]
    assert [line.partition("the best of ")[2] for line in lines[1:]] == [
        "co2, forecasting", "", "digits, image classification", "",
    ]  # fmt: skip
    text = report.description(several(), ["val_loss"], 4, "sweep")
    assert "**4 of 4 jobs finished**, the best by val_loss of each data set and task first" in text
    assert report.labels(several()[:1]) == {"co2, forecasting": ""}
    for jobs in report.by_data_and_task(several()).values():
        assert [axes.get_xlabel() for axes in report.figures(jobs, ["val_loss"])["effects.png"].axes] == ["seed"]


def test_the_best_job_of_each_data_set_is_logged_and_none_registered(here, caplog):
    store, run_logger = JobStore(here / "jobs"), RunLogger(Outbox.create(fingerprint="a", uri="b"))
    store.folder.mkdir()
    for number, job in enumerate(several()):
        store.save(str(number), job)
    (here / "metadata.json").write_text("{}")
    parent_run._report(run_logger, store, 4, ["val_loss"], "jobs")
    events = run_logger.outbox.pending()
    tags = {name: value for event in events if event.kind == "tags" for name, value in event.payload["tags"].items()}
    assert tags["co2-forecasting/best.run_id"] == "c1"
    assert tags["digits-image_classification/best"] == "dataset=digits seed=0"
    assert "best.run_id" not in tags
    (files,) = (event for event in events if event.kind == "files" and event.payload["artifact_path"] == "figures")
    assert {str(path.relative_to(files.folder / "files")) for path in (files.folder / "files").rglob("*.png")} == {
        "co2-forecasting/effects.png", "digits-image_classification/effects.png",
    }  # fmt: skip
    parent_run._register_best(run_logger, store, "any", "val_loss")
    assert not [event for event in run_logger.outbox.pending() if event.kind == "register"]
    assert "which cannot be compared" in caplog.text


def test_figures_of_parameters():
    jobs = [
        JobResult({"rate": rate, "model": model}, objective, {}, "a")
        for rate, model, objective in (("1e-4", "cnn", 1.0), ("1e-2", "cnn", 2.0), ("1e-4", "rnn", 3.0), ("1e-2", "rnn", 5.0))
    ]
    figures = report.figures(jobs, ["val_loss"])
    rate, model = figures["effects.png"].axes
    assert rate.get_xscale() == "log"
    points, means = rate.lines
    np.testing.assert_allclose(points.get_xdata(), [1e-4, 1e-2, 1e-4, 1e-2])
    np.testing.assert_allclose(means.get_ydata(), [2.0, 3.5])
    assert [text.get_text() for text in model.get_xticklabels()] == ["cnn", "rnn"]
    np.testing.assert_allclose(model.lines[1].get_ydata(), [1.5, 4.0])
    (parallel,) = figures["parallel_coordinates.png"].axes
    assert len([line for line in parallel.lines if len(line.get_xdata()) == 3]) == 4
    assert {line.get_linestyle() for line in model.lines} == {"None"}  # there is nothing between two models
    assert means.get_linestyle() == "-"
    for figure in figures.values():
        assert not overflowing(figure)
        assert not overlapping_ticks(figure)
    assert set(report.figures(jobs[:2], ["val_loss"])) == {"effects.png"}
    assert report.figures(jobs[:1], ["val_loss"]) == {}


def test_axes_of_parallel_coordinates_have_labels_that_do_not_touch():
    draw = np.random.default_rng(0)
    rates = [float(rate) for rate in 10 ** draw.uniform(-4, -1, 30)]
    jobs = [
        JobResult({"rate": repr(rate), "units": str(units)}, rate, {}, "a")
        for rate, units in zip(rates, draw.integers(16, 256, 30))
    ]
    (axes,) = report.figures(jobs, ["val_accuracy"])["parallel_coordinates.png"].axes
    labels = [(text.xy[0], text.xy[1], text.get_text()) for text in axes.texts]
    for column in range(3):
        heights = sorted(height for place, height, _ in labels if place == column)
        assert len(heights) > 1
        assert min(np.diff(heights)) >= 0.06
    place = {text: height for column, height, text in labels if column == 0}["0.01"]
    low, high = np.log(min(rates)), np.log(max(rates))
    assert place == pytest.approx((np.log(0.01) - low) / (high - low))


def test_figures_say_which_jobs_they_are_of(settings):
    jobs = [settings(f"model={model}", "dataset=digits", f"seed={seed}") for model in ("cnn", "lstm") for seed in (0, 1)]
    assert parent_run.subject(jobs) == "cnn, lstm on digits, seeds 0, 1"
    assert parent_run.subject(jobs[:1]) == "cnn on digits, seed 0"
