"""Finds a finished run by what a user types: its id, the beginning of its id, its name, or `last`."""

import re
from datetime import datetime

from mlflow.entities import Run

from src.errors import UserError
from src.tracking.client import create_client, require_mlflow

LAST = "last"
FINISHED_TRAINING = "attributes.status = 'FINISHED' and params.`model._target_` LIKE '%'"  # not the parent run of a sweep
MAX_CANDIDATES = 5  # listed where several runs match


def find_run_id(reference: str) -> str:
    """Return the id of the finished run that `reference` names.

    Args:
        reference: the id of a run, a prefix of it, the name of a run, or `last`, the one that was started last.

    Returns:
        The id. A complete one is returned as it is; whether there is such a run shows when it is loaded.

    Raises:
        UserError: no finished run matches, or more than one does.
    """
    if re.fullmatch("[0-9a-f]{32}", reference):
        return reference
    if reference == LAST:
        runs = _search("", max_results=1)
        if not runs:
            raise UserError(f"run={LAST} names no finished run; none has been made yet: python -m src.run model=lstm")
        return runs[0].info.run_id
    matches = {run.info.run_id: run for condition in _conditions(reference) for run in _search(condition, MAX_CANDIDATES + 1)}
    if not matches:
        raise UserError(
            f"run={reference} names no finished run; type the id that stands at the end of a run's log and in the MLflow UI, "
            f"the beginning of it, the name of a run, or {LAST}."
        )
    if len(matches) > 1:
        lines = [_described(run) for run in list(matches.values())[:MAX_CANDIDATES]]
        if len(matches) > MAX_CANDIDATES:
            lines.append("  …")
        raise UserError("\n".join([f"run={reference} names several finished runs; type the id of one of them:", *lines]))
    return next(iter(matches))


def _conditions(reference: str) -> list[str]:
    """Filters of MLflow's that match an id which begins with `reference`, or that name."""
    conditions = []
    if re.fullmatch("[0-9a-f]{1,31}", reference):
        conditions.append(f"attributes.run_id LIKE '{reference}%'")
    quote = next((mark for mark in "'\"" if mark not in reference), None)  # MLflow's filters know no escaped quotes
    if quote:
        conditions.append(f"attributes.run_name = {quote}{reference}{quote}")
    return conditions


def _search(condition: str, max_results: int) -> list[Run]:
    """Finished runs of all experiments, the newest first."""
    with require_mlflow():
        client = create_client()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        filters = " and ".join(filter(None, [FINISHED_TRAINING, condition]))
        return list(client.search_runs(experiments, filters, max_results=max_results)) if experiments else []


def _described(run: Run) -> str:
    started = datetime.fromtimestamp(run.info.start_time / 1000)
    return f"  {run.info.run_id}  {run.info.run_name}, {run.data.params.get('dataset.name')}, {started:%Y-%m-%d %H:%M}"
