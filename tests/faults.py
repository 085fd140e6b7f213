"""What runs lose by faults. Every run here is a process of its own; the faults are real ones.

    python -m tests.faults                # each fault in turn, for every recipe: the table of src/README.md
    python -m tests.faults --kills 200    # kill -9 at random moments, over all recipes and strategies

A run with faults is compared with an undisturbed one: its weights and all its metrics have to be the same, bit for bit. The
tables show how many steps had to be repeated after each fault. The exit status is 1 if anything is not as it has to be.
"""

import argparse
import contextlib
import dataclasses
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import mlflow
import numpy as np

from tests import commands, database
from tests.victim import EPOCHS, FAULTS, PROGRESS_FILE

CHECKPOINT_EVERY = 5  # steps
TIMES = ("seconds", "milliseconds_per_sample", "examples_per_second")  # metrics that differ between equal runs
IMAGES = ["model.width=8", "dataset.limit=640", "task.samples=20", "task.reference_classifier=rnn"]
SHORT_RUNS = {  # overrides that make a run of each recipe one of seconds
    "attention": ["dataset.limit=640"],
    "cnn": ["dataset.limit=640"],
    "diffusion": IMAGES,
    "gan": IMAGES,
    "gpt": [
        "model.blocks=1", "model.dimension=16", "training.steps_per_epoch=20", "dataset.limit=640",
        'dataset.splits.validation="train[80%:81%]"', 'dataset.splits.test="train[90%:91%]"',
    ],
    "lightweight": ["dataset.limit=640", "model.width=0.25", "compression=none"],
    "lstm": ["model.units=8", "training.steps_per_epoch=20"],
    "resnet": ["model.depth=8", "dataset.limit=640"],
    "rnn": ["dataset.limit=640"],
    "transformer": ["model.blocks=1", "model.dimension=16", "dataset.limit=640"],
}  # fmt: skip
TABLE_FAULTS = [name for name in FAULTS if name not in ("none", "server dies")]
STEPS = 20 * EPOCHS  # of each run


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    Attributes:
        weights: {name: values}.
        history: {metric: [(step, value), …]}.
    """

    weights: dict[str, np.ndarray]
    history: dict[str, list[tuple[int, float]]]

    def same_as(self, other: "Outcome") -> bool:
        """Whether all weights and metrics are equal, bit for bit."""
        return (
            self.history == other.history
            and self.weights.keys() == other.weights.keys()
            and all(np.array_equal(value, other.weights[name]) for name, value in self.weights.items())
        )


def overrides(recipe: str, strategy: str = "single") -> list[str]:
    """The command line of a short run of a recipe."""
    return [
        f"model={recipe}", f"strategy={strategy}", f"training.epochs={EPOCHS}", "training.batch_size=32", "training.ema=0.9",
        f"checkpoint.every={CHECKPOINT_EVERY}", "checkpoint.unit=steps", *commands.WEIGHTS_ONLY, *SHORT_RUNS[recipe],
    ]  # fmt: skip


def start(
    folder: Path, arguments: Sequence[str], fault: str = "none", fault_step: int = -1, **variables: str
) -> subprocess.Popen:
    """Start a run in a folder, with a fault at a step.

    Args:
        folder: its working directory.
        arguments: of `src.run`.
        fault: one of `FAULTS`.
        fault_step: completed steps at which the fault comes.
        variables: of its environment.
    """
    return commands.start(folder, fault, str(fault_step), *arguments, module="tests.victim", own_session=True, **variables)


def run_undisturbed(arguments: Sequence[str], folder: Path) -> Outcome:
    """The outcome of a run without faults."""
    process = start(folder, arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return read_outcome(folder)


def read_outcome(folder: Path, uri: str | None = None) -> Outcome:
    """The outcome of the only run with `EPOCHS` epochs in a folder, or on a server."""
    client = mlflow.MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
    run = _only_run(client)
    assert run.info.status == "FINISHED", run.info.status
    history = {}
    for name in run.data.metrics:
        if not name.startswith("system/") and name.rpartition("/")[2] not in TIMES:
            history[name] = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
    weights = {}
    with h5py.File(next(folder.rglob(f"{run.info.run_id}/artifacts/model.weights.h5"))) as file:
        file.visititems(lambda name, item: weights.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return Outcome(weights, history)


def _only_run(client: mlflow.MlflowClient) -> mlflow.entities.Run:
    """The run with `EPOCHS` epochs; reference classifiers have more."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"params.`training.epochs` = '{EPOCHS}'")
    return run


