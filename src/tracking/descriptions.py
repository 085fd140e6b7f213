"""Descriptions in Markdown, which MLflow's UI shows on the pages of runs, models and experiments.

The UI shows the first lines only until one asks for more, so the result comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.config.schema import Settings
from src.config.tasks import TASKS
from src.tracking.pages import PARENT_RUN_ID, RUN_ID, figure, ranking_page

if TYPE_CHECKING:
    from src.datasets import Data
    from src.tasks.baselines.store import BaselineResults

LEARNING_CURVES = "learning_curves.png"  # artifact
KERAS_FILE = "model.keras"  # in the logged model


@dataclass(frozen=True)
class Source:
    """Where a run comes from.

    Attributes:
        command: with which it was started.
        device: on which it runs.
        in_sweep: whether it is a job of a sweep.
    """

    command: str
    device: str
    in_sweep: bool


@dataclass(frozen=True)
class Results:
    """The results of a finished run.

    Attributes:
        headline: the most important one, a phrase.
        table: all of them, in Markdown.
        cost: parameters, macs and seconds.
    """

    headline: str
    table: str
    cost: Mapping[str, float]


def model_name(settings: Settings) -> str:
    """The name of a run's logged model: the experiment, or recipe and data set."""
    name = settings.experiment or f"{settings.model.name}_{settings.dataset.name}"
    return "".join("_" if character in "/:.%\"'" else character for character in name)  # MLflow allows none of these


def of_training(settings: Settings, data: "Data", source: Source, results: Results | None = None) -> str:
    """The description of a training run, and of the model that it has logged.

    Args:
        settings: of the run.
        data: its data set.
        source: where the run comes from.
        results: None as long as there are none.
    """
    title = f"**{settings.subject}**"
    if results is None:
        return "\n\n".join([f"{title}, not finished", _facts(settings, data, source, None)])
    curves = [figure("learning curves", LEARNING_CURVES)] if settings.tracking.log_figures else []
    facts = _facts(settings, data, source, results)
    return "\n\n".join([f"{title}: {results.headline}", *curves, results.table, facts, how_to_use(settings)])


def _facts(settings: Settings, data: "Data", source: Source, results: Results | None) -> str:
    facts = [f"- Data: {data.source} ({_sizes(data)} examples), digest of the test set {data.test.digest}"]
    if results is not None:
        cost = results.cost
        amounts = (
            f"{cost['parameters']:,} parameters, {cost['macs']:,} multiply–accumulates an example, {cost['seconds']:.0f} s"
        )
        facts.append(f"- Cost: {amounts} on {source.device}, {settings.training.precision}")
    if source.in_sweep:
        facts.append(f"- Sweep: [all its jobs](run:{PARENT_RUN_ID})")
    return "\n".join([*facts, f"- Command: `{source.command}`"])


def _sizes(data: "Data") -> str:
    return ", ".join(f"{name} {len(split):,}" for name, split in data.splits.items())


def how_to_use(settings: Settings) -> str:
    """How to load, evaluate and repeat a finished run."""
    lines = [f"python -m src.evaluate run={RUN_ID}", f"python -m src.reproduce run={RUN_ID}"]
    if TASKS[settings.task.name].generates:
        lines.insert(0, f"python -m src.generate run={RUN_ID}")
    code = "\n".join(["```bash", *lines, "```"])
    return "\n\n".join([*([_how_to_load(settings)] if settings.tracking.log_model else []), code])


def _how_to_load(settings: Settings) -> str:
    uri, recipe = f"runs:/{RUN_ID}/{model_name(settings)}", settings.model.target.rpartition(".")[0]
    lines = [
        "```python",
        "import mlflow",
        "",
        f'model = mlflow.pyfunc.load_model("{uri}")  # anywhere, with the packages of its requirements.txt',
        "```",
        "",
        "```python",
        "import keras",
        f"import {recipe}  # with the folder recipes/ of this project",
        "",
        f'model = keras.saving.load_model(mlflow.artifacts.download_artifacts("{uri}/{KERAS_FILE}"))',
        "```",
        "",
        "```bash",
        f"mlflow models serve -m {uri}  # POST serving_input_example.json to /invocations",
        "```",
    ]
    return "\n".join(lines)


def of_baselines(title: str, data: "Data", headline: str, table: str, computed: "BaselineResults") -> str:
    """The description of the run that records baselines.

    Args:
        title: of the task.
        data: the data set.
        headline: the strongest baseline, a phrase.
        table: of all results, in Markdown.
        computed: the baselines.
    """
    facts = [f"- Not computed: {name.replace('_', ' ')} ({reason})" for name, reason in computed.skipped.items()]
    facts += [
        "- Hyperparameters are chosen on the validation set; all else is fitted on the training set alone",
        f"- Data: {data.source} ({_sizes(data)} examples), digest of the test set {data.test.digest}",
    ]
    return "\n\n".join([f"**Simple methods for {title} on {data.name}**: {headline}", table, "\n".join(facts)])


def of_experiment(name: str, source: str) -> str:
    """The description of the experiment of a data set, to which the links of `ranking_link` are added."""
    return f"Runs on {source} (in the terminal: `python -m src.compare dataset={name}`). The best first:"


def ranking_link(experiment_id: str, task: str) -> str:
    """A link to an experiment's runs of a task, the best first; it stands in the description of the experiment."""
    return f"[{task.replace('_', ' ')}]({ranking_page(experiment_id, task)})"
