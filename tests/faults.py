"""What runs lose by faults. Every run here is a process of its own; the faults are real ones.

    python -m tests.faults                # each fault in turn, for every recipe: the README's table
    python -m tests.faults --kills 200    # kill -9 at random moments, over all recipes and strategies

A run that suffered them is compared with one that was left alone: its weights and all its metrics have to be the same, bit for
bit. The tables tell how many steps had to be done again after each. Ends with status 1 if anything is not as it has to be.
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
from tests.victim import EPOCHS, FAULTS, PROGRESS

EVERY = 5  # steps between two checkpoints
TIMES = ("seconds", "milliseconds_per_sample", "examples_per_second")  # metrics that are no consequence of the settings
IMAGES = ["model.width=8", "dataset.limit=640", "task.samples=20", "task.reference_classifier=rnn"]
SMALL = {  # what makes each recipe a run of seconds
    "attention": ["dataset.limit=640"],
    "cnn": ["dataset.limit=640"],
    "diffusion": IMAGES,
    "gan": IMAGES,
    "gpt": ["model.blocks=1", "model.dimension=16", "training.steps_per_epoch=20", "dataset.limit=640"],
    "lightweight": ["dataset.limit=640", "model.width=0.25", "compression=none"],
    "lstm": ["model.units=8", "training.steps_per_epoch=20"],
    "resnet": ["model.depth=8", "dataset.limit=640"],
    "rnn": ["dataset.limit=640"],
    "transformer": ["model.blocks=1", "model.dimension=16", "dataset.limit=640"],
}
IN_TURN = [name for name in FAULTS if name not in ("none", "server dies")]
STEPS = 20 * EPOCHS  # of each run


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    Attributes:
        weights: by name.
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


def arguments(recipe: str, strategy: str = "single") -> list[str]:
    """Of a short run of a recipe."""
    return [
        f"model={recipe}", f"strategy={strategy}", f"training.epochs={EPOCHS}", "training.batch_size=32", "training.ema=0.9",
        f"checkpoint.every={EVERY}", "checkpoint.unit=steps", "tracking.log_model=false", *SMALL[recipe],
    ]  # fmt: skip


def start(folder: Path, words: Sequence[str], fault: str = "none", at: int = -1, **variables: str) -> subprocess.Popen:
    """A process that runs in a folder, until a fault comes at a step or it ends by itself."""
    return commands.start(folder, fault, str(at), *words, module="tests.victim", own_session=True, **variables)


def alone(words: Sequence[str], folder: Path) -> Outcome:
    """Of a run without any fault."""
    process = start(folder, words)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return outcome(folder)


def outcome(folder: Path, uri: str | None = None) -> Outcome:
    """Of the one run of a folder, or of a server; judges have more epochs."""
    client = mlflow.MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"params.`training.epochs` = '{EPOCHS}'")
    assert run.info.status == "FINISHED", run.info.status
    history = {}
    for name in run.data.metrics:
        if not name.startswith("system/") and name.rpartition("/")[2] not in TIMES:
            history[name] = [(found.step, found.value) for found in client.get_metric_history(run.info.run_id, name)]
    weights = {}
    with h5py.File(next(folder.rglob(f"{run.info.run_id}/artifacts/model.weights.h5"))) as file:
        file.visititems(lambda name, item: weights.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return Outcome(weights, history)


def suffer(words: Sequence[str], folder: Path, plan: Sequence[tuple[str, int]]) -> tuple[Outcome, dict[str, int]]:
    """A run that suffers one fault after the other, each time typed again.

    Returns:
        Its outcome, and the steps that had to be done again after each fault.
    """
    lost, before, more, done, epoch = {}, None, [], 0, 0
    for fault, at in [*plan, ("none", -1)]:
        process = start(folder, [*words, *more], fault, at)
        said, _ = process.communicate()
        if before:
            lost[before] = done - _resumed(said, epoch)
        assert (process.returncode == 0) == (fault == "none"), f"{fault} at {at}:\n{said}"
        done, epoch, _ = progress(folder)
        before, more = fault, []
        if fault == "machine lost":
            shutil.rmtree(folder / "mlruns/unfinished")
            more = [f"resume={_run_id(folder)}"]  # it looks as if it were running
    return outcome(folder), lost


def killed(words: Sequence[str], folder: Path, moments: Sequence[float]) -> tuple[Outcome, list[int]]:
    """A run that is killed, each time it was typed, so many seconds after it began to train; or, if negative, to start.

    Returns:
        Its outcome, and the steps that had to be done again after each kill that came while it trained.
    """
    lost, before = [], None
    for seconds in [*moments, None]:
        (folder / PROGRESS).unlink(missing_ok=True)
        process = start(folder, words)
        if seconds is not None and seconds >= 0:
            while process.poll() is None and not progress(folder)[0]:
                time.sleep(0.005)
        try:
            said, _ = process.communicate(timeout=seconds and abs(seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
        if before and _goes_on(said):
            lost.append(before[0] - _resumed(said, before[1]))
            before = None
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        if progress(folder)[0]:
            before = progress(folder)
    return outcome(folder), lost


def progress(folder: Path) -> tuple[int, int, float]:
    """Steps done, steps of an epoch, and seconds since the first step, of the process that ran last; zeros before that."""
    try:
        done, epoch, seconds = (folder / PROGRESS).read_text().split()
    except (FileNotFoundError, ValueError):
        return 0, 0, 0.0
    return int(done), int(epoch), float(seconds)


def _goes_on(said: str) -> re.Match | None:
    return re.search(r"it goes on from (?:epoch (\d+), step (\d+)|the beginning)", said)


def _resumed(said: str, epoch: int) -> int:
    found = _goes_on(said)
    assert found, said
    return (int(found[1]) - 1) * epoch + int(found[2]) if found[1] else 0


def _run_id(folder: Path) -> str:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"params.`training.epochs` = '{EPOCHS}'")
    return run.info.run_id


class Server:
    """An MLflow server on a port of the loopback interface, which can go and come back."""

    def __init__(self, folder: Path, *more: str, **variables: str):
        self.folder, self.more, self.variables, self.process = folder, more, variables, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it answers."""
        if database.TEMPLATE in os.environ:
            database.copy(self.folder / "server.db")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
                "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
                "--artifacts-destination", f"{self.folder}/artifacts", *self.more,
            ],
            # Without the jobs of MLflow's GenAI part, which are two more processes to start.
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
        """At once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def send(folder: Path, uri: str, **variables: str) -> subprocess.CompletedProcess:
    """Tells MLflow what runs have left untold."""
    return commands.run(folder, module="src.sync", MLFLOW_TRACKING_URI=uri, **variables)


def served(words: Sequence[str], folder: Path, at: int) -> Outcome:
    """A run whose MLflow server dies at a step, and comes back after it has ended."""
    server = Server(folder)
    server.start()
    try:
        process = start(folder, words, "server dies", at, MLFLOW_TRACKING_URI=server.uri, SERVER=str(server.process.pid))
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert "does not answer" in said
        server.stop()
        server.start()
        done = send(folder, server.uri)
        assert done.returncode == 0, done.stderr
        return outcome(folder, server.uri)
    finally:
        server.stop()


@contextlib.contextmanager
def folders(number: int) -> Iterator[list[Path]]:
    """Empty ones."""
    with tempfile.TemporaryDirectory() as root:
        made = [Path(root, str(index)) for index in range(number)]
        for folder in made:
            folder.mkdir()
        yield made


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, help="in all; without it, each fault in turn")
    parser.add_argument("--recipes", nargs="+", default=list(SMALL))
    parser.add_argument("--strategies", nargs="+", default=["single", "mirrored"])
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    draw = random.Random(chosen.seed)
    right = at_random(chosen, draw) if chosen.kills else in_turn(chosen, draw)
    sys.exit(not right)


def in_turn(chosen: argparse.Namespace, draw: random.Random) -> bool:
    """The table of faults; whether all is as it has to be."""
    right = True
    print(f"| | {' | '.join([*IN_TURN, 'server dies'])} | end |\n|---|{'---|' * (len(IN_TURN) + 2)}", flush=True)
    for recipe in chosen.recipes:
        between = STEPS // (len(IN_TURN) + 1)
        plan = [(fault, between * number + draw.randrange(between)) for number, fault in enumerate(IN_TURN, 1)]
        with folders(3) as (whole, cut, away):
            reference = alone(arguments(recipe), whole)
            result, lost = suffer(arguments(recipe), cut, plan)
            equal = reference.same_as(result) and reference.same_as(served(arguments(recipe), away, STEPS // 2))
        kept = all(steps <= EVERY for fault, steps in lost.items() if fault not in ("disk full", "machine lost"))
        right &= equal and kept
        cells = [*(_steps(lost[fault]) for fault in IN_TURN), _steps(0), "the same" if equal else "DIFFERENT"]
        print(f"| `{recipe}` | {' | '.join(cells)} |", flush=True)
    return right


def at_random(chosen: argparse.Namespace, draw: random.Random) -> bool:
    """The table of kills; whether all is as it has to be."""
    pairs, right = [(recipe, strategy) for recipe in chosen.recipes for strategy in chosen.strategies], True
    print("| recipe | strategy | kills | of them in training | most steps done again | end |", flush=True)
    print("|---|---|---|---|---|---|")
    for number, (recipe, strategy) in enumerate(pairs):
        kills = chosen.kills * (number + 1) // len(pairs) - chosen.kills * number // len(pairs)
        with folders(2) as (whole, cut):
            reference = alone(arguments(recipe, strategy), whole)
            length = progress(whole)[2]
            training = [draw.uniform(0, 2 * length / kills) for _ in range(kills)]
            moments = [moment if draw.random() < 0.9 else -draw.uniform(1, 10) for moment in training]
            result, lost = killed(arguments(recipe, strategy), cut, moments)
        equal = reference.same_as(result)
        right &= equal and max(lost, default=0) <= EVERY
        cells = [f"`{recipe}`", f"`{strategy}`", str(kills), str(len(lost)), _steps(max(lost, default=0))]
        print(f"| {' | '.join(cells)} | {'the same' if equal else 'DIFFERENT'} |", flush=True)
    return right


def _steps(number: int) -> str:
    return "nothing" if number == 0 else f"{number} step" + "s" * (number > 1)


if __name__ == "__main__":
    main()
