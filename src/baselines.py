"""Computes the simple methods that a recipe should beat, without training: `python -m src.baselines experiment=cnn_mnist`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from src import cli, config, terminal
from src.config.tasks import GenerationSettings
from src.errors import UserError

if TYPE_CHECKING:
    from src.config.schema import Settings

USAGE = cli.Usage(
    "python -m src.baselines model=<name> [setting=value …]",
    "Compute the simple methods that a recipe should beat on a data set, without training the recipe. They are kept beside the "
    "data, where runs find them, and recorded in MLflow. With -m, settings may have several values, as in src.run.",
    ["python -m src.baselines model=lstm dataset=sunspots", "python -m src.baselines experiment=cnn_mnist"],
    {"<setting>": "a setting of src.run; those of dataset and task count, and the model selects the task"},
)


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    for settings in config.parse(arguments).jobs:
        compute(settings)
    return 0


def compute(settings: "Settings") -> None:
    """Compute the baselines of a run with these settings, print their table, and record them in MLflow.

    Raises:
        UserError: a baseline failed, or MLflow does not answer.
    """
    terminal.load_tensorflow()
    from src import datasets, experiment
    from src.tasks import factory, report
    from src.tasks.baselines import store
    from src.tracking import baseline_runs
    from src.tracking.training_logger import dataset_inputs
    from src.training import strategies

    strategies.create(settings.strategy)  # before TensorFlow uses a device: a reference classifier may be trained
    data = datasets.load(settings.dataset)
    classifier = experiment.load_reference_classifier(settings, data) if isinstance(settings.task, GenerationSettings) else None
    with terminal.phase(f"Encoding the examples of {data.name}"):
        task = factory.create(settings.task, data, settings.dataset.limit, reference_classifier=classifier)
    digest = store.digest_of(task, settings.task, data, settings.dataset.limit)
    computed = store.load_or_compute(task, digest, data.folder)
    content = baseline_runs.describe(settings, data, dataset_inputs(settings, data), computed, digest, task)
    skipped = [f"Not computed: {name.replace('_', ' ')} ({reason})." for name, reason in computed.skipped.items()]
    print("\n".join([f"{data.source}:", report.baselines_table(computed, task.units), *skipped]))
    if computed.failed:
        raise UserError(f"These baselines failed, so MLflow gets no run of them: {', '.join(computed.failed)}.")
    print(f"In MLflow: run {baseline_runs.record_now(content)} of experiment {settings.tracking.experiment}.\n")


if __name__ == "__main__":
    cli.run_command(main, USAGE)