def run_with_faults(
    arguments: Sequence[str], folder: Path, faults: Sequence[tuple[str, int]]
) -> tuple[Outcome, dict[str, int]]:
    """Run with one fault after the other, resuming the run after each.

    Args:
        arguments: of `src.run`.
        folder: its working directory.
        faults: (fault, completed steps at which it comes), in order.

    Returns:
        The outcome, and for each fault the number of steps that had to be repeated.
    """
    repeated, previous, resume, completed, steps_per_epoch = {}, None, [], 0, 0
    for fault, step in [*faults, ("none", -1)]:
        process = start(folder, [*arguments, *resume], fault, step)
        output, _ = process.communicate()
        if previous:
            repeated[previous] = completed - resumed_step(output, steps_per_epoch)
        assert (process.returncode == 0) == (fault == "none"), f"{fault} at {step}:\n{output}"
        completed, steps_per_epoch, _ = progress(folder)
        previous, resume = fault, []
        if fault == "machine lost":
            shutil.rmtree(folder / "mlruns/unfinished")
            run_id = _only_run(mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")).info.run_id
            resume = [f"resume={run_id}"]  # needed since MLflow says that it is running
    return read_outcome(folder), repeated


def run_with_kills(arguments: Sequence[str], folder: Path, moments: Sequence[float]) -> tuple[Outcome, list[int]]:
    """Run with kill -9 at several moments, resuming the run after each.

    Args:
        arguments: of `src.run`.
        folder: its working directory.
        moments: seconds after the first step of training or, if negative, after the start of the process.

    Returns:
        The outcome, and the number of steps that had to be repeated after each kill during training.
    """
    repeated, before_kill = [], None
    for seconds in [*moments, None]:
        (folder / PROGRESS_FILE).unlink(missing_ok=True)
        process = start(folder, arguments)
        if seconds is not None and seconds >= 0:
            while process.poll() is None and not progress(folder)[0]:
                time.sleep(0.005)
        try:
            output, _ = process.communicate(timeout=seconds and abs(seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        if before_kill and resume_message(output):
            repeated.append(before_kill[0] - resumed_step(output, before_kill[1]))
            before_kill = None
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
        if progress(folder)[0]:
            before_kill = progress(folder)
    return read_outcome(folder), repeated


def progress(folder: Path) -> tuple[int, int, float]:
    """Completed steps, steps per epoch, and seconds since the first step, of the last process; zeros before that."""
    try:
        completed, steps_per_epoch, seconds = (folder / PROGRESS_FILE).read_text().split()
    except (FileNotFoundError, ValueError):
        return 0, 0, 0.0
    return int(completed), int(steps_per_epoch), float(seconds)


def resume_message(output: str) -> re.Match | None:
    """Where a run resumes, if it says so."""
    return re.search(r"Resuming an interrupted run from (?:epoch (\d+), step (\d+)|the beginning)", output)


def resumed_step(output: str, steps_per_epoch: int) -> int:
    """The completed steps from which a run resumes, as it says."""
    match = resume_message(output)
    assert match, output
    return (int(match[1]) - 1) * steps_per_epoch + int(match[2]) if match[1] else 0


class Server:
    """An MLflow server on a port of the loopback interface, which can be stopped and started again.

    Args:
        folder: of its database and artifacts.
        options: more options of `mlflow server`.
        variables: of its environment.
    """

    def __init__(self, folder: Path, *options: str, **variables: str):
        self.folder, self.options, self.variables, self.process = folder, options, variables, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        if database.TEMPLATE in os.environ:
            database.copy(self.folder / "server.db")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
                "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
                "--artifacts-destination", f"{self.folder}/artifacts", *self.options,
            ],
            # Without the jobs of MLflow's GenAI features, which are two more processes to start.
            cwd=self.folder, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **self.variables},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=1)
                return
            time.sleep(0.1)
        raise AssertionError("the server does not start")

    def stop(self) -> None:
        """Kill the server and its workers."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def sync(folder: Path, uri: str, **variables: str) -> subprocess.CompletedProcess:
    """Upload the outboxes of a folder to a server."""
    return commands.run(folder, module="src.sync", MLFLOW_TRACKING_URI=uri, **variables)


def run_while_server_dies(arguments: Sequence[str], folder: Path, step: int) -> Outcome:
    """The outcome of a run whose MLflow server dies at a step, and is started again after the run has ended."""
    server = Server(folder)
    server.start()
    try:
        process = start(folder, arguments, "server dies", step, MLFLOW_TRACKING_URI=server.uri, SERVER=str(server.process.pid))
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert "does not answer" in output
        server.stop()
        server.start()
        synced = sync(folder, server.uri)
        assert synced.returncode == 0, synced.stderr
        return read_outcome(folder, server.uri)
    finally:
        server.stop()


@contextlib.contextmanager
def folders(number: int) -> Iterator[list[Path]]:
    """Empty temporary folders."""
    with tempfile.TemporaryDirectory() as root:
        paths = [Path(root, str(index)) for index in range(number)]
        for path in paths:
            path.mkdir()
        yield paths


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, help="number of kills over all runs; without it, each fault in turn")
    parser.add_argument("--recipes", nargs="+", default=list(SHORT_RUNS))
    parser.add_argument("--strategies", nargs="+", default=["single", "mirrored"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    passed = print_kills(options, generator) if options.kills else print_faults(options, generator)
    sys.exit(not passed)


def print_faults(options: argparse.Namespace, generator: random.Random) -> bool:
    """Print the table of faults. Return whether every run ended as it has to."""
    passed = True
    print(f"| | {' | '.join([*TABLE_FAULTS, 'server dies'])} | end |\n|---|{'---|' * (len(TABLE_FAULTS) + 2)}", flush=True)
    for recipe in options.recipes:
        interval = STEPS // (len(TABLE_FAULTS) + 1)
        faults = [(fault, interval * number + generator.randrange(interval)) for number, fault in enumerate(TABLE_FAULTS, 1)]
        with folders(3) as (undisturbed, disturbed, without_server):
            reference = run_undisturbed(overrides(recipe), undisturbed)
            result, repeated = run_with_faults(overrides(recipe), disturbed, faults)
            server_died = run_while_server_dies(overrides(recipe), without_server, STEPS // 2)
        equal = reference.same_as(result) and reference.same_as(server_died)
        within_interval = all(
            steps <= CHECKPOINT_EVERY for fault, steps in repeated.items() if fault not in ("disk full", "machine lost")
        )
        passed &= equal and within_interval
        cells = [
            *(steps_in_words(repeated[fault]) for fault in TABLE_FAULTS),
            steps_in_words(0),
            "the same" if equal else "DIFFERENT",
        ]
        print(f"| `{recipe}` | {' | '.join(cells)} |", flush=True)
    return passed


def print_kills(options: argparse.Namespace, generator: random.Random) -> bool:
    """Print the table of random kills. Return whether every run ended as it has to."""
    pairs, passed = [(recipe, strategy) for recipe in options.recipes for strategy in options.strategies], True
    print("| recipe | strategy | kills | during training | most steps repeated | end |", flush=True)
    print("|---|---|---|---|---|---|")
    for number, (recipe, strategy) in enumerate(pairs):
        kills = options.kills * (number + 1) // len(pairs) - options.kills * number // len(pairs)
        with folders(2) as (undisturbed, disturbed):
            reference = run_undisturbed(overrides(recipe, strategy), undisturbed)
            seconds = progress(undisturbed)[2]
            training = [generator.uniform(0, 2 * seconds / kills) for _ in range(kills)]
            moments = [moment if generator.random() < 0.9 else -generator.uniform(1, 10) for moment in training]
            result, repeated = run_with_kills(overrides(recipe, strategy), disturbed, moments)
        equal = reference.same_as(result)
        passed &= equal and max(repeated, default=0) <= CHECKPOINT_EVERY
        cells = [f"`{recipe}`", f"`{strategy}`", str(kills), str(len(repeated)), steps_in_words(max(repeated, default=0))]
        print(f"| {' | '.join(cells)} | {'the same' if equal else 'DIFFERENT'} |", flush=True)
    return passed


def steps_in_words(number: int) -> str:
    """ "nothing", "1 step", "2 steps"."""
    return "nothing" if number == 0 else f"{number} step" + "s" * (number > 1)


if __name__ == "__main__":
    main()
