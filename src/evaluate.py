"""Scores a finished run's model again: `python -m src.evaluate run=<id>`; on other data of its kind: `… dataset=sunspots`."""

import dataclasses
import sys
from typing import TYPE_CHECKING

from src import cli, config, terminal
from src.errors import UserError

if TYPE_CHECKING:
    from src.datasets import Data


def main() -> int:
    """The command line."""
    print(evaluate(**cli.pairs(sys.argv[1:], ("run", "dataset"))))
    return 0


def evaluate(run: str, dataset: str | None = None) -> str:
    """A table of what the run logged and of what its model reaches now, and whether that is the same, bit for bit.

    Args:
        run: id of a finished run.
        dataset: name of a data set whose test part is taken instead.

    Raises:
        UserError: there is no such run, or the data set has other classes or other inputs.
    """
    other = config.dataset(dataset) if dataset else None
    from src.tracking.finished_runs import FinishedRun

    stored = FinishedRun(run, "run")
    chosen = stored.settings
    terminal.load_tensorflow()
    from src import datasets
    from src import experiment as runs
    from src.tasks import report
    from src.tracking import finished_runs
    from src.training import strategies

    strategy = strategies.create(chosen.strategy)
    data = datasets.load(chosen.dataset)
    if other:
        data = _tested_on(data, datasets.load(other))
    judge = stored.tag("judge")
    chosen, task, model = runs.assemble(
        chosen, data, strategy, finished_runs.load_reference_classifier(judge, data) if judge else None
    )
    stored.load_weights(model)
    found = task.metrics(task.test, task.predict(model, task.test, chosen.training.batch_size))
    model_on_data = f"{chosen.model.name} on {data.source}"
    if other:
        return report.results_table(model_on_data, found, {}, {}, task.units)
    logged = {name: stored.metric(f"test/{name}") for name in found}
    different = [f"{name} by {abs(found[name] - logged[name]):.3g}" for name in found if found[name] != logged[name]]
    verdict = f"Not as logged: {', '.join(different)}." if different else f"All {len(found)} metrics are identical."
    return f"{report.results_table(model_on_data, found, {}, {'as logged': logged}, task.units)}\n\n{verdict}"


def _tested_on(data: "Data", other: "Data") -> "Data":
    """A data set with the test part of another one, which has to be alike."""
    if other.classes != data.classes:
        raise UserError(f"dataset={other.name} has other classes than {data.name}, which the run learned.")
    if other.test.raw.shape[1:] != data.test.raw.shape[1:] or other.test.raw.dtype != data.test.raw.dtype:
        raise UserError(
            f"dataset={other.name} has inputs {other.test.raw.shape[1:]} of {other.test.raw.dtype}, and {data.name}, which the "
            f"run learned, {data.test.raw.shape[1:]} of {data.test.raw.dtype}."
        )
    return dataclasses.replace(data, test=other.test, source=other.source)


if __name__ == "__main__":
    cli.command(main)
