"""One run records the baselines of all trainings on the same examples; no comparison takes it for a recipe's."""

import dataclasses

import pytest

from src.errors import UserError
from src.tasks.baselines import store as baselines
from src.tasks.baselines.store import BaselineResult, BaselineResults
from src.tasks.image_classification import ImageClassification
from src.tracking import baseline_runs, lifecycle, run_lookup
from src.tracking.run_summaries import load_summaries
from tests.stored import runs, runs_of_baselines

RESULTS = BaselineResults(
    {
        "majority_class": BaselineResult({"accuracy": 0.1, "nll": 2.3}, None, "", 0.1),
        "nearest_neighbors": BaselineResult({"accuracy": 0.9, "nll": 0.3}, None, "k = 3", 2.0),
    },
    {"gradient_boosting": "too many pixels"},
    {},
)
METRICS = {
    "test/baseline/majority_class/accuracy": 0.1, "test/baseline/majority_class/nll": 2.3,
    "test/baseline/nearest_neighbors/accuracy": 0.9, "test/baseline/nearest_neighbors/nll": 0.3,
}  # fmt: skip


def train(settings, load, *overrides, digest="d", results=RESULTS):
    """A training that is over at once, and its run."""
    run_settings, data = settings("model=cnn", *overrides), load("digits")
    with lifecycle.training_run(run_settings, data, log_file=None) as run_logger:
        run_logger.log_baselines(run_settings, data, results, digest, ImageClassification)
    return run_logger.run_id


def test_trainings_refer_to_one_run_of_baselines(store, settings, load):
    ids = [train(settings, load, f"seed={seed}") for seed in (0, 1)]
    train(settings, load, "seed=2", digest="other")
    other, recorded = runs_of_baselines(store, "digits")
    trained = [store.get_run(run_id) for run_id in ids]
    assert {run.data.tags[baseline_runs.RUN_TAG] for run in trained} == {recorded.info.run_id}
    assert other.info.run_id not in {run.data.tags[baseline_runs.RUN_TAG] for run in trained}
    for run in trained:
        assert METRICS.items() <= run.data.metrics.items()
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics == pytest.approx(METRICS | {"seconds": 2.1})
    assert recorded.info.end_time - recorded.info.start_time == pytest.approx(2100, abs=2)
    assert recorded.info.run_name == "baselines-image_classification"
    assert recorded.data.params["dataset.name"] == "digits"
    assert {entry.tags[0].value for entry in recorded.inputs.dataset_inputs} == {"train", "validation", "test"}
    description = recorded.data.tags["mlflow.note.content"]
    assert "image classification on digits**: nearest neighbors: accuracy 90.00 %" in description
    assert "k = 3" in description
    assert "- Not computed: gradient boosting (too many pixels)" in description


def test_baselines_of_which_one_failed_have_no_run(store, settings, load):
    run_id = train(settings, load, results=dataclasses.replace(RESULTS, failed={"logistic_regression": "ValueError: a"}))
    assert runs_of_baselines(store) == []
    run = store.get_run(run_id)
    assert METRICS.items() <= run.data.metrics.items()
    assert baseline_runs.RUN_TAG not in run.data.tags


def test_a_run_of_baselines_is_no_result_of_a_recipe(store, settings, load):
    run_id = train(settings, load)
    (recorded,) = runs_of_baselines(store, "digits")
    assert [summary.run_id for summary in load_summaries()] == [run_id]
    assert run_lookup.find_run_id("last") == run_id
    with pytest.raises(UserError, match="names no finished run"):
        run_lookup.find_run_id(recorded.info.run_name)
    assert "task" not in recorded.data.tags  # by which the view of the experiment selects what it ranks


def test_an_unfinished_run_of_baselines_is_completed_and_not_used_before(store, settings, load, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    content = baseline_runs.describe(settings("model=cnn"), load("digits"), {}, RESULTS, "d", ImageClassification)
    with monkeypatch.context() as patched:
        patched.setattr(baseline_runs, "_complete", killed)
        with pytest.raises(KeyboardInterrupt):
            baseline_runs.record(store, content)
    (unfinished,) = runs_of_baselines(store)
    assert unfinished.info.status == "RUNNING"
    assert baseline_runs.record(store, content) == unfinished.info.run_id
    assert baseline_runs.record(store, content) == unfinished.info.run_id
    (recorded,) = runs_of_baselines(store)
    assert recorded.info.status == "FINISHED"
    assert METRICS.items() <= recorded.data.metrics.items()


def test_results_without_any_baseline_are_described(settings, load):
    content = baseline_runs.describe(settings("model=cnn"), load("digits"), {}, baselines.NONE, "d", ImageClassification)
    assert "none could be computed" in content["description"]
    assert content["metrics"] == {}


def test_runs_leaves_the_runs_of_baselines_out(store, settings, load):
    run_id = train(settings, load)
    assert [run.info.run_id for run in runs(store, "digits")] == [run_id]
