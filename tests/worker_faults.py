"""What a run on several machines loses by faults. Every worker is a process of its own; the faults are real ones.

    python -m tests.worker_faults               # each fault in turn: the table of src/README.md
    python -m tests.worker_faults --kills 20    # kill -9 at random moments, of the chief and of the other worker

After each fault the same commands resume the run, and its weights and all its metrics have to be those of an undisturbed one,
bit for bit. The exit status is 1 if anything is not as it has to be.
"""

import argparse
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from src.cluster.local import HOST, free_ports
from tests import commands, faults
from tests.network import Network

STEPS_PER_EPOCH, FAULT_STEP = 50, 102  # a fault comes after this step
TIMEOUT, WAIT = 8, 5  # seconds: strategy.timeout, and strategy.wait where a worker is absent
RUN = (*faults.overrides("lstm", "multi_worker"), f"training.steps_per_epoch={STEPS_PER_EPOCH}", f"strategy.timeout={TIMEOUT}")
SILENT = f"has sent no sign of life for {TIMEOUT} s"


class Workers(NamedTuple):
    """The chief and another worker, each a process in a folder of its own.

    Attributes:
        folder: of these folders, `0` and `1`.
        processes: the chief first.
    """

    folder: Path
    processes: list[subprocess.Popen]

    def wait_for_step(self, step: int) -> None:
        """Wait until this process of the chief has completed a step of training."""
        while faults.progress(self.folder / "0")[0] < step:
            assert self.processes[0].poll() is None, self.processes[0].communicate()[0]
            time.sleep(0.005)


class Fault(NamedTuple):
    """A fault, and what has to come of it.

    Attributes:
        inflict: waits for its moment; returns the indices of the workers that have to notice it.
        words: of these at their end, without addresses.
        limit: seconds within which they have to end.
    """

    inflict: Callable[[Workers], list[int]]
    words: str
    limit: float


class Loss(NamedTuple):
    """What a fault has cost.

    Attributes:
        seconds: until the workers that have to notice it have ended.
        words: of these at their end, without addresses.
        repeated: steps that the resumed run has repeated.
    """

    seconds: float
    words: str
    repeated: int


def signal_at_step(worker: int, number: signal.Signals) -> Callable[[Workers], list[int]]:
    """Send a signal to a worker in the midst of training."""

    def inflict(workers: Workers) -> list[int]:
        workers.wait_for_step(FAULT_STEP)
        workers.processes[worker].send_signal(number)
        return [1 - worker]

    return inflict


def kill_after(worker: int, seconds: float) -> Callable[[Workers], list[int]]:
    """Kill a worker some seconds after the first step of this process."""

    def inflict(workers: Workers) -> list[int]:
        workers.wait_for_step(1)
        time.sleep(seconds)
        workers.processes[worker].kill()
        return [1 - worker]

    return inflict


FAULTS = {
    "`kill -9` of the chief": Fault(signal_at_step(0, signal.SIGKILL), "The chief has ended", 10),
    "`kill -9` of another worker": Fault(signal_at_step(1, signal.SIGKILL), "Worker 1 has ended", 10),
    # TensorFlow's own all-reduces end 10 s later, unless they are aborted.
    "a worker hangs": Fault(signal_at_step(1, signal.SIGSTOP), f"Worker 1 {SILENT}", TIMEOUT + 6),
    "SIGTERM to a worker": Fault(signal_at_step(1, signal.SIGTERM), "Stopped", 10),
}


def network_cut(network: Network) -> Fault:
    """The line between the hosts of the workers is cut in the midst of training, until both have ended."""

    def inflict(workers: Workers) -> list[int]:
        workers.wait_for_step(FAULT_STEP)
        network.switch("down")
        return [0, 1]

    return Fault(inflict, f"Worker 1 {SILENT}; The chief {SILENT}", TIMEOUT + 15)


def start(folder: Path, *overrides: str, network: Network | None = None) -> Workers:
    """Start the chief and another worker.

    Args:
        folder: for their folders.
        overrides: besides those of all runs here.
        network: whose hosts they run on; None: this one.
    """
    addresses = ",".join(f"{host}:{port}" for host, port in zip(network.hosts if network else (HOST, HOST), free_ports(2)))
    processes = []
    for index in range(2):
        own = folder / str(index)
        own.mkdir(exist_ok=True, parents=True)
        (own / faults.PROGRESS_FILE).unlink(missing_ok=True)
        arguments = [*RUN, *overrides, f"strategy.workers=[{addresses}]", f"strategy.index={index}"]
        processes.append(
            faults.start(own, arguments, TF_NUM_INTRAOP_THREADS="1")
            if network is None
            else network.start(index, own, "tests.victim", "none", "-1", *arguments, TF_NUM_INTRAOP_THREADS="1")
        )
    return Workers(folder, processes)


