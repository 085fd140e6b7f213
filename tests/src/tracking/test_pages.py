"""Links to MLflow's UI; that they open what they name is tested in a browser (test_ui.py)."""

import json

import pytest

from src.config.tasks import TASKS
from src.tracking import pages

LOWER_IS_BETTER = {"language_modeling", "forecasting", "quantile_forecasting", "image_generation", "pixel_generation"}
PAGE = "#/experiments/1/runs/abc?workflowType=machine_learning"


@pytest.mark.parametrize(
    ("uri", "address", "command"),
    [
        ("http://server:5000", f"http://server:5000/{PAGE}", None),
        ("https://user:secret@server/mlflow/", f"https://server/mlflow/{PAGE}", None),
        ("sqlite:///mlflow.db", f"http://127.0.0.1:5000/{PAGE}", "mlflow ui"),
        ("sqlite:///{here}/mlflow.db", f"http://127.0.0.1:5000/{PAGE}", "mlflow ui"),
        ("sqlite:////srv/runs.db", f"http://127.0.0.1:5000/{PAGE}", "mlflow ui --backend-store-uri 'sqlite:////srv/runs.db'"),
        ("postgresql://me:secret@db/mlflow", f"http://127.0.0.1:5000/{PAGE}", "mlflow ui --backend-store-uri 'postgresql://db/mlflow'"),
    ],
)  # fmt: skip
def test_a_page_has_an_address_wherever_the_runs_are(here, uri, address, command):
    assert pages.address(pages.run_page("1", "abc"), uri.format(here=here)) == (address, command)


def test_the_placeholders_of_a_description_are_filled_in():
    text = f"[a](run:{'1' * 32}) [sweep](run:{pages.PARENT_RUN_ID}) runs:/{pages.RUN_ID}/lstm_co2 [web](https://mlflow.org)"
    experiments = {"1" * 32: "7", "parent": "8"}
    assert pages.fill_in(text, "self", "parent", experiments.__getitem__) == (
        f"[a](#/experiments/7/runs/{'1' * 32}?workflowType=machine_learning) "
        "[sweep](#/experiments/8/runs/parent?workflowType=machine_learning) runs:/self/lstm_co2 [web](https://mlflow.org)"
    )


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_view_that_ranks_by_its_leading_metric(task):
    ((tag, value),) = pages.ranking_view(task, created=5).items()
    view = json.loads(value)
    state = json.loads(view["state"])
    assert tag == f"mlflow.sharedViewState.{task}"
    assert state["orderByKey"] == state["selectedColumns"][0]
    assert state["orderByKey"].startswith("metrics.`test/")
    assert state["orderByAsc"] == (task in LOWER_IS_BETTER)
    assert task in state["searchFilter"]


def test_a_view_that_names_an_old_metric_is_recognised():
    (view,) = pages.ranking_view("image_generation", 0).values()
    assert "metrics.`test/frechet_distance`" in view
    assert not pages.ranks_by_old_name(view)
    assert pages.ranks_by_old_name(view.replace("frechet_distance", "fid"))
