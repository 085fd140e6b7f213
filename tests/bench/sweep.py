"""Jobs of a sweep, after each other and side by side: `python -m tests.bench.sweep`. It prints figures, and asserts nothing.

after each other  forty short jobs: the time between two of them, and growth of memory
side by side      two jobs of lstm_mnist and of cnn_mnist, on data that is prepared: the time until both have ended, and the
                  peak memory of all processes together, in which pages that several share count once
"""

import argparse
import itertools
import statistics
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

ROUNDS = 3
PAIRS = {"lstm_mnist": "training.epochs=2", "cnn_mnist": "training.epochs=1"}
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
WAYS = {  # of running two jobs: overrides, and variables of the environment
    "after each other": ((), {}),
    "side by side, a thread for each core": (JOBLIB, {"OMP_NUM_THREADS": str(psutil.cpu_count())}),
    "side by side, sharing the threads": (JOBLIB, {}),
}
INTERVAL = 0.2  # seconds between two looks at the memory


def measure_gaps(folder: str) -> None:
    """Print the time between two jobs, and how memory grows."""
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


def measure_pairs(folder: str, rounds: int) -> None:
    """Print how long two jobs take, and how much memory."""
    for experiment, epochs in PAIRS.items():
        sweep = (f"experiment={experiment}", epochs)
        run(folder, *sweep, "seed=1000", "training.steps_per_epoch=1")  # prepares data and baselines
        measured: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for number in range(rounds * len(WAYS)):
            way, (overrides, variables) = list(WAYS.items())[number % len(WAYS)]
            seeds = f"seed={2 * number},{2 * number + 1}"
            measured[way].append(run(folder, "-m", *sweep, *overrides, seeds, **variables))
        for way, pairs in measured.items():
            seconds, peaks = zip(*pairs)
            print(
                f"{experiment} {epochs}, two jobs {way}: {statistics.median(seconds):.1f} s "
                f"({min(seconds):.1f} to {max(seconds):.1f}), up to {max(peaks):,.0f} MiB",
                flush=True,
            )


def run(folder: str, *arguments: str, **variables: str) -> tuple[float, float]:
    """Run `python -m src.run`; its seconds, and the peak memory of its processes in MiB."""
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "src.run", *arguments], cwd=folder, env=environment(**variables),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None:
        peak = max(peak, memory(psutil.Process(process.pid)))
        time.sleep(INTERVAL)
    if process.returncode:
        raise SystemExit(f"python -m src.run {' '.join(arguments)} ended with exit status {process.returncode}.")
    return time.perf_counter() - start, peak


def memory(process: psutil.Process) -> float:
    """MiB of a process and its descendants: a page of n processes counts 1/n in each."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss / 2**20
        except psutil.NoSuchProcess:  # it has ended meanwhile
            continue
    return total


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("gaps", "pairs"), help="measure forty jobs after each other, or two side by side")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the pairs")
    typed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if typed.only != "pairs":
            measure_gaps(folder)
        if typed.only != "gaps":
            measure_pairs(folder, typed.rounds)


if __name__ == "__main__":
    main()
