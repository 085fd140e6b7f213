"""Names of metrics: those of stored runs are read under the names of this version."""

from types import SimpleNamespace

import pytest

from src import metrics
from src.tracking import finished_runs


@pytest.mark.parametrize(
    ("stored", "current"),
    [
        ("val/fid", "epoch/val/frechet_distance"), ("test/fid", "test/frechet_distance"),
        ("baseline/noise/kid", "test/baseline/noise/kernel_distance"), ("judge/accuracy", "reference_classifier/accuracy"),
        ("train/loss", "epoch/train/loss"), ("test/accuracy", "test/accuracy"),
    ],
)  # fmt: skip
def test_names_of_stored_metrics(stored, current):
    assert metrics.current_name(stored) == current
    assert metrics.current_name(current) == current
    names = metrics.stored_names(current)
    assert {stored, current} <= set(names)
    assert {metrics.current_name(name) for name in names} == {current}
    assert len(names) == len(set(names))


def test_tags_and_metrics_of_an_earlier_version_are_read_under_their_new_names():
    stored = SimpleNamespace(data=SimpleNamespace(tags={"judge": "0123"}, metrics={"test/fid": 2.0}))
    run = finished_runs.FinishedRun.__new__(finished_runs.FinishedRun)
    run.run_id, run.client = "abc", SimpleNamespace(get_run=lambda run_id: stored)
    assert run.tag("reference_classifier") == "0123"
    assert run.metrics["test/frechet_distance"] == 2.0


def test_a_distance_between_features_says_whose_features():
    assert metrics.describe("test/frechet_distance") == "test/frechet_distance (features of this project's classifier)"
    assert metrics.describe("test/nll") == "test/nll"
