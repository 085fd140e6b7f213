"""Time of a comparison of a thousand runs: `python -m tests.bench_compare`. It prints times, and asserts nothing about them."""

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

ROOT = Path(__file__).resolve().parent.parent
RUNS, SEEDS, EPOCHS = 1000, 5, 30
RECIPES = ("cnn", "rnn", "lstm", "transformer", "resnet")


def create_runs(uri: str, number: int = RUNS) -> None:
    """Create finished runs like those of this project, with random results."""
    client, generator = mlflow.MlflowClient(uri), random.Random(0)
    experiment = client.create_experiment("digits")
    test_set = DatasetInput(Dataset("digits", "0" * 32, "code", "{}"), [InputTag(MLFLOW_DATASET_CONTEXT, "test")])
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        defaults = {name: config.checked(compose("config", [f"model={name}", "dataset=digits"])).flat() for name in RECIPES}
    for index in range(number):
        recipe, rate = RECIPES[index // SEEDS % len(RECIPES)], 1e-4 * (1 + index // SEEDS // len(RECIPES))
        settings = defaults[recipe] | {"seed": index % SEEDS, "optimizer.learning_rate": rate}
        run = client.create_run(experiment, start_time=index)
        accuracy = generator.gauss(0.95, 0.01)
        values = {"test/accuracy": accuracy, "test/nll": 0.1, "baseline/logistic_regression/accuracy": 0.97, "seconds": 9.0}
        values |= {f"system/{monitor}": 1.0 for monitor in range(10)}
        metrics = [Metric(name, value, index, 0) for name, value in values.items()]
        metrics += [Metric("val/accuracy", accuracy * (1 - 0.5**epoch), index, epoch) for epoch in range(1, EPOCHS + 1)]
        client.log_batch(run.info.run_id, metrics, [Param(name, str(value)) for name, value in settings.items()])
        client.log_inputs(run.info.run_id, datasets=[test_set])
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
            process = subprocess.run(
                [sys.executable, "-m", "src.compare", *arguments],
                cwd=folder, env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            print(f"{seconds:5.2f} s  {len(process.stdout):9,} characters  compare {' '.join(arguments)}", flush=True)


if __name__ == "__main__":
    main()
