"""The contenders of an experiment, measured in rounds that alternate."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil
from hydra import initialize_config_dir

from src import config
from src.config.compose import compose_config
from src.config.schema import Settings
from src.errors import UserError
from tests.bench.throughput.contenders import CONTENDERS, REFERENCE, Contender
from tests.bench.throughput.processes import ContenderProcess, Ready

WARM_UP = 2.0  # seconds
NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")  # of the times of processors; those of guests are among the others, too
# A single epoch without end: its steps alone are measured. `tests.bench.checkpoints` says what checkpoints cost.
ENDLESS = ("training.epochs=1", "training.steps_per_epoch=1000000", "checkpoint.every=1000000")


@dataclass
class Result:
    """What was measured of a contender.

    Attributes:
        rates: examples per second of each round; empty if it was not compared.
        reason: why it was not compared.
        first_step: seconds of the first step, with tracing and compilation.
    """

    rates: list[float] = field(default_factory=list)
    reason: str = ""
    first_step: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The contenders of an experiment.

    Attributes:
        experiment: its name.
        batch_size: examples in a step.
        data: what they were trained on.
        parameters: of every network.
        device: CPU or GPU.
        results: {contender: result}.
        disturbance: in each round, the share of the processor time of all cores that other processes used.
        unit: what is counted.
    """

    experiment: str
    batch_size: int
    data: str
    parameters: int
    device: str
    results: dict[str, Result]
    disturbance: list[float]
    unit: str = "examples"


def compare(
    experiment: str, names: list[str], *, rounds: int, seconds: float, threads: int, overrides: tuple[str, ...] = (),
    contenders: Mapping[str, Contender] = CONTENDERS, unit: str = "examples",
) -> Comparison:  # fmt: skip
    """Measure contenders, all after each other in every round.

    Args:
        experiment: its name in conf/experiment.
        names: of the contenders; the reference is measured whether it is among them or not.
        rounds: number of rounds.
        seconds: of work of each contender in a round.
        threads: of each contender.
        overrides: of the experiment's settings.
        contenders: {name: contender}.
        unit: what is counted: `training.batch_size` of them in a step.

    Raises:
        UserError: this project itself fails.
    """
    settings = settings_of(experiment, *overrides)
    with contextlib.ExitStack() as stack:
        reference = stack.enter_context(contextlib.closing(ContenderProcess(contenders[REFERENCE], settings, None, threads)))
        ready, processes = reference.ready, {REFERENCE: reference}
        results = {REFERENCE: Result(first_step=reference.first_step)}
        for name in names:  # one after the other, so that they compile undisturbed
            contender = contenders[name]
            if name == REFERENCE or (contender.recipes and settings.model.name not in contender.recipes):
                continue
            try:
                check_installed(contender)
                own = settings_of(experiment, *overrides, *contender.overrides)
                process = stack.enter_context(contextlib.closing(ContenderProcess(contender, own, ready.problem, threads)))
                check_comparable(ready, process.ready)
            except UserError as error:
                results[name] = Result(reason=str(error))
            else:
                results[name], processes[name] = Result(first_step=process.first_step), process
        measure_round(processes, results, WARM_UP)
        size, disturbance = settings.training.batch_size, []
        for _ in range(rounds):
            start, others = time.perf_counter(), cpu_seconds_of_others(processes)
            for name, rate in measure_round(processes, results, seconds).items():
                results[name].rates.append(size * rate)
            used = cpu_seconds_of_others(processes) - others
            disturbance.append(max(used, 0.0) / (time.perf_counter() - start) / (psutil.cpu_count() or 1))
    return Comparison(experiment, size, ready.problem.source, ready.parameters, ready.device, results, disturbance, unit)


def measure_round(processes: dict[str, ContenderProcess], results: dict[str, Result], seconds: float) -> dict[str, float]:
    """Let all work after each other; one that fails drops out, and its result says why.

    Args:
        processes: {contender: process}.
        results: {contender: result}.
        seconds: of work of each.

    Returns:
        {contender: steps per second}.

    Raises:
        UserError: this project itself fails.
    """
    rates = {}
    for name, process in list(processes.items()):
        try:
            measured = process.measure(seconds)
        except UserError as error:
            if name == REFERENCE:
                raise
            results[name] = Result(reason=str(error))
            del processes[name]
        else:
            rates[name] = measured.steps / measured.seconds
    return rates


def cpu_seconds_of_others(processes: dict[str, ContenderProcess]) -> float:
    """Processor time that all other processes of this machine have used so far."""
    times = psutil.cpu_times()._asdict()
    busy = sum(seconds for name, seconds in times.items() if name not in NOT_BUSY)
    return busy - sum(process.cpu_seconds for process in processes.values())


def settings_of(experiment: str, *overrides: str) -> Settings:
    """The checked settings of a training of an experiment that does not end."""
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        return config.validate(compose_config("config", [f"experiment={experiment}", *ENDLESS, *overrides]))


def check_installed(contender: Contender) -> None:
    """Raise a UserError if packages of a contender are missing."""
    if contender.missing:
        raise UserError(f"{', '.join(contender.missing)} not installed; pip install -r requirements-bench.txt")


def check_comparable(reference: Ready, other: Ready) -> None:
    """Raise a UserError unless two networks have the same number of parameters, and are on the same kind of device."""
    if other.parameters != reference.parameters:
        raise UserError(f"its network has {other.parameters:,} parameters, and this project's {reference.parameters:,}")
    if other.device != reference.device:
        raise UserError(f"it trains on a {other.device}, and this project on a {reference.device}")
