"""How long a comparison of a thousand runs takes: `python -m tests.bench.compare`. It prints, and asserts nothing."""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
from hydra import compose, initialize_config_dir
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from src import config

ROOT = Path(__file__).resolve().parents[2]
RUNS, SEEDS, EPOCHS = 1000, 5, 30
RECIPES = ("cnn", "rnn", "lstm", "transformer", "resnet")


def create_runs(uri: str, runs: int = RUNS) -> None:
    """Finished runs as this project leaves them, of results that are drawn."""
    client, draw = mlflow.MlflowClient(uri), random.Random(0)
    experiment = client.create_experiment("digits")
    digest = DatasetInput(Dataset("digits", "0" * 32, "code", "{}"), [InputTag(MLFLOW_DATASET_CONTEXT, "test")])
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        plain = {name: config.validate(compose("config", [f"model={name}", "dataset=digits"])).flat() for name in RECIPES}
    for number in range(runs):
        recipe, rate = RECIPES[number // SEEDS % len(RECIPES)], 1e-4 * (1 + number // SEEDS // len(RECIPES))
        settings = plain[recipe] | {"seed": number % SEEDS, "optimizer.learning_rate": rate}
        run = client.create_run(experiment, start_time=number)
        accuracy = draw.gauss(0.95, 0.01)
        metrics = {
            "test/accuracy": accuracy,
            "test/nll": 0.1,
            "test/baseline/logistic_regression/accuracy": 0.97,
            "seconds": 9.0,
        }
        metrics |= {f"system/{number}": 1.0 for number in range(10)}
        points = [Metric(name, value, number, 0) for name, value in metrics.items()]
        points += [Metric("epoch/val/accuracy", accuracy * (1 - 0.5**epoch), number, epoch) for epoch in range(1, EPOCHS + 1)]
        client.log_batch(run.info.run_id, points, [Param(name, str(value)) for name, value in settings.items()])
        client.log_inputs(run.info.run_id, datasets=[digest])
        client.set_terminated(run.info.run_id)


def main() -> None:
    """The command line."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        create_runs(environment["MLFLOW_TRACKING_URI"])
        for arguments in (
            [],
            ["dataset=digits", "model=cnn"],
            ["format=html"],
            ["a=model=cnn optimizer.learning_rate=1e-4", "b=model=rnn optimizer.learning_rate=1e-4"],
        ):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "src.compare", *arguments],
                cwd=folder, env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            print(
                f"{time.perf_counter() - start:5.2f} s  {len(done.stdout):9,} characters  compare {' '.join(arguments)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
