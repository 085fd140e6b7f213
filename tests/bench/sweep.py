"""Time between two jobs of a sweep, and growth of memory: `python -m tests.bench.sweep`. It asserts nothing."""

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import psutil

from tests.commands import environment

JOBS = 40
OVERRIDES = ("model=cnn", "model.filters=[8]", "training.epochs=2", f"seed=range({JOBS})")


def main() -> None:
    """The command line."""
    with tempfile.TemporaryDirectory() as folder:
        resident, start = [], time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "src.run", "-m", *OVERRIDES], cwd=folder, env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        for line in process.stdout:
            if line.startswith("In MLflow: run cnn"):
                resident.append(psutil.Process(process.pid).memory_info().rss / 2**20)  # MiB
        print(f"{' '.join(OVERRIDES)}: exit status {process.wait()}, {time.perf_counter() - start:.0f} s", flush=True)
        client = mlflow.MlflowClient(f"sqlite:///{Path(folder) / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id], order_by=["attributes.start_time"])
        jobs = [run.info for run in runs if "mlflow.parentRunId" in run.data.tags]
        gaps = [(after.start_time - before.end_time) / 1000 for before, after in itertools.pairwise(jobs)]
        print(f"from the end of a job to the start of the next: first {gaps[0]:.2f} s, longest {max(gaps):.2f} s")
        memory = ", ".join(f"{resident[job - 1]:.0f} after {job}" for job in (1, 5, 10, 20, 30, JOBS))
        print(f"resident memory in MiB: {memory}; after {JOBS} {resident[-1] / resident[4] - 1:+.1%} of that after 5")


if __name__ == "__main__":
    main()
