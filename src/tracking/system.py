"""System metrics of a run (CPU, memory, disk, network, GPUs), every few seconds, and the energy that it used."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

from src.tracking.energy import EnergyMeter
from src.tracking.mlflow_patches import system_metrics_monitors
from src.tracking.run_logger import RunLogger

PREFIX = "system/"  # of the names of the metrics


class SystemMetricsMonitor:
    """Context manager that logs system metrics from a thread. MLflow's own monitor stops once a server has not answered.

    Args:
        run_logger: logs the metrics.
        interval: seconds between two measurements.
    """

    def __init__(self, run_logger: RunLogger, interval: float):
        self.run_logger, self.outbox, self.interval = run_logger, run_logger.outbox, interval
        self._energy_meter = EnergyMeter()
        self._previous_joules = self.outbox.metadata.get("joules", 0.0)  # of earlier processes of a resumed run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._monitor, name="system metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        if self._energy_meter:
            with contextlib.suppress(OSError):
                self.run_logger.log_metrics({"joules": self._update_joules()}, self.outbox.metadata["processes"])

    def _update_joules(self) -> float:
        joules = self._previous_joules + self._energy_meter.joules()
        self.outbox.update_metadata(joules=joules)
        return joules

    def _monitor(self) -> None:
        step = self.outbox.last_step(PREFIX) + 1
        for values in _measurements(self.interval, self._stop):
            with contextlib.suppress(OSError):  # the disk is full: the training will report it
                self.run_logger.log_metrics(values, step)
                if self._energy_meter:
                    self._update_joules()
            step += 1


@contextlib.contextmanager
def report_system_metrics(report: Callable[[dict[str, float]], None], interval: float) -> Iterator[None]:
    """Pass on the system metrics of this machine while the block runs: of a worker that does not record the run.

    Args:
        report: called with {metric: value}.
        interval: seconds between two measurements.
    """
    stop = threading.Event()

    def monitor() -> None:
        for values in _measurements(interval, stop):
            report(values)

    thread = threading.Thread(target=monitor, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _measurements(interval: float, stop: threading.Event) -> Iterator[dict[str, float]]:
    """{metric: value}, until `stop` is set."""
    monitors = system_metrics_monitors()
    while not stop.is_set():
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= {f"{PREFIX}{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        yield values
        stop.wait(interval)