def run_with_faults(
    folder: Path, inflict: Sequence[Callable[[Workers], list[int]]], *overrides: str, network: Network | None = None
) -> tuple[list[Loss], faults.Outcome]:
    """Run with one fault after the other, resuming after each.

    Args:
        folder, overrides, network: as for `start`.
        inflict: as of a `Fault`; none: an undisturbed run.

    Returns:
        What each fault has cost, and the outcome.
    """
    losses: list[Loss] = []
    completed, steps_per_epoch = 0, 0
    for fault in [*inflict, lambda workers: [0, 1]]:
        _, processes = workers = start(folder, *overrides, network=network)
        try:
            others = fault(workers)
            began = time.monotonic()
            outputs = {index: processes[index].communicate(timeout=240)[0] for index in others}
            seconds = time.monotonic() - began
        finally:
            if network:
                network.switch("up")
            for process in processes:
                process.kill()
        outputs = {index: outputs.get(index) or process.communicate()[0] for index, process in enumerate(processes)}
        if losses:
            losses[-1] = losses[-1]._replace(repeated=completed - faults.resumed_step(outputs[0], steps_per_epoch))
        completed, steps_per_epoch, _ = faults.progress(folder / "0")
        losses.append(Loss(seconds, "; ".join(_last_words(outputs[index]) for index in others), 0))
    assert [process.returncode for process in processes] == [0, 0], outputs
    return losses[:-1], faults.read_outcome(folder / "0")


def run_with_kills(folder: Path, number: int, seed: int) -> tuple[list[Loss], bool]:
    """Kill the chief or the other worker at random moments of a run.

    Returns:
        What each kill has cost, and whether the run has ended as an undisturbed one.
    """
    generator, longer = random.Random(seed), f"training.steps_per_epoch={20 * number}"
    _, undisturbed = run_with_faults(folder / "undisturbed", [], longer)
    seconds = faults.progress(folder / "undisturbed/0")[2]
    kills = [kill_after(generator.randrange(2), generator.uniform(0, 1.4 * seconds / number)) for _ in range(number)]
    losses, outcome = run_with_faults(folder / "disturbed", kills, longer)
    return losses, outcome.same_as(undisturbed)


def refusal(folder: Path, *of_other: str, absent: bool = False) -> tuple[float, str]:
    """Workers that may not train together, and are told so at the start.

    Args:
        folder: for their folders.
        of_other: settings of the other worker alone.
        absent: the other worker is not started.

    Returns:
        Seconds from the command to the end of the chief, which names the difference, and its words.
    """
    addresses = ",".join(f"{HOST}:{port}" for port in free_ports(2))
    began, processes = time.monotonic(), []
    for index, own in enumerate([(), of_other][: 1 if absent else 2]):
        (folder / str(index)).mkdir(parents=True)
        arguments = [*RUN, f"strategy.wait={WAIT}", f"strategy.workers=[{addresses}]", f"strategy.index={index}", *own]
        processes.append(commands.start(folder / str(index), *arguments, fresh=True))
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    return time.monotonic() - began, _last_words(outputs[0])


def _last_words(output: str) -> str:
    """The first sentence of the last line, without the addresses of workers."""
    return re.sub(r" \([\d.:]+\)", "", re.split(r"[.;](?: |$)", output.rstrip().rpartition("\n")[2])[0])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, help="number of kills at random moments; without it, each fault in turn")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with faults.folders(1) as (folder,):
        passed = print_kills(folder, options.kills, options.seed) if options.kills else print_faults(folder)
    sys.exit(not passed)


def print_faults(folder: Path) -> bool:
    """Print the table of faults. Return whether every run ended as it has to."""
    print("| fault | the others end after | their words | steps repeated | end |\n|---|---|---|---|---|", flush=True)
    _, undisturbed = run_with_faults(folder / "undisturbed", [])
    passed = True

    def print_row(name: str, fault: Fault, network: Network | None = None) -> None:
        nonlocal passed
        (loss,), outcome = run_with_faults(folder / name.strip("`"), [fault.inflict], network=network)
        equal = outcome.same_as(undisturbed)
        passed &= equal and loss.seconds < fault.limit and loss.words == fault.words
        end = "the same" if equal else "DIFFERENT"
        repeated = faults.steps_in_words(loss.repeated)
        print(f"| {name} | {loss.seconds:.1f} s | {loss.words} | {repeated} | {end} |", flush=True)

    for name, fault in FAULTS.items():
        print_row(name, fault)
    with Network() as network:
        print_row("the network is cut", network_cut(network), network)
    for name, (seconds, words) in {
        "other settings": refusal(folder / "other", "seed=1"),
        "a worker is absent": refusal(folder / "absent", absent=True),
    }.items():
        print(f"| {name} | {seconds:.1f} s | {words} | nothing | not started |")
    return passed


def print_kills(folder: Path, number: int, seed: int) -> bool:
    """Print what random kills have cost. Return whether the run ended as it has to."""
    losses, equal = run_with_kills(folder, number, seed)
    seconds, repeated = [loss.seconds for loss in losses], max(loss.repeated for loss in losses)
    print(
        f"{number} kills: the other worker ended after {statistics.median(seconds):.1f} s (median; {max(seconds):.1f} s at "
        f"most), {faults.steps_in_words(repeated)} repeated at most, end {'the same' if equal else 'DIFFERENT'}"
    )
    return equal and repeated <= faults.CHECKPOINT_EVERY


if __name__ == "__main__":
    main()
