"""What earlier runs have left in MLflow."""

import os
import tempfile

import mlflow
import pydantic
import yaml

from src import config
from src.errors import UserError
from src.settings import Settings
from src.tracking import migration
from src.tracking.origin import SURROUNDINGS
from src.tracking.server import WEIGHTS, asking, connected


def same(chosen: Settings) -> str | None:
    """The id of the newest finished run that learned with the same settings; None if there is none."""
    wanted = f"tags.`settings.digest` = '{chosen.digest()}' and attributes.status = 'FINISHED'"
    with asking():
        client = connected()
        experiment = client.get_experiment_by_name(chosen.tracking.experiment)
        found = client.search_runs([experiment.experiment_id], wanted, max_results=1) if experiment else []
    return found[0].info.run_id if found else None


class Stored:
    """What a finished run left behind.

    Args:
        run_id: of the run.
        setting: the setting that names it, for messages.

    Attributes:
        recorded: its settings, as it recorded them.
        weights: the path of its weights.

    Raises:
        UserError: there is no such run, it kept no weights, or its recipe is none of this project's: a run is data, and what
            it names is code that would be called.
    """

    def __init__(self, run_id: str, setting: str):
        self.run_id, self.name = run_id, f"{setting}={run_id}"
        try:
            with asking():
                self.client = connected()
                self.recorded = yaml.safe_load(self.text("config.yaml"))
                self._folder = tempfile.TemporaryDirectory()  # removed with this object
                weights = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{WEIGHTS}")
                self.weights = migration.migrate_weights(weights, os.path.join(self._folder.name, WEIGHTS))
        except (mlflow.MlflowException, OSError):
            raise UserError(
                f"{self.name} names no finished run; its id stands at the end of its log and in the MLflow UI."
            ) from None
        target = self.recorded["model"]["_target_"]
        if target not in config.recipes():
            raise UserError(f"{self.name} was made by {target}, which is no recipe in conf/model; choose another run.")

    @property
    def settings(self) -> Settings:
        """Its settings.

        Raises:
            UserError: they are not those of this version.
        """
        try:
            return Settings.model_validate(self.recorded)
        except pydantic.ValidationError:
            raise UserError(
                f"{self.name} was made with another version of this project; choose a run that was made with this one."
            ) from None

    def metric(self, name: str) -> float:
        """The last value of one of its metrics."""
        return self.client.get_run(self.run_id).data.metrics[name]

    def tag(self, name: str) -> str | None:
        """One of its tags."""
        return self.client.get_run(self.run_id).data.tags.get(name)

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """{metric: [(step, value), …]}."""
        names = self.client.get_run(self.run_id).data.metrics
        return {name: [(m.step, m.value) for m in self.client.get_metric_history(self.run_id, name)] for name in names}

    def surroundings(self) -> dict[str, str]:
        """What it ran on, as `surroundings` tells it of this process."""
        run = self.client.get_run(self.run_id)
        inputs = run.inputs.dataset_inputs if run.inputs else []
        data = {f"data.{entry.tags[0].value}": entry.dataset.digest for entry in inputs}
        return {name: run.data.tags[name] for name in run.data.tags if name in SURROUNDINGS} | data

    def text(self, name: str) -> str:
        """One of the texts that it kept."""
        return mlflow.artifacts.load_text(f"runs:/{self.run_id}/{name}")
