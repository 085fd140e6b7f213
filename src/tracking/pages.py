"""Pages of MLflow's UI: links to them, and the view of an experiment in which its runs are ranked.

MLflow opens in a mode for language models, where an experiment shows no runs; `workflowType` in a link selects the other one.
The columns and the order of a table cannot be set for an experiment. A saved view can hold them: the UI lists it under Views,
and `viewStateShareKey` in a link opens it.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import mlflow
from sqlalchemy import make_url

from src import metrics
from src.config.tasks import TASKS
from src.redaction import strip_credentials

TRAINING_MODE = {"workflowType": "machine_learning"}
LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
VIEW_TAG = "mlflow.sharedViewState."  # prefix of the tags of an experiment that hold saved views
RUN_NAME, NAME_WIDTH = "attributes.`Run Name`", 340  # column, pixels
COSTS = ("seconds", "parameters", "macs")
# Placeholders in descriptions, replaced when a description is uploaded: until then a run may have no id.
RUN_ID, PARENT_RUN_ID = "{run_id}", "{parent_run_id}"
RUN_LINK = re.compile(r"\]\(run:(\w+)\)")  # [name](run:<id>) becomes a link to the page of the run


def run_page(experiment_id: str, run_id: str) -> str:
    """The page of a run, as a link within MLflow's UI."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{urlencode(TRAINING_MODE)}"


def ranking_page(experiment_id: str, task: str) -> str:
    """The page of an experiment with the runs of a task, the best first, as a link within MLflow's UI."""
    return f"#/experiments/{experiment_id}/runs?{urlencode({'viewStateShareKey': task, **TRAINING_MODE})}"


def figure(title: str, artifact: str) -> str:
    """An image artifact of the run that a description belongs to, in Markdown."""
    return f"![{title}](get-artifact?path={artifact}&run_uuid={RUN_ID})"


def address(page: str, uri: str | None = None) -> tuple[str, str | None]:
    """The full address of a page, and the command that starts the UI there; None if a server runs already.

    Args:
        page: a link within the UI.
        uri: tracking URI; the current one unless given.
    """
    uri = strip_credentials(uri or mlflow.get_tracking_uri())
    if uri.startswith(("http://", "https://")):
        return f"{uri.rstrip('/')}/{page}", None
    is_default = uri.startswith("sqlite:///") and Path(make_url(uri).database or "").resolve() == Path("mlflow.db").resolve()
    return f"{LOCAL_UI}/{page}", "mlflow ui" if is_default else f"mlflow ui --backend-store-uri '{uri}'"


def ranking_view(task: str, created: int) -> dict[str, str]:
    """The tag of an experiment that holds its view `ranking_page`: {tag: value}.

    Args:
        task: name of the task, whose leading metric ranks the runs.
        created: milliseconds since 1970.
    """
    title, leading = TASKS[task].title, TASKS[task].leading_metric
    ranked_by = f"metrics.`{metrics.TEST}{leading}`"
    columns = [ranked_by, *(f"metrics.`{cost}`" for cost in COSTS), "params.`seed`", "attributes.`Models`"]
    state = {
        "selectedColumns": columns, "columnOrder": [RUN_NAME, *columns], "columnWidths": {RUN_NAME: NAME_WIDTH},
        "orderByKey": ranked_by, "orderByAsc": metrics.lower_is_better(leading), "searchFilter": f"tags.task = '{task}'",
    }  # fmt: skip
    view = {"name": f"{title}, best first", "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    return {f"{VIEW_TAG}{task}": json.dumps(view)}


def ranks_by_old_name(view: str) -> bool:
    """Whether a stored view of an earlier version names a metric that new runs log under another name."""
    return any(metrics.current_name(name) != name for name in re.findall(r"metrics\.`([^`]+)`", json.loads(view)["state"]))


def fill_in(description: str, run_id: str, parent_run_id: str | None, experiment_of: Callable[[str], str]) -> str:
    """Replace the placeholders of a description.

    Args:
        description: Markdown.
        run_id: of the run that it describes.
        parent_run_id: of the sweep; None if it belongs to none.
        experiment_of: returns the id of the experiment of a run.
    """
    text = description.replace(PARENT_RUN_ID, parent_run_id or "").replace(RUN_ID, run_id)
    return RUN_LINK.sub(lambda match: f"]({run_page(experiment_of(match[1]), match[1])})", text)
