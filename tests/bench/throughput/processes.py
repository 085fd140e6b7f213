"""Each contender in a process of its own, which works only while it is measured."""

import multiprocessing
import os
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn
from unittest import mock

import psutil

from src import terminal
from src.config.schema import Settings
from src.errors import UserError
from tests.bench.throughput.contenders import PACKAGE, Contender

END_WITHIN = 10  # seconds


@dataclass(frozen=True)
class Ready:
    """A network that is built.

    Attributes:
        parameters: trainable ones.
        device: CPU or GPU.
        problem: of this project, what its peers need to know.
    """

    parameters: int
    device: str
    problem: Any = None


@dataclass(frozen=True)
class Measurement:
    """Steps, and the seconds that they took."""

    steps: int
    seconds: float


class Pace:
    """Lets a loop run while it is measured, and makes it wait in between.

    Args:
        connection: to the process that measures.
    """

    def __init__(self, connection: Connection):
        self.connection = connection

    def ready(self, parameters: int, device: str, problem: Any = None) -> None:
        """Report that the first step is about to begin; returns when the first measurement starts."""
        self._report(Ready(parameters, device, problem), 0)

    def completed(self, steps: int, synchronize: Callable[[], object]) -> None:
        """Called after every step; waits for the next measurement if this one is over.

        Args:
            steps: number of steps since the first one.
            synchronize: called at the end of a measurement, returns when the device has done what was asked of it.
        """
        if time.perf_counter() < self.end:
            return
        synchronize()
        self._report(Measurement(steps - self.first_step, time.perf_counter() - self.start), steps)

    def _report(self, message: Ready | Measurement, step: int) -> None:
        try:
            self.connection.send(message)
            seconds = self.connection.recv()
        except (EOFError, BrokenPipeError):  # nobody measures any more
            sys.exit()
        self.first_step, self.start = step, time.perf_counter()
        self.end = self.start + seconds


class ContenderProcess:
    """A contender at work.

    Args:
        contender: what works.
        settings: of its run.
        problem: of the reference; None: this is the reference.
        threads: that it may use, on as many cores.

    Raises:
        UserError: it fails.
    """

    def __init__(self, contender: Contender, settings: Settings, problem: Any, threads: int):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(contender, settings, problem, threads, theirs))
        # Libraries read these when they are imported.
        variables = {"KERAS_BACKEND": contender.backend, "OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with mock.patch.dict(os.environ, variables):
            self.process.start()
        theirs.close()
        try:
            self.ready: Ready = self._receive()
            self.first_step = self.measure(0).seconds  # with tracing and compilation
        except BaseException:
            self.close()
            raise

    def measure(self, seconds: float) -> Measurement:
        """Let it work for some seconds, one step at least."""
        self.connection.send(seconds)
        return self._receive()

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has used so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def _receive(self) -> Any:
        try:
            received = self.connection.recv()
        except EOFError:
            raise UserError(f"its process ended with exit status {self.process.exitcode}") from None
        if isinstance(received, UserError):
            raise received
        return received

    def close(self) -> None:
        """End it."""
        self.connection.close()
        self.process.join(END_WITHIN)
        self.process.kill()
        self.process.join()


def _work(contender: Contender, settings: Settings, problem: Any, threads: int, connection: Connection) -> NoReturn:
    """The process: work until there is nothing more to measure."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # no bars of several processes in one terminal
    terminal.log_to_terminal()
    if hasattr(os, "sched_setaffinity"):  # XLA has no setting for its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        pkgutil.resolve_name(f"{PACKAGE}.{contender.work}")(settings, problem, Pace(connection))
    except UserError as error:
        connection.send(error)
    except Exception as error:
        traceback.print_exc()
        connection.send(UserError(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))
    sys.exit()
