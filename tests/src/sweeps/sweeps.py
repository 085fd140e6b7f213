"""Sweeps as processes, and access to what they log to MLflow."""

import mlflow

from tests import commands, stored

TINY = ("model=lstm", "model.units=4", "training.epochs=2", "training.steps_per_epoch=5", *commands.WEIGHTS_ONLY)
TIMES = ("seconds", "joules", "examples_per_second")


def start(here, *overrides, **more):
    """Start a sweep as a process in a session of its own, as a terminal does."""
    return commands.start(here, "-m", *overrides, own_session=True, **more)


def killed_after(here, jobs, number, *overrides):
    """Start a sweep, send it signal `number` in the job after the first `jobs` ones, and return its output."""
    process, output = start(here, *overrides), []
    for line in process.stdout:
        output.append(line)
        if "epoch 1/" in line:
            jobs -= 1
        if jobs < 0:
            process.send_signal(number)
            break
    output.append(process.stdout.read())
    process.wait()
    return "".join(output)


class StoredSweep:
    """The sweep in the MLflow store of a folder."""

    def __init__(self, here):
        self.client = stored.client(here)
        self.runs = stored.runs(self.client)
        self.parents = [run for run in self.runs if run.data.tags.get("kind") == "sweep"]
        self.children = [run for run in self.runs if run.data.tags.get("mlflow.parentRunId")]

    def text(self, run, name):
        return mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}")

    def history(self, run, metric):
        return self.client.get_metric_history(run.info.run_id, metric)

    def metrics(self):
        """{(seed, learning rate) of a job: its metrics, but for those of time}."""
        metrics = {}
        for run in self.children:
            kept = {name: value for name, value in run.data.metrics.items() if not name.startswith("system/")}
            key = (run.data.params["seed"], run.data.params["optimizer.learning_rate"])
            assert key not in metrics
            metrics[key] = {name: value for name, value in kept.items() if name not in TIMES}
        return metrics
